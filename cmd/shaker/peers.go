package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// peersAnswer is what the server says of replicas.
type peersAnswer struct {
	Ready       bool      `json:"ready"`
	Disagreeing int       `json:"disagreeing"`
	Members     []replica `json:"members"`
	Join        []struct {
		Place string `json:"place"`
		Error string `json:"error"`
	} `json:"join"`
}

// replica is one of those that decide together.
type replica struct {
	Name      string  `json:"name"`
	Host      string  `json:"host"`
	Address   string  `json:"address"`
	Site      string  `json:"site"`
	Shaker    string  `json:"shaker"`
	Self      bool    `json:"self"`
	Heard     float64 `json:"heard_seconds"`
	Alive     bool    `json:"alive"`
	Frozen    bool    `json:"frozen"`
	InDoubt   bool    `json:"in_doubt"`
	Stuck     bool    `json:"stuck"`
	Condition string  `json:"condition"` // whether its words count, or why not
	Lag       uint64  `json:"lag"`
	Observed  uint64  `json:"observed"`
}

// peers shows the replicas. It is an error where this one cannot be relied upon.
func (p *program) peers(ctx context.Context, s *settings) error {
	c, err := p.client(s)
	if err != nil {
		return err
	}
	var a peersAnswer
	body, err := c.ask(ctx, "peers.json", nil, &a)
	if err != nil {
		return err
	}
	text := string(cleanJSON(body))
	if !s.json {
		text = p.members(&a)
	}
	return errors.Join(p.print(text), a.problem())
}

// members returns a line for each replica, and what else there is to know.
func (p *program) members(a *peersAnswer) string {
	t := &table{heads: []string{"REPLICA", "WORDS", "HEARD", "LAG", "OBSERVES", "SITE", "VERSION", "ADDRESS"}, states: 1, colour: p.paint}
	for i := range a.Members {
		m := &a.Members[i]
		heard, lag := "here", ""
		if !m.Self {
			heard = span(time.Duration(m.Heard*float64(time.Second))) + " ago"
		}
		if m.Lag > 0 {
			lag = fmt.Sprint(m.Lag)
		}
		t.add(m.called(), m.Condition, heard, lag, fmt.Sprint(m.Observed), m.Site, m.Shaker, m.Address)
	}
	var b paragraph
	b.WriteString(t.take() + "\n")
	heard, others := a.heardOf()
	b.line(0, "%d of %s heard of; this replica says otherwise of %s", heard, count(others, "other replica"), count(a.Disagreeing, "target"))
	for _, j := range a.Join {
		if j.Error != "" {
			b.line(0, "Cannot join %s: %s", j.Place, j.Error)
		}
	}
	return b.String()
}

// called returns the name by which people know the replica.
func (m *replica) called() string { return cmp.Or(m.Host, m.Name) }

// heardOf counts the other replicas, and those of them that are heard of.
func (a *peersAnswer) heardOf() (heard, others int) {
	for i := range a.Members {
		if a.Members[i].Self {
			continue
		}
		others++
		if a.Members[i].Alive {
			heard++
		}
	}
	return heard, others
}

// problem returns why this replica cannot be relied upon: it is alone, its words do not count, or it does not know yet what
// others say.
func (a *peersAnswer) problem() error {
	var all []string
	add := func(is bool, format string, args ...any) {
		if is {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	heard, _ := a.heardOf()
	add(heard == 0, "this replica hears of no other, and decides alone")
	add(!a.Ready, "this replica is not ready: what the others say is still on its way")
	for i := range a.Members {
		m := &a.Members[i]
		add(m.Self && m.Frozen, "the verdicts of this replica are frozen: it may be cut off")
		add(m.Self && m.InDoubt, "this replica is in doubt: others say up to most of what it says is down")
		add(m.Self && m.Stuck, "the checks of this replica do not end")
		add(m.Alive && m.Lag == 1, "1 change of %s (%s) is not known here yet", m.called(), m.Address)
		add(m.Alive && m.Lag > 1, "%d changes of %s (%s) are not known here yet", m.Lag, m.called(), m.Address)
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "\n"))
}
