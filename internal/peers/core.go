package peers

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// network carries messages between replicas. Its methods do not wait for anybody and keep no slice.
type network interface {
	// send sends to a member, by name.
	send(to string, message []byte, reliable bool)
	// sendTo sends a packet to who has a name and listens there, and may not be a member yet.
	sendTo(to string, at netip.AddrPort, message []byte)
}

const (
	// tick is how often is looked at what has passed.
	tick = 250 * time.Millisecond
	// beatEvery is how often a heartbeat is sent, less up to a tenth at random.
	beatEvery = time.Second
	// pauseFrom is how late a tick is that tells that this process was stopped.
	pauseFrom = time.Second
	// turnTime is after what time messages wait until all else that is due is done.
	turnTime = 20 * time.Millisecond
	// piece is how many records or topics are looked at before the lock is given up for a moment.
	piece = 512

	// maxRecheck bounds for how long what was said before an absence does not count.
	maxRecheck = 10 * time.Second
	// maxInbox bounds what has arrived and was not looked at yet.
	maxInbox = 16 << 20
)

// core is what the replicas know of each other, and what is decided by that. It is a [health.Council].
//
// Enter is called with the lock of the monitor's table held. So mu is never held while the monitor is called, but for
// what needs no lock of it, nor while the network or a listener is.
type core struct {
	name     string // of this replica
	monitor  *health.Monitor
	listener Listener
	network  network
	epochAt  time.Time // when now was 0
	wake     chan struct{}

	fingerprints     sync.Map // of settings, by health.Key
	fingerprintCount atomic.Int64

	inboxMu sync.Mutex
	inbox   inbox

	mu         sync.Mutex
	config     Config
	configured uint64 // counts how often that has changed
	self       *member
	members    []*member // by name, this one among them
	byName     map[string]*member
	ledger     ledger
	records    records
	topics     []*topic
	byTarget   map[*health.Target]*topic
	refused    map[key]int64 // subjects that this replica said it cannot check, and until when that holds

	// recheck is for how long the words do not count that a replica said before it was lost or stopped. By then it has checked
	// all targets anew, since they are all due, if their timeouts are not too long.
	recheck    time.Duration
	notices    map[uint64]time.Duration // of settings: how long it takes to notice that a target has changed
	topicsWith map[uint64]int           // how many have certain settings

	observers int
	rosters   map[uint64]*roster
	epoch     uint64 // counts how often the candidates have changed
	reseated  int64  // when they last did
	unwalked  int    // topics that were not looked at since
	unheard   int    // of the silent topics, how many were not looked at since the last tick
	suspicion suspicion
	unswept   int // records that may have voices of members that were dismissed

	silent    []*topic // somebody who shall check them has said nothing
	due       []*topic // of these, those to ask for at once
	differing []*topic // the own word differs from the verdict in force
	again     []*health.Target
	news      []func()

	told     uint64 // entries up to this number were sent to all
	beatAt   int64
	tickAt   int64
	secondAt int64
	alone    bool // all peers were lost, and the monitor knows
	wants    []want
	// What follows is how much is left of what may be done in a second.
	wantsLeft, wantsTaken, strangersLeft, linesLeft int

	counts struct{ malformed, unknown, lost atomic.Uint64 } // messages; octets and the rest are what the network counts

	// What follows spares allocations.
	ranked   []ranked
	voters   []*member
	seated   []*member
	panels   []panel
	verdicts []health.State
	opinions []health.Opinion

	// Only the goroutine of run touches these.
	messages inbox
	telling  []func() // of news, what was not told yet
	buffer   []byte
	names    []string
}

