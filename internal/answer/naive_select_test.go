package answer

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// What is chosen among addresses, and what stands in for them.

// tierOf returns the tier of a member: that of its address, or the lowest among its addresses that live, or that did.
func (n *naive) tierOf(m *naiveMember) int {
	if !m.set.isAddress() && !m.set.isService() {
		return 0
	}
	living, all := n.p.Tiers.Len(), n.p.Tiers.Len()
	for _, place := range m.places {
		tier := n.p.Tiers.Of(place.addr)
		all = min(all, tier)
		if !place.down {
			living = min(living, tier)
		}
	}
	if m.dead {
		return all
	}
	n.rules.note("tier of an SRV record by the addresses that live", living != all)
	return living
}

// isAlive tells whether so many are enough, of which some are down.
func (n *naive) isAlive(size, down int) bool {
	living := size - down
	return down == 0 || living > 0 && 100*living >= n.p.Panic*size
}

// priorityOf returns that of an SRV record. All others have the same.
func priorityOf(m *naiveMember) uint16 {
	if !m.set.isService() {
		return 0
	}
	return naiveService(m.rr).Priority
}

// served returns which tier is served of each priority: the lowest that is alive. Those without are not in the map.
func (n *naive) served(s *naiveSet) map[uint16]int {
	type group struct {
		priority uint16
		tier     int
	}
	size, down := map[group]int{}, map[group]int{}
	for _, m := range s.members {
		g := group{priorityOf(m), n.tierOf(m)}
		size[g]++
		if m.dead {
			down[g]++
		}
	}
	served := map[uint16]int{}
	for g := range size {
		if best, found := served[g.priority]; n.isAlive(size[g], down[g]) && (!found || g.tier < best) {
			served[g.priority] = g.tier
		}
	}
	return served
}

// hasTooFew tells whether the fallback applies.
func (n *naive) hasTooFew(s *naiveSet) bool { return len(n.served(s)) == 0 }

// bench finds the members of tiers that are not served, and notes why.
func (n *naive) bench(s *naiveSet) {
	served := n.served(s)
	priorities := map[uint16]bool{}
	for _, m := range s.members {
		tier, found := served[priorityOf(m)]
		m.tier = n.tierOf(m)
		m.benched = found && m.tier != tier
		priorities[priorityOf(m)] = true
		n.rules.note("address benched by a better tier", s.isAddress() && m.benched && m.tier > tier)
		n.rules.note("address benched in a tier that is not alive", s.isAddress() && m.benched && m.tier < tier && !m.dead)
		n.rules.note("SRV record benched", s.isService() && m.benched)
		n.rules.note("dead in a worse tier", m.benched && m.dead && m.tier > tier)
	}
	n.rules.note("one priority of SRV records is enough", len(served) > 0 && len(served) < len(priorities))
	n.rules.note("priorities of SRV records have tiers of their own", slices.ContainsFunc(s.members, func(m *naiveMember) bool {
		tier, found := served[priorityOf(m)]
		return found && tier != served[priorityOf(s.members[0])]
	}))
}

// findSubstitutes finds what stands in for an RRset that falls. It reports false where nothing does, not even the lack of
// addresses.
func (n *naive) findSubstitutes(s *naiveSet) bool {
	if s.isAddress() && n.findStandby(s) {
		return true
	}
	switch n.p.Fallback.Kind {
	case FallbackNoData:
		return true
	case FallbackAddresses:
		if s.isService() {
			return false
		}
		s.substituteTTL = n.p.TTL
		for _, addr := range n.p.Fallback.Addresses {
			if addr.Is4() == (s.rrtype == dns.TypeA) {
				s.substitutes = append(s.substitutes, addr)
			}
		}
		return true
	case FallbackAll:
		return s.isAddress() && n.isOnlyFamilyDead(s)
	default:
		return false
	}
}

// findStandby finds the first name that has addresses.
func (n *naive) findStandby(s *naiveSet) bool {
	for i, name := range n.p.Fallback.Names {
		if n.rules.note("a name does not stand in for itself", strings.EqualFold(name, s.owner)) {
			continue
		}
		addrs, ttl := n.source.Standby(name, s.rrtype)
		if n.rules.note("name without addresses", len(addrs) == 0) {
			continue
		}
		n.rules.note("another name stands in", true)
		n.rules.note("the second name stands in", i > 0)
		n.rules.note("TTL of the name that stands in", ttl < n.p.TTL)
		s.substitutes, s.substituteTTL = slices.Clone(addrs), min(ttl, n.p.TTL)
		return true
	}
	return false
}

