package override

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestUntil(t *testing.T) {
	const want = "want a time such as 2026-11-26T16:00:00Z for UTC, or 2026-11-26T17:00:00+01:00 (RFC 3339)"
	const one = "want one such as 2026-11-26T16:00:00Z for UTC, or 2026-11-26T17:00:00+01:00 (RFC 3339)"
	for _, tt := range []struct {
		behind string // until
		want   string // in UTC, or the mistake
	}{
		{"2026-11-26T16:00:00Z", "2026-11-26T16:00:00Z"},
		{"2026-11-26T16:00:00.25Z", "2026-11-26T16:00:00.25Z"},
		{"2026-11-26T17:00:00+01:00", "2026-11-26T16:00:00Z"},
		{"2026-11-26T10:30:00-05:30", "2026-11-26T16:00:00Z"},
		{"2026-11-26t16:00:00z", "2026-11-26T16:00:00Z"}, // RFC 3339, section 5.6, allows for it
		{"2028-02-29T00:00:00-00:00", "2028-02-29T00:00:00Z"},
		{"", "the time is missing, " + one},
		{"# kernel update", "the time is missing, " + one},
		{"2026-11-26T16:00:00", `"2026-11-26T16:00:00" has no time zone, ` + one},
		{"2026-11-26T16:00:00 # Z", `"2026-11-26T16:00:00" has no time zone, ` + one},
		{"2026-11-26", `"2026-11-26" is not possible, ` + want},
		{"16:00", `"16:00" is not possible, ` + want},
		{"2026-11-26 16:00:00Z", `"2026-11-26 16:00:00Z" is not possible, ` + want},
		{"2026-11-26T16:00Z", `"2026-11-26T16:00Z" is not possible, ` + want},
		{"2026-11-26T6:00:00Z", `"2026-11-26T6:00:00Z" is not possible, ` + want}, // what time.Parse would take
		{"2026-11-26T16:00:00,5Z", `"2026-11-26T16:00:00,5Z" is not possible, ` + want},
		{"2026-11-26T16:00:00+0100", `"2026-11-26T16:00:00+0100" is not possible, ` + want},
		{"2026-11-26T16:00:00CET", `"2026-11-26T16:00:00CET" is not possible, ` + want},
		{"26.11.2026", `"26.11.2026" is not possible, ` + want},
		{"2h", `"2h" is not possible, ` + want},
		{"1795708800", `"1795708800" is not possible, ` + want},
		{"2026-02-29T16:00:00Z", `"2026-02-29T16:00:00Z" does not exist, ` + want},
		{"2026-13-01T16:00:00Z", `"2026-13-01T16:00:00Z" does not exist, ` + want},
		{"2026-11-26T24:00:00Z", `"2026-11-26T24:00:00Z" does not exist, ` + want},
		{"2026-11-26T23:59:60Z", `"2026-11-26T23:59:60Z" does not exist, ` + want}, // a leap second
		{"2026-11-26T16:00:00+24:00", `"2026-11-26T16:00:00+24:00" is not possible, ` + want},
		{"9999-12-31T23:59:59-00:01", `"9999-12-31T23:59:59-00:01" does not exist, ` + want}, // in UTC
		{"0000-01-01T00:00:00+00:01", `"0000-01-01T00:00:00+00:01" does not exist, ` + want},
		{"2026-11-26T16:00:00Z kernel update", `"kernel update" is not possible behind the time, want nothing, or # and a reason`},
		{"2026-11-26T16:00:00Z until 2026-11-26T17:00:00Z", `"until 2026-11-26T17:00:00Z" is not possible behind the time, want nothing, or # and a reason`},
	} {
		rules, err := Parse("# one\n192.0.2.7 down until "+tt.behind, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC))
		if err != nil {
			if got := err.Error(); got != "line 2: until: "+tt.want {
				t.Errorf("%q: error %s, want %s", tt.behind, got, tt.want)
			}
			continue
		}
		rule, _ := rules.Find(netip.MustParseAddr("192.0.2.7"), 443)
		if got := timeString(rule.Until); got != tt.want || rule.Says != Down {
			t.Errorf("%q: %v until %s, want down until %s", tt.behind, rule.Says, got, tt.want)
		}
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct{ comment, want string }{
		{"", ""},
		{"  \t ", ""},
		{" kernel update ", "kernel update"},
		{"kernel update\r\n", "kernel update"},
		{" #4711: kernel  update", "#4711: kernel  update"},
		{" Ölwechsel, 交換, שלום", "Ölwechsel, 交換, שלום"},
		{" a\tb\u00a0c\u3000d\u2028e\vf", "a b c d e f"},
		{" \x00\x1b[31mred\x7f", `\x00\x1b[31mred\x7f`},
		{" \u202etxt.exe", `\u202etxt.exe`},
		{" Stra\xdfe \xff", `Stra\xdfe \xff`},
		{" \U000e0041", `\U000e0041`},
		{` \x00`, `\x00`},
		{" <b>&amp;</b> %s %d", "<b>&amp;</b> %s %d"},
		{strings.Repeat("ü", 200), strings.Repeat("ü", 200)},
		{strings.Repeat("ü", 201), strings.Repeat("ü", 197) + "..."},
		{strings.Repeat("\x00", 1<<20), strings.Repeat(`\x00`, 49) + `\...`},
	} {
		rules, err := Parse("192.0.2.7 down #"+tt.comment, noon)
		if err != nil {
			t.Fatal(err)
		}
		rule, _ := rules.Find(netip.MustParseAddr("192.0.2.7"), 443)
		if rule.Reason != tt.want {
			t.Errorf("%.20q is %q, want %q", tt.comment, rule.Reason, tt.want)
		}
		if again := harmless(rule.Reason); again != rule.Reason {
			t.Errorf("%q becomes %q", rule.Reason, again)
		}
		for _, r := range rule.Reason {
			if !unicode.IsPrint(r) {
				t.Errorf("%q has %q", rule.Reason, r)
			}
		}
		if n := utf8.RuneCountInString(rule.Reason); n > maxReason {
			t.Errorf("%q has %d characters", rule.Reason, n)
		}
	}
}

