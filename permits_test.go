package shaker

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coredns-shaker/shaker/internal/prefix"
)

type permitRule struct {
	prefix netip.Prefix
	allow  bool
}

// permitsNaive is the rule in the words of the manual: the longest prefix decides, those of the Corefile
// before the defaults, and what none contains may be probed. What is IPv4-mapped never may.
func permitsNaive(rules []permitRule, addr netip.Addr) bool {
	if addr.Is4In6() {
		return false
	}
	best, allowed := -1, true
	for _, prefix := range neverProbed {
		if prefix.Contains(addr) && prefix.Bits() > best {
			best, allowed = prefix.Bits(), false
		}
	}
	for _, r := range rules {
		if r.prefix.Contains(addr) && r.prefix.Bits() >= best {
			best, allowed = r.prefix.Bits(), r.allow
		}
	}
	return allowed
}

func TestPermitsAgainstNaive(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	// Few distinct bits, so that prefixes nest and addresses hit them.
	bases := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/0"),
		netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::/0"),
		netip.MustParsePrefix("::/64"), netip.MustParsePrefix("::ffff:0.0.0.0/96"), netip.MustParsePrefix("fd00:ec2::/112"),
	}
	address := func() netip.Addr {
		base := bases[r.IntN(len(bases))]
		bytes := base.Addr().AsSlice()
		for bit := base.Bits(); bit < 8*len(bytes); bit++ {
			if r.IntN(4) == 0 {
				bytes[bit/8] ^= 1 << (7 - bit%8)
			}
		}
		addr, _ := netip.AddrFromSlice(bytes)
		return addr
	}
	both := [2]int{}
	for round := range 2000 {
		var p permits
		var rules []permitRule
		for range r.IntN(8) {
			addr := address()
			prefix, err := prefix.Parse(netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1)).String())
			if err != nil {
				continue // it holds some of what is IPv4-mapped, and more
			}
			rule := permitRule{prefix, r.IntN(2) == 0}
			if slices.ContainsFunc(rules, func(r permitRule) bool { return r.prefix == prefix }) {
				continue // which set-up refuses, or it is the same rule
			}
			p.add(rule.prefix, rule.allow)
			rules = append(rules, rule)
		}
		p.addDefaults()
		for range 50 {
			addr := address()
			got, want := p.allows(addr), permitsNaive(rules, addr)
			if got != want {
				t.Fatalf("seed %d, round %d: %v: allowed %v, want %v, with %v", seed, round, addr, got, want, rules)
			}
			if got {
				both[1]++
			} else {
				both[0]++
			}
		}
	}
	t.Logf("%d denied, %d allowed", both[0], both[1])
	if both[0] < 10_000 || both[1] < 10_000 {
		t.Error("the random addresses prove little")
	}
}

// Every prefix length, at both of its edges.
func TestPermitsLengths(t *testing.T) {
	for _, base := range []string{"170.85.170.85", "aa55:aa55:aa55:aa55:aa55:aa55:aa55:aa55"} {
		inside := netip.MustParseAddr(base)
		for bits := range inside.BitLen() + 1 {
			var p permits
			p.add(netip.PrefixFrom(inside, bits), false)
			p.addDefaults()
			if p.allows(inside) {
				t.Errorf("%v is not in its own /%d", inside, bits)
			}
			if bits == 0 {
				continue
			}
			bytes := inside.AsSlice()
			bytes[(bits-1)/8] ^= 1 << (7 - (bits-1)%8)
			outside, _ := netip.AddrFromSlice(bytes)
			if got, want := p.allows(outside), permitsNaive(nil, outside); got != want {
				t.Errorf("%v beside %v/%d: allowed %v, want %v", outside, inside, bits, got, want)
			}
		}
	}
}

func TestPermitsDefaults(t *testing.T) {
	tests := []struct {
		addr string
		want bool
	}{
		{"0.0.0.0", false}, {"0.255.0.1", false}, {"1.0.0.1", true},
		{"10.0.0.1", true}, {"192.168.0.1", true},
		{"127.0.0.1", false}, {"127.255.255.255", false}, {"128.0.0.1", true},
		{"169.253.255.255", true}, {"169.254.169.254", false}, {"169.255.0.0", true},
		{"192.0.0.192", false}, {"192.0.1.1", true},
		{"223.255.255.255", true}, {"224.0.0.1", false}, {"239.255.255.255", false},
		{"240.0.0.1", false}, {"255.255.255.255", false},
		{"::", false}, {"::1", false}, {"::127.0.0.1", false}, {"::1:0:0", true},
		{"::ffff:127.0.0.1", false}, {"::ffff:8.8.8.8", false},
		{"100::1", false}, {"100:0:0:1::1", true},
		{"2001:db8::1", true}, {"fd00::1", true}, {"fd00:ec2::254", false}, {"fd00:ec2::253", true},
		{"fe7f::1", true}, {"fe80::1", false}, {"febf::1", false}, {"fec0::1", false}, {"ff02::1", false},
	}
	var p permits
	p.addDefaults()
	for _, tt := range tests {
		if got := p.allows(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s: allowed %v, want %v", tt.addr, got, tt.want)
		}
	}
}

