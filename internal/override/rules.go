// Package override holds what people have decided about addresses, whatever checks of them say, and the files that
// they write it to.
package override

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/coredns-shaker/shaker/internal/prefix"
)

// Decision is what somebody has decided about an address. The zero value leaves it to the checks.
type Decision uint8

const (
	// Auto leaves the address to its checks.
	Auto Decision = iota
	// Up keeps it in answers.
	Up
	// Down keeps it out of them.
	Down
)

// String returns the decision as files have it.
func (d Decision) String() string {
	switch d {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "auto"
	}
}

// Rules are the decisions in a file. The most specific rule for an address and port decides: that for the address and
// port, else that for the longest prefix that holds the address. The nil pointer has no rules.
type Rules struct {
	endpoints map[netip.AddrPort]Decision
	prefixes  bart.Table[Decision] // single addresses too
}

// Of returns what the rules say of an address at a port. An IPv4 address is not to be in its IPv4-mapped form. It
// allocates nothing.
func (r *Rules) Of(addr netip.Addr, port uint16) Decision {
	if r == nil {
		return Auto
	}
	if len(r.endpoints) > 0 {
		if d, ok := r.endpoints[netip.AddrPortFrom(addr, port)]; ok {
			return d
		}
	}
	d, _ := r.prefixes.Lookup(addr)
	return d
}

// Find returns the rule that decides, written as in a file, and what it says. It is empty where there is none.
func (r *Rules) Find(addr netip.Addr, port uint16) (rule string, says Decision) {
	if r == nil {
		return "", Auto
	}
	endpoint := netip.AddrPortFrom(addr, port)
	if d, ok := r.endpoints[endpoint]; ok {
		return endpoint.String(), d
	}
	p, d, ok := r.prefixes.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
	if !ok {
		return "", Auto
	}
	return prefix.String(p), d
}

// Size returns the number of rules.
func (r *Rules) Size() int { return len(r.endpoints) + r.prefixes.Size() }

// Parse reads rules, one a line. Of several for the same address the last one counts, so that a rule can be changed by
// another line at the end. The error names the line.
func Parse(content []byte) (*Rules, error) {
	r := &Rules{endpoints: make(map[netip.AddrPort]Decision)}
	number := 0
	for line := range bytes.Lines(content) {
		number++
		text, _, _ := strings.Cut(string(line), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if err := r.add(fields); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return r, nil
}

// add takes the fields of a rule in.
func (r *Rules) add(fields []string) error {
	if len(fields) != 2 {
		return fmt.Errorf("%q is not possible, want ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR, and then up, down or auto",
			strings.Join(fields, " "))
	}
	decided := Auto
	for decided.String() != fields[1] {
		if decided++; decided > Down {
			return fmt.Errorf("%q is not possible, want up, down or auto", fields[1])
		}
	}
	if endpoint, err := netip.ParseAddrPort(fields[0]); err == nil && endpoint.Addr().Zone() == "" && endpoint.Port() != 0 {
		r.endpoints[netip.AddrPortFrom(endpoint.Addr().Unmap(), endpoint.Port())] = decided
		return nil
	}
	p, err := prefix.Parse(fields[0])
	if err != nil {
		return fmt.Errorf("%w; with a port it is 192.0.2.7:443 or [2001:db8::7]:443", err)
	}
	r.prefixes.Insert(p, decided)
	return nil
}

// Difference tells, a line each, what the rules say differently from those before.
func (r *Rules) Difference(before *Rules) []string {
	lines := differences(maps.Collect(before.prefixes.All()), maps.Collect(r.prefixes.All()), netip.Prefix.Compare, prefix.String)
	return append(lines, differences(before.endpoints, r.endpoints, netip.AddrPort.Compare, netip.AddrPort.String)...)
}

func differences[K comparable](before, after map[K]Decision, compare func(a, b K) int, text func(K) string) []string {
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
