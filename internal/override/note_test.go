package override

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// aClaim is one of each kind.
func aClaim(id uint64, said, gone moment, line *sharedLine) claim {
	c := claim{id: id, said: said, seen: said%2 == 0, gone: gone, sharedLine: line}
	if gone != 0 {
		c.by = 7
	}
	return c
}

func aLine(says Decision, until time.Time, reason, from string) *sharedLine {
	l := &sharedLine{Rule: Rule{Says: says, Until: until, Reason: reason, From: from, Since: moment(1_795_000_000_000_000).time()}, origin: 9}
	return l
}

var someClaims = claims{
	aClaim(1, 1_795_694_400_000_000, 0, aLine(Down, time.Time{}, "kernel update", "ns1")),
	aClaim(2, 1_795_694_400_000_001, 0, aLine(Auto, time.Date(2026, 11, 26, 16, 0, 0, 5, time.UTC), "", "ns2")),
	aClaim(3, 1_795_694_400_000_002, 1_795_694_400_000_003, nil),
	aClaim(4, 0, 1_795_694_400_000_004, nil),
	aClaim(5, 1_795_694_400_000_006, 1_795_694_400_000_004, aLine(Up, time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), "", "")),
}

func TestNote(t *testing.T) {
	for n := range len(someClaims) + 1 {
		want := someClaims[:n]
		got, err := decodeNote(want.encode())
		if err != nil || len(got) != n || !bytes.Equal(got.encode(), want.encode()) {
			t.Errorf("%d claims: %v, error %v", n, got, err)
		}
		for i, c := range got {
			if fmt.Sprintf("%+v", c.sharedLine) != fmt.Sprintf("%+v", want[i].sharedLine) || c.by != want[i].by {
				t.Errorf("%+v became %+v", want[i], c)
			}
		}
	}
	for _, what := range []string{"192.0.2.7", "192.0.2.7:443", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "[2001:db8::7]:53"} {
		about, err := parseSubject(what)
		if err != nil {
			t.Fatal(err)
		}
		path, got, err := decodeKey(encodeKey(sumOf("/o"), about))
		if err != nil || got != about || path != sumOf("/o") {
			t.Errorf("%s became %s, error %v", what, got, err)
		}
	}
}

