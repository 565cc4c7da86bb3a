package shaker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/mocktracer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
)

func handlerAnswers(answer string) plugin.Handler {
	var rrs []dns.RR
	for line := range strings.Lines(answer) {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = rrs
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
}

// handlerWriter keeps what is written to it.
type handlerWriter struct {
	test.ResponseWriter
	messages []*dns.Msg
	raw      []string
}

func (w *handlerWriter) WriteMsg(m *dns.Msg) error {
	w.messages = append(w.messages, m)
	return nil
}

func (w *handlerWriter) Write(b []byte) (int, error) {
	w.raw = append(w.raw, string(b))
	return len(b), nil
}

func handlerRequest(qname string, qtype uint16) *dns.Msg {
	r := new(dns.Msg)
	r.SetQuestion(qname, qtype)
	return r
}

// handlerAsk returns the answer to a query for A records.
func handlerAsk(t *testing.T, s *Shaker, qname string) *dns.Msg {
	t.Helper()
	w := new(handlerWriter)
	rcode, err := s.ServeDNS(t.Context(), w, handlerRequest(qname, dns.TypeA))
	if rcode != dns.RcodeSuccess || err != nil || len(w.messages) != 1 {
		t.Fatalf("%s, %v, %d messages", dns.RcodeToString[rcode], err, len(w.messages))
	}
	return w.messages[0]
}

var handlerZones atomic.Uint32

// handlerZone returns a zone whose counters are at 0, also where a test runs more than once.
func handlerZone(suffix string) string { return fmt.Sprintf("n%d.%s", handlerZones.Add(1), suffix) }

const handlerTwo = "a.example.org. 10 IN A 10.0.0.1\na.example.org. 10 IN A 10.0.0.2"

// The first answer ever waits for the verdicts, but not for longer than hold, and never again.
func TestHandlerFirstAnswer(t *testing.T) {
	tests := []struct {
		results string
		held    time.Duration
		want    []string
	}{
		{"10.0.0.1=answered 10.0.0.2=refused", time.Millisecond, []string{"10.0.0.1"}},
		{"10.0.0.1=answered 10.0.0.2=inconclusive", time.Millisecond, []string{"10.0.0.1", "10.0.0.2"}},
		{"10.0.0.1=answered", 100 * time.Millisecond, []string{"10.0.0.1", "10.0.0.2"}},
		{"10.0.0.1=refused", 100 * time.Millisecond, []string{"10.0.0.2"}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, tt.results)
			network.Delay = time.Millisecond // no target has a verdict when the answer comes
			zone := policyFor(t, "all", 0)
			zone.name = handlerZone("first.test.")
			s := network.shaker(zone, handlerTwo)
			for round, want := range []time.Duration{tt.held, 0} {
				begin := time.Now()
				m := handlerAsk(t, s, "A.EXAMPLE.org.")
				if took := time.Since(begin); took != want {
					t.Errorf("%s, query %d: held for %v, want %v", tt.results, round, took, want)
				}
				var got []string
				for _, rr := range m.Answer {
					got = append(got, rr.(*dns.A).A.String())
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s, query %d: %v, want %v", tt.results, round, got, tt.want)
				}
			}
			if n := testutil.ToFloat64(countersFor(t.Context(), zone.name).held); n != 1 {
				t.Errorf("%s: counted %v held answers, want 1", tt.results, n)
			}
		})
	}
}

