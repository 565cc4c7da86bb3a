package shaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// watchBackend resolves a.example.org and notes when it is asked for A records.
type watchBackend struct {
	answer func(w dns.ResponseWriter, r *dns.Msg) (int, error)

	mu    sync.Mutex
	begin time.Time
	asked []time.Duration
}

func (b *watchBackend) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if r.Question[0].Qtype == dns.TypeA {
		b.mu.Lock()
		b.asked = append(b.asked, time.Since(b.begin))
		b.mu.Unlock()
	}
	return b.answer(w, r)
}

func (b *watchBackend) Name() string { return "watchbackend" }

// watchAnswer answers with those of these records that were asked for, and NODATA otherwise.
func watchAnswer(t testing.TB, records string) func(dns.ResponseWriter, *dns.Msg) (int, error) {
	rrs := filterRecords(t, records)
	return func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg)
		m.SetReply(r)
		for _, rr := range rrs {
			if rr.Header().Rrtype == r.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
}

func watchRcode(rcode int) func(dns.ResponseWriter, *dns.Msg) (int, error) {
	return func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg)
		return rcode, w.WriteMsg(m.SetRcode(r, rcode))
	}
}

// watchStart watches a.example.org. until the end of the bubble.
func watchStart(t *testing.T, network *handlerNetwork, zone zonePolicy, b *watchBackend) *Shaker {
	t.Helper()
	b.begin = time.Now()
	zone.watched = []string{"a.example.org."}
	s := network.above(zone, b)
	s.watches = newWatches(s)
	s.instance.handlers = []*Shaker{s}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watches[0].run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// The next look-up comes when the TTL has run out, within bounds, and after a failure ever later.
func TestWatchSchedule(t *testing.T) {
	const a = "a.example.org. %d IN A 10.0.0.1\na.example.org. 900 IN AAAA 2001:db8::1"
	tests := []struct {
		name   string
		ttl    uint32
		answer func(dns.ResponseWriter, *dns.Msg) (int, error)
		want   string
	}{
		{"ttl", 0, watchAnswer(t, fmt.Sprintf(a, 20)), "[0s 20s 40s 1m0s 1m20s]"},
		{"ttl 0", 0, watchAnswer(t, fmt.Sprintf(a, 0)), "[0s 5s 10s 15s 20s]"},
		{"longer than that of the policy", 0, watchAnswer(t, fmt.Sprintf(a, 3600)), "[0s 30s 1m0s 1m30s 2m0s]"},
		{"policy without ttl", 1, watchAnswer(t, fmt.Sprintf(a, 3600)), "[0s 5s 10s 15s 20s]"},
		{"policy with a long ttl", 600, watchAnswer(t, fmt.Sprintf(a, 300)), "[0s 5m0s 10m0s 15m0s 20m0s]"},
		{"SERVFAIL", 0, watchRcode(dns.RcodeServerFailure), "[0s 1s 3s 7s 15s 31s 1m1s 1m31s]"},
		{"SERVFAIL before and after a success", 0, func() func(dns.ResponseWriter, *dns.Msg) (int, error) {
			good, bad, n := watchAnswer(t, handlerTwo), watchRcode(dns.RcodeServerFailure), 0
			return func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
				n++ // two for each look-up
				if n == 5 || n == 6 {
					return good(w, r)
				}
				return bad(w, r)
			}
		}(), "[0s 1s 3s 13s 14s 16s]"},
		{"NXDOMAIN", 0, watchRcode(dns.RcodeNameError), "[0s 1s 3s 7s 15s 31s 1m1s 1m31s]"},
		{"NODATA", 0, watchRcode(dns.RcodeSuccess), "[0s 1s 3s 7s 15s 31s 1m1s 1m31s]"},
		{"nothing", 0, func(dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeRefused, nil }, "[0s 1s 3s 7s 15s]"},
		{"error", 0, func(dns.ResponseWriter, *dns.Msg) (int, error) {
			return dns.RcodeServerFailure, errors.New("no upstream")
		}, "[0s 1s 3s 7s 15s]"},
		{"panic", 0, func(dns.ResponseWriter, *dns.Msg) (int, error) { panic("in the test") }, "[0s 1s 3s 7s 15s]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lab.CaptureLog(t)
			before := testutil.ToFloat64(panics)
			synctest.Test(t, func(t *testing.T) {
				zone := filterPolicy(t, "all", 0)
				if tt.ttl > 0 {
					zone.ttl = tt.ttl
				}
				b := &watchBackend{answer: tt.answer}
				watchStart(t, newHandlerNetwork(t, ""), zone, b)
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
			if panicked := testutil.ToFloat64(panics) > before; panicked != (tt.name == "panic") {
				t.Errorf("a panic was counted: %v", panicked)
			}
		})
	}
}

// When the handler becomes ready.
func TestWatchReady(t *testing.T) {
	two := watchAnswer(t, handlerTwo)
	recovers := func(b *watchBackend) func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if time.Since(b.begin) < 5*time.Second {
				return dns.RcodeServerFailure, nil
			}
			return two(w, r)
		}
	}
	tests := []struct {
		name, results string
		answer        func(dns.ResponseWriter, *dns.Msg) (int, error)
		want          time.Duration
		log           string
	}{
		{"answered and refused", "10.0.0.1=answered 10.0.0.2=refused", two, 0, ""},
		{"all down", "10.0.0.1=refused 10.0.0.2=refused", two, 0, ""},
		// Inconclusive tells nothing, and waiting would not help.
		{"inconclusive", "10.0.0.1=answered 10.0.0.2=inconclusive", two, 0, ""},
		// Its verdict could change nothing, so it is not probed.
		{"one address", "", watchAnswer(t, "a.example.org. 10 IN A 10.0.0.1"), 0, ""},
		{"denied addresses", "", watchAnswer(t, "a.example.org. 10 IN A 127.0.0.1\na.example.org. 10 IN A 127.0.0.2"), 0, ""},
		{"no verdict ever", "10.0.0.1=answered", two, 30 * time.Second, ""},
		{"never resolved", "", watchRcode(dns.RcodeServerFailure), 30 * time.Second,
			"a.example.org., which is watched, could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. " +
				"Nothing waits for it any longer, but it is tried again every 30s"},
		{"one type fails", "10.0.0.1=answered 10.0.0.2=answered", func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if r.Question[0].Qtype == dns.TypeAAAA {
				return dns.RcodeRefused, nil
			}
			return two(w, r)
		}, 30 * time.Second, "AAAA: REFUSED"},
		{"resolved after a while", "10.0.0.1=answered 10.0.0.2=refused", nil, 7 * time.Second, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := lab.CaptureLog(t)
			synctest.Test(t, func(t *testing.T) {
				b := &watchBackend{answer: tt.answer}
				if b.answer == nil {
					b.answer = recovers(b)
				}
				s := watchStart(t, newHandlerNetwork(t, tt.results), filterPolicy(t, "all", 0), b)
				synctest.Wait()
				for !s.Ready() {
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
				if !s.Ready() {
					t.Error("not ready any more")
				}
			})
			if n := strings.Count(log.String(), "could not be resolved"); (n == 1) != (tt.log != "") || n > 1 {
				t.Errorf("%d lines in the log:\n%s", n, log)
			}
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("no %q in the log:\n%s", tt.log, log)
			}
		})
	}
	if s := (&Shaker{instance: new(instance)}); !s.Ready() {
		t.Error("not ready without watch")
	}
	s := &Shaker{instance: new(instance)}
	s.instance.handlers = []*Shaker{s, {watches: []*watch{{name: "a.example.org."}}}}
	if s.Ready() {
		t.Error("ready before the first look-up for another server block")
	}
}

