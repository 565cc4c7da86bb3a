package shaker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/watch"
)

// answering is a plugin.
func answering(answer func(w dns.ResponseWriter, r *dns.Msg) (int, error)) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) { return answer(w, r) })
}

// resolving answers with those of these records that were asked for, and NODATA otherwise.
func resolving(t testing.TB, records string) func(dns.ResponseWriter, *dns.Msg) (int, error) {
	rrs := lab.Records(t, records)
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

func lookupKeep(t testing.TB, s *Shaker, zone zonePolicy, qname string, keep time.Duration) (*dns.Msg, []watch.Target) {
	t.Helper()
	m, targets, err := s.lookUp(t.Context(), zone, qname, dns.TypeA, keep)
	if err != nil {
		t.Fatal(err)
	}
	return m, targets
}

// What is no answer is an error, and one panic below does not end the process.
func TestLookupFails(t *testing.T) {
	rcode := func(rcode int) func(dns.ResponseWriter, *dns.Msg) (int, error) {
		return func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			return rcode, w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(dns.ResponseWriter, *dns.Msg) (int, error)
		want   string // the error, "" where it is none
	}{
		{"addresses", resolving(t, handlerTwo), ""},
		{"NODATA", rcode(dns.RcodeSuccess), ""},
		{"NXDOMAIN", rcode(dns.RcodeNameError), ""},
		{"SERVFAIL", rcode(dns.RcodeServerFailure), "SERVFAIL"},
		{"nothing", func(dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeRefused, nil }, "REFUSED"},
		{"error", func(dns.ResponseWriter, *dns.Msg) (int, error) {
			return dns.RcodeServerFailure, errors.New("no upstream")
		}, "no upstream"},
		{"panic", func(dns.ResponseWriter, *dns.Msg) (int, error) { panic("in the test") }, "panic: in the test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.CaptureLog(t)
			before := testutil.ToFloat64(panics)
			zone := policyFor(t, "all", 0)
			s := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered").above(zone, answering(tt.answer))
			_, _, err := s.lookUp(t.Context(), zone, "a.example.org.", dns.TypeA, time.Minute)
			if got := errorText(err); got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
			if panicked := testutil.ToFloat64(panics) > before; panicked != (tt.name == "panic") {
				t.Errorf("a panic was counted: %v", panicked)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Targets stay in the table until the next look-up although idle is shorter, and those that no look-up finds any longer
// go.
func TestLookupKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=refused 10.0.0.3=answered")
		zone := policyFor(t, "all", 0)
		zone.idle = time.Second
		records := handlerTwo
		s := network.above(zone, answering(func(w dns.ResponseWriter, r *dns.Msg) (int, error) { return resolving(t, records)(w, r) }))
		targets := func() (addrs []string) {
			synctest.Wait()
			for target := range network.Monitor.All() {
				addrs = append(addrs, target.Addr().Addr().String()+" "+target.State().String())
			}
			slices.Sort(addrs)
			return addrs
		}
		for range 100 {
			lookupKeep(t, s, zone, "a.example.org.", time.Minute)
			time.Sleep(30 * time.Second)
			if got := targets(); !slices.Equal(got, []string{"10.0.0.1 up", "10.0.0.2 down"}) {
				t.Fatalf("%v", got)
			}
		}
		records = strings.Replace(handlerTwo, "10.0.0.2", "10.0.0.3", 1)
		for range 10 {
			lookupKeep(t, s, zone, "a.example.org.", time.Minute)
			time.Sleep(30 * time.Second)
		}
		if got := targets(); !slices.Equal(got, []string{"10.0.0.1 up", "10.0.0.3 up"}) {
			t.Errorf("at the end: %v", got)
		}
	})
}

// Look-ups are no answers: nothing is counted and nothing waits. The first query of a client does not wait either. What
// counts is the answer from below: that all addresses are down does not matter, whatever the fallback.
func TestLookupIsQuiet(t *testing.T) {
	for _, fallback := range []string{"all", "nodata", "servfail", "192.0.2.1"} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
			network.Monitor.SetLimits(2, 1000)
			zone := policyFor(t, fallback, 0)
			zone.name = handlerZone("quiet.test.")
			s := network.above(zone, answering(resolving(t, handlerTwo+"\na.example.org. 10 IN A 10.0.0.3")))
			s.policies = zonePolicies{zone.name: zone}
			full, begin := unfiltered.Load(), time.Now()
			for range 2 {
				m, targets := lookupKeep(t, s, zone, "a."+zone.name, time.Minute)
				if len(m.Answer) != 3 || len(targets) != 2 {
					t.Errorf("%s: %d records, %d targets", fallback, len(m.Answer), len(targets))
				}
				synctest.Wait()
			}
			if took := time.Since(begin); took != 0 {
				t.Errorf("%s: the look-ups took %v", fallback, took)
			}
			c := countersFor(t.Context(), zone.name)
			for o, counter := range c.outcomes {
				if n := testutil.ToFloat64(counter); n != 0 {
					t.Errorf("%s: counted %v answers %v", fallback, n, answer.Outcome(o))
				}
			}
			if h, r := testutil.ToFloat64(c.held), testutil.ToFloat64(c.removed); h != 0 || r != 0 || unfiltered.Load() != full {
				t.Errorf("%s: counted %v held, %v removed, %v unfiltered", fallback, h, r, unfiltered.Load()-full)
			}
			handlerAsk(t, s, "a."+zone.name)
			if h := testutil.ToFloat64(c.held); h != 0 || time.Since(begin) != 0 {
				t.Errorf("%s: the client was held for %v", fallback, time.Since(begin))
			}
		})
	}
}

