package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// steered is a server that reads a file of overrides, as CoreDNS does, with the least that a test needs.
type steered struct {
	paths  []string // that it tells of
	failed string   // why the file is not in force
	deaf   bool     // it has stopped reading
	// replicas share the file, if there are any, and others have said what is elsewhere of what the file has no line about.
	replicas  int
	elsewhere []rule
	local     bool
}

func (s *steered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/targets.json" {
		fmt.Fprintf(w, `{"version":1,"counts":{"total":9},"matches":2,"page":1,"pages":1,"targets":[{"address":"192.0.2.7","port":443,"state":"up","names":["www.example.org."],`+
			`"overrides":[{"rule":"192.0.2.7","says":"down"}]}]}`)
		return
	}
	a := overridesAnswer{Replicas: s.replicas}
	for _, path := range s.paths {
		f := overridesFile{Path: path, Error: s.failed, Failed: s.failed != ""}
		if info, err := os.Stat(path); err == nil {
			f.Modified = info.ModTime().Truncate(time.Millisecond)
		}
		content, _ := os.ReadFile(path)
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line)
			rule := rule{What: fields[0], Says: fields[1]}
			if len(fields) > 3 && fields[2] == "until" {
				rule.Until, _ = time.Parse(time.RFC3339, fields[3])
			}
			if !s.deaf {
				f.Rules = append(f.Rules, rule)
			}
		}
		f.Shared, f.Local = s.replicas > 0 && !s.local, s.local
		for _, r := range s.elsewhere {
			if !slices.ContainsFunc(f.Rules, func(own rule) bool { return own.What == r.What }) {
				f.Rules = append(f.Rules, r)
			}
		}
		a.Files = append(a.Files, f)
	}
	json.NewEncoder(w).Encode(struct {
		Version int `json:"version"`
		overridesAnswer
	}{1, a})
}

func (s *steered) serve(t *testing.T) string {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// rulesFile makes a file of overrides.
func rulesFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overrides")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fileEditor writes what the tests look at, without the checks of the real one.
func fileEditor(t *testing.T, notes ...string) editor {
	write := func(path string, r rule) (edited, error) {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return edited{}, err
		}
		defer file.Close()
		_, err = fmt.Fprintln(file, r.line())
		return edited{[]rule{r}, notes}, err
	}
	return editor{
		add: func(path string, r rule, _ time.Time) (edited, error) { return write(path, r) },
		takeBack: func(path, what, reason string, _ time.Time, _ []rule) (edited, error) {
			return write(path, rule{What: what, Says: "auto", Reason: reason})
		},
	}
}

const about = "That is about 2 of 9 targets\n  192.0.2.7:443 up by its checks, down by the rule 192.0.2.7, of www.example.org.\n  and 1 more\n"

// What drain and undrain write, wait for and tell.
func TestDrain(t *testing.T) {
	for _, tt := range []struct{ name, args, before, after, want string }{
		{"for a while", "drain 192.0.2.7 --for 2h|kernel update", "", "192.0.2.7 down until 2026-11-26T14:00:05Z  # kernel update\n",
			"PATH: 192.0.2.7 down until 2026-11-26T14:00:05Z  # kernel update\n192.0.2.7 is down until 14:00:05, for 2h: in force\n" + about},
		{"until a time", "drain [2001:db8::7]:443 -until 2026-11-27T17:00:00+01:00", "", "[2001:db8::7]:443 down until 2026-11-27T17:00:00+01:00\n",
			"PATH: [2001:db8::7]:443 down until 2026-11-27T17:00:00+01:00\n[2001:db8::7]:443 is down until 2026-11-27 16:00:00, for 1d3h: in force\n" + about},
		{"for ever, and two", "drain 192.0.2.0/24 ::ffff:192.0.2.7 192.0.2.7", "x auto\n", "x auto\n192.0.2.0/24 down\n192.0.2.7 down\n",
			"PATH: 192.0.2.0/24 down\nPATH: 192.0.2.7 down\n192.0.2.0/24 is down until somebody says shaker undrain 192.0.2.0/24: in force\n" + about +
				"192.0.2.7 is down until somebody says shaker undrain 192.0.2.7: in force\n" + about},
		{"back", "undrain 192.0.2.7|wrong host", "192.0.2.0/24 down\n", "192.0.2.0/24 down\n192.0.2.7 auto  # wrong host\n",
			"PATH: 192.0.2.7 auto  # wrong host\n192.0.2.7 is left to its checks: in force\n" + about},
	} {
		path := rulesFile(t, tt.before)
		p, stdout, stderr := newProgram()
		p.files = fileEditor(t)
		head, reason, hasReason := strings.Cut(tt.args, "|")
		args := append(strings.Fields(head), "-server", (&steered{paths: []string{path}}).serve(t))
		if hasReason {
			args = append(args, reason)
		}
		status := p.run(t.Context(), args)
		after, _ := os.ReadFile(path)
		if got := strings.ReplaceAll(stdout.String(), path, "PATH"); status != exitDone || got != tt.want || string(after) != tt.after {
			t.Errorf("%s: status %d\n%s%s, want\n%s\nfile:\n%s", tt.name, status, got, stderr, tt.want, after)
		}
	}
}

