package shaker

import (
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// stateSource tells the state of addresses, and whether they are watched at all. settle may be called
// once all addresses have been asked for; where it returns true they have to be asked for again.
type stateSource interface {
	of(addr netip.Addr) (state health.State, watched bool)
	settle() bool
}

// filterResult says what a filter did.
type filterResult struct {
	addresses int // records with an address
	removed   int
	outcome   outcome
}

// filter returns the message to send in place of m, the answer to request: m itself where nothing has
// to change, and otherwise a new message. What m refers to is never changed, since the plugins below
// may hold on to it.
func filter(m, request *dns.Msg, zone zonePolicy, states stateSource) (*dns.Msg, filterResult) {
	a := anatomies.Get().(*anatomy)
	defer a.release()
	a.dissect(m.Answer)
	result := filterResult{addresses: len(a.members)}
	if len(a.members) == 0 {
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
	e := edit{anatomy: a, message: m, request: request, zone: &zone}
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
	if cap(a.members) > ordinary {
		return
	}
	clear(a.sets)
	clear(a.members)
	*a = anatomy{sets: a.sets[:0], members: a.members[:0]}
	anatomies.Put(a)
}

// anatomy is the address records of an answer section, sorted by RRset.
type anatomy struct {
	answer  []dns.RR
	sets    []rrset
	members []member // in the order of the answer
	byName  map[setName]int
}

// member is a record with an address.
type member struct {
	index int // in the answer
	set   int // in anatomy.sets
	addr  netip.Addr
	down  bool
}

// rrset is the addresses of one owner and type.
type rrset struct {
	owner   string
	rrtype  uint16
	first   netip.Addr
	varied  bool // there are different addresses
	watched bool // at least one address has a state
	signed  bool // by an RRSIG in the answer
	size    int
	down    int
	fate    fate
	order   []int // of a sorted RRset: indexes into the answer, in their new order
	placed  bool  // of a replaced RRset: the addresses in its place are in the new answer
}

type setName struct {
	owner  string // lower case
	rrtype uint16
}

// fate is what happens to an RRset.
type fate uint8

const (
	stays    fate = iota
	thinned       // those that are down go
	sorted        // those that are down go to the end
	replaced      // the fallback's addresses, if any, take its place
	failed        // they go, and the answer becomes SERVFAIL if it has no other addresses
	spared        // the fallback leaves it as it is
)

// manySets is the number of RRsets from which on they are looked up in a map. Answers with more than a
// few have been made by somebody who wants us to compare names.
const manySets = 16

// dissect sorts the address records of an answer.
func (a *anatomy) dissect(answer []dns.RR) {
	a.answer = answer
	signatures := false
	for i, rr := range answer {
		h, addr, ok := address(rr)
		if !ok {
			signatures = signatures || isSignature(rr)
			continue
		}
		n, found := a.find(h.Name, h.Rrtype)
		if !found {
			n = len(a.sets)
			a.sets = append(a.sets, rrset{owner: h.Name, rrtype: h.Rrtype, first: addr})
			if a.byName != nil {
				a.byName[setName{strings.ToLower(h.Name), h.Rrtype}] = n
			}
		}
		s := &a.sets[n]
		s.size++
		s.varied = s.varied || addr != s.first
		a.members = append(a.members, member{index: i, set: n, addr: addr})
	}
	if signatures {
		a.sign()
	}
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
	return h, addr, ok && h.Class == dns.ClassINET
}

func isSignature(rr dns.RR) bool {
	_, ok := rr.(*dns.RRSIG)
	return ok
}

// find looks from the end: RRsets come in one piece, nearly always.
func (a *anatomy) find(owner string, rrtype uint16) (n int, found bool) {
	if len(a.sets) >= manySets {
		return a.findInMap(owner, rrtype)
	}
	for n := len(a.sets) - 1; n >= 0; n-- {
		if s := &a.sets[n]; s.rrtype == rrtype && sameName(s.owner, owner) {
			return n, true
		}
	}
	return 0, false
}

func (a *anatomy) findInMap(owner string, rrtype uint16) (n int, found bool) {
	if a.byName == nil {
		a.byName = make(map[setName]int)
		for n := range a.sets {
			a.byName[setName{strings.ToLower(a.sets[n].owner), a.sets[n].rrtype}] = n
		}
	}
	n, found = a.byName[setName{strings.ToLower(owner), rrtype}]
	return n, found
}

func sameName(a, b string) bool { return a == b || strings.EqualFold(a, b) }

// sign marks the RRsets that have a signature.
func (a *anatomy) sign() {
	for _, rr := range a.answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if n, found := a.find(sig.Hdr.Name, sig.TypeCovered); found {
				a.sets[n].signed = true
			}
		}
	}
}

// ask gets the states of all addresses whose state could change the answer: where the fallback is to
// keep all addresses, that of a single one could not.
func (a *anatomy) ask(p *policy, states stateSource) {
	for n := range a.sets {
		a.sets[n].down, a.sets[n].watched = 0, false
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !s.varied && p.fallback.kind == fallbackAll {
			continue
		}
		state, watched := states.of(m.addr)
		m.down = watched && state == health.Down
		if m.down {
			s.down++
		}
		s.watched = s.watched || watched
	}
}

// decide tells every RRset its fate, and reports whether any of them changes.
func (a *anatomy) decide(p *policy) (changed bool) {
	for n := range a.sets {
		s := &a.sets[n]
		healthy := s.size - s.down
		switch {
		case s.down == 0:
			continue
		case healthy == 0 || healthy*100 < p.panics*s.size:
			s.fate = p.fallback.fate(s.signed, healthy)
		case s.signed:
			s.fate = sorted
		default:
			s.fate = thinned
		}
		changed = true
	}
	return changed
}

// fate returns what the fallback does to an RRset with that many healthy addresses. One that is signed
// cannot lose or gain addresses without failing validation; SERVFAIL is not subject to validation.
func (f fallback) fate(signed bool, healthy int) fate {
	switch {
	case f.kind == fallbackServFail:
		return failed
	case signed && healthy > 0:
		return sorted
	case signed || f.kind == fallbackAll:
		return spared
	default:
		return replaced
	}
}

// exceeds tells whether a record of a watched RRset has a longer TTL than ttl.
func (a *anatomy) exceeds(ttl uint32) bool {
	for i := range a.members {
		m := &a.members[i]
		if a.sets[m.set].watched && a.answer[m.index].Header().Ttl > ttl {
			return true
		}
	}
	return false
}
