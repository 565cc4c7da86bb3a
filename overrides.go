package shaker

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// override is what somebody has decided about an address, whatever checks of it say. The zero value leaves
// it to the checks.
type override uint8

const (
	auto override = iota
	forcedUp
	forcedDown
)

func (o override) String() string {
	switch o {
	case forcedUp:
		return "up"
	case forcedDown:
		return "down"
	default:
		return "auto"
	}
}

// overrides are the rules of a file. The most specific rule for an address and port decides: that for the
// address and port, that for the address, and then the longest prefix. The nil pointer has no rules.
type overrides struct {
	endpoints map[netip.AddrPort]override
	prefixes  map[netip.Prefix]override // single addresses too
	// The lengths of the prefixes of each family, the longest first.
	bits4, bits6 []int
}

// of returns what the rules say of an address at a port.
func (o *overrides) of(addr netip.Addr, port uint16) override {
	decided, _ := o.find(addr, port)
	return decided
}

// rule returns the rule that decides, as in the file, and what it says. It is empty where there is none.
func (o *overrides) rule(addr netip.Addr, port uint16) (rule string, says override) {
	says, bits := o.find(addr, port)
	switch bits {
	case noRule:
		return "", auto
	case endpointRule:
		return netip.AddrPortFrom(addr, port).String(), says
	default:
		prefix, _ := addr.Prefix(bits)
		return prefixString(prefix), says
	}
}

// What find returns in place of the length of a prefix.
const (
	noRule       = -1
	endpointRule = -2 // the rule is for the address and port
)

// find returns what the rules say, and how long the prefix is by which they do.
func (o *overrides) find(addr netip.Addr, port uint16) (decided override, bits int) {
	if o == nil {
		return auto, noRule
	}
	if decided, ok := o.endpoints[netip.AddrPortFrom(addr, port)]; ok {
		return decided, endpointRule
	}
	lengths := o.bits6
	if addr.Is4() {
		lengths = o.bits4
	}
	for _, bits := range lengths {
		prefix, _ := addr.Prefix(bits) // no error, since bits is in the range of the family
		if decided, ok := o.prefixes[prefix]; ok {
			return decided, bits
		}
	}
	return auto, noRule
}

// size returns the number of rules.
func (o *overrides) size() int { return len(o.endpoints) + len(o.prefixes) }

// parseOverrides reads rules, one a line. Of several for the same address the last one counts, so that a rule
// can be changed by another line at the end. The error names the line.
func parseOverrides(content []byte) (*overrides, error) {
	o := &overrides{endpoints: make(map[netip.AddrPort]override), prefixes: make(map[netip.Prefix]override)}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		text, _, _ := strings.Cut(string(line), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if err := o.add(fields); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	for prefix := range o.prefixes {
		lengths := &o.bits6
		if prefix.Addr().Is4() {
			lengths = &o.bits4
		}
		if !slices.Contains(*lengths, prefix.Bits()) {
			*lengths = append(*lengths, prefix.Bits())
		}
	}
	for _, lengths := range [][]int{o.bits4, o.bits6} {
		slices.SortFunc(lengths, func(a, b int) int { return cmp.Compare(b, a) })
	}
	return o, nil
}

// add reads the fields of a rule.
func (o *overrides) add(fields []string) error {
	if len(fields) != 2 {
		return fmt.Errorf("%q is not possible, want ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR, and then up, down or auto",
			strings.Join(fields, " "))
	}
	decided := auto
	for decided.String() != fields[1] {
		if decided++; decided > forcedDown {
			return fmt.Errorf("%q is not possible, want up, down or auto", fields[1])
		}
	}
	if endpoint, err := netip.ParseAddrPort(fields[0]); err == nil && endpoint.Addr().Zone() == "" && endpoint.Port() != 0 {
		o.endpoints[netip.AddrPortFrom(endpoint.Addr().Unmap(), endpoint.Port())] = decided
		return nil
	}
	prefix, ok := parsePrefix(fields[0])
	if !ok {
		return fmt.Errorf("%q is not possible, want an address such as 192.0.2.7 or 2001:db8::7, one with a port "+
			"such as 192.0.2.7:443 or [2001:db8::7]:443, or a CIDR such as 192.0.2.0/24", fields[0])
	}
	o.prefixes[prefix] = decided
	return nil
}

// parsePrefix reads a CIDR, or an address as one that contains nothing else. Bits beyond the mask do not matter.
func parsePrefix(text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return prefix.Masked(), err == nil
}

// difference tells, a line each, what the rules of o say differently from those before.
func (o *overrides) difference(before *overrides) []string {
	lines := differences(before.endpoints, o.endpoints, netip.AddrPort.Compare, netip.AddrPort.String)
	return append(differences(before.prefixes, o.prefixes, netip.Prefix.Compare, prefixString), lines...)
}

func differences[K comparable](before, after map[K]override, compare func(a, b K) int, text func(K) string) []string {
	keys := slices.Collect(maps.Keys(after))
	for key := range before {
		if _, remains := after[key]; !remains {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compare)
	var lines []string
	for _, key := range keys {
		if before[key] != after[key] {
			lines = append(lines, fmt.Sprintf("%s is %s, was %s", text(key), after[key], before[key]))
		}
	}
	return lines
}

// prefixString writes a prefix as parsePrefix reads it.
func prefixString(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
