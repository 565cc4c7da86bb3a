package answer

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Witness is a Source that can tell more of an address than its verdict.
type Witness interface {
	Source
	// Account returns in a few words what the verdict on an address at a port rests upon, such as "down since 12:00:01:
	// timeout". The port is as in Ask. It is empty where there is no more to tell than the verdict.
	Account(addr netip.Addr, port uint16) string
}

// Explanation is what [Filter] makes of an answer, and why.
type Explanation struct {
	// Message is what Filter returns.
	Message *dns.Msg
	Result
	// Passed tells why nobody looked at the addresses of the answer. It is empty where somebody did.
	Passed string
	// Sets are the RRsets that lead to addresses: those of the answer section, then those of the additional section. An
	// RRset that stands in both is there twice. There are none of an answer that has too many addresses.
	Sets []ExplainedSet
}

// ExplainedSet is what was decided about an RRset in one section.
type ExplainedSet struct {
	Name  string // as its first record has it
	Type  uint16
	Extra bool // it is in the additional section
	// Decision is one sentence for people.
	Decision string
	// Fallback is what the fallback made of it, empty where it did not apply.
	Fallback string
	// Members are its records, in the order of the message.
	Members []ExplainedMember
}

// ExplainedMember is what was decided about a record.
type ExplainedMember struct {
	Record dns.RR // as it was before; not to be changed
	// Rank is its place in the RRset of the new answer, from 1. It is 0 where the record is not in that.
	Rank int
	// Why is the decision that settled it.
	Why string
	// Steps are all decisions about it, in the order in which they were taken. Of a record that is not in the new answer,
	// the last one ends with Why.
	Steps []string
	// Addresses are where the record leads.
	Addresses []ExplainedAddress
}

// ExplainedAddress is an address that a record leads to.
type ExplainedAddress struct {
	Addr netip.Addr
	// Port is where it is used, 0 for the ports of the policy. Other is a second port that serves as well, 0 for none.
	Port, Other uint16
	// Asked tells that Verdict is one. Nobody asks where no verdict could change the answer.
	Asked   bool
	Verdict Verdict
	Tier    int // that it is in, from 1, and one more than there are where it is in none; 0 where there are no tiers
	Weight  int
	// Leaves tells that the address leaves a hint of the record, which stays, and Why tells the reason.
	Leaves bool
	Why    string
}

// Explain tells what [Filter] does with an answer, and why. It does it by the same steps, and reads what was decided in
// them. Where the query has no Draw, each number is drawn at random: the message is then one of those that a client may
// get. What it is given is never changed.
func Explain(m *dns.Msg, q *Query, source Witness) Explanation {
	a := anatomyFor(m)
	defer a.release()
	asked := *q
	asked.Draw = sameAgain(q.Draw)
	filtered, result, valid := a.filter(m, &asked, source)
	if !valid {
		filtered, result = a.filterUnsigned(m, &asked, source)
	}
	e := Explanation{Message: filtered, Result: result}
	switch {
	case a.isExcessive():
		e.Passed = "it has more addresses than anybody looks at, so it passes as it is"
		return e
	case len(a.sets) == 0:
		e.Passed = "it has no records that lead to addresses"
		return e
	case !a.askable():
		e.Passed = "no address in it can be checked, or none could leave it"
	}
	x := newReader(a, &asked, source)
	x.unsealed = !valid
	e.Sets = x.all()
	return e
}

// sameAgain returns draw, or one at random, that returns the same number for an address each time.
func sameAgain(draw func(netip.Addr) float64) func(netip.Addr) float64 {
	if draw == nil {
		draw = drawn
	}
	have := make(map[netip.Addr]float64)
	return func(addr netip.Addr) float64 {
		if _, known := have[addr]; !known {
			have[addr] = draw(addr)
		}
		return have[addr]
	}
}

// reader reads from an anatomy what was decided.
type reader struct {
	*anatomy
	policy   *Policy
	client   netip.Addr // the part of the client's address that SortClient goes by
	source   Witness
	asked    bool       // for verdicts
	unsealed bool       // signatures were tried, but would not have been valid
	bySet    [][2][]int // the members of each set by section, as their numbers
	byGlue   [][]int    // the pairs at each address of the additional section, as their numbers
	ranks    []int      // of each member, its place in the new answer
	places   []int      // of each member that took part in an order, its place in that
	ordered  []int      // of each set, how many did
	weights  []int      // of each set of addresses, the sum of their weights
}

