package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// upstream counts what it is asked.
type upstream struct {
	ttl    uint32
	inStep bool // all records expire in the same moment, whenever they are asked for

	mu    sync.Mutex
	begin time.Time
	asked map[time.Duration]int      // by tenths of a second since the begin
	times map[string][]time.Duration // of the A queries, by name
	dead  bool
}

func newUpstream(ttl uint32) *upstream {
	return &upstream{begin: time.Now(), ttl: ttl, asked: make(map[time.Duration]int), times: make(map[string][]time.Duration)}
}

func (u *upstream) ask(_ context.Context, name string, qtype uint16, _ time.Duration) (*dns.Msg, []Target, error) {
	u.mu.Lock()
	since := time.Since(u.begin)
	u.asked[since.Truncate(100*time.Millisecond)]++
	if qtype == dns.TypeA {
		u.times[name] = append(u.times[name], since)
	}
	dead := u.dead
	u.mu.Unlock()
	if dead {
		return nil, nil, errors.New("SERVFAIL")
	}
	ttl := u.ttl
	if u.inStep {
		ttl -= uint32(since.Seconds()) % u.ttl
	}
	m := new(dns.Msg)
	if qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}}}
	}
	return m, nil, nil
}

// most returns the most queries within a tenth of a second, since then.
func (u *upstream) most(since time.Duration) (most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for at, n := range u.asked {
		if at >= since {
			most = max(most, n)
		}
	}
	return most
}

// watchMany watches n names.
func watchMany(t *testing.T, u *upstream, n int, tell Listener) *Group {
	g := new(Group)
	var all []*Watch
	for i := range n {
		wanted := Wanted{Name: fmt.Sprintf("host%d.example.org.", i), Types: []uint16{dns.TypeA, dns.TypeAAAA}, TTL: 30}
		all = append(all, g.Add(wanted, u.ask, tell))
	}
	run(t, all...)
	return g
}

func deaf() Listener {
	return Listener{
		LookedUp:   func(bool) {},
		Unresolved: func(string, time.Duration, time.Duration, error) {},
		Resolved:   func(string) {},
	}
}

// Many names are not asked for at once: not at the start, not when their TTL runs out, not while nobody answers, and not
// after that. Chance brings some of them together.
func TestGroupSpreads(t *testing.T) {
	for _, tt := range []struct {
		names  int
		inStep bool
		ready  time.Duration // at the latest
		// Queries within a tenth of a second: at the start, later, and while nobody answers.
		start, later, dead int
	}{
		{1, false, 0, 2, 2, 2},
		{500, false, 5 * time.Second, 20, 40, 60},
		{500, true, 5 * time.Second, 20, 80, 120},
		{3000, false, 10 * time.Second, 62, 120, 240},
	} {
		t.Run(fmt.Sprint(tt.names, tt.inStep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(30)
				u.inStep = tt.inStep
				g := watchMany(t, u, tt.names, deaf())
				synctest.Wait()
				for !g.Ready() {
					if time.Since(u.begin) > tt.ready {
						t.Fatalf("not ready after %v", tt.ready)
					}
					time.Sleep(10 * time.Millisecond)
					synctest.Wait()
				}
				ready := time.Since(u.begin)
				start := u.most(0)
				worst := make(map[bool]int)
				for _, dead := range []bool{false, true, false} {
					begin := time.Since(u.begin) + time.Second
					u.mu.Lock()
					u.dead = dead
					u.mu.Unlock()
					time.Sleep(3 * time.Minute)
					worst[dead] = max(worst[dead], u.most(begin))
				}
				t.Logf("ready after %v; queries within 100ms: %d at the start, %d later, %d while nobody answers",
					ready, start, worst[false], worst[true])
				if start > tt.start || worst[false] > tt.later || worst[true] > tt.dead {
					t.Errorf("%d, %d and %d queries within 100ms, want %d, %d and %d",
						start, worst[false], worst[true], tt.start, tt.later, tt.dead)
				}
			})
		})
	}
}

