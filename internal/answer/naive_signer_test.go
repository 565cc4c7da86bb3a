package answer

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// naiveKeyTag is that of the key that naiveSigner has.
const naiveKeyTag = 7

// naiveSigner is a Signer for example.org. Its signatures are no cryptography, but they match only what they were made for.
type naiveSigner struct{}

// Sign implements Signer.
func (naiveSigner) Sign(rrset []dns.RR) []dns.RR {
	h := rrset[0].Header()
	if !dns.IsSubDomain("example.org.", h.Name) {
		return nil
	}
	ttl := h.Ttl
	for _, rr := range rrset {
		ttl = min(ttl, rr.Header().Ttl)
	}
	sig := naiveSignature(h.Name, h.Rrtype, naiveKeyTag, ttl)
	sig.Signature = naiveSeal(rrset)
	return []dns.RR{sig}
}

// Deny implements Signer.
func (s naiveSigner) Deny(soa *dns.SOA, name string, rrtype uint16) []dns.RR {
	if !strings.EqualFold(soa.Hdr.Name, "example.org.") || !dns.IsSubDomain("example.org.", name) {
		return nil
	}
	types := slices.DeleteFunc([]uint16{dns.TypeA, dns.TypeTXT, dns.TypeAAAA, dns.TypeSRV, dns.TypeRRSIG, dns.TypeNSEC}, func(t uint16) bool {
		return t == rrtype
	})
	denial := &dns.NSEC{
		Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: soa.Minttl},
		NextDomain: `\000.` + name, TypeBitMap: types,
	}
	records := append([]dns.RR{soa}, s.Sign([]dns.RR{soa})...)
	return append(append(records, denial), s.Sign([]dns.RR{denial})...)
}

// naiveSignature returns a signature that does not match anything yet.
func naiveSignature(owner string, covered, key uint16, ttl uint32) *dns.RRSIG {
	return &dns.RRSIG{
		Hdr:         dns.RR_Header{Name: strings.ToLower(owner), Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: ttl},
		TypeCovered: covered, Algorithm: dns.ECDSAP256SHA256, Labels: uint8(dns.CountLabel(owner)), OrigTtl: ttl,
		Expiration: 2145916800, Inception: 1577836800, KeyTag: key, SignerName: "example.org.", Signature: "c2ln",
	}
}