// A failure after a success is told once, and so is its end.
func TestWatchOutage(t *testing.T) {
	log := lab.CaptureLog(t)
	synctest.Test(t, func(t *testing.T) {
		good, bad := watchAnswer(t, handlerTwo), watchRcode(dns.RcodeServerFailure)
		b := new(watchBackend)
		b.answer = func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if d := time.Since(b.begin); d > time.Minute && d < 5*time.Minute {
				return bad(w, r)
			}
			return good(w, r)
		}
		failed := testutil.ToFloat64(lookupsBy[false])
		s := watchStart(t, newHandlerNetwork(t, "10.0.0.1=answered 10.0.0.2=answered"), filterPolicy(t, "all", 0), b)
		time.Sleep(3 * time.Minute)
		if !s.Ready() {
			t.Error("not ready any more")
		}
		time.Sleep(3 * time.Minute)
		if testutil.ToFloat64(lookupsBy[false]) == failed {
			t.Error("no failure counted")
		}
	})
	down := strings.Count(log.String(), "could not be resolved for 30s")
	up := strings.Count(log.String(), "a.example.org. is resolved again")
	if down != 1 || up != 1 {
		t.Errorf("told %d times that it fails and %d times that it works:\n%s", down, up, log)
	}
}

// Watched targets stay in the table although idle is shorter than the time between two look-ups, those that
// no look-up finds any longer go.
func TestWatchNeverIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newHandlerNetwork(t, "10.0.0.1=answered 10.0.0.2=refused 10.0.0.3=answered")
		zone := filterPolicy(t, "all", 0)
		zone.idle = time.Second
		before, after := watchAnswer(t, handlerTwo), watchAnswer(t, strings.Replace(handlerTwo, "10.0.0.2", "10.0.0.3", 1))
		b := new(watchBackend)
		b.answer = func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if time.Since(b.begin) < time.Hour {
				return before(w, r)
			}
			return after(w, r)
		}
		watchStart(t, network, zone, b)
		targets := func() (addrs []string) {
			synctest.Wait()
			for target := range network.monitor.All() {
				addrs = append(addrs, target.Addr().Addr().String()+" "+target.State().String())
			}
			slices.Sort(addrs)
			return addrs
		}
		for time.Since(b.begin) < 59*time.Minute {
			time.Sleep(7 * time.Second)
			if got := targets(); !slices.Equal(got, []string{"10.0.0.1 up", "10.0.0.2 down"}) {
				t.Fatalf("after %v: %v", time.Since(b.begin), got)
			}
		}
		time.Sleep(5 * time.Minute)
		if got := targets(); !slices.Equal(got, []string{"10.0.0.1 up", "10.0.0.3 up"}) {
			t.Errorf("at the end: %v", got)
		}
	})
}