// What no replica would write is refused.
func TestNoteRefused(t *testing.T) {
	valid := someClaims.encode()
	one := someClaims[:1].encode()
	line := func(from, reason string) []byte {
		return claims{aClaim(1, 2, 0, aLine(Down, time.Time{}, reason, from))}.encode()
	}
	many := someClaims[3:4].encode()
	for i := range byte(maxClaims) {
		next := someClaims[3:4].encode()
		next[1] = i + 1
		many = append(many, next[1:]...)
	}
	for _, tt := range []struct {
		name  string
		value []byte
		want  string
	}{
		{"another version", append([]byte{2}, valid[1:]...), "the version is not known"},
		{"too long", append([]byte{1}, make([]byte, maxNote)...), "it is too long"},
		{"the end missing", valid[:len(valid)-1], "it is cut off"},
		{"more behind it", append(slices.Clone(valid), 0), "it is cut off"},
		{"a line twice", append(slices.Clone(one), one[1:]...), "too many lines"},
		{"too many", many, "too many lines"},
		{"no such decision", append(append([]byte{1}, one[1:9]...), append([]byte{one[9] | sayingMask}, one[10:]...)...), "not possible"},
		{"no such flag", append(append([]byte{1}, one[1:9]...), append([]byte{one[9] | 1<<7}, one[10:]...)...), "not possible"},
		{"in force without a line", claims{{id: 1, said: 2, seen: true}}.encode(), "not possible"},
		{"gone with a line", claims{aClaim(1, 2, 4, aLine(Down, time.Time{}, "", ""))}.encode(), "not possible"},
		{"a long name", line(strings.Repeat("x", maxFrom+1), ""), "not possible"},
		{"a long reason", line("", strings.Repeat("x", maxSharedText+1)), "not possible"},
		{"a reason of two lines", line("", "a\nb"), "not possible"},
		{"a name that turns round", line("a\u202eb", ""), "not possible"},
		{"not UTF-8", line("", "\xff"), "not possible"},
		{"the end of time", claims{aClaim(1, 2, 0, aLine(Down, time.Unix(1<<40, 0), "", ""))}.encode(), "not possible"},
		{"said after the year 9999", claims{{id: 1, said: maxMoment + 2, seen: true, sharedLine: aLine(Down, time.Time{}, "", "")}}.encode(), "not possible"},
	} {
		if _, err := decodeNote(tt.value); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
	v4, v6 := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	for _, tt := range []struct {
		name string
		key  string
	}{
		{"empty", ""},
		{"of something else", "x" + encodeKey(pathSum{}, subject{prefix: v4})[1:]},
		{"too long", encodeKey(pathSum{}, subject{prefix: v4}) + "x"},
		{"a prefix with a port", encodeKey(pathSum{}, subject{v4, 443})},
		{"bits beyond the mask", encodeKey(pathSum{}, subject{prefix: netip.PrefixFrom(v4.Addr().Next(), 24)})},
		{"too long a prefix", encodeKey(pathSum{}, subject{prefix: v4})[:21] + "\x21\x00\x00"},
		{"IPv4-mapped", encodeKey(pathSum{}, subject{prefix: netip.MustParsePrefix("::ffff:192.0.2.7/128")})},
		{"IPv4-mapped and more", encodeKey(pathSum{}, subject{prefix: netip.MustParsePrefix("::/64")})},
		{"the rest missing", encodeKey(pathSum{}, subject{prefix: v6})[:30]},
	} {
		if _, about, err := decodeKey(tt.key); err == nil {
			t.Errorf("%s: %s", tt.name, about)
		}
	}
}

// Whatever comes, it leads to no panic, what is taken is fit to be shown, and told in the same way.
func FuzzNote(f *testing.F) {
	about := subject{prefix: netip.MustParsePrefix("192.0.2.0/24")}
	f.Add(encodeKey(pathSum{}, about), someClaims.encode())
	f.Add(encodeKey(pathSum{}, subject{prefix: netip.MustParsePrefix("2001:db8::7/128"), port: 443}), someClaims[:1].encode())
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := newSharing("ns1", "", SharingListener{Warningf: func(string, ...any) {}}, func() time.Time { return moment(1_795_694_500_000_000).time() })
		told := make(map[string][]byte)
		s.Publish(func(key string, value []byte) { told[key] = slices.Clone(value) })
		s.Take(key, value)
		for range 2 {
			for _, shared := range s.files {
				for about, topic := range shared.topics {
					shared.tellOthers(about)
					if len(topic.encode()) > maxNote {
						t.Errorf("%d octets", len(topic.encode()))
					}
				}
				for _, r := range shared.rules(s.now()).Sorted() {
					if r.Reason != harmless(r.Reason) || r.From != harmless(r.From) || r.Since.Year() < 0 || r.Since.Year() > 9999 {
						t.Errorf("%+v is shown", r)
					}
				}
			}
			for key, value := range told {
				if _, _, err := decodeKey(key); err != nil {
					t.Error(err)
				}
				all, err := decodeNote(value)
				if err != nil || !bytes.Equal(all.encode(), value) {
					t.Errorf("%x became %x, error %v", value, all.encode(), err)
				}
				s.Take(key, value)
			}
		}
	})
}

// In whichever order claims are joined, and however often, the same comes out.
func TestJoin(t *testing.T) {
	var all claims
	for _, seen := range []bool{false, true} {
		for said := moment(10); said < 13; said++ {
			for _, gone := range []moment{0, 10, 11, 12, 13} {
				for _, from := range []string{"ns1", "ns2"} {
					c := claim{id: 1, said: said, seen: seen, gone: gone, sharedLine: aLine(Down, time.Time{}, "", from)}
					c.join(c)
					all = append(all, c)
				}
			}
		}
	}
	show := func(c claim) string { return fmt.Sprintf("%+v %+v", c, c.sharedLine) }
	joined := func(all ...claim) string {
		c := all[0]
		for _, other := range all[1:] {
			c.join(other)
		}
		if c.isGone() != (c.sharedLine == nil) {
			t.Errorf("%s has a line that it should not have, or lacks it", show(c))
		}
		return strings.Join(strings.Fields(fmt.Sprintf("%d %v %d %v", c.said, c.seen, c.gone, c.sharedLine)), " ")
	}
	for _, a := range all {
		for _, b := range all {
			if joined(a, b) != joined(b, a) || joined(a, b) != joined(a, b, a, b) {
				t.Fatalf("%s and %s: %s or %s", show(a), show(b), joined(a, b), joined(b, a))
			}
			for _, c := range all {
				bc := b
				bc.join(c)
				if joined(a, b, c) != joined(a, bc) {
					t.Fatalf("%s, %s and %s: %s or %s", show(a), show(b), show(c), joined(a, b, c), joined(a, bc))
				}
			}
		}
	}
}
