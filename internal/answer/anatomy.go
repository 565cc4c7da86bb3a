package answer

import (
	"net/netip"
	"sync"

	"github.com/miekg/dns"
)

// anatomies are used again and again. On the stack they would make those of the goroutines that serve
// queries grow, which costs more than all the rest.
var anatomies = sync.Pool{New: func() any { return new(anatomy) }}

// release forgets the answer, and keeps the space for the next one if it is not out of the ordinary.
func (a *anatomy) release() {
	const ordinary = 256
	if max(cap(a.members), cap(a.pairs), cap(a.glue.records)) > ordinary {
		return
	}
	clear(a.sets)
	clear(a.pairs)
	a.index.reset()
	a.glue.reset()
	*a = anatomy{index: a.index, sets: a.sets[:0], members: a.members[:0], pairs: a.pairs[:0], glue: a.glue}
	anatomies.Put(a)
}

// anatomy is the records of an answer that a verdict may change, sorted by RRset.
type anatomy struct {
	message *dns.Msg
	index   rrsetIndex // of sets
	sets    []rrset
	members []member // in the order of the answer
	pairs   []pair   // in the order of the members
	glue    glue     // of SRV records, where there are any
	signed  bool     // there are signatures
	hinted  bool     // there are records that may have hints
}

// member is a record of the answer.
type member struct {
	index    int // in the answer
	set      int // in anatomy.sets
	from, to int // its pairs
	down     bool
	rank     uint32
}

// pair is an address of a record, and the port it is used on.
type pair struct {
	addr   netip.Addr
	port   uint16 // 0 for the ports of the policy
	glue   int    // of an SRV record: where the address is in glue.records
	down   bool
	damped bool
}

// rrset is the members of one owner and type.
type rrset struct {
	rrtype  uint16
	first   pair
	varied  bool // its members are not all at one address and port
	watched bool // at least one address has a state
	signed  bool // by an RRSIG in the answer
	size    int
	down    int
	rank    uint32 // of the member that was looked at last
	mixed   bool   // its members are not in the order of their ranks
	fate    fate
	sorts   bool  // the members that remain are put in the order of their ranks
	order   []int // of an RRset that sorts: indexes into anatomy.members
	placed  bool  // of a replaced RRset: the addresses in its place are in the new answer
}

// fate is what happens to an RRset.
type fate uint8

const (
	stays    fate = iota
	thinned       // those that are down go
	sorted        // nothing goes, but the order changes
	replaced      // the fallback's addresses, if any, take its place
	failed        // they go, and the answer becomes SERVFAIL if nothing else is in it
	spared        // the fallback leaves it as it is
)

// remains tells whether a member of the RRset is in the new answer.
func (s *rrset) remains(m *member) bool {
	return s.fate != failed && s.fate != replaced && !(s.fate == thinned && m.down)
}

// dissect sorts the records of an answer. It stops at more than maxPairs.
func (a *anatomy) dissect(m *dns.Msg) {
	a.message = m
	for i, rr := range m.Answer {
		from := len(a.pairs)
		h := a.pair(rr)
		if h == nil {
			continue
		}
		to := len(a.pairs)
		if to > maxPairs {
			return
		}
		n, found := a.index.find(h.Name, h.Rrtype)
		if !found {
			n = a.index.add(h.Name, h.Rrtype)
			a.sets = append(a.sets, rrset{rrtype: h.Rrtype})
		}
		a.sets[n].extend(a.pairs[from:to])
		a.members = append(a.members, member{index: i, set: n, from: from, to: to})
	}
	if a.signed {
		a.index.eachSigned(m.Answer, func(n int) { a.sets[n].signed = true })
	}
}

// extend adds a member with these pairs.
func (s *rrset) extend(pairs []pair) {
	var none [1]pair // of a record whose addresses are not known
	if len(pairs) == 0 {
		pairs = none[:]
	}
	if s.size == 0 {
		s.first = pairs[0]
	}
	s.size++
	for i := range pairs {
		p := &pairs[i]
		s.varied = s.varied || p.addr != s.first.addr || p.port != s.first.port
	}
}

// pair appends the pairs of a record. It returns its header, or nil if a verdict cannot change it.
func (a *anatomy) pair(rr dns.RR) *dns.RR_Header {
	switch rr := rr.(type) {
	case *dns.A, *dns.AAAA:
		if h, addr, ok := address(rr); ok {
			a.pairs = append(a.pairs, pair{addr: addr})
			return h
		}
	case *dns.SRV:
		if isChecked(rr) {
			a.pairService(rr)
			return &rr.Hdr
		}
	case *dns.SVCB:
		if isService(rr) {
			a.pairHints(rr)
			return &rr.Hdr
		}
	case *dns.HTTPS:
		if isService(&rr.SVCB) {
			a.pairHints(&rr.SVCB)
			return &rr.Hdr
		}
	case *dns.RRSIG:
		a.signed = true
	}
	return nil
}

// address returns the header and the address of a record, if it is one that has an address.
func address(rr dns.RR) (h *dns.RR_Header, addr netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		h = &rr.Hdr
		addr, ok = netip.AddrFromSlice(rr.A)
		addr = addr.Unmap()
	case *dns.AAAA:
		h = &rr.Hdr
		addr, ok = netip.AddrFromSlice(rr.AAAA)
	}
	return h, addr, ok && h.Class == dns.ClassINET && isAddress(h.Rrtype)
}
