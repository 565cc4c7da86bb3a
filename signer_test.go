package shaker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnssec"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// Flags of a DNSKEY record (RFC 4034, section 2.1.1).
const (
	keySigning  = 257
	zoneSigning = 256
)

// signerKey writes a key into two files, and returns it with their path but for its end.
func signerKey(t testing.TB, zone string, flags uint16) (key *dns.DNSKEY, base string) {
	t.Helper()
	key = &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: flags, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lab.FileIn(t, dir, "k.key", key.String()+"\n")
	lab.FileIn(t, dir, "k.private", key.PrivateKeyString(private))
	return key, filepath.Join(dir, "k")
}

// signing is the plugin dnssec, and a query with DO to what stands above it.
type signing struct {
	keys []*dns.DNSKEY
	pass *pass
	answer.Signer
}

// newSigning has one key for each of the flags. All of them are of the first zone.
func newSigning(t testing.TB, zones []string, flags ...uint16) *signing {
	t.Helper()
	s := new(signing)
	directive := "dnssec " + strings.Join(zones, " ") + " {\n"
	for _, f := range flags {
		key, base := signerKey(t, zones[0], f)
		s.keys = append(s.keys, key)
		directive += "key file " + base + "\n"
	}
	r := handlerRequest("www.example.org.", dns.TypeA)
	r.SetEdns0(1232, true)
	s.pass = benchPass(policyFor(t, "all", 0), newNetwork(t, ""), r)
	s.pass.shaker.dnssec = newDNSSEC(t, directive+"}\n")
	s.Signer = s.pass.signer()
	return s
}

// newDNSSEC returns the plugin as a Corefile has it.
func newDNSSEC(t testing.TB, directive string) dnssecPlugin {
	t.Helper()
	setup, err := caddy.DirectiveAction("dns", "dnssec")
	if err != nil {
		t.Fatal(err)
	}
	c := caddy.NewTestController("dns", directive)
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	return dnsserver.GetConfig(c).Plugin[0](nil).(dnssecPlugin)
}

// expectSigned checks that there is one signature for each of the keys that are to sign zones, made by it and valid.
func (s *signing) expectSigned(t testing.TB, rrset, sigs []dns.RR) {
	t.Helper()
	h := rrset[0].Header()
	var made int
	for _, key := range s.keys {
		if key.Flags == keySigning && len(s.keys) > 1 {
			continue
		}
		made++
		i := slices.IndexFunc(sigs, func(rr dns.RR) bool { return rr.(*dns.RRSIG).KeyTag == key.KeyTag() })
		if i < 0 {
			t.Errorf("%s: no signature by key %d in %v", h.Name, key.KeyTag(), sigs)
			continue
		}
		sig := sigs[i].(*dns.RRSIG)
		if err := sig.Verify(key, rrset); err != nil || !sig.ValidityPeriod(time.Now()) {
			t.Errorf("%s: %v, of %v", h.Name, err, sig)
		}
		if sig.Hdr.Name != h.Name || sig.Hdr.Class != h.Class {
			t.Errorf("%s: signature %v", h.Name, sig)
		}
	}
	if len(sigs) != made {
		t.Errorf("%s: %d signatures, want %d", h.Name, len(sigs), made)
	}
}

// signerTypes are RRsets, and the TTL that they have together.
var signerTypes = []struct {
	name, rrset string
	ttl         uint32
}{
	{"A", "www.example.org. 30 IN A 10.0.0.2\nwww.example.org. 30 IN A 10.0.0.1", 30},
	{"one A", "www.example.org. 30 IN A 10.0.0.2", 30},
	{"AAAA", "www.example.org. 30 IN AAAA 2001:db8::2\nwww.example.org. 30 IN AAAA 2001:db8::1", 30},
	{"SRV", "_x._tcp.example.org. 30 IN SRV 1 2 443 b.example.org.\n_x._tcp.example.org. 30 IN SRV 1 2 443 A.example.org.", 30},
	{"HTTPS", "www.example.org. 30 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1", 30},
	{"CNAME", "alias.example.org. 30 IN CNAME WWW.example.net.", 30},
	{"at the apex", "example.org. 30 IN A 10.0.0.1", 30},
	{"in mixed case", "wWw.eXample.org. 30 IN A 10.0.0.1\nwWw.eXample.org. 30 IN A 10.0.0.2", 30},
	{"asterisk", "*.example.org. 30 IN A 10.0.0.1", 30},
	{"unlike TTLs", "www.example.org. 30 IN A 10.0.0.2\nwww.example.org. 20 IN A 10.0.0.1\nwww.example.org. 25 IN A 10.0.0.3", 20},
	{"TTL 0", "www.example.org. 0 IN A 10.0.0.2", 0},
	{"long TTL", "www.example.org. 86400 IN A 10.0.0.2", 86400},
}

