package status

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns-shaker/shaker/internal/events"
)

var eventsPage = format{
	contentType: "text/html; charset=utf-8",
	parameters:  append(slices.Clone(eventParameters), refresh),
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		p := &pageOfEvents{frame: subject.frame(header, "events", "/events", q, problem)}
		p.JSON = "./events.json?" + q.kept(append(slices.Clone(eventFilters), "size")...).Encode()
		if problem == nil {
			p.eventsView = subject.events(q)
		}
		return pageTemplates().ExecuteTemplate(to, "events.html", p)
	},
}

// pageOfEvents is what the page of events shows. It has no view where something is wrong with the query.
type pageOfEvents struct {
	frame
	*eventsView
}

// Kinds are those that one can choose from, and States likewise. Without peers nothing happens to them, unless they have
// gone with a reload.
func (p *pageOfEvents) Kinds() (all []string) {
	for _, kind := range events.Kinds() {
		if p.HasPeers() || kind != events.Peer && kind != events.Disagreement {
			all = append(all, string(kind))
		}
	}
	return all
}

func (p *pageOfEvents) States() (all []string) {
	for _, state := range statesByNeed {
		all = append(all, state.String())
	}
	return all
}

// Filtered tells whether not all events are wanted.
func (p *pageOfEvents) Filtered() bool { return len(p.Query.kept(eventFilters...)) > 0 }

// First and Last are the numbers of the first and the last event on the page, as they are sorted here.
func (p *pageOfEvents) First() int { return (p.Page-1)*p.Size + 1 }
func (p *pageOfEvents) Last() int  { return p.First() + len(p.Events) - 1 }

// Turn links to another page, if it exists.
func (p *pageOfEvents) Turn(by int) string { return p.Query.turn(p.Page, p.Pages, by) }

// Clock is when the event was, with the date if that is not today.
func (p *pageOfEvents) Clock(e event) string { return ClockTime(e.Time, p.Time) }

// Class is how the kind looks.
func (e event) Class() string {
	switch e.Kind {
	case events.Down, events.Up, events.Unknown:
		return string(e.Kind)
	case events.Freeze, events.Trouble, events.Disagreement:
		return "unknown"
	default:
		return ""
	}
}

// Link leads to the page of the target.
func (e event) Link() string {
	return "target?" + url.Values{"address": {e.Address.String()}, "port": {strconv.Itoa(int(e.Port))}}.Encode()
}

// Hosts are the names without the dots at their ends.
func (e event) Hosts() string { return hosts(e.Names) }

// hosts returns names without the dots at their ends.
func hosts(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = withoutDot(name)
	}
	return strings.Join(all, ", ")
}
