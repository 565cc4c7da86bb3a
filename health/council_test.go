package health

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// assembly is a Council that decides as a test says, and keeps what it is told.
type assembly struct {
	m *Monitor

	mu sync.Mutex
	// first is the decision on targets that enter, and later on those of an address. Of all others it is first, too.
	first  Decision
	later  map[netip.AddrPort]Decision
	known  map[*Target]Opinion // what Decide was told
	words  map[netip.AddrPort][]Word
	asked  int
	gone   []netip.AddrPort
	froze  []bool
	inside map[*Target]bool // entered and did not leave
	errs   []string
}

func newAssembly(m *Monitor, first Decision) *assembly {
	return &assembly{m: m, first: first, later: map[netip.AddrPort]Decision{}, known: map[*Target]Opinion{},
		words: map[netip.AddrPort][]Word{}, inside: map[*Target]bool{}}
}

func (a *assembly) Enter(t *Target) Decision {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inside[t] = true
	return a.decision(t)
}

func (a *assembly) Decide(t *Target, own Opinion) Decision {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.inside[t] {
		a.errs = append(a.errs, fmt.Sprintf("%v: Decide of one that has not entered", t.Addr()))
	}
	a.asked++
	if words := a.words[t.Addr()]; len(words) == 0 || words[len(words)-1] != own.Word {
		a.words[t.Addr()] = append(words, own.Word)
	}
	a.known[t] = own
	return a.decision(t)
}

func (a *assembly) decision(t *Target) Decision {
	if d, ok := a.later[t.Addr()]; ok {
		return d
	}
	return a.first
}

func (a *assembly) Leave(t *Target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.inside[t] {
		a.errs = append(a.errs, fmt.Sprintf("%v: left without having entered", t.Addr()))
	}
	delete(a.inside, t)
	a.gone = append(a.gone, t.Addr())
}

func (a *assembly) Froze(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.froze = append(a.froze, on)
}

// decide decides otherwise on a target.
func (a *assembly) decide(t *Target, d Decision) {
	a.mu.Lock()
	a.later[t.Addr()] = d
	a.mu.Unlock()
	a.m.Reconsider(t)
	synctest.Wait()
}

// heard returns all words that a target has had, oldest first, and the newest opinion.
func (a *assembly) heard(t *Target) ([]Word, Opinion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.words[t.Addr()]), a.known[t]
}

func (a *assembly) check(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, err := range a.errs {
		t.Error(err)
	}
}

// pass lets time pass in a bubble, and all settle then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// A council decides which verdict is in force, and the own checks what this replica says.
func TestCouncilDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		var dead sync.Map
		m.SetProber(newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
			if _, ok := dead.Load(c.Target); ok {
				return checker.Report{Result: checker.Refused, Err: checker.ErrTimeout}, time.Millisecond
			}
			return checker.Report{Result: checker.Answered, RTT: time.Millisecond}, time.Millisecond
		}))
		a := newAssembly(m, Decision{State: Down, Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), unique.Make(Settings{Rise: 2}), time.Hour)
		if target.State() != Down {
			t.Fatalf("it is %v when it comes into the table", target.State())
		}
		pass(5 * time.Second)
		words, own := a.heard(target)
		if !slices.Equal(words, []Word{Checking, SaysUp}) || own.InForce != Down || own.RTT != time.Millisecond || own.Result != checker.Answered {
			t.Errorf("it said %v, %+v", words, own)
		}
		if got := target.Own(); target.State() != Down || got.Word != SaysUp || got.Age < 4*time.Second {
			t.Errorf("%v, own %+v", target.State(), got)
		}
		if len(seen.reset()) != 0 {
			t.Error("a change of the own word is told as one of the verdict in force")
		}
		tally := Tally{Up: 2, Down: 1, Of: 3}
		a.decide(target, Decision{State: Up, Observes: true, Tally: tally})
		c := seen.reset()
		if len(c) != 1 || c[0].From != Down || c[0].To != Up || c[0].Own != SaysUp || c[0].Tally != tally || c[0].Run != 2 || c[0].Result != checker.Answered {
			t.Fatalf("changes %+v", c)
		}
		if s := target.Status(); s.State != Up || time.Since(s.Since) != 0 || s.Own != SaysUp || time.Since(s.OwnSince) < 4*time.Second {
			t.Errorf("status %+v", s)
		}
		dead.Store(addr(1), true)
		pass(10 * time.Second)
		if own := target.Own(); own.Word != SaysDown || target.State() != Up || len(seen.reset()) != 0 {
			t.Errorf("%v, own %+v", target.State(), own)
		}
		tally = Tally{Up: 1, Down: 2, Of: 3}
		a.decide(target, Decision{State: Down, Observes: true, Tally: tally})
		c = seen.reset()
		if len(c) != 1 || c[0].Run != 3 || c[0].Result != checker.Refused || c[0].Err != checker.ErrTimeout || c[0].Falls != 1 || c[0].Tally != tally {
			t.Fatalf("changes %+v", c)
		}
		if got := m.Counts(); got.Down != 1 || got.Up != 0 || got.Unknown != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Who cannot tell any more says so, so that others take its place, and goes along with them until it can tell again.