// isOnlyFamilyDead tells whether all addresses are dead, and one of the other family is known to live.
func (n *naive) isOnlyFamilyDead(s *naiveSet) bool {
	if len(s.those(false)) > 0 {
		n.rules.note("panic although some of the family live", true)
		return false
	}
	other := uint16(dns.TypeA)
	if s.rrtype == dns.TypeA {
		other = dns.TypeAAAA
	}
	if o := n.sets[naiveKey(s.owner, other)]; o != nil {
		if n.rules.note("the other family lives in the answer", slices.ContainsFunc(o.members, func(m *naiveMember) bool {
			return m.places[0].verdict.State == Up
		})) {
			return true
		}
		return n.isOtherFamilyOnStandby(s.owner, other)
	}
	addrs, known := n.source.Resolve(s.owner, other)
	lives := slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return n.source.Ask(addr, 0).State == Up })
	n.rules.note("the other family is dead as well", !lives)
	n.rules.note("the other family is old news", lives && !known)
	return n.rules.note("the other family lives elsewhere", lives) || n.isOtherFamilyOnStandby(s.owner, other)
}

// isOtherFamilyOnStandby tells whether a name would stand in for the addresses of the other family.
func (n *naive) isOtherFamilyOnStandby(owner string, other uint16) bool {
	for _, name := range n.p.Fallback.Names {
		if strings.EqualFold(name, owner) {
			continue
		}
		if addrs, _ := n.source.Standby(name, other); n.rules.note("a name stands in for the other family", len(addrs) > 0) {
			return true
		}
	}
	return false
}

// naiveCandidate is an address that may have a place in an RRset.
type naiveCandidate struct {
	addr   netip.Addr
	member *naiveMember // nil where it stands in for others
	last   bool         // behind all others where it is down
	class  int          // before the score
	rtt    int64        // in whole milliseconds
}

// farAway is the round trip of what has none.
const farAway = 1 << 40

// naiveDistance returns a round trip in whole milliseconds.
func naiveDistance(v Verdict) int64 {
	if v.State == Down || v.RTT == 0 {
		return farAway
	}
	return v.RTT.Milliseconds()
}

// findOrder finds the order of each RRset, and the addresses that are picked.
func (n *naive) findOrder() {
	for _, s := range n.inOrder {
		switch {
		case s.isAddress() && s.fate != "fail":
			n.arrange(s)
		case s.isService() && s.fate == "sort":
			n.settle(s, slices.Concat(s.those(false), s.those(true)))
		}
	}
}

// candidates returns the addresses of which an RRset is going to be made, in the order of the message.
func (n *naive) candidates(s *naiveSet) (all []naiveCandidate) {
	if s.fate == "replace" {
		for _, addr := range s.substitutes {
			all = append(all, naiveCandidate{addr: addr})
		}
		return all
	}
	for _, m := range s.members {
		if !m.remains() {
			continue
		}
		c := naiveCandidate{addr: m.places[0].addr, member: m, last: m.dead, rtt: naiveDistance(m.places[0].verdict)}
		if s.fate == "sort" {
			c.class = n.classInFixed(m)
		}
		all = append(all, c)
	}
	return all
}

// classInFixed returns the place of a member where nothing may leave: before others if it is smaller.
func (n *naive) classInFixed(m *naiveMember) int {
	tier, found := n.served(m.set)[0]
	switch {
	case m.dead:
		return math.MaxInt
	case found && m.tier == tier:
		return -1
	default:
		n.rules.note("benched where nothing may leave", found)
		return m.tier
	}
}

// arrange orders the addresses of an RRset, and picks some.
func (n *naive) arrange(s *naiveSet) {
	all := n.candidates(s)
	before := slices.Clone(all)
	switch {
	case n.p.Sort == SortRTT:
		slices.SortStableFunc(all, func(a, b naiveCandidate) int {
			return cmp.Or(n.compareClass(a, b), cmp.Compare(a.rtt, b.rtt))
		})
	case n.p.Sort == SortClient:
		slices.SortStableFunc(all, func(a, b naiveCandidate) int {
			return cmp.Or(n.compareClass(a, b), cmp.Compare(n.clientScore(a.addr), n.clientScore(b.addr)))
		})
		n.rules.note("dead ones in the order of the client", s.fate == "keep" && !slices.Equal(all, before) && len(s.those(false)) == 0)
		n.rules.note("substitutes in the order of the client", s.fate == "replace" && !slices.Equal(all, before))
	case s.fate == "sort":
		slices.SortStableFunc(all, n.compareClass)
	}
	n.rules.note("order by round trip", n.p.Sort == SortRTT && !slices.Equal(all, before))
	n.rules.note("order of the client", n.p.Sort == SortClient && !slices.Equal(all, before))

	if n.p.Pick > 0 && len(all) > n.p.Pick && !n.isFixed(s) {
		n.notePick(s)
		if n.p.Sort == Unsorted {
			n.draw(all)
		}
		all = all[:n.p.Pick]
	}
	if s.fate == "replace" {
		s.substitutes = nil
		for _, c := range all {
			s.substitutes = append(s.substitutes, c.addr)
		}
		return
	}
	var members []*naiveMember
	for _, c := range all {
		members = append(members, c.member)
	}
	n.settle(s, members)
}

