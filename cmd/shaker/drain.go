package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

const (
	// patience is how long the server may take to act on a file: it reads it four times a second, and twice.
	patience  = 3 * time.Second
	lookEvery = 100 * time.Millisecond
	// maxNamed is how many targets are named one by one.
	maxNamed = 10
)

// subject is what a rule is about: an address, one with a port, or a CIDR.
type subject struct {
	prefix netip.Prefix
	port   uint16 // 0 for all
}

func parseSubject(text string) (subject, error) {
	if e, err := netip.ParseAddrPort(text); err == nil && e.Port() != 0 && e.Addr().Zone() == "" {
		addr := e.Addr().Unmap()
		return subject{netip.PrefixFrom(addr, addr.BitLen()), e.Port()}, nil
	}
	p, err := prefix.Parse(text)
	if err != nil {
		return subject{}, fmt.Errorf("%w; with a port it is 192.0.2.7:443 or [2001:db8::7]:443", err)
	}
	// In a file, bits beyond the mask do not matter. Here, somebody may have copied an address from a list of interfaces.
	if as, err := netip.ParsePrefix(text); err == nil && as != as.Masked() {
		return subject{}, fmt.Errorf("%q is a host and a whole network, want %s or %s", text, as.Addr().Unmap(), prefix.String(p))
	}
	return subject{prefix: p}, nil
}

// String returns the subject as the server writes it.
func (s subject) String() string {
	if s.port != 0 {
		return netip.AddrPortFrom(s.prefix.Addr(), s.port).String()
	}
	return prefix.String(s.prefix)
}

// holds tells whether all of the other subject is in this one.
func (s subject) holds(other subject) bool {
	return (s.port == 0 || s.port == other.port) && s.prefix.Bits() <= other.prefix.Bits() && s.prefix.Contains(other.prefix.Addr())
}

// subjects tells rules from the reason, which is the last word and no rule.
func subjects(words []string) (rules []subject, reason string, err error) {
	for i, word := range words {
		s, err := parseSubject(word)
		switch {
		case err == nil && !slices.Contains(rules, s):
			rules = append(rules, s)
		case err == nil:
		case i == 0 || i < len(words)-1 || looksLikeRule(word):
			return nil, "", fmt.Errorf("%w; what comes last may be a reason, in quotes", err)
		default:
			reason = strings.TrimSpace(word)
		}
	}
	return rules, reason, override.CheckReason(reason)
}

// looksLikeRule tells whether a word was meant as an address and has a mistake.
func looksLikeRule(word string) bool {
	return strings.ContainsAny(word, ".:/") && strings.Trim(word, "0123456789abcdefABCDEF.:/[]") == ""
}

// drain adds a rule for each subject, and waits until it is in force.
func (p *program) drain(ctx context.Context, s *settings) error {
	now := p.now()
	until := s.until
	if s.hold > 0 {
		until = now.Add(s.hold)
	}
	until = until.Add(time.Second - 1).Truncate(time.Second) // files have full seconds
	if !s.until.IsZero() && !s.until.After(now) {
		return usageError{fmt.Errorf("-until: %s is over, want a time after %s", s.until.Format(time.RFC3339), now.Format(time.RFC3339)), "drain"}
	}
	return p.change(ctx, s, func(path string, about subject, reason string, _ func() []rule) (edited, error) {
		return p.files.add(path, rule{What: about.String(), Says: "down", Until: until, Reason: reason}, now)
	}, func(about subject) string {
		if until.IsZero() {
			return fmt.Sprintf("%s is down until somebody says shaker undrain %s", about, about)
		}
		return fmt.Sprintf("%s is down until %s, for %s", about, p.clock(until, now), span(until.Sub(now)))
	})
}

// undrain takes rules back, and waits until that is in force.
func (p *program) undrain(ctx context.Context, s *settings) error {
	return p.change(ctx, s, func(path string, about subject, reason string, inForce func() []rule) (edited, error) {
		return p.files.takeBack(path, about.String(), reason, p.now(), inForce())
	}, func(about subject) string {
		return fmt.Sprintf("%s is left to its checks", about)
	})
}

// has tells whether a rule that was written is in force. An auto may be missing, where it is an exception from nothing.
func (f *overridesFile) has(written rule) bool {
	if about, err := parseSubject(written.What); err == nil && written.Says == "auto" {
		return !f.isDown(about)
	}
	return slices.ContainsFunc(f.Rules, func(r rule) bool {
		return r.What == written.What && r.Says == written.Says && r.Until.Equal(written.Until)
	})
}

