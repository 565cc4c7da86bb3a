package override

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// noon is when rules are read in tests.
var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

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
	rules, err := Parse(sample, noon)
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
		{"192.0.2.34:443", Auto},   // the last line counts
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
		{"\xff down", `"\xff" is neither a CIDR`},
	} {
		_, err := Parse("# one\n192.0.2.1 up\n"+tt.line+"\n192.0.2.2 up", noon)
		if err == nil || !strings.HasPrefix(err.Error(), "line 3: "+tt.want) {
			t.Errorf("%q: error %v, want one of line 3 that begins with %s", tt.line, err, tt.want)
		}
	}
}

// What editors and other systems make of a file with two rules does not matter.
func TestParseForms(t *testing.T) {
	const bom = "\ufeff"
	for name, text := range map[string]string{
		"as it should be":           "192.0.2.7 down\n192.0.2.8 up\n",
		"no line feed at the end":   "192.0.2.7 down\n192.0.2.8 up",
		"Windows":                   "192.0.2.7 down\r\n192.0.2.8 up\r\n",
		"Mac OS of old":             "192.0.2.7 down\r192.0.2.8 up\r",
		"a comment, Mac OS of old":  "# drained\r192.0.2.7 down # today\r192.0.2.8 up",
		"mixed":                     "\n\r\n\r192.0.2.7 down\r\r\n192.0.2.8 up\n\r",
		"byte order mark":           bom + "192.0.2.7 down\n192.0.2.8 up\n",
		"files with such, joined":   bom + "192.0.2.7 down\n" + bom + "192.0.2.8 up\n" + bom,
		"mark before a comment":     bom + "# rules\n192.0.2.7 down\n192.0.2.8 up",
		"wide and other spaces":     "\u3000192.0.2.7\u3000down\u00a0\n192.0.2.8\u2003up\v\f\u0085",
		"a long line":               "192.0.2.7" + strings.Repeat(" ", 1<<16) + "down\n192.0.2.8 up #" + strings.Repeat("x", 1<<16),
		"no UTF-8 in a comment":     "192.0.2.7 down # Stra\xdfe\n192.0.2.8 up",
		"nothing legible commented": "192.0.2.7 down # \x00\n192.0.2.8 up",
	} {
		rules, err := Parse(text, noon)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a, b := rules.Of(netip.MustParseAddr("192.0.2.7"), 443), rules.Of(netip.MustParseAddr("192.0.2.8"), 443); a != Down || b != Up || rules.Size() != 2 {
			t.Errorf("%s: %v, %v by %d rules, want down, up by 2", name, a, b, rules.Size())
		}
	}
}

func TestParseOtherEncodings(t *testing.T) {
	const text = "# rules\n192.0.2.7 down\n"
	var little, big []byte
	for _, c := range []byte(text) {
		little, big = append(little, c, 0), append(big, 0, c)
	}
	for _, tt := range []struct{ name, content, want string }{
		{"UTF-16, little", "\xff\xfe" + string(little), "it is UTF-16, want UTF-8"},
		{"UTF-16, big", "\xfe\xff" + string(big), "it is UTF-16, want UTF-8"},
		{"UTF-16, little, without mark", string(little), `line 2: "\x001\x009\x002\x00.\x000\x00.\x002\x00.\x007\x00" holds NUL, which UTF-16 does, want UTF-8`},
		{"UTF-16, big, without mark", string(big), `line 1: "\x00" holds NUL, which UTF-16 does, want UTF-8`},
		{"zeroes, after a crash", strings.Repeat("\x00", 4096), `line 1: "` + strings.Repeat(`\x00`, maxQuoted) + `"... holds NUL`},
		{"an invisible space", "192.0.2.7\u200b down", `line 1: "192.0.2.7\u200b" is neither a CIDR`},
		{"wide digits", "１92.0.2.7 down", `line 1: "１92.0.2.7" is neither a CIDR`},
	} {
		if _, err := Parse(tt.content, noon); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that begins with %s", tt.name, err, tt.want)
		}
	}
}

// A mistake may be as long as the file. The log gets a part that tells which it is.
func TestParseQuotesLittle(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, line := range []string{long, long + " down", "192.0.2.7 " + long, "192.0.2.7 down " + long, "192.0.2.7 down" + strings.Repeat(" ü", 1<<19),
		"\xff" + long + " down", "[fe80::1%" + long + "]:80 down", "fe80::1%" + long + " down"} {
		_, err := Parse(line, noon)
		if err == nil || len(err.Error()) > 400 || !strings.Contains(err.Error(), `"... `) {
			t.Errorf("%.20q: error %.1000v", line, err)
		}
	}
}