// An answer that was held is seen in the histogram and in the trace of its query, if it has one.
func TestHandlerTracesHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "10.0.0.1=refused")
		network.Delay = time.Millisecond // both have no verdict when the answer comes
		s := network.shaker(policyFor(t, "all", 0), handlerTwo)
		tracer := mocktracer.New()
		query := tracer.StartSpan("shaker").(*mocktracer.MockSpan)
		ctx := opentracing.ContextWithSpan(t.Context(), query)
		observed := metricsCount(t, "coredns_shaker_hold_duration_seconds")
		began := time.Now()
		for range 2 { // the second answer is not held
			if _, err := s.ServeDNS(ctx, new(handlerWriter), handlerRequest("a.example.org.", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		if n := metricsCount(t, "coredns_shaker_hold_duration_seconds") - observed; n != 1 {
			t.Errorf("%d holds observed, want 1", n)
		}
		var holds []*mocktracer.MockSpan
		for _, span := range tracer.FinishedSpans() {
			if span.OperationName == "shaker hold" {
				holds = append(holds, span)
			}
		}
		if len(holds) != 1 {
			t.Fatalf("%d spans, want 1", len(holds))
		}
		hold := holds[0]
		if hold.ParentID != query.SpanContext.SpanID || !hold.StartTime.Equal(began) || hold.FinishTime.Sub(began) != 100*time.Millisecond {
			t.Errorf("%v, from %v to %v, began at %v", hold, hold.StartTime, hold.FinishTime, began)
		}
		if tags := hold.Tags(); tags["targets"] != 2 || tags["unknown"] != 1 {
			t.Errorf("tags %v", tags)
		}
	})
}

// With hold 0 no answer waits.
func TestHandlerHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "10.0.0.1=refused")
		zone := policyFor(t, "all", 0)
		zone.hold = 0
		begin := time.Now()
		handlerAsk(t, network.shaker(zone, handlerTwo), "a.example.org.")
		if took := time.Since(begin); took != 0 {
			t.Errorf("held for %v", took)
		}
	})
}

