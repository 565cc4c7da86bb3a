package health

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

func TestFirstProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		net := newNetwork(t, m, always(checker.Answered, 3*time.Millisecond))
		m.SetProber(net)
		time.Sleep(time.Hour)
		start := time.Now()
		target := m.Target(addr(1), plain, time.Minute)
		time.Sleep(3 * time.Millisecond)
		synctest.Wait()
		// The next one finds its place in the interval at random, which may be right now.
		if sent := net.times(addr(1)); len(sent) == 0 || sent[0] != start {
			t.Errorf("sent at %v, want %v first", sent, start)
		}
		if target.State() != Up || target.RTT() != 3*time.Millisecond || target.Result() != checker.Answered {
			t.Errorf("%v, %v, %v", target.State(), target.RTT(), target.Result())
		}
		want := Change{Target: target, From: Unknown, To: Up, Run: 1, Result: checker.Answered}
		if len(seen.changes) != 1 || seen.changes[0] != want || len(seen.checked) != 1 {
			t.Errorf("%+v, want %+v", seen.changes, want)
		}
	})
}

// What a log line is made of.
func TestChange(t *testing.T) {
	refused := errors.New("refused")
	m := newMonitor(Options{})
	var seen recorder
	m.listener = &seen
	p := &manual{}
	m.SetProber(p)
	target := m.Target(addr(1), plain, time.Hour)
	now := int64(0)
	for _, letter := range "ar-rurraa" {
		m.turn(now)
		r := checker.Report{Tag: p.take()[0].Tag, Result: results[letter]}
		if r.Result == checker.Refused {
			r.Err = refused
		}
		m.Deliver([]checker.Report{r})
		now += int64(10 * time.Second)
	}
	m.turn(now)
	want := []Change{
		{Target: target, From: Unknown, To: Up, Run: 1, Result: checker.Answered},
		{Target: target, From: Up, To: Down, Run: 3, Result: checker.Unreachable, Falls: 1},
		{Target: target, From: Down, To: Up, Run: 2, Result: checker.Answered},
	}
	if !slices.Equal(seen.changes, want) || len(seen.checked) != 9 {
		t.Errorf("%d results, changes\n%+v, want\n%+v", len(seen.checked), seen.changes, want)
	}
	if got, want := m.Counts(), (Counts{Total: 1, Up: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// One target through random results, at random times, against a model that knows the whole past.
func TestScheduleAgainstNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		s := Settings{
			Interval: time.Duration(500+random.IntN(4000)) * time.Millisecond,
			Fast:     time.Duration(20+random.IntN(400)) * time.Millisecond,
			Timeout:  time.Second, Rise: 1 + random.IntN(3), Fall: 1 + random.IntN(4),
		}
		m := newMonitor(Options{})
		p := &manual{}
		m.SetProber(p)
		target := m.Target(addr(1), unique.Make(s), maxDuration)
		var history []checker.Result
		var now int64
		m.turn(now)
		for range 60 {
			checks := p.take()
			if len(checks) != 1 || checks[0].Tag != target {
				t.Fatalf("%d checks, want 1", len(checks))
			}
			sent := now
			r := checker.Results()[random.IntN(5)]
			took := time.Duration(random.Int64N(int64(s.Timeout)))
			m.turn(now + int64(took)/2)
			if len(p.checks) > 0 {
				t.Fatal("a second probe while one is in flight")
			}
			now += int64(took)
			m.Deliver([]checker.Report{{Tag: target, Result: r}})
			before := naive(history, s.Rise, s.Fall)
			history = append(history, r)
			state := naive(history, s.Rise, s.Fall)
			m.turn(now)
			if target.State() != state {
				t.Fatalf("%v after %v, want %v", target.State(), history, state)
			}
			wait := s.Interval
			if state == Unknown || state == Up && r != checker.Answered && r != checker.Inconclusive ||
				state == Down && r == checker.Answered {
				wait = s.Fast
			}
			earliest := sent + int64(wait)*8/10 - int64(tick)
			if len(history) == 1 || before == Unknown && state != Unknown {
				earliest = sent
			}
			if len(p.checks) == 0 {
				now = m.nextTurn(now)
				m.turn(now)
			}
			if now < earliest || now > max(sent+int64(wait), sent+int64(took)) {
				t.Fatalf("next probe %v after the last, which took %v: want at most %v",
					time.Duration(now-sent), took, wait)
			}
		}
	}
}

// The goroutine sleeps exactly until the first target is due, or for good.
func TestNoIdleTurns(t *testing.T) {
	m := newMonitor(Options{})
	p := &manual{}
	m.turn(0)
	if at := m.nextTurn(0); at != never {
		t.Errorf("without targets the next turn is at %v", time.Duration(at))
	}
	target := m.Target(addr(1), unique.Make(Settings{Interval: time.Hour}), maxDuration)
	m.turn(0)
	if at := m.nextTurn(0); at != never {
		t.Errorf("without a prober the next turn is at %v", time.Duration(at))
	}
	m.SetProber(p)
	now := int64(5)
	m.turn(now)
	if at := m.nextTurn(now); len(p.checks) != 1 || at != never {
		t.Errorf("%d checks; with all in flight the next turn is at %v", len(p.checks), time.Duration(at))
	}
	for range 20 {
		p.take()
		m.Deliver([]checker.Report{{Tag: target, Result: checker.Answered}})
		m.turn(now)
		now = m.nextTurn(now)
		if late := target.due - now; late < 0 || late >= int64(tick) {
			t.Errorf("the turn is %v before the target is due", time.Duration(late))
		}
		m.turn(now - 1)
		if len(p.checks) != 0 {
			t.Error("probed before the turn")
		}
		if at := m.nextTurn(now - 1); at != now {
			t.Errorf("the turn moved by %v", time.Duration(at-now))
		}
		m.turn(now)
		if len(p.checks) != 1 {
			t.Fatal("not probed in its turn")
		}
	}
}

// Targets die at random moments; each has to be noticed within the bound that the package promises,
// which leaves all of the design's 50 ms and most of a timeout to the machine.
func TestDetection(t *testing.T) {
	const ms = time.Millisecond
	tests := map[string]struct {
		s      Settings
		result checker.Result
		takes  time.Duration // until the result is there
		bound  time.Duration
	}{
		"refused, defaults":      {Settings{}, checker.Refused, ms, 3*time.Second + ms},
		"refused, slow network":  {Settings{}, checker.Refused, 300 * ms, 3*time.Second + 300*ms},
		"refused, long row":      {Settings{Fall: 20, Fast: 50 * ms}, checker.Refused, ms, 2*time.Second + 19*50*ms + ms},
		"refused, fall 1":        {Settings{Fall: 1}, checker.Refused, ms, 2*time.Second + ms},
		"refused, short":         {Settings{Interval: 100 * ms, Fast: 10 * ms, Timeout: 50 * ms}, checker.Refused, ms, 121 * ms},
		"refused, long interval": {Settings{Interval: time.Minute}, checker.Refused, ms, 61*time.Second + ms},
		"unreachable":            {Settings{}, checker.Unreachable, 200 * ms, 3*time.Second + 200*ms},
		"silent":                 {Settings{}, checker.Timeout, time.Second, 2*time.Second + 2*time.Second + time.Second},
		"silent, short timeout":  {Settings{Timeout: 200 * ms}, checker.Timeout, 200 * ms, 2*time.Second + 2*500*ms + 200*ms},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				latest := detect(t, unique.Make(tt.s), tt.result, tt.takes)
				if latest > tt.bound {
					t.Errorf("noticed after %v, want %v at most", latest, tt.bound)
				}
				// The bound is no looser than it has to be.
				if latest < tt.bound*3/4 {
					t.Errorf("all noticed after %v, far below %v", latest, tt.bound)
				}
			})
		})
	}
}

