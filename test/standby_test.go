package test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// standbyStanza is one for a single name, whose targets of the farm are followed quickly.
func (f *farm) standbyStanza(zone, properties string) string {
	return fmt.Sprintf(`shaker %s {
		port %d
		interval 100ms 20ms
		damping off
		hold 4s
		allow 127.0.0.0/8 ::1
		%s
	}
	`, zone, f.port, properties)
}

// standbyZone is a zone file of addresses, one name a line: "a 300 127.2.1.1 127.2.1.2".
func standbyZone(t *testing.T, origin string, names ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n", origin)
	for _, line := range names {
		fields := strings.Fields(line)
		for _, value := range fields[2:] {
			rrtype := "CNAME"
			if addr, err := netip.ParseAddr(value); err == nil {
				rrtype = "A"
				if addr.Is6() {
					rrtype = "AAAA"
				}
			}
			fmt.Fprintf(&b, "%s %s IN %s %s\n", fields[0], fields[1], rrtype, value)
		}
	}
	return lab.File(t, "db.standby", b.String())
}

// untilServed asks until the answer has exactly these addresses, each under the name that was asked for, with this TTL.
func (s *server) untilServed(qname string, want []netip.Addr, ttl uint32) {
	s.t.Helper()
	lab.UntilNil(s.t, func() error {
		m := s.ask(qname, dns.TypeA)
		if got := addresses(m); m.Rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
			return fmt.Errorf("%s: want %v in\n%v", qname, want, m)
		}
		for _, rr := range m.Answer {
			if h := rr.Header(); h.Name != qname || h.Ttl != ttl {
				return fmt.Errorf("%s: want a TTL of %d in\n%v", qname, ttl, m)
			}
		}
		return nil
	})
}

