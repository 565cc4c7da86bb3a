package status

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

var targetsPage = format{
	contentType: "text/html; charset=utf-8",
	parameters:  append(slices.Clone(targetParameters), refresh),
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		p := &page{frame: subject.frame(header, "targets", "/", q, problem), view: subject.view()}
		p.JSON = "targets?" + q.kept(append(slices.Clone(targetFilters), "size")...).Encode()
		if problem == nil {
			p.list(subject, q, true)
		}
		return pageTemplates().ExecuteTemplate(to, "targets.html", p)
	},
}

// page is what the page of targets shows.
type page struct {
	frame
	*view
}

// state is a state and the number of targets in it, with a link to them. The empty state is that of all.
type state struct {
	State, Link string
	Targets     int
	Chosen      bool
}

// States returns what is on top of the page. Links to a state leave other filters out: the numbers are of all targets.
func (p *page) States() []state {
	c := p.Counts
	states := []state{{Targets: c.Total}, {State: "down", Targets: c.Down}, {State: "unknown", Targets: c.Unknown}, {State: "up", Targets: c.Up}}
	all := query{given: p.Query.kept("size", "refresh")}
	for i := range states {
		s := &states[i]
		s.Link = all.link("state", s.State)
		s.Chosen = s.Link == p.Query.link("page", "")
	}
	return states
}

// Filtered tells whether not all targets are wanted.
func (p *page) Filtered() bool { return len(p.Query.kept(targetFilters...)) > 0 }

// First and Last are the numbers of the first and the last target on the page.
func (p *page) First() int { return (p.Page-1)*p.Size + 1 }
func (p *page) Last() int  { return p.First() + len(p.Targets) - 1 }

// Turn links to another page, if it exists.
func (p *page) Turn(by int) string {
	return p.Query.turn(p.Page, p.Pages, by)
}

// Various tells whether the targets on the page are not all checked in the same way.
func (p *page) Various() bool {
	return slices.ContainsFunc(p.Targets, func(t target) bool { return t.Settings != p.Targets[0].Settings })
}

// Notes are what else there is to know about a target.
func (t target) Notes(now time.Time) (all []string) {
	if !t.Damped.IsZero() {
		all = append(all, "flaps, held down until "+shortTime(t.Damped, now))
	}
	if t.Own != "" {
		all = append(all, "this replica says "+t.Own)
	}
	for _, o := range t.Overrides {
		all = append(all, "override: "+o.note(now))
	}
	return all
}

// note tells a rule in short.
func (r rule) note(now time.Time) string {
	until, reason := "", ""
	if !r.Until.IsZero() {
		until = " until " + shortTime(r.Until, now)
	}
	if r.Reason != "" {
		reason = " (" + r.Reason + ")"
	}
	by := ""
	if r.From != "" {
		by = fmt.Sprintf(", by %s since %s", r.From, shortTime(r.Since, now))
	}
	return fmt.Sprintf("%s%s, rule %s%s%s", r.Says, until, r.Rule, reason, by)
}

// Endpoint is the address and port.
func (t target) Endpoint() string { return netip.AddrPortFrom(t.Address, t.Port).String() }

// Others are the addresses that are answered instead.
func (t target) Others() string {
	others := make([]string, len(t.Answered))
	for i, addr := range t.Answered {
		others[i] = addr.String()
	}
	return strings.Join(others, ", ")
}

// Hosts are the names without the dots at their ends.
func (t target) Hosts() string {
	return hosts(t.Names)
}

func withoutDot(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// Cause is the reason, if it tells more than the result.
func (t target) Cause() string {
	if t.Result == checker.Refused.String() || t.Result == checker.Timeout.String() {
		return ""
	}
	return strings.TrimPrefix(t.Reason, "checker: ")
}

// Begin is when the state began.
func (t target) Begin(now time.Time) string { return shortTime(t.Since, now) }

// For tells how long the state lasts.
func (t target) For(now time.Time) string { return span(now.Sub(t.Since)) }

// span writes how long something takes, in words that are easy to grasp.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	}
}

// Milliseconds is the round trip.
func (t target) Milliseconds() string { return strconv.FormatFloat(t.RoundTrip*1e3, 'f', 2, 64) }

// bar is the slots of a history that look the same, as the path of an SVG.
type bar struct{ Class, Path string }

// Bars of a slot are 4 wide, with 1 in between. The height tells results apart as the colour does: what has failed is
// tall, what answered is low, and what says nothing hovers. A slot with both is tall with another foot.
func (t target) Bars() []bar {
	const answered, failed, inconclusive, nothing = 0, 1, 2, 3
	bars := []bar{{Class: "up"}, {Class: "down"}, {Class: "unknown"}, {Class: "nothing"}}
	draw := func(kind, slot, y, height int) {
		bars[kind].Path += fmt.Sprintf("M%d %dh4v%dh-4z", slot*5, y, height)
	}
	for i, slot := range t.History {
		switch {
		case slot == nil:
			draw(nothing, i, 14, 1)
			continue
		case slot.Result == checker.Answered.String():
			draw(answered, i, 8, 8)
			continue
		}
		height := 16
		if slot.Mixed {
			draw(answered, i, 11, 5)
			height = 10
		}
		if slot.Result == checker.Inconclusive.String() {
			draw(inconclusive, i, 4, height-8)
		} else {
			draw(failed, i, 0, height)
		}
	}
	return slices.DeleteFunc(bars, func(b bar) bool { return b.Path == "" })
}

// Past tells in words what the bars show.
func (t target) Past() string {
	slots := make(map[string]int)
	for _, slot := range t.History {
		switch {
		case slot == nil:
			slots["nothing"]++
		default:
			slots[slot.words()]++
		}
	}
	var parts []string
	for _, r := range checker.Results() {
		for _, words := range []string{r.String(), r.String() + " and answered"} {
			if n := slots[words]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, words))
			}
		}
	}
	if n := slots["nothing"]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d without a check", n))
	}
	return fmt.Sprintf("Slots of %v: %s", health.HistorySlot, strings.Join(parts, ", "))
}
