// Package prefix reads and writes CIDRs as people put them into configuration.
package prefix

import (
	"fmt"
	"net/netip"
)

// mapped holds the IPv4-mapped addresses (RFC 4291, section 2.5.5.2), such as ::ffff:10.0.0.1.
var mapped = netip.MustParsePrefix("::ffff:0.0.0.0/96")

// Parse reads a CIDR such as 10.0.0.0/8, or an address as the prefix that holds nothing else. Bits beyond the mask do
// not matter. The error quotes the text, and says what would be right.
//
// IPv4-mapped addresses are IPv4: ::ffff:10.0.0.0/104 is 10.0.0.0/8. A prefix that holds some of them and more is an
// error, since it would not do for them what it says. Only ::/0 is not, which plainly means all of IPv6, and holds none
// of IPv4. So the result never is a prefix of mapped addresses.
func Parse(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil && addr.Zone() == "" {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither a CIDR such as 10.0.0.0/8 nor an address", text)
	}
	inside := mapped.Contains(p.Addr())
	switch {
	case inside && p.Bits() >= mapped.Bits():
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped.Bits())
	case inside || p.Bits() > 0 && p.Overlaps(mapped):
		return netip.Prefix{}, fmt.Errorf("%q holds IPv4-mapped addresses, which are IPv4, and more, want a CIDR such as "+
			"10.0.0.0/8 or ::ffff:10.0.0.0/104 for IPv4, and ::/0 or a CIDR beside %v for IPv6", text, mapped)
	}
	return p.Masked(), nil
}

// String writes a prefix so that Parse reads it: one that holds a single address without its length.
func String(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
