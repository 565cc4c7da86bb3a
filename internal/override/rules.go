// Package override holds what people have decided about addresses, whatever checks of them say, and the files that
// they write it to.
package override

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gaissmai/bart"
)

// Rules are those of a file that hold at a time. The most specific rule for an address and port decides: that for the
// address and port, else that for the longest prefix that holds the address. The nil pointer has no rules.
type Rules struct {
	endpoints map[netip.AddrPort]Decision
	prefixes  bart.Fast[Decision] // single addresses too
	notes     map[subject]note    // what else there is to know of them, if anything

	// The same rules hold from since to before next. The zero values are for ever.
	since, next time.Time
	ended       int // lines that had run out
}

// note is what a rule says besides its decision.
type note struct {
	until  time.Time
	reason string
	from   string // the replica
	since  time.Time
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

// Find returns the rule that decides about an address at a port, where there is one. An IPv4 address is not to be in its
// IPv4-mapped form.
func (r *Rules) Find(addr netip.Addr, port uint16) (rule Rule, found bool) {
	if r == nil {
		return Rule{}, false
	}
	return r.decides(subject{single(addr), port})
}

// decides returns the rule that decides about all of a subject for which nothing more specific does.
func (r *Rules) decides(s subject) (rule Rule, found bool) {
	if s.port != 0 {
		if d, ok := r.endpoints[s.endpoint()]; ok {
			return r.rule(s, d), true
		}
	}
	p, d, ok := r.prefixes.LookupPrefixLPM(s.prefix)
	if !ok {
		return Rule{}, false
	}
	return r.rule(subject{prefix: p}, d), true
}

// rule returns the one for a subject, which decides so.
func (r *Rules) rule(about subject, decided Decision) Rule {
	n := r.notes[about]
	return Rule{What: about.String(), Says: decided, Until: n.until, Reason: n.reason, From: n.from, Since: n.since}
}

// Size returns the number of rules.
func (r *Rules) Size() int { return len(r.endpoints) + r.prefixes.Size() }

// all yields what there are rules for, and what they decide, in no order.
func (r *Rules) all() iter.Seq2[subject, Decision] {
	return func(yield func(subject, Decision) bool) {
		for p, d := range r.prefixes.All() {
			if !yield(subject{prefix: p}, d) {
				return
			}
		}
		for e, d := range r.endpoints {
			if !yield(subject{single(e.Addr()), e.Port()}, d) {
				return
			}
		}
	}
}

// Sorted returns the rules by the addresses that they are about. What is wider comes first, and an address before its
// ports.
func (r *Rules) Sorted() []Rule {
	var rules []Rule
	for _, about := range slices.SortedFunc(subjects(r.all()), subject.compare) {
		decided, _ := r.decides(about)
		rules = append(rules, decided)
	}
	return rules
}

// subjects yields those of rules.
func subjects(rules iter.Seq2[subject, Decision]) iter.Seq[subject] {
	return func(yield func(subject) bool) {
		for about := range rules {
			if !yield(about) {
				return
			}
		}
	}
}

// equal tells whether both have the same rules. Comments do not matter.
func (r *Rules) equal(other *Rules) bool {
	return maps.Equal(r.endpoints, other.endpoints) && r.prefixes.Equal(&other.prefixes) && maps.Equal(r.ends(), other.ends())
}

// ends returns when those of the rules end that do.
func (r *Rules) ends() map[subject]time.Time {
	ends := make(map[subject]time.Time)
	for about, n := range r.notes {
		if !n.until.IsZero() {
			ends[about] = n.until
		}
	}
	return ends
}

// holdAt tells whether Parse returns the same rules for that time.
func (r *Rules) holdAt(now time.Time) bool {
	return !now.Before(r.since) && (r.next.IsZero() || now.Before(r.next))
}

// Parse reads the rules, one a line, that hold at a time. Of several for the same address the last one counts, so that a
// rule can be changed by another line at the end. For the same reason an auto holds for nothing once a later line has a
// wider rule: it is what is left of the end of an earlier rule. A line that has run out counts as if it were not there. The
// error names the line; it is the same at all times.
//
// Files are UTF-8, with or without byte order marks, and lines end as on any system.
func Parse(content string, now time.Time) (*Rules, error) {
	if strings.HasPrefix(content, "\xff\xfe") || strings.HasPrefix(content, "\xfe\xff") {
		return nil, errors.New("it is UTF-16, want UTF-8")
	}
	l := newLines()
	number := 0
	for line := range linesOf(content) {
		number++
		about, rule, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if rule != nil && l.isAlive(rule, now) {
			l.add(number, *about, rule)
		}
	}
	l.dropOvertaken()
	return l.Rules, nil
}

// linesOf yields the lines of a file with what ends them: \n, \r\n or \r.
func linesOf(content string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for content != "" {
			end := strings.IndexAny(content, "\r\n") + 1
			switch {
			case end == 0:
				end = len(content)
			case strings.HasPrefix(content[end-1:], "\r\n"):
				end++
			}
			if !yield(content[:end]) {
				return
			}
			content = content[end:]
		}
	}
}

// lines are rules, and the number of the last line of each.
type lines struct {
	*Rules
	numbers map[subject]int
}

func newLines() *lines {
	return &lines{
		Rules:   &Rules{endpoints: make(map[netip.AddrPort]Decision), notes: make(map[subject]note)},
		numbers: make(map[subject]int),
	}
}

// isAlive tells whether a rule has not run out, and notes when that changes.
func (l *lines) isAlive(rule *Rule, now time.Time) bool {
	switch {
	case rule.Until.IsZero():
		return true
	case rule.endedAt(now):
		l.ended++
		if rule.Until.After(l.since) {
			l.since = rule.Until
		}
		return false
	default:
		if l.next.IsZero() || rule.Until.Before(l.next) {
			l.next = rule.Until
		}
		return true
	}
}

// add takes the rule of a line in.
func (l *lines) add(number int, about subject, rule *Rule) {
	if about.port != 0 {
		l.endpoints[about.endpoint()] = rule.Says
	} else {
		l.prefixes.Insert(about.prefix, rule.Says)
	}
	l.numbers[about] = number
	if n := (note{rule.Until, rule.Reason, rule.From, rule.Since}); n != (note{}) {
		l.notes[about] = n
	} else {
		delete(l.notes, about)
	}
}

// dropOvertaken drops each auto that a wider rule on a later line has overtaken.
func (l *lines) dropOvertaken() {
	var dropped []subject
	for about, decided := range l.all() {
		if decided == Auto && l.isOvertaken(about) {
			dropped = append(dropped, about)
		}
	}
	for _, about := range dropped {
		if about.port != 0 {
			delete(l.endpoints, about.endpoint())
		} else {
			l.prefixes.Delete(about.prefix)
		}
		delete(l.notes, about)
	}
}

func (l *lines) isOvertaken(about subject) bool {
	for wider := range l.prefixes.Supernets(about.prefix) {
		if l.numbers[subject{prefix: wider}] > l.numbers[about] {
			return true
		}
	}
	return false
}
