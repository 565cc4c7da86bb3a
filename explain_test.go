package shaker

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/status"
)

// Explanations are bounded in number and in rate, whoever wants them.
func TestExplaining(t *testing.T) {
	var e explaining
	now := time.Now()
	status := func(at time.Duration) int {
		err := e.begin(now.Add(at))
		if err == nil {
			return http.StatusOK
		}
		refusal := err.(*status.Refusal)
		if refusal.RetryAfter <= 0 {
			t.Errorf("%v: %v", err, refusal.RetryAfter)
		}
		return refusal.Status
	}
	expect := func(at time.Duration, want int) {
		t.Helper()
		if got := status(at); got != want {
			t.Errorf("after %v: %d, want %d", at, got, want)
		}
	}
	for range maxExplaining {
		expect(0, http.StatusOK)
	}
	expect(0, http.StatusServiceUnavailable)
	for range maxExplaining {
		e.end()
	}
	for range explainRate - maxExplaining {
		expect(0, http.StatusOK)
		e.end()
	}
	expect(0, http.StatusTooManyRequests)
	expect(99*time.Millisecond, http.StatusTooManyRequests)
	expect(101*time.Millisecond, http.StatusOK)
	e.end()
	expect(101*time.Millisecond, http.StatusTooManyRequests)
	for range explainRate { // no more, however long nobody asked
		expect(time.Hour, http.StatusOK)
		e.end()
	}
	expect(time.Hour, http.StatusTooManyRequests)
}

// What is told of an answer is bounded, and it says how much is missing. No target comes of it.
func TestExplainIsBounded(t *testing.T) {
	network := newNetwork(t, "10.0.0.1=answered")
	zone := policyFor(t, "all", 0)
	zone.ports = []uint16{80, 443}
	request := handlerRequest("a.example.org.", dns.TypeA)
	m := new(dns.Msg).SetReply(request)
	for i := range 300 {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "a.example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{10, 0, byte(i >> 8), byte(i)}})
	}
	p := benchPass(zone, network, request)
	p.observe(newObservation(t.Context()))
	var e status.Explained
	if got := p.explain(m, &e); got != m {
		t.Errorf("unknown addresses changed it:\n%v", got)
	}
	if len(e.Below)+len(e.Answer) != maxRecordsTold || len(e.Sets) != 1 || len(e.Sets[0].Members) != maxMembersTold || e.LeftOut != 600-maxRecordsTold+300-maxMembersTold {
		t.Errorf("%d and %d records, %d sets, %d are left out", len(e.Below), len(e.Answer), len(e.Sets), e.LeftOut)
	}
	if want := "port 80 unknown; " + notYet + ", port 443 unknown; " + notYet + " (all ports have to be up)"; e.Sets[0].Members[0].Why != want {
		t.Errorf("why %q, want %q", e.Sets[0].Members[0].Why, want)
	}
	if n := network.Monitor.Len(); n != 0 {
		t.Errorf("%d targets", n)
	}
}

// So are the addresses that records lead to.
func TestExplainIsBoundedInAddresses(t *testing.T) {
	const targets, ports = 40, 30
	network := newNetwork(t, "")
	request := handlerRequest("_x._tcp.example.org.", dns.TypeSRV)
	m := new(dns.Msg).SetReply(request)
	header := func(name string, rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET}
	}
	for i := range ports {
		m.Answer = append(m.Answer, &dns.SRV{Hdr: header("_x._tcp.example.org.", dns.TypeSRV), Port: uint16(1000 + i), Target: "a.example.org."})
	}
	for i := range targets {
		m.Extra = append(m.Extra, &dns.A{Hdr: header("a.example.org.", dns.TypeA), A: []byte{10, 0, 0, byte(i)}})
	}
	p := benchPass(policyFor(t, "all", 0), network, request)
	p.observe(newObservation(t.Context()))
	var e status.Explained
	p.explain(m, &e)
	told := 0
	for _, set := range e.Sets {
		for _, member := range set.Members {
			told += len(member.Addresses)
		}
	}
	// Each is told of twice: of the SRV record that leads to it, and of its own.
	if all := 2 * targets * ports; told != maxAddressesTold || e.LeftOut != all-told {
		t.Errorf("%d of %d addresses, %d are left out", told, all, e.LeftOut)
	}
}

