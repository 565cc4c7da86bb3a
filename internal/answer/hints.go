package answer

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// httpsPort is where a service is whose record names no port (RFC 9460, section 9.1). It is that of HTTPS;
// what SVCB records are used for may have another, which they do not tell.
const httpsPort = 443

func hasHints(rrtype uint16) bool { return rrtype == dns.TypeHTTPS || rrtype == dns.TypeSVCB }

// isService tells whether a record is in ServiceMode and may thus have hints (RFC 9460, section 2.4.3).
func isService(rr *dns.SVCB) bool {
	return rr.Hdr.Class == dns.ClassINET && hasHints(rr.Hdr.Rrtype) && rr.Priority > 0
}

// pairHints appends the pairs of an HTTPS or SVCB record.
func (a *anatomy) pairHints(rr *dns.SVCB) {
	port := uint16(httpsPort)
	for _, param := range rr.Value {
		if p, ok := param.(*dns.SVCBPort); ok {
			port = p.Port
		}
	}
	if port == 0 {
		return
	}
	a.hinted = true
	for _, param := range rr.Value {
		for _, ip := range thinnable(rr, param) {
			if len(a.pairs) > maxPairs {
				return
			}
			addr, _ := netip.AddrFromSlice(ip)
			a.pairs = append(a.pairs, pair{addr: addr.Unmap(), port: port})
		}
	}
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

// thinHints decides which addresses leave their hints: those that are down, unless none would be left in a
// hint that is mandatory. It reports whether there are any.
func (a *anatomy) thinHints() (goes bool) {
	if !a.hinted {
		return false
	}
	for i := range a.members {
		m := &a.members[i]
		pairs := a.pairs[m.from:m.to]
		if !hasHints(a.sets[m.set].rrtype) || !slices.ContainsFunc(pairs, isDown) {
			continue
		}
		rr := service(a.message.Answer[m.index])
		for _, param := range rr.Value {
			n := len(thinnable(rr, param))
			if !slices.ContainsFunc(pairs[:n], isUp) && n > 0 && isMandatory(rr, param.Key()) {
				for j := range pairs[:n] {
					pairs[j].down = false
				}
			}
			goes = goes || slices.ContainsFunc(pairs[:n], isDown)
			pairs = pairs[n:]
		}
	}
	return goes
}

func isDown(p pair) bool { return p.down }

func isUp(p pair) bool { return !p.down }

// service returns what HTTPS and SVCB records have in common.
func service(rr dns.RR) *dns.SVCB {
	if https, ok := rr.(*dns.HTTPS); ok {
		return &https.SVCB
	}
	return rr.(*dns.SVCB)
}

// withoutHints returns rr, or a copy without the addresses of pairs that are down, and their number.
func withoutHints(rr dns.RR, pairs []pair) (_ dns.RR, removed int) {
	if !slices.ContainsFunc(pairs, isDown) {
		return rr, 0
	}
	c := *service(rr)
	params := make([]dns.SVCBKeyValue, 0, len(c.Value))
	for _, param := range c.Value {
		var left []net.IP
		ips := thinnable(&c, param)
		for i, ip := range ips {
			if !pairs[i].down {
				left = append(left, ip)
			}
		}
		pairs = pairs[len(ips):]
		removed += len(ips) - len(left)
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
	if _, ok := rr.(*dns.HTTPS); ok {
		return &dns.HTTPS{SVCB: c}, removed
	}
	return &c, removed
}