// A look-up comes before the TTL has run out, by up to a tenth of it, and never sooner than after five seconds. Two
// processes agree on when.
func TestGroupSchedule(t *testing.T) {
	for _, ttl := range []uint32{0, 5, 20, 30, 300} {
		synctest.Test(t, func(t *testing.T) {
			const names = 200
			want := max(time.Duration(min(ttl, 30))*time.Second, leastRefresh)
			least, most := want, time.Duration(0)
			var before string
			for range 2 {
				u := newUpstream(ttl)
				watchMany(t, u, names, deaf())
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				u.mu.Lock()
				for _, times := range u.times {
					for i := range times[1:] {
						least, most = min(least, times[i+1]-times[i]), max(most, times[i+1]-times[i])
					}
				}
				times := fmt.Sprint(u.times)
				u.mu.Unlock()
				if before != "" && before != times {
					t.Error("two processes differ")
				}
				before = times
			}
			shortest := max(want*9/10, leastRefresh)
			if most > want || least < shortest {
				t.Errorf("TTL %d: from %v to %v, want from %v to %v", ttl, least, most, shortest, want)
			}
			if want > leastRefresh && most-least < (want-shortest)*9/10 {
				t.Errorf("TTL %d: from %v to %v only", ttl, least, most)
			}
		})
	}
}

// Who replaces a group knows what that knew, of names with the same settings: it is ready, or as patient, and tells nothing
// again.
func TestGroupTakesOver(t *testing.T) {
	for _, tt := range []struct {
		name, settings string
		answer         func(t *testing.T) func(uint16) (*dns.Msg, []Target, error)
		after          time.Duration // of the reload
		ready          time.Duration // after it
		told           []string
	}{
		{"resolved", "same", func(t *testing.T) func(uint16) (*dns.Msg, []Target, error) { return records(t, two, 0, 0) }, time.Second, 0, nil},
		{"a verdict to come", "same", func(t *testing.T) func(uint16) (*dns.Msg, []Target, error) {
			return records(t, two, 0, 10*time.Second)
		}, time.Second, 9 * time.Second, nil},
		{"never resolved", "same", func(*testing.T) func(uint16) (*dns.Msg, []Target, error) { return fails("SERVFAIL") },
			20 * time.Second, 10 * time.Second,
			[]string{"a.example.org. could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. Again every 30s"}},
		{"told already", "same", func(*testing.T) func(uint16) (*dns.Msg, []Target, error) { return fails("SERVFAIL") },
			time.Minute, 0,
			[]string{"a.example.org. could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. Again every 30s"}},
		{"other settings", "others", func(t *testing.T) func(uint16) (*dns.Msg, []Target, error) { return fails("SERVFAIL") },
			20 * time.Second, 30 * time.Second,
			[]string{"a.example.org. could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. Again every 30s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{begin: time.Now(), answer: tt.answer(t)}
				add := func(g *Group, settings string) *Watch {
					return g.Add(Wanted{"a.example.org.", []uint16{dns.TypeA, dns.TypeAAAA}, 30, settings}, b.ask, b.listener())
				}
				old, next := new(Group), new(Group)
				end := run(t, add(old, "same"))
				time.Sleep(tt.after)
				synctest.Wait()
				w := add(next, tt.settings)
				next.TakeOver(old)
				reload := time.Now()
				ready := next.Ready()
				end()
				run(t, w)
				synctest.Wait()
				for !ready && !next.Ready() {
					if time.Since(reload) > time.Minute {
						t.Fatal("not ready after a minute")
					}
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(reload); took != tt.ready || ready != (tt.ready == 0) {
					t.Errorf("ready %v at once, and after %v, want %v", ready, took, tt.ready)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				b.mu.Lock()
				defer b.mu.Unlock()
				if !slices.Equal(b.lines, tt.told) {
					t.Errorf("told %q, want %q", b.lines, tt.told)
				}
			})
		})
	}
}
