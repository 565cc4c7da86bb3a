package health

import (
	"fmt"
	"net/netip"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// The values of fields that were left at zero, see [Settings].
const (
	defaultInterval = 2 * time.Second
	defaultFast     = 500 * time.Millisecond
	defaultTimeout  = time.Second
	defaultTries    = 4
	defaultRise     = 2
	defaultFall     = 3

	// maxDampings times Damping is DampingMax where that is not given. Envoy has the same proportion for the
	// ejection of hosts: 30 s and 5 min.
	maxDampings = 10

	// maxDuration caps what is added to instants, so that no sum overflows.
	maxDuration = 10 * 365 * 24 * time.Hour
)

// Settings say how a target is probed and what makes its verdict. They are part of a target's
// identity: one address with two Settings is two targets. A field that is zero or negative has the
// default given with it.
type Settings struct {
	// Interval is the time from one probe to the next. Up to a fifth is taken off at random, nothing
	// is ever added. It is at least 4.2 ms. Default 2 s.
	Interval time.Duration
	// Fast takes Interval's place while the target is unknown, and after a result that contradicts
	// its state. It is never longer than Interval. Default 500 ms.
	Fast time.Duration
	// Timeout is how long a probe waits for an answer. Default 1 s.
	Timeout time.Duration
	// Tries is how many SYNs a probe sends at most while nothing comes back, up to [checker.MaxTries]. They are spread evenly
	// over Timeout, but no closer than twice the target's smoothed round trip, so that not all of them may fit. A target that
	// is down gets one. Default 4.
	Tries int
	// Rise is how many answers in a row bring a target up that is down. Default 2.
	Rise int
	// Fall is how many failures in a row bring a target down. Default 3.
	Fall int
	// Damping is for targets that flap. One that goes down for the third time stays down for Damping at least,
	// although it answers. The time doubles with every further fall, up to DampingMax. A target that was up for
	// DampingMax starts afresh. Damping is the idea of route flap damping (RFC 2439), in the exponential form that
	// Envoy has for the ejection of hosts. Default 0, no damping.
	Damping time.Duration
	// DampingMax is at least Damping. Default 10 times Damping.
	DampingMax time.Duration
	// Source is the local address to probe from. It has to be of the target's family. The zero
	// value leaves the choice to the kernel.
	Source netip.Addr
}

// Key stands for one value of Settings and has the size of a pointer. Make it once with unique.Make
// and keep it. The zero Key means Settings{}.
type Key = unique.Handle[Settings]

// String returns the settings in the words of the Corefile, such as
// "interval 2s 500ms timeout 1s tries 4 rise 2 fall 3 damping 30s 5m0s source 192.0.2.1". It leaves damping and
// source out where there is none.
func (s Settings) String() string {
	words := fmt.Sprintf("interval %v %v timeout %v tries %d rise %d fall %d", s.Interval, s.Fast, s.Timeout, s.Tries, s.Rise, s.Fall)
	if s.Damping > 0 {
		words += fmt.Sprintf(" damping %v %v", s.Damping, s.DampingMax)
	}
	if s.Source.IsValid() {
		words += " source " + s.Source.String()
	}
	return words
}

// SettingsOf returns what a key stands for, with the defaults filled in.
func SettingsOf(k Key) Settings { return settings(k) }

// settings returns what k stands for, with the defaults filled in.
func settings(k Key) Settings {
	var s Settings
	if k != (Key{}) {
		s = k.Value()
	}
	s.Interval = min(positive(s.Interval, defaultInterval), maxDuration)
	s.Fast = min(positive(s.Fast, defaultFast), s.Interval)
	s.Timeout = positive(s.Timeout, defaultTimeout)
	s.Tries = min(positive(s.Tries, defaultTries), checker.MaxTries)
	s.Rise = positive(s.Rise, defaultRise)
	s.Fall = positive(s.Fall, defaultFall)
	s.Damping = min(max(s.Damping, 0), maxDuration/maxDampings)
	s.DampingMax = min(max(positive(s.DampingMax, maxDampings*s.Damping), s.Damping), maxDuration)
	return s
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}