// Where replicas share the file, what is in force is so for all, and what another one has drained can be taken back here.
func TestDrainShared(t *testing.T) {
	down := []rule{{What: "192.0.2.7", Says: "down", From: "ns2"}}
	for _, tt := range []struct {
		name, args string
		server     steered
		after      string
		want       string
	}{
		{"a drain", "drain 192.0.2.7", steered{replicas: 3}, "192.0.2.7 down\n",
			"PATH: 192.0.2.7 down\n192.0.2.7 is down until somebody says shaker undrain 192.0.2.7: in force, for all 3 replicas\n"},
		{"alone", "drain 192.0.2.7", steered{replicas: 1}, "192.0.2.7 down\n",
			"PATH: 192.0.2.7 down\n192.0.2.7 is down until somebody says shaker undrain 192.0.2.7: in force, and for the other replicas once they can be heard\n"},
		{"a file of this replica", "drain 192.0.2.7", steered{replicas: 3, local: true}, "192.0.2.7 down\n",
			"PATH: 192.0.2.7 down\n192.0.2.7 is down until somebody says shaker undrain 192.0.2.7: in force, for this replica alone\n"},
		{"what another one has drained", "undrain 192.0.2.7", steered{replicas: 3, elsewhere: down}, "192.0.2.7 auto\n",
			"PATH: 192.0.2.7 auto\n192.0.2.7 is left to its checks: in force, for all 3 replicas\n"},
		{"likewise, but of a file that is not shared", "undrain 192.0.2.7", steered{elsewhere: down}, "", "192.0.2.7 is not down by any rule\n"},
	} {
		path := rulesFile(t, "")
		tt.server.paths = []string{path}
		p, stdout, stderr := newProgram()
		p.files = files
		status := p.run(t.Context(), append(strings.Fields(tt.args), "-server", tt.server.serve(t)))
		after, _ := os.ReadFile(path)
		got, _, _ := strings.Cut(strings.ReplaceAll(stdout.String(), path, "PATH"), "That is about")
		if status != exitDone || got != tt.want || string(after) != tt.after {
			t.Errorf("%s: status %d\n%s%s, want\n%s\nfile:\n%s", tt.name, status, got, stderr, tt.want, after)
		}
	}
}

