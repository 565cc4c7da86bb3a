package answer

import (
	"fmt"
	"slices"
)

// What was decided about services and the additional section, in words for people.

// serviceSteps returns the decisions about an HTTPS or SVCB record, which stays, without some of the addresses in it.
func (x *reader) serviceSteps(m *member, e *ExplainedMember, steps []string) (_ []string, why string) {
	for _, a := range e.Addresses[:min(len(e.Addresses), m.own.to-m.own.from, maxWords)] {
		if a.Why != "" {
			steps = append(steps, fmt.Sprintf("hint: %s %s", a.where(), a.Why))
		}
	}
	if e.Rank == 0 {
		why = "the answer was taken away, with all that is beside it"
		return append(steps, "it leaves: "+why), why
	}
	switch {
	case len(e.Addresses) == 0:
		why = "no address that could be checked is known of it"
	case x.sets[m.set].fixed:
		why = "its RRset is signed, and nobody here can sign it again"
	default:
		why = "records of services stay, only addresses in their hints leave"
	}
	return append(steps, x.staySteps(e, why, x.sets[m.set].limit)...), why
}

// whyHint tells why an address leaves a hint, or would if it were not for the rest of the record.
func (x *reader) whyHint(m *member, pair *pair) (why string) {
	switch {
	case pair.verdict.State == Down:
		why = "is down"
	case x.hasLeft(m, pair):
		why = "has left the addresses of the same name in the answer"
	case pair.benched:
		why = "is in a tier that waits"
	case pair.leaves:
		why = "is not picked"
	default:
		return ""
	}
	switch {
	case pair.leaves:
		return why + ", so it leaves"
	case x.sets[m.set].fixed:
		return why + ", but the record is signed, and nobody here can sign it again"
	default:
		return why + ", but the record needs a hint, and has no other"
	}
}

// hasLeft tells whether the address of a hint has left the addresses of its name in the answer section.
func (x *reader) hasLeft(m *member, pair *pair) bool {
	for _, rrtype := range addressTypes {
		if set, found := x.index.find(targetOf(x.service(m)), rrtype); found {
			if _, gone := x.gone[place{set, pair.addr}]; gone {
				return true
			}
		}
	}
	return false
}

// serviceDecision tells in one sentence what became of HTTPS or SVCB records.
func (x *reader) serviceDecision(n, extra int) string {
	leave, all, records := 0, 0, x.bySet[n][extra]
	for _, i := range records {
		pairs := x.pairsOf(x.members[i].own)
		all += len(pairs)
		for j := range pairs {
			leave += number(pairs[j].leaves)
		}
	}
	if extra == 1 && x.emptied {
		return "the answer was taken away, with all that is beside it"
	}
	words := fmt.Sprintf("%d of %d addresses in hints %s", leave, all, leaves(leave))
	if x.sets[n].fixed {
		words += ", since the records are signed, and nobody here can sign them again"
	} else if leave > 0 {
		words += x.sealed(n)
	}
	return words
}

func leaves(n int) string {
	if n == 1 {
		return "leaves"
	}
	return "leave"
}

// glueSteps returns the decisions about an address in the additional section.
func (x *reader) glueSteps(n int, r *glueRecord, e *ExplainedMember) (steps []string, why string) {
	s := &x.glue.sets[n]
	steps = x.verdicts(e.Addresses)
	if e.Rank == 0 {
		why = x.whyGlueLeaves(s, r, e)
		return append(steps, "it leaves: "+why), why
	}
	isDown := e.isDown()
	switch {
	case s.fixed:
		why = "it is signed, and nobody here can sign it again"
	case isDown && s.needed:
		why = "records lead to it that nobody checks"
	case isDown:
		why = "a record that stays leads to it"
	case len(e.Addresses) == 0:
		why = "no record leads to it that anybody checks"
	default:
		why = x.account(&e.Addresses[0])
	}
	return append(steps, x.staySteps(e, why, s.limit)...), why
}

// isDown tells whether all addresses that the record leads to are.
func (m *ExplainedMember) isDown() bool {
	return len(m.Addresses) > 0 && !slices.ContainsFunc(m.Addresses, func(a ExplainedAddress) bool { return a.Verdict.State != Down })
}

// whyGlueLeaves tells why an address leaves the additional section.
func (x *reader) whyGlueLeaves(s *glueSet, r *glueRecord, e *ExplainedMember) string {
	left := false
	if s.twin != none {
		_, left = x.gone[place{s.twin, r.addr}]
	}
	switch {
	case !r.goes:
		return "the answer was taken away, with all that is beside it"
	case left:
		return "it has left the answer section"
	case r.benched:
		return "it is in a tier that waits"
	case r.unpicked:
		return "others are picked"
	case r.loss && e.isDown():
		return x.account(&e.Addresses[0])
	case r.loss:
		return "the records that lead to it are down"
	default:
		return "no record that stays leads to it"
	}
}

// glueDecision tells in one sentence what became of the addresses of a name in the additional section.
func glueDecision(e *ExplainedSet) string {
	leave := 0
	for i := range e.Members {
		leave += number(e.Members[i].Rank == 0)
	}
	return fmt.Sprintf("%d of %d %s", leave, len(e.Members), leaves(leave))
}
