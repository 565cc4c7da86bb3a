package checker

import (
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// MethodRaw has 50 000 checks in flight at once that nobody answers: it opens nothing for them, each ends
// once and not before its time, and a living target is answered meanwhile.
func TestLabCapacity(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		const n = 50_000
		hole := l.Host("hole")
		hole.Drop()
		web := l.Host("web")
		web.Listen(80)
		for _, family := range []struct {
			name  string
			holes []netip.Addr
			alive netip.Addr
		}{
			{"IPv4", hole.Addrs4(n), web.Addr4},
			{"IPv6", hole.Addrs6(n), web.Addr6},
		} {
			t.Run(family.name, func(t *testing.T) {
				// On a busy machine, the first may have timed out before the last is sent.
				for _, timeout := range []time.Duration{8 * time.Second, 30 * time.Second, 2 * time.Minute} {
					inFlight := fill(t, family.holes, netip.AddrPortFrom(family.alive, 80), timeout)
					if inFlight == n {
						return
					}
					t.Logf("%d checks in flight at once, want %d; their timeout was %v", inFlight, n, timeout)
				}
				t.Error("never were all checks in flight at once")
			})
		}
	})
}

// capacity is what fill and its deliver share. All but living and finished belong to the prober's loop until
// finished is closed.
type capacity struct {
	loop     *loop
	living   chan Report
	finished chan struct{}

	sent     []time.Time // when the SYN of each check left; zero unless it was in flight when the last one left
	inFlight int         // then
	busy     int         // checks whose time was up before they left
	reported []time.Time
	left     int
	oddities int
}

// probeAll is the tag of the living target's check that was submitted after all the others.
const probeAll = "all under way"

func (c *capacity) deliver(reports []Report) {
	now := time.Now()
	for _, r := range reports {
		i, hole := r.Tag.(int)
		switch {
		case !hole:
			if r.Tag == probeAll {
				c.note()
			}
			c.living <- r
		case !c.reported[i].IsZero():
			c.oddities++
		default:
			if r.Err == ErrBusy {
				c.busy++
			} else if r.Result != Timeout || r.Err != ErrTimeout {
				c.oddities++
			}
			c.reported[i] = now
			if c.left--; c.left == 0 {
				close(c.finished)
			}
		}
	}
}

// note looks at what is in flight. It runs in the loop's goroutine, as deliver does.
func (c *capacity) note() {
	c.inFlight = c.loop.flights.len()
	for f := range c.loop.flights.all() {
		c.sent[f.job.Tag.(int)] = f.stepped
	}
}

// fill checks all the holes at once, and alive all the time. It returns how many of the holes' checks were in flight when
// the last one left.
func fill(t *testing.T, holes []netip.Addr, alive netip.AddrPort, timeout time.Duration) int {
	t.Helper()
	n := len(holes)
	c := &capacity{
		living: make(chan Report, 1), finished: make(chan struct{}),
		sent: make([]time.Time, n), reported: make([]time.Time, n), left: n,
	}
	p, err := NewProber(Config{Method: MethodRaw}, c.deliver)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c.loop = &p.backend.(*rawProber).loop
	living := func(tag any) Report {
		p.Submit(Check{Target: alive, Timeout: 5 * time.Minute, Tag: tag})
		r := <-c.living
		if r.Result != Answered {
			t.Errorf("the living target: %v (%v)", r.Result, r.Err)
		}
		return r
	}
	var before, during []time.Duration
	for range 2000 {
		before = append(before, living(nil).RTT)
	}

	checks := make([]Check, n)
	for i, addr := range holes {
		checks[i] = Check{Target: netip.AddrPortFrom(addr, 80), Timeout: timeout, Tag: i}
	}
	descriptors, heap := openDescriptors(t), lab.HeapInUse()
	p.Submit(checks...)
	// Checks are launched in the order of their arrival: with this one, all are under way.
	living(probeAll)
	if now := openDescriptors(t); now != descriptors {
		t.Errorf("%d descriptors open, and %d before", now, descriptors)
	}
	t.Logf("%d bytes of heap per check in flight", (lab.HeapInUse()-heap)/n)
	runtime.KeepAlive(checks)

	var stop atomic.Bool
	go func() { <-c.finished; stop.Store(true) }()
	for !stop.Load() {
		during = append(during, living(nil).RTT)
	}
	p.Close()
	expectOnTime(t, c, timeout)
	t.Logf("the living target, alone: %s", quantiles(before))
	t.Logf("the living target, with %d black holes: %s", n, quantiles(during))
	return c.inFlight
}

func expectOnTime(t *testing.T, c *capacity, timeout time.Duration) {
	t.Helper()
	if c.busy > 0 && c.inFlight == len(c.sent) {
		t.Errorf("%d checks that were in flight are said to have found no place", c.busy)
	}
	if c.oddities != 0 {
		t.Errorf("%d reports of something other than a timeout, or of the same check again", c.oddities)
	}
	var late []time.Duration
	for i, sent := range c.sent {
		if sent.IsZero() {
			continue
		}
		late = append(late, c.reported[i].Sub(sent)-timeout)
		if late[len(late)-1] < 0 {
			t.Fatalf("check %d: sent %v, reported %v before its time", i, sent, -late[len(late)-1])
		}
	}
	t.Logf("timeouts reported too late by: %s", quantiles(late))
}

// openDescriptors returns how many this process has open, that of the directory it reads included.
func openDescriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