// at writes a time of the day of the tests, which is hours and minutes.
func at(clock string) time.Time {
	t, err := time.Parse("15:04", clock)
	if err != nil {
		panic(err)
	}
	return noon.Truncate(24 * time.Hour).Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
}

// A line that has run out counts as if it were not there.
func TestRunOut(t *testing.T) {
	for _, tt := range []struct {
		lines string // with a comma in between, and times of the day
		// What is decided about 192.0.2.7:443 192.0.2.7:80 192.0.2.8:443 at 12:00, 14:00 and 16:00.
		noon, two, four string
	}{
		{"192.0.2.7 down until 14:00", "down down auto", "auto auto auto", "auto auto auto"},
		{"192.0.2.7 down until 14:01", "down down auto", "down down auto", "auto auto auto"},
		{"192.0.2.7 down until 11:00", "auto auto auto", "auto auto auto", "auto auto auto"},
		{"192.0.2.7:443 down until 14:00", "down auto auto", "auto auto auto", "auto auto auto"},
		{"192.0.2.0/28 up until 14:00", "up up up", "auto auto auto", "auto auto auto"},
		// What an earlier line says for the same holds again, whether that is wanted or not.
		{"192.0.2.7 up,192.0.2.7 down until 14:00", "down down auto", "up up auto", "up up auto"},
		{"192.0.2.7 down,192.0.2.7 down until 14:00", "down down auto", "down down auto", "down down auto"},
		{"192.0.2.7 down until 16:00,192.0.2.7 down until 14:00", "down down auto", "down down auto", "auto auto auto"},
		{"192.0.2.7 down until 14:00,192.0.2.7 down until 16:00", "down down auto", "down down auto", "auto auto auto"},
		{"192.0.2.7 down until 14:00,192.0.2.7 up until 16:00", "up up auto", "up up auto", "auto auto auto"},
		{"192.0.2.7 down until 16:00,192.0.2.7 up until 14:00", "up up auto", "down down auto", "auto auto auto"},
		// So does what a wider one says.
		{"192.0.2.0/24 down,192.0.2.7 up until 14:00", "up up down", "down down down", "down down down"},
		{"192.0.2.7 down,192.0.2.7:443 up until 14:00", "up down auto", "down down auto", "down down auto"},
		// An auto that ends is an exception for that time.
		{"192.0.2.7 down,192.0.2.7 auto until 14:00", "auto auto auto", "down down auto", "down down auto"},
		{"192.0.2.0/24 down,192.0.2.7 auto until 14:00", "auto auto down", "down down down", "down down down"},
		{"192.0.2.0/24 down until 16:00,192.0.2.7 auto until 14:00", "auto auto down", "down down down", "auto auto auto"},
		// An auto in front of a wider line is an exception from what came before, once that line has ended.
		{"192.0.2.0/24 down,192.0.2.7 auto,192.0.2.0/24 down until 14:00", "down down down", "auto auto down", "auto auto down"},
		{"192.0.2.0/16 down,192.0.2.7 auto,192.0.2.0/24 up until 14:00", "up up up", "auto auto down", "auto auto down"},
		{"192.0.2.0/24 down,192.0.2.7 auto until 14:00,192.0.2.0/24 down until 14:00", "down down down", "down down down", "down down down"},
		{"192.0.2.7:443 auto,192.0.2.7 down until 14:00,192.0.2.0/24 up until 16:00", "down down up", "up up up", "auto auto auto"},
		// Where a drain was taken back, and a wider one has ended, nothing is left.
		{"192.0.2.7 down until 16:00,192.0.2.7 auto,192.0.2.0/24 down until 14:00", "down down down", "auto auto auto", "auto auto auto"},
	} {
		text := strings.ReplaceAll(tt.lines, ",", "\n")
		for _, clock := range []string{"11:00", "14:00", "14:01", "16:00"} {
			text = strings.ReplaceAll(text, "until "+clock, "until "+timeString(at(clock)))
		}
		for clock, want := range map[string]string{"12:00": tt.noon, "14:00": tt.two, "16:00": tt.four} {
			rules, err := Parse(text, at(clock))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, target := range []string{"192.0.2.7:443", "192.0.2.7:80", "192.0.2.8:443"} {
				target := netip.MustParseAddrPort(target)
				got = append(got, rules.Of(target.Addr(), target.Port()).String())
			}
			if got := strings.Join(got, " "); got != want {
				t.Errorf("%s at %s: %s, want %s", tt.lines, clock, got, want)
			}
		}
	}
}

