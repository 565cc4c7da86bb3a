package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// completing is the command that the shells' functions call. It is for them only.
const completing = "__complete"

// completionPatience is how long somebody waits behind the tabulator key for what only the server knows.
const completionPatience = 300 * time.Millisecond

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

// completion prints what a shell is to load.
func (p *program) completion(_ context.Context, s *settings) error {
	switch s.arguments[0] {
	case "bash":
		return p.print(bashCompletion)
	case "zsh":
		return p.print(zshCompletion)
	default:
		return usageError{fmt.Errorf("there is no completion for %q, want bash or zsh", s.arguments[0]), "completion"}
	}
}

// complete prints, a line each, what the last of the words could be. The words are what stands behind shaker; the last one
// is that under the cursor, and may be empty. It never complains: nobody could read that.
func (p *program) complete(ctx context.Context, words []string) {
	if len(words) == 0 {
		return
	}
	last := words[len(words)-1]
	for _, candidate := range p.candidates(ctx, words[:len(words)-1], last) {
		if strings.HasPrefix(candidate, last) {
			p.print(clean(candidate) + "\n")
		}
	}
}

// candidates are what may stand after the words.
func (p *program) candidates(ctx context.Context, before []string, last string) []string {
	s := &settings{timeout: completionPatience}
	var c *command
	var waiting *option // the flag whose value comes next
	ended := false      // no more flags come
	arguments := 0
	for _, word := range before {
		name, isFlag := strings.CutPrefix(word, "-")
		name, value, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		switch {
		case waiting != nil:
			waiting.set(s, word)
			waiting = nil
		case word == "--" && !ended:
			ended = true
		case isFlag && !ended:
			o := optionNamed(name)
			switch {
			case o == nil || o.value == "":
			case hasValue:
				o.set(s, value)
			default:
				waiting = o
			}
		case c == nil:
			if c = commandNamed(word); c == nil {
				return nil
			}
		default:
			arguments++
		}
	}
	s.timeout = completionPatience
	switch {
	case waiting != nil:
		return valuesOf(waiting)
	case strings.HasPrefix(last, "-") && !ended:
		return flagsFor(c, last)
	case c == nil:
		return commandNames()
	default:
		return p.words(ctx, c, arguments, s)
	}
}

// valuesOf returns what may stand behind a flag.
func valuesOf(o *option) []string {
	switch o.name {
	case "state":
		return states
	case "kind":
		return kinds
	case "for":
		return []string{"30m", "1h", "2h", "4h", "1d"}
	default:
		return nil
	}
}

// flagsFor returns the flags of a command with as many dashes as somebody has typed.
func flagsFor(c *command, typed string) (flags []string) {
	dashes := "-"
	if strings.HasPrefix(typed, "--") {
		dashes = "--"
	}
	names := asking
	if c != nil {
		names = c.flags
	}
	for _, name := range append(slices.Clone(names), "help") {
		flags = append(flags, dashes+name)
	}
	return flags
}

// words returns what may stand behind a command after so many words.
func (p *program) words(ctx context.Context, c *command, count int, s *settings) []string {
	switch {
	case c.name == "help" && count == 0:
		return commandNames()
	case c.name == "completion" && count == 0:
		return []string{"bash", "zsh"}
	case c.name == "explain" && count == 1:
		return types
	case c.name == "target" && count == 0:
		return p.downTargets(ctx, s, (*target).endpoint)
	case c.name == "drain":
		return p.downTargets(ctx, s, func(t *target) string { return t.Address })
	case c.name == "undrain":
		return p.drained(ctx, s)
	default:
		return nil
	}
}

// downTargets returns something of each target that is down, once.
func (p *program) downTargets(ctx context.Context, s *settings, part func(*target) string) (parts []string) {
	c, err := p.client(s)
	if err != nil {
		return nil
	}
	var a targetsAnswer
	if _, err := c.ask(ctx, "targets.json", url.Values{"state": {"down"}, "size": {strconv.Itoa(maxSize)}}, &a); err != nil {
		return nil
	}
	for i := range a.Targets {
		parts = append(parts, part(&a.Targets[i]))
	}
	return slices.Compact(parts)
}

// drained returns what rules have down.
func (p *program) drained(ctx context.Context, s *settings) (rules []string) {
	c, err := p.client(s)
	if err != nil {
		return nil
	}
	a, err := c.overrides(ctx, nil)
	if err != nil {
		return nil
	}
	for _, f := range a.Files {
		for _, r := range f.Rules {
			if r.Says == "down" {
				rules = append(rules, r.What)
			}
		}
	}
	return rules
}
