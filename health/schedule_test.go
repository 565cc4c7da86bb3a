package health

import (
	"math"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

func TestWait(t *testing.T) {
	s := settings(plain)
	tests := []struct {
		state   State
		results string // each of them
		want    time.Duration
	}{
		{Unknown, "artu-", s.Fast},
		{Up, "a-", s.Interval},
		{Up, "rtu", s.Fast},
		{Down, "rtu-", s.Interval},
		{Down, "a", s.Fast},
	}
	for _, tt := range tests {
		for _, letter := range tt.results {
			if got := s.wait(tt.state, results[letter]); got != tt.want {
				t.Errorf("%v after %v: %v, want %v", tt.state, results[letter], got, tt.want)
			}
		}
	}
}

func TestSpacing(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		timeout time.Duration
		tries   int
		rtt     time.Duration
		want    time.Duration
	}{
		{time.Second, 4, 0, 250 * ms},
		{time.Second, 4, 100 * ms, 250 * ms},
		{time.Second, 4, 125 * ms, 250 * ms},
		{time.Second, 4, 126 * ms, 252 * ms},
		{time.Second, 4, 900 * ms, 1800 * ms}, // there is no second try
		{time.Second, 1, ms, time.Second},
		{250 * ms, 4, ms, 62500 * time.Microsecond},
		{time.Second, 16, ms, 62500 * time.Microsecond},
		{time.Second, 4, math.MaxInt64, 2 * maxDuration},
	}
	for _, tt := range tests {
		s := Settings{Timeout: tt.timeout, Tries: tt.tries}
		if got := s.spacing(tt.rtt); got != tt.want {
			t.Errorf("timeout %v, %d tries, round trip %v: %v, want %v", tt.timeout, tt.tries, tt.rtt, got, tt.want)
		}
	}
}

func TestSpread(t *testing.T) {
	const almost = 1 - 1e-12
	tests := []struct {
		wait  time.Duration
		first bool
		x     float64
		want  time.Duration
	}{
		{time.Second, false, 0, time.Second},
		{time.Second, false, 0.5, 900 * time.Millisecond},
		{time.Second, false, almost, 800 * time.Millisecond},
		{time.Second, true, 0, time.Second},
		{time.Second, true, 0.5, 500 * time.Millisecond},
		{time.Second, true, almost, tick},
		{time.Millisecond, false, 0, tick},
		{maxDuration, false, 0.5, maxDuration - maxDuration/10},
	}
	for _, tt := range tests {
		got := spread(tt.wait, tt.first, tt.x)
		if d := got - tt.want; d < -time.Microsecond || d > time.Microsecond {
			t.Errorf("spread(%v, %v, %v) = %v, want %v", tt.wait, tt.first, tt.x, got, tt.want)
		}
	}
}

func TestContradicts(t *testing.T) {
	want := map[State]string{Unknown: "artu", Up: "rtu", Down: "a"}
	for state, letters := range want {
		yes := map[checker.Result]bool{}
		for _, letter := range letters {
			yes[results[letter]] = true
		}
		for _, r := range checker.Results() {
			if got := state.contradicts(r); got != yes[r] {
				t.Errorf("%v.contradicts(%v) = %v", state, r, got)
			}
		}
	}
}
