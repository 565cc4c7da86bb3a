package shaker

import (
	"bytes"
	"slices"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/answer"
)

// dnssecPlugin is what shaker needs of the plugin dnssec, which signs on the fly.
type dnssecPlugin interface {
	// Sign adds signatures to the message of the request. They stay in a cache of the plugin, which finds them by the text
	// of the RRset: its order, its TTLs and its letter case included.
	Sign(state request.Request, now time.Time, server string) *dns.Msg
}

// findDNSSEC looks for the plugin in the server block. It is there when all plugins are set up.
func (s *Shaker) findDNSSEC() {
	s.dnssec, _ = dnsserver.GetConfig(s.controller).Handler("dnssec").(dnssecPlugin)
}

// signer signs what is answered to one query.
type signer struct{ pass *pass }

var _ answer.Signer = signer{}

// signer returns nil where nobody wants signatures, or nobody can make them.
func (p *pass) signer() answer.Signer {
	if p.shaker.dnssec == nil {
		return nil
	}
	if opt := p.request.IsEdns0(); opt == nil || !opt.Do() {
		return nil
	}
	return signer{p}
}

// Sign implements answer.Signer.
func (s signer) Sign(rrset []dns.RR) []dns.RR {
	header := dns.RR_Header{Name: rrset[0].Header().Name, Rrtype: dns.TypeRRSIG, Class: rrset[0].Header().Class, Ttl: rrset[0].Header().Ttl}
	for _, rr := range rrset {
		header.Ttl = min(header.Ttl, rr.Header().Ttl)
	}
	var sigs []dns.RR
	for _, rr := range s.signed(uniform(rrset)) {
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == rrset[0].Header().Rrtype {
			c := *sig // the plugin has it in its cache
			c.Hdr = header
			sigs = append(sigs, &c)
		}
	}
	return sigs
}

// signed returns an RRset and its signatures, or nothing if the plugin panics.
func (s signer) signed(rrset []dns.RR) (records []dns.RR) {
	h := rrset[0].Header()
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("while "+h.Name+" was signed", reason)
			records = nil
		}
	}()
	// It has no OPT record: a message with DO is looked through for signatures that are too old.
	m := &dns.Msg{Question: []dns.Question{{Name: h.Name, Qtype: h.Rrtype, Qclass: h.Class}}, Answer: rrset}
	state := request.Request{Req: m, W: s.pass.ResponseWriter}
	return s.pass.shaker.dnssec.Sign(state, time.Now().UTC(), metrics.WithServer(s.pass.Context)).Answer
}

// uniformTTL is any that does not change.
const uniformTTL = 3600

// uniform returns copies of the records of an RRset, with the same text each time that their signature is the same: cache
// counts TTLs down, clients mix upper and lower case, and addresses are picked in any order. Room is left for signatures.
func uniform(rrset []dns.RR) []dns.RR {
	owner := dns.CanonicalName(rrset[0].Header().Name)
	records := make([]dns.RR, len(rrset), len(rrset)+2)
	for i, rr := range rrset {
		switch rr := rr.(type) {
		case *dns.A:
			c := *rr
			records[i] = &c
		case *dns.AAAA:
			c := *rr
			records[i] = &c
		default:
			records[i] = dns.Copy(rr)
		}
		h := records[i].Header()
		h.Name, h.Ttl = owner, uniformTTL
	}
	if t := records[0].Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
		slices.SortFunc(records, func(x, y dns.RR) int { return bytes.Compare(addressOf(x), addressOf(y)) })
	}
	return records
}

// addressOf returns the octets of an address, none for another record.
func addressOf(rr dns.RR) []byte {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.To4()
	case *dns.AAAA:
		return rr.AAAA.To16()
	default:
		return nil
	}
}

// Deny implements answer.Signer. The plugin denies by itself, but also where it has no key for the zone, and its list of types
// has no HTTPS, so that resolvers would take that for missing as well (RFC 8198).
func (s signer) Deny(soa *dns.SOA, name string, rrtype uint16) []dns.RR {
	nsec := nsecFor(soa, name, rrtype)
	if _, err := dns.PackDomainName(nsec.NextDomain, make([]byte, maxWireName), 0, nil, false); err != nil {
		return nil
	}
	var proof []dns.RR
	for _, rr := range []dns.RR{soa, nsec} {
		sigs := s.Sign([]dns.RR{rr})
		isOther := func(sig dns.RR) bool { return !isSameName(sig.(*dns.RRSIG).SignerName, soa.Hdr.Name) }
		if len(sigs) == 0 || slices.ContainsFunc(sigs, isOther) {
			return nil
		}
		proof = append(append(proof, rr), sigs...)
	}
	return proof
}

// maxWireName is the number of octets that a name may have (RFC 1035, section 2.3.4).
const maxWireName = 255

// isSameName compares names as DNS does.
func isSameName(x, y string) bool { return dns.CanonicalName(x) == dns.CanonicalName(y) }

// nsecFor returns an NSEC record that denies a type at a name of the SOA record's zone, and nothing else: the next name is
// the first that there could be (RFC 9824, section 3.1).
func nsecFor(soa *dns.SOA, name string, rrtype uint16) *dns.NSEC {
	ttl := min(soa.Hdr.Ttl, soa.Minttl) // RFC 9077, section 3
	nsec := &dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: soa.Hdr.Class, Ttl: ttl},
		NextDomain: `\000.`,
	}
	if name != "." {
		nsec.NextDomain += dns.CanonicalName(name)
	}
	isApex := isSameName(name, soa.Hdr.Name)
	for _, t := range nsecTypes {
		if t.number != rrtype && (isApex || !t.ofApex) {
			nsec.TypeBitMap = append(nsec.TypeBitMap, t.number)
		}
	}
	return nsec
}

// nsecTypes are what a name is said to have, in the order of their numbers. Whatever it may have is among them, except for
// CNAME, beside which there is nothing else.
var nsecTypes = [...]struct {
	number uint16
	ofApex bool // and of no other name
}{
	{dns.TypeA, false}, {dns.TypeNS, true}, {dns.TypeSOA, true}, {dns.TypeHINFO, false}, {dns.TypeMX, false},
	{dns.TypeTXT, false}, {dns.TypeAAAA, false}, {dns.TypeLOC, false}, {dns.TypeSRV, false}, {dns.TypeNAPTR, false},
	{dns.TypeCERT, false}, {dns.TypeSSHFP, false}, {dns.TypeRRSIG, false}, {dns.TypeNSEC, false}, {dns.TypeDNSKEY, true},
	{dns.TypeTLSA, false}, {dns.TypeSMIMEA, false}, {dns.TypeHIP, false}, {dns.TypeCDS, true}, {dns.TypeCDNSKEY, true},
	{dns.TypeOPENPGPKEY, false}, {dns.TypeSVCB, false}, {dns.TypeHTTPS, false}, {dns.TypeSPF, false}, {dns.TypeURI, false},
	{dns.TypeCAA, false},
}