func newCore(config Config, name string, m *health.Monitor, l Listener, n network) *core {
	c := &core{
		name: name, monitor: m, listener: l, network: n, epochAt: time.Now(), wake: make(chan struct{}, 1),
		byName: make(map[string]*member), ledger: newLedger(), records: records{of: make(map[key]*record)},
		byTarget: make(map[*health.Target]*topic), refused: make(map[key]int64), rosters: make(map[uint64]*roster), topicsWith: make(map[uint64]int),
	}
	c.self = newMember(name, 0)
	c.self.self, c.self.joined, c.self.alive, c.self.heard = true, true, true, 0
	c.self.protocol = protocol
	c.self.host, _ = os.Hostname()
	c.members, c.byName[name] = []*member{c.self}, c.self
	c.wantsLeft, c.wantsTaken, c.strangersLeft, c.linesLeft = maxWants, maxWants, strangersAnswered, maxLines
	c.configure(config)
	return c
}

func (c *core) now() int64 { return int64(time.Since(c.epochAt)) }

// wakeUp has the goroutine take a turn soon.
func (c *core) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// configure changes what the group is made of.
func (c *core) configure(config Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config.MayCheck == nil {
		config.MayCheck = func(health.Subject) (k health.Key, keep time.Duration, ok bool) { return k, 0, false }
	}
	c.config = config
	c.observers = config.Observers
	if c.observers <= 0 {
		c.observers = defaultObservers
	}
	c.observers = min(c.observers, maxObservers)
	c.self.at = config.Address
	c.self.site, c.self.quorum, c.self.shaker, c.self.observers = config.Site, config.Quorum, config.Shaker, byte(c.observers)
	c.self.longest = 0
	offered := make(map[uint64]claim)
	c.notices, c.recheck = make(map[uint64]time.Duration), time.Second
	for _, k := range config.Offers {
		s := health.SettingsOf(k)
		settings := health.Fingerprint(k)
		offered[settings] = claim{offered: true}
		c.notices[settings] = s.Notices()
		c.recheck = max(c.recheck, min(s.Notices()-s.Interval, maxRecheck))
		c.self.longest = max(c.self.longest, s.Timeout)
	}
	for settings := range c.self.offers {
		if !offered[settings].offered {
			c.ledger.offer(settings, false)
		}
	}
	for settings := range offered {
		c.ledger.offer(settings, true)
	}
	c.self.offers = offered
	c.configured++
	for k := range c.refused {
		if c.mayCheck(k) {
			c.takeBack(k)
		}
	}
	c.reseat()
	c.wakeUp()
}

// meta returns what this replica tells of itself before anything else, in at most 512 octets.
func (c *core) meta() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return appendMeta(nil, &c.self.meta)
}

// joined takes note of a member that the network reaches from now on, or of what it tells anew of itself.
func (c *core) joined(name string, at netip.AddrPort, octets []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name == c.name || len(name) > maxName || name == "" {
		return
	}
	now := c.now()
	m := c.byName[name]
	if m == nil {
		if m = c.admit(name, at, now); m == nil {
			return
		}
	}
	m.joined, m.at = true, at
	if x, ok := readMeta(octets); ok {
		if x.site != m.site || x.quorum != m.quorum {
			defer c.reseat()
		}
		m.meta = x
	}
	m.asked = max(now, 1)
	c.beatAt = min(c.beatAt, now)
	c.wakeUp()
}

// admit makes a new member. It is nil where there are too many. At its address may be another one that is there still: the
// network may tell of a replica long after another has taken its place.
func (c *core) admit(name string, at netip.AddrPort, now int64) *member {
	for _, m := range slices.Clone(c.members) {
		if isGone := !m.alive && !m.joined; !m.self && m.at == at && (isGone || len(c.members) >= maxMembers) {
			c.dismiss(m)
		}
	}
	if len(c.members) >= maxMembers {
		if m := c.longestLost(); m != nil {
			c.dismiss(m)
		}
	}
	if len(c.members) >= maxMembers {
		if c.linesLeft > 0 {
			c.linesLeft--
			c.tellLine(fmt.Sprintf("Peer %q (%v) is left out: there are %d members, which are the most", name, at, maxMembers), true)
		}
		return nil
	}
	m := newMember(name, now)
	m.at = at
	place, _ := slices.BinarySearchFunc(c.members, name, func(m *member, name string) int { return strings.Compare(m.name, name) })
	c.members = slices.Insert(c.members, place, m)
	c.byName[name] = m
	return m
}