// detect lets 300 targets die and returns how long the last of them stayed up after that.
func detect(t *testing.T, key Key, dead checker.Result, takes time.Duration) time.Duration {
	const targets = 300
	dies := map[netip.AddrPort]time.Time{}
	var seen recorder
	m := New(Options{Listener: &seen})
	defer m.Close()
	m.SetProber(newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
		if time.Now().Before(dies[c.Target]) {
			return checker.Report{Result: checker.Answered}, time.Millisecond
		}
		return checker.Report{Result: dead}, takes
	}))
	interval := settings(key).Interval
	start := time.Now()
	for i := range targets {
		// Spread over two intervals, after some have gone by to let the phases drift apart.
		dies[addr(i)] = start.Add(5*interval + time.Duration(rand.Int64N(int64(2*interval))))
	}
	for i := range targets {
		m.Target(addr(i), key, maxDuration)
	}
	time.Sleep(12 * interval)
	synctest.Wait()
	var latest time.Duration
	downs := 0
	for i, c := range seen.changes {
		if c.To == Down {
			downs++
			latest = max(latest, seen.at[i].Sub(dies[c.Target.Addr()]))
		}
	}
	if downs != targets {
		t.Fatalf("%d of %d noticed", downs, targets)
	}
	return latest
}

// Targets that enter the table together are probed all over the interval after that.
func TestPhases(t *testing.T) {
	for name, r := range map[string]checker.Result{"up": checker.Answered, "refused": checker.Refused, "silent": checker.Timeout} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const targets, slices = 2000, 10
				m := New(Options{})
				defer m.Close()
				net := newNetwork(t, m, always(r, 100*time.Millisecond))
				m.SetProber(net)
				for i := range targets {
					m.Target(addr(i), plain, time.Hour)
				}
				interval := settings(plain).Interval
				time.Sleep(3 * interval)
				var sent [slices]int
				for i := range sent {
					before := net.probes()
					time.Sleep(interval / slices)
					sent[i] = net.probes() - before
				}
				mean := targets / slices
				for i, n := range sent {
					if n < mean/2 || n > mean*2 {
						t.Errorf("%d probes in slice %d of the interval, the mean is %d: %v", n, i, mean, sent)
					}
				}
			})
		})
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets, rate = 2000, 500
		m := New(Options{Rate: rate})
		defer m.Close()
		net := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(net)
		for i := range targets {
			m.Target(addr(i), plain, time.Hour)
		}
		start := time.Now()
		for second := 1; second <= 10; second++ {
			time.Sleep(time.Second)
			want := rate*second + rate/10
			if got := net.probes(); got > want || got < want-rate/100 {
				t.Errorf("%d probes in %d s, want %d", got, second, want)
			}
		}
		// New targets come first, so all have a verdict before any is probed again.
		last := time.Duration(targets-rate/10)*time.Second/rate + tick
		for i := range targets {
			sent := net.times(addr(i))
			if len(sent) == 0 || sent[0].Sub(start) > last {
				t.Fatalf("target %d: first probe at %v, want within %v", i, sent, last)
			}
		}
		m.SetLimits(0, 0)
		time.Sleep(5 * time.Second)
		before := net.probes()
		time.Sleep(10 * time.Second)
		if got := net.probes() - before; got < targets*5 {
			t.Errorf("%d probes in 10 s without a limit", got)
		}
	})
}

