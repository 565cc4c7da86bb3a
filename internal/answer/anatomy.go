package answer

import (
	"net/netip"
	"sync"

	"github.com/miekg/dns"
)

// anatomies are used again and again. On the stack they would make those of the goroutines that serve
// queries grow, which costs more than all the rest.
var anatomies = sync.Pool{New: func() any { return new(anatomy) }}

// giants are those of answers out of the ordinary. To make them costs more than to use them, but while nobody sends such
// answers they are garbage.
var giants = sync.Pool{New: func() any { return new(anatomy) }}

// ordinary is the number of records, or of addresses in them, that an answer may well have.
const ordinary = 256

func anatomyFor(m *dns.Msg) *anatomy {
	if len(m.Answer)+len(m.Extra) > ordinary {
		return giants.Get().(*anatomy)
	}
	return anatomies.Get().(*anatomy)
}

// release keeps the space for the next answer.
func (a *anatomy) release() {
	if a.message != nil {
		a.forget()
	}
	a.ahead = a.ahead[:0]
	if max(cap(a.members), cap(a.pairs), cap(a.glue.records)) > ordinary {
		giants.Put(a)
	} else {
		anatomies.Put(a)
	}
}

// forget forgets everything but the space.
func (a *anatomy) forget() {
	clear(a.sets)
	clear(a.pairs)
	clear(a.gone)
	a.index.reset()
	a.glue.reset()
	a.sets, a.members, a.pairs = a.sets[:0], a.members[:0], a.pairs[:0]
	a.order, a.candidates, a.ahead = a.order[:0], a.candidates[:0], a.ahead[:0]
	a.findings = findings{}
}

// anatomy is the records of a message that a verdict may change, sorted by RRset.
type anatomy struct {
	findings
	index   rrsetIndex // of sets
	sets    []rrset    // those of the answer section first
	members []member   // of the answer section in its order, then of the additional section in its order
	pairs   []pair     // those of one member are together
	glue    glue
	ahead   []Verdict // on the first pairs, which were asked for already

	gone  map[place]bool // addresses that leave an RRset of the answer, and whether that is because they are down
	tally tally
	order []ranked // members in their new order, those of one RRset together

	candidates []ranked // space for those of one pick
}

// findings are about a message as a whole.
type findings struct {
	message *dns.Msg

	most      int // pairs that there may be
	questions int // to the source, of which there may be so many
	asides    int // further ones for RRsets that fell, of which there may be what is left of that

	answered int  // number of sets in the answer section
	twins    bool // there are glue sets that stand in the answer section too
	services bool // there are records that lead to addresses elsewhere
	resolves bool // addresses were asked for that the message lacks
	signed   bool // there are signatures
	awaits   bool // there are verdicts to come
	loses    bool // there are addresses that are down
	emptied  bool // the answer was taken away

	instead [len(addressTypes)][]netip.Addr // the addresses of the fallback by their type, where they were needed
}

// member is a record that leads to addresses.
type member struct {
	index int  // in its section
	extra bool // that is the additional one, not the answer
	open  bool // there may be more addresses than are known
	set   int  // in anatomy.sets
	// Its pairs: those of addresses in the record itself, and those of the name in it.
	own, beside span

	down     bool
	relieved bool // it was, by damping alone, and is needed
	tier     int  // where tiers matter
	benched  bool // another tier is served
	unpicked bool // others are
}

// span is a part of a slice.
type span struct{ from, to int }

func (a *anatomy) pairsOf(s span) []pair { return a.pairs[s.from:s.to] }

// pair is an address that a record leads to, and the port it is used on.
type pair struct {
	addr    netip.Addr
	port    uint16 // 0 for the ports of the policy
	other   uint16 // a second port that serves as well, 0 for none
	glue    int32  // where the address is in glue.records, or none
	verdict Verdict
	down    bool // by the verdict, damping and its RRset considered
	leaves  bool // of a hint: the address leaves it
	benched bool // of a hint: because another tier is served
}

const none = -1

// rrset is the members of one owner and type. There may be thousands, so what is small stands together.
type rrset struct {
	first   netip.AddrPort // not valid while there is none
	size    int
	down    int // number of members
	rrtype  uint16
	extra   bool // it stands in the additional section, whether or not in the answer
	varied  bool // its members are not all at one address and port
	blank   bool // a member of it has no address that is known
	signed  bool // by an RRSIG in a section where it stands
	fixed   bool // it is, and nobody can sign it again
	watched bool // at least one address has a state
	lives   bool // at least one address is up
	judgement
}

// judgement is what was decided about an RRset.
type judgement struct {
	benched int          // number of members that are healthy, but in another tier than is served
	instead []netip.Addr // of one that is replaced
	order   span         // of anatomy.order, of one that is arranged
	ttl     uint32       // for what is there instead
	standby int32        // the number of the name that it comes from, from 1, 0 where it is from none
	limit   uint32       // of its TTL
	fate    fate
	divided bool // it has tiers
	enough  bool // members are healthy
	placed  bool // what is there instead is in the new answer

	arranges  bool // those that remain are in anatomy.order
	picks     bool // not all of them are picked
	reordered bool // their order is another than before

	alteredAnswer, alteredExtra bool // it loses hints, in that section
}

// askable tells whether a verdict could change the message.
func (a *anatomy) askable() bool {
	return a.questions > 0 && !a.isExcessive()
}