// succeed forgets who was at the address of a member before, now that this one is heard of. A replica that starts anew has
// another name.
func (c *core) succeed(m *member) {
	for _, other := range slices.Clone(c.members) {
		if other != m && !other.self && other.at == m.at && other.heard != never {
			c.dismiss(other)
		}
	}
}

// isOutdated tells whether the network told of a member where another one speaks.
func (c *core) isOutdated(m *member) bool {
	return m.heard == never && slices.ContainsFunc(c.members, func(other *member) bool { return other.alive && !other.self && other.at == m.at })
}

func (c *core) longestLost() (lost *member) {
	for _, m := range c.members {
		if !m.self && !m.joined && !m.alive && (lost == nil || m.heard < lost.heard) {
			lost = m
		}
	}
	return lost
}

// left takes note of a member that the network does not reach any more, or that leaves.
func (c *core) left(name string, goodbye bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.byName[name]
	if m == nil || m.self {
		return
	}
	m.joined = false
	switch {
	case goodbye:
		c.tellGoodbye(m)
		c.dismiss(m)
	case m.heard == never:
		c.dismiss(m)
	}
	c.wakeUp()
}

// dismiss forgets a member. What it has said is swept away piece by piece, and counts no more from now on.
func (c *core) dismiss(m *member) {
	if c.byName[m.name] != m {
		return
	}
	delete(c.byName, m.name)
	c.members = slices.DeleteFunc(c.members, func(x *member) bool { return x == m })
	m.alive, m.joined, m.dismissed = false, false, true
	c.unswept = len(c.records.all)
	c.reseat()
}

// forgetWords forgets all that a member has said.
func (c *core) forgetWords(m *member) {
	fresh := newMember(m.name, m.since)
	fresh.meta, fresh.at, fresh.joined, fresh.heard, fresh.told = m.meta, m.at, m.joined, m.heard, m.told
	c.members[slices.Index(c.members, m)] = fresh
	c.byName[m.name] = fresh
	m.alive, m.joined, m.dismissed = false, false, true
	c.unswept = len(c.records.all)
	c.reseat()
}

// sweep forgets some of what dismissed members have said. It reports whether there is more.
func (c *core) sweep() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unswept = min(c.unswept, len(c.records.all))
	for range piece {
		if c.unswept == 0 {
			return false
		}
		c.unswept--
		r := c.records.all[c.unswept]
		for i := len(r.voices) - 1; i >= 0; i-- {
			if m := r.voices[i].member; m.dismissed {
				c.records.silence(r, m)
			}
		}
	}
	return true
}

// reseat has all topics looked at again, since the candidates have changed.
func (c *core) reseat() {
	c.epoch++
	c.reseated = c.now()
	clear(c.rosters)
	c.unwalked = len(c.topics)
	c.wakeUp()
}

// reconsider has a topic decided anew, soon.
func (c *core) reconsider(x *topic) {
	if x.queued {
		return
	}
	x.queued = true
	c.askAgain(x.targets...)
}

// askAgain has the monitor ask again about targets, soon.
func (c *core) askAgain(targets ...*health.Target) {
	if len(targets) > 0 {
		c.again = append(c.again, targets...)
		c.wakeUp()
	}
}

// tell has a listener told something when the lock is not held any more.
func (c *core) tell(f func()) {
	c.news = append(c.news, f)
	c.wakeUp()
}

// inbox is messages that have arrived, one behind the other.
type inbox struct {
	octets []byte
	ends   []int
	taken  int
}

// take copies a message, to be looked at soon. It never waits for anybody. Where there is no room the message is lost.
func (c *core) take(message []byte) {
	c.inboxMu.Lock()
	if fits := len(message) <= reliableSize+packetSize && len(c.inbox.octets)+len(message) <= maxInbox; fits {
		c.inbox.octets = append(c.inbox.octets, message...)
		c.inbox.ends = append(c.inbox.ends, len(c.inbox.octets))
	} else {
		c.counts.lost.Add(1)
	}
	c.inboxMu.Unlock()
	c.wakeUp()
}

