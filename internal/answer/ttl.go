package answer

import (
	"math"
	"time"

	"github.com/miekg/dns"
)

// limit finds the longest TTLs. That of an RRset holds wherever it stands.
func (a *anatomy) limit(p *Policy) {
	for n := range a.sets {
		s := &a.sets[n]
		s.limit = limitOf(s.watched, p)
	}
	g := &a.glue
	for n := range g.sets {
		g.sets[n].limit = limitOf(g.sets[n].watched, p)
	}
	if a.awaits {
		a.limitByVerdicts()
	}
	for n := range g.sets {
		if s := &g.sets[n]; s.twin != none {
			twin := &a.sets[s.twin]
			s.limit, twin.limit = min(s.limit, twin.limit), min(s.limit, twin.limit)
		}
	}
}

func limitOf(watched bool, p *Policy) uint32 {
	if watched {
		return p.TTL
	}
	return math.MaxUint32
}

// limitByVerdicts has nobody keep an address for longer than until there is a verdict on it.
func (a *anatomy) limitByVerdicts() {
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if !s.remains(m) {
			continue
		}
		pairs := a.pairsOf(m.own)
		if s.rrtype == dns.TypeSRV {
			pairs = a.pairsOf(m.beside)
		}
		within := time.Duration(0)
		for j := range pairs {
			pair := &pairs[j]
			if s.rrtype == dns.TypeSRV && pair.verdict.State == Up {
				within = 0 // the record stays, whatever becomes of its other addresses
				break
			}
			if pair.verdict.awaits() && !pair.leaves {
				within = sooner(within, pair.verdict.Within)
			}
		}
		s.limit = min(s.limit, seconds(within))
	}
	for n := range a.glue.records {
		if r := &a.glue.records[n]; !r.goes {
			s := &a.glue.sets[r.set]
			s.limit = min(s.limit, seconds(r.within))
		}
	}
}

// seconds returns a TTL that is over within a duration, of which 0 is for ever.
func seconds(within time.Duration) uint32 {
	if within == 0 {
		return math.MaxUint32
	}
	return uint32(min(within/time.Second, math.MaxUint32))
}

// exceeds tells whether a record of a watched RRset has too long a TTL.
func (a *anatomy) exceeds() bool {
	for i := range a.members {
		m := &a.members[i]
		if a.record(m).Header().Ttl > a.sets[m.set].limit {
			return true
		}
	}
	for i := range a.glue.records {
		r := &a.glue.records[i]
		if a.message.Extra[r.index].Header().Ttl > a.glue.sets[r.set].limit {
			return true
		}
	}
	return false
}
