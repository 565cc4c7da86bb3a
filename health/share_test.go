package health

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// A monitor that runs goes over to a council, to another one, and back, and no verdict changes but those that are decided.
func TestSetCouncil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets = 300
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		n := newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
			if c.Target.Addr().As4()[3]%3 == 0 {
				return checker.Report{Result: checker.Refused}, time.Millisecond
			}
			return checker.Report{Result: checker.Answered}, time.Millisecond
		})
		m.SetProber(n)
		var all []*Target
		before := map[*Target]State{}
		for i := range targets {
			all = append(all, m.Target(addr(i), plain, maxDuration))
		}
		pass(time.Minute)
		for _, target := range all {
			before[target] = target.State()
		}
		seen.reset()
		unchanged := func(when string) {
			t.Helper()
			synctest.Wait()
			for _, target := range all {
				if got := target.State(); got != before[target] {
					t.Fatalf("%s: %v is %v, and was %v", when, target.Addr(), got, before[target])
				}
			}
			if c := seen.reset(); len(c) > 0 {
				t.Fatalf("%s: %d changes: %+v", when, len(c), c[0])
			}
		}

		first := newAssembly(m, Decision{Alone: true})
		defer first.check(t)
		m.SetCouncil(first)
		unchanged("a council that lets the own checks decide")
		for _, target := range all {
			words, own := first.heard(target)
			if want := map[State]Word{Up: SaysUp, Down: SaysDown}[before[target]]; len(words) != 1 || words[0] != want || own.InForce != before[target] || own.Age < 50*time.Second {
				t.Fatalf("%v is told as %v, %+v", target.Addr(), words, own)
			}
		}

		second := newAssembly(m, Decision{})
		defer second.check(t)
		for i, target := range all {
			second.later[target.Addr()] = Decision{State: before[target], Observes: i%2 == 0}
		}
		m.SetCouncil(second)
		unchanged("a council that gives a half to others")
		if got := m.Counts().Resting; got != targets/2 {
			t.Errorf("%d rest", got)
		}
		pass(5 * time.Second)
		probes := len(n.times(addr(1)))
		pass(time.Minute)
		unchanged("after a minute")
		if got := len(n.times(addr(1))); got != probes {
			t.Errorf("%d probes of a target that rests", got-probes)
		}

		began := time.Now()
		m.SetCouncil(nil)
		unchanged("without a council")
		pass(defaultFast)
		for i := range targets {
			if times := n.times(addr(i)); i%2 == 1 && times[len(times)-1].Before(began) {
				t.Fatalf("target %d is not checked again", i)
			}
		}
		if all[1].Own().Word == NoWord || m.Counts().Resting != 0 || all[1].share.Load() != nil {
			t.Errorf("it still rests: %+v, %+v", all[1].Own(), m.Counts())
		}
		pass(time.Minute)
		unchanged("a minute later")

		third := newAssembly(m, Decision{State: Down})
		m.SetCouncil(third)
		synctest.Wait()
		if c := m.Counts(); c.Down != targets || len(seen.reset()) == 0 {
			t.Errorf("%+v", c)
		}
		m.SetCouncil(nil)
		pass(10 * time.Second)
		seen.reset()
		unchanged("once the own checks have decided again")
	})
}

// Who stops checking and begins again before it has missed a check goes on as if nothing had happened.
func TestRoleFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		n := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(n)
		a := newAssembly(m, Decision{State: Up, Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), plain, maxDuration)
		pass(20*time.Second + time.Millisecond)
		for range 10 {
			a.decide(target, Decision{State: Up})
			a.decide(target, Decision{State: Up, Observes: true})
			pass(10 * time.Millisecond)
		}
		pass(10 * time.Second)
		words, _ := a.heard(target)
		want := []Word{Checking, SaysUp}
		for range 10 {
			want = append(want, NoWord, SaysUp)
		}
		if !slices.Equal(words, want) {
			t.Errorf("it said %v", words)
		}
		times := n.times(addr(1))
		for i := range times[1:] {
			if gap := times[i+1].Sub(times[i]); gap > defaultInterval+2*time.Millisecond {
				t.Errorf("%v between two probes", gap)
			}
		}
		if len(times) > 22 {
			t.Errorf("%d probes in half a minute", len(times))
		}
	})
}

