package peers

import (
	"net/netip"
	"slices"
	"time"
)

// takeMessages looks at the messages that have arrived. It reports whether there are more.
func (c *core) takeMessages() bool {
	if c.messages.taken == len(c.messages.ends) {
		c.messages.empty()
		c.inboxMu.Lock()
		c.messages, c.inbox = c.inbox, c.messages
		c.inboxMu.Unlock()
	}
	until := c.now() + int64(turnTime)
	for {
		message, ok := c.messages.next()
		if !ok {
			return false
		}
		c.receive(message)
		if c.now() >= until {
			return true
		}
	}
}

// receive looks at a message.
func (c *core) receive(message []byte) {
	e, body, ok := openEnvelope(message)
	switch {
	case !ok:
		c.counts.malformed.Add(1)
	case string(e.from) == c.name:
		// An own message that somebody sends back.
	case e.version != protocol:
		c.receiveNewer(string(e.from))
	case !c.receiveKind(e, body):
		c.counts.malformed.Add(1)
	}
}

// receiveKind is false if the body is not what it should be. Kinds that are not known are passed over.
func (c *core) receiveKind(e envelope, body reader) bool {
	switch e.kind {
	case kindBeat:
		x, ok := readBeat(body)
		if ok {
			c.receiveBeat(e.from, x)
		}
		return ok
	case kindChanges:
		return c.receiveChanges(e.from, body)
	case kindAsk:
		x, ok := readAsk(body)
		if ok {
			c.receiveAsk(string(e.from), x)
		}
		return ok
	case kindWants:
		return c.receiveWants(body)
	case kindGoodbye:
		if body.isDone() {
			c.left(string(e.from), true)
		}
		return body.isDone()
	default:
		c.counts.unknown.Add(1)
		return true
	}
}

func (c *core) receiveNewer(from string) {
	c.counts.unknown.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.byName[from]; m != nil {
		m.newer = true
	}
}

// hearFrom returns who has sent a message, and takes note that it was heard of. It is nil for one whom the network has not
// told of yet. The caller holds mu.
func (c *core) hearFrom(name []byte, now int64) *member {
	m := c.byName[string(name)]
	if m == nil || !m.joined {
		return nil
	}
	if m.heard == never {
		c.succeed(m)
	}
	m.heard = now
	if !m.alive && m.appraise(now, c.recheck) {
		c.reseat()
		if c.alone {
			c.alone = false
			c.tell(c.monitor.FoundPeers)
		}
	}
	return m
}

func (c *core) receiveBeat(from []byte, x beat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	m := c.hearFrom(from, now)
	if m == nil {
		return
	}
	frozen := m.frozen
	m.takeBeat(x, now)
	if m.appraise(now, c.recheck) || frozen != m.frozen {
		c.reseat()
	}
}

// receiveChanges takes entries of another's ledger. They are looked through first, so that a message is taken whole or not at all.
func (c *core) receiveChanges(from []byte, body reader) bool {
	ch, ok := readChanges(&body)
	if !ok {
		return false
	}
	begun, check, r := false, ch, body
	var e entry
	for check.next(&r, &e, &begun) {
	}
	if !r.isDone() {
		return false
	}
	if c.isNews(from, &ch) {
		c.takeEntries(from, ch, body)
	}
	return true
}

// isNews tells whether anything in a message may be new, and gets ready to take it.
func (c *core) isNews(from []byte, ch *changes) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.hearFrom(from, c.now())
	if m == nil {
		return false
	}
	m.newest = max(m.newest, ch.last, ch.whole)
	if ch.whole > max(m.whole, m.base) {
		m.whole = ch.whole
		if m.words > 0 || len(m.notes) > 0 || len(m.offers) > 0 {
			m.have = nil
		} else {
			m.base = ch.whole
		}
	}
	return !m.have.has(span{ch.first, ch.last})
}

// takeEntries takes the entries of a message, some at a time, so that nobody waits for the lock for long.
func (c *core) takeEntries(from []byte, ch changes, body reader) {
	whole := ch
	var numbers []uint64 // of all entries, where that matters
	begun := false
	some := func() (more bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		m := c.byName[string(from)]
		if m == nil {
			return false
		}
		now := c.now()
		var e entry
		for n := 0; ch.next(&body, &e, &begun); n++ {
			if whole.whole != 0 {
				numbers = append(numbers, e.number)
			}
			if !m.have.has(span{e.number, e.number}) {
				c.takeEntry(m, &e, now)
			}
			if n == piece {
				return true
			}
		}
		c.takeSpan(m, &whole, numbers, now)
		return false
	}
	for some() {
	}
}

// takeSpan takes note that all of a message is known.
func (c *core) takeSpan(m *member, ch *changes, numbers []uint64, now int64) {
	if ch.whole != 0 && m.base < ch.whole {
		c.forgetRemoved(m, span{ch.first, ch.last}, numbers)
	}
	level := m.have.level()
	m.have.add(span{ch.first, ch.last})
	if m.whole > m.base && m.have.level() >= m.whole {
		m.base = m.whole
	}
	if !m.keepLevel(now) {
		if m.have.level() > level {
			m.asked, m.askWait = min(m.asked, now+askOn), 0
		}
		return
	}
	for _, r := range m.buried {
		if v := r.voice(m); v != nil && v.isNothing() {
			c.records.silence(r, m)
		}
	}
	m.buried = nil
}

