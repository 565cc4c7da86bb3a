package shaker

import (
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// stateSource tells what is known of addresses. settle may be called once all addresses have been asked
// for; where it returns true they have to be asked for again.
type stateSource interface {
	// of tells of an address at one port, or at those of the policy where port is 0.
	of(addr netip.Addr, port uint16) verdict
	settle() bool
}

// verdict is what is known of an address. The zero value is that of one that is not watched.
type verdict struct {
	watched bool
	state   health.State
	damped  bool          // down only because it went down too often, see [health.Target.Damped]
	rtt     time.Duration // 0 where none is known
}

func (v verdict) down() bool { return v.watched && v.state == health.Down }

// rank returns the address's place among others; the smaller goes first. Round trips count by whole
// milliseconds: what is below them is noise, and would have addresses change places all the time.
func (v verdict) rank(p *policy) uint32 {
	switch {
	case v.down():
		return lastRank
	case !p.sortRTT:
		return 0
	case v.rtt == 0:
		return lastRank - 1
	default:
		return uint32(min(v.rtt.Milliseconds(), lastRank-2))
	}
}

// lastRank is that of what is down.
const lastRank = math.MaxUint32

// filterResult says what a filter did.
type filterResult struct {
	addresses int // that a verdict could be had on, once for each port
	removed   int
	outcome   outcome
}

// maxPairs is the number of addresses and ports from which on a message passes as it is. A message of
// 64 KB has room for a few thousand addresses, and for millions of pairs if SRV records share targets.
const maxPairs = 4096

// filter returns the message to send in place of m, the answer to request: m itself where nothing has
// to change, and otherwise a new message. What m refers to is never changed, since the plugins below
// may hold on to it.
func filter(m, request *dns.Msg, zone zonePolicy, states stateSource) (*dns.Msg, filterResult) {
	a := anatomies.Get().(*anatomy)
	defer a.release()
	a.dissect(m)
	result := filterResult{addresses: len(a.pairs)}
	if len(a.pairs) == 0 || len(a.pairs) > maxPairs {
		return m, result
	}
	a.ask(zone.policy, states)
	if states.settle() {
		a.ask(zone.policy, states)
	}
	changed := a.decide(zone.policy)
	if !changed && !a.exceeds(zone.ttl) {
		return m, result
	}
	e := edit{anatomy: a, request: request, zone: &zone}
	m = e.make()
	result.removed, result.outcome = e.removed, e.outcome
	return m, result
}

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

// ask gets the states of all addresses whose state could change the answer.
func (a *anatomy) ask(p *policy, states stateSource) {
	for n := range a.sets {
		s := &a.sets[n]
		s.down, s.watched, s.rank, s.mixed = 0, false, 0, false
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !s.matters(p) {
			continue
		}
		down := 0
		m.rank = 0
		for j := m.from; j < m.to; j++ {
			pair := &a.pairs[j]
			v := states.of(pair.addr, pair.port)
			s.watched = s.watched || v.watched
			pair.down, pair.damped = v.down(), v.damped
			if pair.down {
				down++
			}
			if isAddress(s.rrtype) {
				m.rank = v.rank(p)
			}
		}
		m.down = down > 0 && down == m.to-m.from && !hasHints(s.rrtype)
		if m.down {
			s.down++
			m.rank = lastRank
		}
		s.mixed = s.mixed || m.rank < s.rank
		s.rank = m.rank
	}
}

// matters tells whether a verdict could change the RRset. It could not where its members share a single
// address and port and the fallback would keep them.
func (s *rrset) matters(p *policy) bool {
	if hasHints(s.rrtype) {
		return !s.signed
	}
	return s.varied || !p.fallback.keeps(s.rrtype)
}

// decide tells every RRset its fate, and reports whether anything changes.
func (a *anatomy) decide(p *policy) (changed bool) {
	for n := range a.sets {
		s := &a.sets[n]
		if s.needsFallback(p) {
			a.relent(n, p)
		}
		switch {
		case s.down == 0:
		case s.needsFallback(p):
			s.fate = p.fallback.fate(s, s.size-s.down)
		case s.signed:
			s.fate = sorted
		default:
			s.fate = thinned
		}
		sorts := p.sortRTT && s.mixed && isAddress(s.rrtype)
		if s.fate == stays && sorts {
			s.fate = sorted
		}
		s.sorts = sorts || s.fate == sorted
		changed = changed || s.fate != stays
	}
	changed = a.thinHints() || changed
	return a.thinGlue() || changed
}

// needsFallback tells whether too few members are healthy.
func (s *rrset) needsFallback(p *policy) bool {
	healthy := s.size - s.down
	return s.down > 0 && (healthy == 0 || healthy*100 < p.panics*s.size)
}

// relent takes the members of an RRset for healthy that answer and are only damped. They may well be gone in a
// moment, but that is better than what the fallback has to offer.
func (a *anatomy) relent(set int, p *policy) {
	s := &a.sets[set]
	s.down, s.rank, s.mixed = 0, 0, false
	for i := range a.members {
		m := &a.members[i]
		if m.set != set {
			continue
		}
		pairs := a.pairs[m.from:m.to]
		for j := range pairs {
			if m.down && pairs[j].damped {
				pairs[j].down = false
			}
		}
		switch {
		case !m.down:
		case slices.ContainsFunc(pairs, isUp):
			m.down, m.rank = false, 0
			if p.sortRTT && isAddress(s.rrtype) {
				m.rank = lastRank - 1
			}
		default:
			s.down++
		}
		s.mixed = s.mixed || m.rank < s.rank
		s.rank = m.rank
	}
}

var addressTypes = [...]uint16{dns.TypeA, dns.TypeAAAA}

func isAddress(rrtype uint16) bool { return rrtype == dns.TypeA || rrtype == dns.TypeAAAA }

// fate returns what the fallback does to an RRset with that many healthy members. One that is signed
// cannot lose or gain members without failing validation; SERVFAIL is not subject to validation.
func (f fallback) fate(s *rrset, healthy int) fate {
	switch {
	case f.kind == fallbackServFail:
		return failed
	case s.signed && healthy > 0:
		return sorted
	case s.signed || f.keeps(s.rrtype):
		return spared
	default:
		return replaced
	}
}

// keeps tells whether the fallback leaves unsigned RRsets of the type as they are. Addresses cannot stand
// in for SRV records.
func (f fallback) keeps(rrtype uint16) bool {
	return f.kind == fallbackAll || f.kind == fallbackAddresses && !isAddress(rrtype)
}

// exceeds tells whether a record of a watched RRset has a longer TTL than ttl.
func (a *anatomy) exceeds(ttl uint32) bool {
	for i := range a.members {
		m := &a.members[i]
		if a.sets[m.set].watched && a.message.Answer[m.index].Header().Ttl > ttl {
			return true
		}
	}
	return false
}
