package shaker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

func TestDetours(t *testing.T) {
	for _, tt := range []struct {
		rules string // without the property, separated by commas
		want  map[string]string
	}{
		{"", map[string]string{"192.0.2.7:443": "192.0.2.7:443", "[2001:db8::7]:443": "[2001:db8::7]:443"}},
		{"192.0.2.0/24 at 10.1.2.0/24", map[string]string{
			"192.0.2.0:80":    "10.1.2.0:80",
			"192.0.2.255:443": "10.1.2.255:443",
			"192.0.3.0:443":   "192.0.3.0:443",
			"10.1.2.7:443":    "10.1.2.7:443", // not back, and no further
		}},
		{"192.0.2.0/24 at 10.1.2.0/24 8080", map[string]string{"192.0.2.7:443": "10.1.2.7:8080", "192.0.2.7:80": "10.1.2.7:8080", "192.0.3.7:443": "192.0.3.7:443"}},
		{"192.0.2.128/25 at 10.1.2.0/25", map[string]string{"192.0.2.129:1": "10.1.2.1:1", "192.0.2.127:1": "192.0.2.127:1"}},
		{"192.0.2.7 at 10.0.0.1", map[string]string{"192.0.2.7:1": "10.0.0.1:1", "192.0.2.6:1": "192.0.2.6:1"}},
		{"0.0.0.0/0 at 0.0.0.0/0 8080", map[string]string{"192.0.2.7:443": "192.0.2.7:8080", "[2001:db8::7]:443": "[2001:db8::7]:443"}},
		// Exceptions: the longest prefix decides, whatever the order.
		{"192.0.2.0/24 at 10.1.2.0/24 80, 192.0.2.64/26 at 10.9.9.192/26, 192.0.2.65 at 192.0.2.65", map[string]string{
			"192.0.2.1:443": "10.1.2.1:80", "192.0.2.66:443": "10.9.9.194:443", "192.0.2.65:443": "192.0.2.65:443",
		}},
		{"192.0.2.65 at 192.0.2.65, 192.0.2.0/24 at 10.1.2.0/24", map[string]string{"192.0.2.65:443": "192.0.2.65:443", "192.0.2.66:443": "10.1.2.66:443"}},
		// One after the other: what it leads to is not led elsewhere.
		{"192.0.2.0/24 at 198.51.100.0/24, 198.51.100.0/24 at 192.0.2.0/24", map[string]string{"192.0.2.7:1": "198.51.100.7:1", "198.51.100.7:1": "192.0.2.7:1"}},
		{"2001:db8::/32 at fd00:1::/32", map[string]string{"[2001:db8:1:2:3:4:5:6]:443": "[fd00:1:1:2:3:4:5:6]:443", "192.0.2.7:443": "192.0.2.7:443"}},
		{"2001:db8::/64 at fd00::/64", map[string]string{"[2001:db8::3:4:5:6]:443": "[fd00::3:4:5:6]:443"}},
		{"2001:db8::/65 at fd00::8000:0:0:0/65", map[string]string{"[2001:db8::3:4:5:6]:443": "[fd00::8003:4:5:6]:443"}},
		{"2001:db8::ff00/120 at fd00::/120 53", map[string]string{"[2001:db8::ff07]:443": "[fd00::7]:53"}},
		{"2001:db8::7 at fd00::1", map[string]string{"[2001:db8::7]:443": "[fd00::1]:443"}},
	} {
		d := detoursOf(t, strings.Split(tt.rules, ", ")...)
		for answered, want := range tt.want {
			if got := d.of(netip.MustParseAddrPort(answered)); got.String() != want {
				t.Errorf("%q: %s is probed at %v, want %s", tt.rules, answered, got, want)
			}
		}
	}
}

func detoursOf(t *testing.T, rules ...string) *detours {
	t.Helper()
	d := new(detours)
	for _, rule := range rules {
		if rule == "" {
			continue
		}
		answered, to, err := parseDetour(strings.Fields(rule))
		if err != nil || !d.add(answered, to) {
			t.Fatalf("%q: %v", rule, err)
		}
	}
	return d
}

