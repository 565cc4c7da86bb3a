package health

import (
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// wait returns how long after a probe the next one is sent, before the spread. state is what the
// probe's result r led to.
func (s Settings) wait(state State, r checker.Result) time.Duration {
	if state == Unknown || state.contradicts(r) {
		return s.Fast
	}
	return s.Interval
}

// spread takes a random part off a wait, so that targets that entered the table together are not
// probed together for ever. x is a random number in [0, 1).
//
// The usual ±10 % would make some waits longer than Interval and Fast, which are promised to be upper
// bounds. To take off 0 to 20 % spreads as widely and keeps the promise, for 11 % more probes. The first
// wait of a target gives it its place in the interval, so any part of it may be taken off.
func spread(wait time.Duration, first bool, x float64) time.Duration {
	if !first {
		x /= 5
	}
	// With a wait below a tick, one target would keep the goroutine busy for ever.
	return max(wait-time.Duration(x*float64(wait)), tick)
}

// spacing returns the time from one try of a probe to the next. An answer has twice the usual round trip to come back before
// its SYN is taken for lost.
func (s Settings) spacing(rtt time.Duration) time.Duration {
	return max(s.Timeout/time.Duration(s.Tries), 2*min(rtt, maxDuration))
}

// silence returns how long it takes at most until an unknown target that stays silent is down, counted from when its first
// probe is sent.
func (s Settings) silence() time.Duration {
	timeout := min(s.Timeout, maxDuration)
	step := max(s.Fast, timeout, tick) // from one probe to the next
	if time.Duration(s.Fall) > maxDuration/step {
		return maxDuration
	}
	return time.Duration(s.Fall-1)*step + timeout
}

// onceMore returns how long it takes at most until an unknown target has one more result.
func (s Settings) onceMore() time.Duration { return max(s.Fast, tick) + min(s.Timeout, maxDuration) }
