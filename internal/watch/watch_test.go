package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// backend is asked for a.example.org. and notes when it is asked for A records.
type backend struct {
	answer func(qtype uint16) (*dns.Msg, []Target, error)

	mu     sync.Mutex
	begin  time.Time
	asked  []time.Duration
	lines  []string // that are told
	failed int      // look-ups
}

func (b *backend) ask(_ context.Context, name string, qtype uint16, keep time.Duration) (*dns.Msg, []Target, error) {
	b.mu.Lock()
	if qtype == dns.TypeA {
		b.asked = append(b.asked, time.Since(b.begin))
	}
	b.mu.Unlock()
	if name != "a.example.org." {
		return nil, nil, fmt.Errorf("asked for %q", name)
	}
	return b.answer(qtype)
}

func (b *backend) tell(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, fmt.Sprintf(format, args...))
}

func (b *backend) listener() Listener {
	return Listener{
		LookedUp: func(worked bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !worked {
				b.failed++
			}
		},
		Unresolved: func(name string, since, again time.Duration, reason error) {
			b.tell("%s could not be resolved for %v: %v. Again every %v", name, since, reason, again)
		},
		Resolved: func(name string) { b.tell("%s is resolved again", name) },
	}
}

// verdict is a target that has its verdict so long after it was made.
type verdict struct {
	made  time.Time
	after time.Duration
}

func (v *verdict) Holds(age time.Duration) bool {
	d := time.Since(v.made)
	return d < v.after && d < age
}

// records answers with those of these records that were asked for, and NODATA otherwise. Each A record leads to a target
// that has its verdict so long after it was first asked for.
func records(t testing.TB, text string, after ...time.Duration) func(uint16) (*dns.Msg, []Target, error) {
	t.Helper()
	var rrs []dns.RR
	for line := range strings.Lines(text) {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	var targets []Target
	return func(qtype uint16) (*dns.Msg, []Target, error) {
		m := new(dns.Msg)
		for _, rr := range rrs {
			if rr.Header().Rrtype == qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if qtype != dns.TypeA {
			return m, nil, nil
		}
		if targets == nil {
			for _, d := range after {
				targets = append(targets, &verdict{time.Now(), d})
			}
		}
		return m, targets, nil
	}
}

func fails(why string) func(uint16) (*dns.Msg, []Target, error) {
	return func(uint16) (*dns.Msg, []Target, error) { return nil, nil, errors.New(why) }
}

// start watches a.example.org. until the end of the bubble. Nothing is taken off the time between two look-ups.
func start(t *testing.T, b *backend, ttl uint32) *Group {
	t.Helper()
	b.begin = time.Now()
	g := new(Group)
	w := g.Add(Wanted{Name: "a.example.org.", Types: []uint16{dns.TypeA, dns.TypeAAAA}, TTL: ttl}, b.ask, b.listener())
	w.early = 0
	if g.Ready() {
		t.Error("ready before the first look-up")
	}
	run(t, w)
	return g
}

// run returns what ends the look-ups and waits for that. The end of the test does so, too.
func run(t *testing.T, all ...*Watch) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for _, w := range all {
		done.Go(func() { w.Run(ctx) })
	}
	end = func() { cancel(); done.Wait() }
	t.Cleanup(end)
	return end
}

const two = "a.example.org. 10 IN A 10.0.0.1\na.example.org. 10 IN A 10.0.0.2"

// The next look-up comes when the TTL has run out, within bounds, and after a failure ever later.
func TestSchedule(t *testing.T) {
	const a = "a.example.org. %d IN A 10.0.0.1\na.example.org. 900 IN AAAA 2001:db8::1"
	tests := []struct {
		name   string
		ttl    uint32
		answer func(uint16) (*dns.Msg, []Target, error)
		want   string
	}{
		{"ttl", 30, records(t, fmt.Sprintf(a, 20)), "[0s 20s 40s 1m0s 1m20s]"},
		{"ttl 0", 30, records(t, fmt.Sprintf(a, 0)), "[0s 5s 10s 15s 20s]"},
		{"longer than that of the policy", 30, records(t, fmt.Sprintf(a, 3600)), "[0s 30s 1m0s 1m30s 2m0s]"},
		{"policy with a short ttl", 1, records(t, fmt.Sprintf(a, 3600)), "[0s 5s 10s 15s 20s]"},
		{"policy with a long ttl", 600, records(t, fmt.Sprintf(a, 300)), "[0s 5m0s 10m0s 15m0s 20m0s]"},
		{"error", 30, fails("SERVFAIL"), "[0s 1s 3s 7s 15s 31s 1m1s 1m31s]"},
		{"errors before and after a success", 30, func() func(uint16) (*dns.Msg, []Target, error) {
			good, bad, n := records(t, two), fails("SERVFAIL"), 0
			return func(qtype uint16) (*dns.Msg, []Target, error) {
				n++ // two for each look-up
				if n == 5 || n == 6 {
					return good(qtype)
				}
				return bad(qtype)
			}
		}(), "[0s 1s 3s 13s 14s 16s]"},
		{"no records", 30, records(t, ""), "[0s 1s 3s 7s 15s 31s 1m1s 1m31s]"},
		{"records of another type", 30, records(t, `a.example.org. 10 IN TXT "x"`), "[0s 1s 3s 7s 15s]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{answer: tt.answer}
				start(t, b, tt.ttl)
				n := strings.Count(tt.want, " ") + 1
				for {
					synctest.Wait()
					b.mu.Lock()
					asked := slices.Clone(b.asked)
					b.mu.Unlock()
					if len(asked) == n {
						if got := fmt.Sprint(asked); got != tt.want {
							t.Errorf("asked at %s, want %s", got, tt.want)
						}
						return
					}
					time.Sleep(500 * time.Millisecond)
				}
			})
		})
	}
}