// Bit by bit, as the manual has it.
func TestDetoursAgainstNaive(t *testing.T) {
	const seed = 12
	r := rand.New(rand.NewPCG(seed, 0))
	address := func(base netip.Addr) netip.Addr {
		octets := base.AsSlice()
		for bit := range 8 * len(octets) {
			if r.IntN(40) == 0 {
				octets[bit/8] ^= 1 << (7 - bit%8)
			}
		}
		addr, _ := netip.AddrFromSlice(octets)
		return addr
	}
	bit := func(a netip.Addr, i int) byte { return a.AsSlice()[i/8] >> (7 - i%8) & 1 }
	found := 0
	for round := range 2000 {
		base := []netip.Addr{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("fd00::")}[r.IntN(2)]
		var d detours
		rules := map[netip.Prefix]detour{}
		for range 1 + r.IntN(6) {
			bits := r.IntN(base.BitLen() + 1)
			answered, to := netip.PrefixFrom(address(base), bits).Masked(), netip.PrefixFrom(address(base), bits).Masked()
			if d.add(answered, detour{to, uint16(r.IntN(2) * 8080)}) {
				rules[answered], _ = d.rules.Get(answered)
			}
		}
		for range 20 {
			addr := address(base)
			want, best := netip.AddrPortFrom(addr, 443), -1
			for answered, to := range rules {
				if !answered.Contains(addr) || answered.Bits() <= best {
					continue
				}
				best = answered.Bits()
				octets := make([]byte, addr.BitLen()/8)
				for i := range addr.BitLen() {
					from := to.at.Addr()
					if i >= best {
						from = addr
					}
					octets[i/8] |= bit(from, i) << (7 - i%8)
				}
				moved, _ := netip.AddrFromSlice(octets)
				want = netip.AddrPortFrom(moved, max(to.port, 443))
			}
			if best >= 0 {
				found++
			}
			if got := d.of(netip.AddrPortFrom(addr, 443)); got != want {
				t.Fatalf("seed %d, round %d: %v is probed at %v, want %v, with %v", seed, round, addr, got, want, rules)
			}
		}
	}
	if found < 10_000 {
		t.Errorf("the random addresses prove little: only %d are in a prefix", found)
	}
}

func TestDetoursDoNotAllocate(t *testing.T) {
	d := detoursOf(t, "192.0.2.0/24 at 10.0.0.0/24 80", "2001:db8::/32 at fd00::/32")
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[2001:db8::1]:443")
	if n := testing.AllocsPerRun(100, func() { d.of(v4); d.of(v6) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDetours(b *testing.B) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[2001:db8::1]:443")
	var none, some detours
	for i := range 100 {
		base := netip.AddrFrom4([4]byte{192, 0, byte(i), 0})
		some.add(netip.PrefixFrom(base, 24), detour{at: netip.MustParsePrefix("10.0.0.0/24")})
	}
	some.add(netip.MustParsePrefix("2001:db8::/32"), detour{at: netip.MustParsePrefix("fd00::/32")})
	for _, bench := range []struct {
		name     string
		detours  *detours
		answered netip.AddrPort
	}{{"none", &none, v4}, {"IPv4", &some, v4}, {"IPv6", &some, v6}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				bench.detours.of(bench.answered)
			}
		})
	}
}

