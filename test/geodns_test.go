package test

import (
	"go/build"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/geoip"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// here is the directory of this package, which a test may have left.
var here, _ = os.Getwd()

// geoDatabase returns the path of the database that CoreDNS has for its own tests.
func geoDatabase(t *testing.T) string {
	t.Helper()
	context := build.Default
	context.Dir = here
	plugin, err := context.Import("github.com/coredns/coredns/plugin/geoip", here, build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(plugin.Dir, "testdata", "GeoLite2-City.mmdb")
}

// geoServer serves an example with views. The sites of the pages are on loopback, where its clients are, too.
func geoServer(t *testing.T, f *farm, corefile string) *server {
	t.Helper()
	for pattern, by := range map[string]string{
		`192\.0\.2\.`:         "127.6.2.",
		`'10\.(\d+)\.0\.0/16`: "'127.10.$1.0/24",
		`geoip \S+`:           "geoip " + geoDatabase(t),
		`shaker \{`:           "$0\nport " + strconv.Itoa(int(f.port)) + "\ninterval 100ms 20ms\ndamping off\nhold 4s\nallow 127.0.0.0/8",
		`(?m)^\S.*\{$`:        "$0\nbind 127.0.0.1",
	} {
		corefile = regexp.MustCompile(pattern).ReplaceAllString(corefile, by)
	}
	zone, err := os.ReadFile(f.zoneFile())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	lab.FileIn(t, ".", "db.example.org", string(zone))
	defer func(port string) { dnsserver.Port = port }(dnsserver.Port)
	dnsserver.Port = strconv.Itoa(port(t))
	return start(t, corefile)
}

// site returns the addresses of the farm in a prefix.
func (f *farm) site(cidr string) []netip.Addr {
	in := netip.MustParsePrefix(cidr)
	return slices.DeleteFunc(slices.Clone(f.addrs), func(a netip.Addr) bool { return !in.Contains(a) })
}

// Clients of three networks get three sites, and each the next of its own when one is gone.
func TestGeoDNS(t *testing.T) {
	f := newFarm(t, "127.6.2.1", "127.6.2.2", "127.6.2.65", "127.6.2.66", "127.6.2.129", "127.6.2.130")
	s := geoServer(t, f, fenceWith(t, "corefile", "incidr(client_ip(), '10.1.0.0/16')"))
	america, europe, asia := f.site("127.6.2.0/26"), f.site("127.6.2.64/26"), f.site("127.6.2.128/26")
	clients := []netip.Addr{netip.MustParseAddr("127.10.1.7"), netip.MustParseAddr("127.10.2.7"), netip.MustParseAddr("127.10.3.7")}
	for _, step := range []struct {
		die, live []netip.Addr
		want      [3][]netip.Addr // by client
	}{
		{nil, nil, [3][]netip.Addr{america, europe, asia}},
		{america, nil, [3][]netip.Addr{europe, europe, asia}},
		{nil, america, [3][]netip.Addr{america, europe, asia}},
		{europe, nil, [3][]netip.Addr{america, asia, asia}},
		{nil, europe, [3][]netip.Addr{america, europe, asia}},
		{asia, nil, [3][]netip.Addr{america, europe, america}},
		{america, nil, [3][]netip.Addr{europe, europe, europe}},
		{europe, asia, [3][]netip.Addr{asia, asia, asia}},
		{asia, america[:1], [3][]netip.Addr{america[:1], america[:1], america[:1]}},
		{america[:1], nil, [3][]netip.Addr{f.addrs, f.addrs, f.addrs}},
	} {
		for _, addr := range step.die {
			f.kill(addr)
		}
		for _, addr := range step.live {
			f.start(addr)
		}
		for i, client := range clients {
			lab.Until(t, client.String(), func() bool {
				got := s.orderFor(client, "www.example.org.", dns.TypeA)
				slices.SortFunc(got, netip.Addr.Compare)
				return slices.Equal(got, step.want[i])
			})
		}
	}
}

// The same by a database of countries, and by the network that a resolver tells of its client.
func TestGeoDNSDatabase(t *testing.T) {
	f := newFarm(t, "127.6.2.1", "127.6.2.2", "127.6.2.65", "127.6.2.66")
	corefile := fenceWith(t, "corefile", "geoip/continent/code")
	if !strings.Contains(corefile, "edns-subnet") {
		t.Fatalf("the example does not go by EDNS Client Subnet:\n%s", corefile)
	}
	s := geoServer(t, f, corefile)
	america, europe := f.site("127.6.2.0/26"), f.site("127.6.2.64/26")
	for _, step := range []struct {
		die, live []netip.Addr
		want      map[string][]netip.Addr // by the subnet of the client, none for one without
	}{
		// The database has this one in the United Kingdom, and does not know loopback.
		{nil, nil, map[string][]netip.Addr{"81.2.69.142/32": europe, "192.0.2.0/24": america, "": america}},
		{europe, nil, map[string][]netip.Addr{"81.2.69.142/32": america, "192.0.2.0/24": america, "": america}},
		{america, europe, map[string][]netip.Addr{"81.2.69.142/32": europe, "192.0.2.0/24": europe, "": europe}},
		{nil, america, map[string][]netip.Addr{"81.2.69.142/32": europe, "192.0.2.0/24": america, "": america}},
	} {
		for _, addr := range step.die {
			f.kill(addr)
		}
		for _, addr := range step.live {
			f.start(addr)
		}
		for subnet, want := range step.want {
			options := []func(*dns.Msg){}
			if subnet != "" {
				options = append(options, withSubnet(subnet))
			}
			lab.Until(t, "a client in "+subnet, func() bool { return slices.Equal(addresses(s.ask("www.example.org.", dns.TypeA, options...)), want) })
		}
	}
}

// withSubnet tells of the client's network, as resolvers do (RFC 7871).
func withSubnet(subnet string) func(*dns.Msg) {
	return func(m *dns.Msg) {
		withEDNS(m)
		p := netip.MustParsePrefix(subnet)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1,
			SourceNetmask: uint8(p.Bits()), Address: net.IP(p.Addr().AsSlice())})
	}
}
