package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/auto"
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/multisocket"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/secondary"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/tsig"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// neighbourZone is what the neighbours' tests ask for. Of the farm's addresses .3 is dead, and nothing listens
// on ::1.
const neighbourZone = `$ORIGIN example.org.
@     300 IN SOA ns hostmaster 1 7200 1800 86400 300
@     300 IN NS ns
ns    300 IN A 192.0.2.53
www   300 IN A 127.0.4.1
www   300 IN A 127.0.4.2
www   300 IN A 127.0.4.3
www   300 IN A 127.0.4.4
alias 300 IN CNAME www
*.any 300 IN CNAME www
dead  300 IN A 127.0.4.3
six   300 IN A 127.0.4.1
six   300 IN A 127.0.4.3
six   300 IN AAAA ::1
four  300 IN A 127.0.4.3
four  300 IN AAAA 64:ff9b::c000:204
gone  300 IN A 127.0.4.3
gone  300 IN A 127.0.4.5
text  300 IN TXT "www"
`

func newNeighbourFarm(t testing.TB) *farm {
	t.Helper()
	f := newFarm(t, "127.0.4.1", "127.0.4.2", "127.0.4.3", "127.0.4.4")
	f.kill(f.addrs[2])
	return f
}

// neighbourCorefile is a server for all names that filters those in example.org. What refuses is down at the
// first answer.
func (f *farm) neighbourCorefile(properties, directives string) string {
	return fmt.Sprintf(`.:0 {
		bind 127.0.0.1
		shaker example.org {
			port %d
			deny 0.0.0.0/0 ::/0
			allow 127.0.0.0/8 ::1
			hold 3s
			ttl 20s
			%s
		}
		%s
	}`, f.port, properties, directives)
}

// clientView is what a client sees of an answer: status and flags, then the answer and the authority section, record
// by record.
func clientView(m *dns.Msg) []string {
	status := dns.RcodeToString[m.Rcode]
	for _, flag := range []struct {
		name string
		set  bool
	}{{"ra", m.RecursionAvailable}, {"tc", m.Truncated}, {"ad", m.AuthenticatedData}} {
		if flag.set {
			status += " " + flag.name
		}
	}
	seen := []string{status}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		seen = append(seen, strings.Join(strings.Fields(strings.Replace(rr.String(), "\tIN\t", " ", 1)), " "))
	}
	return seen
}