// Which targets there are, and what is known of the address that is answered: all that the property stands beside.
func TestVerdictsOfDetours(t *testing.T) {
	const up, down, unknown, none = answer.Up, answer.Down, answer.Unknown, answer.State(0)
	for name, tt := range map[string]struct {
		properties string
		results    string
		overrides  string
		answered   string
		port       uint16 // of the record
		want       answer.State
		probed     string // endpoints
	}{
		"up":                  {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=answered", "", "192.0.2.7", 0, up, "10.0.0.7:443"},
		"down":                {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=refused", "", "192.0.2.7", 0, down, "10.0.0.7:443"},
		"itself says nothing": {"probe 192.0.2.0/24 at 10.0.0.0/24", "192.0.2.7=answered", "", "192.0.2.7", 0, unknown, "10.0.0.7:443"},
		"beside":              {"probe 192.0.2.0/24 at 10.0.0.0/24", "192.0.3.7=refused", "", "192.0.3.7", 0, down, "192.0.3.7:443"},
		"IPv6":                {"probe 2001:db8::/32 at fd00::/32", "fd00::7=refused", "", "2001:db8::7", 0, down, "[fd00::7]:443"},
		"ports stay":          {"port 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=answered", "", "192.0.2.7", 0, up, "10.0.0.7:443 10.0.0.7:80"},
		"port of a record":    {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=answered", "", "192.0.2.7", 53, up, "10.0.0.7:53"},
		// One port for all of them is one target.
		"own port":          {"port 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=answered", "", "192.0.2.7", 0, up, "10.0.0.7:8080"},
		"own port, down":    {"port any 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=refused", "", "192.0.2.7", 0, down, "10.0.0.7:8080"},
		"own port, record":  {"probe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=refused", "", "192.0.2.7", 53, down, "10.0.0.7:8080"},
		"own port, nothing": {"probe 192.0.2.0/24 at 192.0.2.0/24 8080", "192.0.2.7=refused", "", "192.0.2.7", 0, down, "192.0.2.7:8080"},
		// allow and deny go by the address that is probed.
		"answered is denied":       {"deny 192.0.2.0/24\nprobe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=refused", "", "192.0.2.7", 0, down, "10.0.0.7:443"},
		"probed is denied":         {"deny 10.0.0.7\nprobe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=refused", "", "192.0.2.7", 0, none, ""},
		"probed is not by default": {"probe 192.0.2.0/24 at 127.0.0.0/24", "127.0.0.7=refused", "", "192.0.2.7", 0, none, ""},
		"probed is allowed":        {"allow 127.0.0.0/8\nprobe 192.0.2.0/24 at 127.0.0.0/24", "127.0.0.7=refused", "", "192.0.2.7", 0, down, "127.0.0.7:443"},
		"answered is not probed":   {"probe 127.0.0.0/8 at 10.0.0.0/8", "10.0.0.7=refused", "", "127.0.0.7", 0, down, "10.0.0.7:443"},
		// What is IPv4-mapped is not probed, whatever leads where.
		"mapped":            {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=refused", "", "::ffff:192.0.2.7", 0, none, ""},
		"mapped, all of v6": {"allow ::/0\nprobe ::/0 at ::/0 80", "192.0.2.7=refused", "", "::ffff:192.0.2.7", 0, none, ""},
		// Overrides go by the address that is answered, and by its port. What they decide about is still probed.
		"answered is down":           {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=answered", "192.0.2.7 down", "192.0.2.7", 0, down, "10.0.0.7:443"},
		"answered is up":             {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=refused", "192.0.2.7 up", "192.0.2.7", 0, up, "10.0.0.7:443"},
		"probed is overridden":       {"probe 192.0.2.0/24 at 10.0.0.0/24", "10.0.0.7=answered", "10.0.0.7 down", "192.0.2.7", 0, up, "10.0.0.7:443"},
		"answered port is down":      {"probe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=answered", "192.0.2.7:443 down", "192.0.2.7", 0, down, "10.0.0.7:8080"},
		"probed port is overridden":  {"probe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=answered", "192.0.2.7:8080 down", "192.0.2.7", 0, up, "10.0.0.7:8080"},
		"a port of two is down":      {"port 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=answered", "192.0.2.7:80 down", "192.0.2.7", 0, down, "10.0.0.7:8080"},
		"a port of any is up":        {"port any 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=refused", "192.0.2.7:80 up", "192.0.2.7", 0, up, "10.0.0.7:8080"},
		"port of a record is down":   {"probe 192.0.2.0/24 at 10.0.0.0/24 8080", "10.0.0.7=answered", "192.0.2.7:53 down", "192.0.2.7", 53, down, "10.0.0.7:8080"},
		"denied, but up all the way": {"deny 10.0.0.0/8\nprobe 192.0.2.0/24 at 10.0.0.0/24", "", "192.0.2.7 up", "192.0.2.7", 0, up, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newNetwork(t, tt.results)
				v := verdictsFor(t, network, tt.properties)
				v.zone.overrides = overridesFor(t, tt.overrides)
				addr := netip.MustParseAddr(tt.answered)
				ask := map[string]answer.Source{
					"a client":  &pass{verdicts: *v, Context: t.Context()},
					"a look-up": lookupVerdicts{v, &lookup{ctx: t.Context(), keep: time.Hour}},
				}
				for who, source := range ask {
					source.Ask(addr, tt.port)
					synctest.Wait()
					if got := source.Ask(addr, tt.port).State; got != tt.want {
						t.Errorf("%s: %v, want %v", who, got, tt.want)
					}
				}
				probed := slices.Sorted(maps.Keys(network.endpoints()))
				if got := strings.Join(probed, " "); got != tt.probed {
					t.Errorf("probed %q, want %q", got, tt.probed)
				}
			})
		})
	}
}

// endpoints returns what was probed, as text.
func (n *network) endpoints() map[string]bool {
	all := make(map[string]bool)
	for endpoint := range n.Probed() {
		all[endpoint.String()] = true
	}
	return all
}

// Targets know as what they are answered. What is answered as it is, is noted only beside others, and only for a status page.
func TestVerdictsNoteAliases(t *testing.T) {
	const properties = "port 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080\nprobe 198.51.100.7 at 10.0.0.7 8080"
	for name, tt := range map[string]struct {
		asked     string
		port      uint16
		named     bool
		want      string // of 10.0.0.7:8080
		untouched string // a target without aliases
	}{
		"answered as it is":            {"10.0.0.7", 8080, true, "", ""},
		"with a status page":           {"192.0.2.7", 0, true, "192.0.2.7:80 192.0.2.7:443", ""},
		"without":                      {"192.0.2.7", 0, false, "192.0.2.7:80 192.0.2.7:443", ""},
		"by a record":                  {"192.0.2.7", 53, false, "192.0.2.7:53", ""},
		"several":                      {"192.0.2.7 198.51.100.7", 53, false, "192.0.2.7:53 198.51.100.7:53", ""},
		"both ways, with a page":       {"192.0.2.7 10.0.0.7", 8080, true, "192.0.2.7:8080 10.0.0.7:8080", ""},
		"both ways, without":           {"192.0.2.7 10.0.0.7", 8080, false, "192.0.2.7:8080", ""},
		"another that is as it is":     {"192.0.2.7 10.0.0.8", 8080, true, "192.0.2.7:8080", "10.0.0.8:8080"},
		"another, without a page, too": {"192.0.2.7 10.0.0.8", 8080, false, "192.0.2.7:8080", "10.0.0.8:8080"},
	} {
		network := newNetwork(t, "")
		v := verdictsFor(t, network, properties)
		v.zone.named = tt.named
		for _, addr := range setupAddrs(strings.Fields(tt.asked)...) {
			v.Ask(addr, tt.port)
		}
		for endpoint, want := range map[string]string{"10.0.0.7:8080": tt.want, tt.untouched: ""} {
			if endpoint == "" {
				continue
			}
			target := network.Monitor.Target(netip.MustParseAddrPort(endpoint), v.zone.key4, time.Hour)
			if got := fmt.Sprint(target.Aliases()); got != "["+want+"]" {
				t.Errorf("%s: %s is answered as %s, want %s", name, endpoint, got, want)
			}
		}
	}
}

// The time until the verdict is that of the one that is probed, and a target for several ports counts for each of them.
func TestVerdictsWithinOfDetours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, properties := range []string{"port 80 443", "port any 80 443"} {
			v := verdictsFor(t, newNetwork(t, ""), properties+"\nprobe 192.0.2.0/24 at 10.0.0.0/24 8080")
			want := answer.Verdict{State: answer.Unknown, Within: 3 * time.Second}
			if got := v.Ask(netip.MustParseAddr("192.0.2.7"), 0); got != want {
				t.Errorf("%s: %+v, want %+v", properties, got, want)
			}
		}
	})
}

