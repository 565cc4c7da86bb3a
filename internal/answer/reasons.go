package answer

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// What was decided, in words for people.

// maxWords bounds the addresses of one record that its steps tell of.
const maxWords = 16

// account tells what the verdict on an address is, and what it rests upon.
func (x *reader) account(e *ExplainedAddress) string {
	switch {
	case !e.Asked:
		return "not asked for, since no verdict on it could change the answer"
	case e.Verdict.State == Unwatched:
		return or(x.source.Account(e.Addr, e.Port), "not watched")
	case e.Other != 0 && e.Verdict.State != Down:
		one, other := x.source.Account(e.Addr, e.Port), x.source.Account(e.Addr, e.Other)
		return fmt.Sprintf("%s, one port is enough: %s, and %s", e.Verdict.State, or(one, "no more is known"), or(other, "no more is known"))
	case e.Other != 0:
		return fmt.Sprintf("down at both ports: %s, and %s", or(x.source.Account(e.Addr, e.Port), "down"), or(x.source.Account(e.Addr, e.Other), "down"))
	default:
		return or(x.source.Account(e.Addr, e.Port), e.Verdict.State.String())
	}
}

func or(words, otherwise string) string {
	if words == "" {
		return otherwise
	}
	return words
}

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unwatched"
	}
}

// where returns the address with its port, where that is not the policy's.
func (e *ExplainedAddress) where() string {
	if e.Port == 0 {
		return e.Addr.String()
	}
	return netip.AddrPortFrom(e.Addr, e.Port).String()
}

// verdicts are the first steps of a record, those about its addresses.
func (x *reader) verdicts(addresses []ExplainedAddress) (steps []string) {
	for i := range addresses[:min(len(addresses), maxWords)] {
		e := &addresses[i]
		steps = append(steps, fmt.Sprintf("verdict: %s is %s", e.where(), x.account(e)))
	}
	if more := len(addresses) - maxWords; more > 0 {
		steps = append(steps, fmt.Sprintf("verdict: %d more addresses", more))
	}
	return steps
}

// steps returns the decisions about a record, and the one that settled it.
func (x *reader) steps(i int, e *ExplainedMember, fallback string) (steps []string, why string) {
	m := &x.members[i]
	s := &x.sets[m.set]
	steps = x.verdicts(e.Addresses)
	if m.open {
		steps = append(steps, "verdict: not all addresses of its name are known, so it is taken for one that is not down")
	}
	if m.relieved {
		steps = append(steps, "relief: it answers, and is down only because it flaps; so few others live that it counts as one that is not down")
	}
	if isService(s.rrtype) {
		return x.serviceSteps(m, e, steps)
	}
	if served, own := x.served(m), m.tier+1; s.divided && x.policy.Tiers.Len() > 0 {
		steps = append(steps, x.tierStep(own, served))
	}
	if fallback != "" {
		steps = append(steps, "fallback: "+fallback)
	}
	if e.Rank == 0 {
		why = x.whyGone(i, e, fallback)
		return append(steps, "it leaves: "+why), why
	}
	why = x.whyStays(i, e, fallback)
	if s.arranges && s.fate != replaced && len(x.bySet[m.set][0]) > 1 {
		steps = append(steps, "order: "+x.place(i, e))
	}
	return append(steps, x.staySteps(e, why, s.limit)...), why
}

// staySteps are the last steps of a record that stays.
func (x *reader) staySteps(e *ExplainedMember, why string, limit uint32) []string {
	steps := []string{"it stays: " + why}
	if ttl := e.Record.Header().Ttl; x.asked && ttl > limit {
		steps = append(steps, fmt.Sprintf("ttl: %d becomes %d", ttl, limit))
	}
	return steps
}