// The result of a probe in flight counts when the target has come to rest, and no other probe follows.
func TestRestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		n := newNetwork(t, m, always(checker.Refused, 100*time.Millisecond))
		m.SetProber(n)
		a := newAssembly(m, Decision{State: Up, Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), unique.Make(Settings{Fall: 1}), maxDuration)
		pass(50 * time.Millisecond)
		a.decide(target, Decision{State: Up})
		pass(time.Minute)
		m.Close()
		if len(seen.checked) != 1 || target.Result() != checker.Refused || target.Own().Word != NoWord || target.State() != Up || n.probes() != 1 {
			t.Errorf("%d results, %v, %+v, %v, %d probes", len(seen.checked), target.Result(), target.Own(), target.State(), n.probes())
		}
	})
}

// A member that dies hands over thousands of targets. Their first checks are spread.
func TestManyAreRoused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const targets = 5000
		m := New(Options{})
		defer m.Close()
		n := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(n)
		a := newAssembly(m, Decision{State: Up})
		defer a.check(t)
		m.SetCouncil(a)
		var all []*Target
		for i := range targets {
			all = append(all, m.Target(addr(i), plain, maxDuration))
		}
		pass(time.Minute)
		a.mu.Lock()
		a.first = Decision{State: Up, Observes: true}
		a.mu.Unlock()
		began := time.Now()
		m.Reconsider(all...)
		pass(defaultFast)
		if n := a.questions(); n > 5*targets {
			t.Errorf("%d questions", n)
		}
		fifths := [5]int{}
		for i := range targets {
			times := n.times(addr(i))
			if len(times) == 0 {
				t.Fatalf("target %d is not checked within Fast", i)
			}
			fifths[min(int(times[0].Sub(began)*5/defaultFast), 4)]++
		}
		if slices.Max(fifths[:]) > targets/4 {
			t.Errorf("%v first checks in the fifths of Fast", fifths)
		}
	})
}

// Who is to be reconsidered is so once, however often somebody asks for that.
func TestReconsiderOnce(t *testing.T) {
	m := newMonitor(Options{})
	a := newAssembly(m, Decision{State: Up})
	m.SetCouncil(a)
	target, other := m.Target(addr(1), plain, maxDuration), m.Target(addr(2), plain, maxDuration)
	m.turn(0)
	for asked := range 2 {
		a.questions()
		for range 1000 {
			m.Reconsider(target, other, target)
		}
		m.turn(int64(asked) + 1)
		if n := a.questions(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	}
	stranger, _ := m.Find(addr(3), plain)
	if m.Reconsider(stranger); len(m.pending) != 0 {
		t.Error("one that is in no table is to be reconsidered")
	}
}

// The council is told the round trip when it has changed by a factor of 2, once a minute at most.
func TestRoundTripIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		var rtt atomic.Int64
		rtt.Store(int64(10 * time.Millisecond))
		m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
			d := time.Duration(rtt.Load())
			return checker.Report{Result: checker.Answered, RTT: d}, d
		}))
		a := newAssembly(m, Decision{State: Up, Observes: true, RTT: time.Millisecond})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), plain, maxDuration)
		if target.RTT() != time.Millisecond {
			t.Errorf("at first it is %v", target.RTT())
		}
		pass(10 * time.Minute)
		_, own := a.heard(target)
		if n := a.questions(); n > 3 || own.RTT != 10*time.Millisecond || target.RTT() != own.RTT {
			t.Errorf("asked %d times, %+v", n, own)
		}
		rtt.Store(int64(100 * time.Millisecond))
		pass(10 * time.Minute)
		_, own = a.heard(target)
		if n := a.questions(); n > 3 || own.RTT < 50*time.Millisecond {
			t.Errorf("asked %d times more, %+v", n, own)
		}
		for i := range 600 {
			rtt.Store(int64(time.Millisecond) << (10 * (i % 2)))
			pass(10 * time.Second)
		}
		if n := a.questions(); n > 101 {
			t.Errorf("asked %d times in 100 minutes", n)
		}
	})
}