// Until all plugins have started nothing is asked.
func TestExplainBeforeTheStart(t *testing.T) {
	_, err := new(instance).explain(t.Context(), status.Question{Name: "a.example.org."})
	if refusal, ok := err.(*status.Refusal); !ok || refusal.Status != http.StatusServiceUnavailable {
		t.Errorf("got %v", err)
	}
}

// Who is refused has nobody at work: no view and no provider of metadata.
func TestExplainRefusesAtOnce(t *testing.T) {
	asked := 0
	key := &dnsserver.Config{Zone: "example.org.", Transport: "dns", Port: "53", ListenHosts: []string{""}, FilterFuncs: []dnsserver.FilterFunc{
		func(context.Context, *request.Request) bool { asked++; return true },
	}}
	block := newNetwork(t, "").above(policyFor(t, "all", 0), nil)
	block.keys, block.near = []*dnsserver.Config{key}, []*dnsserver.Config{key}
	block.controller = &caddy.Controller{ServerBlockKeys: []string{"dns://example.org.:53"}}
	inst := &instance{handlers: []*Shaker{block}}
	inst.started.Store(true)
	shared.explaining.number = maxExplaining // which takes none of the rate
	defer func() { shared.explaining.number = 0 }()
	_, err := inst.explain(t.Context(), status.Question{Name: "a.example.org.", Type: dns.TypeA})
	if refusal, ok := err.(*status.Refusal); !ok || refusal.Status != http.StatusServiceUnavailable || asked > 0 {
		t.Errorf("got %v, and the view was asked %d times", err, asked)
	}
}

// A mistake of ours costs one server block its explanation, which says so.
func TestExplainPanics(t *testing.T) {
	logged := lab.CaptureLog(t)
	c := candidate{block: newNetwork(t, "").above(policyFor(t, "all", 0), nil), key: new(dnsserver.Config)} // it listens nowhere
	c.zone = c.block.policies["example.org."]
	e := c.explain(t.Context(), status.Question{Name: "www.example.org.", Type: dns.TypeA})
	if want := "this is a mistake in shaker, the log tells more"; e.Error != want {
		t.Errorf("error %q, want %q", e.Error, want)
	}
	if want := "while www.example.org. was explained"; !strings.Contains(logged.String(), want) {
		t.Errorf("no %q in the log:\n%s", want, logged.String())
	}
}

// The numbers in docs/explain.md are those of the code.
func TestPageExplain(t *testing.T) {
	lab.ExpectWords(t, "docs/explain.md",
		fmt.Sprintf("up to %d of them", maxExplained),
		fmt.Sprintf("All clients together get %d explanations in a second. Four are made at a time, and the plugins below have %.0f seconds",
			explainRate, explainTimeout.Seconds()),
		fmt.Sprintf("what became of answers on their way here, %d at most", maxWithin),
		fmt.Sprintf("of each server block, %d records, %d members of sets and %d addresses of members are told of, at most", maxRecordsTold, maxMembersTold, maxAddressesTold),
	)
	if maxExplaining != 4 {
		t.Errorf("%d are made at a time", maxExplaining)
	}
}

// A verdict rests upon what replicas say, where there are others, and else upon the last check.
func TestAccountOf(t *testing.T) {
	since := time.Now().Add(-time.Minute)
	began := clockTime(since)
	for _, tt := range []struct {
		port status.ExplainedPort
		want string
	}{
		{status.ExplainedPort{State: "down", Since: since, Result: "timeout"}, "down since " + began + ": timeout"},
		{status.ExplainedPort{State: "down", Since: since, Result: "answered"}, "down since " + began + ", though the last check was answered"},
		{status.ExplainedPort{State: "down", Since: since, Result: "unreachable", Reason: "no route to host"}, "down since " + began + ": unreachable, no route to host"},
		{status.ExplainedPort{State: "up", Since: since, Result: "timeout"}, "up since " + began},
		{status.ExplainedPort{State: "unwatched", Note: noRoom}, "unwatched; " + noRoom},
		{status.ExplainedPort{State: "down", Since: since, Result: "answered", Reason: "x", Tally: "2 of 3 observers say so, 1 says up; this replica says up"},
			"down since " + began + ": 2 of 3 observers say so, 1 says up; this replica says up"},
		{status.ExplainedPort{State: "up", Since: since, Tally: "3 of 3 observers say so; this replica does not check it"},
			"up since " + began + ": 3 of 3 observers say so; this replica does not check it"},
	} {
		if got := accountOf(&tt.port); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.port, got, tt.want)
		}
	}
}
