package test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// shopPort is where a service of the shop is in the test, which may not use the lower ports.
func shopPort(port string) string {
	n, _ := strconv.Atoi(port)
	return strconv.Itoa(20000 + n)
}

// shopAddress is where one of its hosts is, on a network of this process: another one may run the same test.
func shopAddress(host byte) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, 64 | byte(pid>>8)&63, byte(pid), host})
}

// The shop is served, loses a machine of each service, and serves what is left.
func TestShop(t *testing.T) {
	network := strings.TrimSuffix(shopAddress(0).String(), "0")
	local := func(text string) string { return strings.ReplaceAll(text, "192.0.2.", network) }
	ports := func(text, pattern string) string {
		return regexp.MustCompile(pattern).ReplaceAllStringFunc(text, func(match string) string {
			return regexp.MustCompile(`\b\d+\b`).ReplaceAllStringFunc(match, shopPort)
		})
	}
	corefile, zone := fenceWith(t, "corefile", "cdn.example"), fenceWith(t, "dns", "shop.example")
	t.Chdir(t.TempDir())
	zone = ports(local(zone), `port=\d+|(543\d)`)
	if err := os.WriteFile("db.shop.example", []byte(zone), 0o600); err != nil {
		t.Fatal(err)
	}
	corefile = ports(local(corefile), `(?m)^ *port .*$`)
	// The first stanza has no port of its own, and its interval would take the test's time.
	corefile = strings.Replace(corefile, "shaker {", "shaker {\nport "+shopPort("443"), 1)
	corefile = regexp.MustCompile(`shaker .*\{`).ReplaceAllString(corefile, "$0\nallow 127.0.0.0/8")
	corefile = regexp.MustCompile(`(?m)^\S.*\{$`).ReplaceAllString(corefile, "$0\nbind 127.0.0.1")
	defer func(port string) { dnsserver.Port = port }(dnsserver.Port)
	dnsserver.Port = strconv.Itoa(port(t))

	listening := make(map[string]net.Listener)
	listen := func(at ...string) {
		for _, target := range at {
			host, port, _ := strings.Cut(target, ":")
			l, err := net.Listen("tcp", network+host+":"+shopPort(port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			listening[target] = l
		}
	}
	listen("11:443", "12:443", "21:443", "21:8443", "22:443", "22:8443", "31:25", "31:587", "32:25", "32:587",
		"51:5432", "52:5433", "41:80", "42:80", "43:80", "44:80")
	s := start(t, corefile)
	addrs := func(hosts ...int) (addrs []netip.Addr) {
		for _, h := range hosts {
			addrs = append(addrs, shopAddress(byte(h)))
		}
		return addrs
	}
	expect := func(qname string, hosts ...int) { t.Helper(); s.until(qname, dns.TypeA, addrs(hosts...)) }
	services := func() (view string) {
		m := s.ask("_postgresql._tcp.shop.example.", dns.TypeSRV)
		for _, rr := range m.Answer {
			view += rr.(*dns.SRV).Target + " "
		}
		return view + fmt.Sprint(len(m.Extra))
	}
	hints := func() []string {
		m := s.ask("api.shop.example.", dns.TypeHTTPS)
		var hints []string
		for _, kv := range m.Answer[0].(*dns.HTTPS).Value {
			if kv.Key() == dns.SVCB_IPV4HINT {
				hints = strings.Split(kv.String(), ",")
			}
		}
		return hints
	}

	expect("www.shop.example.", 11, 12)
	expect("api.shop.example.", 21, 22)
	expect("mail.shop.example.", 31, 32)
	expect("img.cdn.example.", 41, 42, 43, 44)
	if got := services(); got != "db1.shop.example. db2.shop.example. 2" {
		t.Errorf("services %s", got)
	}
	if got := hints(); !slices.Equal(got, []string{network + "21", network + "22"}) {
		t.Errorf("hints %v", got)
	}

	for _, dead := range []string{"11:443", "21:443", "22:8443", "31:587", "52:5433", "41:80"} {
		listening[dead].Close()
	}
	expect("www.shop.example.", 12)
	expect("mail.shop.example.", 32)
	expect("img.cdn.example.", 42, 43, 44)
	expect("api.shop.example.", 21, 22) // each has a port that is left
	lab.Until(t, "the database to be gone", func() bool { return services() == "db1.shop.example. 1" })
	lab.Until(t, "the hint to be gone", func() bool { return slices.Equal(hints(), []string{network + "21"}) })

	for _, dead := range []string{"12:443", "21:8443", "32:25", "42:80", "43:80"} {
		listening[dead].Close()
	}
	expect("www.shop.example.", 80) // the page for the worst case
	expect("api.shop.example.", 22)
	lab.Until(t, "mail to fail", func() bool { return s.ask("mail.shop.example.", dns.TypeA).Rcode == dns.RcodeServerFailure })
	expect("img.cdn.example.") // less than half are left
}
