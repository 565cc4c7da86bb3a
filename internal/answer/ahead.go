package answer

import (
	"slices"

	"github.com/miekg/dns"
)

// askAhead asks for the verdicts on the addresses of an answer that is as most are, A or AAAA records without addresses
// beside them, for as long as nothing follows from them but TTLs: the addresses are up, or nobody watches them. Where that
// holds for all of them, it returns what becomes of the message, which is not dissected for that. Else it returns nil. It
// also returns the verdicts that it has, appended to have: one for each address, or those on the first ones, which
// [anatomy.ask] takes then.
//
// The number of records is bounded, and so are the questions and the text of the names: such a message is not excessive.
func askAhead(m *dns.Msg, p *Policy, source Source, have []Verdict) (*dns.Msg, []Verdict) {
	if p.selects() || len(m.Answer) > cap(have) || len(m.Extra) > ordinary || slices.ContainsFunc(m.Extra, leads) {
		return nil, have
	}
	exceeds, watched, signed := false, true, false
	for _, rr := range m.Answer {
		h, addr, ok := address(rr)
		if !ok {
			if leads(rr) {
				return nil, have
			}
			_, isSignature := rr.(*dns.RRSIG)
			signed = signed || isSignature
			continue
		}
		v := source.Ask(addr, 0)
		have = append(have, v)
		if v.State != Up && v.State != Unwatched {
			return nil, have
		}
		exceeds, watched = exceeds || h.Ttl > p.TTL, watched && v.State == Up
	}
	switch {
	case !exceeds:
		return m, have
	case watched && !signed:
		return withTTL(m, p.TTL), have
	default: // TTLs depend on the RRset, or signatures on TTLs
		return nil, have
	}
}

// withTTL returns a message with copies of the address records in the answer whose TTL is too long.
func withTTL(m *dns.Msg, limit uint32) *dns.Msg {
	c := new(dns.Msg)
	*c = *m
	c.Answer = slices.Clone(m.Answer)
	to := copiesFor(m)
	for i, rr := range c.Answer {
		if _, _, ok := address(rr); ok {
			c.Answer[i] = to.capped(rr, limit)
		}
	}
	return c
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
