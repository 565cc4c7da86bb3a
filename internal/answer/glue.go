package answer

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// glue is the addresses in the additional section.
type glue struct {
	index   rrsetIndex // of sets
	sets    []glueSet
	records []glueRecord // in the order of the section
}

// glueSet is the addresses of one owner and family. Each of them knows the next.
type glueSet struct {
	first, last int32  // in glue.records
	twin        int    // the RRset of the answer section that it is as well, none where it stands here only
	watched     bool   // at least one of them has a state
	fixed       bool   // they are signed, and nobody can sign them again
	needed      bool   // by records that nobody checks
	checked     bool   // records lead here that somebody checks
	altered     bool   // some of them go
	limit       uint32 // of the TTL
}

type glueRecord struct {
	index int // in the additional section
	set   int
	addr  netip.Addr
	next  int32 // none at the end
	// rtt is the shortest round trip of those that are known, and within how long it takes at most until there is a
	// verdict, 0 where there is one, or nobody can tell.
	rtt, within time.Duration

	alive bool // a record that remains leads to it, and it is not down there
	goes  bool
	loss  bool // because it is down

	benched  bool // another tier is served
	unpicked bool // others are
}

func (g *glue) reset() {
	clear(g.records)
	g.index.reset()
	*g = glue{index: g.index, sets: g.sets[:0], records: g.records[:0]}
}

// add notes an address record.
func (g *glue) add(i int, h *dns.RR_Header, addr netip.Addr) {
	n := int32(len(g.records))
	set, found := g.index.find(h.Name, h.Rrtype)
	if found {
		s := &g.sets[set]
		g.records[s.last].next, s.last = n, n
	} else {
		set = g.index.add(h.Name, h.Rrtype)
		g.sets = append(g.sets, glueSet{first: n, last: n, twin: none})
	}
	g.records = append(g.records, glueRecord{index: i, set: set, addr: addr, next: none})
}

// addBeside appends the pairs of the addresses that the names in SRV, HTTPS and SVCB records have: those in the message,
// and for SRV records, which go when all of them are down, those that the message lacks.
func (a *anatomy) addBeside(p *Policy, source Source) {
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		m.beside.from = len(a.pairs)
		switch {
		case s.rrtype == dns.TypeSRV:
			a.addTarget(m, a.message.Answer[m.index].(*dns.SRV), p, source)
		case isService(s.rrtype):
			rr := a.service(m)
			port, other := portsOf(rr, qnameOf(a.message))
			if port == 0 {
				break
			}
			for _, rrtype := range addressTypes {
				a.addGlue(targetOf(rr), rrtype, port, other)
			}
		}
		m.beside.to = len(a.pairs)
		if a.isExcessive() {
			return
		}
		if s.rrtype == dns.TypeSRV {
			beside := a.pairsOf(m.beside)
			s.extend(beside)
			s.blank = s.blank || len(beside) == 0
			s.varied = s.varied || s.blank && s.first.IsValid()
		}
	}
}

// addTarget appends the pairs of an SRV record. They are of no interest where the record is the only one and stays anyway.
func (a *anatomy) addTarget(m *member, rr *dns.SRV, p *Policy, source Source) {
	var given [len(addressTypes)]bool
	some := a.sets[m.set].size > 1 || !p.Fallback.keeps(dns.TypeSRV)
	for i, rrtype := range addressTypes {
		given[i] = a.addGlue(rr.Target, rrtype, rr.Port, 0)
		some = some || given[i]
	}
	if !some {
		return
	}
	for i, rrtype := range addressTypes {
		if given[i] {
			continue
		}
		a.resolves = true
		a.questions++
		addrs, known := source.Resolve(rr.Target, rrtype)
		m.open = m.open || !known
		for _, addr := range addrs {
			if a.isExcessive() {
				return
			}
			a.addPair(pair{addr: addr, port: rr.Port, glue: none})
		}
	}
}

// addGlue appends the pairs of the addresses of a name that are in the additional section. It reports whether there are
// any.
func (a *anatomy) addGlue(name string, rrtype, port, other uint16) bool {
	g := &a.glue
	set, found := g.index.find(name, rrtype)
	if !found {
		return false
	}
	for n := g.sets[set].first; n != none && !a.isExcessive(); n = g.records[n].next {
		a.addPair(pair{addr: g.records[n].addr, port: port, other: other, glue: n})
	}
	return true
}

// learn takes in a verdict on an address.
func (g *glue) learn(record int32, v Verdict) {
	r := &g.records[record]
	g.sets[r.set].watched = true
	if v.State != Down {
		r.rtt = sooner(r.rtt, v.RTT)
	}
	if v.awaits() {
		r.within = sooner(r.within, v.Within)
	}
}

// forgetVerdicts is for the next time that all are asked for.
func (g *glue) forgetVerdicts() {
	for n := range g.records {
		r := &g.records[n]
		r.rtt, r.within = 0, 0
	}
}