// Look-ups are no answers: nothing is counted and nothing waits. The first query of a client does not wait either.
func TestWatchIsQuiet(t *testing.T) {
	for _, fallback := range []string{"all", "nodata", "servfail", "192.0.2.1"} {
		synctest.Test(t, func(t *testing.T) {
			network := newHandlerNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
			network.monitor.SetLimits(2, 1000)
			zone := filterPolicy(t, fallback, 0)
			zone.zone = handlerZone("quiet.test.")
			zonePolicies := zonePolicies{zone.zone: zone}
			zone.watched = []string{"a." + zone.zone}
			b := &watchBackend{begin: time.Now(), answer: watchAnswer(t, handlerTwo+"\na.example.org. 10 IN A 10.0.0.3")}
			s := &Shaker{Next: b, policies: zonePolicies, instance: &instance{monitor: network.monitor}}
			s.watches = newWatches(s)
			s.instance.handlers = []*Shaker{s}
			full := unfiltered.Load()
			for range 2 {
				if l := s.watches[0].lookUp(t.Context()); l.err != nil || l.ttl != 10 || len(l.targets) != 2 {
					t.Errorf("%s: %v, ttl %d, %d targets", fallback, l.err, l.ttl, len(l.targets))
				}
				synctest.Wait()
			}
			if took := time.Since(b.begin); took != 0 {
				t.Errorf("%s: the look-ups took %v", fallback, took)
			}
			c := countersFor(t.Context(), zone.zone)
			for o, counter := range c.outcomes {
				if n := testutil.ToFloat64(counter); n != 0 {
					t.Errorf("%s: counted %v answers %v", fallback, n, outcome(o))
				}
			}
			if h, r := testutil.ToFloat64(c.held), testutil.ToFloat64(c.removed); h != 0 || r != 0 || unfiltered.Load() != full {
				t.Errorf("%s: counted %v held, %v removed, %v unfiltered", fallback, h, r, unfiltered.Load()-full)
			}
			handlerAsk(t, s, "a."+zone.zone)
			if h := testutil.ToFloat64(c.held); h != 0 || time.Since(b.begin) != 0 {
				t.Errorf("%s: the client was held for %v", fallback, time.Since(b.begin))
			}
		})
	}
}