// naiveDecide reads a file as a person would who does it line by line, with a list of what holds in his hand.
func naiveDecide(text string, now time.Time, target netip.AddrPort) string {
	type rule struct{ what, says string }
	var list []rule
	inside := func(what string, p netip.Prefix) bool {
		if e, err := netip.ParseAddrPort(what); err == nil {
			return p.Contains(e.Addr())
		}
		inner := naivePrefix(what)
		return inner.Bits() >= p.Bits() && p.Contains(inner.Addr())
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 4 {
			until, err := time.Parse(time.RFC3339, words[3])
			if err != nil {
				panic(err)
			}
			if !until.After(now) {
				continue
			}
		}
		var kept []rule
		for _, r := range list {
			_, err := netip.ParseAddrPort(words[0])
			left := err != nil && r.says == "auto" && inside(r.what, naivePrefix(words[0]))
			if r.what != words[0] && !left {
				kept = append(kept, r)
			}
		}
		list = append(kept, rule{words[0], words[1]})
	}
	says, best := "auto", -1
	for _, r := range list {
		if r.what == target.String() {
			return r.says
		}
		if _, err := netip.ParseAddrPort(r.what); err == nil {
			continue
		}
		if p := naivePrefix(r.what); p.Contains(target.Addr()) && p.Bits() > best {
			says, best = r.says, p.Bits()
		}
	}
	return says
}

func naivePrefix(text string) netip.Prefix {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	return netip.MustParsePrefix(text)
}

// randomFile makes a file of a few rules for 192.0.2.0/30 at port 443, many of which end on a full hour from 10 to 16.
func randomFile(r *rand.Rand) string {
	var text strings.Builder
	for range 1 + r.IntN(9) {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(4))})
		rule := subject{single(addr), 443}
		if r.IntN(3) > 0 {
			wide, _ := addr.Prefix(29 + r.IntN(4))
			rule = subject{prefix: wide}
		}
		fmt.Fprint(&text, rule, " ", Decision(r.IntN(3)))
		if r.IntN(3) > 0 {
			fmt.Fprint(&text, " until ", timeString(noon.Add(time.Duration(r.IntN(7)-2)*time.Hour)))
		}
		fmt.Fprintln(&text)
	}
	return text.String()
}

// everyTarget is what the rules of random files can tell apart.
func everyTarget() (all []netip.AddrPort) {
	for i := range 5 {
		for _, port := range []uint16{80, 443} {
			all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), port))
		}
	}
	return all
}

// decisions returns what rules decide about every target.
func decisions(rules *Rules) string {
	var all []string
	for _, target := range everyTarget() {
		all = append(all, rules.Of(target.Addr(), target.Port()).String())
	}
	return strings.Join(all, " ")
}

// At every time, rules are what somebody reads who leaves out the lines that have run out; and they know for how long.
func TestUntilAgainstNaive(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	changed := 0
	for range 500 {
		text := randomFile(r)
		var before *Rules
		for half := range 20 {
			now := noon.Add(time.Duration(half-5) * 30 * time.Minute)
			rules, err := Parse(text, now)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, target := range everyTarget() {
				want = append(want, naiveDecide(text, now, target))
			}
			if got := decisions(rules); got != strings.Join(want, " ") {
				t.Fatalf("seed %d: at %v %s, want %s, of\n%s", seed, now, got, want, text)
			}
			if !rules.holdAt(now) {
				t.Fatalf("seed %d: rules of %v do not hold then, of\n%s", seed, now, text)
			}
			if before != nil && !before.equal(rules) {
				changed++
				if before.holdAt(now) || rules.holdAt(now.Add(-30*time.Minute)) {
					t.Fatalf("seed %d: at %v rules hold that are not the same half an hour before, of\n%s", seed, now, text)
				}
			}
			before = rules
		}
	}
	if changed < 500 {
		t.Errorf("rules changed %d times, which proves little", changed)
	}
}
