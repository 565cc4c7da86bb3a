// Package clock tells when something was, in the terms of people.
package clock

import (
	"sync/atomic"
	"time"
)

// Clock tells instants in the terms of people. A wall clock may be set, so nothing remembers what it said: an instant is
// its present time less the age of the instant, which the monotonic clock tells. It has to be started. After that its
// methods may be called from any goroutine.
//
// On Linux, Go's monotonic clock stands still while the machine is suspended (CLOCK_MONOTONIC in clock_gettime(2)), and
// so do ages: an instant from before that looks later than it was. CLOCK_BOOTTIME would go on, but timers follow the
// other, and two kinds of age are not worth what sleeping servers gain by it.
type Clock struct {
	epoch time.Time // when the clock was started
	wall  func() time.Time
	// began is what the wall clock makes of the epoch, in nanoseconds of Unix time.
	began atomic.Int64
}

// tolerance is how far the wall clock may be off what it said before without being believed. Two clocks are never
// read at the same moment, and some only tick every 16 ms: without it, the same instant would look a little different
// every time.
const tolerance = 50 * time.Millisecond

// Start has time begin. The wall clock is time.Now where that is nil.
func (c *Clock) Start(wall func() time.Time) {
	c.epoch, c.wall = time.Now(), wall
	if wall == nil {
		c.wall = time.Now
	}
	c.began.Store(c.wall().UnixNano())
}

// Now returns the present instant: the nanoseconds since the start.
func (c *Clock) Now() int64 { return int64(time.Since(c.epoch)) }

// At returns the wall clock's time of an instant.
func (c *Clock) At(instant int64) time.Time {
	before := c.Now()
	wall := c.wall().UnixNano()
	after := c.Now()
	began := c.began.Load()
	if earliest, latest := wall-after, wall-before; began < earliest-int64(tolerance) || began > latest+int64(tolerance) {
		began = earliest + (latest-earliest)/2
		c.began.Store(began)
	}
	return time.Unix(0, began).Add(time.Duration(instant))
}
