package shaker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/status"
)

// Bounds of what the explanation of a server block tells, for all of the answers in it, which may come from anybody.
const (
	maxRecordsTold   = 512
	maxMembersTold   = 256
	maxAddressesTold = 1024
	maxWithin        = 16 // answers to queries within one
)

// observation is a question that has no effect: it leads to no targets, keeps none in the table, tells them no names, and
// nothing counts it. The context of all queries that are part of it leads to it.
type observation struct {
	ctx context.Context // ends with it

	mu     sync.Mutex // a plugin may ask this server again in a goroutine of its own
	within []status.Explained
	found  map[lookedUp]addresses
	// What may still be told.
	records, members, addresses int
}

func newObservation(ctx context.Context) *observation {
	return &observation{
		ctx:     ctx,
		found:   make(map[lookedUp]addresses),
		records: maxRecordsTold, members: maxMembersTold, addresses: maxAddressesTold,
	}
}

// grant returns how many of n things may be told, of which there may be so many more.
func (o *observation) grant(of *int, n int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = min(n, *of)
	*of -= n
	return n
}

// lookedUp is a name that was looked up through a server block.
type lookedUp struct {
	by *Shaker
	question
}

// addresses are what was found.
type addresses struct {
	offer
	known bool
}

// look returns the addresses of a name, which it looks up where they are not known.
func (o *observation) look(by *Shaker, origin context.Context, qname string, rrtype uint16) (addrs []netip.Addr, ttl uint32, known bool) {
	asked := lookedUp{by, question{qname, rrtype}}
	o.mu.Lock()
	have, done := o.found[asked]
	o.mu.Unlock()
	if !done {
		have.addrs, have.ttl, have.known = by.resolver.Look(o.ctx, origin, qname, rrtype)
		o.mu.Lock()
		o.found[asked] = have
		o.mu.Unlock()
	}
	return have.addrs, have.ttl, have.known
}

// ttl returns that of addresses that look has returned.
func (o *observation) ttl(by *Shaker, qname string, rrtype uint16) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found[lookedUp{by, question{qname, rrtype}}].ttl
}

// add notes the answer to a query within the question.
func (o *observation) add(e status.Explained) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.within) < maxWithin {
		o.within = append(o.within, e)
	}
}

// told returns the answers within the question. Those that come later are left out.
func (o *observation) told() []status.Explained {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]status.Explained{}, o.within...)
}

// observe makes a pass part of an observation, unless that is nil. It waits for nothing.
func (p *pass) observe(o *observation) {
	if p.observation = o; o != nil {
		p.wait = &wait{over: true}
	}
}

// explainWithin notes what becomes of the answer to a query within an observation, and returns that.
func (p *pass) explainWithin(m *dns.Msg) *dns.Msg {
	e := (&candidate{block: p.shaker, zone: p.zone}).newExplained()
	asked := &p.request.Question[0]
	e.Asked = asked.Name + " " + dns.TypeToString[asked.Qtype]
	m = p.explain(m, &e)
	p.observation.add(e)
	return m
}

// explain tells what becomes of an answer, and returns that.
func (p *pass) explain(m *dns.Msg, e *status.Explained) *dns.Msg {
	told := answer.Explanation{Message: m}
	if m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
		told = answer.Explain(m, &answer.Query{Zone: p.zone.answers(), Request: p.request, Client: p, Signer: p.signer()}, p)
	} else {
		told.Passed = "it has no records to look at"
	}
	e.Rcode, e.AnswerRcode = dns.RcodeToString[m.Rcode], dns.RcodeToString[told.Message.Rcode]
	e.Outcome, e.Passed = told.Outcome.String(), told.Passed
	e.Below, e.Answer = p.recordsOf(m, e), p.recordsOf(told.Message, e)
	e.TTL = ttlOf(told.Message.Answer)
	for i := range told.Sets {
		set := &told.Sets[i]
		n := p.observation.grant(&p.observation.members, len(set.Members))
		e.LeftOut += len(set.Members) - n
		if n > 0 {
			e.Sets = append(e.Sets, p.explainSet(set, set.Members[:n], &e.LeftOut))
		}
	}
	return told.Message
}