// untilSeen is untilView without the name servers of the zone, which file adds to its answers.
func (s *server) untilSeen(qname string, qtype uint16, want []string) {
	s.t.Helper()
	lab.UntilNil(s.t, func() error {
		got := clientView(s.ask(qname, qtype))
		got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, " NS ") })
		if !slices.Equal(got, want) {
			return fmt.Errorf("the client sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// Names stand by for each other in a chain, each with a stanza of its own, wherever that is.
func TestStandbyChain(t *testing.T) {
	t.Parallel()
	// The record's own TTL is the longest of all; of a, b and c the stanza, the record and the record have the least.
	const a, b, c = "a 400 127.2.1.1 127.2.1.2", "b 50 127.2.2.1 127.2.2.2", "c 20 127.2.3.1 127.2.3.2"
	for _, tt := range []struct {
		name string
		// b and c are where those names are.
		b, c     string
		corefile func(t *testing.T, f *farm) string
	}{
		{"one server block", "b.example.org.", "c.example.org.", func(t *testing.T, f *farm) string {
			return "example.org:0 {\nbind 127.0.0.1\n" +
				f.standbyStanza("a.example.org", "ttl 100\nfallback b.example.org") +
				f.standbyStanza("b.example.org", "ttl 80\nfallback c.example.org") +
				f.standbyStanza("c.example.org", "ttl 70") +
				"file " + standbyZone(t, "example.org.", a, b, c) + "\n}\n"
		}},
		{"two server blocks", "b.example.net.", "c.example.org.", func(t *testing.T, f *farm) string {
			return "example.org:0 {\nbind 127.0.0.1\n" +
				f.standbyStanza("a.example.org", "ttl 100\nfallback b.example.net") +
				f.standbyStanza("c.example.org", "ttl 70") +
				"file " + standbyZone(t, "example.org.", a, c) + "\n}\n" +
				"example.net:0 {\nbind 127.0.0.1\n" +
				f.standbyStanza("", "ttl 80\nfallback c.example.org") +
				"file " + standbyZone(t, "example.net.", b) + "\n}\n"
		}},
		{"a block with a cache, and one that forwards to it", "b.example.net.", "c.example.org.", func(t *testing.T, f *farm) string {
			upstream := start(t, "example.net:0 {\nbind 127.0.0.1\nfile "+standbyZone(t, "example.net.", b)+"\n}\n")
			return "example.org:0 {\nbind 127.0.0.1\n" +
				f.standbyStanza("a.example.org", "ttl 100\nfallback b.example.net") +
				f.standbyStanza("c.example.org", "ttl 70") +
				"cache\nfile " + standbyZone(t, "example.org.", a, c) + "\n}\n" +
				".:0 {\nbind 127.0.0.1\n" +
				f.standbyStanza("example.net", "ttl 80\nfallback c.example.org") +
				"forward . " + upstream.addr + "\n}\n"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFarm(t, "127.2.1.1", "127.2.1.2", "127.2.2.1", "127.2.2.2", "127.2.3.1", "127.2.3.2")
			first, second, third := f.addrs[:2], f.addrs[2:4], f.addrs[4:]
			s := start(t, tt.corefile(t, f))
			die := func(addrs []netip.Addr) {
				for _, addr := range addrs {
					f.kill(addr)
				}
			}
			live := func(addrs []netip.Addr) {
				for _, addr := range addrs {
					f.start(addr)
				}
			}
			cached := strings.Contains(tt.name, "cache") // there TTLs run down
			expect := func(qname string, want []netip.Addr, ttl uint32) {
				t.Helper()
				if cached {
					s.until(qname, dns.TypeA, want)
				} else {
					s.untilServed(qname, want, ttl)
				}
			}
			expect("a.example.org.", first, 100)
			expect(tt.b, second, 50)
			expect(tt.c, third, 20)
			die(first)
			expect("a.example.org.", second, 50)
			die(second)
			expect("a.example.org.", third, 20)
			expect(tt.b, third, 20)
			// If every name of a chain is dead, it is all of the one that was asked for.
			die(third)
			expect("a.example.org.", first, 100)
			expect(tt.b, second, 50)
			expect(tt.c, third, 20)
			live(third[:1])
			expect("a.example.org.", third[:1], 20)
			live(second[1:])
			expect("a.example.org.", second[1:], 50)
			live(first)
			expect("a.example.org.", first, 100)
		})
	}
}

// What a name falls back to, once its own addresses are dead, and once the standby's are, too.
func TestStandby(t *testing.T) {
	t.Parallel()
	const (
		dead    = "127.2.4.1" // as long as the test runs
		living  = "127.2.4.2"
		standby = "127.2.4.3" // until the test kills it
		plain   = "127.2.4.4" // dead, in a name that no stanza covers
	)
	all := []string{"NOERROR", "www.example.org. 30 A " + dead}
	nodata := []string{"NOERROR", "example.org. 30 SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 30"}
	one := func(addr string) []string { return []string{"NOERROR", "www.example.org. 30 A " + addr} }
	for _, tt := range []struct {
		fallback    string
		first, last []string // what the client sees while the standby lives, and after that
	}{
		{"standby.example.net", one(standby), all},
		{"standby.example.net all", one(standby), all},
		{"standby.example.net nodata", one(standby), nodata},
		{"standby.example.net servfail", one(standby), []string{"SERVFAIL"}},
		{"standby.example.net 192.0.2.80", one(standby), one("192.0.2.80")},
		{"standby.example.net 2001:db8::80", one(standby), nodata},
		{"STANDBY.example.net. 2001:db8::80 192.0.2.80", one(standby), one("192.0.2.80")},
		// In order: the first that lives.
		{"standby.example.net living.example.net", one(standby), one(living)},
		{"living.example.net standby.example.net", one(living), one(living)},
		{"dead.example.net standby.example.net servfail", one(standby), []string{"SERVFAIL"}},
		// The name need not be more than an alias.
		{"alias.example.net", one(standby), all},
		{"outside.example.net", one(standby), all},
		// Names that lead nowhere.
		{"missing.example.net", all, all},
		{"missing.example.net nodata", nodata, nodata},
		{"missing.example.net standby.example.net 192.0.2.80", one(standby), one("192.0.2.80")},
		{"text.example.net standby.example.net", one(standby), all},
		{"broken.example.net standby.example.net servfail", one(standby), []string{"SERVFAIL"}},
		// Its own zone is where standbys are.
		{"standby.example.org", one(standby), all},
		{"standby.example.org nodata", one(standby), nodata},
		{"www.example.org standby.example.org", one(standby), all},
		{"www.example.org", all, all},
		// What no stanza covers is not checked.
		{"plain.example.com", one(plain), one(plain)},
		{"standby.example.net plain.example.com servfail", one(standby), one(plain)},
	} {
		t.Run(tt.fallback, func(t *testing.T) {
			f := newFarm(t, dead, living, standby)
			f.kill(f.addrs[0])
			zone := standbyZone(t, "example.org.", "www 300 "+dead, "standby 300 "+standby)
			other := standbyZone(t, "example.net.", "standby 300 "+standby, "living 300 "+living, "dead 300 "+dead, "alias 300 standby",
				"outside 300 standby.example.org.", "broken 300 broken.example.invalid.")
			lab.AppendFile(t, other, "text 300 IN TXT standby\n")
			s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "fallback "+tt.fallback)+"file "+zone+"\n}\n"+
				"example.net:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "")+"file "+other+"\n}\n"+
				"example.com:0 {\nbind 127.0.0.1\nfile "+standbyZone(t, "example.com.", "plain 300 "+plain)+"\n}\n")
			expect := func(want []string) { t.Helper(); s.untilSeen("www.example.org.", dns.TypeA, want) }
			expect(tt.first)
			f.kill(f.addrs[2])
			expect(tt.last)
			f.start(f.addrs[2])
			expect(tt.first)
			f.start(f.addrs[0])
			expect(one(dead))
		})
	}
}

