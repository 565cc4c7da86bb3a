package shaker

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"github.com/opentracing/opentracing-go"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/watch"
)

// verdicts are what is known of the addresses in one answer. It implements answer.Source.
type verdicts struct {
	zone    zonePolicy
	request *dns.Msg
	engine  *engine
	pending []*health.Target // worth waiting for
	hold    *hold            // nil before it has waited
	// rejected is how many addresses found no room in the table, and so have no verdict.
	rejected int
}

// Ask implements answer.Source. An address is not watched where it may not be probed, or the table of targets is full.
// What is overridden is still probed, so that there is a verdict when that ends.
func (v *verdicts) Ask(addr netip.Addr, port uint16) answer.Verdict {
	permitted := v.zone.permits.allows(addr)
	addr = addr.Unmap()
	rules := v.zone.overrides.Rules()
	var own [1]uint16
	var seen portStates
	pending := len(v.pending)
	for _, port := range v.zone.portsOf(port, &own) {
		var t *health.Target
		if permitted {
			t = v.target(addr, port, v.zone.idle)
		}
		decided := rules.Of(addr, port)
		if decided == override.Auto && t == nil {
			if permitted {
				v.rejected++
			}
			v.pending = v.pending[:pending]
			return answer.Verdict{}
		}
		seen.add(decided, t)
		if decided == override.Auto && v.hold == nil && t.Holds(v.zone.hold) {
			v.pending = append(v.pending, t)
		}
	}
	verdict := seen.verdict(v.zone.anyPort)
	if verdict.State != answer.Unknown {
		// What is still pending at other ports could not change it.
		v.pending = v.pending[:pending]
	}
	return verdict
}

// filter returns what becomes of the answer to the request, see [answer.Filter].
func (v *verdicts) filter(m *dns.Msg) (*dns.Msg, answer.Result) {
	return answer.Filter(m, v.request, v.zone.answers(), v)
}

// maxNamed bounds the names that targets are told. Those of hosts are shorter (RFC 1123, section 2.1). What is longer was
// made up by somebody, with most of its octets as \DDD, and would take up four times the memory.
const maxNamed = 255

// target has an address checked at a port for at least keep from now on. It is nil where the table is full.
func (v *verdicts) target(addr netip.Addr, port uint16, keep time.Duration) *health.Target {
	t := v.engine.monitor.Target(netip.AddrPortFrom(addr, port), v.zone.key(addr), keep)
	if t != nil && v.zone.named {
		if qname := v.request.Question[0].Name; len(qname) <= maxNamed {
			t.AddName(qname)
		}
	}
	return t
}

// portStates sums up what is known of an address at its ports.
type portStates struct {
	states [3]int // number of ports by health.State
	damped int    // of those that are down
	rtt    time.Duration
}

// add takes in a port: what somebody has decided about it, and the target, which is nil where there is none.
func (p *portStates) add(decided override.Decision, t *health.Target) {
	if t != nil {
		if rtt := t.RTT(); rtt > 0 && (p.rtt == 0 || rtt < p.rtt) {
			p.rtt = rtt
		}
	}
	switch decided {
	case override.Up:
		p.states[health.Up]++
	case override.Down:
		p.states[health.Down]++
	default:
		state := t.State()
		p.states[state]++
		if state == health.Down && t.Damped() {
			p.damped++
		}
	}
}

// verdict makes one of those at all ports, or at any.
func (p *portStates) verdict(anyPort bool) answer.Verdict {
	decisive, other := answer.Down, answer.Up
	ports := p.states[health.Down]
	if anyPort {
		decisive, other = other, decisive
		ports = p.states[health.Up]
	}
	v := answer.Verdict{State: other, RTT: p.rtt}
	switch {
	case ports > 0:
		v.State = decisive
	case p.states[health.Unknown] > 0:
		v.State = answer.Unknown
	}
	// If the ports that are damped were up, the address would be, too.
	relieved := p.damped > 0 && (anyPort || p.damped == p.states[health.Down])
	v.Damped = v.State == answer.Down && relieved
	return v
}

// Settle implements answer.Source.
func (v *verdicts) Settle() bool {
	if len(v.pending) == 0 || v.hold != nil || !v.engine.enter() {
		return false
	}
	defer v.engine.leave()
	h := &hold{began: time.Now(), targets: v.pending}
	v.engine.monitor.Await(v.pending, v.zone.hold)
	h.took = max(time.Since(h.began), 1) // also where the clock is too coarse to tell
	v.pending, v.hold, v.rejected = nil, h, 0
	return true
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

// lookupVerdicts are those for a look-up of our own, which is no answer to a client: nobody waits for a verdict, and the
// targets stay in the table until the next look-up. It implements answer.Source.
type lookupVerdicts struct {
	*verdicts
	lookup *lookup
}

// Ask implements answer.Source.
func (v lookupVerdicts) Ask(addr netip.Addr, port uint16) answer.Verdict {
	verdict := v.verdicts.Ask(addr, port)
	if !v.zone.permits.allows(addr) {
		return verdict
	}
	addr = addr.Unmap()
	var own [1]uint16
	for _, port := range v.zone.portsOf(port, &own) {
		if t := v.target(addr, port, max(v.zone.idle, v.lookup.keep)); t != nil {
			v.lookup.add(t)
		}
	}
	return verdict
}

// filter is that of verdicts.
func (v lookupVerdicts) filter(m *dns.Msg) *dns.Msg {
	m, _ = answer.Filter(m, v.request, v.zone.answers(), v)
	return m
}

// Settle implements answer.Source.
func (v lookupVerdicts) Settle() bool { return false }

var _ watch.Target = (*health.Target)(nil)