// forgetRemoved forgets what a member has said with numbers of a span, but for those that it still says.
func (c *core) forgetRemoved(m *member, x span, numbers []uint64) {
	removed := func(number uint64) bool {
		_, found := slices.BinarySearch(numbers, number)
		return x.first <= number && number <= x.last && !found
	}
	for i := len(c.records.all) - 1; i >= 0 && m.words > 0; i-- {
		r := c.records.all[i]
		if v := r.voice(m); v != nil && removed(v.number) && c.records.silence(r, m) && r.topic != nil {
			c.reconsider(r.topic)
		}
	}
	for settings, claim := range m.offers {
		if removed(claim.number) {
			delete(m.offers, settings)
			c.reseat()
		}
	}
}

// takeEntry takes an entry with a number that was not known.
func (c *core) takeEntry(m *member, e *entry, now int64) {
	switch e.sort {
	case sortWord4, sortWord6:
		c.takeWord(m, e, now)
	case sortOffer, sortNoOffer:
		have, known := m.offers[e.offer]
		if known && have.number > e.number || !known && len(m.offers) >= maxOffers {
			return
		}
		m.offers[e.offer] = claim{e.number, e.sort == sortOffer}
		if have.offered != (e.sort == sortOffer) {
			c.reseat()
		}
	case sortNote:
		if have, known := m.notes[string(e.note.key)]; known && have > e.number || !known && len(m.notes) >= maxNotes {
			return
		}
		m.notes[string(e.note.key)] = e.number
		if len(e.note.value) == 0 {
			delete(m.notes, string(e.note.key)) // it is removed
		}
		name, key, value := m.name, string(e.note.key), slices.Clone(e.note.value)
		c.tell(func() { c.listener.Noted(name, key, value) })
	}
}

func (c *core) takeWord(m *member, e *entry, now int64) {
	nothing := e.opinion.isNothing()
	gaps := m.have.level() < e.number-1
	r := c.records.get(e.key, !nothing || gaps)
	if r == nil {
		m.overfull = m.overfull || !nothing
		return
	}
	v := r.voice(m)
	switch {
	case v != nil && v.number > e.number:
		return
	case v == nil && m.words >= maxWords:
		m.overfull = true
		c.records.drop(r)
		return
	case nothing && !gaps:
		if v != nil && c.records.silence(r, m) && r.topic != nil {
			c.reconsider(r.topic)
		}
		return
	case nothing && (v == nil || !v.isNothing()):
		m.buried = append(m.buried, r)
	}
	if c.records.hear(r, voice{member: m, number: e.number, said: now - int64(e.age), opinion: e.opinion}) && r.topic != nil {
		c.reconsider(r.topic)
	}
}

const (
	// answerAgain is how long after an answer the next is sent to the same member.
	answerAgain = int64(100 * time.Millisecond)
	// strangersAnswered is how many packets are sent to those whom the network has not told of yet, in a second.
	strangersAnswered = 1000
)

// receiveAsk sends what is asked for.
func (c *core) receiveAsk(from string, a ask) {
	var m *member
	var told uint64
	soon, whole := false, false
	c.locked(func() {
		now := c.now()
		if m = c.hearFrom([]byte(from), now); m != nil {
			if soon = now < m.answered; !soon {
				m.answered = now + answerAgain
			}
		}
		told = c.told
		whole = a.base < c.ledger.forgotten && a.spans[0].first <= c.ledger.forgotten
	})
	if soon {
		return
	}
	if whole {
		a.spans = []span{{1, told}}
	}
	for _, x := range a.spans {
		x.last = min(x.last, told)
		switch {
		case x.first > x.last:
		case m != nil:
			c.sendSpan(x, whole, func(message []byte, reliable bool) { c.send(from, message, reliable) })
		default:
			c.answerStranger(from, a.at, x, whole)
		}
	}
}

// answerStranger sends the first packets of what is asked for to somebody whom the network has not told of yet.
func (c *core) answerStranger(to string, at netip.AddrPort, x span, whole bool) {
	for range burstPackets {
		more := false
		c.locked(func() {
			if more = x.first <= x.last && c.strangersLeft > 0; more {
				c.strangersLeft--
				x.first = c.fill(x, whole, packetSize)
			}
		})
		if !more {
			return
		}
		c.network.sendTo(to, at, c.buffer)
	}
}

// receiveWants takes targets into the table that another replica wants to have checked here.
func (c *core) receiveWants(body reader) bool {
	var w wantsReader
	check, r := w, body
	for _, ok := check.next(&r); ok; _, ok = check.next(&r) {
	}
	if !r.isDone() {
		return false
	}
	for k, ok := w.next(&body); ok; k, ok = w.next(&body) {
		c.oblige(k)
	}
	return true
}

// oblige begins to check a subject for others, or tells that this replica cannot.
func (c *core) oblige(k key) {
	c.mu.Lock()
	offered := c.self.offers[k.settings].offered
	_, refused := c.refused[k]
	if c.wantsTaken == 0 || !offered || refused {
		c.mu.Unlock()
		return
	}
	c.wantsTaken--
	may := c.config.MayCheck
	c.mu.Unlock()
	settings, keep, ok := may(k.subject())
	if ok && c.monitor.Observe(k.subject().Addr, settings, keep) != nil {
		c.stepIn(k)
		return
	}
	c.refuse(k, ok)
}
