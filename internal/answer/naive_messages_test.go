package answer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// naiveMessage makes up an answer that a plugin, or somebody at the other end of a forward, could give, and all that may
// matter besides.
func naiveMessage(r *rand.Rand) (*dns.Msg, naiveQuery) {
	g := naiveRecords{
		Rand:   r,
		owners: []string{"a.example.org.", "A.example.org.", "b.example.org.", `c\.d.example.org.`, "example.org.", ".", "w.example.net."},
		services: []string{"_x._tcp.example.org.", "_X._TCP.Example.org.", "_y._tcp.", "web.service.consul.", "_x._UDP.example.org.",
			"_x._quic.example.org.", "_tcp.example.org.", `\._tcp.a._tcp.`, "x."},
		bindings: []string{"_8443._https.example.org.", "_8443._HTTPS.Example.org.", "_https.example.org.", "_443.example.org.",
			"_dns.example.org.", "_853._dns.example.org.", "_x.example.org.", "_8443._x.example.org.", "_ws.", "_8443._http.", "_wss.a."},
	}
	if r.IntN(20) == 0 {
		for i := range 2 * manyKeys {
			g.owners = append(g.owners, fmt.Sprintf("n%d.Example.org.", i))
			g.services = append(g.services, fmt.Sprintf("_n%d._Tcp.Example.org.", i))
		}
	}
	if r.IntN(2) == 0 {
		g.owners, g.services = g.owners[:2], g.services[:2] // the usual answer has one name
		i := r.IntN(len(g.bindings))
		g.bindings = g.bindings[i : i+1]
	}
	request, m := new(dns.Msg), new(dns.Msg)
	request.SetQuestion(g.owners[0], dns.TypeA)
	if r.IntN(3) == 0 {
		request.Question[0].Name = g.bindings[r.IntN(len(g.bindings))]
	}
	if r.IntN(2) == 0 {
		request.SetEdns0(1232, r.IntN(2) == 0)
	}
	m.SetReply(request)
	m.Authoritative, m.AuthenticatedData, m.RecursionAvailable = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	m.Truncated = r.IntN(4) == 0
	g.answer(m)
	for range r.IntN(3) {
		switch r.IntN(6) {
		case 0, 1:
			m.Ns = append(m.Ns, &dns.SOA{Hdr: g.header(dns.TypeSOA), Ns: "ns.", Mbox: "host.", Minttl: uint32(r.IntN(60))})
		case 2:
			m.Ns = append(m.Ns, g.any())
		default:
			m.Ns = append(m.Ns, &dns.NS{Hdr: g.header(dns.TypeNS), Ns: []string{"ns.example.org.", g.owner()}[r.IntN(2)]})
		}
	}
	if r.IntN(4) > 0 {
		g.additional(m)
	}
	g.sign(m)
	if r.IntN(3) == 0 {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(4096)
		m.Extra = slices.Insert(m.Extra, r.IntN(1+len(m.Extra)), dns.RR(opt))
	}
	q := naiveQuery{
		request: request, zone: naivePolicy(g.numbers()), client: naiveClient{g.room(m), naiveClientAddress(r.IntN(8))},
		drawn: naiveDraw(r.Uint64()), source: g.source(),
	}
	if r.IntN(4) > 0 {
		q.signer = naiveSigner{}
	}
	return m, q
}

// numbers makes up a policy.
func (r naiveRecords) numbers() naiveNumbers {
	return naiveNumbers{
		kind: r.IntN(16), panics: r.IntN(6), ttl: r.IntN(60), zone: r.IntN(3),
		tiers: r.IntN(len(naiveTiers)), weights: r.IntN(len(naiveWeights)), pick: r.IntN(6), order: r.IntN(9), names: r.IntN(12),
	}
}

// sign makes signatures valid that are by the key of naiveSigner: those of most messages, and of others some.
func (r naiveRecords) sign(m *dns.Msg) {
	mostly := r.IntN(3) > 0
	for _, section := range [][]dns.RR{m.Answer, m.Extra} {
		for _, rr := range section {
			sig, ok := rr.(*dns.RRSIG)
			if !ok || !mostly && r.IntN(2) == 0 {
				continue
			}
			sig.KeyTag = naiveKeyTag
			if rrset := naiveRRset(section, naiveKey(sig.Hdr.Name, sig.TypeCovered)); len(rrset) > 0 {
				sig.Signature = naiveSeal(rrset)
			}
		}
	}
}