// No more than maxHeld answers wait at the same time; those past it go out at once.
func TestHandlerBoundsHeldAnswers(t *testing.T) {
	const past = 50
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "") // everything is a black hole
		var next atomic.Uint32
		s := network.above(policyFor(t, "nodata", 0), plugin.HandlerFunc(
			func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
				m := new(dns.Msg)
				m.SetReply(r)
				i := next.Add(1)
				m.Answer = []dns.RR{&dns.A{
					Hdr: dns.RR_Header{Name: "a.example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET},
					A:   []byte{10, 1, byte(i >> 8), byte(i)},
				}}
				return dns.RcodeSuccess, w.WriteMsg(m)
			}))
		var at0, at100 atomic.Int32
		begin := time.Now()
		var wg sync.WaitGroup
		for range maxHeld + past {
			wg.Go(func() {
				handlerAsk(t, s, "a.example.org.")
				switch time.Since(begin) {
				case 0:
					at0.Add(1)
				case 100 * time.Millisecond:
					at100.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := network.engine.held.Load(); n != maxHeld {
			t.Errorf("%d held at the same time, want %d", n, maxHeld)
		}
		wg.Wait()
		if at0.Load() != past || at100.Load() != maxHeld {
			t.Errorf("%d answers at once, %d after hold; want %d and %d", at0.Load(), at100.Load(), past, maxHeld)
		}
		if n := network.engine.held.Load(); n != 0 {
			t.Errorf("%d held at the end", n)
		}
	})
}

// What cannot have addresses to filter is not touched, although the answer here would be thinned.
func TestHandlerLetsPass(t *testing.T) {
	question := func(qname string, qtype, qclass uint16) []dns.Question {
		return []dns.Question{{Name: qname, Qtype: qtype, Qclass: qclass}}
	}
	plain := question("a.example.org.", dns.TypeA, dns.ClassINET)
	tests := []struct {
		name     string
		opcode   int
		question []dns.Question
		passes   bool
	}{
		{"A", dns.OpcodeQuery, plain, false},
		{"AAAA", dns.OpcodeQuery, question("a.example.org.", dns.TypeAAAA, dns.ClassINET), false},
		{"SRV", dns.OpcodeQuery, question("a.example.org.", dns.TypeSRV, dns.ClassINET), false},
		{"HTTPS", dns.OpcodeQuery, question("a.example.org.", dns.TypeHTTPS, dns.ClassINET), false},
		{"SVCB", dns.OpcodeQuery, question("a.example.org.", dns.TypeSVCB, dns.ClassINET), false},
		{"ANY", dns.OpcodeQuery, question("a.example.org.", dns.TypeANY, dns.ClassINET), false},
		{"MX", dns.OpcodeQuery, question("a.example.org.", dns.TypeMX, dns.ClassINET), true},
		{"mixed case", dns.OpcodeQuery, question("A.eXample.ORG.", dns.TypeA, dns.ClassINET), false},
		{"apex", dns.OpcodeQuery, question("example.org.", dns.TypeA, dns.ClassINET), false},
		{"other zone", dns.OpcodeQuery, question("a.example.net.", dns.TypeA, dns.ClassINET), true},
		{"NOTIFY", dns.OpcodeNotify, plain, true},
		{"UPDATE", dns.OpcodeUpdate, plain, true},
		{"STATUS", dns.OpcodeStatus, plain, true},
		{"CH", dns.OpcodeQuery, question("a.example.org.", dns.TypeA, dns.ClassCHAOS), true},
		{"class ANY", dns.OpcodeQuery, question("a.example.org.", dns.TypeA, dns.ClassANY), true},
		{"AXFR", dns.OpcodeQuery, question("example.org.", dns.TypeAXFR, dns.ClassINET), true},
		{"IXFR", dns.OpcodeQuery, question("example.org.", dns.TypeIXFR, dns.ClassINET), true},
		{"TXT", dns.OpcodeQuery, question("a.example.org.", dns.TypeTXT, dns.ClassINET), true},
		{"no question", dns.OpcodeQuery, nil, true},
		{"two questions", dns.OpcodeQuery, slices.Concat(plain, plain), true},
	}
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	oops := errors.New("oops")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := new(handlerWriter)
			r := &dns.Msg{MsgHdr: dns.MsgHdr{Opcode: tt.opcode}, Question: tt.question}
			answer := &dns.Msg{Answer: lab.Records(t, handlerTwo)}
			s := network.above(policyFor(t, "all", 0), plugin.HandlerFunc(
				func(_ context.Context, w dns.ResponseWriter, request *dns.Msg) (int, error) {
					if request != r {
						t.Error("another request")
					}
					w.WriteMsg(answer)
					w.WriteMsg(answer) // as the envelopes of a transfer
					return dns.RcodeRefused, oops
				}))
			if rcode, err := s.ServeDNS(t.Context(), w, r); rcode != dns.RcodeRefused || !errors.Is(err, oops) {
				t.Errorf("returned %d, %v", rcode, err)
			}
			for _, m := range w.messages {
				if (m == answer) != tt.passes {
					t.Errorf("became\n%v", m)
				}
			}
			// Without a monitor there is nothing to filter by.
			s.instance = new(instance)
			if s.ServeDNS(t.Context(), w, r); len(w.messages) != 4 || w.messages[2] != answer || w.messages[3] != answer {
				t.Errorf("without a monitor it became\n%v", w.messages)
			}
		})
	}
}

// Without a plugin below the query fails, as everywhere in CoreDNS.
func TestHandlerWithoutNext(t *testing.T) {
	s := newNetwork(t, "").above(policyFor(t, "all", 0), nil)
	if rcode, err := s.ServeDNS(t.Context(), new(handlerWriter), handlerRequest("a.example.org.", dns.TypeA)); rcode != dns.RcodeServerFailure || err == nil {
		t.Errorf("%d, %v", rcode, err)
	}
	if s.Name() != "shaker" {
		t.Errorf("name %q", s.Name())
	}
}

