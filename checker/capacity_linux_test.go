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
				fill(t, family.holes, netip.AddrPortFrom(family.alive, 80))
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

	sent     []time.Time // when the SYN of each check left
	inFlight int         // when all of them were under way
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
		case r.Result != Timeout || r.Err != ErrTimeout || !c.reported[i].IsZero():
			c.oddities++
			fallthrough
		default:
			c.reported[i] = now
			if c.left--; c.left == 0 {
				close(c.finished)
			}
		}
	}
}

// note looks at what is in flight. It runs in the loop's goroutine, as deliver does.
func (c *capacity) note() {
	c.inFlight = len(c.loop.flights)
	for _, f := range c.loop.flights {
		c.sent[f.job.Tag.(int)] = f.sent
	}
}

// fill checks all the holes at once, and alive all the time.
func fill(t *testing.T, holes []netip.Addr, alive netip.AddrPort) {
	const timeout = 8 * time.Second
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
		p.Submit(Check{Target: alive, Timeout: time.Minute, Tag: tag})
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
}

func expectOnTime(t *testing.T, c *capacity, timeout time.Duration) {
	t.Helper()
	if c.inFlight != len(c.sent) {
		t.Errorf("%d checks in flight at once, want %d", c.inFlight, len(c.sent))
	}
	if c.oddities != 0 {
		t.Errorf("%d reports of something other than a timeout, or of the same check again", c.oddities)
	}
	late := make([]time.Duration, len(c.sent))
	for i, sent := range c.sent {
		late[i] = c.reported[i].Sub(sent) - timeout
		if late[i] < 0 || sent.IsZero() {
			t.Fatalf("check %d: sent %v, reported %v before its time", i, sent, -late[i])
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
