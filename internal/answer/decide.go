package answer

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// ask gets the verdicts on all addresses where they could change the answer.
func (a *anatomy) ask(p *Policy, source Source) {
	for n := range a.sets {
		s := &a.sets[n]
		s.down, s.watched, s.rank, s.mixed = 0, false, 0, false
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		m.rank = 0
		down := a.askFor(m.own, s, s.matters(p), p, source, &m.rank)
		down += a.askFor(m.beside, s, s.matters(p) || isService(s.rrtype), p, source, nil)
		m.down = down > 0 && !m.open && down == m.pairs() && !isService(s.rrtype)
		s.count(m)
	}
}

// pairs returns the number of addresses that the member leads to.
func (m *member) pairs() int { return m.own.to - m.own.from + m.beside.to - m.beside.from }

// askFor gets the verdicts on some of the addresses of an RRset, if they matter, and returns how many are down. The rank
// is that of an address record.
func (a *anatomy) askFor(which span, s *rrset, matter bool, p *Policy, source Source, rank *uint32) (down int) {
	if !matter {
		return 0
	}
	for i := which.from; i < which.to; i++ {
		pair := &a.pairs[i]
		v := source.Ask(pair.addr, pair.port)
		if pair.other != 0 {
			v = v.or(source.Ask(pair.addr, pair.other))
		}
		pair.down, pair.damped = v.State == Down, v.Damped
		if v.State != Unwatched {
			if pair.glue != none {
				a.glue.sets[a.glue.records[pair.glue].set].watched = true
			}
			// What is beside a service record changes nothing in that.
			s.watched = s.watched || pair.glue == none || !isService(s.rrtype)
		}
		if pair.down {
			down++
		}
		if rank != nil && isAddress(s.rrtype) {
			*rank = v.rank(p)
		}
	}
	return down
}

// or returns the verdict on an address with two ports of which one is enough.
func (v Verdict) or(w Verdict) Verdict {
	switch {
	case v.State == Unwatched || w.State == Unwatched:
		return Verdict{}
	case v.State == Down && w.State == Down:
		return Verdict{State: Down, Damped: v.Damped || w.Damped}
	case v.State == Up || w.State == Up:
		return Verdict{State: Up}
	default:
		return Verdict{State: Unknown}
	}
}

// count takes a member into the sums of its RRset. The members of an RRset are counted in their order.
func (s *rrset) count(m *member) {
	if m.down {
		s.down++
		m.rank = lastRank
	}
	s.mixed = s.mixed || m.rank < s.rank
	s.rank = m.rank
}

// matters tells whether a verdict could change the RRset. It could not where its members share a single
// address and port and the fallback would keep them.
func (s *rrset) matters(p *Policy) bool {
	if isService(s.rrtype) {
		return !s.signed
	}
	return s.varied || !p.Fallback.keeps(s.rrtype)
}

// decide tells every RRset its fate, and reports whether anything changes.
func (a *anatomy) decide(p *Policy) (changed bool) {
	a.assess(p)
	a.relent(p)
	for n := range a.sets {
		s := &a.sets[n]
		switch {
		case s.down == 0:
		case !s.enough:
			s.fate = p.Fallback.fate(s, s.size-s.down)
		case s.signed:
			s.fate = sorted
		default:
			s.fate = thinned
		}
		sorts := p.SortRTT && s.mixed && isAddress(s.rrtype)
		if s.fate == stays && sorts {
			s.fate = sorted
		}
		s.sorts = sorts || s.fate == sorted
		changed = changed || s.fate != stays
	}
	a.findGone(p)
	changed = a.thinHints() || changed
	return a.thinGlue() || changed
}

