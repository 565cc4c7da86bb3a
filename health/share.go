package health

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// Where a council decides, a target has two verdicts. The own standing is what this replica's checks have led to: rows of
// results, damping and freezes are about that. The verdict in force is what the council has decided, and what queries read.
// The council also decides who checks. A target that rests here is in no list: it is not probed, and once in a while the
// sweep looks whether anybody still wants it.

const (
	// rounds bounds how often a council is asked in a row, because what it has decided changed what there is to tell it.
	rounds = 3
	// tripsApart is how often a council is told at most that the round trip of a target is another one, which takes a factor of
	// tripsFactor.
	tripsApart  = time.Minute
	tripsFactor = 2
	// sweepEvery is how often a part of the table is looked at for targets that rest and that nobody wants, and sweepParts is
	// how many parts there are.
	sweepEvery = 250 * time.Millisecond
	sweepParts = 16
	// rousedAtOnce is how many targets at most are checked at once that rested before, in a slot of 67 ms. Of further ones the
	// first checks are spread over Fast.
	rousedAtOnce = 64
	// perTurn is how many targets at most a council is asked about in a turn, so that probes and reports do not have to wait
	// for long.
	perTurn = 4096
	// keepPending is how many targets there is always room for that are to be reconsidered.
	keepPending = 4096
)

// share is what is kept of a target beside its own checks where a council decides.
type share struct {
	convened uint32 // which council, see Monitor.convened
	queued   atomic.Bool
	// wanted and until are as Target.wanted and Target.until, but for other replicas.
	until  atomic.Uint32
	wanted atomic.Int64

	// What follows belongs to the monitor's goroutine.
	blind int32 // inconclusive results in a row
	tally struct{ up, down, of uint16 }
	// What the council knows, and when it was told the round trip.
	told      Word
	toldState State
	toldTrip  time.Duration
	timed     int64
	// What led to the own standing. The run is 0 where that was no result.
	result checker.Result
	run    int32
	err    error

	// The goroutine changes these with Monitor.statusMu held.
	since int64 // when the verdict in force began
	said  int64 // when the own word was said first
}

// sharing is what the monitor's goroutine keeps of a council.
type sharing struct {
	council  Council
	convened uint32 // the newest of Monitor.convened that was seen
	changing bool   // not all targets are with this council yet
	place    uint32 // of the next one to bring there
	frozen   bool   // what the council was told last
	sweepAt  int64
	swept    int // the first block of places to look at
	// How many targets were roused in a slot.
	roused     int
	rousedSlot int64
}

// word returns what this replica says of a target.
func (m mark) word() Word {
	switch {
	case m&rests != 0:
		return NoWord
	case m&unable != 0:
		return Unable
	case m&inherited != 0, m.own() == Unknown:
		return Checking
	case m.own() == Down:
		return SaysDown
	default:
		return SaysUp
	}
}

// decided returns the mark once a council has decided. missed tells that the target rested, and has missed checks by that.
func (m mark) decided(d Decision, missed bool) mark {
	verdict := d.State
	if d.Alone {
		verdict = m.state()
	}
	m |= shared
	switch {
	case !d.Observes && !d.Alone:
		return m.withState(verdict) | rests
	case missed:
		// What it knew itself is too old.
		m &^= damped | silenced | pointless | unable
		m = m.withOwn(verdict) | inherited
	case verdict != Unknown && verdict != m.own() && (m.own() == Unknown || m&inherited != 0):
		// It has nothing of its own to say, and goes along.
		m = m.withOwn(verdict) | inherited
	}
	if d.Alone {
		verdict = m.own()
	}
	return m.withState(verdict) &^ rests
}

// begin takes in what a council knows of a target that is new, before anybody sees it.
func (t *Target) begin(d Decision) {
	m := newMark(Unknown, checker.Inconclusive).withState(d.State) | rests
	m = m.decided(d, true)
	if d.RTT > 0 {
		t.rtt.Store(int64(d.RTT))
		m |= borrowed
	}
	t.mark.Store(uint32(m))
}

// wantForOthers asks for the target to be kept for another replica. The caller holds Monitor.mu.
func (t *Target) wantForOthers(keep time.Duration) {
	if s := t.share.Load(); s != nil {
		want(&s.wanted, keep)
	} else {
		t.want(keep)
	}
}

// noteWord notes that the mark is another one than before, after run results in a row if these have changed the own
// standing. The goroutine calls it, with statusMu held.
func (t *Target) noteWord(before mark, run int, now int64) {
	s := t.share.Load()
	if s == nil {
		return
	}
	after := t.load()
	if after.word() != before.word() {
		s.said = now
	}
	if after.state() != before.state() {
		s.since = now
	}
	if run > 0 || after.own() != before.own() {
		s.run, s.result, s.err = int32(run), after.result(), t.err
	}
}

