package main

import (
	"slices"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

func TestSpread(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name                string
		times               []time.Duration
		min, avg, max, mdev time.Duration
	}{
		{"none", nil, 0, 0, 0, 0},
		{"one", []time.Duration{3 * ms}, 3 * ms, 3 * ms, 3 * ms, 0},
		{"two", []time.Duration{3 * ms, 1 * ms}, 1 * ms, 2 * ms, 3 * ms, 1 * ms},
		// The textbook's: mean 5, deviation 2.
		{"several", []time.Duration{2 * ms, 4 * ms, 4 * ms, 4 * ms, 5 * ms, 5 * ms, 7 * ms, 9 * ms}, 2 * ms, 5 * ms, 9 * ms, 2 * ms},
		{"falling", []time.Duration{9 * ms, 7 * ms, 5 * ms, 5 * ms, 4 * ms, 4 * ms, 4 * ms, 2 * ms}, 2 * ms, 5 * ms, 9 * ms, 2 * ms},
		{"zero counts", []time.Duration{0, 2 * ms}, 0, 1 * ms, 2 * ms, 1 * ms},
		// E[x²] - E[x]² in floating point would be off by microseconds here.
		{"long and close", []time.Duration{time.Hour + 1, time.Hour + 3}, time.Hour + 1, time.Hour + 2, time.Hour + 3, 1},
		{"long and equal", slices.Repeat([]time.Duration{time.Hour + 1}, 1000), time.Hour + 1, time.Hour + 1, time.Hour + 1, 0},
	}
	for _, test := range tests {
		var s spread
		for _, d := range test.times {
			s.add(d)
		}
		if s.n != len(test.times) || s.min != test.min || s.avg() != test.avg || s.max != test.max || s.mdev() != test.mdev {
			t.Errorf("%s: %d times, %v/%v/%v/%v, want %v/%v/%v/%v", test.name, s.n,
				s.min, s.avg(), s.max, s.mdev(), test.min, test.avg, test.max, test.mdev)
		}
	}
}

func TestTally(t *testing.T) {
	answered := checker.Report{Result: checker.Answered, RTT: time.Millisecond}
	refused := checker.Report{Result: checker.Refused, RTT: time.Hour}
	tests := []struct {
		name    string
		reports []checker.Report
		loss    float64
		all     bool
	}{
		{"none", nil, 0, false},
		{"answered", []checker.Report{answered, answered}, 0, true},
		{"refused", []checker.Report{refused}, 100, false},
		{"mixed", []checker.Report{answered, refused, answered, {Result: checker.Inconclusive}}, 50, false},
	}
	for _, test := range tests {
		var tally tally
		for _, r := range test.reports {
			tally.add(r)
		}
		if tally.sent != len(test.reports) || tally.loss() != test.loss || tally.allAnswered() != test.all {
			t.Errorf("%s: %d sent, %v%% loss, all answered: %v", test.name, tally.sent, tally.loss(), tally.allAnswered())
		}
		if tally.rtt.n != tally.answered() || tally.rtt.max > time.Millisecond {
			t.Errorf("%s: the times of %d checks, up to %v, want those of the answered only", test.name, tally.rtt.n, tally.rtt.max)
		}
	}
}
