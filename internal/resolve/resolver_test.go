package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// upstream answers with these records, or fails, after a while.
type upstream struct {
	mu      sync.Mutex
	records []dns.RR
	ns      []dns.RR
	err     error
	delay   time.Duration
	asked   []string
}

func (u *upstream) ask(ctx, _ context.Context, name string, rrtype uint16) (*dns.Msg, error) {
	u.mu.Lock()
	u.asked = append(u.asked, name+" "+dns.TypeToString[rrtype])
	m, err, delay := &dns.Msg{Answer: u.records, Ns: u.ns}, u.err, u.delay
	u.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (u *upstream) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

// get returns what is known, and whether somebody should wait.
func get(t *testing.T, r *Resolver, name string, rrtype uint16) string {
	t.Helper()
	addrs, known, wait := r.Get(t.Context(), name, rrtype)
	return fmt.Sprint(addrs, " known ", known, " wait ", wait != nil)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// What is asked for is kept for its TTL, then looked up again while the old still serves for a while.
func TestResolverKeepsForTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{delay: time.Millisecond, records: lab.Records(t,
			"a.example. 60 IN CNAME b.example.\nb.example. 20 IN A 192.0.2.1\nb.example. 20 IN A 192.0.2.2")}
		r := New(u.ask)
		defer r.Close()
		addrs, known, wait := r.Get(t.Context(), "a.example.", dns.TypeA)
		if addrs != nil || known || wait == nil {
			t.Fatalf("at first: %v, %v, %v", addrs, known, wait)
		}
		expect(t, "while it is under way", get(t, r, "a.example.", dns.TypeA), "[] known false wait true")
		<-wait
		const both = "[192.0.2.1 192.0.2.2] known true wait false"
		expect(t, "when it is there", get(t, r, "a.example.", dns.TypeA), both)
		time.Sleep(19 * time.Second)
		expect(t, "before its TTL is over", get(t, r, "a.example.", dns.TypeA), both)
		if n := u.count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		u.set(func() { u.records = lab.Records(t, "a.example. 20 IN A 192.0.2.3") })
		time.Sleep(2 * time.Second)
		expect(t, "after it", get(t, r, "a.example.", dns.TypeA), both)
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "a moment later", get(t, r, "a.example.", dns.TypeA), "[192.0.2.3] known true wait false")
		time.Sleep(20*time.Second + grace)
		expect(t, "when it is too old", get(t, r, "a.example.", dns.TypeA), "[] known false wait true")
		synctest.Wait()
	})
}

// The other type is another question, and so is another name.
func TestResolverByType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{records: lab.Records(t, "a.example. 20 IN A 192.0.2.1\na.example. 20 IN AAAA 2001:db8::1")}
		r := New(u.ask)
		defer r.Close()
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			get(t, r, "a.example.", rrtype)
		}
		synctest.Wait()
		expect(t, "A", get(t, r, "a.example.", dns.TypeA), "[192.0.2.1] known true wait false")
		expect(t, "AAAA", get(t, r, "a.example.", dns.TypeAAAA), "[2001:db8::1] known true wait false")
		slices.Sort(u.asked)
		if want := []string{"a.example. A", "a.example. AAAA"}; !slices.Equal(u.asked, want) {
			t.Errorf("asked for %q, want %q", u.asked, want)
		}
	})
}

// The TTL is that of the newest look-up.
func TestResolverTTL(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   uint32
	}{
		{"a. 20 IN A 192.0.2.1", 20},
		{"a. 300 IN A 192.0.2.1", 300},
		{"a. 5 IN CNAME b.\nb. 20 IN A 192.0.2.1", 5},
		{"a. 0 IN A 192.0.2.1", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := &upstream{records: lab.Records(t, tt.answer)}
			r := New(u.ask)
			defer r.Close()
			if got := r.TTL("a.", dns.TypeA); got != 0 {
				t.Errorf("%q: %d before anything is known", tt.answer, got)
			}
			for _, want := range []uint32{tt.want, 7} {
				get(t, r, "a.", dns.TypeA)
				synctest.Wait()
				if got := r.TTL("a.", dns.TypeA); got != want {
					t.Errorf("%q: %d, want %d", tt.answer, got, want)
				}
				time.Sleep(mostTTL)
				u.set(func() { u.records = lab.Records(t, "a. 7 IN A 192.0.2.1") })
				get(t, r, "a.", dns.TypeA) // has it looked up again
				synctest.Wait()
			}
		})
	}
}

