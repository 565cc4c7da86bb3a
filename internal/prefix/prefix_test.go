package prefix

import (
	"net/netip"
	"strings"
	"testing"
)

const (
	neither  = " is neither a CIDR such as 10.0.0.0/8 nor an address"
	straddle = " holds IPv4-mapped addresses, which are IPv4, and more, want"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text, want string // what String makes of it; where it begins with a space, that of the error behind the text
	}{
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"10.1.2.3/8", "10.0.0.0/8"}, // bits beyond the mask do not matter
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"192.0.2.7", "192.0.2.7"},
		{"192.0.2.7/32", "192.0.2.7"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"2001:db8::7", "2001:db8::7"},
		{"", neither},
		{"10.0.0.0/33", neither},
		{"2001:db8::/129", neither},
		{"10.0.0/8", neither},
		{"fe80::1%eth0", neither},
		{"fe80::1%eth0/64", neither},
		{"192.0.2.7:443", neither},
		{"www.example.org", neither},
		{"::ffff:10.0.0.0/129", neither},
		// What is IPv4-mapped is IPv4, however it is written.
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"::ffff:192.0.2.7/128", "192.0.2.7"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8"},
		{"::ffff:10.1.2.3/104", "10.0.0.0/8"},
		{"::ffff:a00:0/104", "10.0.0.0/8"},
		{"0:0:0:0:0:FFFF:0A00:0000/105", "10.0.0.0/9"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"::ffff:0:0/97", "0.0.0.0/1"},
		{"::ffff:0:0/95", straddle},
		{"::ffff:10.0.0.0/8", straddle},
		{"::ffff:10.0.0.0/0", straddle},
		{"::fffe:0:0/95", straddle},
		{"::ff00:0:0/88", straddle},
		{"::1234:0:0/80", straddle},
		{"::/80", straddle},
		{"::/8", straddle},
		{"::/1", straddle},
		// All of IPv6 is plainly meant.
		{"::/0", "::/0"},
		{"2001:db8::/0", "::/0"},
		// Beside the mapped range.
		{"::fffe:0:0/96", "::fffe:0:0/96"},
		{"::/96", "::/96"},
		{"::/81", "::/81"},
		{"0:0:0:0:1::/80", "::1:0:0:0/80"},
		{"8000::/1", "8000::/1"},
	} {
		p, err := Parse(tt.text)
		if strings.HasPrefix(tt.want, " ") {
			if err == nil || !strings.HasPrefix(err.Error(), `"`+tt.text+`"`+tt.want) {
				t.Errorf("%q is %v, error %v; want one with %q", tt.text, p, err, tt.want)
			}
			continue
		}
		if err != nil || String(p) != tt.want {
			t.Errorf("%q is %v, error %v; want %q", tt.text, p, err, tt.want)
		}
	}
}

// Whatever is read holds none of the mapped addresses, unless it is all of IPv6, and String writes it so that it is read
// again as what it was.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8", "::ffff:10.0.0.0/104", "::/0", "::/80", "2001:db8::7", "::ffff:1.2.3.4"} {
		f.Add(seed)
	}
	mapped := netip.MustParsePrefix("::ffff:0:0/96")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			if p.IsValid() {
				t.Errorf("%q is %v and an error, %v", text, p, err)
			}
			return
		}
		if p != p.Masked() || p.Overlaps(mapped) && p.Bits() > 0 {
			t.Errorf("%q is %v", text, p)
		}
		if again, err := Parse(String(p)); err != nil || again != p {
			t.Errorf("%q is %v, which is written %s, which is %v, %v", text, p, String(p), again, err)
		}
	})
}