// Each family falls back for itself, to what the standby has of it. Where it has nothing of one, and all of that is dead,
// there is none rather than a dead one that clients might try first.
func TestStandbyFamilies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fallback, standby string
		four, six         []string
	}{
		{"standby.example.org", "127.2.5.2", []string{"127.2.5.2"}, nil},
		{"standby.example.org nodata", "127.2.5.2", []string{"127.2.5.2"}, nil},
		{"standby.example.org 192.0.2.80 2001:db8::80", "127.2.5.2", []string{"127.2.5.2"}, []string{"2001:db8::80"}},
		// Nothing covers this one, so that its address need not live.
		{"plain.example.net", "127.2.5.2", nil, []string{"2001:db8::53"}},
		{"standby.example.org plain.example.net", "127.2.5.2", []string{"127.2.5.2"}, []string{"2001:db8::53"}},
	} {
		t.Run(tt.fallback, func(t *testing.T) {
			f := newFarm(t, "127.2.5.2") // nothing listens on 127.2.5.1 and ::1
			s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "fallback "+tt.fallback)+
				"file "+standbyZone(t, "example.org.", "www 300 127.2.5.1 ::1", "standby 300 "+tt.standby)+"\n}\n"+
				"example.net:0 {\nbind 127.0.0.1\nfile "+standbyZone(t, "example.net.", "plain 300 2001:db8::53")+"\n}\n")
			for qtype, want := range map[uint16][]string{dns.TypeA: tt.four, dns.TypeAAAA: tt.six} {
				var addrs []netip.Addr
				for _, addr := range want {
					addrs = append(addrs, netip.MustParseAddr(addr))
				}
				s.until("www.example.org.", qtype, addrs)
				if m := s.ask("www.example.org.", qtype); m.Rcode != dns.RcodeSuccess {
					t.Errorf("%v", m)
				} else if len(want) == 0 {
					expectNegative(t, m, 30)
				}
			}
		})
	}
}

// An alias keeps its record, and what it leads to is replaced by the standby of the alias' stanza.
func TestStandbyOfAlias(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.2.6.1", "127.2.6.2", "127.2.6.3")
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+
		f.standbyStanza("alias.example.org", "fallback one.example.org")+
		f.standbyStanza("", "fallback two.example.org")+
		"file "+standbyZone(t, "example.org.", "www 300 127.2.6.1", "alias 300 www", "one 300 127.2.6.2", "two 300 127.2.6.3")+"\n}\n")
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
	f.kill(f.addrs[0])
	for qname, want := range map[string][]string{
		"www.example.org.":   {"NOERROR", "www.example.org. 30 A 127.2.6.3"},
		"alias.example.org.": {"NOERROR", "alias.example.org. 300 CNAME www.example.org.", "www.example.org. 30 A 127.2.6.2"},
	} {
		s.untilSeen(qname, dns.TypeA, want)
	}
}