// For how long an answer is kept.
func TestResolverTTLs(t *testing.T) {
	soa := func(ttl, minimum int) string {
		return fmt.Sprintf("example. %d IN SOA ns.example. host.example. 1 2 3 4 %d", ttl, minimum)
	}
	for _, tt := range []struct {
		answer, ns string
		want       time.Duration
	}{
		{"a. 20 IN A 192.0.2.1", "", 20 * time.Second},
		{"a. 0 IN A 192.0.2.1", "", leastTTL},
		{"a. 86400 IN A 192.0.2.1", "", mostTTL},
		{"a. 5 IN CNAME b.\nb. 20 IN A 192.0.2.1", "", 5 * time.Second},
		{"", "", noTTL},
		{"", soa(300, 25), 25 * time.Second},
		{"", soa(20, 60), 20 * time.Second},
		{"", soa(7200, 7200), mostTTL},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := &upstream{records: lab.Records(t, tt.answer), ns: lab.Records(t, tt.ns)}
			r := New(u.ask)
			defer r.Close()
			get(t, r, "a.", dns.TypeA)
			synctest.Wait()
			time.Sleep(tt.want - time.Millisecond)
			get(t, r, "a.", dns.TypeA)
			synctest.Wait()
			before := u.count()
			time.Sleep(2 * time.Millisecond)
			get(t, r, "a.", dns.TypeA)
			synctest.Wait()
			if after := u.count(); before != 1 || after != 2 {
				t.Errorf("%q %q: asked %d times before %v had passed and %d after, want 1 and 2", tt.answer, tt.ns, before, tt.want, after)
			}
		})
	}
}

// A failure is no answer, but not news either: nobody waits for the next attempt. What was known before serves on for a
// while.
func TestResolverFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{err: errors.New("no upstream")}
		r := New(u.ask)
		defer r.Close()
		expect(t, "at first", get(t, r, "a.", dns.TypeA), "[] known false wait true")
		synctest.Wait()
		expect(t, "when it has failed", get(t, r, "a.", dns.TypeA), "[] known false wait false")
		time.Sleep(retry)
		expect(t, "when it is tried again", get(t, r, "a.", dns.TypeA), "[] known false wait false")
		synctest.Wait()
		if n := u.count(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		u.set(func() { u.err, u.records = nil, lab.Records(t, "a. 20 IN A 192.0.2.1") })
		time.Sleep(retry)
		get(t, r, "a.", dns.TypeA)
		synctest.Wait()
		const known = "[192.0.2.1] known true wait false"
		expect(t, "when it works", get(t, r, "a.", dns.TypeA), known)
		u.set(func() { u.err = errors.New("no upstream") })
		time.Sleep(21 * time.Second)
		for range 4 {
			expect(t, "when it fails later", get(t, r, "a.", dns.TypeA), known)
			synctest.Wait()
			time.Sleep(retry)
		}
		time.Sleep(grace)
		expect(t, "when it has failed for long", get(t, r, "a.", dns.TypeA), "[] known false wait true")
		synctest.Wait()
	})
}

