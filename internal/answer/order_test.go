package answer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// orderClient is a client at an address, that takes everything.
type orderClient netip.Addr

func (orderClient) Room() int { return dns.MaxMsgSize }

func (c orderClient) Addr() netip.Addr { return netip.Addr(c) }

// orderServers are the addresses of eight servers.
var orderServers = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8"}

// orderFilter returns a function that filters an answer with the servers for a client, and returns them in the order that
// is left. Those that are listed are down.
func orderFilter(t *testing.T, p *Policy, down ...string) func(client netip.Addr) []string {
	t.Helper()
	var records, verdicts strings.Builder
	for _, addr := range orderServers {
		fmt.Fprintf(&records, "www.example.org. 30 IN A %s\n", addr)
		state := "up"
		if slices.Contains(down, addr) {
			state = "down"
		}
		fmt.Fprintf(&verdicts, "%s=%s ", addr, state)
	}
	request, m := filterMessages(t, records.String())
	states := filterVerdicts(t, verdicts.String())
	p.TTL = 30
	return func(client netip.Addr) (order []string) {
		got, _ := Filter(m, &Query{Request: request, Client: orderClient(client), Zone: Zone{"example.org.", p}}, states)
		for _, rr := range got.Answer {
			order = append(order, rr.(*dns.A).A.String())
		}
		return order
	}
}

// orderNetworks calls each with the first client of ten thousand networks of IPv4, and of as many of IPv6.
func orderNetworks(each func(client netip.Addr)) {
	for n := range 10_000 {
		each(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}))
		each(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(n >> 8), byte(n), 15: 1}))
	}
}

// weighing gives a policy weights of single addresses.
func weighing(t *testing.T, weights map[string]int, p *Policy) *Policy {
	t.Helper()
	for addr, weight := range weights {
		if !p.Weights.Set(netip.PrefixFrom(netip.MustParseAddr(addr), 32), weight) {
			t.Fatalf("%s has a weight", addr)
		}
	}
	return p
}

// When one of eight servers dies, its clients move, each to the next in its order, and no others. So they do with weights,
// by which the clients are shared out.
func TestOrderOfClients(t *testing.T) {
	for name, weights := range map[string]map[string]int{
		"equal":    {},
		"weighted": {"192.0.2.2": 2, "192.0.2.3": 5, "192.0.2.7": 10, "192.0.2.8": 100},
	} {
		t.Run(name, func(t *testing.T) {
			p := weighing(t, weights, &Policy{Sort: SortClient, ClientBits4: 24, ClientBits6: 56})
			shares := make([]float64, len(orderServers))
			for i, addr := range orderServers {
				shares[i] = max(1, float64(weights[addr]))
			}
			orders := make(map[netip.Addr][]string)
			counts := map[bool][]int{false: make([]int, len(orderServers)), true: make([]int, len(orderServers))} // of IPv6, too
			all := orderFilter(t, p)
			orderNetworks(func(client netip.Addr) {
				order := all(client)
				orders[client] = order
				counts[client.Is6()][slices.Index(orderServers, order[0])]++
			})
			for six, counts := range counts {
				// It is always the same, so that it need not be expected to be a rarity.
				if likelihood := lab.ChiSquared(counts, shares); likelihood < 0.001 {
					t.Errorf("IPv6 is %v, and clients go to %v, want shares of %v: likelihood %.2g", six, counts, shares, likelihood)
				}
				even := []float64{1, 1, 1, 1, 1, 1, 1, 1}
				if likelihood := lab.ChiSquared(counts, even); name == "weighted" && likelihood > lab.Significance {
					t.Errorf("IPv6 is %v, and clients go to %v, which could be even shares: likelihood %.2g", six, counts, likelihood)
				}
			}
			for _, dead := range []string{"192.0.2.1", "192.0.2.3", "192.0.2.8"} {
				left := orderFilter(t, p, dead)
				clients, moved := 0, 0
				for client, before := range orders {
					after := left(client)
					if before[0] == dead {
						clients++
					}
					if before[0] != after[0] {
						moved++
					}
					// Not even the places behind the first change.
					if want := slices.DeleteFunc(slices.Clone(before), func(addr string) bool { return addr == dead }); !slices.Equal(after, want) {
						t.Fatalf("%s dies, and the order for %v is %v, want %v", dead, client, after, want)
					}
				}
				if moved != clients || clients == 0 {
					t.Errorf("%s dies, and %d of its %d clients move", dead, moved, clients)
				}
			}
		})
	}
}

