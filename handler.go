package shaker

import (
	"context"
	"crypto/tls"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"

	"github.com/coredns-shaker/shaker/health"
)

// ServeDNS implements plugin.Handler.
func (s *Shaker) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if !concerns(r) {
		return plugin.NextOrFailure(name, s.Next, ctx, w, r)
	}
	zone := s.policies.find(r.Question[0].Name)
	if zone.policy == nil || s.instance.monitor == nil {
		return plugin.NextOrFailure(name, s.Next, ctx, w, r)
	}
	p := &pass{
		ResponseWriter: w,
		Context:        ctx,
		zone:           zone,
		verdicts:       verdicts{policy: zone.policy, monitor: s.instance.monitor, request: r},
	}
	switch around := ctx.Value(passKey{}).(type) {
	case *pass:
		p.outer = around
	case *record:
		p.outer, p.record = around.outer, around
	}
	if p.outer != nil {
		p.verdicts.lookup = p.outer.verdicts.lookup
	}
	return plugin.NextOrFailure(name, s.Next, p, p, r)
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
	dns.ResponseWriter
	context.Context

	zone     zonePolicy
	verdicts verdicts
	// outer is the pass of the query for whose answer a plugin below, such as file with a CNAME that
	// leaves its zone, asks this server again. The client sees one answer, so one is counted.
	outer  *pass
	record *record // nil without the metadata plugin

	// These are of this query and of those within it, which a prefetch of cache may have let run on in
	// another goroutine.
	outcome atomic.Uint32
	held    atomic.Int64 // for how many nanoseconds it waited for verdicts
	removed atomic.Int64 // addresses
}

// passKey finds what is around a query in its context: a *pass, or a *record if that is closer.
type passKey struct{}