// next returns the next message.
func (in *inbox) next() (message []byte, ok bool) {
	if in.taken == len(in.ends) {
		return nil, false
	}
	begin := 0
	if in.taken > 0 {
		begin = in.ends[in.taken-1]
	}
	message = in.octets[begin:in.ends[in.taken]]
	in.taken++
	return message, true
}

// keepInbox is how many octets there is always room for.
const keepInbox = 1 << 16

func (in *inbox) empty() {
	in.octets, in.ends, in.taken = in.octets[:0], in.ends[:0], 0
	if cap(in.octets) > keepInbox {
		*in = inbox{}
	}
}

// run is the goroutine that talks with the others.
func (c *core) run(ctx context.Context) {
	pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels("shaker", "peers")))
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.begin()
	for {
		at := c.guardedTurn()
		timer.Reset(time.Duration(max(at-c.now(), 0)))
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// begin has time begin.
func (c *core) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tickAt = c.now() + int64(tick)
}

// guardedTurn takes a turn. A mistake of ours ends it early, and not the process; the next one goes on behind what led to it.
func (c *core) guardedTurn() (at int64) {
	defer func() {
		if reason := recover(); reason != nil {
			c.listener.Recovered("while other replicas were talked to", reason)
			at = c.now() + int64(tick)
		}
	}()
	return c.turn()
}

// locked calls f with mu held, and gives that up also if f panics.
func (c *core) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// turn does all there is to do, and returns when the next one is due.
func (c *core) turn() (at int64) {
	more := c.takeMessages()
	c.passTime()
	c.askForTargets()
	more = c.walk() || more
	more = c.sweep() || more
	more = c.lookAtSilent() || more
	more = c.doubt() || more
	c.flushReconsidered()
	c.sendChanges()
	c.sendAsks()
	c.sendBeat()
	c.flushNews()
	if more {
		return c.now()
	}
	return c.nextTurn()
}

func (c *core) nextTurn() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := min(c.tickAt, c.beatAt)
	for _, m := range c.members {
		if m.asked != 0 && m.joined {
			at = min(at, m.asked)
		}
	}
	return at
}

// passTime looks at what has passed since it was last called.
func (c *core) passTime() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now < c.tickAt {
		return
	}
	if late := now - c.tickAt; late > int64(pauseFrom) {
		for _, m := range c.members {
			m.pause(late, now)
		}
		if late > int64(silentAfter) {
			c.self.stale, c.self.freshAt = c.ledger.newest, now+int64(c.recheck)
			c.reseat()
		}
	}
	c.tickAt = now + int64(tick)
	c.appraise(now)
	c.unheard = len(c.silent)
	if now >= c.secondAt {
		c.secondAt = now + int64(time.Second)
		c.passSecond(now)
	}
}

// passSecond does what is done each second.
func (c *core) passSecond(now int64) {
	c.wantsLeft, c.wantsTaken, c.strangersLeft, c.linesLeft = maxWants, maxWants, strangersAnswered, maxLines
	c.suspicion.begin()
	c.lookAtDiffering(now)
	for k, until := range c.refused {
		if now >= until {
			c.takeBack(k)
		}
	}
	for _, m := range slices.Clone(c.members) {
		switch silent := now - max(m.heard, m.since); {
		case m.self, m.alive:
		case silent > int64(keepMember) && !m.joined:
			c.dismiss(m)
		case silent > int64(keepWords) && len(m.have) > 0:
			c.forgetWords(m)
		}
	}
	c.tellMembers(now)
}