func TestQueueOrder(t *testing.T) {
	m := newMonitor(Options{})
	p := &manual{}
	m.SetProber(p)
	second := int64(time.Second)
	var old []*Target
	for i := range 20 {
		old = append(old, m.Target(addr(i), plain, time.Hour))
	}
	m.turn(0)
	for i, c := range p.take() {
		if c.Tag != old[i] {
			t.Fatal("new targets are not probed in the order they came")
		}
		m.Deliver([]checker.Report{{Tag: c.Tag, Result: checker.Answered}})
	}
	m.SetLimits(0, 10)
	m.turn(0)
	now := 10 * second // all are due
	m.turn(now)
	queue := []*Target{p.take()[0].Tag.(*Target)}
	for t := m.loop.routine.head; t != nil; t = t.next {
		queue = append(queue, t)
	}
	if len(queue) != 20 {
		t.Fatalf("%d targets are due", len(queue))
	}
	fresh := m.Target(addr(100), plain, time.Hour)
	want := slices.Insert(queue, 1, fresh)
	for i := 1; i < len(want); i++ {
		now = m.nextTurn(now)
		m.turn(now)
		if checks := p.take(); len(checks) != 1 || checks[0].Tag != want[i] {
			t.Fatalf("turn %d: %d checks, or of the wrong target", i, len(checks))
		}
	}
	if took := now - 10*second; took != 2*second {
		t.Errorf("20 probes at 10 a second took %v", time.Duration(took))
	}
}