// The clients of a network have one order, which is none of their neighbours' business.
func TestOrderOfANetwork(t *testing.T) {
	for _, tt := range []struct {
		bits4, bits6 int
		one, other   string
		same         bool
	}{
		{24, 56, "203.0.113.1", "203.0.113.254", true},
		{24, 56, "203.0.113.1", "203.0.112.1", false},
		{20, 56, "203.0.113.1", "203.0.112.1", true},
		{32, 56, "203.0.113.1", "203.0.113.2", false},
		{24, 56, "203.0.113.1", "::ffff:203.0.113.2", true},
		{24, 56, "2001:db8:1:100::1", "2001:db8:1:1ff::2", true},
		{24, 56, "2001:db8:1:100::1", "2001:db8:1:200::1", false},
		{24, 48, "2001:db8:1:100::1", "2001:db8:1:200::1", true},
		{24, 128, "2001:db8:1:100::1", "2001:db8:1:100::2", false},
		{24, 64, "fe80::1%eth0", "fe80::2%eth1", true},
		{32, 128, "fe80::1%eth0", "fe80::1%eth1", true},
		{24, 56, "", "", true},
	} {
		order := orderFilter(t, &Policy{Sort: SortClient, ClientBits4: tt.bits4, ClientBits6: tt.bits6})
		var one, other netip.Addr // without an address
		if tt.one != "" {
			one, other = netip.MustParseAddr(tt.one), netip.MustParseAddr(tt.other)
		}
		if same := slices.Equal(order(one), order(other)); same != tt.same {
			t.Errorf("%d and %d bits: %s and %s have the same order: %v, want %v", tt.bits4, tt.bits6, tt.one, tt.other, same, tt.same)
		}
	}
}

// Every replica, and every version to come, has to have the same numbers.
func TestRendezvous(t *testing.T) {
	for _, tt := range []struct {
		network, addr string
		want          float64
	}{
		{"203.0.113.0", "192.0.2.1", 0.5715395652578457},
		{"203.0.113.0", "192.0.2.2", 0.41740554628357346},
		{"203.0.112.0", "192.0.2.1", 0.3766565331482466},
		{"2001:db8:1:100::", "192.0.2.1", 0.09008444393893328},
		{"2001:db8:1:100::", "2001:db8::1", 0.859158251117609},
		{"::", "::", 0.9645041444895355},
	} {
		network, addr := netip.MustParseAddr(tt.network), netip.MustParseAddr(tt.addr)
		got := Rendezvous(network, addr)
		if math.Abs(got-tt.want) > 1e-15 {
			t.Errorf("%v, %v: %v, want %v", network, addr, got, tt.want)
		}
		mapped := func(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
		if m := Rendezvous(mapped(network), mapped(addr)); m != got {
			t.Errorf("%v, %v, IPv4-mapped: %v, want %v", network, addr, m, got)
		}
	}
}

// What is drawn, and what is hashed, is spread over all that is between 0 and 1, and never one of them.
func TestOrderFractions(t *testing.T) {
	for _, bits := range []uint64{0, 1, 1<<11 - 1, 1 << 63, math.MaxUint64} {
		if f := fraction(bits); f <= 0 || f >= 1 || math.IsInf(score(f, 1), 0) || score(f, 1000) <= 0 {
			t.Errorf("of %x comes %v, with the score %v", bits, f, score(f, 1000))
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	hashed, shares := make([]int, 100), make([]float64, 100)
	for i := range shares {
		shares[i] = 1
	}
	for range 100_000 {
		network := netip.AddrFrom4([4]byte{10, byte(random.Uint32()), byte(random.Uint32()), 0})
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(random.Uint32())})
		hashed[int(Rendezvous(network, addr)*100)]++
	}
	if likelihood := lab.ChiSquared(hashed, shares); likelihood < 0.001 {
		t.Errorf("hashed are %v: likelihood %.2g", hashed, likelihood)
	}
}

// A pick without an order draws by weight, for each answer anew; one with an order takes its first.
func TestOrderPicks(t *testing.T) {
	weights := map[string]int{"192.0.2.3": 3, "192.0.2.6": 4, "192.0.2.8": 20}
	pick := orderFilter(t, weighing(t, weights, &Policy{Pick: 1}), "192.0.2.3")
	counts, shares := make([]int, 0), make([]float64, 0)
	seen := make(map[string]int)
	for range 20_000 {
		got := pick(netip.Addr{})
		if len(got) != 1 {
			t.Fatalf("picked %v", got)
		}
		seen[got[0]]++
	}
	for _, addr := range orderServers {
		if addr != "192.0.2.3" { // which is down
			counts, shares = append(counts, seen[addr]), append(shares, max(1, float64(weights[addr])))
		}
	}
	if likelihood := lab.ChiSquared(counts, shares); likelihood < lab.Significance || seen["192.0.2.3"] > 0 {
		t.Errorf("picked %v, want shares of %v: likelihood %.2g", seen, shares, likelihood)
	}
	sorted := orderFilter(t, weighing(t, weights, &Policy{Sort: SortClient, ClientBits4: 24, ClientBits6: 56}))
	first := orderFilter(t, weighing(t, weights, &Policy{Pick: 3, Sort: SortClient, ClientBits4: 24, ClientBits6: 56}))
	orderNetworks(func(client netip.Addr) {
		if got, want := first(client), sorted(client)[:3]; !slices.Equal(got, want) {
			t.Fatalf("for %v are picked %v, want %v", client, got, want)
		}
	})
}
