package test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// pausing is a CoreDNS that checks three hundred living targets over a line that loses a few packets. With the settings of
// quick failover, silence of 0.7 s would take them down.
type pausing struct {
	*process
	t *testing.T
}

func newPausing(t *testing.T, l *lab.Lab) *pausing {
	const targets = 300
	web := l.Host("web")
	web.Listen(443)
	properties, zone := thousand(web.Addrs4(targets))
	// Without a freeze, which would hide what is looked for.
	p := &pausing{launchProcess(t, "interval 500ms 100ms\ntimeout 250ms\nrise 3\ndamping off\nfreeze off"+properties, zone), t}
	p.UntilNil(func() error {
		if n := p.counted("coredns_shaker_targets", `state="up"`); n < targets {
			return fmt.Errorf("%v of %d targets are up", n, targets)
		}
		return nil
	})
	web.Lose(2)
	return p
}

// noneDown expects that no target has gone down so far, and that checks go on.
func (p *pausing) noneDown() {
	p.t.Helper()
	before := p.counted("coredns_shaker_checks_total")
	p.UntilNil(func() error {
		if n := p.counted("coredns_shaker_checks_total") - before; n < 1000 {
			return fmt.Errorf("%v checks", n)
		}
		return nil
	})
	if n := p.counted("coredns_shaker_state_changes_total", `state="down"`); n > 0 {
		p.t.Errorf("%v living targets went down", n)
	}
}

// A process that is stopped, for a moment or for long, takes nobody down.
func TestLabStopped(t *testing.T) {
	t.Parallel()
	stops := []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 30 * time.Second}
	for _, stop := range stops {
		for _, method := range []string{"socket", "raw", "dial"} {
			t.Run(fmt.Sprintf("%v, %s", stop, method), func(t *testing.T) {
				t.Parallel()
				if testing.Short() && stop > 10*time.Second {
					t.Skip("it takes half a minute; go test without -short runs it")
				}
				lab.Run(t, func(t *testing.T, l *lab.Lab) {
					p := newPausing(t, l)
					for range max(1, int(4*time.Second/stop)) {
						p.Signal(syscall.SIGSTOP)
						time.Sleep(stop)
						p.Signal(syscall.SIGCONT)
						time.Sleep(100 * time.Millisecond) // a part of a check
					}
					p.noneDown()
				})
			})
		}
	}
}

// A process that gets 5 % of a CPU takes nobody down, whether it is the scheduler that keeps it from running or a signal.
func TestLabShareOfCPU(t *testing.T) {
	t.Parallel()
	t.Run("signals", func(t *testing.T) {
		lab.Run(t, func(t *testing.T, l *lab.Lab) {
			p := newPausing(t, l)
			feed := p.starve(95*time.Millisecond, 5*time.Millisecond)
			time.Sleep(10 * time.Second)
			feed()
			p.noneDown()
		})
	})
	t.Run("quota", func(t *testing.T) {
		lab.Run(t, func(t *testing.T, l *lab.Lab) {
			p := newPausing(t, l)
			lab.LimitCPU(t, p.PID(), 5)
			time.Sleep(10 * time.Second)
			p.noneDown()
		})
	})
}
