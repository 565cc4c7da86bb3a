package answer

import (
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
	if r.IntN(3) == 0 {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(4096)
		m.Extra = slices.Insert(m.Extra, r.IntN(1+len(m.Extra)), dns.RR(opt))
	}
	q := naiveQuery{request, naivePolicy(r.IntN(16), r.IntN(12), r.IntN(60), r.IntN(3)), g.room(m), g.source()}
	return m, q
}

// answer makes up the answer section.
func (r naiveRecords) answer(m *dns.Msg) {
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
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS} {
			for _, owner := range slices.Concat(r.owners, r.services) {
				m.Answer = append(m.Answer, r.signature(owner, rrtype))
			}
		}
	}
}

// additional makes up the additional section.
func (r naiveRecords) additional(m *dns.Msg) {
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
	for i := range 6 {
		for _, port := range []uint16{0, 80, 443, 853, 8443} {
			v := Verdict{State: []State{Unknown, Up, Down}[r.IntN(3)]}
			if r.IntN(6) < dead {
				v.State = Down
			}
			v.Damped = v.State == Down && r.IntN(4) == 0
			if r.IntN(8) == 0 {
				continue
			}
			v.RTT = time.Duration(r.IntN(4)) * 600 * time.Microsecond
			v4 := naiveAddress(i)
			book[netip.AddrPortFrom(v4, port)], book[netip.AddrPortFrom(naiveAddress6(v4), port)] = v, v
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
			names[key] = found{naiveAddresses(rrtype, r.IntN(3), func(int) int { return r.IntN(6) }), r.IntN(4) > 0}
		}
	}
	return naiveSource{
		func(addr netip.Addr, port uint16) Verdict { return book[netip.AddrPortFrom(addr, port)] },
		func(name string, rrtype uint16) ([]netip.Addr, bool) {
			f := names[naiveKey(name, rrtype)]
			return f.addrs, f.known
		},
	}
}

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
	sig := &dns.RRSIG{Hdr: r.header(dns.TypeRRSIG), TypeCovered: covered, SignerName: "example.org.", Signature: "c2ln"}
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

// naivePolicy makes up a policy from numbers that may be any.
func naivePolicy(kind, panics, ttl, zone int) Zone {
	f := Fallback{Kind: FallbackKind(kind % 4)}
	if f.Kind == FallbackAddresses {
		for _, addr := range strings.Fields([]string{"192.0.2.1", "192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2", "10.0.0.1"}[kind/4%4]) {
			f.Addresses = append(f.Addresses, netip.MustParseAddr(addr))
		}
	}
	p := filterPolicyOf(f)
	p.Panic = []int{0, 0, 0, 34, 50, 100}[panics%6]
	p.SortRTT = panics/6%2 == 1
	p.TTL = uint32(ttl % 60)
	p.Name = []string{".", "example.org.", "a.example.org."}[zone%3]
	return p
}
