package answer

import (
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
	copies
	query   Query
	removed int  // addresses, because they are down
	left    bool // addresses have, for whatever reason
	outcome Outcome
	invalid bool // a signature would be needed that nobody can make
}

// make returns the new message, and notes what was removed and the outcome.
func (e *edit) make() *dns.Msg {
	if e.signed {
		e.findAltered()
	}
	seals := seals{edit: e}
	answer, left := e.answerSection(&seals)
	reason, fails := e.fallback()
	m := new(dns.Msg)
	*m = *e.message
	if e.left {
		m.AuthenticatedData = false
	}
	switch {
	case left > 0 || !e.empties():
		m.Answer, m.Extra = answer, e.extraSection()
	case fails:
		e.emptied = true
		m.Rcode, m.Authoritative = dns.RcodeServerFailure, false
		m.Answer, m.Ns, m.Extra = nil, nil, options(e.message)
	default:
		e.emptied = true
		m.Answer, m.Ns, m.Extra = answer, seals.denial(), options(e.message)
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
		if f := e.sets[n].fate; f.fell() {
			last, fails = n, fails || f == failed
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
func (e *edit) answerSection(seals *seals) (answer []dns.RR, left int) {
	for n := range e.sets {
		if s := &e.sets[n]; s.reordered {
			e.outcome = max(e.outcome, Reordered)
		}
	}
	answer = make([]dns.RR, 0, len(e.message.Answer))
	members := e.members
	for i, rr := range e.message.Answer {
		if len(members) == 0 || members[0].index != i || members[0].extra {
			if rr, goes := seals.other(rr); !goes {
				answer = append(answer, rr)
				left += weight(rr)
				seals.noteOther(answer)
			}
			continue
		}
		m := &members[0]
		members = members[1:]
		s := &e.sets[m.set]
		before := len(answer)
		switch {
		case s.fate == replaced && !s.placed:
			s.placed = true
			answer = s.appendRecords(answer, rr.Header(), &e.copies)
		case s.remains(m):
			if s.arranges {
				rr, s.order.from = e.message.Answer[e.members[e.order[s.order.from].of].index], s.order.from+1
			}
			answer = append(answer, e.remaining(rr, m))
		}
		if !s.remains(m) {
			e.lose(1, s.isLoss(m))
		}
		left += len(answer) - before
		seals.note(m.set, answer[before:], len(answer))
	}
	return seals.sealed(answer), left
}

// lose notes that so many addresses leave, because they are down or for another reason.
func (e *edit) lose(n int, loss bool) {
	e.left = true
	if !loss {
		e.outcome = max(e.outcome, Selected)
		return
	}
	e.removed += n
	e.outcome = max(e.outcome, Filtered)
}

// remaining returns what is left of a record in the place of a member.
func (e *edit) remaining(rr dns.RR, m *member) dns.RR {
	s, pairs := &e.sets[m.set], e.pairsOf(m.own)
	if !isService(s.rrtype) || !slices.ContainsFunc(pairs, hasLeft) {
		return e.capped(rr, s.limit)
	}
	for i := range pairs {
		if pairs[i].leaves {
			e.lose(1, pairs[i].down)
		}
	}
	rr = withoutHints(rr, pairs)
	h := rr.Header()
	h.Ttl = min(h.Ttl, s.limit) // it is a copy already
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

func (e *edit) policy() *Policy { return e.query.Zone.Policy }

// extraSection returns the additional section without what nobody should use any more, and with the TTLs of what is
// watched. It is not covered by AD (RFC 4035, section 3.2.3).
func (e *edit) extraSection() []dns.RR {
	if n := len(e.members); len(e.glue.records) == 0 && !e.members[n-1].extra {
		return e.message.Extra
	}
	extra := make([]dns.RR, 0, len(e.message.Extra))
	seals := seals{edit: e, extra: true}
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
				e.lose(1, r.loss)
				continue
			}
			extra = append(extra, e.capped(rr, e.glue.sets[r.set].limit))
			seals.note(len(e.sets)+r.set, extra[len(extra)-1:], len(extra))
		case len(members) > 0 && members[0].index == i:
			m := &members[0]
			members = members[1:]
			extra = append(extra, e.remaining(rr, m))
			seals.note(m.set, extra[len(extra)-1:], len(extra))
		default:
			if rr, goes := seals.other(rr); !goes {
				extra = append(extra, rr)
				seals.noteOther(extra)
			}
		}
	}
	return seals.sealed(extra)
}

// copies are room for address records, since many at once cost little more than one.
type copies struct {
	a      []dns.A
	aaaa   []dns.AAAA
	octets []byte // of addresses
	size   int    // of the room to make, in records
}

// maxCopies bounds the size of copies. Somebody may keep a single one of them.
const maxCopies = 16

func copiesFor(m *dns.Msg) copies { return copies{size: min(len(m.Answer)+len(m.Extra), maxCopies)} }

// take cuts n things off the front of some, of which it makes size if there are not enough.
func take[T any](from *[]T, n, size int) []T {
	if len(*from) < n {
		*from = make([]T, max(n, size))
	}
	taken := (*from)[:n:n]
	*from = (*from)[n:]
	return taken
}

// capped returns rr, or a copy with a shorter TTL if its own is too long.
func (to *copies) capped(rr dns.RR, limit uint32) dns.RR {
	if rr.Header().Ttl <= limit {
		return rr
	}
	switch rr := rr.(type) {
	case *dns.A:
		c := take(&to.a, 1, to.size)
		c[0] = *rr
		c[0].Hdr.Ttl = limit
		return &c[0]
	case *dns.AAAA:
		c := take(&to.aaaa, 1, to.size)
		c[0] = *rr
		c[0].Hdr.Ttl = limit
		return &c[0]
	default:
		c := dns.Copy(rr)
		c.Header().Ttl = limit
		return c
	}
}

// appendRecords appends a record for each address that takes the place of those of the RRset, one of whose records has
// the header h.
func (s *rrset) appendRecords(answer []dns.RR, h *dns.RR_Header, to *copies) []dns.RR {
	header := *h
	header.Ttl = min(h.Ttl, s.ttl)
	header.Rdlength = 0
	for _, addr := range s.instead {
		n := addr.BitLen() / 8
		octets := take(&to.octets, n, n*to.size)
		if addr.Is4() {
			*(*[4]byte)(octets) = addr.As4()
			rr := take(&to.a, 1, to.size)
			rr[0] = dns.A{Hdr: header, A: octets}
			answer = append(answer, &rr[0])
		} else {
			*(*[16]byte)(octets) = addr.As16()
			rr := take(&to.aaaa, 1, to.size)
			rr[0] = dns.AAAA{Hdr: header, AAAA: octets}
			answer = append(answer, &rr[0])
		}
	}
	return answer
}

// soa returns the record for the authority section of a NODATA answer, in which no NS record may be, since that would make
// it a referral (RFC 2308, section 2.2). Both of its TTLs bound how long the answer is cached (section 5). It is that of
// the zone whose signatures the answer had, if there is one.
func (e *edit) soa(zone string) *dns.SOA {
	for _, rr := range e.message.Ns {
		if soa, ok := rr.(*dns.SOA); ok && (zone == "" || sameName(soa.Hdr.Name, zone)) {
			c := *soa
			c.Hdr.Ttl = min(c.Hdr.Ttl, e.policy().TTL)
			c.Minttl = min(c.Minttl, e.policy().TTL)
			return &c
		}
	}
	apex := zone
	if apex == "" {
		apex = e.apex()
	}
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