// Messages without addresses to filter go out as they are, and nobody is probed for them.
func TestHandlerWriteMsgLetsPass(t *testing.T) {
	answer := lab.Records(t, handlerTwo)
	messages := map[string]*dns.Msg{
		"nil":      nil,
		"NXDOMAIN": {MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError}, Answer: answer},
		"SERVFAIL": {MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}, Answer: answer},
		"empty":    {Ns: answer, Extra: answer},
		"alias":    {Answer: lab.Records(t, "a.example.org. 10 IN CNAME b.example.org."), Extra: answer},
	}
	name := handlerZone("pass.test.")
	for kind, m := range messages {
		network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
		zone := policyFor(t, "nodata", 0)
		zone.name = name
		s := network.above(zone, plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
			return dns.RcodeSuccess, w.WriteMsg(m)
		}))
		if got := handlerAsk(t, s, "a.example.org."); got != m {
			t.Errorf("%s: became\n%v", kind, got)
		}
		if n := network.Monitor.Len(); n != 0 {
			t.Errorf("%s: %d targets", kind, n)
		}
	}
	if n := testutil.ToFloat64(countersFor(t.Context(), name).outcomes[0]); n != 0 {
		t.Errorf("counted %v of them", n)
	}
}

// A plugin below may write bytes, and looks through us at the client and the context.
func TestHandlerIsTransparent(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	defer cancel()
	w := &handlerWriter{ResponseWriter: test.ResponseWriter{TCP: true, RemoteIP: "192.0.2.7"}}
	s := newNetwork(t, "").above(policyFor(t, "all", 0), plugin.HandlerFunc(
		func(ctx context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
			if n, err := w.Write([]byte("bytes")); n != 5 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			if got := w.RemoteAddr().String(); got != "192.0.2.7:40212" {
				t.Errorf("remote address %s", got)
			}
			if ctx.Value(key{}) != "value" {
				t.Error("the context lost a value")
			}
			child, cancelChild := context.WithCancel(ctx)
			defer cancelChild()
			if cancel(); ctx.Err() == nil || child.Err() == nil {
				t.Error("the context was not cancelled")
			}
			return dns.RcodeSuccess, nil
		}))
	if _, err := s.ServeDNS(ctx, w, handlerRequest("a.example.org.", dns.TypeA)); err != nil {
		t.Error(err)
	}
	if len(w.raw) != 1 || w.raw[0] != "bytes" {
		t.Errorf("written %q", w.raw)
	}
}

// The TLS state of the connection is there for whoever is given our writer as it is.
func TestHandlerForwardsConnectionState(t *testing.T) {
	state := &tls.ConnectionState{ServerName: "dns.example.org"}
	var stater dns.ConnectionStater = &late{ResponseWriter: handlerTLSWriter{new(handlerWriter), state}}
	if stater.ConnectionState() != state {
		t.Error("lost")
	}
	stater = &late{ResponseWriter: new(handlerWriter)}
	if got := stater.ConnectionState(); got != nil {
		t.Errorf("%v for a connection without TLS", got)
	}
}

type handlerTLSWriter struct {
	*handlerWriter
	state *tls.ConnectionState
}

func (w handlerTLSWriter) ConnectionState() *tls.ConnectionState { return w.state }

