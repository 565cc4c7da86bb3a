package override

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const sample = `
# Ours, the most general first.
192.0.2.0/24        down
192.0.2.0/28        up    # the part that stays
192.0.2.7           down
192.0.2.7:443       up
192.0.2.8:443       auto
192.0.2.9           auto
	2001:db8::/32   down
2001:db8::7         auto
[2001:db8::7]:80    down
::ffff:192.0.2.33   up
::ffff:198.51.0.0/112 down
[::ffff:198.51.0.7]:443 up
192.0.2.34 down
192.0.2.34 up
192.0.2.34 auto
`

func TestRules(t *testing.T) {
	rules, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		target string
		want   Decision
	}{
		{"192.0.3.1:80", Auto},
		{"192.0.2.200:80", Down},
		{"192.0.2.1:80", Up},
		{"192.0.2.7:80", Down},
		{"192.0.2.7:443", Up},
		{"192.0.2.8:80", Up},
		{"192.0.2.8:443", Auto}, // more specific than the prefix, and leaves it to the checks
		{"192.0.2.9:443", Auto},
		{"192.0.2.33:443", Up},
		{"192.0.2.34:443", Auto}, // the last line counts
		{"198.51.255.1:443", Down}, // rules in IPv4-mapped form are rules for IPv4
		{"198.51.0.7:443", Up},
		{"198.52.0.1:443", Auto},
		{"[2001:db8::1]:80", Down},
		{"[2001:db8::7]:443", Auto},
		{"[2001:db8::7]:80", Down},
		{"[2001:db9::7]:80", Auto},
		{"[::ffff:192.0.2.7]:80", Auto}, // addresses are unmapped before they are looked up
	} {
		target := netip.MustParseAddrPort(tt.target)
		if got := rules.Of(target.Addr(), target.Port()); got != tt.want {
			t.Errorf("%s is %v, want %v", target, got, tt.want)
		}
	}
	if rules.Size() != 13 {
		t.Errorf("%d rules, want 13", rules.Size())
	}
	var none *Rules
	if got := none.Of(netip.MustParseAddr("192.0.2.7"), 80); got != Auto {
		t.Errorf("without a file: %v", got)
	}
}

func TestParseMistakes(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"192.0.2.7", `"192.0.2.7" is not possible, want ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR, and then up, down or auto`},
		{"192.0.2.7 down for today", `"192.0.2.7 down for today" is not possible`},
		{"192.0.2.7 drain", `"drain" is not possible, want up, down or auto`},
		{"192.0.2.7 DOWN", `"DOWN" is not possible, want up, down or auto`},
		{"down 192.0.2.7", `"192.0.2.7" is not possible, want up, down or auto`},
		{"www.example.org down", `"www.example.org" is neither a CIDR such as 10.0.0.0/8 nor an address; with a port it is 192.0.2.7:443 or [2001:db8::7]:443`},
		{"192.0.2.7:0 down", `"192.0.2.7:0" is neither a CIDR`},
		{"192.0.2.7:65536 down", `"192.0.2.7:65536" is neither a CIDR`},
		{"192.0.2.7:https down", `"192.0.2.7:https" is neither a CIDR`},
		{"192.0.2.0/33 down", `"192.0.2.0/33" is neither a CIDR`},
		{"192.0.2.0/24:443 down", `"192.0.2.0/24:443" is neither a CIDR`},
		{"2001:db8::7:443x down", `"2001:db8::7:443x" is neither a CIDR`},
		{"fe80::1%eth0 down", `"fe80::1%eth0" is neither a CIDR`},
		{"[fe80::1%eth0]:443 down", `"[fe80::1%eth0]:443" is neither a CIDR`},
		{"::ffff:10.0.0.0/8 down", `"::ffff:10.0.0.0/8" holds IPv4-mapped addresses, which are IPv4, and more, want a CIDR such as`},
		{"::/64 down", `"::/64" holds IPv4-mapped addresses`},
		{"\xff\x00 down", `"\xff\x00" is neither a CIDR`},
	} {
		_, err := Parse([]byte("# one\n192.0.2.1 up\n" + tt.line + "\n192.0.2.2 up"))
		if err == nil || !strings.HasPrefix(err.Error(), "line 3: "+tt.want) {
			t.Errorf("%q: error %v, want one of line 3 that begins with %s", tt.line, err, tt.want)
		}
	}
}

func TestDifference(t *testing.T) {
	parse := func(s string) *Rules {
		o, err := Parse([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	before := parse("192.0.2.1 down\n192.0.2.2 down\n192.0.2.3:80 up\n2001:db8::/32 auto\n192.0.2.5 auto")
	after := parse("192.0.2.2 down\n192.0.2.3:80 down\n192.0.2.0/24 up\n2001:db8::/32 auto")
	want := []string{
		"192.0.2.0/24 is up, was auto",
		"192.0.2.1 is auto, was down",
		"192.0.2.3:80 is down, was up",
	}
	if got := after.Difference(before); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// naiveDecision looks at all rules: the longest that fits, with a port counting for more than any length.
func naiveDecision(o *Rules, target netip.AddrPort) Decision {
	best, decided := -1, Auto
	for prefix, d := range o.prefixes.All() {
		if prefix.Contains(target.Addr()) && prefix.Bits() > best {
			best, decided = prefix.Bits(), d
		}
	}
	if d, ok := o.endpoints[target]; ok {
		return d
	}
	return decided
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("0.0.0.0/0 down\n::/0 up\n192.0.2.7 auto"))
	f.Fuzz(func(t *testing.T, content []byte) {
		rules, err := Parse(content)
		if err != nil {
			return
		}
		targets := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:443"), netip.MustParseAddrPort("[2001:db8::7]:443")}
		for endpoint := range rules.endpoints {
			targets = append(targets, endpoint)
		}
		for prefix := range rules.prefixes.All() {
			targets = append(targets, netip.AddrPortFrom(prefix.Addr(), 443), netip.AddrPortFrom(prefix.Addr().Next(), 443))
		}
		for _, target := range targets {
			if !target.Addr().IsValid() {
				continue
			}
			if got, want := rules.Of(target.Addr(), target.Port()), naiveDecision(rules, target); got != want {
				t.Errorf("%s is %v, want %v", target, got, want)
			}
		}
		if lines := rules.Difference(rules); lines != nil {
			t.Errorf("the same rules differ: %q", lines)
		}
	})
}
