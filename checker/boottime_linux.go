package checker

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads the clock that goes on while this machine is suspended, see CLOCK_BOOTTIME in clock_gettime(2). It
// returns 0 where a sandbox forbids that.
func bootTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// clocks returns what presence reads.
func (o *Config) clocks() (clock func() time.Time, boot func() time.Duration) {
	clock, boot = o.clock, o.boot
	if clock == nil {
		clock = time.Now
	}
	if boot == nil {
		boot = bootTime
	}
	return clock, boot
}