// A plugin below that asks this server again makes one answer for the client, so one is counted, and what
// the inner pass did to it counts for the outer.
func TestHandlerNestedPass(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	zone := policyFor(t, "all", 0)
	zone.name = handlerZone("nested.test.")
	var s *Shaker
	inner := handlerAnswers(handlerTwo)
	s = network.above(zone, plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		if r.Question[0].Name == "a.example.org." {
			return inner.ServeDNS(ctx, w, r)
		}
		lookup := new(handlerWriter)
		if _, err := s.ServeDNS(ctx, lookup, handlerRequest("a.example.org.", dns.TypeA)); err != nil {
			return dns.RcodeServerFailure, err
		}
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = append(lab.Records(t, "w.example.org. 10 IN CNAME a.example.org."), lookup.messages[0].Answer...)
		return dns.RcodeSuccess, w.WriteMsg(m)
	}))
	if m := handlerAsk(t, s, "w.example.org."); len(m.Answer) != 2 {
		t.Errorf("got\n%s", lab.RecordText(m.Answer))
	}
	counters := countersFor(t.Context(), zone.name)
	for o := range answer.Outcomes {
		want := 0.0
		if o == answer.Filtered {
			want = 1
		}
		if n := testutil.ToFloat64(counters.outcomes[o]); n != want {
			t.Errorf("counted %v %v, want %v", n, o, want)
		}
	}
	if n := testutil.ToFloat64(counters.removed); n != 1 {
		t.Errorf("counted %v removed, want 1", n)
	}
	// The next query is not within the last.
	handlerAsk(t, s, "a.example.org.")
	if n := testutil.ToFloat64(counters.outcomes[answer.Filtered]); n != 2 {
		t.Errorf("counted %v, want 2", n)
	}
}

// SERVFAIL as a return code would make the server write a second answer.
func TestHandlerReturnsWhatNextReturned(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=refused")
	network.settleAll()
	if m := handlerAsk(t, network.shaker(policyFor(t, "servfail", 0), handlerTwo), "a.example.org."); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("rcode %s", dns.RcodeToString[m.Rcode])
	}
}

// After the last shutdown callback servers still answer, from the last verdicts.
func TestHandlerAfterClose(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	s := network.shaker(policyFor(t, "all", 0), handlerTwo+"\na.example.org. 10 IN A 10.0.0.3")
	network.Monitor.Close()
	if m := handlerAsk(t, s, "a.example.org."); len(m.Answer) != 2 {
		t.Errorf("got\n%s", lab.RecordText(m.Answer))
	}
}

// Every port of the policy is probed at every address that may be, with the source of its family.
func TestHandlerProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "")
		zone := policyFor(t, "all", 0)
		zone.ports = []uint16{80, 443}
		zone.source4, zone.source6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		zone.permits.add(netip.MustParsePrefix("10.0.0.3/32"), false)
		zone.permits.add(netip.MustParsePrefix("127.0.0.9/32"), true)
		zone.complete()
		handlerAsk(t, network.shaker(zone, `a.example.org. 10 IN A 10.0.0.1
a.example.org. 10 IN A 10.0.0.3
a.example.org. 10 IN A 127.0.0.1
a.example.org. 10 IN A 127.0.0.9
a.example.org. 10 IN A 169.254.169.254
b.example.org. 10 IN A 10.0.0.4
a.example.org. 10 IN AAAA 2001:db8::2
a.example.org. 10 IN AAAA ::ffff:10.0.0.5
a.example.org. 10 IN AAAA ::1`), "a.example.org.")
		synctest.Wait()
		probed := network.Probed()
		want := setupAddrs("10.0.0.1", "127.0.0.9", "10.0.0.4", "2001:db8::2")
		for _, addr := range want {
			for _, port := range zone.ports {
				c, ok := probed[netip.AddrPortFrom(addr, port)]
				source := zone.source6
				if addr.Is4() {
					source = zone.source4
				}
				if !ok || c.Source != source || c.Timeout != time.Second {
					t.Errorf("%v port %d: probed %v, %+v", addr, port, ok, c)
				}
			}
		}
		if len(probed) != 2*len(want) {
			t.Errorf("probed %v", probed)
		}
	})
}