// Services have no standby: their records lead to names that have.
func TestStandbyService(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.2.7.1", "127.2.7.2")
	f.kill(f.addrs[0])
	zone := standbyZone(t, "example.org.", "www 300 127.2.7.1", "also 300 127.2.7.3", "standby 300 127.2.7.2")
	lab.AppendFile(t, zone, fmt.Sprintf("_web._tcp 300 IN SRV 0 0 %[1]d www\n_web._tcp 300 IN SRV 0 0 %[1]d also\n", f.port))
	service := func(target string) string {
		return fmt.Sprintf("_web._tcp.example.org. 30 SRV 0 0 %d %s.example.org.", f.port, target)
	}
	for fallback, want := range map[string][]string{
		"standby.example.org":            {"NOERROR", service("www"), service("also")},
		"standby.example.org 192.0.2.80": {"NOERROR", service("www"), service("also")},
		"standby.example.org nodata":     {"NOERROR", "example.org. 30 SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 30"},
		"standby.example.org servfail":   {"SERVFAIL"},
	} {
		s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "fallback "+fallback)+"file "+zone+"\n}\n")
		s.until("www.example.org.", dns.TypeA, f.addrs[1:])
		s.untilSeen("_web._tcp.example.org.", dns.TypeSRV, want)
	}
}

// A loop that the Corefile shows is an error that names its stanzas.
func TestStandbyLoop(t *testing.T) {
	stanza := func(zone, fallback string) string {
		return fmt.Sprintf("shaker %s {\nfallback %s\n}\n", zone, fallback)
	}
	block := func(zone string, stanzas ...string) string {
		return zone + ":0 {\nbind 127.0.0.1\n" + strings.Join(stanzas, "") + "}\n"
	}
	for _, tt := range []struct {
		name, corefile string
		names          []string // in the error beside that, none where there is none
	}{
		{"two stanzas of a block", block("example.org", stanza("a.example.org", "b.example.org"), stanza("b.example.org", "a.example.org")),
			[]string{"a.example.org.", "b.example.org."}},
		{"three stanzas", block("example.org", stanza("a.example.org", "b.example.org"), stanza("b.example.org", "c.example.org"),
			stanza("c.example.org", "a.example.org")), []string{"a.example.org.", "b.example.org.", "Corefile:9"}},
		{"behind a beginning", block("example.org", stanza("a.example.org", "b.example.org"), stanza("b.example.org", "c.example.org"),
			stanza("c.example.org", "b.example.org")), []string{"b.example.org.", "c.example.org."}},
		{"two blocks", block("example.org", stanza("", "b.example.net")) + block("example.net", stanza("", "a.example.org")),
			[]string{"example.org.", "example.net."}},
		{"not by the first name", block("example.org", stanza("a.example.org", "x.example.com b.example.org servfail"),
			stanza("b.example.org", "y.example.com a.example.org 192.0.2.80")), []string{"a.example.org.", "b.example.org."}},
		{"of case", block("example.org", stanza("A.example.org", "B.Example.Org"), stanza("b.example.org", "a.EXAMPLE.org")),
			[]string{"a.example.org.", "b.example.org."}},

		{"the stanza's own zone", block("example.org", stanza("", "standby.example.org")), nil},
		{"the zone itself", block("example.org", stanza("", "example.org")), nil},
		{"several in the own zone", block("example.org", stanza("", "one.example.org two.example.org servfail")), nil},
		{"a chain", block("example.org", stanza("a.example.org", "b.example.org"), stanza("b.example.org", "c.example.org"), stanza("c.example.org", "nodata")), nil},
		{"a diamond", block("example.org", stanza("a.example.org", "b.example.org c.example.org"), stanza("b.example.org", "d.example.org"),
			stanza("c.example.org", "d.example.org"), stanza("d.example.org", "all")), nil},
		{"a stanza above, which does not apply", block("example.org", stanza("", "a.example.org"), stanza("a.example.org", "192.0.2.80")), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.names == nil {
				start(t, tt.corefile)
				return
			}
			// The ports are of no matter: it does not start.
			inst, err := caddy.Start(corefile(tt.corefile))
			if err == nil {
				inst.Stop()
				t.Fatal("it starts")
			}
			for _, want := range append(tt.names, "fallback", "stanza at Corefile:") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %s: %v", want, err)
				}
			}
		})
	}
}

