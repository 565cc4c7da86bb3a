package health

import (
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// wait returns how long after a probe was sent the next one goes out, before the spread: state is
// the state that its result r led to.
func (s Settings) wait(state State, r checker.Result) time.Duration {
	if state == Unknown || state.contradicts(r) {
		return s.Fast
	}
	return s.Interval
}

// spread takes a random part off a wait, so that targets that entered the table together are not
// probed together for ever. x is a random number in [0, 1).
//
// The usual ±10 % would lengthen every wait of the unlucky and with them the time a failure goes
// unnoticed, for which Interval and Fast are promised to be upper bounds. Taking off 0 to 20 % spreads
// as widely and keeps the promise, for 11 % more probes. The first wait of a target gives it its
// place in the interval and is uniform over all of it.
func spread(wait time.Duration, first bool, x float64) time.Duration {
	if !first {
		x /= 5
	}
	// A wait below a tick would let one target spin: every probe waits for a later tick.
	return max(wait-time.Duration(x*float64(wait)), tick)
}