func TestHandlerCombinesPorts(t *testing.T) {
	const unknown, up, down = health.Unknown, health.Up, health.Down
	const isUnknown, isUp, isDown = answer.Unknown, answer.Up, answer.Down
	tests := []struct {
		ports    []health.State
		all, any answer.State
	}{
		{[]health.State{unknown}, isUnknown, isUnknown},
		{[]health.State{up}, isUp, isUp},
		{[]health.State{down}, isDown, isDown},
		{[]health.State{up, up}, isUp, isUp},
		{[]health.State{down, down}, isDown, isDown},
		{[]health.State{up, down}, isDown, isUp},
		{[]health.State{up, unknown}, isUnknown, isUp},
		{[]health.State{down, unknown}, isDown, isUnknown},
		{[]health.State{unknown, unknown}, isUnknown, isUnknown},
		{[]health.State{up, down, unknown}, isDown, isUp},
	}
	for _, tt := range tests {
		var states [3]int
		for _, s := range tt.ports {
			states[s]++
		}
		seen := portStates{states: states}
		if got := seen.verdict(false).State; got != tt.all {
			t.Errorf("%v: %v, want %v", tt.ports, got, tt.all)
		}
		if got := seen.verdict(true).State; got != tt.any {
			t.Errorf("any of %v: %v, want %v", tt.ports, got, tt.any)
		}
	}
}

// Queries at the same time share the records of the plugin below, which nobody may write to. The race
// detector is what looks.
func TestHandlerConcurrently(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered 10.0.0.3=refused 10.0.0.4=answered")
	network.settleAll()
	const answer = `a.example.org. 300 IN A 10.0.0.1
a.example.org. 300 IN A 10.0.0.2
a.example.org. 300 IN A 10.0.0.3
a.example.org. 300 IN A 10.0.0.4`
	for _, more := range []string{"", "\na.example.org. 300" + signature} {
		s := network.shaker(policyFor(t, "all", 0), answer+more)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					m := handlerAsk(t, s, "a.example.org.")
					for _, rr := range m.Answer {
						if rr.Header().Ttl != 30 {
							t.Errorf("TTL %d", rr.Header().Ttl)
						}
					}
				}
			})
		}
		wg.Wait()
	}
}

// A verdict that comes in while an answer is made, and so is not waited for, is heeded all the same.
func TestHandlerVerdictComesInBetween(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
			s := network.shaker(policyFor(t, "all", 0), handlerTwo)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					m := handlerAsk(t, s, "a.example.org.")
					if len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 10 {
						t.Errorf("the answer is %v, want 10.0.0.2 with its TTL of 10", m.Answer)
					}
				})
			}
			wg.Wait()
		})
	}
}

// A prefetch of cache runs on with the context of a query that is being answered.
func TestHandlerNestedPassInTheBackground(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=refused 10.0.0.2=answered")
	network.settleAll()
	zone := policyFor(t, "all", 0)
	zone.name = handlerZone("background.test.")
	var (
		s  *Shaker
		wg sync.WaitGroup
	)
	inner := handlerAnswers(handlerTwo)
	s = network.above(zone, plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		if r.Question[0].Name == "w.example.org." {
			wg.Go(func() { s.ServeDNS(ctx, new(handlerWriter), handlerRequest("a.example.org.", dns.TypeA)) })
		}
		return inner.ServeDNS(ctx, w, r)
	}))
	for range 100 {
		handlerAsk(t, s, "w.example.org.")
	}
	wg.Wait()
	if n := testutil.ToFloat64(countersFor(t.Context(), zone.name).outcomes[answer.Filtered]); n != 100 {
		t.Errorf("counted %v, want 100", n)
	}
}

// No answer waits for a port whose verdict cannot change that of its address.
func TestHandlerHoldsForWhatCounts(t *testing.T) {
	for _, tt := range []struct {
		first string // at port 443, when the query comes; port 80 stays silent
		any   bool
		held  time.Duration
	}{
		{"10.0.0.1=answered 10.0.0.2=answered", true, 0},
		{"10.0.0.1=refused 10.0.0.2=refused", false, 0},
		{"10.0.0.1=answered 10.0.0.2=answered", false, 100 * time.Millisecond},
		{"10.0.0.1=refused 10.0.0.2=refused", true, 100 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := newNetwork(t, tt.first)
			network.settleAll()
			network.Silence()
			zone := policyFor(t, "all", 0)
			zone.ports, zone.anyPort = []uint16{80, 443}, tt.any
			begin := time.Now()
			handlerAsk(t, network.shaker(zone, handlerTwo), "a.example.org.")
			if took := time.Since(begin); took != tt.held {
				t.Errorf("any %v, %s: held for %v, want %v", tt.any, tt.first, took, tt.held)
			}
		})
	}
}

