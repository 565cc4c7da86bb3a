package answer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// speaker is who explains itself to clients.
const speaker = "shaker"

// edit makes a new message out of one that must not be changed.
type edit struct {
	*anatomy
	query   *Query
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
	case left > 0 || !e.empties():
		m.Answer, m.Extra = answer, e.extraSection()
	case fails:
		m.Rcode, m.Authoritative = dns.RcodeServerFailure, false
		m.Answer, m.Ns, m.Extra = nil, nil, options(e.message)
	default:
		m.Answer, m.Ns, m.Extra = answer, []dns.RR{e.soa()}, options(e.message)
	}
	if reason != "" && e.query.Request.IsEdns0() != nil {
		e.explain(m, reason)
	}
	return m
}

// empties tells whether the fallback takes RRsets away. An answer of aliases alone is not for it to touch.
func (e *edit) empties() bool {
	return slices.ContainsFunc(e.sets, func(s rrset) bool { return s.fate == replaced || s.fate == failed })
}

// fallback tells where the fallback applied, in words for the client, and whether it is SERVFAIL. Of several RRsets it
// tells of the last, which is at the end of the CNAME chain.
func (e *edit) fallback() (reason string, fails bool) {
	last := none
	for n := range e.sets {
		switch e.sets[n].fate {
		case failed:
			fails, last = true, n
		case spared, replaced:
			last = n
		}
	}
	if last == none {
		return "", false
	}
	e.outcome = Substituted
	s := &e.sets[last]
	members := "addresses"
	if s.rrtype == dns.TypeSRV {
		members = "targets"
	}
	return fmt.Sprintf("%s: %d of %d %s of %s are down", speaker, s.down, s.size, members, e.index.keys[last].owner), fails
}

// answerSection returns the new answer section, and how many records in it are not there for the sake of
// others.
func (e *edit) answerSection() (answer []dns.RR, left int) {
	e.sort()
	answer = make([]dns.RR, 0, len(e.message.Answer))
	members := e.members
	for i, rr := range e.message.Answer {
		if len(members) == 0 || members[0].index != i || members[0].extra {
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
				answer = e.policy().Fallback.appendRecords(answer, rr.Header(), e.policy().TTL)
				left += len(answer) - before
			}
			continue
		case !s.remains(m):
			e.remove(1, Filtered)
			continue
		case s.sorts:
			rr, s.order = e.message.Answer[e.members[s.order[0]].index], s.order[1:]
		}
		answer = append(answer, e.remaining(rr, m))
		left++
	}
	return answer, left
}

