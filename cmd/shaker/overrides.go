package main

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// overridesAnswer is what the server says of files with overrides.
type overridesAnswer struct {
	Time  time.Time `json:"time"`
	Page  int       `json:"page"`
	Pages int       `json:"pages"` // 0 of a server that tells all at once
	// Replicas is how many can be heard, 0 where the server decides alone.
	Replicas int             `json:"replicas"`
	Files    []overridesFile `json:"files"`
}

type overridesFile struct {
	Path     string    `json:"path"` // absolute
	Modified time.Time `json:"modified"`
	Failed   bool      `json:"failed"` // the rules are older than the file
	Error    string    `json:"error"`
	Shared   bool      `json:"shared"` // with other replicas
	Local    bool      `json:"local"`  // kept from them
	Rules    []rule    `json:"rules"`
}

// maxParts bounds how many parts of the rules are asked for. Each has a thousand.
const maxParts = 1000

// overrides returns all rules in force, also where the server tells them in parts. Each part goes to take as it came, which
// may be nil.
func (c *client) overrides(ctx context.Context, take func(body []byte) error) (*overridesAnswer, error) {
	all := new(overridesAnswer)
	for page := 1; page <= maxParts; page++ {
		q := make(url.Values)
		if page > 1 {
			q.Set("page", strconv.Itoa(page))
		}
		var a overridesAnswer
		body, err := c.ask(ctx, "overrides.json", q, &a)
		if err == nil && take != nil {
			err = take(body)
		}
		if err != nil {
			return nil, err
		}
		all.join(&a)
		if page >= a.Pages {
			break
		}
	}
	return all, nil
}

// join adds the next part.
func (a *overridesAnswer) join(next *overridesAnswer) {
	a.Time, a.Replicas = next.Time, next.Replicas
	for _, f := range next.Files {
		i := slices.IndexFunc(a.Files, func(known overridesFile) bool { return known.Path == f.Path })
		if i < 0 {
			a.Files = append(a.Files, f)
			continue
		}
		f.Rules = append(a.Files[i].Rules, f.Rules...)
		a.Files[i] = f
	}
}

// overrides shows the rules that are in force.
func (p *program) overrides(ctx context.Context, s *settings) error {
	c, err := p.client(s)
	if err != nil {
		return err
	}
	if s.json {
		_, err := c.overrides(ctx, func(body []byte) error { return p.print(string(cleanJSON(body))) })
		return err
	}
	a, err := c.overrides(ctx, nil)
	if err != nil {
		return err
	}
	if len(a.Files) == 0 {
		return p.print("No stanza of the Corefile has the property overrides.\n")
	}
	var b paragraph
	for i, f := range a.Files {
		if i > 0 {
			b.line(0, "")
		}
		whose := ""
		switch {
		case f.Shared:
			whose = ", shared by " + count(a.Replicas, "replica")
		case f.Local:
			whose = ", of this replica alone"
		}
		b.line(0, "%s, written %s%s: %s in force", f.Path, p.clock(f.Modified, a.Time), whose, count(len(f.Rules), "rule"))
		if f.Failed {
			b.line(0, "They are older than the file, which cannot be used: %s", f.Error)
		}
		heads := []string{"RULE", "SAYS", "UNTIL", "LEFT", "REASON"}
		if f.Shared {
			heads = append(heads, "BY", "SINCE")
		}
		t := &table{heads: heads, states: 1, colour: p.paint}
		for _, r := range f.Rules {
			until, left := "", ""
			if !r.Until.IsZero() {
				until, left = p.clock(r.Until, a.Time), span(r.Until.Sub(a.Time))
			}
			row := []string{r.What, r.Says, until, left, r.Reason}
			if f.Shared {
				row = append(row, r.From, p.clock(r.Since, a.Time))
			}
			t.add(row...)
		}
		b.WriteString(t.take())
	}
	return p.print(b.String())
}