// What is signed validates, by each key, and nothing that was given is changed.
func TestSignerSigns(t *testing.T) {
	for _, flags := range [][]uint16{{keySigning}, {zoneSigning, keySigning}, {zoneSigning, zoneSigning, zoneSigning}} {
		s := newSigning(t, []string{"example.org."}, flags...)
		for _, tt := range signerTypes {
			t.Run(fmt.Sprintf("%d keys, %s", len(flags), tt.name), func(t *testing.T) {
				rrset := lab.Records(t, tt.rrset)
				sigs := s.Sign(rrset)
				s.expectSigned(t, rrset, sigs)
				for _, sig := range sigs {
					if sig.Header().Ttl != tt.ttl {
						t.Errorf("TTL %d, want %d", sig.Header().Ttl, tt.ttl)
					}
				}
				if got, want := lab.RecordText(rrset), lab.RecordText(lab.Records(t, tt.rrset)); got != want {
					t.Errorf("changed to\n%s", got)
				}
			})
		}
	}
}

// The same RRset gets the same signature, however cache, pick and clients change its looks. Each signature of ECDSA is
// another, so it is from the plugin's cache.
func TestSignerFindsSignatures(t *testing.T) {
	const four = "www.example.org. 30 IN A 10.0.0.1\nwww.example.org. 30 IN A 10.0.0.2\nwww.example.org. 30 IN A 10.0.0.3\nwww.example.org. 30 IN A 10.0.0.4"
	for _, tt := range []struct {
		name, rrset, again string
		isOther            bool
	}{
		{"nothing changed", four, four, false},
		{"other TTL", four, strings.ReplaceAll(four, " 30 ", " 7 "), false},
		{"other case", four, strings.ReplaceAll(four, "www.example", "WWW.Example"), false},
		{"A shuffled", "a.example.org. 30 IN A 10.0.0.10\na.example.org. 30 IN A 10.0.0.9", "a.example.org. 30 IN A 10.0.0.9\na.example.org. 30 IN A 10.0.0.10", false},
		{"AAAA shuffled", "a.example.org. 30 IN AAAA 2001:db8::10\na.example.org. 30 IN AAAA 2001:db8::9", "a.example.org. 30 IN AAAA 2001:db8::9\na.example.org. 30 IN AAAA 2001:db8::10", false},
		{"HTTPS with other TTL", "a.example.org. 30 IN HTTPS 1 . ipv4hint=10.0.0.1", "a.example.org. 7 IN HTTPS 1 . ipv4hint=10.0.0.1", false},
		{"other addresses", four, strings.ReplaceAll(four, "10.0.0.4", "10.0.0.5"), true},
		{"fewer addresses", four, "www.example.org. 30 IN A 10.0.0.1", true},
		{"other name", four, strings.ReplaceAll(four, "www", "web"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSigning(t, []string{"example.org."}, keySigning)
			first, second := lab.Records(t, tt.rrset), lab.Records(t, tt.again)
			one, other := s.Sign(first), s.Sign(second)
			s.expectSigned(t, first, one)
			s.expectSigned(t, second, other)
			if isOther := one[0].(*dns.RRSIG).Signature != other[0].(*dns.RRSIG).Signature; isOther != tt.isOther {
				t.Errorf("another signature: %v, want %v", isOther, tt.isOther)
			}
			if one[0].Header().Ttl != first[0].Header().Ttl || one[0].Header().Name != first[0].Header().Name {
				t.Errorf("the signature that was returned first is now %v", one[0])
			}
		})
	}
}

const signerSOA = " IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 "

