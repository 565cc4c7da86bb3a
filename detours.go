package shaker

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-shaker/shaker/internal/prefix"
)

// detours tell where an address is probed that cannot be reached from here: at another one. The longest prefix that holds
// an address decides; where none does, it is probed itself. The zero value has no detours.
type detours struct {
	rules bart.Table[detour]
}

// detour is where the addresses in a prefix are probed: at those in the prefix at, which is as long and of the same family,
// each at the one with the same bits beyond that. Port stands in for all ports; with 0 they stay.
type detour struct {
	at   netip.Prefix
	port uint16
}

func (d detour) String() string {
	if d.port == 0 {
		return prefix.String(d.at)
	}
	return fmt.Sprintf("%s %d", prefix.String(d.at), d.port)
}

// add notes where the addresses in a prefix are probed. It reports false where the prefix has a detour already.
func (d *detours) add(answered netip.Prefix, to detour) bool {
	if _, taken := d.rules.Get(answered); taken {
		return false
	}
	d.rules.Insert(answered, to)
	return true
}

// areThere tells whether there are any.
func (d *detours) areThere() bool { return d.rules.Size() > 0 }

// of returns where an address is probed instead of at a port. It does not allocate.
func (d *detours) of(answered netip.AddrPort) netip.AddrPort {
	if !d.areThere() {
		return answered
	}
	return d.take(answered)
}

func (d *detours) take(answered netip.AddrPort) netip.AddrPort {
	to, found := d.rules.Lookup(answered.Addr())
	if !found {
		return answered
	}
	port := answered.Port()
	if to.port != 0 {
		port = to.port
	}
	return netip.AddrPortFrom(moved(answered.Addr(), to.at), port)
}

// moved returns the address that begins with a prefix, which is masked and of the same family, and goes on like addr.
func moved(addr netip.Addr, to netip.Prefix) netip.Addr {
	if addr.Is4() {
		from, into := addr.As4(), to.Addr().As4()
		rest := binary.BigEndian.Uint32(from[:]) & (1<<(32-to.Bits()) - 1)
		binary.BigEndian.PutUint32(into[:], binary.BigEndian.Uint32(into[:])|rest)
		return netip.AddrFrom4(into)
	}
	from, into := addr.As16(), to.Addr().As16()
	for i, bits := range [2]int{min(to.Bits(), 64), max(to.Bits()-64, 0)} {
		f, t := from[8*i:8*i+8], into[8*i:8*i+8]
		rest := binary.BigEndian.Uint64(f) & (1<<(64-bits) - 1)
		binary.BigEndian.PutUint64(t, binary.BigEndian.Uint64(t)|rest)
	}
	return netip.AddrFrom16(into)
}

// parseDetour reads CIDR at CIDR [PORT].
func parseDetour(args []string) (answered netip.Prefix, to detour, err error) {
	if len(args) < 3 || len(args) > 4 || args[1] != "at" {
		return answered, to, fmt.Errorf("%q is not possible, want CIDR at CIDR [PORT]", strings.Join(args, " "))
	}
	if answered, err = prefix.Parse(args[0]); err != nil {
		return answered, to, err
	}
	if to.at, err = prefix.Parse(args[2]); err != nil {
		return answered, to, err
	}
	switch family := familyOf(answered); {
	case familyOf(to.at) != family:
		return answered, to, fmt.Errorf("%q is %s and %q is %s, want both of one family", args[0], family, args[2], familyOf(to.at))
	case to.at.Bits() != answered.Bits():
		return answered, to, fmt.Errorf("%q does not have the length of %v, want a CIDR that ends in /%d", args[2], answered, answered.Bits())
	}
	if len(args) == 4 {
		to.port, err = parsePort(args[3])
	}
	return answered, to, err
}

func familyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}
