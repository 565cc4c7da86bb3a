package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args    string
		command string
		want    func(*settings)
	}{
		{"targets", "targets", func(*settings) {}},
		{"-json targets", "targets", func(s *settings) { s.json = true }},
		{"targets -down --page 3 --size=4 -timeout 1m", "targets", func(s *settings) { s.state, s.page, s.size, s.timeout = "down", 3, 4, time.Minute }},
		{"--server x targets --unknown", "targets", func(s *settings) { s.server, s.state = "x", "unknown" }},
		{"drain 192.0.2.7 --for 2h why", "drain", func(s *settings) { s.arguments, s.hold = []string{"192.0.2.7", "why"}, 2*time.Hour }},
		{"drain --for=3d 192.0.2.7", "drain", func(s *settings) { s.arguments, s.hold = []string{"192.0.2.7"}, 72*time.Hour }},
		{"drain 192.0.2.7 -until 2026-11-26T16:00:00Z", "drain", func(s *settings) {
			s.arguments, s.until = []string{"192.0.2.7"}, time.Date(2026, 11, 26, 16, 0, 0, 0, time.UTC)
		}},
		{"drain 192.0.2.7 -- -for", "drain", func(s *settings) { s.arguments = []string{"192.0.2.7", "-for"} }},
		{"explain - -client ::1", "explain", func(s *settings) { s.arguments, s.client = []string{"-"}, "::1" }},
		{"events -f -n 0 -kind down", "events", func(s *settings) { s.follow, s.number, s.kind = true, 0, "down" }},
		{"events --help -kind down", "events", func(s *settings) { s.help = true }},
	} {
		want := &settings{command: tt.command, timeout: 5 * time.Second, page: 1, size: 100, number: 20, arguments: []string{}}
		tt.want(want)
		c, got, err := parse(strings.Fields(tt.args))
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if got.arguments == nil {
			got.arguments = []string{}
		}
		if c.name != tt.command || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s\n%+v, want\n%+v", tt.args, c.name, got, want)
		}
	}
}

// What is wrong is named, with what would be right.
func TestUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "no command: want one of targets, target, explain, "},
		{"-json", "no command"},
		{"tagets", `there is no command "tagets", want one of targets`},
		{"help tagets", `there is no command "tagets", want one of targets`},
		{"targets -x", `there is no flag "-x"; what begins with a dash and is none comes after --`},
		{"targets ---json", `there is no flag "---json"`},
		{"targets -json=1", `-json: "1" is too much, it takes no value`},
		{"targets -zone", "-zone: no value, want -zone ZONE"},
		{"targets -zone=", "-zone: the value is empty, want ZONE"},
		{"targets -for 2h", "-for is not a flag of shaker targets, want one of -down, -unknown"},
		{"version -json", "-json: shaker version takes no flags"},
		{"targets -json -json", "-json is there twice, want it once"},
		{"targets -down -up", "-up: up is a second state, want a single one of"},
		{"targets -down -state up", "-state: up is a second one besides down"},
		{"targets -state dead", `-state: "dead" is not possible, want one of down, unknown, up`},
		{"targets -port 0", `-port: "0" is not possible, want a number from 1 to 65535`},
		{"targets -page 0", `-page: "0" is not possible, want a number from 1 to 1000000`},
		{"targets -size 1001", `-size: "1001" is not possible, want a number from 1 to 1000`},
		{"targets -all -page 2", "-all has all parts: leave it out, or -page and -size"},
		{"targets -timeout 0s", `-timeout: "0s" is not possible, want a time from 100ms to 5m`},
		{"targets all", `"all" is too much: want shaker targets`},
		{"target", "too little: want shaker target ADDRESS:PORT"},
		{"target 192.0.2.7", `"192.0.2.7" is not a target, want ADDRESS:PORT, such as 192.0.2.7:443 or [2001:db8::7]:443`},
		{"target 192.0.2.7:0", "is not a target"},
		{"explain a MX", `"MX" is not a type that can be explained, want one of A, AAAA, SRV, SVCB, HTTPS, ANY`},
		{"explain a A b", `"b" is too much: want shaker explain NAME [TYPE]`},
		{"events -kind x", `-kind: "x" is not possible, want one of down, up, unknown, freeze`},
		{"events -n 0", "-n 0 shows nothing without -f"},
		{"events -n -1", `-n: "-1" is not possible, want a number from 0 to 1000`},
		{"drain", "too little: want shaker drain RULE..."},
		{"drain x", `"x" is neither a CIDR such as 10.0.0.0/8 nor an address; with a port it is 192.0.2.7:443`},
		{"drain 192.0.2.7 192.0.2.300", `"192.0.2.300" is neither a CIDR`},
		{"drain 192.0.2.7 kernel update", `"kernel" is neither a CIDR such as 10.0.0.0/8 nor an address; with a port it is 192.0.2.7:443 or [2001:db8::7]:443; what comes last may be a reason, in quotes`},
		{"drain 192.0.2.7 -for 2h -until 2026-11-26T16:00:00Z", "-for and -until exclude each other"},
		{"drain 192.0.2.7 -for 2", `-for: "2" is not possible, want a time from 1s to 366d, such as 30m, 2h or 3d`},
		{"drain 192.0.2.7 -for 367d", `-for: "367d" is not possible`},
		{"drain 192.0.2.7 -until 16:00", `-until: "16:00" is not a time, want one as in RFC 3339: 2026-11-26T16:00:00Z or`},
		{"drain 192.0.2.7 -until 2026-11-26T12:00:05Z", "-until: 2026-11-26T12:00:05Z is over, want a time after 2026-11-26T12:00:05Z"},
		{"completion fish", `there is no completion for "fish", want bash or zsh`},
		{"targets -server /run/x", `-server: "/run/x" is a socket in the file system, want a URL such as http://127.0.0.1:8053, or HOST:PORT`},
		{"targets -server ftp://x", `-server: "ftp://" is not possible, want http or https`},
		{"targets -server http://", `-server: "http://" is not the address of a server`},
		{"targets -server http://a/?b", `is not the address of a server`},
	} {
		status, stdout, stderr := output(strings.Fields(tt.args)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, " tells how to use it.\n") {
			t.Errorf("%s: status %d\n%s%s, want %s", tt.args, status, stdout, stderr, tt.want)
		}
	}
}

func TestServer(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:8053": "http://127.0.0.1:8053", "dns1": "http://dns1:8053", "::1": "http://[::1]:8053", "[::1]:80": "http://[::1]:80",
		"https://ops.example/shaker/": "https://ops.example/shaker/", "http://dns1": "http://dns1",
	} {
		if got, err := parseServer(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
}

// Each command has a help of its own, which fits a terminal.
func TestHelp(t *testing.T) {
	for _, name := range append(commandNames(), "") {
		args := strings.Fields("help " + name)
		status, stdout, stderr := output(args...)
		if status != exitDone || stderr != "" || !strings.HasPrefix(stdout, "usage: shaker ") {
			t.Errorf("%v: status %d\n%s%s", args, status, stdout, stderr)
		}
		for _, line := range strings.Split(stdout, "\n") {
			if len(line) > helpWidth {
				t.Errorf("%v: a line is longer than %d characters: %s", args, helpWidth, line)
			}
		}
		if _, other, _ := output(strings.Fields(name + " -h")...); other != stdout {
			t.Errorf("%s -h is not the same:\n%s", name, other)
		}
	}
}
