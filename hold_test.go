package shaker

import (
	"context"
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

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// overTCP is a client with a connection.
type overTCP struct {
	handlerWriter
	port int
}

func (w *overTCP) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: w.port}
}

// newNames answers A queries for n<i>.example.org. with two addresses of their own.
var newNames = plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	var i byte
	fmt.Sscanf(r.Question[0].Name, "n%d.", &i)
	m := new(dns.Msg)
	m.SetReply(r)
	for host := range byte(2) {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30},
			A:   net.IPv4(10, 0, i, host),
		})
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
})

// The queries of one connection are answered one after the other, so a connection waits once in a while only. Others, and
// datagrams, are not concerned.
func TestHoldOncePerConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client func(i int) dns.ResponseWriter
		want   time.Duration // of 20 queries
	}{
		{"one connection", func(int) dns.ResponseWriter { return &overTCP{port: 1024} }, time.Second},
		{"a connection each", func(i int) dns.ResponseWriter { return &overTCP{port: 1024 + i} }, 20 * time.Second},
		{"datagrams", func(int) dns.ResponseWriter { return new(handlerWriter) }, 20 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, "") // all are silent
			zone := policyFor(t, "all", 0)
			zone.hold = time.Second
			s := network.above(zone, newNames)
			began := time.Now()
			ask := func(i int) {
				t.Helper()
				if _, err := s.ServeDNS(t.Context(), tt.client(i), handlerRequest(fmt.Sprintf("n%d.example.org.", i), dns.TypeA)); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 20 {
				ask(i)
			}
			if took := time.Since(began); took != tt.want {
				t.Errorf("%s: 20 new names took %v, want %v", tt.name, took, tt.want)
			}
			time.Sleep(holdShare * time.Second)
			began = time.Now()
			ask(20)
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s: after a while a new name took %v, want 1s", tt.name, took)
			}
		})
	}
}

// A wait that is over at once costs the connection next to nothing: one whose targets answer has every first answer
// right.
func TestHoldOfThoseThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "")
		network.Delay = time.Millisecond
		for i := range byte(20) {
			network.Results[netip.AddrFrom4([4]byte{10, 0, i, 0})] = checker.Answered
			network.Results[netip.AddrFrom4([4]byte{10, 0, i, 1})] = checker.Refused
		}
		s := network.above(policyFor(t, "all", 0), newNames)
		client := &overTCP{port: 1024}
		for i := range 20 {
			if _, err := s.ServeDNS(t.Context(), client, handlerRequest(fmt.Sprintf("n%d.example.org.", i), dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			if n := len(client.messages[i].Answer); n != 1 {
				t.Errorf("query %d: %d addresses, want 1", i, n)
			}
			time.Sleep(holdShare * time.Millisecond)
		}
	})
}

// Whoever opens connections does not have us remember them all.
func TestHoldRemembersSoManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c connections
		client := func(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 1024} }
		for i := range maxConnections {
			if !c.mayHold(client(i), time.Now()) {
				t.Fatalf("connection %d may not wait", i)
			}
			c.held(client(i), time.Second)
		}
		if c.mayHold(client(maxConnections), time.Now()) {
			t.Error("one more may wait")
		}
		time.Sleep(holdShare*time.Second - 1)
		if c.mayHold(client(0), time.Now()) {
			t.Error("the first may wait again too soon")
		}
		time.Sleep(time.Nanosecond)
		if !c.mayHold(client(maxConnections), time.Now()) || !c.mayHold(client(0), time.Now()) {
			t.Error("nobody may wait although the others have had their time")
		}
		if n := len(c.next); n != 2 {
			t.Errorf("%d connections are remembered, want 2", n)
		}
	})
}

// services answers with SRV records without glue, and with the addresses of their targets.
type services struct {
	srv       string
	addresses string
	delay     time.Duration // of the addresses

	mu    sync.Mutex
	asked []string
}

func (s *services) Name() string { return "services" }

