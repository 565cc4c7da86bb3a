package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// explainAnswer is what the server says of a name, as docs of the page /explain have it.
type explainAnswer struct {
	Time   time.Time `json:"time"`
	Name   string    `json:"name"`
	Type   string    `json:"type"`
	Client string    `json:"client"`
	Blocks []block   `json:"blocks"`
}

type block struct {
	Server      string   `json:"server"`
	Stanza      string   `json:"stanza"`
	Zone        string   `json:"zone"`
	Asked       string   `json:"asked"` // what the plugins below were asked, where that is another name or type
	Chosen      bool     `json:"chosen"`
	Rcode       string   `json:"rcode"`
	Error       string   `json:"error"`
	Below       []string `json:"below"`
	Outcome     string   `json:"outcome"`
	Passed      string   `json:"passed"` // why the answer passes as it is
	Sets        []set    `json:"sets"`
	Within      []block  `json:"within"` // stanzas below this one, in the order in which they have the answer
	Answer      []string `json:"answer"`
	AnswerRcode string   `json:"answer_rcode"`
	TTL         *int64   `json:"ttl"`
	LeftOut     int      `json:"left_out"` // records and addresses that would have been too much
}

type set struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Section  string   `json:"section"`
	Decision string   `json:"decision"`
	Fallback string   `json:"fallback"`
	Members  []member `json:"members"`
}

type member struct {
	Record    string    `json:"record"`
	InAnswer  bool      `json:"in_answer"`
	Rank      int       `json:"rank"`
	Why       string    `json:"why"`
	Steps     []string  `json:"steps"`
	Addresses []address `json:"addresses"`
}

type address struct {
	Address  string `json:"address"`
	Tier     int    `json:"tier"` // 0 where there are none
	Weight   int64  `json:"weight"`
	Verdict  string `json:"verdict"`
	Damped   bool   `json:"damped"`
	Why      string `json:"why"`
	Override *rule  `json:"override"`
	Ports    []port `json:"ports"`
}

