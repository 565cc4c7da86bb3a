package health

import (
	"math"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// An inconclusive result is this machine's fault and says nothing of the target. But where this machine has no path to
// a target for long (a tunnel is gone, a firewall of its own rejects), nobody can tell whether it lives, and answers
// are better without it. But the fault may hit all targets alike. Then nobody answers. Or it comes and goes, as when a
// table of connections is full. Then those who answer had the same trouble just before. So it counts against a target
// only while others answer steadily: more than a tenth of the hosts that were up, the complement of what freezes
// verdicts.
//
// A target that was never heard of stays as it is. To some this machine never had a path, to all those of IPv6 for
// example, but its clients have.

// noPathFor is how long there has to be no path to a target. Routes that change are back sooner.
const noPathFor = 20 * time.Second

// usualPercent decides where verdicts never freeze.
const usualPercent = 90

// countNoPath counts the results in a row that say that this machine has no path to the target. Other faults of this
// machine do not end the row.
func (t *Target) countNoPath(noPath bool, r checker.Result) {
	switch {
	case noPath:
		if t.noPaths == 0 {
			t.pathless = uint32(voteSlotAt(t.due))
		}
		t.noPaths = max(t.noPaths, t.noPaths+1) // stays at its maximum
	case r != checker.Inconclusive:
		t.noPaths = 0
	}
}

// isLost tells whether the target, which was just probed without a path to it, is one that this machine cannot reach
// although it reaches others.
func (m *Monitor) isLost(t *Target, s *Settings) bool {
	f := &m.loop.freezer
	from := int64(t.pathless)
	switch {
	case t.load().own() != Up, m.freezing.isOn():
		return false
	case int(t.noPaths) < min(s.Fall, math.MaxUint16), f.ballot.now-from < int64(noPathFor)>>voteSlotBits:
		return false
	}
	percent := m.freezing.percent.Load()
	if percent <= 0 {
		percent = usualPercent
	}
	c := f.ballot.since(from + 1) // in the slot itself others may have been heard of before
	return int64(c.heard-c.unsteady)*100 > (100-percent)*int64(c.heard+c.silent)
}