// What counts is the answer from below: a name whose addresses are all down is resolved, whatever the fallback.
func TestWatchAllDown(t *testing.T) {
	for _, fallback := range []string{"all", "nodata", "servfail", "192.0.2.1"} {
		synctest.Test(t, func(t *testing.T) {
			b := &watchBackend{answer: watchAnswer(t, strings.ReplaceAll(handlerTwo, " 10 ", " 25 "))}
			network := newHandlerNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
			s := watchStart(t, network, filterPolicy(t, fallback, 0), b)
			synctest.Wait()
			if l := s.watches[0].lookUp(t.Context()); l.err != nil || l.ttl != 25 || network.monitor.Counts().Down != 2 {
				t.Errorf("%s: %v, ttl %d, %+v", fallback, l.err, l.ttl, network.monitor.Counts())
			}
		})
	}
}

// What a plugin asks this server in the course of a look-up is as quiet, and is filtered as for a client.
func TestWatchWithin(t *testing.T) {
	network := newHandlerNetwork(t, "10.0.0.1=answered 10.0.0.2=refused")
	network.settleAll()
	inner := network.shaker(filterPolicy(t, "all", 0), handlerTwo)
	zone := filterPolicy(t, "all", 0)
	zone.zone = handlerZone("within.test.")
	zone.watched = []string{zone.zone}
	var got []string
	outer := &Shaker{policies: zonePolicies{zone.zone: zone}, instance: inner.instance}
	outer.Next = plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		rec := new(handlerWriter)
		inner.ServeDNS(ctx, rec, handlerRequest("a.example.org.", dns.TypeA))
		got = append(got, filterText(rec.messages[0].Answer))
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = rec.messages[0].Answer
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
	before := testutil.ToFloat64(countersFor(t.Context(), "example.org.").removed)
	l := newWatches(outer)[0].lookUp(t.Context())
	if l.err != nil || len(got) != 2 || strings.Contains(got[0], "10.0.0.2") {
		t.Errorf("%v, inner answers %q", l.err, got)
	}
	if testutil.ToFloat64(countersFor(t.Context(), "example.org.").removed) != before {
		t.Error("the answer within was counted")
	}
	if !slices.ContainsFunc(l.takeTargets(), func(target *health.Target) bool { return target.Addr().Addr() == netip.MustParseAddr("10.0.0.2") }) {
		t.Error("the targets of the query within are not noted")
	}
}

// A truncated answer is asked for again over TCP.
func TestWatchTruncated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var networks []string
		full := watchAnswer(t, handlerTwo)
		b := &watchBackend{answer: func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			networks = append(networks, w.RemoteAddr().Network()+w.LocalAddr().Network())
			if _, isUDP := w.RemoteAddr().(*net.UDPAddr); isUDP {
				m := new(dns.Msg)
				m.SetReply(r)
				m.Truncated = true
				return dns.RcodeSuccess, w.WriteMsg(m)
			}
			return full(w, r)
		}}
		s := watchStart(t, newHandlerNetwork(t, "10.0.0.1=answered 10.0.0.2=answered"), filterPolicy(t, "all", 0), b)
		synctest.Wait()
		if want := []string{"udpudp", "tcptcp", "udpudp", "tcptcp"}; !slices.Equal(networks, want) || !s.Ready() {
			t.Errorf("asked over %v, want %v; ready: %v", networks, want, s.Ready())
		}
	})
}

// A plugin may write the answer in wire format.
func TestLookupWriter(t *testing.T) {
	m := handlerRequest("a.example.org.", dns.TypeA)
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	w := new(lookupWriter)
	if n, err := w.Write(wire); n != len(wire) || err != nil || w.answer == nil || w.answer.Id != m.Id {
		t.Errorf("%d, %v, %v", n, err, w.answer)
	}
	if _, err := w.Write([]byte("short")); err == nil {
		t.Error("no error for garbage")
	}
}