// naiveClientAddress returns one of few, some of them the same in another form, or none.
func naiveClientAddress(i int) netip.Addr {
	addrs := []string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1", "fe80::1%eth0", "2001:db8:1::1"}
	if i %= 8; i == len(addrs) {
		return netip.Addr{}
	}
	return netip.MustParseAddr(addrs[i])
}

// naiveDraw returns numbers at random that are the same whenever somebody asks.
func naiveDraw(seed uint64) func(netip.Addr) float64 {
	return func(addr netip.Addr) float64 {
		sum := sha256.Sum256(fmt.Append(nil, seed, addr))
		return fraction(binary.LittleEndian.Uint64(sum[:]))
	}
}

// answer makes up the answer section.
func (r naiveRecords) answer(m *dns.Msg) {
	if r.IntN(2) == 0 {
		r.usualAnswer(m)
		return
	}
	kind := r.IntN(5) // of records that there are most of, or nothing but addresses
	for range r.IntN(1 + 2*len(r.owners)) {
		switch {
		case kind == 4:
			m.Answer = append(m.Answer, r.address())
		case r.IntN(4) == 0:
			m.Answer = append(m.Answer, r.other())
		case kind == 0 || r.IntN(6) == 0:
			m.Answer = append(m.Answer, r.service())
		case kind == 1 || r.IntN(6) == 0:
			m.Answer = append(m.Answer, r.binding())
		default:
			m.Answer = append(m.Answer, r.address())
		}
	}
	if r.IntN(4) == 0 {
		everywhere := r.IntN(3) == 0 // also where naiveSigner has no key
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS} {
			for _, owner := range slices.Concat(r.owners, r.services) {
				if everywhere || dns.IsSubDomain("example.org.", owner) {
					m.Answer = append(m.Answer, r.signature(owner, rrtype))
				}
			}
		}
	}
}

// usualAnswer makes up one RRset of addresses or services with what belongs to it, maybe signed, and maybe at the end of an
// alias.
func (r naiveRecords) usualAnswer(m *dns.Msg) {
	if r.IntN(4) == 0 {
		alias := dns.RR_Header{Name: "w.example.org.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: uint32(r.IntN(60))}
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: alias, Target: r.owners[0]})
	}
	first, another := r.address(), r.address
	if r.IntN(2) == 0 {
		first, another = r.service(), r.service
	}
	h := first.Header()
	h.Class = dns.ClassINET
	m.Answer = append(m.Answer, first)
	srv, isService := first.(*dns.SRV)
	oneTarget := r.IntN(2) == 0 // at two ports
	for range r.IntN(8) {
		rr := another()
		if rr.Header().Rrtype != h.Rrtype {
			continue
		}
		rr.Header().Name = h.Name
		switch another, _ := rr.(*dns.SRV); {
		case isService && oneTarget:
			srv.Port = 443
			another.Target, another.Priority, another.Port = srv.Target, srv.Priority, 8443
		case isService:
			another.Target, another.Port = naiveNames[r.IntN(2)], srv.Port
		}
		m.Answer = append(m.Answer, rr)
	}
	if r.IntN(2) == 0 {
		m.Answer = append(m.Answer, r.signature(h.Name, h.Rrtype))
	}
	switch {
	case isService:
		for range r.IntN(8) {
			rr := r.address()
			if rr.Header().Name = srv.Target; !oneTarget {
				rr.Header().Name = naiveNames[r.IntN(2)]
			}
			m.Extra = append(m.Extra, rr)
		}
	case r.IntN(4) == 0:
		rr := r.binding()
		naiveBinding(rr).Target = h.Name
		m.Answer = append(m.Answer, rr)
	}
}