// assess tells every RRset whether enough of its members are healthy. Clients use SRV records of the lowest priority that
// works (RFC 2782), so it takes enough of one priority.
func (a *anatomy) assess(p *Policy) {
	tiers := false
	for n := range a.sets {
		s := &a.sets[n]
		s.enough = enough(s.size, s.down, p)
		tiers = tiers || !s.enough && s.down < s.size && s.rrtype == dns.TypeSRV
	}
	if !tiers {
		return
	}
	if a.tiers == nil {
		a.tiers = make(map[tierKey]tier)
	}
	clear(a.tiers)
	for i := range a.members {
		m := &a.members[i]
		if srv, ok := a.record(m).(*dns.SRV); ok {
			key := tierKey{m.set, srv.Priority}
			t := a.tiers[key]
			t.size++
			if m.down {
				t.down++
			}
			a.tiers[key] = t
		}
	}
	for key, t := range a.tiers {
		s := &a.sets[key.set]
		s.enough = s.enough || enough(t.size, t.down, p)
	}
}

// tier is the SRV records of a priority.
type tier struct{ size, down int }

type tierKey struct {
	set      int
	priority uint16
}

// enough tells whether so many members that are not down are enough.
func enough(size, down int, p *Policy) bool {
	healthy := size - down
	return down == 0 || healthy > 0 && healthy*100 >= p.Panic*size
}

// relent takes the members that answer and are only damped for healthy, where there are not enough others. They may well
// be gone in a moment, but that is better than what the fallback has to offer.
func (a *anatomy) relent(p *Policy) {
	relents := false
	for n := range a.sets {
		s := &a.sets[n]
		s.relents = !s.enough
		if s.relents {
			relents = true
			s.down, s.rank, s.mixed = 0, 0, false
		}
	}
	if !relents {
		return
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !s.relents {
			continue
		}
		a.relieve(m, s, p)
		s.count(m)
	}
	a.assess(p)
}

// relieve takes a member for healthy that is down only because of addresses that are damped.
func (a *anatomy) relieve(m *member, s *rrset, p *Policy) {
	if !m.down {
		return
	}
	for _, which := range [...]span{m.own, m.beside} {
		for i := which.from; i < which.to; i++ {
			if pair := &a.pairs[i]; pair.damped {
				pair.down, m.down, m.rank = false, false, 0
			}
		}
	}
	if !m.down && p.SortRTT && isAddress(s.rrtype) {
		m.rank = lastRank - 1
	}
}

// fate returns what the fallback does to an RRset with that many healthy members. One that is signed
// cannot lose or gain members without failing validation; SERVFAIL is not subject to validation.
func (f Fallback) fate(s *rrset, healthy int) fate {
	switch {
	case f.Kind == FallbackServFail:
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
func (f Fallback) keeps(rrtype uint16) bool {
	return f.Kind == FallbackAll || f.Kind == FallbackAddresses && !isAddress(rrtype)
}

// place is an address in an RRset.
type place struct {
	set  int
	addr netip.Addr
}

// findGone notes the addresses that leave the answer section, if they might stand elsewhere too. What the fallback brings
// back has not left.
func (a *anatomy) findGone(p *Policy) {
	if !a.services && !a.twins {
		return
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !isAddress(s.rrtype) || s.remains(m) {
			continue
		}
		addr := a.pairs[m.own.from].addr
		if s.fate == replaced && slices.Contains(p.Fallback.Addresses, addr) {
			continue
		}
		if a.gone == nil {
			a.gone = make(map[place]bool)
		}
		a.gone[place{m.set, addr}] = true
	}
}

// markGone has the hints of a name be down that have left its addresses in the answer section.
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
			hints[i].down = hints[i].down || a.gone[place{set, hints[i].addr}]
		}
	}
}

// exceeds tells whether a record of a watched RRset has a longer TTL than ttl.
func (a *anatomy) exceeds(ttl uint32) bool {
	for i := range a.members {
		m := &a.members[i]
		if a.sets[m.set].watched && a.record(m).Header().Ttl > ttl {
			return true
		}
	}
	for i := range a.glue.records {
		r := &a.glue.records[i]
		if a.isWatched(r.set) && a.message.Extra[r.index].Header().Ttl > ttl {
			return true
		}
	}
	return false
}

// isWatched tells whether the addresses of a glue set are, here or in the answer section.
func (a *anatomy) isWatched(glueSet int) bool {
	s := &a.glue.sets[glueSet]
	return s.watched || s.twin != none && a.sets[s.twin].watched
}
