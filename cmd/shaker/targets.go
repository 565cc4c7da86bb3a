package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// targetsAnswer is what the server says of targets, as docs/status.md has it. Here and below, what is a number or an
// instant is read as such, and everything else is a text that may hold anything.
type targetsAnswer struct {
	Time   time.Time `json:"time"`
	Frozen time.Time `json:"frozen_since"`
	Counts struct {
		Total   int `json:"total"`
		Down    int `json:"down"`
		Unknown int `json:"unknown"`
		Up      int `json:"up"`
	} `json:"counts"`
	Matches int      `json:"matches"`
	Page    int      `json:"page"`
	Pages   int      `json:"pages"`
	Slot    float64  `json:"history_slot_seconds"`
	Targets []target `json:"targets"`
}

type target struct {
	Address   string    `json:"address"`
	Port      int       `json:"port"`
	Answered  []string  `json:"answered"`
	Settings  string    `json:"settings"`
	State     string    `json:"state"`
	Own       string    `json:"own"`   // what the server's own checks say, where that is another
	Rests     bool      `json:"rests"` // others check it
	Since     time.Time `json:"since"`
	Damped    time.Time `json:"damped_until"`
	Checked   time.Time `json:"checked"`
	Result    string    `json:"result"`
	Reason    string    `json:"reason"`
	RoundTrip float64   `json:"round_trip_seconds"`
	Names     []string  `json:"names"`
	Overrides []rule    `json:"overrides"`
	History   []*slot   `json:"history"`
	Tally     string    `json:"tally"` // who says the state
	Observers []struct {
		Member    string    `json:"member"`
		Host      string    `json:"host"`
		Self      bool      `json:"self"`
		Votes     bool      `json:"votes"`
		Says      string    `json:"says"`
		Since     time.Time `json:"since"`
		Result    string    `json:"result"`
		RoundTrip float64   `json:"round_trip_seconds"`
	} `json:"observers"`
}

type slot struct {
	Result string `json:"result"`
	Mixed  bool   `json:"mixed"`
}