// Whoever allows everything has not allowed what is never probed by default: that takes its own prefix.
func TestPermitsAllowAllKeepsDefaults(t *testing.T) {
	var p permits
	p.add(netip.MustParsePrefix("0.0.0.0/0"), true)
	p.add(netip.MustParsePrefix("::/0"), true)
	p.add(netip.MustParsePrefix("127.0.0.0/8"), true)
	p.add(netip.MustParsePrefix("169.254.10.0/24"), true)
	p.addDefaults()
	p.addDefaults() // once more changes nothing
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "169.254.169.254": false, "169.254.10.1": true, "::1": false, "::ffff:127.0.0.1": false} {
		if got := p.allows(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: allowed %v, want %v", addr, got, want)
		}
	}
}

// What is written in IPv4-mapped form is a rule for IPv4. Nothing that can be written makes an address in that form one
// that may be probed: who writes AAAA records would else reach what A records may not.
func TestPermitsMapped(t *testing.T) {
	const open = "allow 0.0.0.0/0 ::/0 127.0.0.0/8 127.0.0.1"
	for _, tt := range []struct {
		rules         string
		allowed, deny string // addresses
	}{
		{"", "10.0.0.1", "127.0.0.1"},
		{"deny ::ffff:10.0.0.0/104", "11.0.0.1 2001:db8::1", "10.0.0.1 10.255.255.255"},
		{"deny ::ffff:0:0/96", "2001:db8::1", "10.0.0.1"},
		{"deny ::ffff:10.0.0.1", "10.0.0.2", "10.0.0.1"},
		{"deny ::/0", "10.0.0.1", "2001:db8::1 ::1"},
		{"deny 0.0.0.0/0\nallow ::ffff:a00:0/104", "10.0.0.1", "11.0.0.1"},
		{"allow ::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"},
		{"allow ::ffff:127.0.0.0/104", "127.0.0.1", "169.254.169.254"},
		{"allow ::ffff:0:0/96 ::/0", "10.0.0.1 2001:db8::1", "127.0.0.1 ::1"},
		{"allow 127.0.0.0/8 ::ffff:127.0.0.0/104", "127.0.0.1", "::1"},
		{open + " ::ffff:0:0/96 ::ffff:127.0.0.0/104 ::ffff:127.0.0.1/128", "10.0.0.1 127.0.0.1 127.0.0.2", "169.254.169.254"},
	} {
		var s stanza
		s.policy = defaultPolicy()
		for rule := range strings.Lines(tt.rules) {
			fields := strings.Fields(rule)
			if err := s.prefixes(fields[1:], fields[0] == "allow"); err != nil {
				t.Fatal(err)
			}
		}
		s.policy.complete()
		for addr, want := range map[string]bool{tt.allowed: true, tt.deny: false} {
			for _, addr := range setupAddrs(strings.Fields(addr)...) {
				if got := s.policy.permits.allows(addr); got != want {
					t.Errorf("%q: %s: allowed %v, want %v", tt.rules, addr, got, want)
				}
				if addr = netip.AddrFrom16(addr.As16()); addr.Is4In6() && s.policy.permits.allows(addr) {
					t.Errorf("%q: %s is allowed", tt.rules, addr)
				}
			}
		}
	}
}

// The same, seen from the other end: no SYN leaves for what an AAAA record has in IPv4-mapped form.
func TestPermitsMappedIsNeverProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t, "")
		zone := zonePolicy{"example.org.", defaultPolicy()}
		s := stanza{policy: zone.policy}
		if err := s.allow([]string{"0.0.0.0/0", "::/0", "127.0.0.0/8", "::ffff:0:0/96", "::ffff:127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
		zone.complete()
		handlerAsk(t, network.shaker(zone, `a.example.org. 10 IN A 127.0.0.9
a.example.org. 10 IN A 10.0.0.9
a.example.org. 10 IN AAAA 2001:db8::2
a.example.org. 10 IN AAAA ::ffff:127.0.0.1
a.example.org. 10 IN AAAA ::ffff:10.0.0.5`), "a.example.org.")
		synctest.Wait()
		probed := network.Probed()
		for _, addr := range setupAddrs("127.0.0.9", "10.0.0.9", "2001:db8::2") {
			if _, ok := probed[netip.AddrPortFrom(addr, 443)]; !ok {
				t.Errorf("%v is not probed", addr)
			}
		}
		if len(probed) != 3 {
			t.Errorf("probed %v", probed)
		}
	})
}

func TestPermitsAllowedDoesNotAllocate(t *testing.T) {
	var p permits
	p.addDefaults()
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() { p.allows(v4); p.allows(v6) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
