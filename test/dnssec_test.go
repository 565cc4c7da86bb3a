package test

import (
	"crypto"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/dnssec"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// zoneKey signs example.org.
type zoneKey struct {
	key  *dns.DNSKEY
	priv crypto.Signer
	base string // of the files with it
}

func newZoneKey(t testing.TB) *zoneKey {
	t.Helper()
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	priv, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lab.FileIn(t, dir, "Kexample.org..key", key.String()+"\n")
	lab.FileIn(t, dir, "Kexample.org..private", key.PrivateKeyString(priv))
	return &zoneKey{key, priv.(crypto.Signer), filepath.Join(dir, "Kexample.org.")}
}

// anchors writes the file by which delv trusts the key.
func (k *zoneKey) anchors(t *testing.T) (path string) {
	t.Helper()
	fields := strings.Fields(k.key.String())
	return lab.File(t, "anchors", fmt.Sprintf("trust-anchors {\n\"example.org.\" static-key %s %s %s \"%s\";\n};\n",
		fields[4], fields[5], fields[6], strings.Join(fields[7:], "")))
}

// delv asks s, validates what comes by the anchors alone, and returns what it prints.
func delv(t *testing.T, s *server, anchors, qname string, qtype uint16) (printed string, err error) {
	t.Helper()
	addr := netip.MustParseAddrPort(s.addr)
	cmd := exec.CommandContext(t.Context(), installed(t, "delv", "bind9-dnsutils"), "-a", anchors, "+root=example.org", "@"+addr.Addr().String(),
		"-p", fmt.Sprint(addr.Port()), qname, dns.TypeToString[qtype])
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// dnssecZone is a zone example.org with a key to sign it. The first address of www is down.
type dnssecZone struct {
	*zoneKey
	farm  *farm
	dead  netip.Addr
	plain string // zone file
}

func newDNSSECZone(t *testing.T) *dnssecZone {
	t.Helper()
	z := &dnssecZone{zoneKey: newZoneKey(t), farm: newFarm(t, "127.0.11.1", "127.0.11.2", "127.0.11.3", "127.0.11.4")}
	z.dead = z.farm.addrs[0]
	z.farm.kill(z.dead)
	z.plain = z.farm.zoneFile()
	return z
}

// signed writes the zone file once more, with signatures and NSEC records (RFC 4035, section 2).
func (z *dnssecZone) signed(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(z.plain)
	if err != nil {
		t.Fatal(err)
	}
	sets := make(map[string]map[uint16][]dns.RR)
	add := func(rr dns.RR) {
		h := rr.Header()
		if sets[h.Name] == nil {
			sets[h.Name] = make(map[uint16][]dns.RR)
		}
		sets[h.Name][h.Rrtype] = append(sets[h.Name][h.Rrtype], rr)
	}
	parser := dns.NewZoneParser(strings.NewReader(string(content)), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		add(rr)
	}
	add(z.key)
	var names []string
	for name := range sets {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // canonical, RFC 4034, section 6.1; one label below the apex at most
		return strings.Compare(strings.TrimSuffix(a, "example.org."), strings.TrimSuffix(b, "example.org."))
	})
	for i, name := range names {
		types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		for rrtype := range sets[name] {
			types = append(types, rrtype)
		}
		slices.Sort(types)
		add(&dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
			NextDomain: names[(i+1)%len(names)], TypeBitMap: types})
	}
	var b strings.Builder
	for _, name := range names {
		for _, set := range sets[name] {
			h := set[0].Header()
			sig := &dns.RRSIG{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: h.Ttl},
				KeyTag: z.key.KeyTag(), SignerName: "example.org.", Algorithm: z.key.Algorithm,
				Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix())}
			if err := sig.Sign(z.priv, set); err != nil {
				t.Fatal(err)
			}
			for _, rr := range append(set, dns.RR(sig)) {
				b.WriteString(rr.String() + "\n")
			}
		}
	}
	return lab.File(t, "db.signed", b.String())
}