// Addresses whose verdict could change nothing, or that are denied, lead to no target.
func TestLookupOfWhatIsNotChecked(t *testing.T) {
	for _, records := range []string{
		"a.example.org. 10 IN A 127.0.0.1\na.example.org. 10 IN A 127.0.0.2",
		`a.example.org. 10 IN TXT "x"`,
	} {
		zone := policyFor(t, "all", 0)
		s := newNetwork(t, "").above(zone, answering(resolving(t, records)))
		if _, targets := lookupKeep(t, s, zone, "a.example.org.", time.Minute); len(targets) != 0 {
			t.Errorf("%s: %d targets", records, len(targets))
		}
	}
}

// What a plugin asks this server in the course of a look-up is as quiet, and is filtered as for a client.
func TestLookupWithin(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=refused")
	network.settleAll()
	inner := network.shaker(policyFor(t, "all", 0), handlerTwo)
	zone := policyFor(t, "all", 0)
	zone.name = handlerZone("within.test.")
	var got []string
	outer := &Shaker{policies: zonePolicies{zone.name: zone}, instance: inner.instance}
	outer.Next = plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		rec := new(handlerWriter)
		inner.ServeDNS(ctx, rec, handlerRequest("a.example.org.", dns.TypeA))
		got = append(got, lab.RecordText(rec.messages[0].Answer))
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = rec.messages[0].Answer
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
	before := testutil.ToFloat64(countersFor(t.Context(), "example.org.").removed)
	_, targets := lookupKeep(t, outer, zone, zone.name, time.Minute)
	if len(got) != 1 || strings.Contains(got[0], "10.0.0.2") {
		t.Errorf("inner answers %q", got)
	}
	if testutil.ToFloat64(countersFor(t.Context(), "example.org.").removed) != before {
		t.Error("the answer within was counted")
	}
	if !slices.ContainsFunc(targets, func(target watch.Target) bool {
		return target.(*health.Target).Addr().Addr() == netip.MustParseAddr("10.0.0.2")
	}) {
		t.Error("the targets of the query within are not noted")
	}
}

// A truncated answer is asked for again over TCP.
func TestLookupTruncated(t *testing.T) {
	var networks []string
	full := resolving(t, handlerTwo)
	zone := policyFor(t, "all", 0)
	s := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered").above(zone, answering(func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
		networks = append(networks, w.RemoteAddr().Network()+w.LocalAddr().Network())
		if _, isUDP := w.RemoteAddr().(*net.UDPAddr); isUDP {
			m := new(dns.Msg)
			m.SetReply(r)
			m.Truncated = true
			return dns.RcodeSuccess, w.WriteMsg(m)
		}
		return full(w, r)
	}))
	m, targets := lookupKeep(t, s, zone, "a.example.org.", time.Minute)
	if want := []string{"udpudp", "tcptcp"}; !slices.Equal(networks, want) || len(m.Answer) != 2 || len(targets) != 2 {
		t.Errorf("asked over %v, want %v; %d targets in\n%v", networks, want, len(targets), m)
	}
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

// The ready plugin asks one server block only, so each speaks for all.
func TestReadySpeaksForAllBlocks(t *testing.T) {
	s := &Shaker{instance: new(instance)}
	if !s.Ready() {
		t.Error("not ready without watch")
	}
	s.instance.watched.Add(watch.Wanted{Name: "a.example.org.", Types: []uint16{dns.TypeA}, TTL: 30}, nil, watch.Listener{})
	if s.Ready() {
		t.Error("ready before the first look-up for another server block")
	}
}
