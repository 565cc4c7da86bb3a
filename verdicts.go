package shaker

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/watch"
)

// verdicts are what is known of the addresses in one answer.
type verdicts struct {
	zone    zonePolicy
	request *dns.Msg
	shaker  *Shaker
	wait    *wait // nil as long as there is nothing to wait for
	// rejected is how many addresses found no room in the table, and so have no verdict.
	rejected int
	// observation is the one that the answer is made for, nil in those to clients: it has no effect.
	observation *observation
}

// Ask implements answer.Source. An address is not watched where it may not be probed, or the table of targets is full.
// What is overridden is still probed, so that there is a verdict when that ends.
func (v *verdicts) Ask(addr netip.Addr, port uint16) answer.Verdict {
	permitted := v.zone.mayProbe(addr)
	addr = addr.Unmap()
	rules := v.zone.overrides.Rules()
	if permitted && port == 0 && rules == nil && len(v.zone.ports) == 1 {
		// Most questions are such, and most answers.
		if t := v.target(addr, v.zone.ports[0], v.zone.idle); t != nil && t.State() == health.Up {
			return answer.Verdict{State: answer.Up, RTT: t.RTT()}
		} else if t == nil {
			v.rejected++
			return answer.Verdict{}
		}
	}
	return v.askAll(addr, port, permitted, rules)
}

// askAll is Ask for an address at several ports, or one where more than the target decides.
//
//go:noinline
func (v *verdicts) askAll(addr netip.Addr, port uint16, permitted bool, rules *override.Rules) answer.Verdict {
	verdict := v.look(addr, port, permitted, rules)
	// Where the address has a verdict, none of its ports could change it.
	if verdict.State != answer.Unknown || v.wait.isOver() {
		return verdict
	}
	pending := v.addPending(addr, port, rules)
	// What has come in since the first look is waited for by nobody, so it takes another one.
	verdict = v.look(addr, port, permitted, rules)
	if w := v.wait; pending > 0 && verdict.State != answer.Unknown {
		w.targets = w.targets[:len(w.targets)-pending]
	}
	return verdict
}

// look returns what is known of an address now.
func (v *verdicts) look(addr netip.Addr, port uint16, permitted bool, rules *override.Rules) answer.Verdict {
	var own [1]uint16
	var seen portStates
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
			return answer.Verdict{}
		}
		seen.add(decided, t)
	}
	return seen.verdict(v.zone.anyPort)
}

// addPending notes the targets of an address that may have their verdicts soon, and returns how many these are.
func (v *verdicts) addPending(addr netip.Addr, port uint16, rules *override.Rules) (pending int) {
	var own [1]uint16
	for _, port := range v.zone.portsOf(port, &own) {
		if rules.Of(addr, port) != override.Auto {
			continue
		}
		if t := v.target(addr, port, v.zone.idle); t != nil && t.Holds(v.zone.hold) {
			w := v.waits()
			w.targets = append(w.targets, t)
			pending++
		}
	}
	return pending
}

// resolve returns the addresses of a name, see [answer.Source]. Where they are about to be known, that is noted.
func (v *verdicts) resolve(ctx context.Context, qname string, rrtype uint16) (addrs []netip.Addr, known bool) {
	if v.observation != nil {
		addrs, _, known = v.observation.look(v.shaker, ctx, qname, rrtype)
		return addrs, known
	}
	addrs, known, ended := v.shaker.resolver.Get(ctx, qname, rrtype)
	if ended != nil && !v.wait.isOver() {
		w := v.waits()
		w.lookups = append(w.lookups, ended)
	}
	return addrs, known
}

// ttl returns that of the addresses that resolve has returned, in seconds.
func (v *verdicts) ttl(qname string, rrtype uint16) uint32 {
	if v.observation != nil {
		return v.observation.ttl(v.shaker, qname, rrtype)
	}
	return v.shaker.resolver.TTL(qname, rrtype)
}

// waits returns what to wait for.
func (v *verdicts) waits() *wait {
	if v.wait == nil {
		v.wait = new(wait)
	}
	return v.wait
}

// maxNamed bounds the names that targets are told. Those of hosts are shorter (RFC 1123, section 2.1). What is longer was
// made up by somebody, with most of its octets as \DDD, and would take up four times the memory.
const maxNamed = 255