type port struct {
	Port      int       `json:"port"`
	Probed    string    `json:"probed"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Result    string    `json:"result"`
	Reason    string    `json:"reason"`
	RoundTrip float64   `json:"round_trip_seconds"`
	Note      string    `json:"note"`
}

// types are those that can be explained.
var types = []string{"A", "AAAA", "SRV", "SVCB", "HTTPS", "ANY"}

// explain shows why a name is answered as it is.
func (p *program) explain(ctx context.Context, s *settings) error {
	q := url.Values{"name": {s.arguments[0]}}
	if len(s.arguments) > 1 {
		kind := strings.ToUpper(s.arguments[1])
		if !slices.Contains(types, kind) {
			return usageError{fmt.Errorf("%q is not a type that can be explained, want one of %s", s.arguments[1], strings.Join(types, ", ")), "explain"}
		}
		q.Set("type", kind)
	}
	if s.client != "" {
		q.Set("client", s.client)
	}
	if s.block != "" {
		q.Set("server", s.block)
	}
	c, err := p.client(s)
	if err != nil {
		return err
	}
	var a explainAnswer
	body, err := c.ask(ctx, "explain.json", q, &a)
	if err != nil {
		return err
	}
	if s.json {
		return p.print(string(cleanJSON(body)))
	}
	return p.print(p.explanation(&a))
}

// paragraph is text that grows by lines, each of them clean.
type paragraph struct{ strings.Builder }

func (b *paragraph) line(indent int, format string, args ...any) {
	b.WriteString(strings.Repeat(" ", indent) + clean(fmt.Sprintf(format, args...)) + "\n")
}

// explanation returns what the server says as text.
func (p *program) explanation(a *explainAnswer) string {
	var b paragraph
	b.line(0, "%s %s, asked by %s, at %s", a.Name, a.Type, a.Client, p.clock(a.Time, a.Time))
	for i := range a.Blocks {
		b.line(0, "")
		p.explainBlock(&b, &a.Blocks[i], a.Time)
	}
	return b.String()
}

func (p *program) explainBlock(b *paragraph, k *block, now time.Time) {
	b.line(0, "Server block %s, stanza %s, zone %s", k.Server, k.Stanza, k.Zone)
	if !k.Chosen {
		b.line(0, "This client's query does not come here.")
	}
	if k.Asked != "" {
		b.line(0, "The plugins below are asked for %s.", k.Asked)
	}
	if k.Error != "" {
		b.line(0, "The plugins below have no answer: %s", k.Error)
		return
	}
	b.line(0, "The plugins below answer %s:", k.Rcode)
	b.records(k.Below)
	for i := range k.Within {
		b.line(0, "")
		b.line(0, "Before that, a stanza below this one decides:")
		p.explainBlock(b, &k.Within[i], now)
		b.line(0, "")
	}
	for i := range k.Sets {
		p.explainSet(b, &k.Sets[i], now)
	}
	if k.Passed != "" {
		b.line(0, "It passes as it is: %s", k.Passed)
	}
	gets := "A client gets this"
	for _, part := range []struct{ name, value string }{{"outcome", k.Outcome}, {"status", k.AnswerRcode}} {
		if part.value != "" {
			gets += ", " + part.name + " " + part.value
		}
	}
	if k.TTL != nil {
		gets += fmt.Sprintf(", TTL %d", *k.TTL)
	}
	b.line(0, "%s:", gets)
	b.records(k.Answer)
	if k.LeftOut > 0 {
		b.line(0, "%d more are too much for the server to tell.", k.LeftOut)
	}
}

func (b *paragraph) records(records []string) {
	if len(records) == 0 {
		b.line(2, "no records")
	}
	for _, r := range records {
		b.line(2, "%s", r)
	}
}

func (p *program) explainSet(b *paragraph, s *set, now time.Time) {
	b.line(0, "%s %s, in the section %s: %s", s.Name, s.Type, s.Section, s.Decision)
	if s.Fallback != "" {
		b.line(2, "in its place: %s", s.Fallback)
	}
	for _, m := range s.Members {
		word, rank := "out", ""
		if m.InAnswer {
			word = "in"
		}
		if m.Rank > 0 {
			rank = "#" + strconv.Itoa(m.Rank)
		}
		fmt.Fprintf(b, "  %s %-*s  %s\n", p.paint(word), len("in #1")-len(word)-1, rank, clean(m.Record))
		b.line(6, "%s", m.Why)
		for i, step := range m.Steps {
			if i < len(m.Steps)-1 || !strings.HasSuffix(step, m.Why) { // the last one says the same
				b.line(8, "%d. %s", i+1, step)
			}
		}
		for _, a := range m.Addresses {
			p.explainAddress(b, &a, now)
		}
	}
}

func (p *program) explainAddress(b *paragraph, a *address, now time.Time) {
	about := fmt.Sprintf("%s is %s", a.Address, a.Verdict)
	if a.Tier > 0 {
		about += fmt.Sprintf(", tier %d", a.Tier)
	}
	about += fmt.Sprintf(", weight %d", a.Weight)
	if a.Damped {
		about += ", damped"
	}
	if a.Why != "" {
		about += ": " + a.Why
	}
	b.line(8, "%s", about)
	if a.Override != nil {
		b.line(10, "override: %s", p.says(*a.Override, now)+fileOf(*a.Override))
	}
	for _, port := range a.Ports {
		text := fmt.Sprintf("port %d", port.Port)
		if port.Probed != "" && port.Probed != net.JoinHostPort(a.Address, strconv.Itoa(port.Port)) {
			text += ", checked at " + port.Probed
		}
		text += ": " + port.State
		if !port.Since.IsZero() {
			text += fmt.Sprintf(" since %s, for %s", p.clock(port.Since, now), span(now.Sub(port.Since)))
		}
		for _, more := range []string{port.Result, port.Reason, roundTrip(port.RoundTrip), port.Note} {
			if more != "" {
				text += ", " + more
			}
		}
		b.line(10, "%s", text)
	}
}

// fileOf names the file of a rule.
func fileOf(r rule) string {
	if r.File == "" {
		return ""
	}
	return ", in " + r.File
}