// isDown tells whether the rules have a subject down, by the most specific one that holds all of it.
func (f *overridesFile) isDown(about subject) bool {
	best, says := subject{}, ""
	for _, r := range f.Rules {
		s, err := parseSubject(r.What)
		if err == nil && s.holds(about) && (says == "" || best.holds(s)) {
			best, says = s, r.Says
		}
	}
	return says == "down"
}

// change carries out what drain and undrain have in common: edit writes what is about a subject, and may ask for the rules in force
// where replicas share the file; sentence tells what that means.
func (p *program) change(ctx context.Context, s *settings, edit func(path string, about subject, reason string, inForce func() []rule) (edited, error),
	sentence func(subject) string) error {
	rules, reason, err := subjects(s.arguments)
	if err != nil {
		return usageError{err, s.command}
	}
	c, err := p.client(s)
	if err != nil {
		return err
	}
	path, err := p.file(ctx, c, s.overrides)
	if err != nil {
		return err
	}
	inForce := sync.OnceValue(func() []rule { return c.shared(ctx, path) })
	var about []subject
	var written []rule
	for _, subject := range rules {
		e, err := edit(path, subject, reason, inForce)
		if err != nil {
			if len(written) > 0 {
				p.complain("before that, this was written to %s: %s", path, list(written))
			}
			return withAdvice(path, err)
		}
		if len(e.rules) > 0 {
			about = append(about, subject)
			written = append(written, e.rules...)
			p.print(clean(fmt.Sprintf("%s: %s", path, list(e.rules))) + "\n")
		}
		for _, note := range e.notes {
			p.print(clean(note) + "\n")
		}
	}
	return p.confirm(ctx, c, s.overrides != "", path, about, written, sentence)
}

// shared returns the rules in force from a file that replicas share, whichever of them has said those. There are none where the
// server does not share it, or cannot be asked.
func (c *client) shared(ctx context.Context, path string) []rule {
	if all, err := c.overrides(ctx, nil); err == nil {
		if f := all.at(path); f != nil && f.Shared {
			return f.Rules
		}
	}
	return nil
}

// list writes rules within a sentence, as lines of a file.
func list(rules []rule) string {
	var lines []string
	for _, r := range rules {
		lines = append(lines, r.line())
	}
	return strings.Join(lines, "; ")
}

// line returns the rule as a line of a file.
func (r rule) line() string {
	line := r.What + " " + r.Says
	if !r.Until.IsZero() {
		line += " until " + r.Until.Format(time.RFC3339)
	}
	if r.Reason != "" {
		line += "  # " + r.Reason
	}
	return line
}

// withAdvice adds what to do about a file that is not there.
func withAdvice(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not here (%w): want this command on the machine of CoreDNS, or the path of the file here, with -overrides", path, err)
	}
	return err
}

