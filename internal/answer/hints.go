package answer

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// addHints appends the pairs of the addresses in an HTTPS or SVCB record. It has none where it leads to nothing that could
// be checked, but its TTL is that of its RRset all the same. It reports false where it is not such a record.
func (a *anatomy) addHints(rr *dns.SVCB) bool {
	if rr.Hdr.Class != dns.ClassINET || !isService(rr.Hdr.Rrtype) {
		return false
	}
	port, other := portsOf(rr, qnameOf(a.message))
	if port == 0 {
		return true
	}
	a.services = true
	for _, param := range rr.Value {
		for _, ip := range thinnable(rr, param) {
			if a.isExcessive() {
				return true
			}
			addr, _ := netip.AddrFromSlice(ip)
			if param.Key() == dns.SVCB_IPV4HINT {
				addr = addr.Unmap() // a net.IP has 16 octets for it, as often as not
			}
			a.addPair(pair{addr: addr, port: port, other: other, glue: none})
		}
	}
	return true
}

// qnameOf returns the name that was asked for.
func qnameOf(m *dns.Msg) string {
	if len(m.Question) == 0 {
		return ""
	}
	return m.Question[0].Name
}

// thinnable returns the addresses of a hint. It is nil where they cannot become fewer: where there are none,
// where one is malformed, and where they are all the same in a hint that may not become empty.
func thinnable(rr *dns.SVCB, param dns.SVCBKeyValue) []net.IP {
	ips := hintOf(param)
	varied := false
	for _, ip := range ips {
		if ip.To16() == nil {
			return nil
		}
		varied = varied || !ip.Equal(ips[0])
	}
	if !varied && len(ips) > 0 && isMandatory(rr, param.Key()) {
		return nil
	}
	return ips
}

// hintOf returns the addresses in a parameter.
func hintOf(param dns.SVCBKeyValue) []net.IP {
	switch param := param.(type) {
	case *dns.SVCBIPv4Hint:
		return param.Hint
	case *dns.SVCBIPv6Hint:
		return param.Hint
	default:
		return nil
	}
}

// isMandatory tells whether a record says that it cannot be used without the parameter (RFC 9460, section 8).
func isMandatory(rr *dns.SVCB, key dns.SVCBKey) bool {
	for _, param := range rr.Value {
		if m, ok := param.(*dns.SVCBMandatory); ok && slices.Contains(m.Code, key) {
			return true
		}
	}
	return false
}

// thinHints decides which addresses leave their hints: those that are down or have left the addresses of the same name,
// and those that are benched or not picked, unless none would be left in a hint that is mandatory. It reports whether
// there are any.
func (a *anatomy) thinHints(r *ranking) (goes bool) {
	if !a.services {
		return false
	}
	some := false
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		pairs := a.pairsOf(m.own)
		if !isService(s.rrtype) || s.fixed || len(pairs) == 0 {
			continue
		}
		a.markGone(targetOf(a.service(m)), pairs)
		for j := range pairs {
			pairs[j].leaves = pairs[j].leaves || pairs[j].down
			some = some || pairs[j].leaves
		}
	}
	if !some && !r.selects() {
		return false
	}
	if r.Tiers.Len() > 0 {
		a.benchHints(r.Policy)
	}
	if r.Pick > 0 {
		a.eachHint(func(_ line, _ bool, pairs []pair) { a.pickHints(r, pairs) })
	}
	a.eachHint(func(_ line, mandatory bool, pairs []pair) {
		if mandatory && !slices.ContainsFunc(pairs, isLeft) {
			for j := range pairs {
				pairs[j].leaves = false
			}
		}
		goes = goes || slices.ContainsFunc(pairs, hasLeft)
	})
	return goes
}

// eachHint tells of each hint that may lose addresses.
func (a *anatomy) eachHint(tell func(at line, mandatory bool, pairs []pair)) {
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		pairs := a.pairsOf(m.own)
		if !isService(s.rrtype) || s.fixed || len(pairs) == 0 {
			continue
		}
		rr := a.service(m)
		for _, param := range rr.Value {
			if n := len(thinnable(rr, param)); n > 0 {
				tell(lineFor(i, uint16(param.Key())), isMandatory(rr, param.Key()), pairs[:n])
				pairs = pairs[n:]
			}
		}
	}
}

// benchHints has the addresses leave that are in another tier than is served of their hint.
func (a *anatomy) benchHints(p *Policy) {
	a.tally.reset()
	a.eachHint(func(at line, _ bool, pairs []pair) {
		for j := range pairs {
			a.tally.count(at, p.Tiers.Of(pairs[j].addr), pairs[j].leaves)
		}
	})
	a.tally.serve(p)
	a.eachHint(func(at line, _ bool, pairs []pair) {
		tier, served := a.tally.tierOf(at)
		for j := range pairs {
			if pair := &pairs[j]; !pair.leaves && served && p.Tiers.Of(pair.addr) != tier {
				pair.leaves, pair.benched = true, true
			}
		}
	})
}

// pickHints has the addresses leave a hint that are not picked.
func (a *anatomy) pickHints(r *ranking, pairs []pair) {
	a.candidates = a.candidates[:0]
	for j := range pairs {
		if pair := &pairs[j]; !pair.leaves {
			a.candidates = append(a.candidates, ranked{rank{score: r.score(pair.addr, pair.verdict.RTT, true)}, j})
		}
	}
	for _, out := range r.pick(a.candidates) {
		pairs[out.of].leaves = true
	}
}

func hasLeft(p pair) bool { return p.leaves }

func isLeft(p pair) bool { return !p.leaves }

// record returns the record of a member.
func (a *anatomy) record(m *member) dns.RR {
	if m.extra {
		return a.message.Extra[m.index]
	}
	return a.message.Answer[m.index]
}

// service returns what HTTPS and SVCB records have in common.
func (a *anatomy) service(m *member) *dns.SVCB {
	rr := a.record(m)
	if https, ok := rr.(*dns.HTTPS); ok {
		return &https.SVCB
	}
	return rr.(*dns.SVCB)
}

// withoutHints returns rr, or a copy without the addresses of pairs that leave.
func withoutHints(rr dns.RR, pairs []pair) dns.RR {
	https, isHTTPS := rr.(*dns.HTTPS)
	var c dns.SVCB
	if isHTTPS {
		c = https.SVCB
	} else {
		c = *rr.(*dns.SVCB)
	}
	params := make([]dns.SVCBKeyValue, 0, len(c.Value))
	for _, param := range c.Value {
		var left []net.IP
		ips := thinnable(&c, param)
		for i, ip := range ips {
			if !pairs[i].leaves {
				left = append(left, ip)
			}
		}
		pairs = pairs[len(ips):]
		switch {
		case len(left) == len(ips):
			params = append(params, param)
		case len(left) == 0:
		case param.Key() == dns.SVCB_IPV4HINT:
			params = append(params, &dns.SVCBIPv4Hint{Hint: left})
		default:
			params = append(params, &dns.SVCBIPv6Hint{Hint: left})
		}
	}
	c.Value = params
	if isHTTPS {
		return &dns.HTTPS{SVCB: c}
	}
	return &c
}