// tierStep tells of the tier that a record is in.
func (x *reader) tierStep(own, served int) string {
	words := fmt.Sprintf("tier: it is in tier %d of %d", own, x.policy.Tiers.Len()+1)
	if own > x.policy.Tiers.Len() {
		words += ", that of all addresses that prefer does not name"
	}
	switch served {
	case 0:
		return words + ", and in none are enough alive"
	case own:
		return words + ", which is the first with enough alive, and so is served"
	default:
		return fmt.Sprintf("%s, and tier %d is served", words, served)
	}
}

// whyGone tells why a record is not in the new answer.
func (x *reader) whyGone(i int, e *ExplainedMember, fallback string) string {
	m := &x.members[i]
	s := &x.sets[m.set]
	switch {
	case s.fate == replaced || s.fate == failed:
		return fmt.Sprintf("%s, and %s", x.health(m, e), fallback)
	case m.unpicked:
		return "others are picked; " + x.place(i, e)
	case m.down:
		return x.health(m, e)
	case m.benched:
		return fmt.Sprintf("it is in tier %d, which waits as long as tier %d lives", m.tier+1, x.served(m))
	default:
		return "the answer was taken away, with all that is beside it"
	}
}

// whyStays tells why a record is in the new answer.
func (x *reader) whyStays(i int, e *ExplainedMember, fallback string) string {
	m := &x.members[i]
	s := &x.sets[m.set]
	health := x.health(m, e)
	switch {
	case !x.asked:
		return "no verdict could change it"
	case s.fate == replaced:
		return fmt.Sprintf("%s, but the fallback has the same address", health)
	case s.fate.fell():
		return fmt.Sprintf("%s, but %s", health, fallback)
	case m.relieved:
		return health + ", but only because it flaps, and too few others live"
	case s.fixed && m.down:
		return health + ", but its RRset is signed, and nobody here can sign it again, so it is at the end"
	case s.fixed && m.benched:
		return fmt.Sprintf("it is in tier %d and should wait, but its RRset is signed, and nobody here can sign it again, so it is behind others", m.tier+1)
	case s.picks:
		return fmt.Sprintf("%s, and it is picked: %s", health, x.place(i, e))
	default:
		return health
	}
}

// health tells whether a record is down.
func (x *reader) health(m *member, e *ExplainedMember) string {
	rr, leads := e.Record.(*dns.SRV)
	switch {
	case !leads:
		return x.account(&e.Addresses[0])
	case m.down && len(e.Addresses) > 1:
		return fmt.Sprintf("all %d addresses of %s are down at port %d", len(e.Addresses), rr.Target, rr.Port)
	case len(e.Addresses) == 0:
		return fmt.Sprintf("no address of %s is known", rr.Target)
	case len(e.Addresses) == 1:
		return fmt.Sprintf("%s is %s", e.Addresses[0].where(), x.account(&e.Addresses[0]))
	default:
		return fmt.Sprintf("not all %d addresses of %s are down at port %d", len(e.Addresses), rr.Target, rr.Port)
	}
}

// place tells of the place of a record in the order.
func (x *reader) place(i int, e *ExplainedMember) string {
	m := &x.members[i]
	s := &x.sets[m.set]
	words := fmt.Sprintf("place %d of %d", x.places[i], x.ordered[m.set])
	if !isAddress(s.rrtype) {
		return words
	}
	own := &e.Addresses[0]
	switch share := fmt.Sprintf("with weight %d of %d", own.Weight, x.weights[m.set]); {
	case x.policy.Sort == SortClient:
		words += fmt.Sprintf(" in the order of the network %s, %s", x.network(), share)
	case x.policy.Sort == SortRTT && own.Verdict.RTT > 0 && !m.down && !m.relieved:
		words += fmt.Sprintf(" by round trip, which is %d ms", own.Verdict.RTT.Milliseconds())
	case x.policy.Sort == SortRTT:
		words += " by round trip, which is not known"
	case s.picks:
		words += fmt.Sprintf(" in one draw at random, %s; each answer has a draw of its own", share)
	}
	if s.picks {
		words += fmt.Sprintf("; pick takes %d", x.policy.Pick)
	}
	return words
}

