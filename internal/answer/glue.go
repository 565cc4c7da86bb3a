package answer

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// isChecked tells whether the addresses behind an SRV record can be checked: its second label names the
// protocol (RFC 2782), and that has to be TCP.
func isChecked(rr *dns.SRV) bool {
	return rr.Hdr.Class == dns.ClassINET && rr.Hdr.Rrtype == dns.TypeSRV && rr.Port != 0 && isTCPService(rr.Hdr.Name)
}

// isTCPService tells whether a name is one that SRV records of a TCP service have.
func isTCPService(name string) bool {
	const label = "_tcp."
	off, end := dns.NextLabel(name, 0)
	if end || len(name) < off+len(label) {
		return false
	}
	return strings.EqualFold(name[off:off+len(label)], label)
}

// Types returns the types to ask for to find out where a name leads: that of SRV records if the name is of a service,
// else those of addresses.
func Types(name string) []uint16 {
	if isTCPService(name) {
		return []uint16{dns.TypeSRV}
	}
	return addressTypes[:]
}

// glue is the addresses in the additional section, for the SRV records whose targets they belong to.
type glue struct {
	gathered bool
	index    rrsetIndex // of sets
	sets     []glueSet
	records  []glueRecord // in the order of the section
}

// glueSet is where in glue.records the addresses of one owner and family are: each knows the next.
type glueSet struct{ first, last int }

type glueRecord struct {
	index int // in the additional section
	addr  netip.Addr
	next  int // -1 at the end
	goes  bool
}

func (g *glue) reset() {
	clear(g.records)
	g.index.reset()
	*g = glue{index: g.index, sets: g.sets[:0], records: g.records[:0]}
}

func (g *glue) gather(extra []dns.RR) {
	g.gathered = true
	for i, rr := range extra {
		h, addr, ok := address(rr)
		if !ok {
			continue
		}
		n := len(g.records)
		g.records = append(g.records, glueRecord{index: i, addr: addr, next: -1})
		if set, found := g.index.find(h.Name, h.Rrtype); found {
			s := &g.sets[set]
			g.records[s.last].next, s.last = n, n
		} else {
			g.index.add(h.Name, h.Rrtype)
			g.sets = append(g.sets, glueSet{n, n})
		}
	}
}

// pairService appends the pairs of an SRV record, but no more than are too many.
func (a *anatomy) pairService(rr *dns.SRV) {
	g := &a.glue
	if !g.gathered {
		g.gather(a.message.Extra)
	}
	for _, rrtype := range addressTypes {
		set, found := g.index.find(rr.Target, rrtype)
		if !found {
			continue
		}
		for n := g.sets[set].first; n >= 0 && len(a.pairs) <= maxPairs; n = g.records[n].next {
			a.pairs = append(a.pairs, pair{addr: g.records[n].addr, port: rr.Port, glue: n})
		}
	}
}

// thinGlue decides which addresses leave the additional section: those of targets that no SRV record which
// remains can use. It reports whether there are any.
func (a *anatomy) thinGlue() (goes bool) {
	g := &a.glue
	if !g.gathered {
		return false
	}
	// An address that one record cannot use may serve another, so what stays is told after what goes.
	for _, useful := range [...]bool{false, true} {
		for i := range a.members {
			m := &a.members[i]
			s := &a.sets[m.set]
			if s.rrtype != dns.TypeSRV {
				continue
			}
			for _, p := range a.pairs[m.from:m.to] {
				if s.uses(m, p) == useful {
					g.records[p.glue].goes = !useful
				}
			}
		}
	}
	if g.goes() {
		g.keep(a.message)
	}
	return g.goes()
}

// uses tells whether an SRV record that remains needs the address of the pair. A record that is in the
// answer although it is down keeps all of its addresses, and so does one that the fallback spares.
func (s *rrset) uses(m *member, p pair) bool {
	return s.remains(m) && (!p.down || m.down || s.fate == spared)
}

func (g *glue) goes() bool {
	return slices.ContainsFunc(g.records, func(r glueRecord) bool { return r.goes })
}

// keep lets stay what has a signature, and the addresses of names that others point to.
func (g *glue) keep(m *dns.Msg) {
	g.index.eachSigned(m.Extra, g.keepSet)
	for _, section := range [...][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			name := pointer(rr)
			for _, rrtype := range addressTypes {
				if set, found := g.index.find(name, rrtype); found {
					g.keepSet(set)
				}
			}
		}
	}
}

func (g *glue) keepSet(set int) {
	for n := g.sets[set].first; n >= 0; n = g.records[n].next {
		g.records[n].goes = false
	}
}

// pointer returns the name whose addresses a record brings along (RFC 1035, section 3.3, RFC 9460, section
// 4.1). It is empty for those without, and for the SRV records that are checked.
func pointer(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.NS:
		return rr.Ns
	case *dns.MX:
		return rr.Mx
	case *dns.SRV:
		if !isChecked(rr) {
			return rr.Target
		}
	case *dns.SVCB:
		return rr.Target
	case *dns.HTTPS:
		return rr.Target
	}
	return ""
}

// trim returns the additional section without the addresses that go, and their number.
func (g *glue) trim(extra []dns.RR) (kept []dns.RR, removed int) {
	records := g.records
	for i, rr := range extra {
		if len(records) > 0 && records[0].index == i {
			goes := records[0].goes
			records = records[1:]
			if goes {
				removed++
				continue
			}
		}
		kept = append(kept, rr)
	}
	return kept, removed
}