// isExcessive tells whether the message takes more work than any message that is meant well.
func (a *anatomy) isExcessive() bool {
	return a.questions > a.most || a.index.text+a.glue.index.text > a.most*textOfPair
}

// addPair appends a pair.
func (a *anatomy) addPair(p pair) {
	a.pairs = append(a.pairs, p)
	a.questions++
	if p.other != 0 {
		a.questions++
	}
}

// dissect sorts the records of a message. It stops where they are excessive.
func (a *anatomy) dissect(m *dns.Msg, q *Query, source Source) {
	if a.message != nil {
		a.forget()
	}
	a.message, a.most = m, q.Zone.most()
	for i, rr := range m.Answer {
		a.addMember(i, rr, false)
		if a.isExcessive() {
			return
		}
	}
	a.answered = len(a.sets)
	for i, rr := range m.Extra {
		if h, addr, ok := address(rr); ok {
			a.glue.add(i, h, addr)
		} else {
			a.addMember(i, rr, true)
		}
		if a.isExcessive() {
			return
		}
	}
	if a.services {
		a.addBeside(q.Zone.Policy, source)
	}
	if a.signed {
		a.findSigned(q.Signer == nil)
	}
	a.findTwins()
}

// findSigned finds the RRsets with signatures, and fixes them if nobody can sign them again.
func (a *anatomy) findSigned(fix bool) {
	a.eachSigned(a.message.Answer, func(n int) {
		if n < a.answered {
			a.sets[n].signed, a.sets[n].fixed = true, fix
		}
	}, nil)
	a.eachSigned(a.message.Extra, func(n int) {
		if a.sets[n].extra {
			a.sets[n].signed, a.sets[n].fixed = true, fix
		}
	}, func(n int) { a.glue.sets[n].fixed = fix })
}

// findTwins finds the glue that is in the answer section as well.
func (a *anatomy) findTwins() {
	for n := range a.glue.sets {
		if twin, found := a.index.findKey(a.glue.index.keys[n]); found && twin < a.answered {
			a.glue.sets[n].twin, a.twins = twin, true
		}
	}
}

// eachSigned tells of every RRset with a signature in the section: its number among the sets, and that among those of the
// glue, if somebody wants to know.
func (a *anatomy) eachSigned(section []dns.RR, set, glue func(n int)) {
	for _, rr := range section {
		sig, ok := rr.(*dns.RRSIG)
		if !ok {
			continue
		}
		if a.isExcessive() {
			return
		}
		if n, found := a.index.find(sig.Hdr.Name, sig.TypeCovered); found {
			set(n)
		}
		if glue == nil {
			continue
		}
		if n, found := a.glue.index.find(sig.Hdr.Name, sig.TypeCovered); found {
			glue(n)
		}
	}
}

// addMember notes a record that leads to addresses.
func (a *anatomy) addMember(i int, rr dns.RR, extra bool) {
	from := len(a.pairs)
	var h *dns.RR_Header
	switch rr := rr.(type) {
	case *dns.A, *dns.AAAA:
		var addr netip.Addr
		var ok bool
		if h, addr, ok = address(rr); !ok {
			return
		}
		a.addPair(pair{addr: addr, glue: none})
	case *dns.SRV:
		if extra || !isReachable(rr) {
			return // nothing brings SRV records along
		}
		h = &rr.Hdr
	case *dns.SVCB:
		if !a.addHints(rr) {
			return
		}
		h = &rr.Hdr
	case *dns.HTTPS:
		if !a.addHints(&rr.SVCB) {
			return
		}
		h = &rr.Hdr
	case *dns.RRSIG:
		a.signed = true
		return
	default:
		return
	}
	n, found := a.index.find(h.Name, h.Rrtype)
	if !found {
		if h.Rrtype == dns.TypeSRV {
			if !isTCP(h.Name) {
				return
			}
			a.services = true
		}
		n = a.index.add(h.Name, h.Rrtype)
		a.sets = append(a.sets, rrset{rrtype: h.Rrtype})
	}
	m := member{index: i, extra: extra, set: n, own: span{from, len(a.pairs)}}
	s := &a.sets[n]
	s.size++
	s.extra = s.extra || extra
	s.extend(a.pairsOf(m.own))
	a.members = append(a.members, m)
}

// extend tells the RRset of pairs that a member of it has.
func (s *rrset) extend(pairs []pair) {
	for i := range pairs {
		at := netip.AddrPortFrom(pairs[i].addr, pairs[i].port)
		if !s.first.IsValid() {
			s.first = at
		}
		s.varied = s.varied || at != s.first
	}
}

// address returns the header and the address of a record, if it is one that has an address.
func address(rr dns.RR) (h *dns.RR_Header, addr netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		h = &rr.Hdr
		addr, ok = netip.AddrFromSlice(rr.A)
		addr = addr.Unmap()
	case *dns.AAAA:
		h = &rr.Hdr
		addr, ok = netip.AddrFromSlice(rr.AAAA)
	}
	return h, addr, ok && h.Class == dns.ClassINET && isAddress(h.Rrtype)
}

var addressTypes = [...]uint16{dns.TypeA, dns.TypeAAAA}

func isAddress(rrtype uint16) bool { return rrtype == dns.TypeA || rrtype == dns.TypeAAAA }
