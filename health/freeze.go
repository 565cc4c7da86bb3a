package health

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// When everything seems to die at once, it is likelier that this machine was cut off. Before a target goes down by
// silence, the others are asked: of all that were heard of or fell silent since its first failed probe was sent, how
// many fell silent? If they are nearly all, not few, and not all on one network, verdicts freeze. While they are
// frozen silence brings nothing down, until most targets answer again. A RST still does, since it comes from outside.
//
// Answers from elsewhere prove that the path works. So a freeze takes far more silence than the half at which Envoy
// panics and sends to all hosts: of two sites one may well die, and its addresses have to leave the answers. And every
// freeze ends after a while. Everything may really be down, and then a fallback is what somebody asked for.

const (
	// frozenFrom is how many have to be silent at least: a handful can die at the same time.
	frozenFrom = 10
	// Addresses with the same first bits are on the same network.
	networkBits4, networkBits6 = 24, 64

	// A slot is 2^26 ns = 67 ms, and all of them span 34 s.
	voteSlots, voteSlotBits = 512, 26
	// leastVoteSlots is half a second. It is looked at, too, because a row of failures may be shorter than the time
	// in which 10 others fail.
	leastVoteSlots = 8
)

// Freeze tells that verdicts freeze or thaw.
type Freeze struct {
	// Frozen is true when verdicts freeze, false when they thaw.
	Frozen bool
	// Silent is how many targets had fallen silent when verdicts froze, and Heard how many had answered or refused.
	// Both are 0 when they thaw.
	Silent, Heard int64
	// Took is how long verdicts were frozen when they thaw, and Expired tells that they thaw because it took too long.
	Took    time.Duration
	Expired bool
}

// SetFreeze makes verdicts freeze when this machine seems to be cut off: when percent (1 to 100) of the targets
// that were up, and at least 10 on more than one network, have fallen silent. They thaw when the majority is heard of
// again, and after most in any case. A percent of 0, as it is at first, turns that off.
func (m *Monitor) SetFreeze(percent int, most time.Duration) {
	m.freezing.percent.Store(int64(percent))
	m.freezing.most.Store(int64(most))
	m.signal()
}

// Frozen tells whether verdicts are frozen, and since when. See [Status] for what that instant is made of.
func (m *Monitor) Frozen() (since time.Time, frozen bool) {
	at := m.freezing.since.Load()
	if at == 0 {
		return time.Time{}, false
	}
	return m.clock.at(at), true
}

// freezing is what all goroutines may see of a freeze. Only that of the monitor changes since.
type freezing struct {
	percent, most atomic.Int64
	since         atomic.Int64 // 0 while not frozen
}

// freezer is what only the monitor's goroutine touches. It is about the freeze that is on, or the last one.
type freezer struct {
	ballot ballot
	from   int64 // the first slot whose votes count for its end
	thawed int64 // when it ended
	spent  bool  // it ended although the majority had not been heard of; there is no other before that is
}

func isSilence(r checker.Result) bool { return r == checker.Timeout || r == checker.Unreachable }

// takeVote takes the vote of a target when a result of it is in. Verdicts thaw where the majority is heard of by it.
func (m *Monitor) takeVote(t *Target, r checker.Result, now int64) {
	f := &m.loop.freezer
	if t.run == 0 {
		t.doubted = uint32(voteSlotAt(t.sent))
	}
	switch {
	case r == checker.Answered, r == checker.Refused:
		f.ballot.cast(t, false)
		if (m.isFrozen() || f.spent) && f.ballot.since(f.from).recovered() {
			f.spent = false
			m.thaw(now, false)
		}
	case isSilence(r) && t.State() == Up:
		f.ballot.cast(t, true)
	}
}

// isDoomed tells whether a result, the newest, brings the target down by silence unless verdicts are frozen.
func (t *Target) isDoomed(r checker.Result, s Settings) bool {
	return isSilence(r) && t.State() != Down && int(t.run)+1 >= s.Fall
}

// isExcused tells whether a result says nothing of its target, because this machine is cut off, or was when the probe
// was sent.
func (m *Monitor) isExcused(t *Target, r checker.Result, s Settings) bool {
	if t.sent < m.loop.freezer.thawed {
		return isSilence(r) && t.State() != Down
	}
	return m.isFrozen() && t.isDoomed(r, s)
}

func (m *Monitor) isFrozen() bool { return m.freezing.since.Load() != 0 }

// freezeIfCutOff freezes verdicts if this machine is cut off. The others are asked since the first failure of the
// target that is about to go down.
func (m *Monitor) freezeIfCutOff(t *Target, now int64) {
	f := &m.loop.freezer
	if m.isFrozen() || f.spent || t.sent < f.thawed {
		return
	}
	percent := m.freezing.percent.Load()
	slot := int64(t.doubted) + 1
	sum := f.ballot.since(slot)
	if recent := f.ballot.now - leastVoteSlots; !sum.isCutOff(percent) && recent < slot {
		slot = recent
		sum = f.ballot.since(slot)
	}
	if !sum.isCutOff(percent) {
		return
	}
	f.from = slot
	m.freezing.since.Store(max(now, 1))
	m.tellFreeze(Freeze{Frozen: true, Silent: sum.silent, Heard: sum.heard})
	for t := range m.All() {
		if f.fellWith(t, now) {
			m.restore(t, now)
		}
	}
}