// recordsOf returns the records of the answer section and then of the additional section, as text.
func (p *pass) recordsOf(m *dns.Msg, e *status.Explained) []string {
	rrs := slices.Concat(m.Answer, m.Extra)
	rrs = slices.DeleteFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	n := p.observation.grant(&p.observation.records, len(rrs))
	e.LeftOut += len(rrs) - n
	all := make([]string, n)
	for i, rr := range rrs[:n] {
		all[i] = textOf(rr)
	}
	return all
}

// textOf returns a record in one line, with single spaces between its parts.
func textOf(rr dns.RR) string {
	h := rr.Header()
	if rest, found := strings.CutPrefix(rr.String(), h.String()); found {
		return strings.Join([]string{h.Name, strconv.Itoa(int(h.Ttl)), dns.Class(h.Class).String(), dns.Type(h.Rrtype).String(), rest}, " ")
	}
	return strings.ReplaceAll(rr.String(), "\t", " ")
}

// ttlOf returns the shortest of some records, nil where there are none.
func ttlOf(rrs []dns.RR) *uint32 {
	if len(rrs) == 0 {
		return nil
	}
	ttl := rrs[0].Header().Ttl
	for _, rr := range rrs {
		ttl = min(ttl, rr.Header().Ttl)
	}
	return &ttl
}

// explainSet tells what was decided about some members of an RRset. It adds the addresses that are not told of to leftOut.
func (p *pass) explainSet(set *answer.ExplainedSet, members []answer.ExplainedMember, leftOut *int) status.ExplainedSet {
	e := status.ExplainedSet{
		Name: set.Name, Type: dns.Type(set.Type).String(), Section: "answer",
		Decision: set.Decision, Fallback: set.Fallback,
	}
	if set.Extra {
		e.Section = "additional"
	}
	for i := range members {
		m := &members[i]
		member := status.ExplainedMember{
			Record: textOf(m.Record), InAnswer: m.Rank > 0, Rank: m.Rank,
			Why: m.Why, Steps: m.Steps, Addresses: []status.ExplainedAddress{},
		}
		n := p.observation.grant(&p.observation.addresses, len(m.Addresses))
		*leftOut += len(m.Addresses) - n
		for j := range m.Addresses[:n] {
			member.Addresses = append(member.Addresses, p.explainAddress(&m.Addresses[j]))
		}
		e.Members = append(e.Members, member)
	}
	return e
}

// explainAddress tells what is known of an address, and what decides about it.
func (p *pass) explainAddress(a *answer.ExplainedAddress) status.ExplainedAddress {
	e := status.ExplainedAddress{
		Address: a.Addr, Tier: a.Tier, Weight: a.Weight,
		Verdict: a.Verdict.State.String(), Damped: a.Verdict.Damped,
		Leaves: a.Leaves, Why: a.Why, Ports: []status.ExplainedPort{},
	}
	var own [1]uint16
	ports := slices.Clone(p.zone.portsOf(a.Port, &own))
	if a.Other != 0 {
		ports = append(ports, a.Other)
	}
	for _, port := range ports {
		at := netip.AddrPortFrom(a.Addr.Unmap(), port)
		if e.Override == nil && p.zone.overrides != nil {
			e.SetOverride(p.zone.overrides, at)
		}
		e.Ports = append(e.Ports, p.explainPort(at))
	}
	return e
}