func newReader(a *anatomy, q *Query, source Witness) *reader {
	r := q.ranking()
	x := &reader{
		anatomy: a,
		policy:  q.Zone.Policy,
		client:  r.network,
		source:  source,
		asked:   a.askable(),
		bySet:   make([][2][]int, len(a.sets)),
		byGlue:  make([][]int, len(a.glue.records)),
		ranks:   make([]int, len(a.members)),
		places:  make([]int, len(a.members)),
		ordered: make([]int, len(a.sets)),
		weights: make([]int, len(a.sets)),
	}
	for i := range a.members {
		m := &a.members[i]
		section := &x.bySet[m.set][number(m.extra)]
		*section = append(*section, i)
	}
	for i := range a.pairs {
		if at := a.pairs[i].glue; at != none {
			x.byGlue[at] = append(x.byGlue[at], i)
		}
	}
	a.countTiers(x.policy) // since then something else was counted
	for n := range a.sets {
		x.findPlaces(n)
		x.findRanks(n)
	}
	return x
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

// findPlaces finds the order of an RRset that is arranged. The new answer was made from the first of it, one by one, so
// what is left of the span begins behind them.
func (x *reader) findPlaces(n int) {
	s := &x.sets[n]
	if !s.arranges {
		return
	}
	some := 0 // in the span
	rest := 0 // not picked, behind it
	for _, i := range x.bySet[n][0] {
		switch m := &x.members[i]; {
		case s.remains(m):
			some++
		case m.unpicked:
			rest++
		}
	}
	for place, at := range x.order[s.order.to-some : s.order.to+rest] {
		x.places[at.of] = place + 1
		x.ordered[n]++
		if isAddress(s.rrtype) {
			x.weights[n] += x.policy.Weights.Of(x.pairs[x.members[at.of].own.from].addr)
		}
	}
}

// findRanks finds the places of the members of an RRset in the new answer.
func (x *reader) findRanks(n int) {
	s := &x.sets[n]
	for extra, members := range x.bySet[n] {
		next := 1
		for _, i := range members {
			m := &x.members[i]
			switch {
			case extra == 1 && x.emptied:
			case s.fate == replaced && isAddress(s.rrtype):
				x.ranks[i] = slices.Index(s.instead, x.pairs[m.own.from].addr) + 1
			case !s.remains(m):
			case s.arranges:
				x.ranks[i] = x.places[i]
			default:
				x.ranks[i] = next
				next++
			}
		}
	}
}

// all returns the RRsets in the order of the message.
func (x *reader) all() (all []ExplainedSet) {
	for extra := range 2 {
		for n := range x.sets {
			if len(x.bySet[n][extra]) > 0 {
				all = append(all, x.set(n, extra))
			}
		}
	}
	for n := range x.glue.sets {
		all = append(all, x.glueSet(n))
	}
	return all
}

// set returns what was decided about an RRset.
func (x *reader) set(n, extra int) ExplainedSet {
	s := &x.sets[n]
	e := ExplainedSet{Type: s.rrtype, Extra: extra == 1, Fallback: x.fallback(n)}
	for _, i := range x.bySet[n][extra] {
		e.Members = append(e.Members, x.member(i, e.Fallback))
	}
	e.Name = e.Members[0].Record.Header().Name
	e.Decision = x.decision(n, extra, e.Fallback)
	return e
}

// member returns what was decided about a record.
func (x *reader) member(i int, fallback string) ExplainedMember {
	m := &x.members[i]
	s := &x.sets[m.set]
	e := ExplainedMember{Record: x.record(m), Rank: x.ranks[i]}
	for _, which := range [...]span{m.own, m.beside} {
		asked := x.asked && (s.matters(x.policy) || isService(s.rrtype) && which == m.beside)
		for j := which.from; j < which.to; j++ {
			e.Addresses = append(e.Addresses, x.address(m, j, asked))
		}
	}
	e.Steps, e.Why = x.steps(i, &e, fallback)
	return e
}

// address returns what is known of the address of a pair.
func (x *reader) address(m *member, i int, asked bool) ExplainedAddress {
	pair := &x.pairs[i]
	e := ExplainedAddress{
		Addr: pair.addr, Port: pair.port, Other: pair.other,
		Asked: asked, Verdict: pair.verdict,
		Tier: x.tier(pair.addr), Weight: x.policy.Weights.Of(pair.addr.Unmap()),
		Leaves: pair.leaves,
	}
	if i >= m.own.from && i < m.own.to && isService(x.sets[m.set].rrtype) {
		e.Why = x.whyHint(m, pair)
	}
	return e
}

// tier returns that of an address from 1, and 0 where there are no tiers.
func (x *reader) tier(addr netip.Addr) int {
	if x.policy.Tiers.Len() == 0 {
		return 0
	}
	return x.policy.Tiers.Of(addr.Unmap()) + 1
}

// served returns the tier that is served of the line of a member, from 1. It is 0 where none is, and where there are none.
func (x *reader) served(m *member) int {
	if !x.sets[m.set].divided || x.policy.Tiers.Len() == 0 {
		return 0
	}
	if tier, served := x.tally.tierOf(x.lineOf(m)); served {
		return tier + 1
	}
	return 0
}

// glueSet returns what was decided about the addresses of a name in the additional section.
func (x *reader) glueSet(n int) ExplainedSet {
	s, key := &x.glue.sets[n], &x.glue.index.keys[n]
	e := ExplainedSet{Name: key.owner, Type: key.rrtype, Extra: true}
	rank := 0
	for at := s.first; at != none; at = x.glue.records[at].next {
		r := &x.glue.records[at]
		m := ExplainedMember{Record: x.message.Extra[r.index]}
		for _, i := range x.byGlue[at] {
			if !slices.ContainsFunc(m.Addresses, x.pairs[i].isAt) {
				m.Addresses = append(m.Addresses, x.address(new(member), i, x.asked))
			}
		}
		if !r.goes && !x.emptied {
			rank++
			m.Rank = rank
		}
		m.Steps, m.Why = x.glueSteps(n, r, &m)
		e.Members = append(e.Members, m)
	}
	e.Decision = glueDecision(&e)
	return e
}

// isAt tells whether somebody else leads to the same place as the pair.
func (p *pair) isAt(e ExplainedAddress) bool {
	return p.addr == e.Addr && p.port == e.Port && p.other == e.Other
}
