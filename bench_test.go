package shaker

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
	"github.com/puzpuzpuz/xsync/v4"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// benchPass is the query of a client.
func benchPass(zone zonePolicy, network *network, request *dns.Msg) *pass {
	return &pass{
		late:     late{ResponseWriter: new(handlerWriter)},
		Context:  context.Background(),
		verdicts: verdicts{zone: zone, request: request, shaker: network.above(zone, nil)},
	}
}

// benchAnswer returns an answer of the type with n addresses at port 443, of which the last ones are down.
func benchAnswer(tb testing.TB, rrtype uint16, n, down int) (network *network, request, m *dns.Msg) {
	tb.Helper()
	network = newNetwork(tb, "")
	var text, extra strings.Builder
	var hints []string
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		if rrtype == dns.TypeAAAA {
			addr = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i)})
		}
		network.Results[addr] = checker.Answered
		if i >= n-down {
			network.Results[addr] = checker.Refused
		}
		network.settle(addr)
		switch rrtype {
		case dns.TypeSRV:
			fmt.Fprintf(&text, "_x._tcp.example.org. 30 IN SRV 0 0 443 t%d.example.org.\n", i)
			fmt.Fprintf(&extra, "t%d.example.org. 30 IN A %s\n", i, addr)
		case dns.TypeHTTPS:
			hints = append(hints, addr.String())
		default:
			fmt.Fprintf(&text, "a.example.org. 30 IN %s %s\n", dns.TypeToString[rrtype], addr)
		}
	}
	if hints != nil {
		fmt.Fprintf(&text, "a.example.org. 30 IN HTTPS 1 . alpn=h2 ipv4hint=%s\n", strings.Join(hints, ","))
	}
	request = handlerRequest("A.Example.org.", rrtype)
	m = new(dns.Msg)
	m.SetReply(request)
	m.Answer, m.Extra = lab.Records(tb, text.String()), lab.Records(tb, extra.String())
	return network, request, m
}

var benchTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS}

// An answer in which nothing has to change costs no allocation, whatever records it has.
func TestFilterDoesNotAllocate(t *testing.T) {
	if lab.RaceEnabled {
		t.Skip("the race detector makes sync.Pool forget things on purpose; go test without -race runs this")
	}
	alias := lab.Records(t, "w.example.org. 30 IN CNAME a.example.org.")
	for _, rrtype := range benchTypes {
		for _, n := range []int{1, 2, 4, 16, 100} {
			network, request, m := benchAnswer(t, rrtype, n, 0)
			m.Answer = append(alias, m.Answer...)
			zone := policyFor(t, "nodata", 50)
			benchPermit(zone, 100)
			for _, noted := range []bool{false, true} { // without and with a status page
				zone.named = noted
				v := benchPass(zone, network, request)
				allocs := testing.AllocsPerRun(1000, func() {
					if got, result := v.filter(m); got != m || result.Addresses != n {
						t.Fatal("the answer was changed")
					}
				})
				if allocs != 0 {
					t.Errorf("%s with %d addresses, noted %v: %v allocations", dns.TypeToString[rrtype], n, noted, allocs)
				}
			}
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	for _, rrtype := range benchTypes {
		for _, n := range []int{1, 4, 16, 64} {
			for _, down := range []int{0, 1, n} {
				if n == 1 && down == 1 {
					continue // the same as all down
				}
				network, request, m := benchAnswer(b, rrtype, n, down)
				zone := policyFor(b, "nodata", 0)
				v := benchPass(zone, network, request)
				b.Run(fmt.Sprintf("%s, %d addresses, %d down", dns.TypeToString[rrtype], n, down), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						v.filter(m)
					}
				})
			}
		}
	}
}

// BenchmarkUp is what the most frequent answer costs, of four addresses that are up, by the number of `allow` and `deny`
// rules, and where the TTL is too long. The reference is what no filter could do without: to find four things by their
// addresses in a map that is safe for concurrent use, and something in a pool. How many of these an answer takes does not
// depend on the machine.
func BenchmarkUp(b *testing.B) {
	b.Run("reference", benchReference)
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rules := range []int{0, 100} {
			for _, ttl := range []uint32{30, 300} {
				network, request, m := benchAnswer(b, rrtype, 4, 0)
				for _, rr := range m.Answer {
					rr.Header().Ttl = ttl
				}
				zone := policyFor(b, "all", 0)
				benchPermit(zone, rules)
				v := benchPass(zone, network, request)
				b.Run(fmt.Sprintf("%s/rules=%d/ttl=%d", dns.TypeToString[rrtype], rules, ttl), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, result := v.filter(m); result.Addresses != 4 {
							b.Fatal("not all were looked at")
						}
					}
				})
			}
		}
	}
}

