package health

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

func TestTargetIdentity(t *testing.T) {
	m := New(Options{})
	defer m.Close()
	other := unique.Make(Settings{Rise: 7})
	a := m.Target(addr(1), plain, time.Minute)
	if a == nil || a.Addr() != addr(1) || a.State() != Unknown || a.RTT() != 0 || a.Result() != checker.Inconclusive {
		t.Fatalf("a new target is %+v", a)
	}
	if got := a.Settings(); got != settings(plain) {
		t.Errorf("settings %+v", got)
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr(1).Addr().As16()), addr(1).Port())
	if !mapped.Addr().Is4In6() || m.Target(mapped, plain, time.Minute) != a {
		t.Error("the IPv4-mapped form is another target")
	}
	if m.Target(addr(1), plain, time.Minute) != a {
		t.Error("asked again, it is another target")
	}
	for range 3 { // one that was asked for again is found in another way
		different := []*Target{
			m.Target(addr(2), plain, time.Minute),
			m.Target(netip.AddrPortFrom(addr(1).Addr(), 80), plain, time.Minute),
			m.Target(addr(1), other, time.Minute),
		}
		if slices.Contains(different, a) || different[0] == different[1] || different[1] == different[2] {
			t.Error("other addresses, ports or settings share a target")
		}
		if got := m.Target(addr(1), plain, time.Minute); got != a {
			t.Errorf("%p was %p", got, a)
		}
	}
	if m.Len() != 4 || len(slices.Collect(m.All())) != 4 {
		t.Errorf("%d targets, want 4", m.Len())
	}
}

// To find a target changes nothing: none is added, and none is kept for longer.
func TestFind(t *testing.T) {
	m := New(Options{Targets: 1})
	defer m.Close()
	stranger, inTable := m.Find(addr(1), plain)
	if inTable || stranger == nil || stranger.State() != Unknown || stranger.Addr() != addr(1) || stranger.Within() <= 0 || stranger.Status().Since.IsZero() {
		t.Errorf("before it is there: %+v, %v", stranger, inTable)
	}
	if m.Len() != 0 || m.Counts() != (Counts{}) {
		t.Errorf("it was added: %+v", m.Counts())
	}
	a := m.Target(addr(1), plain, time.Minute)
	if got, inTable := m.Find(addr(1), plain); got != a || !inTable {
		t.Errorf("%v, %v, want %v", got, inTable, a)
	}
	a.wanted.Store(0)
	if m.Find(addr(1), plain); a.wanted.Load() != 0 {
		t.Error("it is kept because somebody looked at it")
	}
	if got, inTable := m.Find(addr(2), plain); got != nil || inTable {
		t.Errorf("without room: %v, %v", got, inTable)
	}
	if n := m.Counts().Rejected; n != 0 {
		t.Errorf("%d were counted as rejected", n)
	}
}