func (s *services) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	q := r.Question[0]
	m := new(dns.Msg)
	m.SetReply(r)
	if q.Qtype == dns.TypeSRV {
		m.Answer = records(s.srv)
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	s.mu.Lock()
	s.asked = append(s.asked, q.Name+" "+dns.TypeToString[q.Qtype])
	s.mu.Unlock()
	time.Sleep(s.delay)
	for _, rr := range records(s.addresses) {
		if rr.Header().Rrtype == q.Qtype && rr.Header().Name == q.Name {
			m.Answer = append(m.Answer, rr)
		}
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

func records(text string) (rrs []dns.RR) {
	for line := range strings.Lines(text) {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// SRV records lose those whose targets are down although their addresses did not come along: they are looked up, both
// families, and the first answer waits for them and for the verdicts, but no longer than `hold` altogether.
func TestHoldForAddressesOfServices(t *testing.T) {
	const two = "web.service.consul. 30 IN SRV 1 1 443 a.example.org.\nweb.service.consul. 30 IN SRV 1 1 443 b.example.org."
	const addresses = "a.example.org. 30 IN A 10.0.0.1\nb.example.org. 30 IN A 10.0.0.2\nb.example.org. 30 IN AAAA 2001:db8::2"
	for _, tt := range []struct {
		name, results string
		delay         time.Duration
		took          time.Duration
		first, later  string // targets
	}{
		{"one is down", "10.0.0.1=refused 10.0.0.2=answered 2001:db8::2=answered", 10 * time.Millisecond, 11 * time.Millisecond, "b", "b"},
		{"one family of one is down", "10.0.0.1=answered 10.0.0.2=refused 2001:db8::2=answered", 0, time.Millisecond, "a b", "a b"},
		{"both families of one are down", "10.0.0.1=answered 10.0.0.2=refused 2001:db8::2=refused", 0, time.Millisecond, "a", "a"},
		{"addresses come late", "10.0.0.1=refused 10.0.0.2=answered 2001:db8::2=answered", time.Second, 100 * time.Millisecond, "a b", "b"},
		{"a verdict does not come", "10.0.0.2=answered 2001:db8::2=answered", 30 * time.Millisecond, 100 * time.Millisecond, "a b", "a b"},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, tt.results)
			network.Delay = time.Millisecond
			zone := policyFor(t, "all", 0)
			below := &services{srv: two, addresses: addresses, delay: tt.delay}
			s := network.above(zone, below)
			s.policies = zonePolicies{".": zone}
			ask := func() string {
				t.Helper()
				w := new(handlerWriter)
				if _, err := s.ServeDNS(t.Context(), w, handlerRequest("web.service.consul.", dns.TypeSRV)); err != nil {
					t.Fatal(err)
				}
				var targets []string
				for _, rr := range w.messages[0].Answer {
					targets = append(targets, rr.(*dns.SRV).Target[:1])
				}
				return strings.Join(targets, " ")
			}
			began := time.Now()
			first := ask()
			if took := time.Since(began); took != tt.took || first != tt.first {
				t.Errorf("%s: first %q after %v, want %q after %v", tt.name, first, took, tt.first, tt.took)
			}
			time.Sleep(3 * time.Second)
			ask() // finds out addresses that came late, and has them checked
			time.Sleep(time.Second)
			if later := ask(); later != tt.later {
				t.Errorf("%s: later %q, want %q", tt.name, later, tt.later)
			}
			below.mu.Lock()
			defer below.mu.Unlock()
			slices.Sort(below.asked)
			if want := []string{"a.example.org. A", "a.example.org. AAAA", "b.example.org. A", "b.example.org. AAAA"}; !slices.Equal(below.asked, want) {
				t.Errorf("%s: asked for %q, want %q", tt.name, below.asked, want)
			}
		})
	}
}

// What is looked up aside is not filtered, counted nor checked by another stanza on its way.
func TestLookupAside(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	inner := network.shaker(policyFor(t, "nodata", 0), handlerTwo)
	outer := &Shaker{Next: inner, instance: inner.instance}
	before := network.Monitor.Len()
	m, err := outer.resolve(t.Context(), t.Context(), "a.example.org.", dns.TypeA)
	if err != nil || len(m.Answer) != 2 {
		t.Errorf("%v:\n%v", err, m)
	}
	if n := network.Monitor.Len(); n != before {
		t.Errorf("%d targets, want %d", n, before)
	}
}

// A name that nobody here serves has no addresses that clients could learn of.
func TestLookupAsideOfRefusedName(t *testing.T) {
	s := &Shaker{Next: answering(func(dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeRefused, nil })}
	if m, err := s.resolve(t.Context(), t.Context(), "a.example.net.", dns.TypeA); err != nil || len(m.Answer) != 0 {
		t.Errorf("%v, %v", m, err)
	}
	s = &Shaker{Next: answering(func(dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeServerFailure, nil })}
	if _, err := s.resolve(t.Context(), t.Context(), "a.example.net.", dns.TypeA); err == nil {
		t.Error("SERVFAIL is no error")
	}
}

// A truncated answer is filtered as any other, and stays truncated.
func TestHandlerTruncated(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=refused")
	network.settleAll()
	s := network.above(policyFor(t, "all", 0), answering(func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Truncated, m.Answer = true, lab.Records(t, handlerTwo)
		return dns.RcodeSuccess, w.WriteMsg(m)
	}))
	m := handlerAsk(t, s, "a.example.org.")
	if !m.Truncated || len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "10.0.0.1") {
		t.Errorf("became\n%v", m)
	}
}
