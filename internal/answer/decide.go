package answer

import (
	"slices"

	"github.com/miekg/dns"
)

// ask gets the states of all addresses whose state could change the answer.
func (a *anatomy) ask(p *Policy, source Source) {
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
			v := source.Ask(pair.addr, pair.port)
			s.watched = s.watched || v.State != Unwatched
			pair.down, pair.damped = v.State == Down, v.Damped
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
func (s *rrset) matters(p *Policy) bool {
	if hasHints(s.rrtype) {
		return !s.signed
	}
	return s.varied || !p.Fallback.keeps(s.rrtype)
}

// decide tells every RRset its fate, and reports whether anything changes.
func (a *anatomy) decide(p *Policy) (changed bool) {
	for n := range a.sets {
		s := &a.sets[n]
		if s.needsFallback(p) {
			a.relent(n, p)
		}
		switch {
		case s.down == 0:
		case s.needsFallback(p):
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
	changed = a.thinHints() || changed
	return a.thinGlue() || changed
}

// needsFallback tells whether too few members are healthy.
func (s *rrset) needsFallback(p *Policy) bool {
	healthy := s.size - s.down
	return s.down > 0 && (healthy == 0 || healthy*100 < p.Panic*s.size)
}

// relent takes the members of an RRset for healthy that answer and are only damped. They may well be gone in a
// moment, but that is better than what the fallback has to offer.
func (a *anatomy) relent(set int, p *Policy) {
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
			if p.SortRTT && isAddress(s.rrtype) {
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