// network returns the network of the client that SortClient goes by.
func (x *reader) network() string {
	bits := x.policy.ClientBits6
	if x.client.Is4() {
		bits = x.policy.ClientBits4
	}
	return netip.PrefixFrom(x.client, bits).String()
}

// fallback tells what the fallback made of an RRset, nothing where it did not apply.
func (x *reader) fallback(n int) string {
	s, f := &x.sets[n], &x.policy.Fallback
	if !s.fate.fell() {
		return ""
	}
	tried := ""
	if !s.fixed && isAddress(s.rrtype) && s.standby == 0 && len(f.Names) > 0 {
		tried = fmt.Sprintf("no name in fallback has an address that lives (%s), and ", strings.Join(f.Names, ", "))
	}
	switch {
	case s.fixed && s.fate == spared:
		return "it is signed, and nobody here can sign it again, so all of it stays"
	case s.standby > 0:
		return fmt.Sprintf("%s takes its place, with %s", f.Names[s.standby-1], joined(s.instead))
	case s.fate == failed:
		return tried + "fallback servfail says that the server has failed"
	case s.fate == spared && f.Kind == FallbackAll:
		return tried + "fallback all keeps all of it"
	case s.fate == spared:
		return tried + "addresses cannot stand in for these records, so all of it stays"
	case f.Kind == FallbackAddresses && len(s.instead) > 0:
		return tried + "fallback has " + joined(s.instead) + " instead"
	case f.Kind == FallbackAddresses:
		return tried + "fallback has no address of this family"
	case f.Kind == FallbackAll:
		return tried + "the other family of the name lives, which proves that the checks are right, so there are none of this one"
	default:
		return tried + "fallback nodata says that there are none"
	}
}

// joined names so many addresses as anybody reads.
func joined(addrs []netip.Addr) string {
	var words []string
	for _, addr := range addrs[:min(len(addrs), maxWords)] {
		words = append(words, addr.String())
	}
	if more := len(addrs) - maxWords; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return strings.Join(words, ", ")
}

// decision tells in one sentence what became of an RRset.
func (x *reader) decision(n, extra int, fallback string) string {
	s := &x.sets[n]
	if isService(s.rrtype) {
		return x.serviceDecision(n, extra)
	}
	down, relieved, waiting, unpicked, stay := 0, 0, 0, 0, 0
	members := x.bySet[n][extra]
	for _, i := range members {
		m := &x.members[i]
		down += number(m.down)
		relieved += number(m.relieved)
		waiting += number(m.benched && !m.down)
		unpicked += number(m.unpicked)
		stay += number(x.ranks[i] > 0)
	}
	words := fmt.Sprintf("%d of %d %s down", down, len(members), are(down))
	if relieved > 0 {
		words += fmt.Sprintf(", %d would be if others lived", relieved)
	}
	if waiting > 0 {
		words += fmt.Sprintf(", %d %s of a tier that waits", waiting, are(waiting))
	}
	if unpicked > 0 {
		words += fmt.Sprintf(", %d %s not picked", unpicked, are(unpicked))
	}
	if fallback != "" {
		if share := x.policy.Panic; share > 0 && s.down < s.size {
			words += fmt.Sprintf(", so that less than %d %% live", share)
		}
		return words + ": " + fallback
	}
	words += fmt.Sprintf(": %d %s", stay, staying(stay))
	return words + x.sealed(n)
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// sealed tells what became of the signatures of an RRset.
func (x *reader) sealed(n int) string {
	s := &x.sets[n]
	altered := s.signed && (&seals{edit: &edit{anatomy: x.anatomy}}).isAltered(n)
	switch {
	case altered:
		return ", signed again"
	case s.fixed && s.fate == sorted && x.unsealed:
		return ", since it is signed, and the plugin dnssec has not the key that it was signed by"
	case s.fixed && s.fate == sorted:
		return ", since it is signed, and nobody here can sign it again"
	default:
		return ""
	}
}

func staying(n int) string {
	if n == 1 {
		return "stays"
	}
	return "stay"
}
