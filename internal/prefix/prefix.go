// Package prefix reads and writes CIDRs as people put them into configuration.
package prefix

import "net/netip"

// Parse reads a CIDR such as 10.0.0.0/8, or an address as the prefix that holds nothing else. Bits beyond the mask do
// not matter. It reports false where text is neither.
func Parse(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return p.Masked(), err == nil
}

// String writes a prefix so that Parse reads it: one that holds a single address without its length.
func String(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
