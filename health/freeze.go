package health

import (
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// When everything seems to die at once, it is likelier that this machine was cut off. Before a target goes down by
// silence, the others are asked: of all hosts that answered a probe sent after its first failed one, or fell silent
// since, how many fell silent? If they are nearly all, not few, and not all on one network, verdicts freeze. While they
// are frozen silence brings nothing down, until most hosts answer again. A RST still does, since it comes from outside.
//
// Answers from elsewhere prove that the path works. So a freeze takes far more silence than the half at which Envoy
// panics and sends to all hosts: of two sites one may well die, and its addresses have to leave the answers. And every
// freeze ends after a while. Everything may really be down, and then a fallback is what somebody asked for.
//
// The silence of a target that was never heard of says little: anybody can make up dead addresses. But a process that
// was cut off when it started has no other targets. So theirs counts, too, until the process has heard of some hosts.
// And as long as it has heard of nobody at all, it does not matter when they fell silent, nor that they are down by now.

const (
	// frozenFrom is how many hosts have to be silent at least: a handful can die at the same time.
	frozenFrom = 10
	// startedFrom is how many hosts a process has to hear of before the silence of unknown targets says nothing.
	startedFrom = networkSeats
	// leastVoteSlots is half a second. It is looked at, too, because a row of failures may be shorter than the time
	// in which 10 others fail.
	leastVoteSlots = 8
)

// Freeze tells that verdicts freeze or thaw.
type Freeze struct {
	// Frozen is true when verdicts freeze, false when they thaw.
	Frozen bool
	// Silent is how many hosts had fallen silent when verdicts froze, and Heard of how many something had come back.
	// A network (/24 or /64) counts for 9 at most. Both are 0 when verdicts thaw.
	Silent, Heard int64
	// WithPeers tells that all peers fell silent together with the hosts, see [Monitor.LostPeers].
	WithPeers bool
	// Took is how long verdicts were frozen when they thaw, and Expired tells that they thaw because it took too long.
	Took    time.Duration
	Expired bool
}

// SetFreeze makes verdicts freeze when this machine seems to be cut off: when percent (1 to 100) of the hosts that
// were up, and at least 10 on more than one network (/24 or /64), have fallen silent. A host is an address, whatever
// its ports and settings. It is heard of as long as one of its targets is. A network counts for 9 hosts at most. Until
// the monitor has heard of 9 hosts, those that are unknown and silent count as if they had been up. Verdicts thaw when
// the majority is heard of again, and after most in any case. A percent of 0, as it is at first, turns that off.
func (m *Monitor) SetFreeze(percent int, most time.Duration) {
	m.freezing.percent.Store(int64(percent))
	m.freezing.most.Store(int64(most))
	m.signal()
}

// Frozen tells whether verdicts are frozen, and since when. See [Status] for what that instant is made of.
func (m *Monitor) Frozen() (since time.Time, frozen bool) {
	began := m.freezing.began.Load()
	if began == 0 {
		return time.Time{}, false
	}
	return m.clock.At(began), true
}

// freezing is what all goroutines may see of a freeze. Only that of the monitor changes began.
type freezing struct {
	percent, most atomic.Int64
	began         atomic.Int64 // 0 while not frozen
}

func (f *freezing) isOn() bool { return f.began.Load() != 0 }

// freezer is what only the monitor's goroutine touches. It is about the freeze that is on, or the last one.
type freezer struct {
	ballot  ballot
	from    int64 // the first slot whose votes count for its end
	thawed  int64 // when it ended
	spent   bool  // it ended although the majority had not been heard of; there is no other before that is
	started bool  // the silence of unknown targets says nothing any more
	peers   contact
	// withPeers tells that the peers had fallen silent together with the hosts.
	withPeers bool
}

func isSilence(r checker.Result) bool { return r == checker.Timeout || r == checker.Unreachable }

// takeVote counts what a result says of the target's host.
func (m *Monitor) takeVote(t *Target, r checker.Result, noPath bool) {
	f := &m.loop.freezer
	if t.run == 0 {
		t.doubted = uint32(voteSlotAt(t.due))
	}
	var v vote
	switch state := t.load().own(); {
	case r == checker.Answered, r == checker.Refused:
		v = heard
		if t.noPaths > 0 {
			v |= unsteady
		}
	case state == Up && (noPath || isSilence(r)):
		v = silent
	case isSilence(r) && (state == Unknown || f.ballot.metNobody()):
		v = mute
	}
	t.countNoPath(noPath, r)
	if v == 0 {
		return
	}
	at := f.ballot.now
	if v&heard == heard {
		// Not when it came in. A process that is starved of CPU takes answers late, those from before the cut as well.
		at = voteSlotAt(t.due)
	}
	f.ballot.cast(t, v, at)
	f.started = f.started || f.ballot.met >= startedFrom
}

// isDoomed tells whether a result, the newest, brings the target down by silence unless verdicts are frozen.
func (t *Target) isDoomed(r checker.Result, s *Settings) bool {
	return isSilence(r) && t.load().own() != Down && int(t.run)+1 >= s.Fall
}

// isExcused tells whether a result says nothing of its target, because this machine is cut off, or was when the probe
// was sent.
func (m *Monitor) isExcused(t *Target, r checker.Result, s *Settings) bool {
	if t.due < m.loop.freezer.thawed {
		return isSilence(r) && t.load().own() != Down
	}
	return m.freezing.isOn() && t.isDoomed(r, s)
}

// freezeIfCutOff freezes verdicts if this machine is cut off. The others are asked since the first failure of the
// target that is about to go down.
func (m *Monitor) freezeIfCutOff(t *Target, now int64) {
	f := &m.loop.freezer
	percent := m.freezing.percent.Load()
	if percent <= 0 || m.freezing.isOn() || f.spent || t.due < f.thawed {
		return
	}
	slot := int64(t.doubted) + 1
	if f.ballot.metNobody() {
		slot = 0
	}
	c := f.count(slot)
	if recent := f.ballot.now - leastVoteSlots; !c.isCutOff(percent) && recent < slot {
		slot = recent
		c = f.count(slot)
	}
	withPeers := false
	if !c.isCutOff(percent) && f.fellWithPeers(t) {
		slot, c = f.countLost(percent)
		withPeers = slot > 0
	}
	if withPeers || c.isCutOff(percent) {
		f.withPeers = withPeers
		m.freeze(slot, c, now)
	}
}

// freeze freezes verdicts, because so many are silent since a slot. It brings back who fell lately.
func (m *Monitor) freeze(slot int64, c count, now int64) {
	f := &m.loop.freezer
	f.from = slot
	m.freezing.began.Store(max(now, 1))
	m.tellFreeze(Freeze{Frozen: true, Silent: int64(c.silent), Heard: int64(c.heard), WithPeers: f.withPeers})
	for t := range m.All() {
		if t.load()&silenced == 0 {
			continue
		}
		fellLately := t.fellLately(now) || f.peers.lost && t.since >= f.peers.from
		if fellLately || f.ballot.metNobody() {
			m.restore(t, now)
		}
	}
}

// count counts from a slot on. In a process that has only just started, who is mute is silent.
func (f *freezer) count(slot int64) count {
	c := f.ballot.since(slot)
	if !f.started {
		c.silent, c.mute = c.silent+c.mute, 0
	}
	return c
}

// isCutOff tells whether so many are silent that the fault is on this side.
func (c count) isCutOff(percent int64) bool {
	return c.silent >= frozenFrom && c.isSilent(percent)
}

// isSilent tells whether at least so many percent are silent.
func (c count) isSilent(percent int64) bool {
	return int64(c.silent)*100 >= percent*int64(c.silent+c.heard)
}

// fellLately tells whether a target went down so recently that others may not have been probed since.
func (t *Target) fellLately(now int64) bool {
	s := t.Settings()
	return now-t.since <= min(int64(s.Interval+s.Timeout), voteSlots<<voteSlotBits)
}

// restore brings a target back that went down by a silence which turned out to be this machine's fault.
func (m *Monitor) restore(t *Target, now int64) {
	before := t.load()
	to, since := Up, now
	if t.falls == 0 { // it was never up
		to, since = Unknown, t.born
	}
	after := newMark(to, before.result()) | before&(checked|pointless|shared|rests|borrowed)
	if before&shared != 0 {
		after = after.withState(before.state())
	}
	m.statusMu.Lock()
	t.mark.Store(uint32(after))
	t.since = since
	t.falls -= min(t.falls, 1)
	t.noteWord(before, 0, now)
	m.statusMu.Unlock()
	t.run = 0
	m.recount(before, after)
	switch {
	case before&shared != 0:
		m.loop.pending = append(m.loop.pending, t)
	case m.listener != nil:
		c := Change{Target: t, From: Down, To: to, Own: after.word(), Result: t.Result(), Err: t.err}
		m.loop.news = append(m.loop.news, func() { m.listener.Changed(c) })
	}
}

// passTime moves the votes on to now, and ends a freeze that took too long or that nobody wants any more.
func (m *Monitor) passTime(now int64) {
	m.loop.freezer.ballot.advance(now)
	began := m.freezing.began.Load()
	if began == 0 {
		return
	}
	if wanted := m.freezing.percent.Load() > 0; !wanted || now-began >= m.freezing.most.Load() {
		m.loop.freezer.spent = wanted
		m.thaw(now, wanted)
	}
}

// thawIfHeard ends a freeze when the majority is heard of.
func (m *Monitor) thawIfHeard(now int64) {
	f := &m.loop.freezer
	if !m.freezing.isOn() && !f.spent {
		return
	}
	if c := f.count(f.from); c.heard > c.silent {
		f.spent = false
		m.thaw(now, false)
	}
}

// thaw ends a freeze, if there is one. All rows of failures begin anew.
func (m *Monitor) thaw(now int64, expired bool) {
	began := m.freezing.began.Swap(0)
	if began == 0 {
		return
	}
	m.loop.freezer.thawed, m.loop.freezer.started = now, true
	for t := range m.All() {
		if t.load().own() != Down {
			t.run, t.noPaths = 0, 0
		}
	}
	m.tellFreeze(Freeze{Took: time.Duration(now - began), Expired: expired, WithPeers: m.loop.freezer.withPeers})
}

func (m *Monitor) tellFreeze(f Freeze) {
	if m.listener != nil {
		m.loop.news = append(m.loop.news, func() { m.listener.Froze(f) })
	}
}