// target has an address checked at a port, or what is probed instead, for at least keep from now on. It is nil where the
// table is full.
func (v *verdicts) target(addr netip.Addr, port uint16, keep time.Duration) *health.Target {
	answered := netip.AddrPortFrom(addr, port)
	if v.observation != nil {
		t, _ := v.find(answered)
		return t
	}
	t := v.shaker.instance.engine.monitor.Target(v.zone.detours.of(answered), v.zone.key(addr), keep)
	if t != nil && (v.zone.named || v.zone.detours.areThere()) {
		v.note(t, answered)
	}
	return t
}

// note tells a target what people know it by: the address and port that are answered, and the name, if there is a status
// page. It is apart because of the room it takes on the stack.
//
//go:noinline
func (v *verdicts) note(t *health.Target, answered netip.AddrPort) {
	if v.zone.named || t.Addr() != answered {
		t.AddAlias(answered)
	}
	if qname := v.request.Question[0].Name; v.zone.named && len(qname) <= maxNamed {
		t.AddName(qname)
	}
}

// portStates sums up what is known of an address at its ports.
type portStates struct {
	states [3]int // number of ports by health.State
	damped int    // of those that are down
	rtt    time.Duration
	// soonest and latest are within which time the ports that are unknown have their verdicts, as far as that can be told
	// of them, and told is of how many.
	soonest, latest time.Duration
	told            int
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
		if state == health.Unknown {
			within := t.Within()
			// It is nothing also where the verdict has just come in.
			if state = t.State(); state == health.Unknown {
				p.addWithin(within)
			}
		}
		p.states[state]++
		if state == health.Down && t.Damped() {
			p.damped++
		}
	}
}

// addWithin takes in within which time a port that is unknown has its verdict, 0 where nobody can tell.
func (p *portStates) addWithin(within time.Duration) {
	if within <= 0 {
		return
	}
	if p.told == 0 || within < p.soonest {
		p.soonest = within
	}
	p.latest = max(p.latest, within)
	p.told++
}

// within returns how long it takes at most until an address that is unknown, and silent, is down: the first port that is
// down decides about all, and the last one about any.
func (p *portStates) within(anyPort bool) time.Duration {
	switch {
	case !anyPort:
		return p.soonest
	case p.told == p.states[health.Unknown]:
		return p.latest
	default:
		return 0
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
		v.State, v.Within = answer.Unknown, p.within(anyPort)
	}
	// If the ports that are damped were up, the address would be, too.
	relieved := p.damped > 0 && (anyPort || p.damped == p.states[health.Down])
	v.Damped = v.State == answer.Down && relieved
	return v
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
	if !v.zone.mayProbe(addr) {
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

// Resolve implements answer.Source. What the look-up leads to is all to be found, so it waits.
func (v lookupVerdicts) Resolve(qname string, rrtype uint16) (addrs []netip.Addr, known bool) {
	addrs, known, ended := v.shaker.resolver.Get(v.lookup.ctx, qname, rrtype)
	if ended == nil {
		return addrs, known
	}
	select {
	case <-ended:
		addrs, known, _ = v.shaker.resolver.Get(v.lookup.ctx, qname, rrtype)
	case <-v.lookup.ctx.Done():
	}
	return addrs, known
}

// Standby implements answer.Source. Names that answers fall back to are looked up on their own.
func (v lookupVerdicts) Standby(string, uint16) (addrs []netip.Addr, ttl uint32) { return nil, 0 }

// Addr implements answer.Client.
func (v lookupVerdicts) Addr() netip.Addr { return netip.Addr{} }

// Settle implements answer.Source.
func (v lookupVerdicts) Settle() bool { return false }

// Room implements answer.Client.
func (v lookupVerdicts) Room() int { return dns.MaxMsgSize }

// filter returns what becomes of an answer within the look-up.
func (v lookupVerdicts) filter(m *dns.Msg) *dns.Msg {
	m, _ = answer.Filter(m, &answer.Query{Zone: v.zone.answers(), Request: v.request, Client: v}, v)
	return m
}

var _ watch.Target = (*health.Target)(nil)