// A denial is a SOA record and an NSEC record that denies the type at the name and nothing else, both signed.
func TestSignerDenies(t *testing.T) {
	s := newSigning(t, []string{"example.org."}, zoneSigning, keySigning)
	for _, tt := range []struct {
		soa, name string
		rrtype    uint16
		next      string
		ttl       uint32 // of the NSEC record
		isApex    bool
	}{
		{"example.org. 30" + signerSOA + "30", "www.example.org.", dns.TypeA, `\000.www.example.org.`, 30, false},
		{"example.org. 30" + signerSOA + "20", "www.example.org.", dns.TypeAAAA, `\000.www.example.org.`, 20, false},
		{"example.org. 10" + signerSOA + "20", "_x._tcp.example.org.", dns.TypeSRV, `\000._x._tcp.example.org.`, 10, false},
		{"Example.org. 30" + signerSOA + "30", "wWw.example.ORG.", dns.TypeHTTPS, `\000.www.example.org.`, 30, false},
		{"example.org. 30" + signerSOA + "30", "*.example.org.", dns.TypeA, `\000.*.example.org.`, 30, false},
		{"example.org. 30" + signerSOA + "30", "example.org.", dns.TypeA, `\000.example.org.`, 30, true},
		{"example.org. 30" + signerSOA + "30", "EXAMPLE.org.", dns.TypeA, `\000.example.org.`, 30, true},
	} {
		t.Run(tt.name+dns.TypeToString[tt.rrtype], func(t *testing.T) {
			soa := lab.Records(t, tt.soa)[0].(*dns.SOA)
			proof := s.Deny(soa, tt.name, tt.rrtype)
			if len(proof) != 4 {
				t.Fatalf("%v", proof)
			}
			if proof[0] != dns.RR(soa) || soa.String() != lab.Records(t, tt.soa)[0].String() {
				t.Errorf("begins with %v, want the SOA record as it was given", proof[0])
			}
			s.expectSigned(t, proof[:1], proof[1:2])
			s.expectSigned(t, proof[2:3], proof[3:4])
			nsec := proof[2].(*dns.NSEC)
			if nsec.Hdr.Name != tt.name || nsec.Hdr.Ttl != tt.ttl || proof[3].Header().Ttl != tt.ttl || nsec.NextDomain != tt.next {
				t.Errorf("%v\n%v", nsec, proof[3])
			}
			if !slices.IsSorted(nsec.TypeBitMap) { // or it cannot be packed
				t.Errorf("types out of order: %v", nsec)
			}
			for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeMX, dns.TypeNS, dns.TypeSOA, dns.TypeDNSKEY, dns.TypeCNAME, dns.TypeDS} {
				want := rrtype != tt.rrtype
				switch rrtype {
				case dns.TypeNS, dns.TypeSOA, dns.TypeDNSKEY:
					want = tt.isApex
				case dns.TypeCNAME, dns.TypeDS:
					want = false
				}
				if slices.Contains(nsec.TypeBitMap, rrtype) != want {
					t.Errorf("%s listed: %v, want %v, in %v", dns.TypeToString[rrtype], !want, want, nsec)
				}
			}
			again := lab.Records(t, tt.soa)[0].(*dns.SOA)
			again.Hdr.Ttl, again.Hdr.Name = 1, strings.ToUpper(again.Hdr.Name)
			other := s.Deny(again, strings.ToUpper(tt.name), tt.rrtype)
			for _, i := range []int{1, 3} {
				if proof[i].(*dns.RRSIG).Signature != other[i].(*dns.RRSIG).Signature || other[i].Header().Ttl != 1 {
					t.Errorf("once more, with other TTL and case: %v, want the signature of %v", other[i], proof[i])
				}
			}
		})
	}
}

// The root has names too.
func TestSignerDeniesAtRoot(t *testing.T) {
	s := newSigning(t, []string{"."}, keySigning)
	proof := s.Deny(lab.Records(t, ". 30"+signerSOA+"30")[0].(*dns.SOA), ".", dns.TypeA)
	if len(proof) != 4 || proof[2].(*dns.NSEC).NextDomain != `\000.` {
		t.Fatalf("%v", proof)
	}
	s.expectSigned(t, proof[2:3], proof[3:])
}

