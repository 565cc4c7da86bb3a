package shaker

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/answer"
)

// ServeDNS implements plugin.Handler. It is under all that the plugins below do, so that its frame has to be small.
func (s *Shaker) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	l, way := s.enter(ctx, w, r)
	if l != nil {
		w = l
		if l.pass != nil {
			ctx = l.pass
		}
	}
	if way > sample {
		return s.detour(ctx, w, r, way)
	}
	var here byte
	before := placeOf(&here)
	rcode, err := s.Next.ServeDNS(ctx, w, r)
	return s.leave(l, way, placeOf(&here) != before, rcode, err)
}

// passFor returns what is between a query and the plugins below, nil where its answer is of no interest.
func (s *Shaker) passFor(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) *pass {
	if !concerns(r) {
		return nil
	}
	zone := s.zoneOf(r.Question[0].Name)
	if zone.policy == nil || s.instance.engine == nil {
		return nil
	}
	p := &pass{
		late:     late{ResponseWriter: w},
		Context:  ctx,
		verdicts: verdicts{zone: zone, request: r, shaker: s},
	}
	p.late.pass = p
	switch around := ctx.Value(passKey{}).(type) {
	case *pass:
		p.outer, p.lookup = around, around.lookup
		p.observe(around.observation)
	case *record:
		p.outer, p.record = around.outer, around
		if p.outer != nil {
			p.lookup = p.outer.lookup
			p.observe(p.outer.observation)
		}
	case *lookup:
		p.lookup = around
	case *observation:
		p.observe(around)
	case aside:
		return nil
	}
	return p
}

// concerns tells whether the answer to r could hold addresses to filter.
func concerns(r *dns.Msg) bool {
	if len(r.Question) != 1 {
		return false
	}
	q := &r.Question[0]
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSVCB, dns.TypeHTTPS, dns.TypeANY:
		return q.Qclass == dns.ClassINET && r.Opcode == dns.OpcodeQuery
	default:
		return false
	}
}

// pass is one query on its way through the plugins below. It is both the writer and the context that
// they are given, so that it costs a single allocation. It cannot be reused after the query: cache, for
// one, keeps the writer while it prefetches.
type pass struct {
	late
	context.Context

	verdicts
	// outer is the pass of the query for whose answer a plugin below, such as file with a CNAME that
	// leaves its zone, asks this server again. The client sees one answer, so one is counted.
	outer    *pass
	lookup   *lookup   // of our own that the query is part of, nil in those of clients
	record   *record   // nil without the metadata plugin
	recourse *recourse // nil as long as no fallback leads to another name

	// These are of this query and of those within it, which a prefetch of cache may have let run on in
	// another goroutine.
	outcome atomic.Uint32
	removed atomic.Uint32 // addresses
	held    atomic.Int64  // for how many nanoseconds it waited for verdicts
}

// passKey finds what is around a query in its context: the closest of a *pass, a *record, a *lookup, an *observation
// and an aside.
type passKey struct{}

// Value implements context.Context.
func (p *pass) Value(key any) any {
	if key == (passKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// answerFor returns what becomes of an answer. What has no addresses to filter is passed on.
func (p *pass) answerFor(m *dns.Msg) *dns.Msg {
	if m == nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return m
	}
	if p.lookup != nil {
		return lookupVerdicts{&p.verdicts, p.lookup}.filter(m)
	}
	if p.observation != nil {
		return p.explainWithin(m)
	}
	m, result := p.filter(m)
	if result.Addresses > 0 || p.removed.Load() > 0 {
		p.count(result)
	}
	return m
}

// filter returns what becomes of an answer to a client.
func (p *pass) filter(m *dns.Msg) (*dns.Msg, answer.Result) {
	return answer.Filter(m, &answer.Query{Zone: p.zone.answers(), Request: p.request, Client: p, Signer: p.signer()}, p)
}

// Resolve implements answer.Source.
func (p *pass) Resolve(qname string, rrtype uint16) (addrs []netip.Addr, known bool) {
	return p.resolve(p.Context, qname, rrtype)
}

// Room implements answer.Client.
func (p *pass) Room() int {
	state := request.Request{W: p.ResponseWriter, Req: p.request}
	return state.Size()
}

// Addr implements answer.Client.
func (p *pass) Addr() netip.Addr {
	switch from := p.RemoteAddr().(type) {
	case *net.UDPAddr:
		return from.AddrPort().Addr()
	case *net.TCPAddr:
		return from.AddrPort().Addr()
	default:
		return netip.Addr{}
	}
}

// count tells metrics, traces and metadata of an answer to a client.
func (p *pass) count(r answer.Result) {
	o := p.raise(r.Outcome)
	counters := p.zone.counters.countersFor(p.Context, p.zone.name)
	if r.Removed > 0 {
		counters.removed.Add(float64(r.Removed))
		p.removed.Add(uint32(r.Removed))
	}
	// After the monitor was closed there is no room either, which is no news.
	if engine := p.shaker.instance.engine; p.rejected > 0 && !engine.monitor.Closed() {
		unfiltered.Add(uint64(p.rejected))
		engine.journal.full(engine.monitor.Len())
	}
	if w := p.wait; w != nil && w.took > 0 {
		p.held.Add(int64(w.took))
		holdDuration.Observe(w.took.Seconds())
		w.trace(p.Context)
	}
	if p.record != nil {
		p.record.pass.CompareAndSwap(nil, p)
	}
	if p.outer != nil {
		p.outer.raise(o)
		p.outer.held.Add(p.held.Load())
		p.outer.removed.Add(p.removed.Load())
		return
	}
	if p.held.Load() > 0 {
		counters.held.Inc()
	}
	counters.outcomes[o].Inc()
}

// raise returns the weightiest outcome so far, o included.
func (p *pass) raise(o answer.Outcome) answer.Outcome {
	for {
		have := p.outcome.Load()
		if have >= uint32(o) {
			return answer.Outcome(have)
		}
		if p.outcome.CompareAndSwap(have, uint32(o)) {
			return o
		}
	}
}