func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late []time.Duration
		m := New(Options{Late: func(d time.Duration) { late = append(late, d) }})
		defer m.Close()
		m.Target(addr(1), plain, time.Hour)
		time.Sleep(time.Second)
		// Each of these probes takes longer than Fast, which does not make the next one late.
		m.SetProber(newNetwork(t, m, always(checker.Timeout, time.Second)))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(late) < 4 || late[0] != time.Second {
			t.Fatalf("late by %v, want 1s first", late)
		}
		for _, d := range late[1:] {
			if d != 0 {
				t.Fatalf("late by %v, want 0 after the first", late)
			}
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		for i := range 1000 {
			m.Target(addr(i), plain, time.Hour)
		}
		net := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(net)
		synctest.Wait()
		var sizes []int
		for _, b := range net.batches {
			sizes = append(sizes, len(b))
		}
		if !slices.Equal(sizes, []int{256, 256, 256, 232}) {
			t.Errorf("batches of %v", sizes)
		}
	})
}

// closable is a network that cuts its checks short as a checker does when it is closed.
type closable struct {
	*network
	open   bool
	checks []checker.Check
}

func (c *closable) Submit(checks ...checker.Check) error {
	if !c.open {
		return checker.ErrClosed
	}
	c.checks = append(c.checks, checks...)
	return nil
}

func (c *closable) close() {
	c.open = false
	c.cutShort(c.checks)
	c.checks = nil
}

func (c *closable) cutShort(checks []checker.Check) {
	for _, check := range checks {
		err := fmt.Errorf("cut short: %w", checker.ErrClosed)
		c.deliver([]checker.Report{{Tag: check.Tag, Err: err}})
	}
}

func TestSwapProber(t *testing.T) {
	const second = time.Second
	tests := map[string]func(m *Monitor, old *closable, next *network){
		"swap, then close": func(m *Monitor, old *closable, next *network) {
			m.SetProber(next)
			old.close()
		},
		"swap, wait, close": func(m *Monitor, old *closable, next *network) {
			m.SetProber(next)
			synctest.Wait()
			old.close()
		},
		"close, then swap": func(m *Monitor, old *closable, next *network) {
			old.close()
			synctest.Wait()
			m.SetProber(next)
		},
		"with a pause": func(m *Monitor, old *closable, next *network) {
			m.SetProber(nil)
			old.close()
			synctest.Wait()
			m.SetProber(next)
		},
	}
	for name, swap := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen recorder
				m := New(Options{Listener: &seen})
				defer m.Close()
				next := newNetwork(t, m, always(checker.Answered, time.Millisecond))
				m.SetProber(next)
				known := m.Target(addr(1), plain, time.Hour)
				time.Sleep(second)
				old := &closable{network: next, open: true}
				m.SetProber(old)
				fresh := m.Target(addr(2), plain, time.Hour)
				time.Sleep(2 * second)
				synctest.Wait()
				if len(old.checks) != 2 || known.State() != Up || fresh.State() != Unknown {
					t.Fatalf("%d in flight", len(old.checks))
				}
				probes, results := next.probes(), len(seen.checked)
				swap(m, old, next)
				synctest.Wait()
				if got := next.probes() - probes; got != 2 {
					t.Errorf("%d probes at once through the new prober, want 2", got)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if fresh.State() != Up || known.State() != Up {
					t.Errorf("%v, %v", fresh.State(), known.State())
				}
				if got := len(seen.checked) - results; got != 2 {
					t.Errorf("the listener saw %d results, want 2", got)
				}
			})
		})
	}
}

