package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
)

// command is something that shaker can do.
type command struct {
	name  string
	usage string // with its words, without the program and without flags
	short string
	long  string // sentences for its help; may be empty
	flags []string
	// least and most are how many words stand behind the command; most is -1 where there is no bound.
	least, most int
	// check finds what is wrong with flags that stand together, and may be nil.
	check func(s *settings, given map[string]bool) error
	run   func(p *program, ctx context.Context, s *settings) error
}

// asking are the flags of every command that asks the server.
var asking = []string{"server", "timeout"}

// filters are the flags that choose targets.
var filters = []string{"down", "unknown", "up", "state", "prefix", "zone", "port"}

var commands []*command

func init() { // not above, because help and completion tell of all commands
	commands = []*command{
		{
			name: "targets", usage: "targets", short: "what is checked, and how it is",
			flags: slices.Concat(filters, []string{"disagreeing", "page", "size", "all", "json"}, asking),
			check: func(_ *settings, given map[string]bool) error {
				if given["all"] && (given["page"] || given["size"]) {
					return errors.New("-all has all parts: leave it out, or -page and -size")
				}
				return nil
			},
			run: (*program).targets,
		},
		{
			name: "target", usage: "target ADDRESS:PORT", short: "all that is known of one target",
			long:  "An IPv6 address stands in brackets: [2001:db8::7]:443. An address that answers have while another one is probed instead of it is fine, too.",
			flags: slices.Concat([]string{"json"}, asking), least: 1, most: 1,
			run: (*program).target,
		},
		{
			name: "explain", usage: "explain NAME [TYPE]", short: "why a name is answered as it is",
			long: "TYPE is A, the default, AAAA, SRV, SVCB, HTTPS or ANY. What was asked for is shown as the plugins below answered it and as a client gets it, " +
				"and of each record why it is in the answer or not.",
			flags: slices.Concat([]string{"client", "block", "json"}, asking), least: 1, most: 2,
			run: (*program).explain,
		},
		{
			name: "events", usage: "events", short: "what has happened, and what happens",
			long: "The newest event comes last. With -f and after a restart of CoreDNS, the connection is made again, and what happened in between is not lost " +
				"as long as CoreDNS knows it.",
			flags: slices.Concat([]string{"f", "n", "kind"}, filters, []string{"json"}, asking),
			check: func(s *settings, _ map[string]bool) error {
				if s.number == 0 && !s.follow {
					return errors.New("-n 0 shows nothing without -f: want a number from 1 to 1000, or -f")
				}
				return nil
			},
			run: (*program).events,
		},
		{
			name: "peers", usage: "peers", short: "the replicas that decide together",
			long: "The first line is the replica that was asked. The exit status is 1 if that cannot be relied upon: it hears of no other, its words do not count, " +
				"or it does not know yet all that others say.",
			flags: slices.Concat([]string{"json"}, asking),
			run:   (*program).peers,
		},
		{
			name: "overrides", usage: "overrides", short: "what people have decided, until when and why",
			flags: slices.Concat([]string{"json"}, asking),
			run:   (*program).overrides,
		},
		{
			name: "drain", usage: `drain RULE... ["REASON"]`, short: "take hosts out of answers, for a while or until undrain",
			long: "RULE is ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR. A line for each is appended to the file of overrides, on the machine where CoreDNS is. " +
				"With neither -for nor -until it holds until shaker undrain.",
			flags: slices.Concat([]string{"for", "until", "overrides"}, asking), least: 1, most: -1,
			check: func(_ *settings, given map[string]bool) error {
				if given["for"] && given["until"] {
					return errors.New("-for and -until exclude each other: leave one out, or both for a rule that stays until undrain")
				}
				return nil
			},
			run: (*program).drain,
		},
		{
			name: "undrain", usage: `undrain RULE... ["REASON"]`, short: "leave hosts to their checks again",
			long:  "RULE is as with shaker drain. Rules for a part of it stay in force, and are told.",
			flags: slices.Concat([]string{"overrides"}, asking), least: 1, most: -1,
			run: (*program).undrain,
		},
		{name: "version", usage: "version", short: "which shaker this is", run: (*program).version},
		{name: "help", usage: "help [COMMAND]", short: "how to use shaker, or one of its commands", most: 1, run: (*program).help},
		{
			name: "completion", usage: "completion bash|zsh", short: "what a shell needs to complete command lines",
			long: "For bash: source <(shaker completion bash). For zsh, after compinit: source <(shaker completion zsh).", least: 1, most: 1,
			run: (*program).completion,
		},
	}
}

func commandNamed(name string) *command {
	i := slices.IndexFunc(commands, func(c *command) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func commandNames() (names []string) {
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}

func (p *program) help(_ context.Context, s *settings) error {
	if len(s.arguments) == 0 {
		return p.print(helpText(nil))
	}
	c := commandNamed(s.arguments[0])
	if c == nil {
		return usageError{fmt.Errorf("there is no command %q, want one of %s", s.arguments[0], strings.Join(commandNames(), ", ")), ""}
	}
	return p.print(helpText(c))
}

// helpText returns how to use a command, or for nil the program.
func helpText(c *command) string {
	var b strings.Builder
	if c == nil {
		b.WriteString("usage: shaker COMMAND [FLAG...]\n\nSees and steers a CoreDNS with the plugin shaker.\n\n")
		for _, c := range commands {
			fmt.Fprintf(&b, "  %-11s %s\n", c.name, c.short)
		}
		b.WriteString("\nshaker help COMMAND tells more. Flags may stand anywhere, with one dash or two.\n" +
			"Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.\n")
		return b.String()
	}
	usage := "shaker " + c.usage
	if len(c.flags) > 0 {
		usage += " [FLAG...]"
	}
	fmt.Fprintf(&b, "usage: %s\n\n%s\n", usage, wrap(strings.ToUpper(c.short[:1])+c.short[1:]+".", 0))
	if c.long != "" {
		fmt.Fprintf(&b, "\n%s\n", wrap(c.long, 0))
	}
	if len(c.flags) > 0 {
		b.WriteString("\n")
	}
	for _, name := range c.flags {
		o := optionNamed(name)
		fmt.Fprintf(&b, "  %-17s%s\n", strings.TrimRight("-"+name+" "+o.value, " "), wrap(o.help, 19))
	}
	return b.String()
}

// helpWidth is how long the lines of help are at most, in characters.
const helpWidth = 80

// wrap breaks a text into lines, of which all but the first are indented.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// release is set by whoever builds from sources that git does not know, such as those in a package or an image:
//
//	go build -ldflags '-X main.release=v1.2.3' ./cmd/shaker
var release string

func (p *program) version(context.Context, *settings) error {
	version := release
	if info, ok := debug.ReadBuildInfo(); ok && version == "" {
		version = info.Main.Version
	}
	return p.print("shaker " + cmp.Or(version, "(devel)") + "\n")
}
