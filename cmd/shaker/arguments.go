package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are what a command line asks for.
type settings struct {
	command   string
	arguments []string // without flags, and without the command
	help      bool

	server    string // empty for that of the environment, else the default
	json      bool
	timeout   time.Duration
	state     string // empty for any
	prefix    string
	zone      string
	port      string
	disagree  bool // only targets of which the server says otherwise than is decided
	kind      string
	page      int
	size      int
	all       bool
	follow    bool
	number    int // of old events
	client    string
	block     string // server block to explain
	overrides string // file
	hold      time.Duration
	until     time.Time
}

// option is a flag, as people know it.
type option struct {
	name string
	// value is what stands behind it; empty where nothing does.
	value string
	help  string
	set   func(s *settings, value string) error
}

// options are those of all commands. None means one thing here and another there, so that a flag can be read before the
// command is known.
var options = []*option{
	{"server", "URL", "the status server, as http://HOST:PORT or HOST:PORT; SHAKER_SERVER in the environment is for all commands, and without both it is " + defaultServer,
		func(s *settings, value string) error { s.server = value; return nil }},
	{"json", "", "what the server said, for programs", func(s *settings, _ string) error { s.json = true; return nil }},
	{"timeout", "TIME", "how long an answer may take, from 100ms to 5m, by default 5s", func(s *settings, value string) (err error) {
		s.timeout, err = duration(value, 100*time.Millisecond, 5*time.Minute, "a time from 100ms to 5m")
		return err
	}},
	{"state", "STATE", "only targets that are down, unknown or up", oneOf(func(s *settings) *string { return &s.state }, states)},
	{"down", "", "the same as -state down", stateFlag("down")},
	{"unknown", "", "the same as -state unknown", stateFlag("unknown")},
	{"up", "", "the same as -state up", stateFlag("up")},
	{"prefix", "CIDR", "only targets in this CIDR, or with this single address", func(s *settings, value string) error { s.prefix = value; return nil }},
	{"zone", "ZONE", "only targets of names in this zone", func(s *settings, value string) error { s.zone = value; return nil }},
	{"port", "PORT", "only targets with this port", func(s *settings, value string) error {
		_, err := number(value, 1, 65535)
		s.port = value
		return err
	}},
	{"disagreeing", "", "only targets of which the server says otherwise than was decided with its peers", func(s *settings, _ string) error { s.disagree = true; return nil }},
	{"page", "N", "this part of the targets, from 1, the default", func(s *settings, value string) (err error) {
		s.page, err = number(value, 1, 1_000_000)
		return err
	}},
	{"size", "N", "how many targets a part has, from 1 to 1000, by default 100", func(s *settings, value string) (err error) {
		s.size, err = number(value, 1, maxSize)
		return err
	}},
	{"all", "", "all parts, one after the other", func(s *settings, _ string) error { s.all = true; return nil }},
	{"f", "", "follow: go on with what happens from now on, until Ctrl-C", func(s *settings, _ string) error { s.follow = true; return nil }},
	{"n", "N", "how many events that have happened come first, from 0 to 1000, by default 20", func(s *settings, value string) (err error) {
		s.number, err = number(value, 0, maxSize)
		return err
	}},
	{"kind", "KIND", "only events of this kind: " + strings.Join(kinds, ", "), oneOf(func(s *settings) *string { return &s.kind }, kinds)},
	{"client", "ADDRESS", "as if this client had asked, by default a loopback address", func(s *settings, value string) error { s.client = value; return nil }},
	{"block", "SERVER", "the server block, by its number or key, where several have the name", func(s *settings, value string) error { s.block = value; return nil }},
	{"overrides", "FILE", "the file with the rules; without it the status server tells which it is", func(s *settings, value string) error { s.overrides = value; return nil }},
	{"for", "TIME", "how long it holds, such as 30m, 2h or 3d", func(s *settings, value string) (err error) {
		s.hold, err = duration(value, time.Second, maxHold, "a time from 1s to 366d, such as 30m, 2h or 3d")
		return err
	}},
	{"until", "TIME", "when it ends, as in RFC 3339: 2026-11-26T16:00:00Z or 2026-11-26T17:00:00+01:00", func(s *settings, value string) (err error) {
		if s.until, err = time.Parse(time.RFC3339, value); err != nil {
			return fmt.Errorf("%q is not a time, want one as in RFC 3339: 2026-11-26T16:00:00Z or 2026-11-26T17:00:00+01:00", value)
		}
		return nil
	}},
	{"help", "", "how to use a command", askHelp},
	{"h", "", "how to use a command", askHelp},
}

func askHelp(s *settings, _ string) error { s.help = true; return nil }

const (
	// maxSize is how many targets or events the server gives away at a time.
	maxSize = 1000
	maxHold = 366 * 24 * time.Hour
)

