package override

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Change is what holds differently for what a rule is about.
type Change struct {
	// What is the address, the address and port or the CIDR.
	What string
	// Was and Is are the rules that decided about it and do now, which may be those for something wider. They are zero
	// where there is none. They differ in what they say, or until when.
	Was, Is Rule
	// Ended tells that Was has run out. Otherwise somebody has changed the file, or the clock was set back.
	Ended bool

	// Exceptions tell the parts for which something else is decided, as in ", except 192.0.2.7:443, which is up".
	Exceptions string
}

// Reason is why somebody decided so, "" where nobody has said it.
func (c Change) Reason() string {
	if c.Ended {
		return c.Was.Reason
	}
	return c.Is.Reason
}

// String returns the change as a line for the log.
func (c Change) String() string {
	was, ended := c.Was.says(), ""
	if c.Ended {
		was, ended = c.Was.Says.String(), ": it ended at "+timeString(c.Was.Until)
	}
	line := fmt.Sprintf("%s is %s, was %s%s%s", c.What, c.Is.says(), was, c.Exceptions, ended)
	if reason := c.Reason(); reason != "" {
		line += " (" + reason + ")"
	}
	if c.Ended {
		return line
	}
	return line + c.Is.by()
}

// by tells who has said a rule, where files are shared.
func (r Rule) by() string {
	if r.From == "" {
		return ""
	}
	return fmt.Sprintf(", by %s since %s", r.From, timeString(r.Since.Truncate(time.Second)))
}

// maxExceptions bounds how many exceptions from a rule are told.
const maxExceptions = 3

// Difference tells what now holds differently for what the rules are about, those before and these, with the exceptions
// from it: no more than most changes, and how many more there are.
func (r *Rules) Difference(before *Rules, now time.Time, most int) (changes []Change, more int) {
	all := slices.AppendSeq(slices.Collect(subjects(before.all())), subjects(r.all()))
	// Endpoints come last: the prefixes around them explain what is told of them.
	slices.SortFunc(all, func(a, b subject) int {
		if a.port != 0 != (b.port != 0) {
			return int(a.port) - int(b.port)
		}
		return a.compare(b)
	})
	for _, about := range slices.Compact(all) {
		was, _ := before.decides(about)
		is, _ := r.decides(about)
		switch {
		case was.Says == is.Says && was.Until.Equal(is.Until):
		case len(changes) == most:
			more++
		default:
			changes = append(changes, Change{What: about.String(), Was: was, Is: is, Ended: was.endedAt(now), Exceptions: r.exceptions(about, is.Says)})
		}
	}
	return changes, more
}

// exceptions tells for which parts of a subject something else is decided than for the rest, with a comma before it.
func (r *Rules) exceptions(about subject, rest Decision) string {
	if about.port != 0 {
		return ""
	}
	var parts []string
	tell := func(part string, decided Decision) {
		if len(parts) < maxExceptions {
			parts = append(parts, fmt.Sprintf("%s, which is %s", part, decided))
		}
	}
	count := 0
	for inner, decided := range r.prefixes.Subnets(about.prefix) {
		if decided != rest {
			count++
			tell(subject{prefix: inner}.String(), decided)
		}
	}
	var endpoints []netip.AddrPort
	for e, decided := range r.endpoints {
		if decided != rest && about.prefix.Contains(e.Addr()) {
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
