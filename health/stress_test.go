package health

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// chaotic is a Prober that reports from a goroutine of its own, in any order, and can be closed like
// a checker: what it has in flight, or gets later, is reported as cut short. All chaotics of a test
// share the ledger of what is in flight.
type chaotic struct {
	m      *Monitor
	ledger *ledger
	mu     sync.Mutex
	checks []checker.Check
	closed bool
	more   chan struct{}
	done   chan struct{}
}

type ledger struct {
	mu       sync.Mutex
	inFlight map[any]bool
	err      error
}

func (l *ledger) send(tag any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight[tag] {
		l.err = fmt.Errorf("%v: two probes in flight", tag.(*Target).Addr())
	}
	l.inFlight[tag] = true
}

func (l *ledger) back(tag any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inFlight, tag)
}

func newChaotic(m *Monitor, l *ledger) *chaotic {
	p := &chaotic{m: m, ledger: l, more: make(chan struct{}, 1), done: make(chan struct{})}
	go p.run()
	return p
}

func (p *chaotic) signal() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *chaotic) Submit(checks ...checker.Check) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return checker.ErrClosed
	}
	for _, c := range checks {
		p.ledger.send(c.Tag)
	}
	p.checks = append(p.checks, checks...)
	p.signal()
	return nil
}

func (p *chaotic) cutShort(checks []checker.Check) {
	for _, c := range checks {
		p.ledger.back(c.Tag)
		p.m.Deliver([]checker.Report{{Tag: c.Tag, Err: checker.ErrClosed}})
	}
}

func (p *chaotic) run() {
	defer close(p.done)
	for range p.more {
		p.mu.Lock()
		var reports []checker.Report
		rand.Shuffle(len(p.checks), func(i, j int) { p.checks[i], p.checks[j] = p.checks[j], p.checks[i] })
		n := rand.IntN(len(p.checks) + 1)
		if len(p.checks) > n {
			p.signal()
		}
		for _, c := range p.checks[:n] {
			p.ledger.back(c.Tag)
			r := checker.Report{Tag: c.Tag, Result: results[rune("aaaaattttru-"[rand.IntN(12)])], RTT: 1}
			if r.Result == checker.Inconclusive {
				r.Err = []error{checker.ErrBusy, checker.ErrFiltered}[rand.IntN(2)]
			}
			reports = append(reports, r)
		}
		p.checks = p.checks[n:]
		closed := p.closed
		p.mu.Unlock()
		p.m.Deliver(reports)
		if closed {
			return
		}
		runtime.Gosched()
	}
}

func (p *chaotic) close() {
	p.mu.Lock()
	p.closed = true
	checks := p.checks
	p.checks = nil
	p.cutShort(checks)
	p.signal()
	p.mu.Unlock()
	<-p.done
}

func TestStress(t *testing.T) {
	const rounds = 1500
	var seen recorder
	m := New(Options{Targets: 300, Listener: &seen, Panic: func(reason any) { t.Errorf("panic: %v", reason) }})
	l := &ledger{inFlight: map[any]bool{}}
	keys := []Key{plain, unique.Make(Settings{Interval: 1, Fall: 1}), unique.Make(Settings{Interval: 5 * time.Millisecond})}
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range rounds {
				var targets []*Target
				for range 4 {
					keep := time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
					a := addr(97 * rand.IntN(200)) // on 76 networks
					targets = append(targets, m.Target(a, keys[rand.IntN(len(keys))], keep))
				}
				m.Await(targets, time.Duration(rand.Int64N(int64(time.Millisecond))))
				for _, target := range targets {
					if target != nil && (target.State() >= states || target.RTT() < 0) {
						t.Errorf("%v: %v, %v", target.Addr(), target.State(), target.RTT())
					}
				}
			}
		})
	}
	var ended atomic.Bool
	var limiter sync.WaitGroup
	limiter.Go(func() { // for as long as there are users: some bound will be too low for them, however slow they are
		for i := 0; !ended.Load(); i++ {
			m.SetLimits(1+rand.IntN(450), []int{0, 10000, 100000}[i%3])
			m.SetFreeze([]int{0, 1, 51, 90}[rand.IntN(4)], time.Duration(rand.IntN(int(time.Millisecond))))
			m.Frozen()
			for target := range m.All() {
				m.Counts()
				target.AddName("a")
				target.AddAlias(addr(1))
				if s := target.Status(); s.Since.IsZero() || s.Checked.After(time.Now()) {
					t.Errorf("%+v", s)
				}
			}
			m.Deliver([]checker.Report{{}, {Tag: (*Target)(nil)}})
			runtime.Gosched()
		}
	})
	last := newChaotic(m, l)
	m.SetProber(last)
	for i := range rounds / 20 {
		next := newChaotic(m, l)
		if i%3 == 0 {
			m.SetProber(nil)
		}
		m.SetProber(next)
		last.close()
		last = next
		m.Await([]*Target{m.Target(addr(1000+i), plain, time.Millisecond)}, time.Millisecond)
	}
	users.Wait()
	ended.Store(true)
	limiter.Wait()
	checkTable(t, m)
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(m.Close)
		closers.Go(func() { m.Target(addr(rand.IntN(2000)), plain, time.Minute) })
	}
	closers.Wait()
	last.close()
	checkSeats(t, m)
	results := len(seen.checked)
	c := m.Counts()
	if c.Unknown+c.Up+c.Down != c.Total || c.Rejected == 0 {
		t.Errorf("%+v", c)
	}
	if results == 0 || len(seen.changes) == 0 {
		t.Errorf("%d results and %d changes: nothing was tested", results, len(seen.changes))
	}
	if l.err != nil {
		t.Error(l.err)
	}
}

// checkSeats compares who votes with who is in the table of a monitor that is closed.
func checkSeats(t *testing.T, m *Monitor) {
	t.Helper()
	want := map[*seat]int{}
	for target := range m.All() {
		if target.seat != nil {
			want[target.seat]++
		}
	}
	b := &m.loop.freezer.ballot
	places := slices.Collect(maps.Values(b.networks))
	for _, place := range append(places, b.crowds[:]...) {
		if place == nil {
			continue
		}
		for i := range place {
			if s := &place[i]; int(s.targets) != want[s] {
				t.Errorf("%d targets use a seat, %d are counted", want[s], s.targets)
			}
		}
		if place.isEmpty() && slices.Contains(places, place) {
			t.Error("a network of nobody is kept")
		}
	}
}

// checkTable waits for all targets to be forgotten.
func checkTable(t *testing.T, m *Monitor) {
	t.Helper()
	m.SetLimits(0, 0)
	lab.UntilNil(t, func() error {
		if n := m.Len(); n > 0 {
			return fmt.Errorf("%d targets are never forgotten: %+v", n, m.Counts())
		}
		return nil
	})
	for target := range m.All() {
		t.Errorf("%v is in a table of none", target.Addr())
	}
}