func benchReference(b *testing.B) {
	b.ReportAllocs()
	things := xsync.NewMap[netip.AddrPort, *int]()
	var addrs [4]netip.AddrPort
	for i := range addrs {
		addrs[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 443)
		things.Store(addrs[i], new(int))
	}
	pool := sync.Pool{New: func() any { return new(int) }}
	for b.Loop() {
		something := pool.Get()
		for _, addr := range addrs {
			if _, found := things.Load(addr); !found {
				b.Fatal("not found")
			}
		}
		pool.Put(something)
	}
}

// benchPermit adds n rules, if any: of those that hold the addresses of a benchAnswer, the longer ones allow them.
func benchPermit(zone zonePolicy, n int) {
	if n == 0 {
		return
	}
	rules := append(benchRules(n-4), "10.0.0.0/8", "10.1.0.0/24", "2001:db8::/32", "2001:db8::/64")
	for i, rule := range rules {
		zone.permits.add(netip.MustParsePrefix(rule), i%2 == 1)
	}
}

// benchWriter takes answers and does nothing with them.
type benchWriter struct{ test.ResponseWriter }

func (*benchWriter) WriteMsg(*dns.Msg) error { return nil }

// BenchmarkServeDNS is the same chain without and with shaker, for the ratio of the two. Nothing but the
// plugins is in it: no socket, no parsing, no packing, so that the ratio in a server is better than this one.
// "packed" adds what every server does at least, to unpack the query and pack the answer.
func BenchmarkServeDNS(b *testing.B) {
	for _, packed := range []bool{false, true} {
		for _, ttl := range []int{30, 300} {
			network, _, m := benchAnswer(b, dns.TypeA, 4, 0)
			for _, rr := range m.Answer {
				rr.Header().Ttl = uint32(ttl)
			}
			answer := lab.RecordText(m.Answer)
			zone, err := file.Parse(strings.NewReader("example.org. 300 IN SOA ns.example.org. host.example.org. 1 2 3 4 5\n"+
				"example.org. 300 IN NS ns.example.org.\n"+answer), "example.org.", "stdin", 0)
			if err != nil {
				b.Fatal(err)
			}
			below := file.File{Zones: file.Zones{Z: map[string]*file.Zone{"example.org.": zone}, Names: []string{"example.org."}}}
			s := network.above(policyFor(b, "all", 0), below)
			// What stands above in a server as well: the next plugin is called through NextOrFailure in both cases.
			chains := []struct {
				name string
				next plugin.Handler
			}{{"without", below}, {"with", s}}
			for _, chain := range chains {
				b.Run(fmt.Sprintf("packed=%v/ttl=%d/%s", packed, ttl, chain.name), func(b *testing.B) {
					var writer dns.ResponseWriter = new(benchWriter)
					if packed {
						writer = new(benchPackingWriter)
					}
					var requests [64]*dns.Msg
					for i := range requests {
						requests[i] = handlerRequest("a.example.org.", dns.TypeA)
						requests[i].Id = uint16(i)
					}
					query, err := requests[0].Pack()
					if err != nil {
						b.Fatal(err)
					}
					ctx := context.Background()
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						r := requests[i%len(requests)]
						if packed {
							r = new(dns.Msg)
							if err := r.Unpack(query); err != nil {
								b.Fatal(err)
							}
						}
						if rcode, err := plugin.NextOrFailure("bench", chain.next, ctx, writer, r); rcode != dns.RcodeSuccess || err != nil {
							b.Fatal(rcode, err)
						}
					}
				})
			}
		}
	}
}

// benchPackingWriter packs answers as a server does.
type benchPackingWriter struct{ benchWriter }

func (w *benchPackingWriter) WriteMsg(m *dns.Msg) error {
	_, err := m.Pack()
	return err
}

func BenchmarkFind(b *testing.B) {
	z := policiesFor("example.org.", "example.net.", "a.b.example.com.")
	for b.Loop() {
		z.find("www.Example.org.")
	}
}

func BenchmarkCountersFor(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		countersFor(ctx, "bench.test.")
	}
}

// benchRules are n CIDRs of different lengths, of which none is in another.
func benchRules(n int) (rules []string) {
	for i := range n {
		rules = append(rules, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24+i%9).String())
	}
	return rules
}

// BenchmarkRules is what a query pays for each of its addresses, by the number of `allow` and `deny` rules.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{0, 100, 10_000} {
		var p permits
		for i, rule := range benchRules(n) {
			p.add(netip.MustParsePrefix(rule), i%2 == 0)
		}
		p.addDefaults()
		for _, addr := range []string{"10.1.0.1", "11.0.7.1", "2001:db8::1"} {
			addr := netip.MustParseAddr(addr)
			b.Run(fmt.Sprintf("%d/%s", n, addr), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if !p.allows(addr) && addr.Is6() {
						b.Fatal("denied")
					}
				}
			})
		}
	}
}

// BenchmarkParseRules reads a stanza with many rules.
func BenchmarkParseRules(b *testing.B) {
	rules := benchRules(10_000)
	for b.Loop() {
		s := stanza{policy: defaultPolicy()}
		if err := s.allow(rules); err != nil {
			b.Fatal(err)
		}
		s.policy.complete()
	}
}