// serve starts a CoreDNS that answers in this way, with shaker above.
func (z *dnssecZone) serve(t *testing.T, directives string) *server {
	t.Helper()
	s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nport %d\nallow 127.0.0.0/8\nhold 4s\n}\n%s\n}\n", z.farm.port, directives))
	s.until("www.example.org.", dns.TypeA, z.farm.without(z.dead)) // has a verdict on each
	return s
}

// dnssecBackend is a way to serve a signed zone.
type dnssecBackend struct {
	directives string
	want       []netip.Addr // the order of www, for who wants signatures
}

// backends are where a changed answer can be signed again, and where it cannot. There the dead address stays, at the end.
func (z *dnssecZone) backends(t *testing.T) map[string]dnssecBackend {
	signing := fmt.Sprintf("dnssec {\nkey file %s\n}\nfile %s", z.base, z.plain)
	signed := "file " + z.signed(t)
	upstream := start(t, "example.org:0 {\nbind 127.0.0.1\n"+signed+"\n}\n")
	living := z.farm.without(z.dead)
	all := append(slices.Clone(living), z.dead)
	return map[string]dnssecBackend{
		"signing on the fly":          {signing, living},
		"signing on the fly, cached":  {"cache\n" + signing, living},
		"signed beforehand":           {signed, all},
		"forward to a signing server": {"forward . " + upstream.addr, all},
	}
}

// order returns the A records of an answer as they come.
func order(m *dns.Msg) (addrs []netip.Addr) {
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, netip.MustParseAddr(a.A.String()))
		}
	}
	return addrs
}

func withDO(m *dns.Msg) { m.SetEdns0(4096, true) }

// verify checks the signature of an RRset in the section.
func (z *dnssecZone) verify(t *testing.T, section []dns.RR, owner string, rrtype uint16) {
	t.Helper()
	var set []dns.RR
	var sig *dns.RRSIG
	for _, rr := range section {
		if s, ok := rr.(*dns.RRSIG); ok && s.Hdr.Name == owner && s.TypeCovered == rrtype {
			sig = s
		}
		if rr.Header().Name == owner && rr.Header().Rrtype == rrtype {
			set = append(set, rr)
		}
	}
	if sig == nil || len(set) == 0 {
		t.Errorf("%s %s is not there, or not signed:\n%v", owner, dns.TypeToString[rrtype], section)
		return
	}
	if err := sig.Verify(z.key, set); err != nil {
		t.Errorf("%s %s: %v", owner, dns.TypeToString[rrtype], err)
	}
}

// Who wants signatures gets what validates: without what is down where that can be signed again, with it at the end elsewhere.
// Who does not, gets it removed.
func TestDNSSEC(t *testing.T) {
	t.Parallel()
	z := newDNSSECZone(t)
	for name, backend := range z.backends(t) {
		t.Run(name, func(t *testing.T) {
			s := z.serve(t, backend.directives)
			for _, qname := range []string{"www.example.org.", "alias.example.org."} {
				m := s.ask(qname, dns.TypeA, withDO)
				z.verify(t, m.Answer, "www.example.org.", dns.TypeA)
				if qname != "www.example.org." {
					z.verify(t, m.Answer, qname, dns.TypeCNAME)
				}
				if got := order(m); !slices.Equal(got, backend.want) {
					t.Errorf("%s: %v, want %v", qname, got, backend.want)
				}
				m = s.ask(qname, dns.TypeA)
				if got := addresses(m); !slices.Equal(got, z.farm.without(z.dead)) || m.AuthenticatedData {
					t.Errorf("%s without DO: %v, AD %v", qname, got, m.AuthenticatedData)
				}
			}
			m := s.ask("example.org.", dns.TypeDNSKEY, withDO)
			z.verify(t, m.Answer, "example.org.", dns.TypeDNSKEY)
			m = s.ask("www.example.org.", dns.TypeTXT, withDO)
			z.verify(t, m.Ns, "example.org.", dns.TypeSOA)
			if !slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNSEC }) {
				t.Errorf("no denial:\n%v", m)
			}
		})
	}
}

// installed returns the path of a program, or skips the test.
func installed(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		lab.Skip(t, fmt.Errorf("%w; install it: apt-get install %s", err, debian))
	}
	return path
}