// Value implements context.Context.
func (p *pass) Value(key any) any {
	if key == (passKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// ConnectionState implements dns.ConnectionStater, which embedding the writer would hide.
func (p *pass) ConnectionState() *tls.ConnectionState {
	if stater, ok := p.ResponseWriter.(dns.ConnectionStater); ok {
		return stater.ConnectionState()
	}
	return nil
}

// WriteMsg implements dns.ResponseWriter. It passes on what has no addresses to filter.
func (p *pass) WriteMsg(m *dns.Msg) error {
	if m == nil || m.Rcode != dns.RcodeSuccess || m.Truncated || len(m.Answer) == 0 {
		return p.ResponseWriter.WriteMsg(m)
	}
	filtered, result := filter(m, p.verdicts.request, p.zone, &p.verdicts)
	if p.verdicts.lookup != nil && p.outer == nil {
		return p.ResponseWriter.WriteMsg(m)
	}
	p.count(result)
	return p.ResponseWriter.WriteMsg(filtered)
}

func (p *pass) count(r filterResult) {
	if p.verdicts.lookup != nil || r.addresses == 0 && p.removed.Load() == 0 {
		return
	}
	o := p.raise(r.outcome)
	counters := countersFor(p.Context, p.zone.zone)
	if r.removed > 0 {
		counters.removed.Add(float64(r.removed))
		p.removed.Add(int64(r.removed))
	}
	if h := p.verdicts.hold; h != nil {
		p.held.Add(int64(h.took))
		holdDuration.Observe(h.took.Seconds())
		h.trace(p.Context)
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
func (p *pass) raise(o outcome) outcome {
	for {
		have := p.outcome.Load()
		if have >= uint32(o) {
			return outcome(have)
		}
		if p.outcome.CompareAndSwap(have, uint32(o)) {
			return o
		}
	}
}

// maxHeld bounds the answers that wait at the same time. Each keeps a goroutine, and a client, waiting;
// a flood of new names must not pile them up.
const maxHeld = 1024

var held atomic.Int64

// verdicts are what the monitor says of the addresses in one answer.
type verdicts struct {
	policy  *policy
	monitor *health.Monitor
	request *dns.Msg
	pending []*health.Target // worth waiting for
	hold    *hold            // nil before it has waited
	lookup  *lookup          // of a watched name, nil in queries of clients
}

// hold is a wait for verdicts.
type hold struct {
	began   time.Time
	took    time.Duration
	targets []*health.Target
}

// trace adds the wait to the trace of the query, if there is one.
func (h *hold) trace(ctx context.Context) {
	span := opentracing.SpanFromContext(ctx)
	if span == nil {
		return
	}
	unknown := 0
	for _, t := range h.targets {
		if t.State() == health.Unknown {
			unknown++
		}
	}
	span.Tracer().StartSpan("shaker hold",
		opentracing.ChildOf(span.Context()),
		opentracing.StartTime(h.began),
		opentracing.Tags{"targets": len(h.targets), "unknown": unknown},
	).FinishWithOptions(opentracing.FinishOptions{FinishTime: h.began.Add(h.took)})
}

// of implements stateSource. An address is not watched where it may not be probed, or the table of targets
// is full. What is overridden is still probed, so that there is a verdict when that ends.
func (v *verdicts) of(addr netip.Addr, port uint16) verdict {
	p := v.policy
	allowed := p.probed.allowed(addr) && (!addr.Is4In6() || p.probed.allowed(addr.Unmap()))
	addr = addr.Unmap()
	forced, key, keep := p.forced.current(), p.key(addr), p.idle
	if v.lookup != nil {
		keep = max(keep, v.lookup.keep)
	}
	var states [3]int
	damped := 0
	var rtt time.Duration
	before := len(v.pending)
	ports := p.ports
	if port != 0 {
		own := [1]uint16{port}
		ports = own[:]
	}
	for _, port := range ports {
		var t *health.Target
		if allowed {
			t = v.monitor.Target(netip.AddrPortFrom(addr, port), key, keep)
		}
		if t != nil {
			if v.lookup != nil {
				v.lookup.note(t)
			}
			if p.noted {
				v.noteName(t)
			}
			if known := t.RTT(); known > 0 && (rtt == 0 || known < rtt) {
				rtt = known
			}
		}
		switch o := forced.of(addr, port); {
		case o == forcedUp:
			states[health.Up]++
		case o == forcedDown:
			states[health.Down]++
		case t == nil:
			if allowed && v.hold == nil && v.lookup == nil {
				reportFull(v.monitor)
			}
			v.pending = v.pending[:before]
			return verdict{}
		default:
			state := t.State()
			states[state]++
			if state == health.Down && t.Damped() {
				damped++
			}
			if state == health.Unknown && v.hold == nil && v.lookup == nil && t.Holds(p.hold) {
				v.pending = append(v.pending, t)
			}
		}
	}
	state := combine(states, p.anyPort)
	if state != health.Unknown {
		// What is still pending at other ports could not change it.
		v.pending = v.pending[:before]
	}
	// Up it would be if the damped ports were.
	relieved := damped > 0 && (p.anyPort || damped == states[health.Down])
	return verdict{watched: true, state: state, damped: state == health.Down && relieved, rtt: rtt}
}

// longestNoted bounds the names that are noted at targets. Those of hosts are shorter (RFC 1123, section 2.1); only what
// somebody made up is longer, with most of its octets as \DDD, and would take up four times the memory.
const longestNoted = 255

// noteName has a target remember what was asked for.
func (v *verdicts) noteName(t *health.Target) {
	if qname := v.request.Question[0].Name; len(qname) <= longestNoted {
		t.AddName(qname)
	}
}

// combine makes the state of an address from those of its ports; states has the number of ports by
// state.
func combine(states [3]int, anyPort bool) health.State {
	decisive, other := health.Down, health.Up
	if anyPort {
		decisive, other = other, decisive
	}
	switch {
	case states[decisive] > 0:
		return decisive
	case states[health.Unknown] > 0:
		return health.Unknown
	default:
		return other
	}
}

// settle waits for the verdicts that are about to come, once. It reports whether it has waited, so that
// the states are to be asked for again.
func (v *verdicts) settle() bool {
	if len(v.pending) == 0 || v.hold != nil {
		return false
	}
	defer held.Add(-1)
	if held.Add(1) > maxHeld {
		return false
	}
	h := &hold{began: time.Now(), targets: v.pending}
	v.monitor.Await(v.pending, v.policy.hold)
	h.took = max(time.Since(h.began), 1) // also where the clock is too coarse to tell
	v.pending, v.hold = nil, h
	return true
}
