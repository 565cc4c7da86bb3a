package health

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// When everything seems to die at once, it is likelier that this machine was cut off. A target that falls silent
// is therefore asked about the others before it goes down: of all that have been heard of since its first failed
// probe was sent, how many fell silent too? If they are nearly all, and not few nor all on one network, verdicts
// freeze: silence brings nothing down until most targets answer again. What is down by a RST does go down, since
// a RST comes from outside.
//
// Answers from elsewhere speak for the path. So it should take far more than the half at which Envoy panics and
// sends to all hosts: of two sites one may well die, and its addresses have to leave the answers. And a freeze ends
// after a while in any case, as the patience that memberlist has with others while it doubts itself ("awareness")
// is bounded: everything may really be down, and then a fallback is what somebody asked for.

const (
	// frozenFrom is how many have to be silent at least: a handful can die at the same time.
	frozenFrom = 10
	// Whether an address is of the same network is told by so many bits of it.
	networkBits4, networkBits6 = 24, 64

	// A slot is a power of two of nanoseconds, 67 ms, and all together span 34 s.
	voteSlots, voteSlotBits = 512, 26
	// A row of failures may be shorter than it takes for 10 others to fail. Half a second is looked at, too.
	leastVoteSlots = 8
)

// Freeze tells that verdicts freeze, or do no longer.
type Freeze struct {
	// Frozen is true when it begins.
	Frozen bool
	// Silent is how many targets had fallen silent, and Heard how many answered or refused, when it began.
	Silent, Heard int64
	// Took is how long it was, when it ends, and Expired tells that it ended because it took too long.
	Took    time.Duration
	Expired bool
}

// SetFreeze makes verdicts freeze when this machine seems to be cut off: when percent (1 to 100) of the targets
// that were up, and at least 10 on more than one network, have fallen silent. They thaw when the majority is heard of
// again, and after longest in any case. A percent of 0, as it is at first, turns that off.
func (m *Monitor) SetFreeze(percent int, longest time.Duration) {
	m.freezing.percent.Store(int64(percent))
	m.freezing.longest.Store(int64(longest))
	m.signal()
}

// Frozen tells whether verdicts are frozen, and since when.
func (m *Monitor) Frozen() (since time.Time, frozen bool) {
	at := m.freezing.since.Load()
	if at == 0 {
		return time.Time{}, false
	}
	return m.epoch.Add(time.Duration(at)), true
}

// freezing is what all goroutines may see of it; that of the monitor alone changes since.
type freezing struct {
	percent, longest atomic.Int64
	since            atomic.Int64 // 0 while not frozen
}

// freezer is what only the monitor's goroutine touches.
type freezer struct {
	ballot ballot
	from   int64 // the slot from which on votes count for the freeze that is on, or for the last
	thawed int64 // when that ended
	spent  bool  // it ended although nobody had been heard of since
}

func isSilence(r checker.Result) bool { return r == checker.Timeout || r == checker.Unreachable }

// excuses takes the vote of a target, and tells whether its result says nothing of the target, because this
// machine is cut off or was so when the probe was sent.
func (m *Monitor) excuses(t *Target, r checker.Result, s Settings, now int64) bool {
	f := &m.loop.freezer
	if t.run == 0 {
		t.doubted = uint32(voteSlotAt(t.sent))
	}
	switch {
	case r == checker.Answered, r == checker.Refused:
		f.ballot.cast(t, false)
		if (m.freezing.since.Load() != 0 || f.spent) && f.ballot.since(f.from).recovered() {
			f.spent = false
			m.thaw(now, false)
		}
		return false
	case !isSilence(r) || t.State() == Down:
		return false
	}
	if t.State() == Up {
		f.ballot.cast(t, true)
	}
	if t.sent < f.thawed {
		return true
	}
	return int(t.run)+1 >= s.Fall && m.cutOff(int64(t.doubted)+1, now)
}

// cutOff tells whether this machine is cut off, from what came in since a slot. If that is news, verdicts freeze.
func (m *Monitor) cutOff(slot, now int64) bool {
	f := &m.loop.freezer
	switch {
	case m.freezing.since.Load() != 0:
		return true
	case f.spent:
		return false
	}
	percent := m.freezing.percent.Load()
	sum := f.ballot.since(slot)
	if recent := f.ballot.now - leastVoteSlots; !sum.cutOff(percent) && recent < slot {
		slot = recent
		sum = f.ballot.since(slot)
	}
	if !sum.cutOff(percent) {
		return false
	}
	f.from = slot
	m.freezing.since.Store(max(now, 1))
	m.tellFreeze(Freeze{Frozen: true, Silent: sum.silent, Heard: sum.heard})
	for t := range m.All() {
		if f.fellWith(t, now) {
			m.restore(t, now)
		}
	}
	return true
}

// fellWith tells whether a target went down by silence too recently for all others to have been probed since.
func (f *freezer) fellWith(t *Target, now int64) bool {
	s := t.Settings()
	return t.State() == Down && t.vote.silent() && t.vote.slot() > f.ballot.now-voteSlots &&
		now-t.since <= int64(s.Interval+s.Timeout)
}

// restore brings a target back that went down by the silence that turned out to be our fault.
func (m *Monitor) restore(t *Target, now int64) {
	before := t.load()
	m.statusMu.Lock()
	t.mark.Store(uint32(newMark(Up, before.result()) | before&pointless))
	t.since = now
	t.falls--
	m.statusMu.Unlock()
	t.run = 0
	m.count(before, t.load())
	if m.observer != nil {
		c := Change{Target: t, From: Down, To: Up, Result: t.Result(), Err: t.err}
		m.loop.news = append(m.loop.news, func() { m.observer.Changed(c) })
	}
}

// checkFreeze ends a freeze that took too long, or that nobody wants any more.
func (m *Monitor) checkFreeze(now int64) {
	m.loop.freezer.ballot.advance(now)
	since := m.freezing.since.Load()
	if since == 0 {
		return
	}
	if wanted := m.freezing.percent.Load() > 0; !wanted || now-since >= m.freezing.longest.Load() {
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

// ballot is the newest results of all targets by when they came in. Each target has one vote: whether it was
// heard of, or fell silent while it was up.
type ballot struct {
	now   int64 // the newest slot
	slots [voteSlots]votes
}

type votes struct {
	heard, silent int64
	network       netip.Prefix // of the first that was silent
	several       bool         // others were, on another network
}

// vote is that of a target: the slot it is in, and in the lowest bit whether it is silent. 0 is none.
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

// since sums up the votes from a slot on, which may be before time began.
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

// cutOff tells whether so many are silent that the fault is on this side.
func (v votes) cutOff(percent int64) bool {
	return percent > 0 && v.silent >= frozenFrom && v.several && v.silent*100 >= percent*(v.silent+v.heard)
}

// recovered tells whether the majority is heard of.
func (v votes) recovered() bool { return v.heard > v.silent }