// fellWith tells whether a target went down by silence so recently that others may not have been probed since.
func (f *freezer) fellWith(t *Target, now int64) bool {
	s := t.Settings()
	return t.State() == Down && t.vote.silent() && t.vote.slot() > f.ballot.now-voteSlots &&
		now-t.since <= int64(s.Interval+s.Timeout)
}

// restore brings a target back that went down by a silence which turned out to be this machine's fault.
func (m *Monitor) restore(t *Target, now int64) {
	before := t.load()
	m.statusMu.Lock()
	t.mark.Store(uint32(newMark(Up, before.result()) | before&pointless))
	t.since = now
	t.falls--
	m.statusMu.Unlock()
	t.run = 0
	m.recount(before, t.load())
	if m.observer != nil {
		c := Change{Target: t, From: Down, To: Up, Result: t.Result(), Err: t.err}
		m.loop.news = append(m.loop.news, func() { m.observer.Changed(c) })
	}
}

// passTime moves the votes on to now, and ends a freeze that took too long or that nobody wants any more.
func (m *Monitor) passTime(now int64) {
	m.loop.freezer.ballot.advance(now)
	since := m.freezing.since.Load()
	if since == 0 {
		return
	}
	if wanted := m.freezing.percent.Load() > 0; !wanted || now-since >= m.freezing.most.Load() {
		m.loop.freezer.spent = wanted
		m.thaw(now, wanted)
	}
}

// thaw ends a freeze, if there is one. All rows of failures begin anew.
func (m *Monitor) thaw(now int64, expired bool) {
	since := m.freezing.since.Swap(0)
	if since == 0 {
		return
	}
	m.loop.freezer.thawed = now
	for t := range m.All() {
		if t.State() != Down {
			t.run = 0
		}
	}
	m.tellFreeze(Freeze{Took: time.Duration(now - since), Expired: expired})
}

func (m *Monitor) tellFreeze(f Freeze) {
	if m.observer != nil {
		m.loop.news = append(m.loop.news, func() { m.observer.Froze(f) })
	}
}

// ballot has the votes of all targets, by when they were cast. Each target has one vote, its newest: it was heard
// of, or it was silent although it is up.
type ballot struct {
	now   int64 // the newest slot
	slots [voteSlots]votes
}

type votes struct {
	heard, silent int64
	network       netip.Prefix // of the first that was silent
	several       bool         // one on another network was silent, too
}

// vote is that of a target: the slot in which it was cast, and in the lowest bit whether it was silent. 0 is none.
type vote uint32

func (v vote) slot() int64  { return int64(v >> 1) }
func (v vote) silent() bool { return v&1 != 0 }

func voteSlotAt(now int64) int64 { return now>>voteSlotBits + 1 }

// advance empties the slots that have begun since it was called last.
func (b *ballot) advance(now int64) {
	slot := voteSlotAt(now)
	for i := max(b.now+1, slot-voteSlots+1); i <= slot; i++ {
		b.slots[i%voteSlots] = votes{}
	}
	b.now = slot
}

// cast counts the vote of a target, in place of the one it had.
func (b *ballot) cast(t *Target, silent bool) {
	if old := t.vote; old != 0 && old.slot() > b.now-voteSlots {
		if v := &b.slots[old.slot()%voteSlots]; old.silent() {
			v.silent--
		} else {
			v.heard--
		}
	}
	v := &b.slots[b.now%voteSlots]
	t.vote = vote(b.now) << 1
	if !silent {
		v.heard++
		return
	}
	t.vote |= 1
	network := networkOf(t.key.addr)
	if v.silent == 0 {
		v.network, v.several = network, false
	}
	v.silent++
	v.several = v.several || v.network != network
}

func networkOf(addr netip.Addr) netip.Prefix {
	bits := networkBits6
	if addr.Is4() {
		bits = networkBits4
	}
	network, _ := addr.Prefix(bits) // no family has fewer bits
	return network
}

// since sums up the votes from a slot on. The slot may be before time began.
func (b *ballot) since(slot int64) (sum votes) {
	for i := max(slot, b.now-voteSlots+1, 0); i <= b.now; i++ {
		v := &b.slots[i%voteSlots]
		sum.heard += v.heard
		if v.silent == 0 {
			continue
		}
		if sum.silent == 0 {
			sum.network = v.network
		}
		sum.silent += v.silent
		sum.several = sum.several || v.several || v.network != sum.network
	}
	return sum
}

// isCutOff tells whether so many are silent that the fault is on this side.
func (v votes) isCutOff(percent int64) bool {
	return percent > 0 && v.silent >= frozenFrom && v.several && v.silent*100 >= percent*(v.silent+v.heard)
}

// recovered tells whether the majority is heard of.
func (v votes) recovered() bool { return v.heard > v.silent }