func TestTableFull(t *testing.T) {
	m := New(Options{Targets: 10})
	defer m.Close()
	for i := range 15 {
		if got := m.Target(addr(i), plain, time.Minute); (got != nil) != (i < 10) {
			t.Errorf("target %d: %v", i, got)
		}
	}
	for i := range 10 {
		if m.Target(addr(i), plain, time.Minute) == nil {
			t.Errorf("target %d is lost", i)
		}
	}
	if got, want := m.Counts(), (Counts{Total: 10, Unknown: 10, Rejected: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	m.SetLimits(12, 0)
	if m.Target(addr(10), plain, time.Minute) == nil {
		t.Error("no room although the limit was raised")
	}
	m.SetLimits(3, 0)
	if m.Target(addr(11), plain, time.Minute) != nil {
		t.Error("added although the limit was lowered")
	}
	if m.Len() != 11 || m.Target(addr(0), plain, time.Minute) == nil {
		t.Error("lowering the limit lost targets")
	}
	m.SetLimits(0, 0)
	if m.limit.Load() != defaultTargets {
		t.Errorf("limit 0 became %d", m.limit.Load())
	}
}

func TestTableFullAllocatesNothing(t *testing.T) {
	m := newMonitor(Options{Targets: 1})
	m.Target(addr(0), plain, time.Minute)
	i := 0
	if allocs := testing.AllocsPerRun(1000, func() {
		i++
		m.Target(addr(i), plain, time.Minute)
	}); allocs != 0 {
		t.Errorf("%v allocations for a target that does not fit", allocs)
	}
	if m.Counts().Rejected == 0 {
		t.Error("nothing was rejected")
	}
}

func TestReadPathAllocatesNothing(t *testing.T) {
	m := newMonitor(Options{})
	v6 := netip.MustParseAddrPort("[2001:db8::1]:443")
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:443")
	for _, a := range []netip.AddrPort{addr(1), v6, mapped} {
		m.Target(a, plain, time.Minute)
		if allocs := testing.AllocsPerRun(1000, func() {
			target := m.Target(a, plain, time.Minute)
			if target.State() != Unknown || !target.Holds(time.Hour) || target.RTT() != 0 {
				t.Fail()
			}
		}); allocs != 0 {
			t.Errorf("%v: %v allocations", a, allocs)
		}
	}
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		m.SetProber(newNetwork(t, m, always(checker.Answered, time.Millisecond)))
		const keep = 10 * time.Second
		wait := settings(plain).Interval
		idle := m.Target(addr(1), plain, keep)
		wanted := m.Target(addr(2), plain, keep)
		long := m.Target(addr(3), plain, time.Minute)
		for range 9 {
			time.Sleep(time.Second)
			m.Target(addr(2), plain, keep)
			m.Target(addr(3), plain, time.Millisecond) // shortens nothing
		}
		if m.Len() != 3 {
			t.Fatalf("%d targets before the time is over", m.Len())
		}
		time.Sleep(time.Second + 2*wait)
		if got, want := m.Counts(), (Counts{Total: 2, Up: 2}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if idle.State() != Up {
			t.Errorf("forgotten, the target is %v", idle.State())
		}
		again := m.Target(addr(1), plain, keep)
		if again == idle || again.State() != Unknown {
			t.Error("a forgotten target came back")
		}
		if m.Target(addr(2), plain, keep) != wanted || m.Target(addr(3), plain, keep) != long {
			t.Error("a target that was wanted is another now")
		}
		time.Sleep(time.Minute + 3*wait)
		if got := m.Counts(); got != (Counts{}) || len(slices.Collect(m.All())) != 0 {
			t.Errorf("%+v when nobody wants anything", got)
		}
	})
}

// Wanted for no time at all, a target is probed once and forgotten.
func TestNoKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		net := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(net)
		target, other := m.Target(addr(1), plain, 0), m.Target(addr(2), plain, -1)
		time.Sleep(3 * time.Second)
		if target.State() != Up || other.State() != Up || net.probes() != 2 || m.Len() != 0 {
			t.Errorf("%v, %v, %d probes, %d targets", target.State(), other.State(), net.probes(), m.Len())
		}
	})
}

// A target that is asked for while it is being forgotten is either kept or another one, and the
// table and its counts agree in the end.
func TestForgetRace(t *testing.T) {
	m := newMonitor(Options{})
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := m.Target(addr(1), plain, 1); got == nil || got.Addr() != addr(1) {
					t.Error("no target")
					return
				}
				runtime.Gosched()
			}
		})
	}
	forgotten := 0
	for forgotten < 2000 {
		for target := range m.All() {
			if target.wanted.Swap(0) != gone && m.forget(target) {
				forgotten++
			}
		}
		if n := m.Len(); n < 0 || n > 1 {
			t.Fatalf("%d targets", n)
		}
		runtime.Gosched()
	}
	close(stop)
	readers.Wait()
	m.Target(addr(1), plain, 1)
	c := m.Counts()
	if in := slices.Collect(m.All()); len(in) != 1 || in[0].wanted.Load() == gone || c.Total != 1 || c.Unknown != 1 {
		t.Errorf("%d in the table, counts %+v", len(in), c)
	}
}

func TestForgetWanted(t *testing.T) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), plain, time.Minute)
	if m.forget(target) || m.Len() != 1 || m.Target(addr(1), plain, time.Minute) != target {
		t.Error("a target was forgotten that somebody had just asked for")
	}
}