// One who is asked and never answers is given up, and so are all when the resolver ends.
func TestResolverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{delay: time.Hour}
		r := New(u.ask)
		_, _, wait := r.Get(t.Context(), "a.", dns.TypeA)
		began := time.Now()
		<-wait
		if took := time.Since(began); took != askTimeout {
			t.Errorf("given up after %v, want %v", took, askTimeout)
		}
		time.Sleep(time.Minute)
		_, _, wait = r.Get(t.Context(), "b.", dns.TypeA)
		r.Close()
		began = time.Now()
		<-wait
		if took := time.Since(began); took != 0 {
			t.Errorf("ends after %v", took)
		}
		time.Sleep(time.Minute)
		expect(t, "after the end", get(t, r, "c.", dns.TypeA), "[] known false wait false")
		synctest.Wait()
		if n := u.count(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Whoever makes names up has no more than so many looked up at a time, and kept.
func TestResolverBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{delay: time.Second, records: lab.Records(t, "a. 20 IN A 192.0.2.1")}
		r := New(u.ask)
		defer r.Close()
		for i := range 2 * maxFlights {
			get(t, r, fmt.Sprintf("n%d.", i), dns.TypeA)
		}
		synctest.Wait()
		if n := u.count(); n != maxFlights {
			t.Errorf("%d look-ups at a time, want %d", n, maxFlights)
		}
		time.Sleep(2 * time.Second)
		u.set(func() { u.delay = 0 })
		for i := range 2 * maxNames {
			get(t, r, fmt.Sprintf("m%d.", i), dns.TypeA)
			synctest.Wait()
		}
		if n := r.size.Load(); n != maxNames {
			t.Errorf("%d names are kept, want %d", n, maxNames)
		}
		expect(t, "when there is no room", get(t, r, "new.", dns.TypeA), "[] known false wait false")
		time.Sleep(20*time.Second + grace)
		expect(t, "when the others are old", get(t, r, "new.", dns.TypeA), "[] known false wait true")
		synctest.Wait()
		if n := r.size.Load(); n > maxFlights+2 {
			t.Errorf("%d names are kept", n)
		}
	})
}

// What is known costs nothing.
func TestResolverDoesNotAllocate(t *testing.T) {
	u := &upstream{records: lab.Records(t, "a. 20 IN A 192.0.2.1")}
	r := New(u.ask)
	defer r.Close()
	_, _, wait := r.Get(t.Context(), "a.", dns.TypeA)
	<-wait
	var addrs []netip.Addr
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { addrs, _, _ = r.Get(ctx, "a.", dns.TypeA) }); n != 0 || len(addrs) != 1 {
		t.Errorf("%v allocations for %v", n, addrs)
	}
}

// Look finds what Get would, and leaves no trace of it.
func TestResolverLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{delay: time.Millisecond, records: lab.Records(t, "a.example. 20 IN A 192.0.2.1")}
		r := New(u.ask)
		defer r.Close()
		look := func(ctx context.Context) string {
			addrs, ttl, known := r.Look(ctx, t.Context(), "a.example.", dns.TypeA)
			return fmt.Sprint(addrs, ttl, known)
		}
		expect(t, "at first", look(t.Context()), "[192.0.2.1] 20 true")
		expect(t, "again", look(t.Context()), "[192.0.2.1] 20 true")
		if u.count() != 2 || r.size.Load() != 0 || r.TTL("a.example.", dns.TypeA) != 0 {
			t.Errorf("asked %d times, %d names are kept", u.count(), r.size.Load())
		}
		_, _, wait := r.Get(t.Context(), "a.example.", dns.TypeA)
		<-wait
		expect(t, "once somebody got it", look(t.Context()), "[192.0.2.1] 20 true")
		time.Sleep(time.Second + 20*time.Second)
		expect(t, "while it is stale", look(t.Context()), "[192.0.2.1] 20 true")
		if u.count() != 3 {
			t.Errorf("asked %d times, want 3", u.count())
		}
		time.Sleep(time.Minute)
		u.set(func() { u.err = errors.New("broken") })
		expect(t, "when that fails", look(t.Context()), "[] 0 false")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		expect(t, "when nobody waits", look(ctx), "[] 0 false")
	})
}