func (n *naive) notePick(s *naiveSet) {
	n.rules.note("picked at random", n.p.Sort == Unsorted)
	n.rules.note("picked by round trip", n.p.Sort == SortRTT)
	n.rules.note("picked for the client", n.p.Sort == SortClient)
	n.rules.note("substitutes are picked", s.fate == "replace")
	n.rules.note("picked from what is kept", s.fate == "keep")
	n.rules.note("picked from what is left", s.fate == "thin")
}

// compareClass puts what is down last, and in RRsets that keep their members the better tiers first.
func (n *naive) compareClass(a, b naiveCandidate) int {
	return cmp.Or(cmp.Compare(naiveNumber(a.last), naiveNumber(b.last)), cmp.Compare(a.class, b.class))
}

func naiveNumber(is bool) int {
	if is {
		return 1
	}
	return 0
}

// clientScore returns the place of an address in the eyes of the client.
func (n *naive) clientScore(addr netip.Addr) float64 {
	return n.weighted(Rendezvous(n.p.network(n.client.addr), addr), addr)
}

// drawnScore returns the place of an address in a draw.
func (n *naive) drawnScore(addr netip.Addr) float64 { return n.weighted(n.drawn(addr), addr) }

func (n *naive) weighted(u float64, addr netip.Addr) float64 {
	return -math.Log(u) / float64(n.p.Weights.Of(addr))
}

// draw puts those first that are to be picked at random.
func (n *naive) draw(all []naiveCandidate) {
	light := slices.Clone(all)
	slices.SortStableFunc(light, func(a, b naiveCandidate) int {
		return cmp.Or(cmp.Compare(naiveNumber(a.last), naiveNumber(b.last)), cmp.Compare(n.drawn(b.addr), n.drawn(a.addr)))
	})
	slices.SortStableFunc(all, func(a, b naiveCandidate) int {
		return cmp.Or(cmp.Compare(naiveNumber(a.last), naiveNumber(b.last)), cmp.Compare(n.drawnScore(a.addr), n.drawnScore(b.addr)))
	})
	n.rules.note("weights change who is picked", light[0].addr != all[0].addr)
}

// settle has an RRset consist of members, in that order.
func (n *naive) settle(s *naiveSet, members []*naiveMember) {
	var before []*naiveMember
	for _, m := range s.members {
		if !m.remains() {
			continue
		}
		before = append(before, m)
		if !slices.Contains(members, m) {
			m.leaves = "unpicked"
			n.left = true
			n.touch(false, naiveKey(s.owner, s.rrtype))
			n.result.Outcome = max(n.result.Outcome, Selected)
		}
	}
	n.rules.note("what is to be last is last already", s.fate == "sort" && slices.Equal(before, members))
	if !slices.Equal(before, members) {
		n.changed = true
		n.result.Outcome = max(n.result.Outcome, Reordered)
	}
	s.order = members
}

// chosen returns which of the addresses beside the answer stay, of those of one owner and family: those of the lowest tier
// that is alive, and of them as many as are picked. What is dead counts in its tier. What has left counts there too, and
// does not come back.
func (n *naive) chosen(all []naiveChoice, note func(rule string)) []naiveChoice {
	size, down := map[int]int{}, map[int]int{}
	served, found := 0, false
	for _, c := range all {
		tier := n.p.Tiers.Of(c.addr)
		size[tier]++
		if c.dead {
			down[tier]++
		}
	}
	for tier := range size {
		if n.isAlive(size[tier], down[tier]) && (!found || tier < served) {
			served, found = tier, true
		}
	}
	var rest []naiveChoice
	for _, c := range all {
		switch {
		case c.left:
		case found && n.p.Tiers.Of(c.addr) != served:
			note("benched")
		default:
			rest = append(rest, c)
		}
	}
	if !found && n.p.Tiers.Len() > 0 && len(rest) > 0 {
		note("of no tier that is alive")
	}
	if n.p.Pick == 0 || len(rest) <= n.p.Pick {
		return rest
	}
	note("not picked")
	picked := slices.Clone(rest)
	slices.SortStableFunc(picked, func(a, b naiveChoice) int {
		return cmp.Or(cmp.Compare(naiveNumber(a.dead), naiveNumber(b.dead)), cmp.Compare(n.beside(a), n.beside(b)))
	})
	if slices.ContainsFunc(picked[n.p.Pick:], func(c naiveChoice) bool { return c.dead }) && !picked[0].dead {
		note("dead and not picked")
	}
	picked = picked[:n.p.Pick]
	return slices.DeleteFunc(rest, func(c naiveChoice) bool { return !slices.Contains(picked, c) })
}

// naiveChoice is an address beside the answer.
type naiveChoice struct {
	index int // in its hint or section
	addr  netip.Addr
	rtt   int64
	dead  bool
	left  bool
}

// beside returns the place of an address that is not in a set of its own.
func (n *naive) beside(c naiveChoice) float64 {
	switch n.p.Sort {
	case SortRTT:
		return float64(c.rtt)
	case SortClient:
		return n.clientScore(c.addr)
	default:
		return n.drawnScore(c.addr)
	}
}
