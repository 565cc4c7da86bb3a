package prefix

import "testing"

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text, want string // what String makes of it; "" where it is neither CIDR nor address
	}{
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"10.1.2.3/8", "10.0.0.0/8"}, // bits beyond the mask do not matter
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"192.0.2.7", "192.0.2.7"},
		{"192.0.2.7/32", "192.0.2.7"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"2001:db8::7", "2001:db8::7"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"", ""},
		{"10.0.0.0/33", ""},
		{"2001:db8::/129", ""},
		{"10.0.0/8", ""},
		{"fe80::1%eth0", ""},
		{"fe80::1%eth0/64", ""},
		{"192.0.2.7:443", ""},
		{"www.example.org", ""},
	} {
		p, ok := Parse(tt.text)
		if ok != (tt.want != "") || ok && String(p) != tt.want {
			t.Errorf("%q is %v, %v; want %q", tt.text, p, ok, tt.want)
		}
	}
}
