package shaker

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// prefixes tells which addresses may be probed. The longest prefix that contains an address decides;
// where none does, the address may be probed.
type prefixes struct {
	rules []prefixRule

	// Made by complete: the rules per family, longest first, in a form that is quick to compare.
	v4 []mask4
	v6 []mask6
}

type prefixRule struct {
	prefix netip.Prefix
	allow  bool
}

type mask4 struct {
	address, mask uint32
	allow         bool
}

type mask6 struct {
	high, low, highMask, lowMask uint64
	allow                        bool
}

// neverProbed is denied unless a longer or equal prefix is allowed: what is not unicast to another
// machine (the special-purpose registries of RFC 6890, IANA), and where clouds serve their metadata,
// credentials included.
var neverProbed = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // this network, RFC 1122
	netip.MustParsePrefix("100.100.100.200/32"), // cloud metadata
	netip.MustParsePrefix("127.0.0.0/8"),        // loopback
	netip.MustParsePrefix("168.63.129.16/32"),   // cloud metadata
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local, cloud metadata
	netip.MustParsePrefix("192.0.0.0/24"),       // IETF protocol assignments
	netip.MustParsePrefix("224.0.0.0/4"),        // multicast
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved, broadcast
	netip.MustParsePrefix("::/96"),              // unspecified, loopback, IPv4-compatible
	netip.MustParsePrefix("::ffff:0.0.0.0/96"),  // IPv4-mapped
	netip.MustParsePrefix("100::/64"),           // discard-only, RFC 6666
	netip.MustParsePrefix("fd00:ec2::254/128"),  // cloud metadata
	netip.MustParsePrefix("fd20:ce::254/128"),   // cloud metadata
	netip.MustParsePrefix("fe80::/10"),          // link-local
	netip.MustParsePrefix("fec0::/10"),          // site-local, RFC 3879
	netip.MustParsePrefix("ff00::/8"),           // multicast
}

// add notes a rule. It reports false where the same prefix has the opposite rule already.
func (p *prefixes) add(prefix netip.Prefix, allow bool) bool {
	prefix = prefix.Masked()
	for _, r := range p.rules {
		if r.prefix == prefix {
			return r.allow == allow
		}
	}
	p.rules = append(p.rules, prefixRule{prefix, allow})
	return true
}

// complete adds the default rules where the Corefile has none for the same prefix.
func (p *prefixes) complete() {
	rules := slices.Clone(p.rules)
	for _, prefix := range neverProbed {
		if !slices.ContainsFunc(p.rules, func(r prefixRule) bool { return r.prefix == prefix }) {
			rules = append(rules, prefixRule{prefix: prefix})
		}
	}
	slices.SortStableFunc(rules, func(a, b prefixRule) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	p.v4, p.v6 = nil, nil
	for _, r := range rules {
		if r.prefix.Addr().Is4() {
			mask := uint32(^uint64(0) << (32 - r.prefix.Bits()))
			p.v4 = append(p.v4, mask4{word4(r.prefix.Addr()), mask, r.allow})
			continue
		}
		high, low := words6(r.prefix.Addr())
		m := mask6{high: high, low: low, highMask: ^uint64(0), allow: r.allow}
		if bits := r.prefix.Bits(); bits <= 64 {
			m.highMask <<= 64 - bits
		} else {
			m.lowMask = ^uint64(0) << (128 - bits)
		}
		p.v6 = append(p.v6, m)
	}
}

// allowed tells whether addr may be probed.
func (p *prefixes) allowed(addr netip.Addr) bool {
	if addr.Is4() {
		word := word4(addr)
		for i := range p.v4 {
			if r := &p.v4[i]; word&r.mask == r.address {
				return r.allow
			}
		}
		return true
	}
	high, low := words6(addr)
	for i := range p.v6 {
		if r := &p.v6[i]; high&r.highMask == r.high && low&r.lowMask == r.low {
			return r.allow
		}
	}
	return true
}

func word4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func words6(a netip.Addr) (high, low uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
