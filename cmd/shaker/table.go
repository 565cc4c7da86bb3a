package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// table is text in columns. A column without any text is left out, also its head, unless more text is to come.
type table struct {
	heads  []string
	more   bool // text comes in parts, all in the same columns
	rows   [][]string
	colour func(cell string) string // the colour of a cell of the column states; nil for none
	states int                      // the column that has states
	widths []int                    // at least, in characters; kept from one text to the next
	begun  bool                     // the heads are written
	indent string
}

// add takes a row in. The cells are cleaned.
func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// take returns the rows as text and forgets them.
func (t *table) take() string {
	var b strings.Builder
	if len(t.widths) == 0 {
		t.widths = make([]int, len(t.heads))
		for i, head := range t.heads {
			if t.more {
				t.widths[i] = len(head)
			}
		}
	}
	for _, cells := range t.rows {
		for i, cell := range cells {
			if width := utf8.RuneCountInString(cell); width > 0 {
				t.widths[i] = max(t.widths[i], width, len(t.heads[i]))
			}
		}
	}
	if !t.begun && len(t.rows) > 0 {
		t.begun = true
		t.line(&b, t.heads, false)
	}
	for _, cells := range t.rows {
		t.line(&b, cells, true)
	}
	t.rows = nil
	return b.String()
}

func (t *table) line(b *strings.Builder, cells []string, coloured bool) {
	line := t.indent
	gap := ""
	for i, cell := range cells {
		if t.widths[i] == 0 {
			continue
		}
		line += gap
		gap = strings.Repeat(" ", t.widths[i]-min(t.widths[i], utf8.RuneCountInString(cell))+2)
		if coloured && i == t.states && t.colour != nil {
			cell = t.colour(cell)
		}
		line += cell
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// colours of states, verdicts, kinds and decisions (ECMA-48, SGR).
var colours = map[string]string{
	"down": "31", "trouble": "31", "out": "31", "silent": "31",
	"unknown": "33", "freeze": "33", "override": "33", "overrides": "33", "disagreement": "33",
	"frozen": "33", "in doubt": "33", "behind": "33", "stuck": "33", "other settings": "33", "newer": "33",
	"up": "32", "thaw": "32", "in": "32", "counts": "32",
}

// paint gives a word its colour, where there are any.
func (p *program) paint(word string) string {
	if code := colours[word]; p.colour && code != "" {
		return "\x1b[" + code + "m" + word + "\x1b[0m"
	}
	return word
}

// clock writes an instant as somebody at this machine reads it. What was on the day of now has no date.
func (p *program) clock(t, now time.Time) string {
	t, now = t.In(p.zone), now.In(p.zone)
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// span writes how long something takes, with two units at most.
func span(d time.Duration) string {
	d = max(d, 0)
	units := []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, unit := range units {
		if d < unit.length && i < len(units)-1 {
			continue
		}
		text := fmt.Sprintf("%d%s", d/unit.length, unit.name)
		if i < len(units)-1 {
			if rest := d % unit.length / units[i+1].length; rest > 0 {
				text += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return ""
}

// count writes a number of things, with an s behind their name where it needs one.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// roundTrip writes seconds as people read them.
func roundTrip(seconds float64) string {
	if seconds <= 0 {
		return ""
	}
	return fmt.Sprintf("%.3g ms", seconds*1000)
}