// file returns the file to write: that of the command line, or the only one that the server has. Of that one it also makes
// sure that it is the same here as there: through a tunnel or in a container, the path may be another file's.
func (p *program) file(ctx context.Context, c *client, chosen string) (string, error) {
	if chosen != "" {
		return filepath.Abs(chosen)
	}
	for deadline := time.Now().Add(p.patience); ; {
		all, err := c.overrides(ctx, nil)
		if err != nil {
			return "", fmt.Errorf("%w; with -overrides FILE no server is needed", err)
		}
		f, err := all.only()
		if err != nil {
			return "", err
		}
		info, err := os.Stat(f.Path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return "", fmt.Errorf("%w; as another user, such as with sudo, it may work", err)
		case err != nil:
			return "", withAdvice(f.Path, err)
		case !f.Failed && info.ModTime().UTC().Truncate(time.Millisecond).Equal(f.Modified):
			return f.Path, nil
		case time.Now().Before(deadline):
		case f.Failed:
			return "", fmt.Errorf("%s has a mistake, want it mended first: %s", f.Path, f.Error)
		default:
			return "", fmt.Errorf("%s is another file here, written at %s, than that of %s, written at %s: want this command on the machine of CoreDNS, or the path of the file here, with -overrides",
				f.Path, info.ModTime().UTC().Format(time.RFC3339), c, f.Modified.Format(time.RFC3339))
		}
		// It may have been written just now, or mended.
		if err := pause(ctx, lookEvery); err != nil {
			return "", err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// only returns the file of a server that has one.
func (a *overridesAnswer) only() (*overridesFile, error) {
	switch len(a.Files) {
	case 0:
		return nil, errors.New("no stanza of the Corefile has overrides, want one with the property overrides FILE, or -overrides FILE here")
	case 1:
		return &a.Files[0], nil
	}
	return nil, fmt.Errorf("there are %d files of overrides, want -overrides with one of them: %s", len(a.Files), strings.Join(a.paths(), ", "))
}

// confirm waits until what was written is in force, and tells what that changes for what it is about. A server is only needed
// where it has said which file that is.
func (p *program) confirm(ctx context.Context, c *client, chosen bool, path string, about []subject, written []rule, sentence func(subject) string) error {
	if len(written) == 0 {
		return nil
	}
	where, err := p.wait(ctx, c, path, written)
	var unknown errUnknown
	if chosen && errors.As(err, &unknown) {
		for _, about := range about {
			p.print(fmt.Sprintf("%s, once CoreDNS has read the file\n", sentence(about)))
		}
		p.complain("whether it is in force is not known: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, about := range about {
		if err := p.print(fmt.Sprintf("%s: in force%s\n", sentence(about), where)); err != nil {
			return err
		}
		if err := p.concerned(ctx, c, about); err != nil {
			return err
		}
	}
	return nil
}

// errUnknown is that a server does not tell.
type errUnknown struct{ error }

// wait returns when all that was written is in force, and for whom that is, if others are told.
func (p *program) wait(ctx context.Context, c *client, path string, written []rule) (where string, err error) {
	for deadline := time.Now().Add(p.patience); ; {
		all, err := c.overrides(ctx, nil)
		if err != nil {
			return "", errUnknown{err}
		}
		f := all.at(path)
		if f == nil {
			return "", fmt.Errorf("%s is written, but %s does not read it, want one of: %s", path, c, strings.Join(all.paths(), ", "))
		}
		missing := slices.DeleteFunc(slices.Clone(written), f.has)
		switch {
		case len(missing) == 0:
			return all.whom(f), nil
		case time.Now().Before(deadline):
		case f.Failed:
			return "", fmt.Errorf("%s is written, but %s cannot use it: %s", path, c, f.Error)
		default:
			return "", fmt.Errorf("%s is written, but %s has not put %s into force within %v: want a look at its log", path, c, list(missing), p.patience)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return "", err
		}
	}
}

// whom tells for whom the rules of a file are in force, where that is not only the one who was asked.
func (a *overridesAnswer) whom(f *overridesFile) string {
	switch {
	case f.Local:
		return ", for this replica alone"
	case f.Shared && a.Replicas > 1:
		return fmt.Sprintf(", for all %d replicas", a.Replicas)
	case f.Shared:
		return ", and for the other replicas once they can be heard"
	default:
		return ""
	}
}

// at returns the file with this path, or that the path leads to.
func (a *overridesAnswer) at(path string) *overridesFile {
	here, err := os.Stat(path)
	for i := range a.Files {
		there, thereErr := os.Stat(a.Files[i].Path)
		if a.Files[i].Path == path || err == nil && thereErr == nil && os.SameFile(here, there) {
			return &a.Files[i]
		}
	}
	return nil
}

func (a *overridesAnswer) paths() (paths []string) {
	for _, f := range a.Files {
		paths = append(paths, f.Path)
	}
	return paths
}

// concerned tells which targets a rule is about, and how they are.
func (p *program) concerned(ctx context.Context, c *client, about subject) error {
	q := url.Values{"prefix": {prefix.String(about.prefix)}, "size": {strconv.Itoa(maxNamed)}}
	if about.port != 0 {
		q.Set("port", strconv.Itoa(int(about.port)))
	}
	var a targetsAnswer
	if _, err := c.ask(ctx, "targets.json", q, &a); err != nil {
		return err
	}
	if a.Matches == 0 && a.Counts.Total > 0 {
		return p.print(fmt.Sprintf("That is about none of the %d targets: is it the right one?\n", a.Counts.Total))
	}
	text := fmt.Sprintf("That is about %d of %s\n", a.Matches, count(a.Counts.Total, "target"))
	for i := range a.Targets {
		t := &a.Targets[i]
		text += "  " + clean(t.endpoint()) + " " + p.paint(clean(t.State)) + " by its checks"
		for _, r := range t.Overrides {
			text += clean(", " + r.Says + " by the rule " + r.What)
			if r.From != "" {
				text += clean(" of " + r.From)
			}
		}
		if len(t.Names) > 0 {
			text += clean(", of " + strings.Join(t.Names, " "))
		}
		text += "\n"
	}
	if more := a.Matches - len(a.Targets); more > 0 {
		text += fmt.Sprintf("  and %d more\n", more)
	}
	return p.print(text)
}