// An exception comes after what it is an exception to: an auto that is left over from before does not outlive a later and
// wider line. What is up or down does.
func TestLeftOverAuto(t *testing.T) {
	for _, tt := range []struct {
		lines string // with a comma in between
		want  string // of 192.0.2.7:443 192.0.2.7:80 192.0.2.8:443
		size  int
	}{
		{"192.0.2.7:443 auto,192.0.2.7 down", "down down auto", 1},
		{"192.0.2.7 down,192.0.2.7:443 auto", "auto down auto", 2},
		{"192.0.2.7:443 auto,192.0.2.7 down,192.0.2.7:443 auto", "auto down auto", 2},
		{"192.0.2.7 down,192.0.2.7:443 auto,192.0.2.7 down", "down down auto", 1},
		{"192.0.2.7:443 up,192.0.2.7 down", "up down auto", 2},
		{"192.0.2.7:443 down,192.0.2.7 up", "down up auto", 2},
		{"192.0.2.7:443 down,192.0.2.7:443 auto,192.0.2.7 up", "up up auto", 1},
		{"192.0.2.7:443 auto,192.0.2.0/24 down", "down down down", 1},
		{"192.0.2.7 auto,192.0.2.0/24 down", "down down down", 1},
		{"192.0.2.0/24 down,192.0.2.7 auto", "auto auto down", 2},
		{"192.0.2.0/28 auto,192.0.2.7 auto,192.0.2.0/24 down,192.0.2.8 auto", "down down auto", 2},
		{"192.0.2.7:443 auto,192.0.2.0/28 auto,192.0.2.0/24 down", "down down down", 1},
		// The narrower rule, which is later, is what the auto is an exception to.
		{"192.0.2.0/24 down,192.0.2.0/28 up,192.0.2.7 auto", "auto auto up", 3},
		{"192.0.2.7 up,192.0.2.7 auto,192.0.3.0/24 down", "auto auto auto", 2},
		{"192.0.2.7 auto,0.0.0.0/0 down,2001:db8::/32 down", "down down down", 2},
		{"192.0.2.7 auto,::/0 down", "auto auto auto", 2},
	} {
		rules, err := Parse(strings.ReplaceAll(tt.lines, ",", "\n"), noon)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, target := range []string{"192.0.2.7:443", "192.0.2.7:80", "192.0.2.8:443"} {
			target := netip.MustParseAddrPort(target)
			got = append(got, rules.Of(target.Addr(), target.Port()).String())
		}
		if got := strings.Join(got, " "); got != tt.want || rules.Size() != tt.size {
			t.Errorf("%s: %s by %d rules, want %s by %d", tt.lines, got, rules.Size(), tt.want, tt.size)
		}
	}
}

// The same line by line: each drops the autos inside it that came before.
func TestLeftOverAutoAgainstNaive(t *testing.T) {
	const seed = 5
	r := rand.New(rand.NewPCG(seed, 0))
	dropped := 0
	for range 5000 {
		var text strings.Builder
		want := make(map[string]string)
		for range 1 + r.IntN(8) {
			addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(4))})
			rule := netip.AddrPortFrom(addr, 443).String()
			if r.IntN(3) > 0 {
				wide, _ := addr.Prefix(29 + r.IntN(4))
				for inner, decided := range want {
					if e, err := netip.ParseAddrPort(inner); decided == "auto" && err == nil && wide.Contains(e.Addr()) {
						delete(want, inner)
						dropped++
					}
					if p, err := netip.ParsePrefix(inner); decided == "auto" && err == nil && wide.Overlaps(p) && wide.Bits() <= p.Bits() {
						delete(want, inner)
						dropped++
					}
				}
				rule = wide.String()
			}
			decided := Decision(r.IntN(3)).String()
			want[rule] = decided
			fmt.Fprintln(&text, rule, decided)
		}
		rules, err := Parse(text.String(), noon)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for p, decided := range rules.prefixes.All() {
			got[p.String()] = decided.String()
		}
		for e, decided := range rules.endpoints {
			got[e.String()] = decided.String()
		}
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v, of\n%s", seed, got, want, &text)
		}
	}
	if dropped < 1000 {
		t.Errorf("%d rules were dropped, which proves little", dropped)
	}
}

