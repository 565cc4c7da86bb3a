package answer

import (
	"slices"

	"github.com/miekg/dns"
)

// askAhead asks for the verdicts on the addresses of an answer that is as most are, A or AAAA records without addresses
// beside them, for as long as nothing has to change: the addresses are up, or nobody watches them, and no TTL is too
// long. It reports whether that holds for all of them, so that the message can go as it is without being dissected, and
// how many there are. Otherwise the verdicts that it has are taken by [anatomy.ask].
//
// Signatures do not matter, nor do other records, since only what changes has any effect on them. The number of records
// is bounded, and so are the questions, and the text of the names: such a message cannot be excessive.
func (a *anatomy) askAhead(m *dns.Msg, p *Policy, source Source) (addresses int, stays bool) {
	if p.selects() || len(m.Answer)+len(m.Extra) > ordinary || slices.ContainsFunc(m.Extra, leads) {
		return 0, false
	}
	for _, rr := range m.Answer {
		h, addr, ok := address(rr)
		switch {
		case !ok && leads(rr), ok && h.Ttl > p.TTL:
			return 0, false
		case !ok:
			continue
		}
		v := source.Ask(addr, 0)
		a.ahead = append(a.ahead, v)
		if v.State != Up && v.State != Unwatched {
			return 0, false
		}
	}
	return len(a.ahead), true
}

// leads tells whether a record is of a type that leads to addresses.
func leads(rr dns.RR) bool {
	switch rr.(type) {
	case *dns.A, *dns.AAAA, *dns.SRV, *dns.SVCB, *dns.HTTPS:
		return true
	default:
		return false
	}
}

// verdictOn returns the verdict on the addresses of a pair at its ports.
func (a *anatomy) verdictOn(i int, source Source) Verdict {
	if i < len(a.ahead) {
		return a.ahead[i] // only addresses of the answer section have pairs before the first that was not asked for
	}
	pair := &a.pairs[i]
	v := source.Ask(pair.addr, pair.port)
	if pair.other != 0 {
		v = v.or(source.Ask(pair.addr, pair.other))
	}
	return v
}