// A target whose first probe was cut short is new still, and goes before the routine.
func TestCutShortOrder(t *testing.T) {
	m := newMonitor(Options{})
	p := &manual{}
	m.SetProber(p)
	known, fresh := m.Target(addr(1), plain, time.Hour), m.Target(addr(2), plain, time.Hour)
	m.turn(0)
	p.take()
	m.Deliver([]checker.Report{{Tag: known, Result: checker.Answered}})
	m.turn(0)
	m.SetProber(nil)
	m.turn(int64(time.Minute))
	m.Deliver([]checker.Report{{Tag: fresh, Err: checker.ErrClosed}})
	m.SetProber(p)
	m.turn(int64(time.Minute))
	checks := p.take()
	if len(checks) != 2 || checks[0].Tag != fresh || checks[1].Tag != known {
		t.Errorf("checks %+v", checks)
	}
}

// A prober that is closed but stays the one to use is not asked without end.
func TestClosedProber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		asked := 0
		m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
			asked++
			return checker.Report{Err: checker.ErrClosed}, 0
		}))
		target := m.Target(addr(1), plain, time.Hour)
		time.Sleep(time.Second)
		synctest.Wait()
		if asked != 5 || len(seen.checked) != 0 || target.Result() != checker.Inconclusive || target.State() != Unknown {
			t.Errorf("asked %d times in a second, %d results", asked, len(seen.checked))
		}
		if !target.Holds(time.Hour) {
			t.Error("a probe that was cut short counts as a first result")
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		net := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		for i := range 10 {
			m.Target(addr(i), plain, time.Hour)
		}
		time.Sleep(time.Minute)
		if net.probes() != 0 {
			t.Error("probes without a prober")
		}
		m.SetProber(net)
		synctest.Wait()
		if net.probes() != 10 {
			t.Errorf("%d probes at once, want 10", net.probes())
		}
		time.Sleep(10 * time.Second)
		m.SetProber(nil)
		before := net.probes()
		m.Target(addr(10), plain, time.Hour)
		time.Sleep(time.Minute)
		if net.probes() != before {
			t.Error("probes through a prober that was taken away")
		}
		if c := m.Counts(); c.Up != 10 || c.Unknown != 1 {
			t.Errorf("%+v", c)
		}
		m.SetProber(net)
		synctest.Wait()
		if got := net.probes() - before; got != 11 {
			t.Errorf("%d probes at once, want 11", got)
		}
	})
}

// Reports that belong to no probe in flight do nothing.
func TestStrayReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m, other := New(Options{Listener: &seen}), New(Options{})
		defer m.Close()
		defer other.Close()
		net := newNetwork(t, m, always(checker.Answered, time.Microsecond))
		m.SetProber(net)
		target := m.Target(addr(1), plain, time.Hour)
		time.Sleep(10 * time.Millisecond)
		m.Deliver(nil)
		m.Deliver([]checker.Report{
			{}, {Tag: 7, Result: checker.Refused}, {Tag: (*Target)(nil), Result: checker.Refused},
			{Tag: target, Result: checker.Refused},
			{Tag: other.Target(addr(1), plain, time.Hour), Result: checker.Refused},
		})
		synctest.Wait()
		// The second check may be due already: its time is random.
		stray := slices.ContainsFunc(seen.checked, func(r checker.Report) bool { return r.Result != checker.Answered })
		if len(seen.checked) == 0 || stray || target.State() != Up || target.Result() != checker.Answered {
			t.Errorf("%v, %v after %v", seen.checked, target.State(), target.Result())
		}
	})
}

