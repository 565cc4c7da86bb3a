package answer

import (
	"cmp"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Rendezvous returns a number above 0 and below 1 for an address in the eyes of a client's network: hashing by highest
// random weight (Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996). It is the same in every
// process: that of XXH64, with the seed 0, over the 16 octets of the network's first address and the 16 of the address,
// IPv4 in IPv4-mapped form.
func Rendezvous(network, addr netip.Addr) float64 {
	var octets [32]byte
	*(*[16]byte)(octets[:16]) = network.As16()
	*(*[16]byte)(octets[16:]) = addr.As16()
	return fraction(xxhash.Sum64(octets[:]))
}

// fraction makes a number above 0 and below 1 of one that has all bits at random.
// Of more than 52 bits the greatest would be rounded to 1.
func fraction(bits uint64) float64 { return (float64(bits>>12) + 0.5) / (1 << 52) }

// drawn returns a number above 0 and below 1 at random.
func drawn(netip.Addr) float64 { return fraction(rand.Uint64()) }

// network returns the part of a client's address that SortClient goes by. All clients without address are one.
func (p *Policy) network(client netip.Addr) netip.Addr {
	client = client.Unmap()
	bits := p.ClientBits6
	switch {
	case !client.IsValid():
		return netip.IPv6Unspecified()
	case client.Is4():
		bits = p.ClientBits4
	}
	network, err := client.WithZone("").Prefix(bits)
	if err != nil {
		return client
	}
	return network.Addr()
}

// score returns the place of an address with a weight for which a number was drawn; the smallest goes first. So it is
// first with a probability in proportion to its weight (Efraimidis and Spirakis, Weighted Random Sampling, 2006).
func score(drawn float64, weight int) float64 { return -math.Log(drawn) / float64(weight) }

// rank is the place of an address, or of a record, among others: by class, and in one class by score.
type rank struct {
	class int
	score float64
}

const (
	lastClass = math.MaxInt
	// noScore is that of an address whose round trip nobody knows.
	noScore = math.MaxFloat64
)

// ranked is a member, a pair or a record that takes part in an order.
type ranked struct {
	rank
	of int // its index
}

// compareRanked compares by rank. What has the same one keeps its order, without the price of a stable sort.
func compareRanked(x, y ranked) int {
	switch {
	case x.class != y.class:
		return cmp.Compare(x.class, y.class)
	case x.score != y.score:
		return cmp.Compare(x.score, y.score)
	default:
		return cmp.Compare(x.of, y.of)
	}
}

// ranking makes ranks for one answer.
type ranking struct {
	*Policy
	draw    func(netip.Addr) float64
	network netip.Addr // of the client, under SortClient
}

func (q *Query) ranking() ranking {
	r := ranking{Policy: q.Zone.Policy, draw: q.Draw}
	if r.draw == nil {
		r.draw = drawn
	}
	if r.Sort == SortClient {
		r.network = r.Policy.network(q.Client.Addr())
	}
	return r
}

// score returns the place of an address among those that nothing else sets apart. Round trips count by whole
// milliseconds: what is below them is noise, and would have addresses change places all the time.
func (r *ranking) score(addr netip.Addr, rtt time.Duration, picks bool) float64 {
	switch {
	case r.Sort == SortClient:
		return score(Rendezvous(r.network, addr), r.Weights.Of(addr))
	case r.Sort == SortRTT && rtt == 0:
		return noScore
	case r.Sort == SortRTT:
		return float64(rtt.Milliseconds())
	case picks:
		return score(r.draw(addr), r.Weights.Of(addr))
	default:
		return 0
	}
}

// arrange puts the members of RRsets in their order and picks the first of them. It reports whether anything changes.
func (a *anatomy) arrange(r *ranking) (changed bool) {
	places := 0
	for n := range a.sets {
		s := &a.sets[n]
		if s.fate == replaced || s.fate == failed {
			continue
		}
		left := s.size
		if s.fate == thinned {
			left -= s.down + s.benched
		}
		s.picks = r.Pick > 0 && left > r.Pick && isAddress(s.rrtype) && !s.fixed
		s.arranges = s.picks || s.fate == sorted || r.Sort != Unsorted && isAddress(s.rrtype)
		if s.arranges {
			s.order = span{places, places}
			places += left
		}
	}
	if places > 0 {
		changed = a.arrangeMembers(r, places)
	}
	if r.Pick > 0 || r.Sort == SortClient {
		a.arrangeOthers(r)
	}
	return changed
}

// arrangeMembers finds the order of the members that remain in the RRsets that are to be arranged.
func (a *anatomy) arrangeMembers(r *ranking, places int) (changed bool) {
	a.order = slices.Grow(a.order[:0], places)[:places]
	for i := range a.members {
		m := &a.members[i]
		if s := &a.sets[m.set]; s.arranges && s.remains(m) {
			a.order[s.order.to] = ranked{a.rankOf(m, r), i}
			s.order.to++
		}
	}
	for n := range a.sets {
		s := &a.sets[n]
		if !s.arranges {
			continue
		}
		order := a.order[s.order.from:s.order.to]
		slices.SortFunc(order, compareRanked)
		if s.picks {
			for _, out := range order[r.Pick:] {
				a.members[out.of].unpicked = true
			}
			s.order.to = s.order.from + r.Pick
			changed = true
		} else if !slices.IsSortedFunc(order, func(x, y ranked) int { return cmp.Compare(x.of, y.of) }) {
			s.reordered = true
			changed = true
		}
	}
	return changed
}

// rankOf returns the rank of a member of an RRset that is arranged.
func (a *anatomy) rankOf(m *member, r *ranking) (at rank) {
	s := &a.sets[m.set]
	switch {
	case m.down:
		at.class = lastClass
	case m.benched && s.fixed && isAddress(s.rrtype):
		at.class = 1 + m.tier
	}
	if isAddress(s.rrtype) {
		pair := &a.pairs[m.own.from]
		rtt := pair.verdict.RTT
		if m.down || m.relieved {
			rtt = 0
		}
		at.score = r.score(pair.addr, rtt, s.picks)
	}
	return at
}

// arrangeOthers puts the addresses that take the place of others in order, and picks the first of them. Those that are
// not sorted by client are in their own order already.
func (a *anatomy) arrangeOthers(r *ranking) {
	for n := range a.sets {
		s := &a.sets[n]
		picks := r.Pick > 0 && len(s.instead) > r.Pick
		if r.Sort != SortClient && !(picks && r.Sort == Unsorted) {
			if picks {
				s.instead = s.instead[:r.Pick]
			}
			continue
		}
		order := make([]ranked, len(s.instead))
		for i, addr := range s.instead {
			order[i] = ranked{rank{score: r.score(addr, 0, picks)}, i}
		}
		slices.SortFunc(order, compareRanked)
		if picks {
			order = order[:r.Pick]
		}
		instead := make([]netip.Addr, len(order))
		for i := range order {
			instead[i] = s.instead[order[i].of]
		}
		s.instead = instead
	}
}

// pick returns which of some candidates leave because others are picked.
func (r *ranking) pick(candidates []ranked) (out []ranked) {
	if r.Pick == 0 || len(candidates) <= r.Pick {
		return nil
	}
	slices.SortFunc(candidates, compareRanked)
	return candidates[r.Pick:]
}
