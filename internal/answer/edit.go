package answer

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// speaker is who explains itself to clients.
const speaker = "shaker"

// edit makes a new message out of one that must not be changed.
type edit struct {
	*anatomy
	request *dns.Msg
	zone    *Zone // by value, its strings would take the anatomy with them to the heap
	removed int
	outcome Outcome
}

// make returns the new message, and notes what was removed and the outcome.
func (e *edit) make() *dns.Msg {
	answer, left := e.answerSection()
	reason, fails := e.fallback()
	m := new(dns.Msg)
	*m = *e.message
	if e.removed > 0 {
		m.AuthenticatedData = false
	}
	switch {
	case left > 0:
		m.Answer = answer
		e.trim(m)
	case fails:
		m.Rcode, m.Authoritative = dns.RcodeServerFailure, false
		m.Answer, m.Ns, m.Extra = nil, nil, options(e.message)
	default:
		m.Answer, m.Ns, m.Extra = answer, []dns.RR{e.soa()}, options(e.message)
	}
	if reason != "" && e.request.IsEdns0() != nil {
		m.Extra = explain(m.Extra, reason)
	}
	return m
}

// trim takes addresses that SRV records do not need any more out of the additional section. That is not
// covered by AD (RFC 4035, section 3.2.3).
func (e *edit) trim(m *dns.Msg) {
	if !e.glue.goes() {
		return
	}
	extra, removed := e.glue.trim(m.Extra)
	m.Extra = extra
	e.remove(removed, Filtered)
}

// fallback tells where the fallback applied, in words for the client, and whether it is SERVFAIL.
func (e *edit) fallback() (reason string, fails bool) {
	for n := range e.sets {
		s := &e.sets[n]
		switch s.fate {
		case failed:
			fails = true
		case spared, replaced:
		default:
			continue
		}
		e.outcome = Substituted
		members := "addresses"
		if s.rrtype == dns.TypeSRV {
			members = "targets"
		}
		reason = fmt.Sprintf("%s: %d of %d %s of %s are down", speaker, s.down, s.size, members, e.index.keys[n].owner)
	}
	return reason, fails
}

// answerSection returns the new answer section, and how many records in it are not there for the sake of
// others.
func (e *edit) answerSection() (answer []dns.RR, left int) {
	e.sort()
	answer = make([]dns.RR, 0, len(e.message.Answer))
	members := e.members
	for i, rr := range e.message.Answer {
		if len(members) == 0 || members[0].index != i {
			if rr, goes := e.other(rr); !goes {
				answer = append(answer, rr)
				left += weight(rr)
			}
			continue
		}
		m := &members[0]
		members = members[1:]
		s := &e.sets[m.set]
		switch {
		case s.fate == replaced:
			e.remove(1, Substituted)
			if !s.placed {
				s.placed = true
				before := len(answer)
				answer = e.zone.Fallback.appendRecords(answer, rr.Header(), e.zone.TTL)
				left += len(answer) - before
			}
			continue
		case !s.remains(m):
			e.remove(1, Filtered)
			continue
		case s.sorts:
			rr, s.order = e.message.Answer[e.members[s.order[0]].index], s.order[1:]
		case hasHints(s.rrtype):
			var removed int
			if rr, removed = withoutHints(rr, e.pairs[m.from:m.to]); removed > 0 {
				e.remove(removed, Filtered)
			}
		}
		answer = append(answer, e.capped(rr, s.watched))
		left++
	}
	return answer, left
}

// weight is 0 for records that make no answer by themselves, 1 for all others.
func weight(rr dns.RR) int {
	switch rr.(type) {
	case *dns.CNAME, *dns.DNAME, *dns.RRSIG:
		return 0
	default:
		return 1
	}
}

func (e *edit) remove(n int, o Outcome) {
	e.removed += n
	e.outcome = max(e.outcome, o)
}

// sort finds the new order of the RRsets that are to be sorted.
func (e *edit) sort() {
	for i := range e.members {
		m := &e.members[i]
		if s := &e.sets[m.set]; s.sorts && s.remains(m) {
			s.order = append(s.order, i)
		}
	}
	for n := range e.sets {
		s := &e.sets[n]
		if s.fate == sorted {
			e.outcome = max(e.outcome, Reordered)
		}
		slices.SortStableFunc(s.order, func(i, j int) int { return cmp.Compare(e.members[i].rank, e.members[j].rank) })
	}
}

