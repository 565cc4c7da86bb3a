package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
)

// eventFilters are the names of the parameters that choose events.
var eventFilters = append([]string{"kind"}, filters...)

// eventParameters are those that choose events, and a page of them.
var eventParameters = append([]parameter{{name: "kind", read: func(q *query, value string) error {
	q.kind = events.Kind(value)
	if !slices.Contains(events.Kinds(), q.kind) {
		return fmt.Errorf("%q is not a kind, want one of %s", value, kindNames())
	}
	return nil
}}}, parameters...)

func kindNames() string {
	var names []string
	for _, kind := range events.Kinds() {
		names = append(names, string(kind))
	}
	return strings.Join(names, ", ")
}

var eventsJSON = format{
	contentType: "application/json",
	parameters:  eventParameters,
	write: func(to *bytes.Buffer, _ http.Header, subject *Subject, q *query, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(failure{version, problem.Error()})
		}
		return json.NewEncoder(to).Encode(subject.events(q))
	},
}

// eventsView is a page of events, in the form that programs get.
type eventsView struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Matches int       `json:"matches"`
	Page    int       `json:"page"`
	Pages   int       `json:"pages"`
	Size    int       `json:"size"`
	Events  []event   `json:"events"`
}

// event has no arrays where it is about no target.
type event struct {
	Number   uint64       `json:"number"`
	Time     time.Time    `json:"time"`
	Kind     events.Kind  `json:"kind"`
	Text     string       `json:"text"`
	State    string       `json:"state,omitempty"`
	Address  netip.Addr   `json:"address,omitzero"`
	Port     uint16       `json:"port,omitempty"`
	Answered []netip.Addr `json:"answered,omitzero"`
	Settings string       `json:"settings,omitempty"`
	Names    []string     `json:"names,omitzero"`
	Result   string       `json:"result,omitempty"`
	Reason   string       `json:"reason,omitempty"`
}

// events returns the page of events that the query asks for, the newest first.
func (s *Subject) events(q *query) *eventsView {
	all := s.Events.All()
	slices.Reverse(all)
	all = slices.DeleteFunc(all, func(e *events.Event) bool { return !q.matchesEvent(e) })
	v := &eventsView{
		Version: version,
		Time:    instant(s.Events.Now()),
		Matches: len(all),
		Page:    q.page,
		Pages:   max(1, (len(all)+q.size-1)/q.size),
		Size:    q.size,
		Events:  []event{},
	}
	first := min((q.page-1)*q.size, len(all))
	for _, e := range all[first:min(first+q.size, len(all))] {
		v.Events = append(v.Events, newEvent(s.Events, e))
	}
	return v
}

// matchesEvent tells whether an event is wanted. One that is about no target is not where something is wanted of that.
func (q *query) matchesEvent(e *events.Event) bool {
	if q.kind != "" && q.kind != e.Kind {
		return false
	}
	t := e.Target
	if t == nil {
		return q.state == "" && q.port == 0 && !q.prefix.IsValid() && q.zone == ""
	}
	return (q.state == "" || q.state == t.State) &&
		(q.port == 0 || q.port == int(t.Endpoint.Port())) &&
		(!q.prefix.IsValid() || q.prefix.Contains(t.Endpoint.Addr()) || slices.ContainsFunc(t.Answered, q.prefix.Contains)) &&
		(q.zone == "" || slices.ContainsFunc(t.Names, q.inZone))
}

func newEvent(l *events.Log, e *events.Event) event {
	row := event{Number: e.Number(), Time: instant(l.Time(e)), Kind: e.Kind, Text: e.Text.String()}
	if t := e.Target; t != nil {
		row.Address, row.Port = t.Endpoint.Addr(), t.Endpoint.Port()
		row.Answered = append([]netip.Addr{}, t.Answered...)
		row.Names = append([]string{}, t.Names...)
		row.State, row.Result, row.Reason = t.State, t.Result, t.Reason
		row.Settings = t.Settings.String()
	}
	return row
}

// Endpoint is the address and port of the target, empty without one.
func (e event) Endpoint() string {
	if !e.Address.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(e.Address, e.Port).String()
}

// eventNumber reads the number of an event.
func eventNumber(value string) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not possible, want the number of an event", value)
	}
	return n, nil
}
