package health

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

func TestBucket(t *testing.T) {
	type step struct {
		at    time.Duration
		want  int // tokens
		spend int
	}
	tests := map[string]struct {
		rate  int
		steps []step
	}{
		"unlimited":     {0, []step{{0, math.MaxInt, 1 << 30}, {0, math.MaxInt, 0}}},
		"negative":      {-1, []step{{0, math.MaxInt, 0}}},
		"starts full":   {1000, []step{{0, 100, 100}, {0, 0, 0}, {time.Millisecond, 1, 1}, {time.Second, 100, 0}}},
		"keeps what is": {1000, []step{{0, 100, 60}, {0, 40, 0}, {10 * time.Millisecond, 50, 50}, {10 * time.Millisecond, 0, 0}}},
		"at least one":  {2, []step{{0, 1, 1}, {499 * time.Millisecond, 0, 0}, {500 * time.Millisecond, 1, 1}, {time.Hour, 1, 1}}},
		"very fast":     {math.MaxInt, []step{{0, int(burst), 1}}},
	}
	for name, tt := range tests {
		var b bucket
		b.limit(tt.rate)
		for i, s := range tt.steps {
			if got := b.tokens(int64(s.at)); got != s.want {
				t.Errorf("%s: step %d: %d tokens, want %d", name, i, got, s.want)
			}
			b.spend(s.spend)
		}
	}
}

func TestBucketReady(t *testing.T) {
	var b bucket
	b.limit(10)
	b.spend(b.tokens(0))
	if got := time.Duration(b.ready()); got != 100*time.Millisecond {
		t.Errorf("next token after %v, want 100ms", got)
	}
	b.limit(1000)
	if got := b.tokens(int64(50 * time.Millisecond)); got != 50 {
		t.Errorf("%d tokens 50 ms after the rate was raised to 1000, want 50", got)
	}
	b.limit(0)
	b.limit(5)
	if got := b.tokens(int64(time.Second)); got != 1 {
		t.Errorf("%d tokens when limited again, want 1", got)
	}
}

// Over any stretch of time no more may be spent than its rate and one burst.
// Who reserves gets the tokens in turn, and the others none meanwhile.
func TestBucketReserve(t *testing.T) {
	const ms = time.Millisecond
	var b bucket
	if got := b.reserve(0); got != 0 {
		t.Errorf("unlimited: %v", got)
	}
	b.limit(100)
	now := int64(time.Second)
	b.spend(b.tokens(now) - 1)
	for i, want := range []time.Duration{0, 10 * ms, 20 * ms} {
		if got := b.reserve(now); got != want {
			t.Errorf("reservation %d: %v, want %v", i, got, want)
		}
	}
	if got := b.tokens(now + int64(29*ms)); got != 0 {
		t.Errorf("%d tokens while reservations wait", got)
	}
	if got := b.tokens(now + int64(30*ms)); got != 1 {
		t.Errorf("%d tokens after that, want 1", got)
	}
	if got := b.reserve(now + int64(time.Hour)); got != 0 {
		t.Errorf("an hour later: %v", got)
	}
}

func TestBucketBound(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, rate := range []int{1, 7, 100, 3333, 100000} {
		var b bucket
		b.limit(rate)
		now, spent := int64(0), 0
		for range 5000 {
			now += random.Int64N(int64(20 * time.Millisecond))
			n := min(b.tokens(now), random.IntN(rate/20+2))
			b.spend(n)
			spent += n
			if random.IntN(2) == 0 {
				now += int64(b.reserve(now)) // who reserves waits
				spent++
			}
		}
		bound := float64(rate)*time.Duration(now).Seconds()*1.001 + float64(max(1, rate/10)) + 1
		if float64(spent) > bound {
			t.Errorf("rate %d: %d spent in %v, bound %.0f", rate, spent, time.Duration(now), bound)
		}
		if float64(spent) < bound/4 {
			t.Errorf("rate %d: only %d spent in %v, the test tests nothing", rate, spent, time.Duration(now))
		}
	}
}

// persistent is a Prober for targets that stay silent. It sends all tries of a check, when the monitor lets it.
type persistent struct {
	m    *Monitor
	mu   sync.Mutex
	syns []time.Time
}

func (p *persistent) send() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syns = append(p.syns, time.Now())
}

func (p *persistent) Submit(checks ...checker.Check) error {
	for _, c := range checks {
		p.send()
		go func() {
			for range c.Tries - 1 {
				time.Sleep(c.Spacing)
				time.Sleep(p.m.Pace())
				p.send()
			}
			time.Sleep(c.Spacing)
			p.m.Deliver([]checker.Report{{Tag: c.Tag, Result: checker.Timeout, Err: checker.ErrTimeout, Tries: max(1, c.Tries)}})
		}()
	}
	return nil
}

// No more SYNs leave in any time than the rate allows, also when everything falls silent and each check has several.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 400
		m := New(Options{Rate: rate})
		p := &persistent{m: m}
		m.SetProber(p)
		for i := range 1000 {
			m.Target(addr(i), unique.Make(Settings{Fall: 1000}), time.Hour)
		}
		time.Sleep(time.Minute)
		m.Close()
		p.mu.Lock()
		syns := slices.SortedFunc(slices.Values(p.syns), time.Time.Compare)
		p.mu.Unlock()
		if len(syns) < 59*rate {
			t.Errorf("%d SYNs in a minute, want about %d", len(syns), 60*rate)
		}
		for from := range syns {
			for _, within := range []time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second} {
				n := sort.Search(len(syns)-from, func(i int) bool { return syns[from+i].Sub(syns[from]) >= within })
				if most := int(rate*within.Seconds()) + rate/10 + 1; n > most {
					t.Fatalf("%d SYNs within %v, want no more than %d", n, within, most)
				}
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute) // what is in flight ends
	})
}
