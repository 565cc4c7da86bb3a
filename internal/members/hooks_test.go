package members

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

// Who has the key may still not bring in just anybody.
func TestNotifyAlive(t *testing.T) {
	full := newAddresses()
	for i := range maxMembers {
		full.put(fmt.Sprint("m", i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7946))
	}
	for _, tt := range []struct {
		name    string
		ip      string
		port    uint16
		members *addresses
		want    string
	}{
		{"other", "192.0.2.2", 7946, newAddresses(), ""},
		{"me", "192.0.2.1", 7946, newAddresses(), ""},
		{"before", "192.0.2.1", 7946, newAddresses(), errPredecessor.Error()},
		{"other", "198.51.100.1", 7946, newAddresses(), "198.51.100.1 is not among those that may speak to this replica"},
		{"other", "0.0.0.0", 7946, newAddresses(), "is not possible"},
		{"other", "224.0.0.1", 7946, newAddresses(), "is not possible"},
		{"other", "192.0.2.2", 0, newAddresses(), "is not possible"},
		{"", "192.0.2.2", 7946, newAddresses(), "is not possible"},
		{strings.Repeat("x", maxName+1), "192.0.2.2", 7946, newAddresses(), "is not possible"},
		{"other", "192.0.2.2", 7946, full, "there are 256 other replicas already, want fewer"},
		{"m7", "192.0.2.7", 7946, full, ""},
	} {
		tr := &transport{self: netip.MustParseAddrPort("192.0.2.1:7946"), members: tt.members}
		tr.allow([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("224.0.0.0/4")})
		h := hooks{&Members{name: "me", transport: tr}}
		err := h.NotifyAlive(&memberlist.Node{Name: tt.name, Addr: net.ParseIP(tt.ip), Port: tt.port})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.10q at %s: %v, want %q", tt.name, tt.ip, err, tt.want)
		}
	}
}