// Where a signature would be worth nothing, there is none.
func TestSignerWithoutKey(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("a", 59)+".", 4) + "example.org." // with a label of one octet before it, 255 octets
	long := "a" + strings.Repeat(strings.Repeat("a", 59)+".", 4) + "example.org."
	s := newSigning(t, []string{"example.org.", "sub.example.org."}, keySigning)
	none := newSigning(t, []string{"example.org."})
	for _, tt := range []struct {
		name  string
		by    *signing
		rrset string
	}{
		{"another zone", s, "www.example.net. 30 IN A 10.0.0.1"},
		{"the zone above", s, "org. 30 IN A 10.0.0.1"},
		{"no key", none, "www.example.org. 30 IN A 10.0.0.1"},
	} {
		if sigs := tt.by.Sign(lab.Records(t, tt.rrset)); len(sigs) != 0 {
			t.Errorf("%s: signed by %v", tt.name, sigs)
		}
	}
	for _, tt := range []struct {
		name       string
		by         *signing
		zone, host string
	}{
		{"another zone", s, "example.net.", "www.example.net."},
		{"the zone above", s, "org.", "www.example.org."},
		{"a zone below", s, "www.example.org.", "www.example.org."},
		{"a name of another zone", s, "example.org.", "www.example.net."},
		{"a name of a zone below", s, "example.org.", "www.sub.example.org."},
		{"no name is next", s, "example.org.", long},
		{"no key", none, "example.org.", "www.example.org."},
	} {
		if proof := tt.by.Deny(lab.Records(t, tt.zone+" 30"+signerSOA+"30")[0].(*dns.SOA), tt.host, dns.TypeA); len(proof) != 0 {
			t.Errorf("%s: %v", tt.name, proof)
		}
	}
	if proof := s.Deny(lab.Records(t, "example.org. 30"+signerSOA+"30")[0].(*dns.SOA), longest, dns.TypeA); len(proof) != 4 {
		t.Errorf("a long name is not denied: %v", proof)
	}
	if sigs := s.Sign(lab.Records(t, long+" 30 IN A 10.0.0.1")); len(sigs) == 0 {
		t.Error("a long name is not signed")
	}
}

// signerFunc is another plugin by the name of dnssec.
type signerFunc func(request.Request) *dns.Msg

func (f signerFunc) Sign(state request.Request, _ time.Time, _ string) *dns.Msg { return f(state) }

// A query gets a signer if it has DO and somebody can sign.
func TestSignerIsForDO(t *testing.T) {
	signs := signerFunc(func(state request.Request) *dns.Msg { return state.Req })
	for _, tt := range []struct {
		name   string
		plugin dnssecPlugin
		option func(*dns.Msg)
		want   bool
	}{
		{"DO", signs, func(r *dns.Msg) { r.SetEdns0(1232, true) }, true},
		{"EDNS without DO", signs, func(r *dns.Msg) { r.SetEdns0(1232, false) }, false},
		{"no EDNS", signs, func(*dns.Msg) {}, false},
		{"no plugin", nil, func(r *dns.Msg) { r.SetEdns0(1232, true) }, false},
	} {
		r := handlerRequest("www.example.org.", dns.TypeA)
		tt.option(r)
		p := benchPass(policyFor(t, "all", 0), newNetwork(t, ""), r)
		p.shaker.dnssec = tt.plugin
		if got := p.signer(); (got != nil) != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if allocs := testing.AllocsPerRun(100, func() { p.signer() }); allocs != 0 {
			t.Errorf("%s: %v allocations", tt.name, allocs)
		}
	}
}

