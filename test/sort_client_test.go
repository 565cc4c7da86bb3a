package test

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// orderFor asks from an address, and returns the addresses in the order of the answer.
func (s *server) orderFor(client netip.Addr, qname string, qtype uint16, options ...func(*dns.Msg)) []netip.Addr {
	s.t.Helper()
	q := new(dns.Msg).SetQuestion(qname, qtype)
	for _, o := range options {
		o(q)
	}
	from := dns.Client{Timeout: patience, Dialer: &net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0))}}
	m, _, err := from.Exchange(q, s.addr)
	if err != nil || m.Rcode != dns.RcodeSuccess {
		s.t.Fatalf("%s from %v: %v\n%v", qname, client, err, m)
	}
	return ordered(m)
}

// sortedFor returns the addresses in the order that the manual promises to a network: by -ln(h) / weight, where h is the
// XXH64 of 16 octets of the network and 16 of the address, made a number between 0 and 1.
func sortedFor(network netip.Prefix, addrs []netip.Addr, weights map[netip.Addr]float64) []netip.Addr {
	score := func(addr netip.Addr) float64 {
		n, a := network.Masked().Addr().As16(), addr.As16()
		h := xxhash.Sum64(append(n[:], a[:]...))
		return -math.Log((float64(h>>12)+0.5)/(1<<52)) / max(1, weights[addr])
	}
	sorted := slices.Clone(addrs)
	slices.SortFunc(sorted, func(a, b netip.Addr) int {
		if score(a) < score(b) {
			return -1
		}
		return 1
	})
	return sorted
}

// network4 is the n-th of 200 networks of clients, and host4 a client in it.
func network4(n int) netip.Prefix { return netip.PrefixFrom(host4(n, 0), 24) }

func host4(n int, host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 100 + byte(n/16), byte(n % 16), host})
}

const networks4 = 200

// The clients of a network have an order that stays theirs. When an address dies only its clients move, each to the next
// in its order, and they come back with it. Another process has the same order.
func TestSortClient(t *testing.T) {
	t.Parallel()
	var addrs []string
	for n := range 8 {
		addrs = append(addrs, fmt.Sprintf("127.4.1.%d", n+1))
	}
	f := newFarm(t, addrs...)
	text := func(port int, below string) string {
		return fmt.Sprintf("example.org:%d {\nbind 127.0.0.1\n%s%sfile %s\n}\n", port,
			f.standbyStanza("", "sort client\nweight 3 127.4.1.7\nweight 2 127.4.1.8"), below, f.zoneFile())
	}
	weights := map[netip.Addr]float64{f.addrs[6]: 3, f.addrs[7]: 2}
	elsewhere := port(t)
	servers := map[string]*server{
		"a server":        start(t, text(0, "")),
		"behind a cache":  start(t, text(0, "cache 300\n")),
		"another process": &startProcess(t, "", fmt.Sprintf("127.0.0.1:%d", elsewhere), text(elsewhere, "")).server,
	}
	expect := func(living []netip.Addr) {
		t.Helper()
		for where, s := range servers {
			s.until("www.example.org.", dns.TypeA, living)
			first := make(map[netip.Addr]int)
			for n := range networks4 {
				want := sortedFor(network4(n), living, weights)
				first[want[0]]++
				for _, got := range [][]netip.Addr{
					s.orderFor(host4(n, 1), "www.example.org.", dns.TypeA),
					s.orderFor(host4(n, 254), "www.example.org.", dns.TypeA),
					s.orderFor(host4(n, 7), "www.example.org.", dns.TypeA, withSubnet(network4(n+1).String())),
				} {
					if !slices.Equal(got, want) {
						t.Fatalf("%s: %v has the order %v, want %v", where, network4(n), got, want)
					}
				}
			}
			if len(first) != len(living) {
				t.Errorf("first are %v, want some for each of %v", first, living)
			}
		}
	}
	expect(f.addrs)
	for _, dead := range []netip.Addr{f.addrs[2], f.addrs[6]} {
		f.kill(dead)
		expect(f.without(dead))
		f.start(dead)
		expect(f.addrs)
	}
}