// faulty panics in a callback every so often.
type faulty struct {
	recorder
	calls atomic.Int64
}

func (f *faulty) step() {
	if f.calls.Add(1)%3 == 0 {
		panic("listener fault")
	}
}

func (f *faulty) Checked(t *Target, r checker.Report) { f.recorder.Checked(t, r); f.step() }
func (f *faulty) Changed(c Change)                    { f.recorder.Changed(c); f.step() }

func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets = 100
		var seen faulty
		var mu sync.Mutex
		panics := map[string]int{}
		lates, submits := 0, 0
		m := New(Options{
			Listener: &seen,
			Panic: func(reason any) {
				mu.Lock()
				defer mu.Unlock()
				panics[reason.(string)]++
			},
			Late: func(time.Duration) {
				if lates++; lates%50 == 0 {
					panic("late fault")
				}
			},
		})
		defer m.Close()
		net := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(proberFunc(func(checks ...checker.Check) {
			if submits++; submits%20 == 0 {
				panic("prober fault")
			}
			net.Submit(checks...)
		}))
		for i := range targets {
			m.Target(addr(i), plain, time.Hour)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, want := m.Counts(), (Counts{Total: targets, Up: targets}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		mu.Lock()
		for _, reason := range []string{"listener fault", "late fault", "prober fault"} {
			if panics[reason] == 0 {
				t.Errorf("no %s in %v", reason, panics)
			}
		}
		mu.Unlock()
		before := map[int]int{}
		for i := range targets {
			before[i] = len(net.times(addr(i)))
		}
		time.Sleep(5 * time.Second)
		for i := range targets {
			if len(net.times(addr(i))) == before[i] {
				t.Errorf("target %d is not probed any more", i)
			}
		}
	})
}

// A panic cuts a turn off; the rest of its work is due at once.
func TestTurnAfterPanic(t *testing.T) {
	fault := true
	m := newMonitor(Options{Panic: func(any) {}, Listener: listenerFunc(func(*Target) {
		if fault {
			fault = false
			panic("listener fault")
		}
	})})
	p := &manual{}
	m.SetProber(p)
	first, second := m.Target(addr(1), plain, time.Hour), m.Target(addr(2), plain, time.Hour)
	m.guardedTurn()
	p.take()
	third := m.Target(addr(3), plain, time.Hour)
	m.Deliver([]checker.Report{{Tag: first, Result: checker.Answered}, {Tag: second, Result: checker.Answered}})
	m.guardedTurn()
	if first.State() != Up || second.State() != Unknown || m.nextTurn(5) != 5 {
		t.Fatalf("%v, %v, next turn at %v", first.State(), second.State(), m.nextTurn(5))
	}
	m.guardedTurn()
	if checks := p.take(); second.State() != Up || len(checks) != 1 || checks[0].Tag != third {
		t.Errorf("%v, checks %+v", second.State(), checks)
	}
}

// A prober that panics although it took the checks reports them after all: too late to count.
func TestReportAfterPanic(t *testing.T) {
	m := newMonitor(Options{Panic: func(any) {}})
	p := &manual{}
	m.SetProber(proberFunc(func(checks ...checker.Check) {
		p.Submit(checks...)
		if len(p.checks) == 2 {
			panic("prober fault")
		}
	}))
	targets := []*Target{m.Target(addr(1), plain, time.Hour), m.Target(addr(2), plain, time.Hour)}
	m.guardedTurn()
	for _, c := range p.take() {
		m.Deliver([]checker.Report{{Tag: c.Tag, Result: checker.Refused}})
	}
	m.guardedTurn()
	if targets[0].State() != Unknown || targets[1].State() != Unknown {
		t.Error("a report counted that belongs to no probe")
	}
	m.SetProber(p)
	m.guardedTurn()
	checks := p.take()
	if len(checks) != 2 || checks[0].Tag != targets[0] || checks[1].Tag != targets[1] {
		t.Errorf("checks %+v", checks)
	}
}

