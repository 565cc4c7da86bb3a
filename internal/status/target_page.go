package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

var targetPage = format{
	contentType: "text/html; charset=utf-8",
	parameters: []parameter{
		{name: "address", read: func(q *query, value string) error {
			addr, err := netip.ParseAddr(value)
			if err != nil || addr.Zone() != "" {
				return fmt.Errorf("%q is not an address, want one such as 192.0.2.1", value)
			}
			q.address = addr.Unmap()
			return nil
		}},
		portParameter,
		{name: "settings", read: func(q *query, value string) error {
			q.settings = value
			return nil
		}},
		refresh,
	},
	ask: oneAtATime(func(subject *Subject, q *query) error { return q.findNamed(subject.Monitor) }),
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		p := &pageOfTarget{frame: subject.frame(header, q.heading(), "/target", q, problem), Slot: health.HistorySlot}
		p.JSON = "targets.json?" + q.endpoint().Encode()
		for _, t := range q.found {
			row := subject.newTarget(t)
			row.addObservers(subject, t)
			p.Found = append(p.Found, shown{row, t.Settings()})
		}
		return pageTemplates().ExecuteTemplate(to, "target.html", p)
	},
}

// pageOfTarget is what the page of a target shows: one target, or several to choose from, or none and a problem.
type pageOfTarget struct {
	frame
	Slot  time.Duration
	Found []shown
}

// shown is a target and how it is checked.
type shown struct {
	target
	checks health.Settings
}

// oneAtATime has those who ask wait for each other: each looks at all targets, and there is to be CPU for one of them only.
func oneAtATime(ask func(*Subject, *query) error) func(context.Context, *Subject, *query) error {
	var mu sync.Mutex
	return func(_ context.Context, subject *Subject, q *query) error {
		mu.Lock()
		defer mu.Unlock()
		return ask(subject, q)
	}
}

// findNamed finds the targets that a query names, which differ in their settings.
func (q *query) findNamed(m *health.Monitor) error {
	switch {
	case !q.address.IsValid():
		return errors.New("address: missing, want one such as 192.0.2.1")
	case q.port == 0:
		return errors.New("port: missing, want a number from 1 to 65535")
	}
	looked := 0
	for t := range m.All() {
		if t.Addr() == netip.AddrPortFrom(q.address, uint16(q.port)) && (q.settings == "" || q.settings == t.Settings().String()) {
			q.found = append(q.found, t)
		}
		if looked++; looked%restEvery == 0 {
			runtime.Gosched()
		}
	}
	if len(q.found) == 0 {
		with := ""
		if q.settings != "" {
			with = fmt.Sprintf(" with the settings %q", q.settings)
		}
		return &Refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf(
			"there is no %s%s: targets come with answers that have their addresses, and go when there were none for long", q.heading(), with)}
	}
	slices.SortFunc(q.found, func(a, b *health.Target) int { return candidate{a, 0}.compare(candidate{b, 0}) })
	return nil
}

// heading is the target that a query names, as far as it does.
func (q *query) heading() string {
	if !q.address.IsValid() || q.port == 0 {
		return "target"
	}
	return "target " + netip.AddrPortFrom(q.address, uint16(q.port)).String()
}

// endpoint returns the parameters with which other pages show the target.
func (q *query) endpoint() url.Values {
	values := make(url.Values)
	for to, from := range map[string]string{"prefix": "address", "port": "port"} {
		if value := q.given.Get(from); value != "" {
			values.Set(to, value)
		}
	}
	return values
}

// Chosen is the target, if there is only one to show.
func (p *pageOfTarget) Chosen() *shown {
	if len(p.Found) != 1 {
		return nil
	}
	return &p.Found[0]
}

// Events links to what happened to the target.
func (p *pageOfTarget) Events() string { return "./events?" + p.Query.endpoint().Encode() }

// Link leads to the page of the target, also where there are others with its address and port if it has to.
func (t target) Link(others bool) string {
	values := url.Values{"address": {t.Address.String()}, "port": {strconv.Itoa(int(t.Port))}}
	if others {
		values.Set("settings", t.Settings)
	}
	return "target?" + values.Encode()
}

// hostLink is one of the names of a target, with a link to all targets of it.
type hostLink struct{ Name, Link string }

// HostLinks returns the names of the target.
func (a *shown) HostLinks() (all []hostLink) {
	for _, name := range a.Names {
		all = append(all, hostLink{withoutDot(name), "./?" + url.Values{"zone": {name}}.Encode()})
	}
	return all
}

// Files are where the overrides are.
func (a *shown) Files() (all []string) {
	for _, o := range a.Overrides {
		if !slices.Contains(all, o.File) {
			all = append(all, o.File)
		}
	}
	return all
}

// LastCheck is when the newest result came in.
func (a *shown) LastCheck(now time.Time) string { return shortTime(a.Checked, now) }

// Ways tell how the target is checked.
func (a *shown) Ways() []string {
	s := a.checks
	ways := []string{
		fmt.Sprintf("A check every %s, up to a fifth sooner; every %s while there is no verdict, and after a result that speaks against it.",
			spell(s.Interval), spell(s.Fast)),
		fmt.Sprintf("A check waits %s for the answer, and sends up to %s meanwhile; only one while the target is down.", spell(s.Timeout), several(s.Tries, "SYN")),
		fmt.Sprintf("Down after %s in a row, and up again after %s in a row.", several(s.Fall, "failure"), several(s.Rise, "answer")),
	}
	if s.Damping > 0 {
		ways = append(ways, fmt.Sprintf("From its third fall on it is held down for %s although it answers, and twice as long with every further one, up to %s.",
			spell(s.Damping), spell(s.DampingMax)))
	}
	if s.Source.IsValid() {
		ways = append(ways, fmt.Sprintf("Checks are sent from %v.", s.Source))
	}
	return ways
}

func several(n int, what string) string { return severalMany(uint64(n), what) }

// spell writes a duration in the largest unit that leaves nothing over, if that is short, and else as Go does.
func spell(d time.Duration) string {
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "µs"}} {
		if n := d / unit.is; d%unit.is == 0 && 0 < n && n < 10_000 {
			return fmt.Sprintf("%d %s", n, unit.name)
		}
	}
	return d.String()
}