// appraise finds out whose words may count, and tells the monitor where nobody is left, or somebody is back.
func (c *core) appraise(now int64) {
	were, are := 0, 0
	for _, m := range c.members {
		if m.stale > 0 && m.alive && now >= m.freshAt {
			m.stale = 0
			c.reseat()
		}
		if m.self {
			continue
		}
		if m.alive {
			were++
		}
		if m.appraise(now, c.recheck) {
			c.reseat()
		}
		if m.alive {
			are++
		}
	}
	switch {
	case were > 0 && are == 0 && !c.alone:
		c.alone = true
		c.tell(func() { c.monitor.LostPeers(lostWithin) })
	case are > 0 && c.alone:
		c.alone = false
		c.tell(c.monitor.FoundPeers)
	}
}

// lostWithin is the time in which peers and targets fall silent that do so together.
const lostWithin = silentAfter + beatEvery

// walk looks at some topics whose panels may have changed. It reports whether there are more.
func (c *core) walk() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	// From the last on: in the place of one that leaves comes the last, which was looked at already or is new.
	c.unwalked = min(c.unwalked, len(c.topics))
	for range piece {
		if c.unwalked == 0 {
			return false
		}
		c.unwalked--
		x := c.topics[c.unwalked]
		own := c.assemble(x, c.rosterOf(x.record.key.settings), now)
		if c.signature(own.checks) != x.signature || own.wanting != x.wanting {
			c.reconsider(x)
		}
	}
	return true
}

func (c *core) flushReconsidered() {
	c.mu.Lock()
	again := c.again
	c.again = nil
	c.mu.Unlock()
	if len(again) > 0 {
		c.monitor.Reconsider(again...)
	}
}

func (c *core) flushNews() {
	for {
		c.mu.Lock()
		c.telling = append(c.telling, c.news...)
		c.news = nil
		c.mu.Unlock()
		if len(c.telling) == 0 {
			c.telling = nil
			return
		}
		for len(c.telling) > 0 {
			tell := c.telling[0]
			c.telling = c.telling[1:]
			tell()
		}
	}
}

// others returns the names of all that the network reaches. The caller holds mu.
func (c *core) others() []string {
	c.names = c.names[:0]
	for _, m := range c.members {
		if !m.self && m.joined {
			c.names = append(c.names, m.name)
		}
	}
	return c.names
}

// broadcast sends a message to all.
func (c *core) broadcast(to []string, message []byte, reliable bool) {
	for _, name := range to {
		c.send(name, message, reliable)
	}
}

func (c *core) send(to string, message []byte, reliable bool) {
	c.network.send(to, message, reliable || len(message) > packetSize)
}

// sendChanges sends what this replica has said since it was last called, to all.
func (c *core) sendChanges() {
	for {
		c.mu.Lock()
		first, last := c.told+1, c.ledger.newest
		to := c.others()
		c.mu.Unlock()
		if first > last {
			return
		}
		if len(to) > 0 {
			c.sendSpan(span{first, last}, false, func(message []byte, reliable bool) { c.broadcast(to, message, reliable) })
		}
		c.mu.Lock()
		c.told = last
		// Whoever has missed it learns that from the next heartbeat.
		c.beatAt = min(c.beatAt, c.now()+int64(beatSoon))
		c.mu.Unlock()
	}
}

// beatSoon is how long after changes a heartbeat is sent at the latest.
const beatSoon = 200 * time.Millisecond

// sendSpan sends the entries with certain numbers: in packets if they are few, else in as few messages as they fit into.
func (c *core) sendSpan(x span, whole bool, send func(message []byte, reliable bool)) {
	size, reliable := packetSize, false
	c.locked(func() {
		if entries := c.ledger.find(min(x.last, c.ledger.newest)+1) - c.ledger.find(x.first); entries > burstPackets*packetSize/leastEntry {
			size, reliable = reliableSize, true
		}
	})
	for x.first <= x.last {
		c.locked(func() { x.first = c.fill(x, whole, size) })
		send(c.buffer, reliable)
	}
	if cap(c.buffer) > keepInbox {
		c.buffer = nil
	}
}