// With detours, too, asking for verdicts that are there allocates nothing.
func TestVerdictsOfDetoursDoNotAllocate(t *testing.T) {
	network := newNetwork(t, "10.0.0.7=answered")
	v := verdictsFor(t, network, "port 80 443\nprobe 192.0.2.0/24 at 10.0.0.0/24")
	addr := netip.MustParseAddr("192.0.2.7")
	for _, port := range []uint16{80, 443} {
		network.Await(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.7"), port), v.zone.key4)
	}
	v.zone.named = true
	v.Ask(addr, 0)
	if n := testing.AllocsPerRun(100, func() { v.Ask(addr, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What denies all of a prefix, and what leaves some of it.
func TestPermitsDenies(t *testing.T) {
	for _, tt := range []struct {
		rules string // + allows, - denies
		all   string
		want  bool
	}{
		{"", "10.0.0.0/8", false},
		{"", "127.0.0.0/8", true},
		{"", "127.0.0.1", true},
		{"", "0.0.0.0/0", false},
		{"+127.0.0.0/8", "127.0.0.1", false},
		{"+127.0.0.9", "127.0.0.0/8", false},
		{"+127.0.0.9", "127.0.0.8", true},
		{"-10.0.0.0/8", "10.0.0.0/8", true},
		{"-10.0.0.0/8", "10.0.0.0/7", false},
		{"-10.0.0.0/8 +10.1.0.0/16", "10.0.0.0/8", false},
		{"-10.0.0.0/8 +10.1.0.0/16", "10.2.0.0/16", true},
		{"-10.0.0.0/8 +10.1.0.0/16 -10.1.1.0/24", "10.1.1.0/25", true},
		{"-::/0", "2001:db8::/32", true},
		{"-::/0", "10.0.0.0/8", false},
	} {
		var p permits
		for _, rule := range strings.Fields(tt.rules) {
			p.add(mustPrefix(t, rule[1:]), rule[0] == '+')
		}
		p.addDefaults()
		if got := p.denies(mustPrefix(t, tt.all)); got != tt.want {
			t.Errorf("%q: denies all of %s: %v, want %v", tt.rules, tt.all, got, tt.want)
		}
	}
}

func mustPrefix(t *testing.T, text string) netip.Prefix {
	t.Helper()
	p, err := prefix.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
