package health

import (
	"sync/atomic"
	"time"
)

// clock tells instants of the monitor's time in the terms of people. A wall clock may be set, so nothing remembers what
// it said: an instant is its present time less the age of the instant, which the monotonic clock tells.
//
// On Linux, Go's monotonic clock stands still while the machine is suspended (CLOCK_MONOTONIC in clock_gettime(2)), and
// so do ages: an instant from before that looks later than it was. CLOCK_BOOTTIME would go on, but timers follow the
// other, and two kinds of age are not worth what sleeping servers gain by it.
type clock struct {
	epoch time.Time // when time began for the monitor
	wall  func() time.Time
	// began is what the wall clock makes of the epoch, in nanoseconds of Unix time.
	began atomic.Int64
}

// clockTolerance is how far the wall clock may be off what it said before without being believed. Two clocks are never
// read at the same moment, and some only tick every 16 ms: without it, the same instant would look a little different
// every time.
const clockTolerance = 50 * time.Millisecond

func (c *clock) start(wall func() time.Time) {
	c.epoch, c.wall = time.Now(), wall
	if wall == nil {
		c.wall = time.Now
	}
	c.began.Store(c.wall().UnixNano())
}

// now returns the time since the epoch in nanoseconds.
func (c *clock) now() int64 { return int64(time.Since(c.epoch)) }

// at returns the wall clock's time of an instant.
func (c *clock) at(instant int64) time.Time {
	before := c.now()
	wall := c.wall().UnixNano()
	after := c.now()
	began := c.began.Load()
	if earliest, latest := wall-after, wall-before; began < earliest-int64(clockTolerance) || began > latest+int64(clockTolerance) {
		began = earliest + (latest-earliest)/2
		c.began.Store(began)
	}
	return time.Unix(0, began).Add(time.Duration(instant))
}