// A loop that no Corefile shows, since it leads through another server, is cut: there are always answers.
func TestStandbyLoopOfServers(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.2.9.1", "127.2.9.2")
	f.kill(f.addrs[0])
	f.kill(f.addrs[1])
	ports := [2]int{port(t), port(t)}
	var servers [2]*server
	for i, own := range []string{"a", "b"} {
		other := []string{"b", "a"}[i]
		servers[i] = start(t, fmt.Sprintf("%s.example.org:%d {\nbind 127.0.0.1\n%sfile %s\n}\n%s.example.org:%d {\nbind 127.0.0.1\nforward . 127.0.0.1:%d\n}\n",
			own, ports[i], f.standbyStanza("", "fallback www."+other+".example.org"),
			standbyZone(t, own+".example.org.", "www 300 "+f.addrs[i].String()), other, ports[i], ports[1-i]))
	}
	answered := func() {
		t.Helper()
		for i, qname := range []string{"www.a.example.org.", "www.b.example.org."} {
			if m := servers[i].ask(qname, dns.TypeA); m.Rcode != dns.RcodeSuccess || len(addresses(m)) != 1 {
				t.Fatalf("%s: %v", qname, m)
			}
		}
	}
	for range 1000 {
		answered()
	}
	f.start(f.addrs[1])
	for i, qname := range []string{"www.a.example.org.", "www.b.example.org."} {
		lab.UntilNil(t, func() error {
			answered()
			if got := addresses(servers[i].ask(qname, dns.TypeA)); !slices.Equal(got, f.addrs[1:]) {
				return fmt.Errorf("%s: %v, want %v", qname, got, f.addrs[1:])
			}
			return nil
		})
	}
}

// Each view of a zone has standbys of its own, chosen and checked as its stanza says.
func TestStandbyOfView(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.2.10.1", "127.2.11.1", "127.2.12.1")
	zone := standbyZone(t, "example.org.", "www 300 127.2.10.1", "standby 300 127.2.11.1 127.2.12.1")
	s := start(t, "example.org:0 {\nbind 127.0.0.1\nview near {\nexpr incidr(client_ip(), '127.20.1.0/24')\n}\n"+
		f.standbyStanza("", "prefer 127.2.11.0/24\nfallback standby.example.org")+"file "+zone+"\n}\n"+
		"example.org:0 {\nbind 127.0.0.1\n"+
		f.standbyStanza("", "prefer 127.2.12.0/24\nfallback standby.example.org")+"file "+zone+"\n}\n")
	near, far := netip.MustParseAddr("127.20.1.9"), netip.MustParseAddr("127.20.2.9")
	for _, step := range []struct {
		die       int // its place among the addresses
		near, far []netip.Addr
	}{
		{0, f.addrs[1:2], f.addrs[2:]},
		{1, f.addrs[2:], f.addrs[2:]},
		{2, f.addrs[:1], f.addrs[:1]},
	} {
		f.kill(f.addrs[step.die])
		for client, want := range map[netip.Addr][]netip.Addr{near: step.near, far: step.far} {
			lab.UntilNil(t, func() error {
				if got := s.orderFor(client, "www.example.org.", dns.TypeA); !slices.Equal(got, want) {
					return fmt.Errorf("%v gets %v, want %v", client, got, want)
				}
				return nil
			})
		}
	}
}

// A standby is checked before it is needed: nobody has asked for it, nor for what falls back to it.
func TestStandbyIsChecked(t *testing.T) {
	f := newFarm(t, "127.2.13.1", "127.2.13.2", "127.2.13.3")
	f.kill(f.addrs[1])
	page := local(t)
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "fallback standby.example.net\nstatus "+page)+
		"file "+standbyZone(t, "example.org.", "www 300 127.2.13.3")+"\n}\n"+
		"example.net:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "")+"file "+standbyZone(t, "example.net.", "standby 300 127.2.13.1 127.2.13.2")+"\n}\n")
	want := map[string]string{
		fmt.Sprintf("127.2.13.1:%d", f.port): "up",
		fmt.Sprintf("127.2.13.2:%d", f.port): "down",
	}
	lab.UntilNil(t, func() error {
		if got := statusOf(t, page, "").states(); !maps.Equal(got, want) {
			return fmt.Errorf("targets %v, want %v", got, want)
		}
		return nil
	})
	// So the dead one is never in an answer.
	s.until("www.example.org.", dns.TypeA, f.addrs[2:])
	f.kill(f.addrs[2])
	lab.Until(t, "the standby", func() bool {
		got := addresses(s.ask("www.example.org.", dns.TypeA))
		if !slices.Equal(got, f.addrs[2:]) && !slices.Equal(got, f.addrs[:1]) {
			t.Fatalf("answer %v", got)
		}
		return slices.Equal(got, f.addrs[:1])
	})
}