// opinion returns what this replica says of a target. The goroutine calls it, or somebody who holds statusMu.
func (t *Target) opinion(now int64) Opinion {
	m := t.load()
	said := t.since
	if s := t.share.Load(); s != nil {
		said = s.said
	}
	o := Opinion{Word: m.word(), InForce: m.state(), Age: time.Duration(max(0, now-said)), Result: m.result()}
	if m&(rests|borrowed) == 0 {
		o.RTT = t.RTT()
	}
	return o
}

// isNews tells whether a council has to know of an opinion.
func (s *share) isNews(o *Opinion, now int64) bool {
	if o.Word != s.told || o.InForce != s.toldState {
		return true
	}
	less, more := min(o.RTT, s.toldTrip), max(o.RTT, s.toldTrip)
	return o.RTT > 0 && more >= tripsFactor*less && (s.toldTrip == 0 || now-s.timed >= int64(tripsApart))
}

// consult tells the council what this replica says of a target, if that is news or the council has asked for it, and does as
// it decides. It returns nil if the verdict in force is the same as before.
func (m *Monitor) consult(t *Target, asked bool, now int64) *Change {
	s, c := t.share.Load(), m.loop.sharing.council
	if s == nil || c == nil || s.convened != m.loop.sharing.convened || t.wanted.Load() == gone {
		return nil
	}
	m.tellFrozen()
	from := t.State()
	for range rounds {
		own := t.opinion(now)
		if !asked && !s.isNews(&own, now) {
			break
		}
		asked = false
		d := c.Decide(t, own)
		s.told, s.toldState, s.toldTrip, s.timed = own.Word, own.InForce, own.RTT, now
		m.apply(t, d, now)
	}
	return t.changeFrom(from)
}

// apply does as a council has decided.
func (m *Monitor) apply(t *Target, d Decision, now int64) {
	s, before := t.share.Load(), t.load()
	missed := before&rests != 0 && t.stage == idle
	after := before.decided(d, missed)
	if after&rests != 0 && d.RTT > 0 {
		t.rtt.Store(int64(d.RTT))
		after |= borrowed
	}
	begins := missed && after&rests == 0
	s.tally.up, s.tally.down, s.tally.of = uint16(d.Tally.Up), uint16(d.Tally.Down), uint16(d.Tally.Of)
	switch {
	case begins:
		t.run, t.noPaths, s.blind = 0, 0, 0
	case after.own() == before.own():
	case before.own() != Unknown || after.own() != Up:
		// Only a row of failures against an unknown target is one against a target that is up as well.
		t.run = 0
	}
	m.statusMu.Lock()
	t.mark.Store(uint32(after))
	if begins || after.own() != before.own() {
		t.since = now
	}
	if begins {
		t.falls = 0
	}
	t.noteWord(before, 0, now)
	m.statusMu.Unlock()
	m.recount(before, after)
	if before.state() != after.state() {
		m.waiters.wakeUp(t)
	}
	if begins {
		m.loop.rouse(t, now)
	}
}

// changeFrom returns the change of the verdict in force from what it was before, nil if there is none.
func (t *Target) changeFrom(from State) *Change {
	s, m := t.share.Load(), t.load()
	if m.state() == from {
		return nil
	}
	tally := Tally{int(s.tally.up), int(s.tally.down), int(s.tally.of)}
	c := &Change{Target: t, From: from, To: m.state(), Own: m.word(), Tally: tally, Result: m.result(), Err: t.err}
	if m.own() == c.To && (c.Own == SaysUp || c.Own == SaysDown) {
		c.Run, c.Result, c.Err = int(s.run), s.result, s.err
	}
	if from == Up && c.To == Down && c.Own == SaysDown {
		settings := settings(t.settings)
		c.Falls, c.Damping = int(t.falls), settings.damping(t.falls)
	}
	return c
}

// rouse makes a target due that has rested.
func (l *loop) rouse(t *Target, now int64) {
	s := &l.sharing
	if slot := voteSlotAt(now); slot != s.rousedSlot {
		s.roused, s.rousedSlot = 0, slot
	}
	s.roused++
	t.due = now
	if s.roused > rousedAtOnce {
		t.due += rand.Int64N(int64(settings(t.settings).Fast))
	}
	l.await(t)
}

// tellFrozen tells the council whether verdicts are frozen here, if it does not know.
func (m *Monitor) tellFrozen() {
	s := &m.loop.sharing
	if on := m.freezing.isOn(); s.council != nil && on != s.frozen {
		s.frozen = on
		s.council.Froze(on)
	}
}