// additional makes up the additional section.
func (r naiveRecords) additional(m *dns.Msg) {
	if r.IntN(4) == 0 {
		for range r.IntN(8) {
			m.Extra = append(m.Extra, r.address())
		}
	}
	for range r.IntN(1 + len(r.owners)) {
		m.Extra = append(m.Extra, r.address())
	}
	if r.IntN(3) == 0 {
		for _, rr := range m.Answer {
			if _, ok := naiveIP(rr); ok && r.IntN(2) == 0 {
				rr = dns.Copy(rr)
				rr.Header().Ttl = uint32(r.IntN(60))
				m.Extra = append(m.Extra, rr)
			}
		}
	}
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(2) {
			m.Extra = append(m.Extra, r.binding())
		}
	}
	if r.IntN(4) == 0 {
		m.Extra = append(m.Extra, r.any())
	}
	for range r.IntN(4) {
		covered := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSRV}[r.IntN(4)]
		m.Extra = append(m.Extra, r.signature(r.owner(), covered))
	}
	if r.IntN(2) == 0 {
		r.Shuffle(len(m.Extra), func(i, j int) { m.Extra[i], m.Extra[j] = m.Extra[j], m.Extra[i] })
	}
}

// room makes up what a client takes: often just about the message.
func (r naiveRecords) room(m *dns.Msg) int {
	if r.IntN(3) > 0 {
		return []int{dns.MaxMsgSize, 1232, dns.MinMsgSize}[r.IntN(3)]
	}
	m = m.Copy()
	m.Compress = true
	return m.Len() + r.IntN(120)
}

// source makes up verdicts and the addresses of names.
func (r naiveRecords) source() naiveSource {
	book := make(filterBook)
	dead := r.IntN(4)
	deadPort := []uint16{0, 443, 8443, 8443, 8443, 1}[min(5, r.IntN(12))] // down everywhere
	deadFamily := r.IntN(12)                                              // 4 or 6, or none of them
	for i := range 6 {
		for _, port := range []uint16{0, 80, 443, 853, 8443} {
			v := Verdict{State: []State{Unknown, Up, Down}[r.IntN(3)]}
			if r.IntN(6) < dead || port == deadPort {
				v.State = Down
			}
			v.Damped = v.State == Down && r.IntN(4) == 0
			if r.IntN(8) == 0 && port != deadPort {
				continue
			}
			v.RTT = time.Duration(r.IntN(4)) * 600 * time.Microsecond
			if v.State == Unknown {
				v.Within = naiveTimes[r.IntN(len(naiveTimes))]
			}
			v4 := naiveAddress(i)
			for family, addr := range map[int]netip.Addr{4: v4, 6: naiveAddress6(v4)} {
				book[netip.AddrPortFrom(addr, port)] = v
				if family == deadFamily {
					book[netip.AddrPortFrom(addr, port)] = Verdict{State: Down}
				}
			}
		}
	}
	type found struct {
		addrs []netip.Addr
		known bool
	}
	names := make(map[string]found)
	for _, owner := range r.owners {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			key := naiveKey(owner, rrtype)
			names[key] = found{naiveAddresses(rrtype, r.IntN(3), func(int) int { return r.IntN(6) }), r.IntN(2) > 0}
		}
	}
	standbys := make(map[string][]netip.Addr)
	for _, name := range naiveNames {
		for _, rrtype := range addressTypes {
			order := r.Perm(8)
			standbys[naiveKey(name, rrtype)] = naiveAddresses(rrtype, r.IntN(4), func(i int) int { return order[i] })
		}
	}
	ttl := uint32(r.IntN(60))
	return naiveSource{
		look: func(addr netip.Addr, port uint16) Verdict { return book[netip.AddrPortFrom(addr, port)] },
		resolve: func(name string, rrtype uint16) ([]netip.Addr, bool) {
			f := names[naiveKey(name, rrtype)]
			return f.addrs, f.known
		},
		standby: func(name string, rrtype uint16) ([]netip.Addr, uint32) { return standbys[naiveKey(name, rrtype)], ttl },
	}
}

// naiveNames are those that may stand in for others.
var naiveNames = []string{"a.example.org.", "b.example.org.", "standby.example.net."}

// naiveTimes are those within which there may be a verdict.
var naiveTimes = []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond, 40 * time.Second}

// naiveRecords makes up records.
type naiveRecords struct {
	*rand.Rand
	owners, services, bindings []string
}

func (r naiveRecords) owner() string { return r.owners[r.IntN(len(r.owners))] }

func (r naiveRecords) header(rrtype uint16) dns.RR_Header {
	h := dns.RR_Header{Name: r.owner(), Rrtype: rrtype, Class: dns.ClassINET, Ttl: uint32(r.IntN(60))}
	if r.IntN(20) == 0 {
		h.Class = dns.ClassCHAOS
	}
	return h
}