// An address past the table's bound is counted once, also where the answer waits for another. The log tells of the
// first, and again when there was none for a while.
func TestHandlerCountsUnfilteredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line = "[WARNING] The table is full, with 1 targets: new addresses pass unchecked. The property limit targets is its size"
		logged := lab.CaptureLog(t)
		network := newNetwork(t, "")
		network.Monitor.SetLimits(1, 0)
		s := network.shaker(policyFor(t, "all", 0), handlerTwo)
		for _, step := range []struct {
			after  time.Duration
			logged []string
		}{{0, []string{line}}, {time.Second, nil}, {quiet, nil}, {quiet + time.Second, []string{line}}} {
			time.Sleep(step.after)
			before := unfiltered.Load()
			handlerAsk(t, s, "a.example.org.")
			if n := unfiltered.Load() - before; n != 1 {
				t.Errorf("counted %d, want 1", n)
			}
			journalExpect(t, journalTake(logged), step.logged...)
		}
		network.Monitor.Close()
		time.Sleep(time.Hour)
		fresh := newNetwork(t, "")
		fresh.Monitor.Close()
		handlerAsk(t, fresh.shaker(policyFor(t, "all", 0), handlerTwo), "a.example.org.")
		journalExpect(t, journalTake(logged))
	})
}

// Names of clients' queries are noted where there is a status page, unless they are longer than any host's.
func TestHandlerNotesNames(t *testing.T) {
	n := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered")
	long := strings.Repeat(`\000`, 61) + ".example.org."
	zone := policyFor(t, "all", 0)
	s := n.shaker(zone, handlerTwo)
	for _, noted := range []bool{false, true} {
		zone.named = noted
		for _, qname := range []string{"A.Example.org.", "a.example.org.", long, "b.example.org."} {
			handlerAsk(t, s, qname)
		}
		want := []string(nil)
		if noted {
			want = []string{"a.example.org.", "b.example.org."}
		}
		if got := n.Await(netip.MustParseAddrPort("10.0.0.1:443"), zone.key4).Names(); !reflect.DeepEqual(got, want) {
			t.Errorf("noted %v: names %q, want %q", noted, got, want)
		}
	}
}

// IPv4 in the disguise of an IPv6 hint is IPv6 to `allow` and `deny`, as it is in an AAAA record.
func TestHandlerMappedHint(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered 127.0.0.1=answered")
	zone := policyFor(t, "all", 0)
	m := &dns.Msg{Question: handlerRequest("a.example.org.", dns.TypeHTTPS).Question}
	m.Answer = []dns.RR{&dns.HTTPS{SVCB: dns.SVCB{
		Hdr:      dns.RR_Header{Name: "a.example.org.", Rrtype: dns.TypeHTTPS, Class: dns.ClassINET, Ttl: 30},
		Priority: 1, Target: ".",
		Value: []dns.SVCBKeyValue{&dns.SVCBIPv6Hint{Hint: []net.IP{net.ParseIP("10.0.0.1").To16(), net.ParseIP("127.0.0.1").To16()}}},
	}}}
	s := network.above(zone, answering(func(w dns.ResponseWriter, _ *dns.Msg) (int, error) { return dns.RcodeSuccess, w.WriteMsg(m) }))
	if _, err := s.ServeDNS(t.Context(), new(handlerWriter), handlerRequest("a.example.org.", dns.TypeHTTPS)); err != nil {
		t.Fatal(err)
	}
	if n := network.Monitor.Len(); n != 0 {
		t.Errorf("%d targets", n)
	}
}