func TestObserverIsUnable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		var result atomic.Int32
		result.Store(int32(checker.Answered))
		n := newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
			return checker.Report{Result: checker.Result(result.Load())}, time.Millisecond
		})
		m.SetProber(n)
		a := newAssembly(m, Decision{State: Up, Observes: true})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), plain, maxDuration)
		pass(10 * time.Second)
		becomes := func(r checker.Result, within time.Duration, want ...Word) {
			t.Helper()
			a.mu.Lock()
			clear(a.words)
			a.mu.Unlock()
			result.Store(int32(r))
			pass(within)
			if words, _ := a.heard(target); !slices.Equal(words, want) {
				t.Errorf("%v: it said %v, want %v", r, words, want)
			}
		}
		becomes(checker.Inconclusive, 3*time.Second)
		becomes(checker.Inconclusive, 4*time.Second, Unable)
		probes := n.probes()
		pass(20 * time.Second)
		if more := n.probes() - probes; more < 10 || more > 13 {
			t.Errorf("%d checks in 20 s", more)
		}
		becomes(checker.Answered, 2*time.Second, SaysUp)
		becomes(checker.Inconclusive, 7*time.Second, Unable)
		a.decide(target, Decision{State: Down, Observes: true})
		becomes(checker.Refused, 2*time.Second, SaysDown)
		becomes(checker.Inconclusive, 7*time.Second, Unable)
		a.decide(target, Decision{State: Up, Observes: true})
		becomes(checker.Refused, 3500*time.Millisecond, Checking, SaysDown)
		if target.State() != Up {
			t.Errorf("it is %v", target.State())
		}
		// Where nobody can tell, what was in force stays so.
		becomes(checker.Inconclusive, 7*time.Second, Unable)
		a.decide(target, Decision{Alone: true})
		if target.State() != Up {
			t.Errorf("it is %v, alone", target.State())
		}
	})
}

// Who does not observe a target does not probe it, keeps the verdict of the others, and forgets it when nobody wants it any more.
func TestTargetRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		n := newNetwork(t, m, always(checker.Answered, time.Millisecond))
		m.SetProber(n)
		a := newAssembly(m, Decision{State: Down, RTT: 5 * time.Millisecond})
		defer a.check(t)
		m.SetCouncil(a)
		target := m.Target(addr(1), plain, time.Minute)
		pass(30 * time.Second)
		if n.probes() != 0 || target.State() != Down || target.RTT() != 5*time.Millisecond || m.Counts().Resting != 1 {
			t.Errorf("%d probes, %v, %v, %+v", n.probes(), target.State(), target.RTT(), m.Counts())
		}
		if own := target.Own(); own.Word != NoWord || own.RTT != 0 || own.InForce != Down {
			t.Errorf("own %+v", own)
		}
		pass(40 * time.Second)
		if m.Len() != 0 || len(a.gone) != 1 || m.Counts() != (Counts{}) {
			t.Errorf("%d targets are left, %v are gone, %+v", m.Len(), a.gone, m.Counts())
		}
	})
}

// Who begins to observe inherits the verdict in force, checks at once and fast, and says so until a result tells more.
func TestObserverInherits(t *testing.T) {
	results := map[string]struct {
		inForce State
		result  checker.Result
		words   []Word
		probes  int // until the last word
	}{
		"up and answers":        {Up, checker.Answered, []Word{NoWord, Checking, SaysUp}, 1},
		"up and refuses":        {Up, checker.Refused, []Word{NoWord, Checking, SaysDown}, 3},
		"down and refuses":      {Down, checker.Refused, []Word{NoWord, Checking, SaysDown}, 1},
		"down and answers":      {Down, checker.Answered, []Word{NoWord, Checking, SaysUp}, 2},
		"unknown and answers":   {Unknown, checker.Answered, []Word{NoWord, Checking, SaysUp}, 1},
		"unknown and refuses":   {Unknown, checker.Refused, []Word{NoWord, Checking, SaysDown}, 1},
		"unknown, no result":    {Unknown, checker.Inconclusive, []Word{NoWord, Checking, Unable}, 1},
		"up and no result":      {Up, checker.Inconclusive, []Word{NoWord, Checking, Unable}, 1},
		"unknown and is silent": {Unknown, checker.Timeout, []Word{NoWord, Checking, SaysDown}, 3},
	}
	for name, tt := range results {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(Options{})
				defer m.Close()
				n := newNetwork(t, m, always(tt.result, time.Millisecond))
				m.SetProber(n)
				a := newAssembly(m, Decision{State: tt.inForce})
				defer a.check(t)
				m.SetCouncil(a)
				target := m.Target(addr(1), unique.Make(Settings{Interval: time.Minute}), time.Hour)
				pass(time.Hour / 2)
				began := time.Now()
				a.decide(target, Decision{State: tt.inForce, Observes: true})
				for range 100 {
					if words, _ := a.heard(target); len(words) == len(tt.words) {
						break
					}
					pass(10 * time.Millisecond)
				}
				words, _ := a.heard(target)
				times := n.times(addr(1))
				if !slices.Equal(words, tt.words) || len(times) != tt.probes || times[0].Sub(began) > tick {
					t.Errorf("%v after %d probes, want %v after %d", words, len(times), tt.words, tt.probes)
				}
				if target.State() != tt.inForce {
					t.Errorf("in force is %v", target.State())
				}
				if took, most := time.Since(began), 1100*time.Millisecond; took > most {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
