package checker

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startChecker runs a Checker until the test ends.
func startChecker(t *testing.T, o Config) *Checker {
	t.Helper()
	c := NewCheckerConfig(o)
	ready := c.WaitReady()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.CheckingLoop(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error("CheckingLoop:", err)
		}
	})
	<-ready
	return c
}

func TestCheck(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		c := startChecker(t, Config{Method: m})
		hole := blackHole(t)
		living, _ := listen(t, "tcp4", "127.0.0.1:0")
		dead := refusing(t, "tcp4", "127.0.0.2:0")
		for _, test := range []struct {
			name   string
			target netip.AddrPort
			within time.Duration
			want   Result
			err    error
		}{
			{"living", living, 10 * time.Second, Answered, nil},
			{"refusing", dead, 10 * time.Second, Refused, syscall.ECONNREFUSED},
			{"silent", hole, 50 * time.Millisecond, Timeout, ErrTimeout},
			{"no target", netip.AddrPort{}, 10 * time.Second, Inconclusive, ErrTarget},
		} {
			t.Run(test.name, func(t *testing.T) {
				r := inPlace(t, func() Report {
					ctx, cancel := context.WithTimeout(t.Context(), test.within)
					defer cancel()
					return c.Check(ctx, test.target)
				})
				if r.Result != test.want || !errors.Is(r.Err, test.err) {
					t.Errorf("%v, %v; want %v, %v", r.Result, r.Err, test.want, test.err)
				}
				if (r.RTT > 0) != (r.Result == Answered || r.Result == Refused) || r.Tag != nil {
					t.Errorf("%v has round trip time %v and tag %v", r.Result, r.RTT, r.Tag)
				}
			})
		}
		if r := c.Check(context.Background(), living); r.Result != Answered {
			t.Errorf("without a deadline: %v, %v", r.Result, r.Err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r := c.Check(ctx, living); r.Result != Inconclusive || r.Err != context.Canceled {
			t.Errorf("cancelled before: %v, %v", r.Result, r.Err)
		}
	})
}

// Whoever gives up makes place for others at once, and is not in their way while in line.
func TestCheckCancelled(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		c := startChecker(t, Config{Method: m, Pool: 1})
		hole := blackHole(t)
		living, _ := listen(t, "tcp4", "127.0.0.1:0")
		const callers = 40 // more than MethodRaw has ports: with it, too, some are in line
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					if r := c.Check(ctx, hole); r.Result != Inconclusive || r.Err != context.Canceled {
						t.Errorf("given up: %v, %v", r.Result, r.Err)
					}
				})
			}
			// In line behind them, with a deadline long before theirs.
			soon, cancelSoon := context.WithTimeout(t.Context(), 30*time.Millisecond)
			if r := c.Check(soon, hole); r.Result != Inconclusive && r.Result != Timeout {
				t.Errorf("in line: %v, %v", r.Result, r.Err)
			}
			cancelSoon()
			cancel()
			all.Wait()
			if r := c.Check(t.Context(), living); r.Result != Answered {
				t.Errorf("after others gave up: %v, %v", r.Result, r.Err)
			}
		}
	})
}

// overtaking is a backend that reports a check in line, of which it sees that nobody waits for it, before its waiter does.
type overtaking struct {
	backend
	giveUp context.CancelFunc
}

func (o overtaking) submit(jobs []job) error {
	o.giveUp()
	deliverToWaiters([]Report{{Tag: jobs[0].Tag, Result: Inconclusive, Err: ErrBusy}})
	return nil
}

func (overtaking) cancel(*waiter) {}

// Whoever gives up is told just that, also where the end of the check overtakes him.
func TestCheckCancelledOvertaken(t *testing.T) {
	for range 50 { // a select takes any case that is ready
		ctx, cancel := context.WithCancel(t.Context())
		s := &session{prober: &Prober{backend: overtaking{giveUp: cancel}}}
		if r := s.check(ctx, job{Check: Check{Timeout: time.Minute}}); r.Result != Inconclusive || r.Err != context.Canceled {
			t.Fatalf("given up: %v, %v", r.Result, r.Err)
		}
	}
}

// Nobody in line has to wait for longer than a check's own timeout, whoever is before.
func TestTimeoutInLine(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		hole := blackHole(t)
		c := newCollector()
		p, err := NewProber(Config{Method: m, Pool: 1}, c.deliver)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		checks := []Check{
			{Target: hole, Timeout: time.Hour, Tag: "in flight"},
			{Target: hole, Timeout: time.Hour, Tag: "first in line"},
			{Target: hole, Timeout: 20 * time.Millisecond, Tag: "second in line"},
			{Target: hole, Timeout: 10 * time.Millisecond, Tag: "third in line"},
		}
		if err := p.Submit(checks...); err != nil {
			t.Fatal(err)
		}
		reports := c.take(t, 2)
		for _, tag := range []string{"second in line", "third in line"} {
			if r, ok := reports[tag]; !ok || r.Result != Inconclusive || r.Err != ErrBusy {
				t.Errorf("%s: %v, %v", tag, r.Result, r.Err)
			}
		}
	})
}

func TestCheckConfig(t *testing.T) {
	unready := NewChecker()
	if r := unready.Check(t.Context(), netip.MustParseAddrPort("127.0.0.1:1")); r.Result != Inconclusive || r.Err != ErrNotReady {
		t.Errorf("without a loop: %v, %v", r.Result, r.Err)
	}
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{Method: 200}, "unknown method"},
		{Config{Interface: "no-such-interface"}, "no-such-interface"},
		{Config{Source: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}}, "127.0.0.2"},
	} {
		err := NewCheckerConfig(test.config).CheckingLoop(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %q", test.config, err, test.want)
		}
	}
}