// remaining returns what is left of a record in the place of a member.
func (e *edit) remaining(rr dns.RR, m *member) dns.RR {
	s := &e.sets[m.set]
	if !isService(s.rrtype) {
		return e.capped(rr, s.watched)
	}
	rr, removed := withoutHints(rr, e.pairsOf(m.own))
	if removed == 0 {
		return e.capped(rr, s.watched)
	}
	e.remove(removed, Filtered)
	if h := rr.Header(); s.watched {
		h.Ttl = min(h.Ttl, e.policy().TTL) // it is a copy already
	}
	return rr
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

func (e *edit) policy() *Policy { return e.query.Zone.Policy }

// extraSection returns the additional section without what nobody should use any more, and with the TTLs of what is
// watched. It is not covered by AD (RFC 4035, section 3.2.3).
func (e *edit) extraSection() []dns.RR {
	if n := len(e.members); len(e.glue.records) == 0 && !e.members[n-1].extra {
		return e.message.Extra
	}
	extra := make([]dns.RR, 0, len(e.message.Extra))
	members := e.members
	for len(members) > 0 && !members[0].extra {
		members = members[1:]
	}
	glue := e.glue.records
	for i, rr := range e.message.Extra {
		switch {
		case len(glue) > 0 && glue[0].index == i:
			r := &glue[0]
			glue = glue[1:]
			if r.goes {
				e.remove(1, Filtered)
				continue
			}
			rr = e.capped(rr, e.isWatched(r.set))
		case len(members) > 0 && members[0].index == i:
			m := &members[0]
			members = members[1:]
			rr = e.remaining(rr, m)
		default:
			rr = e.cappedSignature(rr)
		}
		extra = append(extra, rr)
	}
	return extra
}

// cappedSignature returns rr with the TTL of the RRset in the additional section that it is the signature of, if it is
// one.
func (e *edit) cappedSignature(rr dns.RR) dns.RR {
	sig, ok := rr.(*dns.RRSIG)
	if !ok {
		return rr
	}
	if n, found := e.glue.index.find(sig.Hdr.Name, sig.TypeCovered); found {
		return e.capped(rr, e.isWatched(n))
	}
	n, found := e.index.find(sig.Hdr.Name, sig.TypeCovered)
	return e.capped(rr, found && e.sets[n].extra && e.sets[n].watched)
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
	if !found || n >= e.answered {
		return rr, false
	}
	s := &e.sets[n]
	return e.capped(rr, s.watched), s.fate == failed
}

// capped returns rr, or a copy with a shorter TTL if rr is watched and its TTL too long.
func (e *edit) capped(rr dns.RR, watched bool) dns.RR {
	if !watched || rr.Header().Ttl <= e.policy().TTL {
		return rr
	}
	switch rr := rr.(type) {
	case *dns.A:
		c := *rr
		c.Hdr.Ttl = e.policy().TTL
		return &c
	case *dns.AAAA:
		c := *rr
		c.Hdr.Ttl = e.policy().TTL
		return &c
	default:
		c := dns.Copy(rr)
		c.Header().Ttl = e.policy().TTL
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
			c.Hdr.Ttl = min(c.Hdr.Ttl, e.policy().TTL)
			c.Minttl = min(c.Minttl, e.policy().TTL)
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
		Hdr:     dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: e.policy().TTL},
		Ns:      host("ns"),
		Mbox:    host("hostmaster"),
		Serial:  1,
		Refresh: 7200, Retry: 1800, Expire: 86400,
		Minttl: e.policy().TTL,
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
	owner := e.index.keys[e.answered-1].owner // the end of a CNAME chain
	for _, rr := range e.message.Ns {
		if ns, ok := rr.(*dns.NS); ok && isWithin(owner, ns.Hdr.Name) {
			return ns.Hdr.Name
		}
	}
	if zone := e.query.Zone.Name; zone != "." && dns.IsSubDomain(zone, owner) {
		return zone
	}
	return owner
}

// isWithin tells whether a name is that of the zone, or ends with it. It looks at no more than it has to: who answers with
// thousands of names of servers wants us to take them to pieces.
func isWithin(owner, zone string) bool {
	before := len(owner) - len(zone)
	if before <= 0 || zone == "." {
		return zone == "." || sameName(owner, zone)
	}
	if owner[before-1] != '.' || !sameName(owner[before:], zone) {
		return false
	}
	label := strings.TrimRight(owner[:before-1], `\`)
	return (before-1-len(label))%2 == 0 // the dot is no part of a label
}

// options returns the OPT record of m, which is all that is left of the additional section when an
// answer is taken away.
func options(m *dns.Msg) []dns.RR {
	if opt := m.IsEdns0(); opt != nil {
		return []dns.RR{opt}
	}
	return nil
}

// maxMeasured is the number of records from which on nobody measures whether an error fits beside them.
const maxMeasured = 1024

// Octets of an OPT record, and of an Extended DNS Error in it, without options and text (RFC 6891, section 6.1.2; RFC 8914,
// section 2).
const (
	optSize = 11
	edeSize = 6
)

// explain adds an Extended DNS Error to a new message, unless it would not fit: it is the first to go where room is short
// (RFC 8914, section 3). Without its text it may fit.
func (e *edit) explain(m *dns.Msg, reason string) {
	if len(m.Answer)+len(m.Ns)+len(m.Extra) > maxMeasured {
		return
	}
	shortest := *m
	shortest.Compress = true // as it will be where it is too long otherwise
	room := e.query.Client.Room() - shortest.Len() - edeSize
	if m.IsEdns0() == nil {
		room -= optSize
	}
	switch {
	case room < 0:
		return
	case room < len(reason):
		reason = ""
	}
	m.Extra = withOption(m.Extra, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: reason})
}

// withOption returns the records of an additional section with an option in its OPT record.
func withOption(extra []dns.RR, option dns.EDNS0) []dns.RR {
	extra = slices.Clone(extra)
	for i, rr := range slices.Backward(extra) { // as IsEdns0 looks for it
		if opt, ok := rr.(*dns.OPT); ok {
			c := *opt
			c.Option = append(slices.Clone(opt.Option), option)
			extra[i] = &c
			return extra
		}
	}
	// The server sets size and flags to fit the request.
	return append(extra, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{option}})
}