// states and kinds are those that the server knows.
var (
	states = []string{"down", "unknown", "up"}
	kinds  = []string{"down", "up", "unknown", "freeze", "thaw", "override", "overrides", "reload", "start", "trouble", "peer", "disagreement"}
)

func stateFlag(state string) func(*settings, string) error {
	return func(s *settings, _ string) error {
		if s.state != "" {
			return fmt.Errorf("%s is a second state, want a single one of -state, -down, -unknown and -up", state)
		}
		s.state = state
		return nil
	}
}

func oneOf(to func(*settings) *string, values []string) func(*settings, string) error {
	return func(s *settings, value string) error {
		switch place := to(s); {
		case !slices.Contains(values, value):
			return fmt.Errorf("%q is not possible, want one of %s", value, strings.Join(values, ", "))
		case *place != "":
			return fmt.Errorf("%s is a second one besides %s, want a single one", value, *place)
		default:
			*place = value
			return nil
		}
	}
}

func number(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not possible, want a number from %d to %d", value, least, most)
	}
	return n, nil
}

// duration also takes days, of 24 hours each.
func duration(value string, least, most time.Duration, want string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if days, ok := strings.CutSuffix(value, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%q is not possible, want %s", value, want)
	}
	return d, nil
}

func optionNamed(name string) *option {
	i := slices.IndexFunc(options, func(o *option) bool { return o.name == name })
	if i < 0 {
		return nil
	}
	return options[i]
}

// given is a flag of the command line.
type given struct {
	*option
	value string
}

// parse reads a command line. Flags may stand anywhere, also before the command, with one dash or two and with their
// value behind = or a blank; what comes after -- is none.
func parse(args []string) (*command, *settings, error) {
	flags, words, err := split(args)
	if err != nil {
		about := ""
		if len(words) > 0 && commandNamed(words[0]) != nil {
			about = words[0]
		}
		return nil, nil, usageError{err, about}
	}
	s := &settings{timeout: 5 * time.Second, page: 1, size: 100, number: 20}
	asksHelp := slices.ContainsFunc(flags, func(g given) bool { return g.name == "h" || g.name == "help" })
	if len(words) == 0 {
		if asksHelp {
			s.help = true
			return nil, s, nil
		}
		return nil, nil, usageError{fmt.Errorf("no command: want one of %s", strings.Join(commandNames(), ", ")), ""}
	}
	c := commandNamed(words[0])
	if c == nil {
		return nil, nil, usageError{fmt.Errorf("there is no command %q, want one of %s", words[0], strings.Join(commandNames(), ", ")), ""}
	}
	s.command = c.name
	if asksHelp {
		s.help = true
		return c, s, nil
	}
	if err := c.read(s, flags, words[1:]); err != nil {
		return nil, nil, usageError{err, c.name}
	}
	return c, s, nil
}

// split tells flags from other words. With an error it returns the words before it.
func split(args []string) (flags []given, words []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return flags, append(words, args[i+1:]...), nil
		}
		name, isFlag := strings.CutPrefix(arg, "-")
		if !isFlag || name == "" {
			words = append(words, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		o := optionNamed(name)
		switch {
		case o == nil:
			return nil, words, fmt.Errorf("there is no flag %q; what begins with a dash and is none comes after --", arg)
		case o.value == "" && hasValue:
			return nil, words, fmt.Errorf("-%s: %q is too much, it takes no value", name, value)
		case o.value != "" && !hasValue:
			if i++; i == len(args) {
				return nil, words, fmt.Errorf("-%s: no value, want -%s %s", name, name, o.value)
			}
			value = args[i]
		}
		flags = append(flags, given{o, value})
	}
	return flags, words, nil
}

// read takes in what is said to a command.
func (c *command) read(s *settings, flags []given, words []string) error {
	seen := make(map[string]bool)
	for _, g := range flags {
		switch {
		case !c.takes(g.name) && len(c.flags) == 0:
			return fmt.Errorf("-%s: shaker %s takes no flags", g.name, c.name)
		case !c.takes(g.name):
			return fmt.Errorf("-%s is not a flag of shaker %s, want one of -%s", g.name, c.name, strings.Join(c.flags, ", -"))
		case seen[g.name]:
			return fmt.Errorf("-%s is there twice, want it once", g.name)
		case g.value == "" && g.option.value != "":
			return fmt.Errorf("-%s: the value is empty, want %s", g.name, g.option.value)
		}
		seen[g.name] = true
		if err := g.set(s, g.value); err != nil {
			return fmt.Errorf("-%s: %w", g.name, err)
		}
	}
	s.arguments = words
	switch {
	case len(words) < c.least:
		return fmt.Errorf("too little: want shaker %s", c.usage)
	case c.most >= 0 && len(words) > c.most:
		return fmt.Errorf("%q is too much: want shaker %s", words[c.most], c.usage)
	}
	if c.check != nil {
		return c.check(s, seen)
	}
	return nil
}

func (c *command) takes(flag string) bool { return slices.Contains(c.flags, flag) }
