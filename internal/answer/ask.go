package answer

// ask gets the verdicts on all addresses where they could change the answer, and forgets what was decided by older ones.
func (a *anatomy) ask(q *Query, source Source) {
	p := q.Zone.Policy
	a.asides, a.awaits, a.loses = 0, false, false
	a.glue.forgetVerdicts()
	for n := range a.sets {
		s := &a.sets[n]
		s.judgement = judgement{}
		s.down, s.watched, s.lives = 0, false, false
	}
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		m.benched, m.unpicked, m.relieved = false, false, false
		down := a.askFor(m.own, s, s.matters(p), source)
		down += a.askFor(m.beside, s, s.matters(p) || isService(s.rrtype), source)
		m.down = down > 0 && !m.open && down == m.pairs() && !isService(s.rrtype)
		if m.down {
			s.down++
		}
	}
	a.ahead = a.ahead[:0]
}

// pairs returns the number of addresses that the member leads to.
func (m *member) pairs() int { return m.own.to - m.own.from + m.beside.to - m.beside.from }

// matters tells whether a verdict could change the RRset. It could not where the members of one that leads to names share
// a single address and port and the fallback would keep them. That of a single address may prove something of another.
func (s *rrset) matters(p *Policy) bool {
	switch {
	case isAddress(s.rrtype):
		return true
	case isService(s.rrtype):
		return !s.fixed
	default:
		return s.varied || !p.Fallback.keeps(s.rrtype)
	}
}

// askFor gets the verdicts on some of the addresses of an RRset, if they matter, and returns how many are down.
func (a *anatomy) askFor(which span, s *rrset, matter bool, source Source) (down int) {
	if !matter {
		return 0
	}
	for i := which.from; i < which.to; i++ {
		pair := &a.pairs[i]
		v := a.verdictOn(i, source)
		pair.verdict, pair.down, pair.leaves = v, v.State == Down, false
		if v.State != Unwatched {
			if pair.glue != none {
				a.glue.learn(pair.glue, v)
			}
			// What is beside a service record changes nothing in that.
			s.watched = s.watched || pair.glue == none || !isService(s.rrtype)
		}
		s.lives = s.lives || v.State == Up
		a.awaits = a.awaits || v.awaits()
		if pair.down {
			down++
		}
	}
	a.loses = a.loses || down > 0
	return down
}

// awaits tells whether there is a verdict to come, and it is known when.
func (v *Verdict) awaits() bool { return v.State == Unknown && v.Within > 0 }

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
		return Verdict{State: Unknown, Within: sooner(v.Within, w.Within)}
	}
}