func (r naiveRecords) signature(owner string, covered uint16) dns.RR {
	sig := naiveSignature(owner, covered, naiveKeyTag+1, 0) // see sign
	sig.Hdr = r.header(dns.TypeRRSIG)
	sig.Hdr.Name = owner
	return sig
}

func (r naiveRecords) address() dns.RR {
	ip := naiveAddress(r.IntN(6))
	switch r.IntN(10) {
	case 0:
		return &dns.A{Hdr: r.header(dns.TypeA)} // without data
	case 1:
		return &dns.A{Hdr: r.header(dns.TypeA), A: net.IP(ip.AsSlice()).To16()} // as from ParseIP
	case 2, 3, 4:
		return &dns.AAAA{Hdr: r.header(dns.TypeAAAA), AAAA: naiveAddress6(ip).AsSlice()}
	default:
		return &dns.A{Hdr: r.header(dns.TypeA), A: ip.AsSlice()}
	}
}

func (r naiveRecords) service() dns.RR {
	h := r.header(dns.TypeSRV)
	h.Name = r.services[r.IntN(len(r.services))]
	return &dns.SRV{Hdr: h, Priority: uint16(r.IntN(3)), Port: naivePortNumbers[r.IntN(len(naivePortNumbers))], Target: r.owner()}
}

func (r naiveRecords) binding() dns.RR {
	svcb := dns.SVCB{Hdr: r.header(dns.TypeSVCB), Priority: uint16(r.IntN(4)), Target: r.owner()}
	if r.IntN(2) == 0 {
		svcb.Hdr.Name = r.bindings[r.IntN(len(r.bindings))]
	}
	if svcb.Priority > 0 || r.IntN(4) == 0 {
		svcb.Value = r.parameters()
	}
	if r.IntN(2) == 0 {
		return &svcb
	}
	svcb.Hdr.Rrtype = dns.TypeHTTPS
	return &dns.HTTPS{SVCB: svcb}
}

func (r naiveRecords) parameters() (values []dns.SVCBKeyValue) {
	mandatory := new(dns.SVCBMandatory)
	if r.IntN(3) > 0 {
		alpn := new(dns.SVCBAlpn)
		for range 1 + r.IntN(3) {
			alpn.Alpn = append(alpn.Alpn, []string{"h2", "http/1.1", "dot", "doq", "h3", "h3-29", "x"}[r.IntN(7)])
		}
		values = append(values, alpn)
		if r.IntN(4) == 0 {
			values = append(values, new(dns.SVCBNoDefaultAlpn))
		}
	}
	if r.IntN(3) == 0 {
		values = append(values, &dns.SVCBPort{Port: naivePortNumbers[r.IntN(len(naivePortNumbers))]})
	}
	if n := r.IntN(4); n > 0 {
		hint := new(dns.SVCBIPv4Hint)
		for range n {
			hint.Hint = append(hint.Hint, naiveAddress(r.IntN(6)).AsSlice())
		}
		values = append(values, hint)
		if r.IntN(3) == 0 {
			mandatory.Code = append(mandatory.Code, dns.SVCB_IPV4HINT)
		}
	}
	if n := r.IntN(4); n > 0 {
		hint := new(dns.SVCBIPv6Hint)
		for range n {
			hint.Hint = append(hint.Hint, naiveAddress6(naiveAddress(r.IntN(6))).AsSlice())
		}
		values = append(values, hint)
		if r.IntN(3) == 0 {
			mandatory.Code = append(mandatory.Code, dns.SVCB_IPV6HINT)
		}
	}
	if len(mandatory.Code) > 0 {
		values = append(values, mandatory)
	}
	return values
}

func (r naiveRecords) other() dns.RR {
	switch r.IntN(5) {
	case 0:
		return &dns.CNAME{Hdr: r.header(dns.TypeCNAME), Target: r.owner()}
	case 1:
		return &dns.DNAME{Hdr: r.header(dns.TypeDNAME), Target: r.owner()}
	case 2:
		return &dns.MX{Hdr: r.header(dns.TypeMX), Mx: r.owner()}
	case 3:
		return &dns.TXT{Hdr: r.header(dns.TypeTXT), Txt: []string{"x"}}
	default:
		covered := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeSRV, dns.TypeHTTPS, dns.TypeSVCB}[r.IntN(6)]
		owners := slices.Concat(r.owners, r.services, r.bindings)
		return r.signature(owners[r.IntN(len(owners))], covered)
	}
}