// untilView asks until a client sees this. On a machine that is slow to probe, that may take more than one answer.
func (s *server) untilView(qname string, qtype uint16, want []string, options ...func(*dns.Msg)) {
	s.t.Helper()
	lab.UntilNil(s.t, func() error {
		m := s.ask(qname, qtype, options...)
		if q := m.Question[0]; q.Name != qname || q.Qtype != qtype {
			s.t.Fatalf("question %v", q)
		}
		if got := clientView(m); !slices.Equal(got, want) {
			return fmt.Errorf("the client sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// livingWWW is the answer to www.example.org.
var livingWWW = []string{"NOERROR",
	"www.example.org. 20 A 127.0.4.1", "www.example.org. 20 A 127.0.4.2", "www.example.org. 20 A 127.0.4.4"}

// Each plugin that changes answers, or makes them, in a chain with shaker, and what a client sees.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	const authority = "example.org. 300 NS ns.example.org."
	var (
		dir     = t.TempDir()
		zone    = lab.FileIn(t, dir, "db.example.org", neighbourZone)
		search  = lab.FileIn(t, dir, "resolv.conf", "search here.example.org example.org\n")
		living  = append(slices.Clone(livingWWW), authority)
		renamed = func(name string, ttl int, records ...string) []string {
			view := []string{"NOERROR"}
			for _, addr := range []string{"127.0.4.1", "127.0.4.2", "127.0.4.4"} {
				view = append(view, fmt.Sprintf("%s %d A %s", name, ttl, addr))
			}
			return append(view, records...)
		}
	)
	file := "file " + zone + " example.org\n"
	f.expectViews(t, []neighbourCase{
		{"nothing but file", "", file, "www.example.org.", dns.TypeA, living},

		{"acl allows", "", "acl {\nallow net 127.0.0.0/8\n}\n" + file, "www.example.org.", dns.TypeA, living},
		{"acl blocks", "", "acl {\nblock net 127.0.0.0/8\n}\n" + file, "www.example.org.", dns.TypeA, []string{"REFUSED"}},
		{"acl filters", "", "acl {\nfilter net 127.0.0.0/8\n}\n" + file, "www.example.org.", dns.TypeA, []string{"NOERROR"}},

		{"any", "", "any\n" + file, "www.example.org.", dns.TypeANY,
			[]string{"NOERROR", `www.example.org. 8482 HINFO "ANY obsoleted" "See RFC 8482"`}},
		{"any lets A pass", "", "any\n" + file, "www.example.org.", dns.TypeA, living},

		{"auto", "", "auto example.org {\ndirectory " + dir + ` db\.(.*) {1}` + "\n}\n", "www.example.org.", dns.TypeA, living},

		{"autopath", "", "autopath example.org " + search + "\n" + file, "www.here.example.org.", dns.TypeA,
			append([]string{"NOERROR", "www.here.example.org. 20 CNAME www.example.org."}, living[1:]...)},
		{"autopath to an alias", "", "autopath example.org " + search + "\n" + file, "alias.here.example.org.", dns.TypeA,
			append([]string{"NOERROR", "alias.here.example.org. 300 CNAME alias.example.org.",
				"alias.example.org. 300 CNAME www.example.org."}, living[1:]...)},

		{"dns64", "", "dns64 {\nallow_ipv4\n}\n" + file, "www.example.org.", dns.TypeAAAA, []string{"NOERROR",
			"www.example.org. 20 AAAA 64:ff9b::7f00:401", "www.example.org. 20 AAAA 64:ff9b::7f00:402",
			"www.example.org. 20 AAAA 64:ff9b::7f00:404", authority}},
		{"dns64 where the only IPv6 address is dead", "", "dns64 {\nallow_ipv4\n}\n" + file, "six.example.org.", dns.TypeAAAA,
			[]string{"NOERROR", "six.example.org. 20 AAAA 64:ff9b::7f00:401", authority}},
		{"dns64 and nodata", "fallback nodata", "dns64 {\nallow_ipv4\n}\n" + file, "six.example.org.", dns.TypeAAAA,
			[]string{"NOERROR", "six.example.org. 20 AAAA 64:ff9b::7f00:401", authority}},
		{"dns64 that translates all", "", "dns64 {\nallow_ipv4\ntranslate_all\n}\n" + file, "six.example.org.", dns.TypeAAAA,
			[]string{"NOERROR", "six.example.org. 20 AAAA 64:ff9b::7f00:401", authority}},

		{"header", "", "header {\nresponse set ra\n}\n" + file, "www.example.org.", dns.TypeA,
			append([]string{"NOERROR ra"}, living[1:]...)},

		{"hosts", "", "hosts {\n127.0.4.1 www.example.org\n127.0.4.3 www.example.org\n}\n", "www.example.org.", dns.TypeA,
			[]string{"NOERROR", "www.example.org. 20 A 127.0.4.1"}},

		{"minimal", "", "minimal\n" + file, "www.example.org.", dns.TypeA, livingWWW},
		{"minimal and nodata", "fallback nodata", "minimal\n" + file, "dead.example.org.", dns.TypeA, []string{"NOERROR",
			"example.org. 20 SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 20"}},

		{"rewrite name", "", "rewrite name shop.example.net www.example.org\n" + file, "shop.example.net.", dns.TypeA,
			renamed("shop.example.net.", 20, authority)},
		{"rewrite name out of the zones", "", "rewrite name www.example.org www.example.net\nhosts {\n" +
			"127.0.4.1 www.example.net\n127.0.4.3 www.example.net\n}\n", "www.example.org.", dns.TypeA, []string{"NOERROR",
			"www.example.org. 3600 A 127.0.4.1", "www.example.org. 3600 A 127.0.4.3"}},
		{"rewrite answer", "", "rewrite stop {\nname regex (.*)\\.example\\.net {1}.example.org\n" +
			"answer name (.*)\\.example\\.org {1}.example.net\n}\n" + file, "www.example.net.", dns.TypeA,
			renamed("www.example.net.", 20, authority)},
		{"rewrite ttl", "", "rewrite ttl www.example.org 600\n" + file, "www.example.org.", dns.TypeA,
			renamed("www.example.org.", 600, "example.org. 600 NS ns.example.org.")},
		{"rewrite ttl to a range", "", "rewrite ttl www.example.org 5-60\n" + file, "www.example.org.", dns.TypeA,
			renamed("www.example.org.", 20, "example.org. 60 NS ns.example.org.")},
		{"rewrite type", "", "rewrite type TXT A\n" + file, "www.example.org.", dns.TypeTXT, living},
		{"rewrite rcode", "fallback servfail", "rewrite rcode dead.example.org SERVFAIL NXDOMAIN\n" + file, "dead.example.org.",
			dns.TypeA, []string{"NXDOMAIN"}},

		{"template", "", "template IN A example.org {\n" +
			`answer "{{ .Name }} 300 IN A 127.0.4.3"` + "\n" + `answer "{{ .Name }} 60 IN A 127.0.4.2"` + "\n" +
			`answer "{{ .Name }} 10 IN A 127.0.4.1"` + "\n}\n", "www.example.org.", dns.TypeA,
			[]string{"NOERROR", "www.example.org. 20 A 127.0.4.2", "www.example.org. 10 A 127.0.4.1"}},

		{"wildcard", "", file, "x.any.example.org.", dns.TypeA,
			append([]string{"NOERROR", "x.any.example.org. 300 CNAME www.example.org."}, living[1:]...)},
		{"text", "", file, "text.example.org.", dns.TypeTXT, []string{"NOERROR", `text.example.org. 300 TXT "www"`, authority}},
	})
}

// neighbourCase is a chain, a query, and what the client sees of the answer.
type neighbourCase struct {
	name       string
	properties string // of shaker
	directives string
	qname      string
	qtype      uint16
	want       []string
}

func (f *farm) expectViews(t *testing.T, cases []neighbourCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			start(t, f.neighbourCorefile(c.properties, c.directives)).untilView(c.qname, c.qtype, c.want)
		})
	}
}

// Whoever acl turns away has nothing probed.
func TestACLBeforeProbes(t *testing.T) {
	f := newNeighbourFarm(t)
	page := local(t)
	s := start(t, f.neighbourCorefile("status "+page, "acl {\nblock type A net *\n}\n"+f.hostsBlock()))
	s.ask("www.example.org.", dns.TypeA)
	if n := countsAt(t, page).Total; n != 0 {
		t.Errorf("%d targets after a query that was refused", n)
	}
}

// loadbalance is above and has the last word on the order, but only among addresses that are alive.
func TestLoadbalance(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	weights := lab.File(t, "weights", "www.example.org\n127.0.4.1 1\n127.0.4.2 20\n127.0.4.3 255\n127.0.4.4 1\n")
	const queries = 300
	few, most := func(n int) bool { return 0 < n && n < queries/2 }, func(n int) bool { return n > queries/2 }
	all, none := func(n int) bool { return n == queries }, func(n int) bool { return n == 0 }
	tests := []struct {
		policy string
		first  [4]func(int) bool // how often each address comes first
	}{
		{"", [4]func(int) bool{few, few, none, few}},
		{"round_robin", [4]func(int) bool{few, few, none, few}},
		{"weighted " + weights, [4]func(int) bool{few, most, none, few}},
		{"round_robin {\nprefer 127.0.4.2/31\n}", [4]func(int) bool{none, all, none, none}},
		{"round_robin {\nprefer 127.0.4.3/32\n}", [4]func(int) bool{few, few, none, few}},
	}
	for _, tt := range tests {
		t.Run(strings.Fields(tt.policy + " default")[0], func(t *testing.T) {
			s := start(t, f.neighbourCorefile("", "loadbalance "+tt.policy+"\n"+zone))
			s.until("www.example.org.", dns.TypeA, f.without(f.addrs[2]))
			first := make(map[netip.Addr]int)
			for range queries {
				m := s.ask("www.example.org.", dns.TypeA)
				if got := addresses(m); !slices.Equal(got, f.without(f.addrs[2])) {
					t.Fatalf("answer %v", got)
				}
				first[netip.MustParseAddr(m.Answer[0].(*dns.A).A.String())]++
			}
			for i, addr := range f.addrs {
				if !tt.first[i](first[addr]) {
					t.Errorf("first of %d answers: %v", queries, first)
				}
			}
		})
	}
}

// Views of the same name have policies of their own.
func TestView(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	other := port(t) // where everything is dead
	zone := lab.File(t, "db.example.org", neighbourZone)
	block := func(view string, port int) string {
		return fmt.Sprintf(`example.org:0 {
			bind 127.0.0.1
			%s
			shaker {
				port %d
				allow 127.0.0.0/8
				hold 3s
				ttl 20s
				fallback nodata
			}
			file %s
		}
		`, view, port, zone)
	}
	s := start(t, block("view edns {\nexpr bufsize() == 1232\n}", other)+block("", int(f.port)))
	want := append(slices.Clone(livingWWW), "example.org. 300 NS ns.example.org.")
	s.untilView("www.example.org.", dns.TypeA, want)
	want = []string{"NOERROR", "example.org. 20 SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 20"}
	s.untilView("www.example.org.", dns.TypeA, want, withEDNS)
}

// With several sockets there are several servers, which share one handler and its targets.
func TestMultisocket(t *testing.T) {
	f := newNeighbourFarm(t)
	page := local(t)
	corefile := f.neighbourCorefile("status "+page, "multisocket 3\n"+f.hostsBlock())
	s := start(t, strings.Replace(corefile, ".:0", fmt.Sprintf(".:%d", port(t)), 1))
	if n := len(s.inst.Servers()); n != 3 {
		t.Fatalf("%d servers, want 3", n)
	}
	s.until("www.example.org.", dns.TypeA, f.without(f.addrs[2]))
	for range 30 { // each from another port, which is what the kernel distributes by
		if got := addresses(s.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, f.without(f.addrs[2])) {
			t.Fatalf("answer %v", got)
		}
	}
	if n := countsAt(t, page).Total; n != len(f.addrs) {
		t.Errorf("%d targets for %d addresses", n, len(f.addrs))
	}
}

// Options that others put into the OPT record and shaker's own stand side by side.
func TestNSID(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	s := start(t, f.neighbourCorefile("", "nsid here\n"+zone))
	askNSID := func(m *dns.Msg) {
		withEDNS(m)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	for qname, ede := range map[string]string{
		"www.example.org.":  "",
		"dead.example.org.": "shaker: 1 of 1 addresses of dead.example.org. are down",
		"gone.example.org.": "shaker: 2 of 2 addresses of gone.example.org. are down",
	} {
		var m *dns.Msg
		lab.UntilNil(t, func() error {
			m = s.ask(qname, dns.TypeA, askNSID)
			if got := extendedError(m); got != ede {
				return fmt.Errorf("%s: EDE %q, want %q", qname, got, ede)
			}
			return nil
		})
		found := slices.ContainsFunc(m.IsEdns0().Option, func(o dns.EDNS0) bool {
			nsid, ok := o.(*dns.EDNS0_NSID)
			return ok && nsid.Nsid == fmt.Sprintf("%x", "here")
		})
		if !found {
			t.Errorf("%s: no NSID in %v", qname, m)
		}
	}
}

// A filtered answer is signed after it was filtered.
func TestTSIG(t *testing.T) {
	t.Parallel()
	const key, secret = "key.example.org.", "c2hha2VyJ3MgbmVpZ2hib3Vycw=="
	f := newNeighbourFarm(t)
	zone := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	s := start(t, f.neighbourCorefile("", "tsig example.org {\nsecret "+key+" "+secret+"\nrequire all\n}\n"+zone))
	for network, addr := range map[string]string{"udp": s.addr, "tcp": s.tcp} {
		client := dns.Client{Net: network, Timeout: patience, TsigSecret: map[string]string{key: secret}}
		lab.UntilNil(t, func() error {
			q := new(dns.Msg)
			q.SetQuestion("www.example.org.", dns.TypeA)
			q.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
			m, _, err := client.Exchange(q, addr) // verifies the signature
			if err != nil {
				t.Fatalf("%s: %v", network, err)
			}
			if got := addresses(m); m.IsTsig() == nil || !slices.Equal(got, f.without(f.addrs[2])) {
				return fmt.Errorf("%s: answer\n%v", network, m)
			}
			return nil
		})
	}
	if m := s.ask("www.example.org.", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("unsigned query: answer\n%v", m)
	}
}

// A zone that comes from elsewhere is filtered here, and its primary's answers are not.
func TestSecondary(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	primary := start(t, "example.org:0 {\nbind 127.0.0.1\ntransfer {\nto *\n}\nfile "+zone+"\n}\n")
	s := start(t, f.neighbourCorefile("", "secondary example.org {\ntransfer from "+primary.tcp+"\n}\n"))
	s.until("www.example.org.", dns.TypeA, f.without(f.addrs[2]))
	if got := addresses(primary.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, f.addrs) {
		t.Errorf("the primary answers %v", got)
	}
}