// What is wrong with a file is told, with what to do. Nothing is written to one that may be another than the server's.
func TestDrainErrors(t *testing.T) {
	path, other := rulesFile(t, ""), rulesFile(t, "")
	refuse := func(err error) editor {
		return editor{add: func(path string, _ rule, _ time.Time) (edited, error) {
			return edited{}, &fs.PathError{Op: "open", Path: path, Err: err}
		}}
	}
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"version":1,"files":[{"path":%q,"modified":"2001-01-01T00:00:00Z","rules":[]}]}`, path)
	}))
	t.Cleanup(moved.Close)
	nobody := httptest.NewServer(nil)
	nobody.Close()
	for _, tt := range []struct {
		name   string
		server string
		more   string
		files  editor
		status int
		want   string
	}{
		{"no file", (&steered{}).serve(t), "", editor{}, 1, "no stanza of the Corefile has overrides, want one with the property overrides FILE, or -overrides FILE here"},
		{"two files", (&steered{paths: []string{path, other}}).serve(t), "", editor{}, 1, "there are 2 files of overrides, want -overrides with one of them: " + path + ", " + other},
		{"no server", nobody.URL, "", editor{}, 1, "with -overrides FILE no server is needed"},
		{"another machine", (&steered{paths: []string{"/nowhere/o"}}).serve(t), "", editor{}, 1, "/nowhere/o is not here (stat /nowhere/o: no such file or directory): want this command on the machine of CoreDNS, or the path of the file here, with -overrides"},
		{"another file", moved.URL, "", editor{}, 1, path + " is another file here, written at "},
		{"a mistake in the file", (&steered{paths: []string{path}, failed: "line 1: x"}).serve(t), "", editor{}, 1, path + " has a mistake, want it mended first: line 1: x"},
		{"gone", (&steered{paths: []string{path}}).serve(t), "", refuse(fs.ErrNotExist), 1, path + " is not here"},
		{"disk full", (&steered{paths: []string{path}}).serve(t), "", refuse(errors.New("disk full")), 1, "open " + path + ": disk full\n"},
		{"a deaf server", (&steered{paths: []string{path}, deaf: true}).serve(t), "", fileEditor(t), 1, path + " is written, but http://127.0.0.1:"},
		{"a server with another file", (&steered{paths: []string{other}}).serve(t), "-overrides " + path, fileEditor(t), 1, "does not read it, want one of: " + other},
		{"a file without a server", nobody.URL, "-overrides " + path, fileEditor(t), 0, "whether it is in force is not known: cannot reach http://127.0.0.1:"},
	} {
		p, _, stderr := newProgram()
		p.files = tt.files
		status := p.run(t.Context(), strings.Fields("drain 192.0.2.7 -server "+tt.server+" "+tt.more))
		if status != tt.status || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%s: status %d\n%s, want %s", tt.name, status, stderr, tt.want)
		}
	}
}

// What the rest of the file makes of it is told, and nothing is waited for where nothing was written.
func TestUndrainNotes(t *testing.T) {
	p, stdout, _ := newProgram()
	p.files.takeBack = func(string, string, string, time.Time, []rule) (edited, error) {
		return edited{notes: []string{"192.0.2.7 is not down by any rule"}}, nil
	}
	if status := p.run(t.Context(), []string{"undrain", "192.0.2.7", "-overrides", "/o", "-server", "127.0.0.1:1"}); status != exitDone || stdout.String() != "192.0.2.7 is not down by any rule\n" {
		t.Errorf("status %d, %s", status, stdout)
	}
}

// late is a server that tells its rules as they were for so many questions more.
type late struct {
	steered
	old   string // what was in the file
	still int
}

func (l *late) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/overrides.json" || l.still == 0 {
		l.steered.ServeHTTP(w, r)
		return
	}
	l.still--
	info, _ := os.Stat(l.paths[0])
	fmt.Fprintf(header(w), `{"version":1,"files":[{"path":%q,"modified":%q,"rules":[%s]}]}`, l.paths[0],
		info.ModTime().UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano), l.old)
}

func header(w http.ResponseWriter) http.ResponseWriter {
	w.Header().Set("Content-Type", "application/json")
	return w
}

// Each line that is written has to be in force, also those for the ports of an address.
func TestUndrainWaitsForPorts(t *testing.T) {
	path := rulesFile(t, "192.0.2.7:443 down\n")
	l := &late{steered{paths: []string{path}}, `{"rule":"192.0.2.7:443","says":"down"}`, 3}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	p, stdout, stderr := newProgram()
	p.files = files
	status := p.run(t.Context(), []string{"undrain", "192.0.2.7", "-server", server.URL})
	if status != exitDone || l.still != 0 || !strings.Contains(stdout.String(), "192.0.2.7 is left to its checks: in force") {
		t.Errorf("status %d, %d answers too early\n%s%s", status, l.still, stdout, stderr)
	}
}

// A file that has just been mended may still be broken for the server.
func TestDrainAfterMending(t *testing.T) {
	path := rulesFile(t, "")
	asked := 0
	mended := &steered{paths: []string{path}}
	broken := &steered{paths: []string{path}, failed: "line 1: x"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			broken.ServeHTTP(w, r)
			return
		}
		mended.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p, _, stderr := newProgram()
	p.files = files
	if status := p.run(t.Context(), []string{"drain", "192.0.2.7", "-server", server.URL}); status != exitDone {
		t.Errorf("status %d\n%s", status, stderr)
	}
}

// A rule that no target has is likely to be a mistake.
func TestDrainOfNothing(t *testing.T) {
	path := rulesFile(t, "")
	s := &steered{paths: []string{path}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/targets.json" {
			fmt.Fprint(header(w), `{"version":1,"counts":{"total":9},"matches":0,"targets":[]}`)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p, stdout, _ := newProgram()
	p.files = files
	p.run(t.Context(), []string{"drain", "192.0.2.8", "-server", server.URL})
	if want := "in force\nThat is about none of the 9 targets: is it the right one?\n"; !strings.HasSuffix(stdout.String(), want) {
		t.Errorf("%s, want %s", stdout, want)
	}
}

// What is wrong with the command line is told before anything is asked or written, with the command that helps.
func TestDrainUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"drain", "192.0.2.9/24"}, `"192.0.2.9/24" is a host and a whole network, want 192.0.2.9 or 192.0.2.0/24; what comes last may be a reason, in quotes`},
		{[]string{"drain", "::ffff:192.0.2.9/120"}, "want 192.0.2.9 or 192.0.2.0/24"},
		{[]string{"drain", "192.0.2.7", "two\nlines"}, `reason: "two\nlines" has the character '\n', want a single line of text`},
		{[]string{"drain", "192.0.2.7", "a\u202eb"}, `reason: "a\u202eb" has the character '\u202e', want a single line of text`},
		{[]string{"undrain", "192.0.2.7", strings.Repeat("x", 201)}, "reason: it has 201 characters, want 200 at most"},
		{[]string{"undrain", "x"}, `"x" is neither`},
		{[]string{"undrain", "192.0.2.7", "-server", "ftp://x"}, `-server: "ftp://" is not possible`},
		{[]string{"undrain", "192.0.2.7", "-server"}, `-server: no value, want -server URL`},
	} {
		status, stdout, stderr := output(tt.args...)
		if help := "shaker help " + tt.args[0] + " tells"; status != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, help) {
			t.Errorf("%q: status %d, %s%s, want %s and %s", tt.args, status, stdout, stderr, tt.want, help)
		}
	}
}

// What stays in answers although its address is drained is told.
func TestDrainTellsExceptions(t *testing.T) {
	path := rulesFile(t, "192.0.2.7:443 up\n")
	p, stdout, _ := newProgram()
	p.files = files
	p.run(t.Context(), []string{"drain", "192.0.2.7", "why", "-server", (&steered{paths: []string{path}}).serve(t)})
	if want := "\n192.0.2.7 is down, was auto, except 192.0.2.7:443, which is up (why)\n"; !strings.Contains(stdout.String(), want) {
		t.Errorf("%s, want %s", stdout, want)
	}
}

// Where the file is given, a drain is written before the server is asked anything: it may hang.
func TestDrainIsWrittenFirst(t *testing.T) {
	path := rulesFile(t, "")
	s := &steered{paths: []string{path}}
	var found []string // what is in the file at each question
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := os.ReadFile(path)
		found = append(found, string(content))
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p, _, stderr := newProgram()
	p.files = files
	status := p.run(t.Context(), []string{"drain", "192.0.2.7", "-overrides", path, "-server", server.URL})
	if status != exitDone || len(found) == 0 || found[0] != "192.0.2.7 down\n" {
		t.Errorf("status %d, the file has %q at the questions\n%s", status, found, stderr)
	}
}