// fill puts a message with the entries of a span into the buffer, as far as they fit, and returns the number behind them. The
// caller holds mu.
func (c *core) fill(x span, whole bool, size int) (next uint64) {
	ch := changes{first: x.first, last: x.last}
	if whole {
		ch.whole = c.ledger.newest
	}
	var last uint64
	c.buffer, last = c.ledger.append(c.buffer[:0], c.name, ch, size, c.now())
	return last + 1
}

// leastEntry is how many octets an entry of a ledger has in a message, about.
const leastEntry = 10

// sendBeat sends the heartbeat if it is due.
func (c *core) sendBeat() {
	to := c.beat()
	c.broadcast(to, c.buffer, false)
}

// beat puts the heartbeat into the buffer if it is due, and returns whom to send it to.
func (c *core) beat() (to []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now < c.beatAt {
		return nil
	}
	c.beatAt = now + int64(beatEvery) - rand.Int64N(int64(beatEvery)/10)
	s := c.self
	s.newest = c.told
	s.finished, s.pending = c.checks()
	s.observed = uint64(s.words)
	s.have = append(s.have[:0], span{1, s.newest})
	c.buffer = appendBeat(appendEnvelope(c.buffer[:0], kindBeat, c.name), &s.beat)
	return c.others()
}

// checks returns how many checks were finished here, and how many are not.
func (c *core) checks() (finished, pending uint64) {
	finished, n := c.monitor.Checks()
	return finished, uint64(max(n, 0))
}

// sendAsks asks members for what is missing.
func (c *core) sendAsks() {
	due, asks := c.asks()
	for i, m := range due {
		c.buffer = appendAsk(appendEnvelope(c.buffer[:0], kindAsk, c.name), &asks[i])
		c.send(m.name, c.buffer, false)
	}
}

// asks returns who is to be asked now, and for what.
func (c *core) asks() (due []*member, asks []ask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for _, m := range c.members {
		if m.self || m.asked == 0 || now < m.asked || !m.joined {
			continue
		}
		missing := m.have.gaps(m.newest)
		if !m.greeted {
			missing = []span{{m.have.level() + 1, math.MaxUint64}}
		}
		if len(missing) == 0 {
			m.asked, m.askWait = 0, 0
			continue
		}
		// What is not there by then is asked for again.
		m.askWait = min(max(2*m.askWait, askAgain), int64(time.Second))
		m.asked = now + m.askWait - rand.Int64N(m.askWait/4)
		due, asks = append(due, m), append(asks, ask{missing, m.base, c.self.at})
	}
	return due, asks
}

// goodbye tells all others that this replica leaves.
func (c *core) goodbye() {
	c.mu.Lock()
	to := slices.Clone(c.others())
	c.mu.Unlock()
	c.broadcast(to, appendEnvelope(nil, kindGoodbye, c.name), false)
}

// settle is how long after a member has told all it knows it has to be waited for what it tells then, because it knows this
// replica: targets that are down and that nobody checked but a replica that is gone.
const settle = time.Second

// ready tells whether all that the others say is known here.
func (c *core) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for _, m := range c.members {
		if !m.self && m.joined && (m.levelAt == 0 || now-m.levelAt < int64(settle)) && !c.isOutdated(m) {
			return false
		}
	}
	return true
}

// note has all others told a note.
func (c *core) note(key string, value []byte) (fits bool) {
	if len(key) > maxNoteKey || len(value) > maxNoteValue {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, fits := c.ledger.write(note{[]byte(key), value})
	if changed {
		c.wakeUp()
	}
	return fits
}

// nonce makes a suffix of a name, see nameOf.
func nonce() uint64 { return rand.Uint64() }

// nameOf returns a name that no other replica has, nor this one had before.
func nameOf(host string) string {
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	b := append([]byte(cut(host, maxHost/4)), '-')
	x := binary.BigEndian.AppendUint64(nil, nonce())
	for _, o := range x {
		b = append(b, digits[o%32])
	}
	return string(b)
}