// explainPort tells what is known of an address at a port.
func (p *pass) explainPort(at netip.AddrPort) status.ExplainedPort {
	e := status.ExplainedPort{
		Port: at.Port(), Probed: p.zone.detours.of(at), State: answer.Unwatched.String(),
		Settings: p.zone.key(at.Addr()).Value().String(),
	}
	if !p.zone.mayProbe(at.Addr()) {
		e.Note = notPermitted
		return e
	}
	t, inTable := p.find(at)
	switch {
	case t == nil:
		e.Note = noRoom
		return e
	case !inTable:
		e.State, e.Note = t.State().String(), notYet
		return e
	}
	s := t.Status()
	e.State, e.Since, e.RoundTrip = s.State.String(), status.Instant(s.Since), s.RTT.Seconds()
	rests := false
	if g := p.shaker.instance.peers.Load(); g != nil {
		e.SetObservers(g.Said(t), s.State, p.shaker.instance.engine.monitor.Now())
		rests = t.Own().Word == health.NoWord
	}
	if !s.Checked.IsZero() && !rests {
		e.Checked, e.Result = status.Instant(s.Checked), s.Result.String()
	}
	if s.Err != nil && !rests {
		e.Reason = s.Err.Error()
	}
	if !s.DampedUntil.IsZero() {
		e.Note = "it answers, but flaps, and is held down until " + clockTime(s.DampedUntil)
	}
	return e
}

// What there is to say of an address without a verdict.
const (
	notPermitted = "it may not be probed, see allow and deny, so it is not checked"
	noRoom       = "the table of targets is full, so it is not checked"
	notYet       = "no answer has led to it yet, so it is not checked"
)

// find returns the target that is checked for an address and port, see [health.Monitor.Find].
func (v *verdicts) find(answered netip.AddrPort) (t *health.Target, inTable bool) {
	return v.shaker.instance.engine.monitor.Find(v.zone.detours.of(answered), v.zone.key(answered.Addr()))
}

// Account implements answer.Witness.
func (p *pass) Account(addr netip.Addr, port uint16) string {
	addr = addr.Unmap()
	var own [1]uint16
	ports := p.zone.portsOf(port, &own)
	if len(ports) == 1 {
		return p.accountAt(netip.AddrPortFrom(addr, ports[0]))
	}
	var parts []string
	for _, port := range ports {
		parts = append(parts, fmt.Sprintf("port %d %s", port, p.accountAt(netip.AddrPortFrom(addr, port))))
	}
	which := "all ports have to be up"
	if p.zone.anyPort {
		which = "one port is enough"
	}
	return fmt.Sprintf("%s (%s)", strings.Join(parts, ", "), which)
}

// accountAt tells what the verdict on an address at a port rests upon.
func (p *pass) accountAt(at netip.AddrPort) string {
	if decided := p.zone.overrides.Rules().Of(at.Addr(), at.Port()); decided != override.Auto {
		var e status.ExplainedAddress
		e.SetOverride(p.zone.overrides, at)
		return fmt.Sprintf("%s by an override: %s", decided, e.Override)
	}
	e := p.explainPort(at)
	words := accountOf(&e)
	if e.Probed != at {
		words += fmt.Sprintf(" (probed at %v)", e.Probed)
	}
	return words
}

// accountOf tells what a verdict rests upon: what replicas say, where there are others, or else the last check.
func accountOf(e *status.ExplainedPort) string {
	words := e.State
	if !e.Since.IsZero() {
		words += " since " + clockTime(e.Since)
	}
	switch {
	case e.Tally != "":
		words += ": " + e.Tally
	case e.State == health.Up.String() || e.Result == "":
	case e.Result == checker.Answered.String():
		words += ", though the last check was answered"
	case e.Reason != "" && e.Result != checker.Refused.String() && e.Result != checker.Timeout.String():
		words += fmt.Sprintf(": %s, %s", e.Result, strings.TrimPrefix(e.Reason, "checker: "))
	default:
		words += ": " + e.Result
	}
	if e.Note != "" {
		words += "; " + e.Note
	}
	return words
}

// clockTime is a time for people.
func clockTime(t time.Time) string { return status.ClockTime(t, time.Now()) }