type proberFunc func(...checker.Check)

func (f proberFunc) Submit(checks ...checker.Check) error {
	f(checks...)
	return nil
}

// Without Options.Panic nothing is swallowed.
func TestPanicUnhandled(t *testing.T) {
	m := newMonitor(Options{Late: func(time.Duration) { panic("late fault") }})
	m.SetProber(&manual{})
	m.Target(addr(1), plain, time.Hour)
	defer func() {
		if reason, _ := recover().(string); !strings.Contains(reason, "late fault") {
			t.Errorf("recovered %q", reason)
		}
	}()
	m.guardedTurn()
	t.Error("no panic")
}

// A prober may also report from within Submit, and a listener may use the monitor.
func TestReentrance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Listener: nil})
		m.Close()
		var busy *Monitor
		busy = New(Options{Listener: listenerFunc(func(t *Target) {
			busy.Target(addr(2), plain, time.Hour)
			busy.Counts()
			busy.SetLimits(0, 0)
			busy.SetProber(&instant{m: busy})
		})})
		defer busy.Close()
		busy.SetProber(&instant{m: busy})
		first := busy.Target(addr(1), plain, time.Hour)
		time.Sleep(5 * time.Second)
		if first.State() != Up || busy.Counts().Up != 2 {
			t.Errorf("%v, %+v", first.State(), busy.Counts())
		}
	})
}

type listenerFunc func(*Target)

func (f listenerFunc) Checked(t *Target, _ checker.Report) { f(t) }
func (f listenerFunc) Changed(c Change)                    { f(c.Target) }
func (f listenerFunc) Froze(Freeze)                        {}

// behind is a prober that has too much to do until an instant.
type behind struct {
	*network
	until time.Time
	asked int
}

func (p *behind) Behind() bool {
	behind := time.Now().Before(p.until)
	if behind {
		p.asked++
	}
	return behind
}

// A prober that is behind is asked again soon, and gets the checks in the order in which they were due. No token is spent
// on what it does not take.
func TestProberBehind(t *testing.T) {
	const ms, targets = time.Millisecond, 3 * batch
	for name, tt := range map[string]struct {
		behind time.Duration
		rate   int
		asked  int           // while it is behind
		within time.Duration // the last check is sent so long after that
	}{
		"for a moment":    {busyRetry / 2, 0, 1, busyRetry},
		"for long":        {100 * ms, 0, 10, busyRetry},
		"a limit on rate": {100 * ms, 10 * targets, 10, busyRetry + 2*tick},
		"never":           {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var late []time.Duration
				m := New(Options{Rate: tt.rate, Late: func(d time.Duration) { late = append(late, d) }})
				defer m.Close()
				for i := range targets {
					m.Target(addr(i), plain, time.Hour)
				}
				p := &behind{network: newNetwork(t, m, always(checker.Answered, time.Second)), until: time.Now().Add(tt.behind)}
				m.SetProber(p)
				begun := time.Now()
				time.Sleep(tt.behind + tt.within)
				synctest.Wait()
				i := 0
				for _, checks := range p.batches {
					for _, c := range checks {
						if c.Target != addr(i) {
							t.Fatalf("number %d is a check of %v", i, c.Target)
						}
						i++
					}
				}
				if i != targets || len(late) != targets || late[0] > tt.behind+busyRetry || late[0] < tt.behind {
					t.Errorf("%d checks within %v, %d in time, the first %v late", i, time.Since(begun), len(late), late[:min(1, len(late))])
				}
				if p.asked != tt.asked {
					t.Errorf("asked %d times while it was behind, want %d", p.asked, tt.asked)
				}
			})
		})
	}
}