// naiveSeal returns the signature that matches an RRset, in whatever order and with whatever TTLs.
func naiveSeal(rrset []dns.RR) string {
	var data []string
	for _, rr := range rrset {
		text, _ := strings.CutPrefix(rr.String(), rr.Header().String())
		data = append(data, text)
	}
	slices.Sort(data)
	sum := sha256.Sum256(fmt.Append(nil, naiveKeyOf(rrset[0]), slices.Compact(data)))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// naiveRRset returns the records in a section that signatures of an owner and type are over, which verdicts may be about or
// not.
func naiveRRset(section []dns.RR, key string) (rrset []dns.RR) {
	for _, rr := range section {
		if h := rr.Header(); h.Class == dns.ClassINET && naiveKeyOf(rr) == key {
			rrset = append(rrset, rr)
		}
	}
	return rrset
}

// naiveSignatures returns the signatures of an owner and type in a section.
func naiveSignatures(section []dns.RR, key string) (sigs []*dns.RRSIG) {
	for _, rr := range section {
		if sig, ok := rr.(*dns.RRSIG); ok && naiveKey(sig.Hdr.Name, sig.TypeCovered) == key {
			sigs = append(sigs, sig)
		}
	}
	return sigs
}

// naiveIsValid tells whether one of the signatures of an RRset in a section is by naiveSigner and matches.
func naiveIsValid(section []dns.RR, key string) bool {
	rrset := naiveRRset(section, key)
	return len(rrset) > 0 && slices.ContainsFunc(naiveSignatures(section, key), func(sig *dns.RRSIG) bool {
		return sig.KeyTag == naiveKeyTag && sig.SignerName == "example.org." && sig.Algorithm == dns.ECDSAP256SHA256 &&
			sig.Signature == naiveSeal(rrset)
	})
}

// naiveSignersOf returns who made the signatures among records, sorted.
func naiveSignersOf(records []dns.RR) (signers []string) {
	for _, rr := range records {
		if sig, ok := rr.(*dns.RRSIG); ok {
			signers = append(signers, fmt.Sprint(strings.ToLower(sig.SignerName), sig.KeyTag, " ", sig.Algorithm))
		}
	}
	slices.Sort(signers)
	return slices.Compact(signers)
}

// touch notes that a section has lost addresses of an RRset, or has others in their place.
func (n *naive) touch(extra bool, key string) {
	n.changed = true
	if n.touched[extra] == nil {
		n.touched[extra] = map[string]bool{}
	}
	n.touched[extra][key] = true
}

// signAgain gives the RRsets of a section new signatures where they are not what they were. The old ones are those of the
// section before.
func (n *naive) signAgain(before, after []dns.RR, extra bool) []dns.RR {
	for key := range n.touched[extra] {
		old := naiveSignatures(before, key)
		if len(old) == 0 {
			continue
		}
		after = slices.DeleteFunc(after, func(rr dns.RR) bool {
			sig, ok := rr.(*dns.RRSIG)
			return ok && naiveKey(sig.Hdr.Name, sig.TypeCovered) == key
		})
		rrset := naiveRRset(after, key)
		if n.rules.note("signatures go with their RRset", len(rrset) == 0) || n.signer == nil {
			continue
		}
		sigs := n.signer.Sign(rrset)
		if n.isDeclined(old, sigs) {
			continue
		}
		n.rules.note("signed again in the answer", !extra)
		n.rules.note("signed again in the additional section", extra)
		n.rules.note("signed again with records that nobody checks", slices.ContainsFunc(rrset, n.isUnchecked))
		last := rrset[len(rrset)-1]
		after = slices.Insert(after, slices.Index(after, last)+1, sigs...)
	}
	return after
}

// isUnchecked tells whether a record of the new message is none that leads to addresses.
func (n *naive) isUnchecked(rr dns.RR) bool {
	_, isAddress := naiveIP(rr)
	return !isAddress && naiveService(rr) == nil && naiveBinding(rr) == nil
}

// isDeclined tells whether new signatures are none by those who made the old ones. Then there are to be none.
func (n *naive) isDeclined(old []*dns.RRSIG, records []dns.RR) bool {
	var before []dns.RR
	for _, sig := range old {
		before = append(before, sig)
	}
	was, is := naiveSignersOf(before), naiveSignersOf(records)
	n.rules.note("nobody signs this zone", len(is) == 0)
	n.rules.note("somebody else has signed", len(is) > 0 && !slices.Equal(was, is))
	if !slices.Equal(was, is) {
		n.declined = true
		return true
	}
	return false
}

// denial returns the authority section that proves that an RRset, which has left, is none.
func (n *naive) denial(original *dns.Msg, s *naiveSet, sigs []*dns.RRSIG) []dns.RR {
	soa := naiveSOA(original, n.zone, s.owner, sigs[0].SignerName)
	records := n.signer.Deny(soa.(*dns.SOA), s.owner, s.rrtype)
	if n.isDeclined(sigs, records) {
		return nil
	}
	n.rules.note("denied with signatures", true)
	return records
}

// What came with a valid signature has one when it leaves.
func naiveExpectValid(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	for i, sections := range [][2][]dns.RR{{m.Answer, got.Answer}, {m.Extra, got.Extra}} {
		for _, rr := range sections[0] {
			key := naiveKeyOf(rr)
			if !naiveIsValid(sections[0], key) || len(naiveRRset(sections[1], key)) == 0 || naiveIsValid(sections[1], key) {
				continue
			}
			// What servfail has taken leaves nothing but records that nobody checks, without a signature.
			rest := naiveRRset(sections[1], key)
			if q.zone.Fallback.Kind == FallbackServFail && !slices.ContainsFunc(rest, func(rr dns.RR) bool { return !new(naive).isUnchecked(rr) }) {
				continue
			}
			t.Errorf("section %d: %s was validly signed, and is not", i, key)
		}
	}
	naiveExpectDenied(t, m, got)
}

// What is at the end of the chain with a valid signature, and is missing, is proven to be none.
func naiveExpectDenied(t *testing.T, m, got *dns.Msg) {
	t.Helper()
	key, owner, rrtype := "", "", uint16(0)
	for _, rr := range m.Answer {
		_, isAddress := naiveIP(rr)
		if isAddress || naiveService(rr) != nil || naiveBinding(rr) != nil && rr.Header().Class == dns.ClassINET {
			if first := naiveRRset(m.Answer, naiveKeyOf(rr))[0]; first == rr || key == "" {
				key, owner, rrtype = naiveKeyOf(rr), rr.Header().Name, rr.Header().Rrtype
			}
		}
	}
	isData := func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return t != dns.TypeCNAME && t != dns.TypeDNAME && t != dns.TypeRRSIG
	}
	if key == "" || !naiveIsValid(m.Answer, key) || got.Rcode != dns.RcodeSuccess || slices.ContainsFunc(got.Answer, isData) {
		return
	}
	denies := false
	for _, rr := range got.Ns {
		denial, ok := rr.(*dns.NSEC)
		denies = denies || ok && strings.EqualFold(denial.Hdr.Name, owner) && !slices.Contains(denial.TypeBitMap, rrtype)
	}
	if !denies || !naiveIsValid(got.Ns, naiveKey(owner, dns.TypeNSEC)) || !naiveIsValid(got.Ns, naiveKey("example.org.", dns.TypeSOA)) {
		t.Errorf("nothing proves that there is no %s", key)
	}
}