// Targets that only other replicas want are told apart, and leave when nobody wants them.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		m.SetProber(newNetwork(t, m, always(checker.Answered, time.Millisecond)))
		a := newAssembly(m, Decision{State: Up, Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		ours := m.Target(addr(1), plain, time.Minute)
		theirs := m.Observe(addr(2), plain, time.Minute)
		both := m.Target(addr(3), plain, 20*time.Second)
		if m.Observe(addr(3), plain, time.Minute) != both || theirs.Wanted() || !ours.Wanted() || !both.Wanted() {
			t.Errorf("wanted are %v, %v, %v", ours.Wanted(), theirs.Wanted(), both.Wanted())
		}
		pass(40 * time.Second)
		if theirs.Wanted() || !ours.Wanted() || both.Wanted() || m.Len() != 3 {
			t.Errorf("later wanted are %v, %v, %v of %d", ours.Wanted(), theirs.Wanted(), both.Wanted(), m.Len())
		}
		m.Observe(addr(2), plain, time.Minute)
		pass(30 * time.Second)
		if gone, _ := a.left(); m.Len() != 1 || len(gone) != 2 {
			t.Errorf("%d are left, %v are gone", m.Len(), gone)
		}
		pass(time.Minute)
		if _, inside := a.left(); m.Len() != 0 || inside != 0 {
			t.Errorf("%d are left", m.Len())
		}
		m.SetLimits(1, 0)
		if m.Observe(addr(5), plain, time.Minute) == nil || m.Observe(addr(6), plain, time.Minute) != nil || m.Observe(addr(5), plain, time.Minute) == nil {
			t.Error("the limit of the table is another one for other replicas")
		}
		m.SetCouncil(nil)
		if alone := m.Observe(addr(5), plain, time.Minute); alone == nil {
			t.Error("without a council nothing is observed")
		}
	})
}

// Whoever waits for a verdict is told when a council has decided it, and waits on while it has not.
func TestAwaitDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		m.SetProber(newNetwork(t, m, always(checker.Answered, time.Millisecond)))
		a := newAssembly(m, Decision{Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), plain, maxDuration)
		began := time.Now()
		time.AfterFunc(300*time.Millisecond, func() {
			a.mu.Lock()
			a.first = Decision{State: Up, Observes: true}
			a.mu.Unlock()
			m.Reconsider(target)
		})
		m.Await([]*Target{target}, time.Second)
		if took := time.Since(began); took != 300*time.Millisecond || target.State() != Up {
			t.Errorf("it took %v until it is %v", took, target.State())
		}
	})
}

// The checks that have come back are counted, and those that have not, also where nothing sends them.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Listener: slowListener{}})
		defer m.Close()
		m.SetProber(newNetwork(t, m, always(checker.Timeout, time.Second)))
		if finished, pending := m.Checks(); finished != 0 || pending != 0 {
			t.Errorf("at first: %d, %d", finished, pending)
		}
		m.Target(addr(1), plain, maxDuration)
		m.Target(addr(2), plain, maxDuration)
		pass(500 * time.Millisecond)
		if finished, pending := m.Checks(); finished != 0 || pending != 2 {
			t.Errorf("in flight: %d, %d", finished, pending)
		}
		for range 2 {
			pass(20 * time.Second)
			if finished, pending := m.Checks(); finished != 0 || pending == 0 {
				t.Errorf("held up: %d, %d", finished, pending)
			}
		}
		pass(time.Hour)
		if finished, _ := m.Checks(); finished < 50 {
			t.Errorf("after an hour: %d", finished)
		}
	})
}

// slowListener holds up the monitor for a minute with each result.
type slowListener struct{}

func (slowListener) Checked(*Target, checker.Report) { time.Sleep(time.Minute) }
func (slowListener) Changed(Change)                  {}
func (slowListener) Froze(Freeze)                    {}

