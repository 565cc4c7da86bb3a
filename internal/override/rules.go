// Package override holds what people have decided about addresses, whatever checks of them say, and the files that
// they write it to.
package override

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

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
	prefixes  bart.Fast[Decision] // single addresses too
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
	p, d, ok := r.prefixes.LookupPrefixLPM(single(addr))
	if !ok {
		return "", Auto
	}
	return prefix.String(p), d
}

// Size returns the number of rules.
func (r *Rules) Size() int { return len(r.endpoints) + r.prefixes.Size() }

// Equal tells whether both have the same rules.
func (r *Rules) Equal(other *Rules) bool {
	return maps.Equal(r.endpoints, other.endpoints) && r.prefixes.Equal(&other.prefixes)
}

// Parse reads rules, one a line. Of several for the same address the last one counts, so that a rule can be changed by
// another line at the end. For the same reason an auto holds for nothing once a later line has a wider rule: it is what is
// left of the end of an earlier rule. The error names the line.
//
// Files are UTF-8, with or without byte order marks, and lines end as on any system.
func Parse(content []byte) (*Rules, error) {
	l := lines{
		Rules:     &Rules{endpoints: make(map[netip.AddrPort]Decision)},
		endpoints: make(map[netip.AddrPort]int),
		prefixes:  make(map[netip.Prefix]int),
	}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return nil, errors.New("it is UTF-16, want UTF-8")
	}
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	content = bytes.ReplaceAll(content, []byte("\r"), []byte("\n"))
	number := 0
	for line := range bytes.Lines(content) {
		number++
		// Where files are joined, each begins with a mark.
		text, _, _ := strings.Cut(strings.TrimPrefix(string(line), "\ufeff"), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if err := l.add(number, fields); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	l.dropOvertaken()
	return l.Rules, nil
}

// lines are rules, and the number of the last line of each.
type lines struct {
	*Rules
	endpoints map[netip.AddrPort]int
	prefixes  map[netip.Prefix]int
}

// add takes the fields of a line in.
func (l *lines) add(number int, fields []string) error {
	if strings.Contains(fields[0], "\x00") {
		return fmt.Errorf("%s holds NUL, which UTF-16 does, want UTF-8", quote(fields[0]))
	}
	if len(fields) != 2 {
		return fmt.Errorf("%s is not possible, want ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR, and then up, down or auto",
			quote(strings.Join(fields, " ")))
	}
	decided := Auto
	for decided.String() != fields[1] {
		if decided++; decided > Down {
			return fmt.Errorf("%s is not possible, want up, down or auto", quote(fields[1]))
		}
	}
	if len(fields[0]) > maxQuoted {
		return fmt.Errorf("%s is too long for a CIDR, an address or one with a port", quote(fields[0]))
	}
	if endpoint, err := netip.ParseAddrPort(fields[0]); err == nil && endpoint.Addr().Zone() == "" && endpoint.Port() != 0 {
		endpoint = netip.AddrPortFrom(endpoint.Addr().Unmap(), endpoint.Port())
		l.Rules.endpoints[endpoint], l.endpoints[endpoint] = decided, number
		return nil
	}
	p, err := prefix.Parse(fields[0])
	if err != nil {
		return fmt.Errorf("%w; with a port it is 192.0.2.7:443 or [2001:db8::7]:443", err)
	}
	l.Rules.prefixes.Insert(p, decided)
	l.prefixes[p] = number
	return nil
}

// maxQuoted bounds how much of a file an error quotes, in characters. Nothing that is right is longer.
const maxQuoted = 80

func quote(text string) string {
	quoted := fmt.Sprintf("%.*q", maxQuoted, text)
	if utf8.RuneCountInString(text) > maxQuoted {
		quoted += "..."
	}
	return quoted
}

// dropOvertaken drops each auto that a wider rule on a later line has overtaken.
func (l *lines) dropOvertaken() {
	overtaken := func(p netip.Prefix, number int) bool {
		for wider := range l.Rules.prefixes.Supernets(p) {
			if l.prefixes[wider] > number {
				return true
			}
		}
		return false
	}
	maps.DeleteFunc(l.Rules.endpoints, func(e netip.AddrPort, decided Decision) bool {
		return decided == Auto && overtaken(single(e.Addr()), l.endpoints[e])
	})
	var dropped []netip.Prefix
	for p, decided := range l.Rules.prefixes.All() {
		if decided == Auto && overtaken(p, l.prefixes[p]) {
			dropped = append(dropped, p)
		}
	}
	for _, p := range dropped {
		l.Rules.prefixes.Delete(p)
	}
}

// single returns the prefix that holds nothing but an address.
func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// maxExceptions bounds how many exceptions from a rule are told.
const maxExceptions = 3

// Difference tells what now holds differently for what the rules are about, those before and these: a line each, with the
// exceptions from it, and no more than most of them. It also returns how many more there are.
func (r *Rules) Difference(before *Rules, most int) (changes []string, more int) {
	tell := func(what string, was, is Decision, exceptions func() string) {
		switch {
		case was == is:
		case len(changes) == most:
			more++
		default:
			changes = append(changes, fmt.Sprintf("%s is %s, was %s%s", what, is, was, exceptions()))
		}
	}
	for _, p := range sortedKeys(maps.Collect(before.prefixes.All()), maps.Collect(r.prefixes.All()), netip.Prefix.Compare) {
		was, _ := before.prefixes.LookupPrefix(p)
		is, _ := r.prefixes.LookupPrefix(p)
		tell(prefix.String(p), was, is, func() string { return r.exceptions(p, is) })
	}
	for _, e := range sortedKeys(before.endpoints, r.endpoints, netip.AddrPort.Compare) {
		tell(e.String(), before.Of(e.Addr(), e.Port()), r.Of(e.Addr(), e.Port()), func() string { return "" })
	}
	return changes, more
}

// sortedKeys returns those of both maps.
func sortedKeys[K comparable](a, b map[K]Decision, compare func(a, b K) int) []K {
	keys := slices.Collect(maps.Keys(a))
	for key := range b {
		if _, known := a[key]; !known {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compare)
	return keys
}

// exceptions tells for which parts of a prefix something else is decided than for the rest, with a comma before it.
func (r *Rules) exceptions(p netip.Prefix, rest Decision) string {
	var parts []string
	tell := func(part string, decided Decision) {
		if len(parts) < maxExceptions {
			parts = append(parts, fmt.Sprintf("%s, which is %s", part, decided))
		}
	}
	count := 0
	for inner, decided := range r.prefixes.Subnets(p) {
		if decided != rest {
			count++
			tell(prefix.String(inner), decided)
		}
	}
	var endpoints []netip.AddrPort
	for e, decided := range r.endpoints {
		if decided != rest && p.Contains(e.Addr()) {
			count++
			endpoints = append(endpoints, e)
		}
	}
	slices.SortFunc(endpoints, netip.AddrPort.Compare)
	for _, e := range endpoints[:min(len(endpoints), maxExceptions)] {
		tell(e.String(), r.endpoints[e])
	}
	if count == 0 {
		return ""
	}
	if more := count - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return ", except " + strings.Join(parts, ", ")
}