// A plugin that panics, or does something else than to sign, takes no query down.
func TestSignerSurvivesPlugin(t *testing.T) {
	for _, tt := range []struct {
		name   string
		plugin signerFunc
		panics float64
	}{
		{"panic", func(request.Request) *dns.Msg { panic("in the test") }, 1},
		{"no message", func(request.Request) *dns.Msg { return nil }, 1},
		{"empty message", func(request.Request) *dns.Msg { return new(dns.Msg) }, 0},
		{"no signature", func(state request.Request) *dns.Msg { return state.Req }, 0},
		{"signature of something else", func(state request.Request) *dns.Msg {
			state.Req.Answer = append(state.Req.Answer, &dns.RRSIG{TypeCovered: dns.TypeTXT})
			return state.Req
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := lab.CaptureLog(t)
			s := newSigning(t, []string{"example.org."}, keySigning)
			s.pass.shaker.dnssec = tt.plugin
			before := testutil.ToFloat64(panics)
			if sigs := s.Sign(lab.Records(t, "www.example.org. 30 IN A 10.0.0.1")); len(sigs) != 0 {
				t.Errorf("%v", sigs)
			}
			if n := testutil.ToFloat64(panics) - before; n != tt.panics || (n > 0) != strings.Contains(log.String(), "www.example.org.") {
				t.Errorf("%v panics, want %v:\n%s", n, tt.panics, log)
			}
			if proof := s.Deny(lab.Records(t, "example.org. 30"+signerSOA+"30")[0].(*dns.SOA), "www.example.org.", dns.TypeA); len(proof) != 0 {
				t.Errorf("%v", proof)
			}
		})
	}
}

// Queries share the plugin, its cache, and the records that they hand in.
func TestSignerConcurrently(t *testing.T) {
	s := newSigning(t, []string{"example.org."}, zoneSigning, zoneSigning, zoneSigning)
	soa := lab.Records(t, "example.org. 30"+signerSOA+"30")[0].(*dns.SOA)
	var rrsets [][]dns.RR
	for i := range 4 {
		rrsets = append(rrsets, lab.Records(t, strings.ReplaceAll("wWw.example.org. 30 IN A 10.0.0.2\nwWw.example.org. 30 IN A 10.0.0.1", "10.0.0", fmt.Sprint("10.0.", i))))
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 50 {
				rrset := rrsets[(i+j)%len(rrsets)]
				s.expectSigned(t, rrset, s.Sign(rrset))
				proof := s.Deny(soa, fmt.Sprintf("n%d.example.org.", j%4), dns.TypeA)
				if len(proof) != 8 {
					t.Errorf("%v", proof)
					return
				}
				s.expectSigned(t, proof[:1], proof[1:4])
				s.expectSigned(t, proof[4:5], proof[5:])
			}
		})
	}
	group.Wait()
}

// mute is another plugin by the name of dnssec, which does not sign.
type mute struct{ plugin.Handler }

func (mute) Name() string { return "dnssec" }

// The plugin is found in the server block, if it is one that signs.
func TestSignerIsOfServerBlock(t *testing.T) {
	for _, tt := range []struct {
		name    string
		plugins []plugin.Handler
		want    bool
	}{
		{"dnssec", []plugin.Handler{dnssec.New(nil, nil, false, nil, nil)}, true},
		{"another one", []plugin.Handler{mute{}}, false},
		{"none", nil, false},
	} {
		c := caddy.NewTestController("dns", "")
		config := dnsserver.GetConfig(c)
		for _, handler := range tt.plugins {
			config.AddPlugin(func(plugin.Handler) plugin.Handler { return handler })
		}
		if _, err := dnsserver.NewServer("127.0.0.1:0", []*dnsserver.Config{config}); err != nil {
			t.Fatal(err)
		}
		s := &Shaker{controller: c}
		if s.findDNSSEC(); (s.dnssec != nil) != tt.want {
			t.Errorf("%s: found %v, want %v", tt.name, s.dnssec, tt.want)
		}
	}
}

func BenchmarkSigner(b *testing.B) {
	s := newSigning(b, []string{"example.org."}, keySigning)
	for _, n := range []int{1, 4, 16} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "www.example.org. 30 IN A 10.0.0.%d\n", i)
		}
		rrset := lab.Records(b, text.String())
		b.Run(fmt.Sprintf("Sign %d A", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(rrset)
			}
		})
	}
	for _, text := range []string{"_x._tcp.example.org. 30 IN SRV 1 2 443 a.example.org.", "www.example.org. 30 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1,10.0.0.2"} {
		rrset := lab.Records(b, text)
		b.Run("Sign "+dns.TypeToString[rrset[0].Header().Rrtype], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(rrset)
			}
		})
	}
	soa := lab.Records(b, "example.org. 30"+signerSOA+"30")[0].(*dns.SOA)
	b.Run("Deny", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Deny(soa, "www.example.org.", dns.TypeA)
		}
	})
}