// fickle is a Council that decides by chance.
type fickle struct {
	m     *Monitor
	mu    sync.Mutex
	in    map[*Target]bool
	calls int
	wrong string
}

func (f *fickle) by(t *Target) Decision {
	f.calls++
	d := Decision{State: State(rand.IntN(3)), Observes: rand.IntN(2) == 0, Alone: rand.IntN(4) == 0, RTT: time.Duration(rand.IntN(3))}
	if rand.IntN(3) == 0 {
		f.m.Reconsider(t)
	}
	return d
}

func (f *fickle) Enter(t *Target) Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in[t] = true
	return f.by(t)
}

func (f *fickle) Decide(t *Target, own Opinion) Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.in[t] {
		f.wrong = "Decide without Enter"
	}
	if own.Age < 0 || own.InForce >= states {
		f.wrong = "an opinion makes no sense"
	}
	return f.by(t)
}

func (f *fickle) Leave(t *Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.in[t] {
		f.wrong = "Leave without Enter"
	}
	delete(f.in, t)
}

func (f *fickle) Froze(bool) {}

// Queries, wants, reports, councils that come and go, decisions by chance, and the end, all at once.
func TestCouncilStress(t *testing.T) {
	const rounds = 1000
	var seen recorder
	m := New(Options{Targets: 200, Listener: &seen, Panic: func(reason any) { t.Errorf("panic: %v", reason) }})
	l := &ledger{inFlight: map[any]bool{}}
	p := newChaotic(m, l)
	m.SetProber(p)
	keys := []Key{plain, unique.Make(Settings{Interval: 1, Fall: 1}), unique.Make(Settings{Interval: 5 * time.Millisecond})}
	var councils []*fickle
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() {
			for range rounds {
				keep := time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
				a, k := addr(97*rand.IntN(150)), keys[rand.IntN(len(keys))]
				target := m.Target(a, k, keep)
				if rand.IntN(2) == 0 {
					target = m.Observe(a, k, keep)
				}
				if target != nil {
					m.Reconsider(target, target)
					target.Own()
					target.Status()
					target.Wanted()
					m.Await([]*Target{target}, time.Duration(rand.IntN(int(time.Millisecond))))
				}
				m.Checks()
			}
		})
	}
	var ended atomic.Bool
	var changer sync.WaitGroup
	changer.Go(func() {
		for i := 0; !ended.Load(); i++ {
			if i%3 == 2 {
				m.SetCouncil(nil)
			} else {
				f := &fickle{m: m, in: map[*Target]bool{}}
				councils = append(councils, f)
				m.SetCouncil(f)
			}
			m.SetFreeze([]int{0, 1, 90}[rand.IntN(3)], time.Duration(rand.IntN(int(time.Millisecond))))
			m.LostPeers(time.Duration(rand.IntN(int(time.Second))))
			if rand.IntN(2) == 0 {
				m.FoundPeers()
			}
			time.Sleep(time.Duration(rand.IntN(int(5 * time.Millisecond))))
		}
	})
	users.Wait()
	ended.Store(true)
	changer.Wait()
	last := &fickle{m: m, in: map[*Target]bool{}}
	councils = append(councils, last)
	m.SetCouncil(last)
	m.SetLimits(0, 0)
	checkTable(t, m)
	var closers sync.WaitGroup
	closers.Go(m.Close)
	closers.Go(func() { m.Target(addr(rand.IntN(2000)), plain, time.Minute); runtime.Gosched() })
	closers.Go(func() { m.SetCouncil(nil); m.Reconsider() })
	closers.Wait()
	p.close()
	c := m.Counts()
	if c.Unknown+c.Up+c.Down != c.Total || c.Resting > c.Total {
		t.Errorf("%+v", c)
	}
	calls := 0
	for _, f := range councils {
		calls += f.calls
		if f.wrong != "" {
			t.Error(f.wrong)
		}
	}
	if calls == 0 || len(seen.changes) == 0 || l.err != nil {
		t.Errorf("%d calls, %d changes, %v", calls, len(seen.changes), l.err)
	}
}