func TestDifference(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after string // lines, with a comma in between
		want          []string
		more          int
	}{
		{"nothing", "192.0.2.1 down", "192.0.2.1 down", nil, 0},
		{"until", "192.0.2.1 down,192.0.2.2 down until 2026-11-26T13:00:00Z # a,192.0.2.3 up until 2026-11-26T13:00:00Z",
			"192.0.2.1 down until 2026-11-26T13:00:00Z # b,192.0.2.2 down until 2026-11-26T14:00:00Z # c,192.0.2.3 up # d",
			[]string{"192.0.2.1 is down until 2026-11-26T13:00:00Z, was down (b)",
				"192.0.2.2 is down until 2026-11-26T14:00:00Z, was down until 2026-11-26T13:00:00Z (c)",
				"192.0.2.3 is up, was up until 2026-11-26T13:00:00Z (d)"}, 0},
		{"another reason", "192.0.2.1 down # a", "192.0.2.1 down # b", nil, 0},
		{"reasons", "192.0.2.1 down # a,192.0.2.3 down # a,192.0.2.4 down # a", "192.0.2.0/31 up # b,192.0.2.3 auto # done",
			[]string{"192.0.2.0/31 is up, was auto (b)", "192.0.2.1 is up, was down (b)", "192.0.2.3 is auto, was down (done)"}, 1},
		{"each kind", "192.0.2.1 down,192.0.2.2 down,192.0.2.3:80 up,2001:db8::/32 auto,192.0.2.5 auto",
			"192.0.2.2 down,192.0.2.3:80 down,192.0.2.4 up,2001:db8::/32 auto",
			[]string{"192.0.2.1 is auto, was down", "192.0.2.4 is up, was auto", "192.0.2.3:80 is down, was up"}, 0},
		// What is told is what holds, whichever rule it is by.
		{"a wider rule takes over", "192.0.2.0/24 up,192.0.2.1 down", "192.0.2.0/24 up", []string{"192.0.2.1 is up, was down"}, 0},
		{"from a wider rule", "192.0.2.0/24 up", "192.0.2.0/24 up,192.0.2.1 down,192.0.2.2:80 auto",
			[]string{"192.0.2.1 is down, was up", "192.0.2.2:80 is auto, was up"}, 0},
		{"as a wider rule says", "192.0.2.0/24 up", "192.0.2.0/24 up,192.0.2.1 up,192.0.2.2:80 up", nil, 0},
		{"auto, as before", "", "192.0.2.1 auto", nil, 0},
		{"an exception", "192.0.2.7:443 up", "192.0.2.7:443 up,192.0.2.7 down",
			[]string{"192.0.2.7 is down, was auto, except 192.0.2.7:443, which is up"}, 0},
		{"an exception that is no longer one", "192.0.2.7 down,192.0.2.7:443 auto", "192.0.2.7 down,192.0.2.7:443 auto,192.0.2.7 down",
			[]string{"192.0.2.7:443 is down, was auto"}, 0},
		{"exceptions", "", "192.0.2.0/24 down,192.0.2.7 auto,192.0.2.64/26 up,192.0.2.9 down,192.0.2.8:80 up,192.0.3.1:80 down",
			[]string{
				"192.0.2.0/24 is down, was auto, except 192.0.2.7, which is auto, 192.0.2.64/26, which is up, 192.0.2.8:80, which is up",
				"192.0.2.9 is down, was auto", "192.0.2.64/26 is up, was auto"}, 2},
		{"many exceptions", "192.0.2.0/30 up,192.0.2.0:80 up,192.0.2.1:80 up,192.0.2.2:80 up,192.0.2.3:80 up",
			"192.0.2.0/30 down,192.0.2.0:80 up,192.0.2.1:80 up,192.0.2.2:80 up,192.0.2.3:80 up",
			[]string{"192.0.2.0/30 is down, was up, except 192.0.2.0:80, which is up, 192.0.2.1:80, which is up, " +
				"192.0.2.2:80, which is up, and 1 more"}, 0},
		{"no exception left", "192.0.2.7:443 up,192.0.2.7 down", "192.0.2.7 down", []string{"192.0.2.7:443 is down, was up"}, 0},
	} {
		parse := func(lines string) *Rules {
			rules, err := Parse(strings.ReplaceAll(lines, ",", "\n"), noon)
			if err != nil {
				t.Fatal(err)
			}
			return rules
		}
		changes, more := parse(tt.after).Difference(parse(tt.before), noon, 3)
		var got []string
		for _, change := range changes {
			got = append(got, change.String())
		}
		if !slices.Equal(got, tt.want) || more != tt.more {
			t.Errorf("%s: got %q and %d more, want %q and %d more", tt.name, got, more, tt.want, tt.more)
		}
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
	f.Add([]byte("192.0.2.7 down until 2026-11-26T12:00:00.5Z # kernel\tupdate \x00\xff\u202e\r192.0.2.7:443 up until 2026-11-26T12:00:00Z\r\n"))
	f.Add([]byte("[2001:db8::7]:443 up until 9999-12-31T23:59:59-00:01\n::/0 down until 0000-01-01t00:00:00z#" + strings.Repeat("\x01", 99)))
	f.Add([]byte("192.0.2.7 down until 2026-02-30T00:00:00Z\n192.0.2.8 down until\n192.0.2.9 down until 2026-11-26 12:00:00Z"))
	f.Fuzz(func(t *testing.T, content []byte) {
		rules, err := Parse(string(content), noon)
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
		if changes, more := rules.Difference(rules, noon, 10); changes != nil || more > 0 {
			t.Errorf("the same rules differ: %v", changes)
		}
		// What is printed is read again as the same.
		sorted := rules.Sorted()
		if len(sorted) != rules.Size() {
			t.Errorf("%d rules are %d", rules.Size(), len(sorted))
		}
		for _, rule := range sorted {
			again, err := Parse(rule.String(), noon)
			if err != nil {
				t.Errorf("%q: %v", rule.String(), err)
			} else if got := again.Sorted(); len(got) != 1 || got[0] != rule {
				t.Errorf("%q became %q", rule, got)
			}
		}
	})
}
