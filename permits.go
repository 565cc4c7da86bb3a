package shaker

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// permits tells which addresses may be probed. The longest prefix that holds an address decides; where none does, the
// address may be probed.
type permits struct {
	rules bart.Fast[bool]
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
	netip.MustParsePrefix("::ffff:0.0.0.0/96"),  // IPv4-mapped, without exception
	netip.MustParsePrefix("100::/64"),           // discard-only, RFC 6666
	netip.MustParsePrefix("fd00:ec2::254/128"),  // cloud metadata
	netip.MustParsePrefix("fd20:ce::254/128"),   // cloud metadata
	netip.MustParsePrefix("fe80::/10"),          // link-local
	netip.MustParsePrefix("fec0::/10"),          // site-local, RFC 3879
	netip.MustParsePrefix("ff00::/8"),           // multicast
}

// add notes a rule. It reports false where the same prefix has the opposite rule already.
func (p *permits) add(prefix netip.Prefix, allow bool) bool {
	have, found := p.rules.Get(prefix)
	p.rules.Insert(prefix, allow)
	return !found || have == allow
}

// addDefaults adds the rules for what is never probed where the Corefile has none for the same prefix.
func (p *permits) addDefaults() {
	for _, prefix := range neverProbed {
		if _, found := p.rules.Get(prefix); !found {
			p.rules.Insert(prefix, false)
		}
	}
}

// withoutEffect returns what is allowed without being an exception from anything. All of a family is not among it: who
// allows that does not mean to leave anything out.
func (p *permits) withoutEffect() (allowed []netip.Prefix) {
	denied := func(inner netip.Prefix) bool {
		for _, allow := range p.rules.Supernets(inner) {
			if !allow {
				return true
			}
		}
		return slices.ContainsFunc(neverProbed, func(d netip.Prefix) bool { return d.Bits() <= inner.Bits() && d.Overlaps(inner) })
	}
	for inner, allow := range p.rules.AllSorted() {
		if allow && inner.Bits() > 0 && !denied(inner) {
			allowed = append(allowed, inner)
		}
	}
	return allowed
}

// denies tells whether no address in a prefix may be probed.
func (p *permits) denies(all netip.Prefix) bool {
	if allow, found := p.rules.LookupPrefix(all); allow || !found {
		return false
	}
	for _, allow := range p.rules.Subnets(all) {
		if allow {
			return false
		}
	}
	return true
}

// allows tells whether addr, which is of a record, may be probed. No address in IPv4-mapped form may, whatever the Corefile
// allows: neverProbed has their prefix, and [prefix.Parse] makes none that is as long or longer.
func (p *permits) allows(addr netip.Addr) bool {
	allow, found := p.rules.Lookup(addr)
	return allow || !found
}
