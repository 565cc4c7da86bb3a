package answer

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// fate is what happens to an RRset.
type fate uint8

const (
	stays    fate = iota
	thinned       // those that are down or benched go
	sorted        // nothing goes, but the order changes
	replaced      // other addresses, if any, take its place
	failed        // they go, and the answer becomes SERVFAIL if nothing else is in it
	spared        // the fallback leaves it as it is
)

// fell tells whether too few members of the RRset are healthy.
func (f fate) fell() bool { return f == replaced || f == failed || f == spared }

// remains tells whether a member of the RRset is in the new answer.
func (s *rrset) remains(m *member) bool {
	return s.fate != failed && s.fate != replaced && !(s.fate == thinned && (m.down || m.benched)) && !m.unpicked
}

// judge tells every RRset its fate.
func (a *anatomy) judge(p *Policy, source Source) {
	for n := range a.sets {
		s := &a.sets[n]
		switch {
		case s.down == 0 && s.benched == 0:
		case !s.enough:
			a.fall(n, p, source)
		case s.fixed:
			s.fate = sorted
		default:
			s.fate = thinned
		}
	}
}

// fall decides what becomes of an RRset with too few healthy members. One that is fixed cannot lose or gain members
// without failing validation; SERVFAIL is not subject to validation.
func (a *anatomy) fall(n int, p *Policy, source Source) {
	s, f := &a.sets[n], &p.Fallback
	if s.fixed {
		switch {
		case f.Kind == FallbackServFail:
			s.fate = failed
		case s.down < s.size:
			s.fate = sorted
		default:
			s.fate = spared
		}
		return
	}
	if s.instead, s.ttl, s.standby = a.standby(a.index.keys[n].owner, s.rrtype, p, source); s.standby > 0 {
		s.fate = replaced
		return
	}
	switch {
	case f.Kind == FallbackServFail:
		s.fate = failed
	case f.keeps(s.rrtype) && !a.isRefuted(n, p, source):
		s.fate = spared
	default:
		s.fate, s.instead, s.ttl = replaced, a.insteadOf(s.rrtype, f), p.TTL
	}
}

// aside counts so many questions beside those for the addresses that the answer leads to, unless they are too many.
func (a *anatomy) aside(questions int) bool {
	if a.questions+a.asides+questions > a.most {
		return false
	}
	a.asides += questions
	return true
}

// standby returns what the first name has to offer, by records of a type, to which an owner may fall back, for how many
// seconds it holds, and the number of the name, from 1. It is 0 where no name has anything.
func (a *anatomy) standby(owner string, rrtype uint16, p *Policy, source Source) (addrs []netip.Addr, ttl uint32, which int32) {
	if !isAddress(rrtype) {
		return nil, 0, 0
	}
	for i, name := range p.Fallback.Names {
		if sameName(name, owner) || !a.aside(1) {
			continue
		}
		if addrs, ttl := source.Standby(name, rrtype); len(addrs) > 0 {
			return addrs, min(ttl, p.TTL), int32(i + 1)
		}
	}
	return nil, 0, 0
}

// isRefuted tells whether an RRset should not be served although the fallback is all that the name has: all of its
// addresses are down, and the other family lives, which proves that the checks are right. Clients would try the dead
// ones first.
func (a *anatomy) isRefuted(n int, p *Policy, source Source) bool {
	s, owner := &a.sets[n], a.index.keys[n].owner
	if p.Fallback.Kind != FallbackAll || !isAddress(s.rrtype) || s.down < s.size {
		return false
	}
	other := dns.TypeA
	if s.rrtype == dns.TypeA {
		other = dns.TypeAAAA
	}
	if a.lives(owner, other, source) {
		return true
	}
	_, _, which := a.standby(owner, other, p, source)
	return which > 0
}

// lives tells whether a name has an address of a type that is up.
func (a *anatomy) lives(owner string, rrtype uint16, source Source) bool {
	if n, found := a.index.find(owner, rrtype); found && n < a.answered {
		return a.sets[n].lives
	}
	if !a.aside(1) {
		return false
	}
	addrs, _ := source.Resolve(owner, rrtype)
	if !a.aside(len(addrs)) {
		return false
	}
	for _, addr := range addrs {
		if source.Ask(addr, 0).State == Up {
			return true
		}
	}
	return false
}

// keeps tells whether the fallback, names apart, leaves RRsets of the type as they are. Addresses cannot stand in for SRV
// records.
func (f *Fallback) keeps(rrtype uint16) bool {
	return f.Kind == FallbackAll || f.Kind == FallbackAddresses && !isAddress(rrtype)
}

// insteadOf returns the addresses of the fallback that take the place of an RRset of a type.
func (a *anatomy) insteadOf(rrtype uint16, f *Fallback) []netip.Addr {
	i := slices.Index(addressTypes[:], rrtype)
	if i < 0 {
		return nil
	}
	if a.instead[i] == nil {
		a.instead[i] = f.addressesOf(rrtype)
	}
	return a.instead[i]
}

// addressesOf returns those of the type.
func (f *Fallback) addressesOf(rrtype uint16) (addrs []netip.Addr) {
	for _, addr := range f.Addresses {
		if f.Kind == FallbackAddresses && addr.Is4() == (rrtype == dns.TypeA) && isAddress(rrtype) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// decide tells what else follows from the fates of the RRsets, and reports whether anything changes. Nothing does where
// nothing is down and all of the living are alike.
func (a *anatomy) decide(q *Query) (changed bool) {
	if !a.loses && !q.Zone.selects() {
		return false
	}
	for n := range a.sets {
		f := a.sets[n].fate
		changed = changed || f != stays && f != sorted // whether that changes anything, its order tells
	}
	r := q.ranking()
	changed = a.arrange(&r) || changed
	a.findGone()
	changed = a.thinHints(&r) || changed
	return a.thinGlue(&r) || changed
}

// place is an address in an RRset.
type place struct {
	set  int
	addr netip.Addr
}

// findGone notes the addresses that leave the answer section, if they might stand elsewhere too, and whether that is
// because they are down. What is there twice, or is brought back, has not left.
func (a *anatomy) findGone() {
	if !a.services && !a.twins {
		return
	}
	for i := range a.members {
		m := &a.members[i]
		if s := &a.sets[m.set]; isAddress(s.rrtype) && !s.remains(m) {
			if a.gone == nil {
				a.gone = make(map[place]bool)
			}
			a.gone[place{m.set, a.pairs[m.own.from].addr}] = s.isLoss(m)
		}
	}
	if len(a.gone) == 0 {
		return
	}
	for i := range a.members {
		m := &a.members[i]
		if s := &a.sets[m.set]; isAddress(s.rrtype) && s.remains(m) {
			delete(a.gone, place{m.set, a.pairs[m.own.from].addr})
		}
	}
	for n := range a.sets {
		for _, addr := range a.sets[n].instead {
			delete(a.gone, place{n, addr})
		}
	}
}

// isLoss tells whether a member that is not in the new answer left it because it, or too many others, are down.
func (s *rrset) isLoss(m *member) bool {
	return m.down && !m.unpicked || s.fate == replaced || s.fate == failed
}

// markGone has the hints of a name leave that have left its addresses in the answer section.
func (a *anatomy) markGone(name string, hints []pair) {
	if len(a.gone) == 0 {
		return
	}
	for _, rrtype := range addressTypes {
		set, found := a.index.find(name, rrtype)
		if !found {
			continue
		}
		for i := range hints {
			if loss, gone := a.gone[place{set, hints[i].addr}]; gone {
				hints[i].down = hints[i].down || loss
				hints[i].leaves = true
			}
		}
	}
}