// convene goes over to the newest council, with so many targets in a turn.
func (m *Monitor) convene(now int64) {
	s := &m.loop.sharing
	if m.convened.Load() != s.convened {
		m.mu.Lock()
		s.council, s.convened = m.council, m.convened.Load()
		m.mu.Unlock()
		s.changing, s.place, s.frozen = true, 0, false
		m.tellFrozen()
	}
	var block placeBlock
	for n := 0; s.changing && n < perTurn; n += placesInBlock {
		if s.changing = m.table.copyPlaces(int(s.place/placesInBlock), &block); !s.changing {
			break
		}
		for _, t := range block[s.place%placesInBlock:] {
			s.place++ // also if what follows panics
			if t != nil {
				m.bring(t, now)
			}
		}
	}
}

// bring goes over to the newest council with a target.
func (m *Monitor) bring(t *Target, now int64) {
	var c *Change
	if m.loop.sharing.council == nil {
		c = m.release(t, now)
	} else if m.enter(t) {
		c = m.consult(t, true, now)
	}
	if c != nil && m.listener != nil {
		m.listener.Changed(*c)
	}
}

// enter brings a target that is in the table before the council. It is false if the target has left the table.
func (m *Monitor) enter(t *Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := t.share.Load()
	switch {
	case t.wanted.Load() == gone || m.convened.Load() != m.loop.sharing.convened:
		return false
	case old != nil && old.convened == m.loop.sharing.convened:
		return true
	}
	s := &share{convened: m.loop.sharing.convened, since: t.since, said: t.since}
	if old != nil {
		s.since, s.said, s.run, s.result, s.err = old.since, old.said, old.run, old.result, old.err
	}
	// What the council knows comes with its decision, once it knows what is known here.
	m.council.Enter(t)
	t.share.Store(s)
	t.mark.Store(uint32(t.load() | shared))
	return true
}

// release has the own checks decide on a target from now on.
func (m *Monitor) release(t *Target, now int64) *Change {
	s := t.share.Load()
	if s == nil {
		return nil
	}
	from, since := t.State(), s.since
	m.apply(t, Decision{Alone: true}, now)
	c := t.changeFrom(from)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	if after := t.load(); after&inherited != 0 && after.state() == from {
		t.since = since
	}
	t.mark.Store(uint32(t.load() &^ shared))
	t.share.Store(nil)
	return c
}

// takeAdded takes the targets that are new.
func (m *Monitor) takeAdded(now int64) {
	m.mu.Lock()
	added := m.added
	m.added = list{}
	m.mu.Unlock()
	if m.loop.sharing.council == nil {
		m.loop.fresh.append(added)
		return
	}
	for t := added.pop(); t != nil; t = added.pop() {
		if t.load()&rests == 0 {
			m.loop.fresh.push(t)
		} else {
			t.stage = idle
		}
		m.loop.pending = append(m.loop.pending, t)
	}
}

// reconsider asks the council about the targets that somebody wants to be asked about, and about those that are new.
func (m *Monitor) reconsider(now int64) {
	l := &m.loop
	m.inboxMu.Lock()
	if len(m.pending) > 0 {
		l.pending = append(l.pending, m.pending...)
		clear(m.pending)
		m.pending = m.pending[:0]
		if cap(m.pending) > keepPending {
			m.pending = nil
		}
	}
	m.inboxMu.Unlock()
	for n := 0; n < perTurn && len(l.pending) > 0; n++ {
		t := l.pending[0]
		l.pending = l.pending[1:]
		if s := t.share.Load(); s != nil {
			s.queued.Store(false)
		}
		if c := m.consult(t, true, now); c != nil && m.listener != nil {
			m.listener.Changed(*c)
		}
	}
	if len(l.pending) == 0 {
		l.pending = nil // and with it the targets that it keeps in memory
	}
}

// sweep takes the targets that rest here and that nobody wants out of the table: each time in another part of it.
func (m *Monitor) sweep(now int64) {
	s := &m.loop.sharing
	if s.council == nil || now < s.sweepAt {
		return
	}
	s.sweepAt = now + int64(sweepEvery)
	var block placeBlock
	for range m.table.blocks()/sweepParts + 1 {
		if !m.table.copyPlaces(s.swept, &block) {
			s.swept = 0
			return
		}
		s.swept++
		for _, t := range block {
			if t != nil && t.stage == idle && !t.prolong(now) && m.forget(t) {
				m.loop.freezer.ballot.leave(t)
			}
		}
	}
}

// nextSweep returns when that is.
func (m *Monitor) nextSweep() int64 {
	if m.loop.sharing.council == nil || m.size.Load() == 0 {
		return never
	}
	return m.loop.sharing.sweepAt
}