// any makes up a record that points to a name, where nobody expects it.
func (r naiveRecords) any() dns.RR {
	switch r.IntN(3) {
	case 0:
		return r.other()
	case 1:
		return r.service()
	default:
		return r.binding()
	}
}

// naiveAddress returns one of few addresses, so that they come together.
func naiveAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

func naiveAddress6(v4 netip.Addr) netip.Addr {
	v6 := v4.As16()
	v6[10], v6[11] = 0x20, 0x01
	return netip.AddrFrom16(v6)
}

// naiveAddresses returns n of them, of the family of a type.
func naiveAddresses(rrtype uint16, n int, which func(int) int) (addrs []netip.Addr) {
	for i := range n {
		addr := naiveAddress(which(i))
		if rrtype == dns.TypeAAAA {
			addr = naiveAddress6(addr)
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

var naivePortNumbers = []uint16{443, 443, 443, 8443, 0}

// naiveNumbers are those of which naivePolicy makes a policy. They may be any.
type naiveNumbers struct{ kind, panics, ttl, zone, tiers, weights, pick, order, names int }

// naivePolicy makes up a policy.
func naivePolicy(n naiveNumbers) Zone {
	f := Fallback{Kind: FallbackKind(n.kind % 4)}
	if f.Kind == FallbackAddresses {
		for _, addr := range strings.Fields([]string{"192.0.2.1", "192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2", "10.0.0.1"}[n.kind/4%4]) {
			f.Addresses = append(f.Addresses, netip.MustParseAddr(addr))
		}
	}
	f.Names = [][]string{nil, nil, nil, naiveNames[:1], naiveNames[1:2], naiveNames[2:], naiveNames[:2], naiveNames[1:]}[n.names%8]
	p := filterPolicyOf(f)
	p.Panic = []int{0, 0, 34, 50, 75, 100}[n.panics%6]
	p.Sort = []Order{Unsorted, SortRTT, SortClient}[n.order%3]
	bits := [][2]int{{24, 56}, {32, 128}, {0, 0}}[n.order/3%3]
	p.ClientBits4, p.ClientBits6 = bits[0], bits[1]
	p.Pick = []int{0, 0, 1, 1, 2, 3}[n.pick%6]
	p.TTL = uint32(n.ttl % 60)
	p.Name = []string{".", "example.org.", "a.example.org."}[n.zone%3]
	for _, tier := range naiveTiers[n.tiers%len(naiveTiers)] {
		p.Tiers.Add(naivePrefixes(tier))
	}
	for prefix, weight := range naiveWeights[n.weights%len(naiveWeights)] {
		for _, prefix := range naivePrefixes(prefix) {
			p.Weights.Set(prefix, weight)
		}
	}
	return p
}

// naiveTiers are tiers of the addresses that naiveAddress returns.
var naiveTiers = [][]string{
	nil, nil, nil, nil,
	{"10.0.0.0/30 10.0.0.5/32"},
	{"10.0.0.0/31", "10.0.0.2/31"},
	{"10.0.0.4/31", "10.0.0.0/24", "10.0.0.1/32 10.0.0.2/32"},
	{"10.0.0.3/32", "10.0.0.5/32", "10.0.0.0/32"},
	{"192.0.2.0/24", "10.0.0.0/29"},
}

// naiveWeights are weights of the addresses that naiveAddress returns.
var naiveWeights = []map[string]int{
	nil,
	{"10.0.0.0/30": 1000},
	{"10.0.0.0/24": 3, "10.0.0.1/32": 1, "10.0.0.4/31": 20},
	{"10.0.0.5/32": 2, "192.0.2.1/32": 7},
}

// naivePrefixes returns prefixes of IPv4, and those of the same addresses of IPv6.
func naivePrefixes(text string) (prefixes []netip.Prefix) {
	for _, field := range strings.Fields(text) {
		v4 := netip.MustParsePrefix(field)
		prefixes = append(prefixes, v4, netip.PrefixFrom(naiveAddress6(v4.Addr()), 96+v4.Bits()))
	}
	return prefixes
}