// How much of an address makes a network.
func TestSortClientBits(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.4.2.1", "127.4.2.2", "127.4.2.3", "127.4.2.4", "127.4.2.5")
	for sort, bits := range map[string]int{"client": 24, "client 24 56": 24, "client 16 48": 16, "client 32 128": 32, "client 9 9": 9} {
		s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "sort "+sort)+"file "+f.zoneFile()+"\n}\n")
		s.until("www.example.org.", dns.TypeA, f.addrs)
		for _, client := range []string{"127.120.1.1", "127.120.1.2", "127.120.2.1", "127.121.1.1", "127.200.1.1", "127.0.0.1"} {
			addr := netip.MustParseAddr(client)
			want := sortedFor(netip.PrefixFrom(addr, bits), f.addrs, nil)
			if got := s.orderFor(addr, "www.example.org.", dns.TypeA); !slices.Equal(got, want) {
				t.Errorf("sort %s: %v has the order %v, want %v", sort, addr, got, want)
			}
		}
	}
}

// With pick, a client keeps the first of its order, so that the same clients go to the same address.
func TestSortClientPick(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.4.3.1", "127.4.3.2", "127.4.3.3", "127.4.3.4", "127.4.3.5", "127.4.3.6", "127.4.3.7", "127.4.3.8")
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "sort client\npick 2")+"file "+f.zoneFile()+"\n}\n")
	settled := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "")+"file "+f.zoneFile()+"\n}\n")
	expect := func(living []netip.Addr) {
		t.Helper()
		settled.until("www.example.org.", dns.TypeA, living) // it has the same targets, and picks nothing
		for n := range networks4 {
			want := sortedFor(network4(n), living, nil)[:2]
			if got := s.orderFor(host4(n, 9), "www.example.org.", dns.TypeA); !slices.Equal(got, want) {
				t.Fatalf("%v has %v, want %v", network4(n), got, want)
			}
		}
	}
	expect(f.addrs)
	f.kill(f.addrs[4])
	expect(f.without(f.addrs[4]))
}

// Clients of IPv6, and those of IPv4 at a socket of both families, whose addresses are IPv4-mapped there.
func TestLabSortClient(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Listen(443)
		addrs := map[uint16][]netip.Addr{dns.TypeA: web.Addrs4(8), dns.TypeAAAA: web.Addrs6(8)}
		zone := "www 300"
		for _, addr := range slices.Concat(addrs[dns.TypeA], addrs[dns.TypeAAAA]) {
			zone += " " + addr.String()
		}
		// Clients may have any address of this network.
		l.IP6("route add local 2001:db8:ff00::/40 dev lo")
		l.Sysctl("net.ipv6.ip_nonlocal_bind", "1")
		// It is on every address of the machine, so that only a process of its own will do.
		six := startProcess(t, "", "[::1]:1053", fmt.Sprintf("example.org:1053 {\nshaker {\nhold 4s\nsort client\n}\nfile %s\n}\n",
			standbyZone(t, "example.org.", zone)))
		four := &server{t: t, addr: "127.0.0.1:1053"}
		for qtype, all := range addrs {
			six.until("www.example.org.", qtype, all)
			for n := range networks4 {
				if got, want := four.orderFor(host4(n, 1), "www.example.org.", qtype), sortedFor(network4(n), all, nil); !slices.Equal(got, want) {
					t.Fatalf("%v has the order %v, want %v", network4(n), got, want)
				}
				client := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 1, byte(n), 0, 15: 1})
				want := sortedFor(netip.PrefixFrom(client, 56), all, nil)
				for _, subnet := range []byte{0, 1, 255} {
					octets := client.As16()
					octets[7], octets[14] = subnet, subnet
					client := netip.AddrFrom16(octets)
					if got := six.orderFor(client, "www.example.org.", qtype); !slices.Equal(got, want) {
						t.Fatalf("%v has the order %v, want %v", client, got, want)
					}
				}
			}
		}
	})
}