// delv validates what comes, by the key of the zone alone.
func TestDelv(t *testing.T) {
	t.Parallel()
	installed(t, "delv", "bind9-dnsutils")
	z := newDNSSECZone(t)
	anchors := z.anchors(t)
	for name, backend := range z.backends(t) {
		t.Run(name, func(t *testing.T) {
			out, err := delv(t, z.serve(t, backend.directives), anchors, "www.example.org.", dns.TypeA)
			if err != nil || !strings.Contains(out, "; fully validated") || strings.Count(out, "\tA\t") != len(backend.want) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// unbound starts an unbound that validates by a key and forwards to s.
func unbound(t *testing.T, s *server, key *dns.DNSKEY) *server {
	t.Helper()
	path := installed(t, "unbound", "unbound")
	upstream := netip.MustParseAddrPort(s.addr)
	port := port(t)
	dir := t.TempDir()
	config := lab.FileIn(t, dir, "unbound.conf", fmt.Sprintf(`server:
	interface: 127.0.0.1
	port: %d
	directory: "%s"
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	do-daemonize: no
	do-not-query-localhost: no
	outgoing-port-avoid: "0-32767" # those of other tests are there
	rrset-roundrobin: no
	module-config: "validator iterator"
	trust-anchor: "%s"
remote-control:
	control-enable: no
forward-zone:
	name: "example.org."
	forward-addr: %s@%d
`, port, dir, strings.ReplaceAll(key.String(), "\t", " "), upstream.Addr(), upstream.Port()))
	process := lab.Start(t, exec.Command(path, "-d", "-c", config))
	u := &server{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	client := dns.Client{Timeout: 200 * time.Millisecond}
	q := new(dns.Msg)
	q.SetQuestion("version.bind.", dns.TypeTXT)
	q.Question[0].Qclass = dns.ClassCHAOS
	process.UntilNil(func() error {
		_, _, err := client.Exchange(q, u.addr)
		return err
	})
	return u
}

// A resolver that validates finds the answer secure, with a living address first. With another key
// it finds it bogus, so it does look.
func TestUnbound(t *testing.T) {
	t.Parallel()
	installed(t, "unbound", "unbound")
	z := newDNSSECZone(t)
	other := newDNSSECZone(t).key
	for name, backend := range z.backends(t) {
		t.Run(name, func(t *testing.T) {
			s := z.serve(t, backend.directives)
			m := unbound(t, s, z.key).ask("www.example.org.", dns.TypeA, withDO)
			if got := order(m); !m.AuthenticatedData || !slices.Equal(got, backend.want) {
				t.Errorf("AD %v, %v, want %v:\n%v", m.AuthenticatedData, got, backend.want, m)
			}
			if m := unbound(t, s, other).ask("www.example.org.", dns.TypeA, withDO); m.Rcode != dns.RcodeServerFailure {
				t.Errorf("with another key: %v", m)
			}
		})
	}
}

// Behind shaker, a resolver that validates: its AD goes where something was removed, and stays where not.
func TestForwardToValidator(t *testing.T) {
	t.Parallel()
	installed(t, "unbound", "unbound")
	z := newDNSSECZone(t)
	authority := start(t, "example.org:0 {\nbind 127.0.0.1\nfile "+z.signed(t)+"\n}\n")
	s := z.serve(t, "forward . "+unbound(t, authority, z.key).addr)
	wantsAD := func(m *dns.Msg) { m.AuthenticatedData = true }
	if m := s.ask("www.example.org.", dns.TypeA, wantsAD); m.AuthenticatedData || len(addresses(m)) != 3 {
		t.Errorf("thinned: AD %v\n%v", m.AuthenticatedData, m)
	}
	if m := s.ask("ns.example.org.", dns.TypeA, wantsAD); !m.AuthenticatedData {
		t.Errorf("untouched: AD %v\n%v", m.AuthenticatedData, m)
	}
	m := s.ask("www.example.org.", dns.TypeA, withDO)
	z.verify(t, m.Answer, "www.example.org.", dns.TypeA)
	if !m.AuthenticatedData {
		t.Errorf("reordered: AD %v", m.AuthenticatedData)
	}
}