// sooner returns the shorter of two durations of which 0 says nothing.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// thinGlue decides which addresses leave the additional section: those that no record which remains can use, those that
// have left the answer section, and those that are benched or not picked. It reports whether there are any.
func (a *anatomy) thinGlue(r *ranking) (goes bool) {
	g := &a.glue
	if len(g.records) == 0 {
		return false
	}
	selects := a.services && r.selects()
	if a.services && (a.dropUnused() || selects) {
		g.findNeeded(a.message, a.most*textOfPair)
	}
	for n := range g.records {
		record := &g.records[n]
		s := &g.sets[record.set]
		loss, left := false, false
		if s.twin != none {
			loss, left = a.gone[place{s.twin, record.addr}]
		}
		unused := record.goes && !s.needed
		record.goes = !s.fixed && (left || unused)
		record.loss = loss || unused && record.loss
		goes = goes || record.goes
	}
	if selects {
		goes = a.chooseGlue(r) || goes
	}
	for n := range g.records {
		record := &g.records[n]
		s := &g.sets[record.set]
		s.altered = s.altered || record.goes
	}
	return goes
}

// chooseGlue has the addresses go that are benched or not picked. It reports whether there are any.
func (a *anatomy) chooseGlue(r *ranking) (goes bool) {
	g, t := &a.glue, &a.tally
	t.reset()
	if r.Tiers.Len() > 0 {
		for n := range g.records {
			if record := &g.records[n]; g.sets[record.set].isOpen() {
				t.count(lineFor(record.set, 0), r.Tiers.Of(record.addr), !record.alive)
			}
		}
		t.serve(r.Policy)
	}
	for n := range g.sets {
		s := &g.sets[n]
		if !s.isOpen() {
			continue
		}
		tier, served := t.tierOf(lineFor(n, 0))
		a.candidates = a.candidates[:0]
		for at := s.first; at != none; at = g.records[at].next {
			record := &g.records[at]
			switch {
			case record.goes:
			case served && r.Tiers.Of(record.addr) != tier:
				record.goes, record.benched, goes = true, true, true
			case r.Pick > 0:
				class := 0
				if !record.alive {
					class = lastClass
				}
				a.candidates = append(a.candidates, ranked{rank{class, r.score(record.addr, record.rtt, true)}, int(at)})
			}
		}
		for _, out := range r.pick(a.candidates) {
			g.records[out.of].goes, g.records[out.of].unpicked, goes = true, true, true
		}
	}
	return goes
}

// isOpen tells whether living addresses may leave the set.
func (s *glueSet) isOpen() bool { return s.checked && !s.fixed && !s.needed && s.twin == none }

// dropUnused has the addresses go that no record can use. An address that one record cannot use may serve another, so
// what stays is told after what goes.
func (a *anatomy) dropUnused() (goes bool) {
	for _, useful := range [...]bool{false, true} {
		for i := range a.members {
			m := &a.members[i]
			s := &a.sets[m.set]
			for _, p := range a.pairsOf(m.beside) {
				if p.glue == none {
					continue
				}
				r := &a.glue.records[p.glue]
				a.glue.sets[r.set].checked = true
				r.loss = r.loss || p.down || s.fate == replaced || s.fate == failed
				if s.uses(m, p) == useful {
					r.goes, goes = !useful, goes || !useful
					r.alive = useful && (r.alive || !p.down)
				}
			}
		}
	}
	return goes
}

// uses tells whether a record that remains needs the address of the pair. An SRV record that is in the
// answer although it is down keeps all of its addresses, and so does one that the fallback spares.
func (s *rrset) uses(m *member, p pair) bool {
	return s.remains(m) && (!p.down || m.down || s.fate == spared)
}

// findNeeded finds the addresses of names that records point to which are not checked. If these names are too long to be
// looked at, all addresses may be needed.
func (g *glue) findNeeded(m *dns.Msg, maxText int) {
	qname := qnameOf(m)
	for i, section := range [...][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			name := pointer(rr, qname, i)
			if name == "" {
				continue
			}
			if g.index.text > maxText {
				for n := range g.sets {
					g.sets[n].needed = true
				}
				return
			}
			for _, rrtype := range addressTypes {
				if set, found := g.index.find(name, rrtype); found {
					g.sets[set].needed = true
				}
			}
		}
	}
}

// Sections of a message, in their order.
const (
	answerSection = iota
	authoritySection
	additionalSection
)

// pointer returns the name whose addresses a record in a section brings along (RFC 1035, section 3.3; RFC 9460, section
// 4.1). It is empty for those without, and for those that are checked.
func pointer(rr dns.RR, qname string, section int) string {
	switch rr := rr.(type) {
	case *dns.NS:
		return rr.Ns
	case *dns.MX:
		return rr.Mx
	case *dns.SRV:
		if section != answerSection || !isChecked(rr) {
			return rr.Target
		}
	case *dns.SVCB:
		return unchecked(rr, qname, section)
	case *dns.HTTPS:
		return unchecked(&rr.SVCB, qname, section)
	}
	return ""
}

// unchecked returns the name in an HTTPS or SVCB record that is not checked. One in AliasMode needs no addresses itself.
func unchecked(rr *dns.SVCB, qname string, section int) string {
	if rr.Priority == 0 {
		return ""
	}
	if section != authoritySection && rr.Hdr.Class == dns.ClassINET {
		if port, _ := portsOf(rr, qname); port != 0 {
			return ""
		}
	}
	return targetOf(rr)
}