func TestAllStopsEarly(t *testing.T) {
	m := newMonitor(Options{})
	for i := range 100 {
		m.Target(addr(i), plain, time.Minute)
	}
	seen := map[*Target]bool{}
	for target := range m.All() {
		seen[target] = true
		if len(seen) == 7 {
			break
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d targets", len(seen))
	}
}

func TestCloseEmpty(t *testing.T) {
	m := New(Options{})
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(m.Close)
	}
	closers.Wait()
	m.Close()
	if m.Target(addr(1), plain, time.Minute) != nil {
		t.Error("a closed monitor takes a new target")
	}
	if m.Counts() != (Counts{}) {
		t.Errorf("%+v", m.Counts())
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m := New(Options{Listener: &seen})
		net := newNetwork(t, m, always(checker.Answered, time.Second))
		m.SetProber(net)
		old := m.Target(addr(1), plain, time.Minute)
		time.Sleep(1500 * time.Millisecond)
		if old.State() != Up {
			t.Fatal("not up")
		}
		inFlight := m.Target(addr(2), plain, time.Minute)
		synctest.Wait()
		m.Close()
		probes := net.probes()
		m.Deliver([]checker.Report{{Tag: old, Result: checker.Refused}})
		m.SetProber(net)
		m.SetLimits(5, 5)
		time.Sleep(time.Minute)
		if net.probes() != probes || len(seen.checked) != 1 {
			t.Errorf("%d probes and %d results after Close", net.probes()-probes, len(seen.checked)-1)
		}
		if m.Target(addr(1), plain, time.Minute) != old || old.State() != Up || old.RTT() != time.Second {
			t.Error("the last verdict is lost")
		}
		if m.Target(addr(2), plain, time.Minute) != inFlight || inFlight.State() != Unknown || inFlight.Holds(time.Hour) {
			t.Error("the target without a verdict is not as it was")
		}
		if m.Target(addr(3), plain, time.Minute) != nil {
			t.Error("a closed monitor takes a new target")
		}
		if got, want := m.Counts(), (Counts{Total: 2, Unknown: 1, Up: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// All of the heap that 100 000 targets take, each with a name, with the table, the schedule and the reports.
func TestMemory(t *testing.T) {
	if lab.RaceEnabled {
		t.Skip("the race detector's build allocates differently; run without -race")
	}
	perTarget := heapPerTarget(t, 100_000)
	t.Logf("%.0f bytes a target", perTarget)
	if perTarget > 300 {
		t.Errorf("%.0f bytes of heap a target, want 300 at most", perTarget)
	}
}

// heapPerTarget fills a table, probes everything three times, and returns the bytes used.
func heapPerTarget(tb testing.TB, n int) float64 {
	before := lab.HeapInUse()
	m := newMonitor(Options{Targets: n})
	p := &instant{m: m}
	m.SetProber(p)
	for i := range n {
		m.Target(addr(i), plain, time.Hour).AddName(fmt.Sprintf("node-%06d.eu.example.org.", i))
	}
	for now := int64(0); p.sent < 3*n; now += int64(tick) {
		m.turn(now)
	}
	after := lab.HeapInUse()
	if c := m.Counts(); c.Up != n {
		tb.Fatalf("%+v", c)
	}
	return float64(after-before) / float64(n)
}

// No room and no life are two reasons to return nothing.
func TestClosed(t *testing.T) {
	m := New(Options{Targets: 1})
	m.Target(addr(0), plain, time.Minute)
	if m.Target(addr(1), plain, time.Minute) != nil || m.Closed() || m.Counts().Rejected != 1 {
		t.Errorf("full: closed %v, %+v", m.Closed(), m.Counts())
	}
	m.Close()
	if m.Target(addr(1), plain, time.Minute) != nil || !m.Closed() || m.Counts().Rejected != 1 {
		t.Errorf("closed: closed %v, %+v", m.Closed(), m.Counts())
	}
	if n := testing.AllocsPerRun(100, func() { m.Closed() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
