package answer

import (
	"cmp"
	"slices"

	"github.com/miekg/dns"
)

// assess tells every RRset whether enough of its members are healthy, and which of its tiers is served: the first that is
// alive. Clients use SRV records of the lowest priority that works (RFC 2782), so each priority has tiers of its own, and
// it takes enough of one.
func (a *anatomy) assess(p *Policy) {
	divided := false
	for n := range a.sets {
		s := &a.sets[n]
		s.enough, s.benched = p.isEnough(s.size, s.down), 0
		s.divided = p.Tiers.Len() > 0 && !isService(s.rrtype) || s.rrtype == dns.TypeSRV && !s.enough && s.down < s.size
		divided = divided || s.divided
	}
	if !divided {
		return
	}
	a.countTiers(p)
	for n := range a.sets {
		s := &a.sets[n]
		s.enough = s.enough && !s.divided
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !s.divided {
			continue
		}
		tier, served := a.tally.tierOf(a.lineOf(m))
		s.enough = s.enough || served
		m.benched = served && tier != m.tier
		if m.benched && !m.down {
			s.benched++
		}
	}
}

// countTiers finds out the tier of each member, and which one of each line is served.
func (a *anatomy) countTiers(p *Policy) {
	a.tally.reset()
	for i := range a.members {
		if m := &a.members[i]; a.sets[m.set].divided {
			m.tier = a.tierOf(m, p)
			a.tally.count(a.lineOf(m), m.tier, m.down)
		}
	}
	a.tally.serve(p)
}

// tierOf returns the tier of a member: the first of those that its addresses are in, dead ones apart unless it is dead
// itself.
func (a *anatomy) tierOf(m *member, p *Policy) int {
	tier := p.Tiers.Len()
	if tier == 0 {
		return 0
	}
	for _, which := range [...]span{m.own, m.beside} {
		for i := range a.pairsOf(which) {
			if pair := &a.pairs[which.from+i]; !pair.down || m.down {
				tier = min(tier, p.Tiers.Of(pair.addr.Unmap()))
			}
		}
	}
	return tier
}

// lineOf returns the line that a member stands in.
func (a *anatomy) lineOf(m *member) line {
	if a.sets[m.set].rrtype == dns.TypeSRV {
		return lineFor(m.set, a.message.Answer[m.index].(*dns.SRV).Priority)
	}
	return lineFor(m.set, 0)
}

// line is what has tiers of its own: a number, such as that of an RRset, above 16 bits that tell its parts apart.
type line uint64

func lineFor(of int, part uint16) line { return line(of)<<16 | line(part) }

// tally counts what there is in each tier of many lines.
type tally struct {
	counted []uint64 // of each a line, a tier and whether it is down, from the highest bit on
	served  []tierOf // of the lines that have one, in ascending order
}

// tierOf is the tier that is served of a line.
type tierOf struct {
	line line
	tier int
}

// tierBits is how many bits a tier has in tally.counted. No Corefile has that many.
const tierBits = 24

// reset forgets everything but the space.
func (t *tally) reset() { t.counted, t.served = t.counted[:0], t.served[:0] }

// count takes in an address, or what leads to some.
func (t *tally) count(l line, tier int, down bool) {
	counted := (uint64(l)<<tierBits | uint64(tier)) << 1
	if down {
		counted |= 1
	}
	t.counted = append(t.counted, counted)
}

// serve finds out which tier of each line is served: the first that is alive.
func (t *tally) serve(p *Policy) {
	slices.Sort(t.counted)
	for from := 0; from < len(t.counted); {
		at := t.counted[from] >> 1
		size, down := 0, 0
		for ; from < len(t.counted) && t.counted[from]>>1 == at; from++ {
			size++
			down += int(t.counted[from] & 1)
		}
		l := line(at >> tierBits)
		if n := len(t.served); (n == 0 || t.served[n-1].line != l) && p.isEnough(size, down) {
			t.served = append(t.served, tierOf{l, int(at & (1<<tierBits - 1))})
		}
	}
}

// tierOf returns the tier of a line that is served, and reports whether one is.
func (t *tally) tierOf(l line) (tier int, served bool) {
	n, found := slices.BinarySearchFunc(t.served, l, func(at tierOf, l line) int { return cmp.Compare(at.line, l) })
	if !found {
		return 0, false
	}
	return t.served[n].tier, true
}

// isEnough tells whether so many members that are not down are enough.
func (p *Policy) isEnough(size, down int) bool {
	healthy := size - down
	return down == 0 || healthy > 0 && healthy*100 >= p.Panic*size
}

// relent takes the members that answer and are only damped for healthy, where there are not enough others. They may well
// be gone in a moment, but that is better than what the fallback has to offer.
func (a *anatomy) relent(p *Policy) {
	fall := false
	for n := range a.sets {
		fall = fall || !a.sets[n].enough
	}
	if !fall {
		return
	}
	relents := false
	for i := range a.members {
		m := &a.members[i]
		if s := &a.sets[m.set]; !s.enough && m.down && a.relieve(m) {
			relents = true
			s.down--
		}
	}
	if relents {
		a.assess(p)
	}
}

// relieve takes a member for healthy that is down only because of addresses that are damped. It reports whether it is one.
func (a *anatomy) relieve(m *member) bool {
	for _, which := range [...]span{m.own, m.beside} {
		for i := which.from; i < which.to; i++ {
			if pair := &a.pairs[i]; pair.verdict.Damped {
				pair.down, m.down, m.relieved = false, false, true
			}
		}
	}
	return m.relieved
}