// rule is a line of a file of overrides.
type rule struct {
	What   string    `json:"rule"`
	Says   string    `json:"says"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	From   string    `json:"from,omitempty"` // this and the next only where replicas share the file
	Since  time.Time `json:"since,omitzero"`
	File   string    `json:"file,omitempty"` // where several files may have it
}

// endpoint returns the address and port as they are written.
func (t *target) endpoint() string { return net.JoinHostPort(t.Address, strconv.Itoa(t.Port)) }

// query returns the parameters that choose targets.
func (s *settings) query() url.Values {
	q := make(url.Values)
	for name, value := range map[string]string{"state": s.state, "prefix": s.prefix, "zone": s.zone, "port": s.port} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// targets shows a part of the targets, or all parts.
func (p *program) targets(ctx context.Context, s *settings) error {
	c, err := p.client(s)
	if err != nil {
		return err
	}
	if s.all {
		s.size = maxSize
	}
	t := &table{heads: []string{"TARGET", "STATE", "FOR", "RESULT", "RTT", "NAMES", "NOTE"}, more: s.all, states: 1, colour: p.paint}
	for {
		q := s.query()
		if s.disagree {
			q.Set("disagreeing", "1")
		}
		q.Set("page", strconv.Itoa(s.page))
		q.Set("size", strconv.Itoa(s.size))
		var a targetsAnswer
		body, err := c.ask(ctx, "targets.json", q, &a)
		if err != nil {
			return err
		}
		if s.json {
			err = p.print(string(cleanJSON(body)))
		} else {
			err = p.print(a.rows(t) + p.foot(&a, s))
		}
		if err != nil || !s.all || s.page >= a.Pages {
			return err
		}
		s.page++
	}
}

// rows returns the lines of the table.
func (a *targetsAnswer) rows(to *table) string {
	for _, t := range a.Targets {
		names := strings.Join(t.Names[:min(len(t.Names), 1)], "")
		if more := len(t.Names) - 1; more > 0 {
			names += fmt.Sprintf(" +%d", more)
		}
		result := t.Result
		if t.Rests {
			result = "elsewhere"
		}
		to.add(t.endpoint(), t.State, span(a.Time.Sub(t.Since)), result, roundTrip(t.RoundTrip), names, t.note())
	}
	return to.take()
}

// note tells what else decides about a target.
func (t *target) note() string {
	var notes []string
	if !t.Damped.IsZero() {
		notes = append(notes, "damped")
	}
	if t.Own != "" {
		notes = append(notes, "here: "+t.Own)
	}
	for _, r := range t.Overrides {
		notes = append(notes, "override: "+r.Says)
	}
	return strings.Join(notes, ", ")
}

// foot tells how many targets there are besides those of the table.
func (p *program) foot(a *targetsAnswer, s *settings) string {
	if s.all && s.page < a.Pages {
		return ""
	}
	var b strings.Builder
	if len(a.Targets) > 0 {
		b.WriteString("\n")
	}
	if !a.Frozen.IsZero() {
		fmt.Fprintf(&b, "Verdicts are frozen since %s: this server may be cut off.\n", p.clock(a.Frozen, a.Time))
	}
	n := a.Counts
	fmt.Fprintf(&b, "%d of %s", a.Matches, count(n.Total, "target"))
	if n.Total > 0 {
		fmt.Fprintf(&b, "; of all, %d down, %d unknown, %d up", n.Down, n.Unknown, n.Up)
	}
	b.WriteString("\n")
	if !s.all && (a.Pages > 1 || a.Page > a.Pages) {
		fmt.Fprintf(&b, "This is part %d of %d: -page N shows another one, -all shows all.\n", a.Page, a.Pages)
	}
	return b.String()
}

// target shows all that is known of a target, once for each of the settings that it is checked with.
func (p *program) target(ctx context.Context, s *settings) error {
	about, err := netip.ParseAddrPort(s.arguments[0])
	if err != nil || about.Port() == 0 || about.Addr().Zone() != "" {
		return usageError{fmt.Errorf("%q is not a target, want ADDRESS:PORT, such as 192.0.2.7:443 or [2001:db8::7]:443", s.arguments[0]), "target"}
	}
	c, err := p.client(s)
	if err != nil {
		return err
	}
	q := url.Values{
		"prefix": {about.Addr().Unmap().String()},
		"port":   {strconv.Itoa(int(about.Port()))},
		"size":   {strconv.Itoa(maxSize)},
	}
	var a targetsAnswer
	body, err := c.ask(ctx, "targets.json", q, &a)
	if err != nil {
		return err
	}
	if len(a.Targets) == 0 {
		return fmt.Errorf("there is no target %v at %s: want one of those that shaker targets lists; they come with the queries for their names", about, c)
	}
	if s.json {
		return p.print(string(cleanJSON(body)))
	}
	var texts []string
	for i := range a.Targets {
		texts = append(texts, p.details(&a, &a.Targets[i]))
	}
	return p.print(strings.Join(texts, "\n"))
}

// details returns all that is known of a target.
func (p *program) details(a *targetsAnswer, t *target) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(&b, "%s is %s\n", clean(t.endpoint()), p.paint(clean(t.State)))
	row("since", "%s, for %s", p.clock(t.Since, a.Time), span(a.Time.Sub(t.Since)))
	if t.Tally != "" {
		row("decided by", "%s", t.Tally)
	}
	if !a.Frozen.IsZero() {
		row("frozen", "since %s: verdicts stay as they are", p.clock(a.Frozen, a.Time))
	}
	if !t.Damped.IsZero() {
		row("damped", "until %s: it is kept down although it answers", p.clock(t.Damped, a.Time))
	}
	if t.Rests {
		row("result", "not here: others check it")
	} else if t.Result != "" {
		result := fmt.Sprintf("%s, %s ago", t.Result, span(a.Time.Sub(t.Checked)))
		if t.Reason != "" {
			result += ": " + t.Reason
		}
		row("result", "%s", result)
	} else {
		row("result", "none yet")
	}
	if t.RoundTrip > 0 {
		row("round trip", "%s", roundTrip(t.RoundTrip))
	}
	for _, r := range t.Overrides {
		row("override", "%s, in %s", p.says(r, a.Time), r.File)
	}
	for i, line := range p.observers(a, t) {
		row([]string{"replicas", ""}[min(i, 1)], "%s", line)
	}
	if len(t.Answered) > 0 {
		row("answered as", "%s", strings.Join(t.Answered, ", "))
	}
	for i, name := range t.Names {
		row([]string{"names", ""}[min(i, 1)], "%s", name)
	}
	row("history", "%s  %s, . answered, ! failed, ~ both, ? inconclusive, _ none", t.history(),
		span(time.Duration(float64(len(t.History))*a.Slot*float64(time.Second))))
	row("settings", "%s", t.Settings)
	return b.String()
}

// observers returns a line for each replica that says something of a target.
func (p *program) observers(a *targetsAnswer, t *target) (lines []string) {
	onHost := make(map[string]int)
	for _, o := range t.Observers {
		onHost[o.Host]++
	}
	for _, o := range t.Observers {
		if o.Says == "" {
			continue
		}
		called := cmp.Or(o.Host, o.Member)
		if onHost[o.Host] > 1 {
			called = o.Member
		}
		line := fmt.Sprintf("%s: %s since %s", called, o.Says, p.clock(o.Since, a.Time))
		if o.Result != "" {
			line += ", " + o.Result
		}
		if o.RoundTrip > 0 {
			line += ", " + roundTrip(o.RoundTrip)
		}
		if o.Self {
			line += ", which is here"
		}
		if !o.Votes {
			line += ", does not count"
		}
		lines = append(lines, line)
	}
	return lines
}

// history draws the slots, the newest last.
func (t *target) history() string {
	var b strings.Builder
	for _, s := range t.History {
		switch {
		case s == nil:
			b.WriteByte('_')
		case s.Mixed:
			b.WriteByte('~')
		case s.Result == "answered":
			b.WriteByte('.')
		case s.Result == "inconclusive":
			b.WriteByte('?')
		default:
			b.WriteByte('!')
		}
	}
	return b.String()
}

// says writes a rule as a sentence.
func (p *program) says(r rule, now time.Time) string {
	text := r.What + " " + r.Says
	if !r.Until.IsZero() {
		text += fmt.Sprintf(" until %s (%s left)", p.clock(r.Until, now), span(r.Until.Sub(now)))
	}
	if r.From != "" {
		text += fmt.Sprintf(", by %s since %s", r.From, p.clock(r.Since, now))
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}