func TestReady(t *testing.T) {
	const never = time.Hour
	begin := time.Time{}
	tests := []struct {
		name   string
		answer func(qtype uint16) (*dns.Msg, []Target, error)
		want   time.Duration
		log    string
	}{
		{"verdicts at once", records(t, two, 0, 0), 0, ""},
		{"no targets", records(t, two), 0, ""},
		{"a verdict after a while", records(t, two, 0, 2*time.Second), 2 * time.Second, ""},
		{"no verdict ever", records(t, two, 0, never), 30 * time.Second, ""},
		{"never resolved", fails("SERVFAIL"), 30 * time.Second,
			"a.example.org. could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. Again every 30s"},
		{"no records", records(t, ""), 30 * time.Second, "it has no A or AAAA records"},
		{"one type fails", func(qtype uint16) (*dns.Msg, []Target, error) {
			if qtype == dns.TypeAAAA {
				return nil, nil, errors.New("REFUSED")
			}
			return records(t, two, 0, 0)(qtype)
		}, 30 * time.Second, "AAAA: REFUSED"},
		{"resolved after a while", func(qtype uint16) (*dns.Msg, []Target, error) {
			if time.Since(begin) < 5*time.Second {
				return nil, nil, errors.New("SERVFAIL")
			}
			return records(t, two, 0, 0)(qtype)
		}, 7 * time.Second, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin = time.Now()
				b := &backend{answer: tt.answer}
				w := start(t, b, 30)
				synctest.Wait()
				for !w.Ready() {
					if time.Since(b.begin) > time.Minute {
						t.Fatal("not ready after a minute")
					}
					time.Sleep(500 * time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(b.begin); took != tt.want {
					t.Errorf("ready after %v, want %v", took, tt.want)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if !w.Ready() {
					t.Error("not ready any more")
				}
				told := strings.Join(b.lines, "\n")
				if n := strings.Count(told, "could not be resolved"); (n == 1) != (tt.log != "") || n > 1 {
					t.Errorf("told %d times:\n%s", n, told)
				}
				if !strings.Contains(told, tt.log) {
					t.Errorf("no %q in\n%s", tt.log, told)
				}
			})
		})
	}
}

// A failure after a success is told once, and so is its end. Neither makes the watch unready.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := records(t, two), fails("SERVFAIL")
		b := new(backend)
		b.answer = func(qtype uint16) (*dns.Msg, []Target, error) {
			if d := time.Since(b.begin); d > time.Minute && d < 5*time.Minute {
				return bad(qtype)
			}
			return good(qtype)
		}
		w := start(t, b, 30)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if !w.Ready() {
			t.Error("not ready any more")
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if b.failed == 0 {
			t.Error("no failure counted")
		}
		told := strings.Join(b.lines, "\n")
		down := strings.Count(told, "could not be resolved for 30s")
		up := strings.Count(told, "a.example.org. is resolved again")
		if down != 1 || up != 1 {
			t.Errorf("told %d times that it fails and %d times that it works:\n%s", down, up, told)
		}
	})
}

// Who is asked may go on for ever. There is one look-up at a time all the same, it counts as one that failed, and Run ends
// with its context. An answer that comes late is as good as any.
func TestRunWithoutAnswer(t *testing.T) {
	for _, ends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			good := records(t, two, 0, 0)
			b := &backend{begin: time.Now(), answer: func(qtype uint16) (*dns.Msg, []Target, error) {
				<-let
				return good(qtype)
			}}
			g := new(Group)
			w := g.Add(Wanted{Name: "a.example.org.", Types: []uint16{dns.TypeA}, TTL: 30}, b.ask, b.listener())
			end := run(t, w)
			time.Sleep(time.Minute)
			synctest.Wait()
			b.mu.Lock()
			if len(b.asked) != 1 || b.failed != 1 {
				t.Errorf("asked at %v, %d failures counted, want one each", b.asked, b.failed)
			}
			if want := []string{"a.example.org. could not be resolved for 30s: no answer, for 6s at least. Again every 30s"}; !slices.Equal(b.lines, want) {
				t.Errorf("told %q, want %q", b.lines, want)
			}
			b.mu.Unlock()
			if ends {
				end()
			}
			close(let)
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			resolved := len(b.lines) == 2 && b.lines[1] == "a.example.org. is resolved again"
			if b.failed != 1 || resolved == ends || ends && len(b.lines) != 1 {
				t.Errorf("ended %v: %d failures, and it told %q", ends, b.failed, b.lines)
			}
		})
	}
}