// other returns a record that no verdict is about, and whether it goes. The TTL of a signature follows that
// of the RRset it covers (RFC 4034, section 3); validation goes by the original TTL inside it. Without its
// RRset, it goes.
func (e *edit) other(rr dns.RR) (_ dns.RR, goes bool) {
	sig, ok := rr.(*dns.RRSIG)
	if !ok {
		return rr, false
	}
	n, found := e.index.find(sig.Hdr.Name, sig.TypeCovered)
	if !found {
		return rr, false
	}
	s := &e.sets[n]
	return e.capped(rr, s.watched), s.fate == failed
}

// capped returns rr, or a copy with a shorter TTL if rr is watched and its TTL too long.
func (e *edit) capped(rr dns.RR, watched bool) dns.RR {
	if !watched || rr.Header().Ttl <= e.zone.TTL {
		return rr
	}
	switch rr := rr.(type) {
	case *dns.A:
		c := *rr
		c.Hdr.Ttl = e.zone.TTL
		return &c
	case *dns.AAAA:
		c := *rr
		c.Hdr.Ttl = e.zone.TTL
		return &c
	default:
		c := dns.Copy(rr)
		c.Header().Ttl = e.zone.TTL
		return c
	}
}

// appendRecords appends a record for each fallback address of the type of h.
func (f Fallback) appendRecords(answer []dns.RR, h *dns.RR_Header, ttl uint32) []dns.RR {
	header := *h
	header.Ttl = min(h.Ttl, ttl)
	header.Rdlength = 0
	for _, addr := range f.Addresses {
		switch {
		case h.Rrtype == dns.TypeA && addr.Is4():
			answer = append(answer, &dns.A{Hdr: header, A: addr.AsSlice()})
		case h.Rrtype == dns.TypeAAAA && addr.Is6():
			answer = append(answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	}
	return answer
}

// soa returns the authority section of a NODATA answer: a SOA, and nothing else, since an NS record
// there would make it a referral (RFC 2308, section 2.2). Both of its TTLs bound how long the answer is
// cached (section 5).
func (e *edit) soa() dns.RR {
	for _, rr := range e.message.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			c := *soa
			c.Hdr.Ttl = min(c.Hdr.Ttl, e.zone.TTL)
			c.Minttl = min(c.Minttl, e.zone.TTL)
			return &c
		}
	}
	apex := e.apex()
	host := func(label string) string {
		if apex == "." {
			return label + "."
		}
		if host := label + "." + apex; isName(host) {
			return host
		}
		return "."
	}
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: e.zone.TTL},
		Ns:      host("ns"),
		Mbox:    host("hostmaster"),
		Serial:  1,
		Refresh: 7200, Retry: 1800, Expire: 86400,
		Minttl: e.zone.TTL,
	}
}

// isName tells whether a name fits into the 255 octets that it may have (RFC 1035, section 2.3.4).
func isName(s string) bool {
	var wire [255]byte
	_, err := dns.PackDomainName(s, wire[:], 0, nil, false)
	return err == nil
}

// apex returns the zone that the emptied name is in, as far as anybody can tell from here: that of the
// NS records beside the answer, else that of the stanza, else the name itself.
func (e *edit) apex() string {
	owner := e.index.keys[len(e.sets)-1].owner // the end of a CNAME chain
	for _, rr := range e.message.Ns {
		if ns, ok := rr.(*dns.NS); ok && dns.IsSubDomain(ns.Hdr.Name, owner) {
			return ns.Hdr.Name
		}
	}
	if zone := e.zone.Name; zone != "." && dns.IsSubDomain(zone, owner) {
		return zone
	}
	return owner
}

// options returns the OPT record of m, which is all that is left of the additional section when an
// answer is taken away.
func options(m *dns.Msg) []dns.RR {
	if opt := m.IsEdns0(); opt != nil {
		return []dns.RR{opt}
	}
	return nil
}

// explain returns extra with an Extended DNS Error (RFC 8914) in its OPT record.
func explain(extra []dns.RR, reason string) []dns.RR {
	ede := &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: reason}
	extra = slices.Clone(extra)
	for i, rr := range extra {
		if opt, ok := rr.(*dns.OPT); ok {
			c := *opt
			c.Option = append(slices.Clone(opt.Option), ede)
			extra[i] = &c
			return extra
		}
	}
	// The server sets size and flags to fit the request.
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{ede}}
	return append(extra, opt)
}
