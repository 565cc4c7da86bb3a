package override

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clocks writes out times of the day.
func clocks(text string) string {
	for _, clock := range []string{"11:00", "13:00", "14:00", "16:00"} {
		text = strings.ReplaceAll(text, "until "+clock, "until "+timeString(at(clock)))
		text = strings.ReplaceAll(text, "After "+clock, "After "+timeString(at(clock)))
	}
	return text
}

func readWhole(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// told writes what an edit tells, with a comma in between.
func (e Edit) told() string {
	var all []string
	for _, c := range e.Changes {
		all = append(all, c.String())
	}
	return strings.Join(append(all, e.Notes...), ", ")
}

// Tables have a comma for the end of a line, and times of the day.
func TestAdd(t *testing.T) {
	for name, tt := range map[string]struct {
		before string
		add    Rule
		line   string
		told   string
	}{
		"to nothing":        {"", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down", "192.0.2.7 is down, was auto"},
		"all of it":         {"# ours,", Rule{What: "192.0.2.7", Says: Down, Until: at("14:00"), Reason: "kernel update"}, "192.0.2.7 down until 14:00  # kernel update", "192.0.2.7 is down until 14:00, was auto (kernel update)"},
		"no end of line":    {"192.0.2.8 up", Rule{What: "192.0.2.7:443", Says: Down}, "192.0.2.7:443 down", "192.0.2.7:443 is down, was auto"},
		"in another form":   {"", Rule{What: " ::ffff:192.0.2.7 ", Says: Up, Reason: " a\tb "}, "192.0.2.7 up  # a b", "192.0.2.7 is up, was auto (a b)"},
		"a prefix":          {"", Rule{What: "192.0.2.7/24", Says: Down}, "192.0.2.0/24 down", "192.0.2.0/24 is down, was auto"},
		"a part of seconds": {"", Rule{What: "192.0.2.7", Says: Down, Until: at("14:00").Add(-time.Millisecond)}, "192.0.2.7 down until 14:00", "192.0.2.7 is down until 14:00, was auto"},
		"another zone":      {"", Rule{What: "192.0.2.7", Says: Down, Until: at("14:00").In(time.FixedZone("", 3600))}, "192.0.2.7 down until 14:00", "192.0.2.7 is down until 14:00, was auto"},
		"an exception stays": {"192.0.2.7:443 up,", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down",
			"192.0.2.7 is down, was auto, except 192.0.2.7:443, which is up"},
		"longer":           {"192.0.2.7 down until 14:00,", Rule{What: "192.0.2.7", Says: Down, Until: at("16:00")}, "192.0.2.7 down until 16:00", "192.0.2.7 is down until 16:00, was down until 14:00"},
		"shorter":          {"192.0.2.7 down until 16:00 # a,", Rule{What: "192.0.2.7", Says: Down, Until: at("14:00")}, "192.0.2.7 down until 14:00", "192.0.2.7 is down until 14:00, was down until 16:00, After 14:00 another line holds: 192.0.2.7 down until 16:00  # a"},
		"what stays wide":  {"192.0.2.0/24 down,", Rule{What: "192.0.2.7", Says: Down, Until: at("14:00")}, "192.0.2.7 down until 14:00", "192.0.2.7 is down until 14:00, was down, After 14:00 another line holds: 192.0.2.0/24 down"},
		"as it was":        {"192.0.2.7 down,", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down", ""},
		"a reason with #":  {"", Rule{What: "192.0.2.7", Says: Down, Reason: "#4711"}, "192.0.2.7 down  # #4711", "192.0.2.7 is down, was auto (#4711)"},
		"from Windows":     {"192.0.2.8 up\r\n", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down", "192.0.2.7 is down, was auto"},
		"from Mac OS":      {"192.0.2.8 up\r", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down", "192.0.2.7 is down, was auto"},
		"behind a comment": {"# the end", Rule{What: "192.0.2.7", Says: Down}, "192.0.2.7 down", "192.0.2.7 is down, was auto"},
	} {
		before := clocks(strings.ReplaceAll(tt.before, ",", "\n"))
		path := writeFile(t, "overrides", before)
		e, err := Add(path, tt.add, noon)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		line := clocks(tt.line)
		if got, want := readWhole(t, path), ended(before)+line+"\n"; got != want {
			t.Errorf("%s: the file has %q, want %q", name, got, want)
		}
		told := clocks(strings.ReplaceAll(tt.told, "until 14:00,", "until 14:00 ,"))
		told = strings.ReplaceAll(told, " ,", ",")
		if got := e.told(); got != told || linesOfEdit(e) != line {
			t.Errorf("%s: lines %q, told %q, want %q, %q", name, linesOfEdit(e), got, line, told)
		}
	}
}

// linesOfEdit are what was added.
func linesOfEdit(e Edit) string {
	var texts []string
	for _, r := range e.Rules {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ",")
}

func TestAddMistakes(t *testing.T) {
	good := Rule{What: "192.0.2.7", Says: Down}
	with := func(change func(*Rule)) Rule { r := good; change(&r); return r }
	for _, tt := range []struct {
		before string
		rule   Rule
		want   string
	}{
		{"", with(func(r *Rule) { r.What = "www.example.org" }), `"www.example.org" is neither a CIDR`},
		{"", with(func(r *Rule) { r.What = "" }), `"" is neither a CIDR`},
		{"", with(func(r *Rule) { r.What = "192.0.2.7 up\n192.0.2.8" }), `"192.0.2.7 up\n192.0.2.8" is neither a CIDR`},
		{"", with(func(r *Rule) { r.What = "192.0.2.7#" }), `"192.0.2.7#" is neither a CIDR`},
		{"", with(func(r *Rule) { r.Says = 3 }), `3 is not possible, want up, down or auto`},
		{"", with(func(r *Rule) { r.Until = noon }), `until: 2026-11-26T12:00:00Z is over, want a time after 2026-11-26T12:00:00Z`},
		{"", with(func(r *Rule) { r.Until = at("11:00") }), `until: 2026-11-26T11:00:00Z is over, want a time after 2026-11-26T12:00:00Z`},
		{"", with(func(r *Rule) { r.Until = noon.AddDate(9000, 0, 0) }), `until: it is after the year 9999`},
		{"", with(func(r *Rule) { r.Reason = "a\n192.0.2.8 down" }), `reason: "a\n192.0.2.8 down" has the character '\n', want a single line of text`},
		{"", with(func(r *Rule) { r.Reason = "a\r" }), `reason: "a\r" has the character '\r'`},
		{"", with(func(r *Rule) { r.Reason = "a\u0085b" }), `reason: "a\u0085b" has the character '\u0085'`},
		{"", with(func(r *Rule) { r.Reason = "a\u2028b" }), `reason: "a\u2028b" has the character '\u2028'`},
		{"", with(func(r *Rule) { r.Reason = "a\x00b" }), `reason: "a\x00b" has the character '\x00'`},
		{"", with(func(r *Rule) { r.Reason = "a\u202eb" }), `reason: "a\u202eb" has the character '\u202e'`},
		{"", with(func(r *Rule) { r.Reason = "a\xff" }), `reason: "a\xff" has the character '�'`},
		{"", with(func(r *Rule) { r.Reason = strings.Repeat("ü", 201) }), `reason: it has 201 characters, want 200 at most`},
		{"nonsense\n", good, `FILE is not in force, want it mended first: line 1: "nonsense" is not possible`},
		{"\xff\xfe", good, `FILE is not in force, want it mended first: it is UTF-16, want UTF-8`},
		{strings.Repeat(strings.Repeat("#", 1023)+"\n", maxSize/1024), good, `FILE would be larger than 1048576 octets, also without lines that no longer matter, want some removed`},
		{strings.Repeat("#", maxSize+1), good, `FILE is larger than 1048576 octets, want the file that the property overrides names`},
	} {
		path := writeFile(t, "overrides", tt.before)
		_, err := Add(path, tt.rule, noon)
		if err == nil || !strings.HasPrefix(err.Error(), strings.ReplaceAll(tt.want, "FILE", path)) {
			t.Errorf("%.80q: error %v, want %s", tt.rule, err, tt.want)
		}
		if got := readWhole(t, path); got != tt.before {
			t.Errorf("%.80q: the file has changed to %.200q", tt.rule, got)
		}
	}
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "no such file or directory, want the file that the property overrides names",
		dir:                           " is not a regular file, want the file that the property overrides names",
	} {
		if err := addOne(path, good, noon); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", path, err, want)
		}
	}
}

func TestTakeBack(t *testing.T) {
	for _, tt := range []struct {
		before, what string
		lines, told  string // with a comma in between
	}{
		{"192.0.2.7 down", "192.0.2.7", "192.0.2.7 auto", "192.0.2.7 is auto, was down"},
		{"192.0.2.7 down until 14:00 # kernel", "192.0.2.7", "192.0.2.7 auto", "192.0.2.7 is auto, was down until 14:00"},
		{"192.0.2.7 down,192.0.2.7 down until 14:00", "192.0.2.7", "192.0.2.7 auto", "192.0.2.7 is auto, was down until 14:00"},
		{"192.0.2.7 down until 11:00", "192.0.2.7", "", "192.0.2.7 is not down by any rule"},
		{"", "192.0.2.7", "", "192.0.2.7 is not down by any rule"},
		{"192.0.2.7 down,192.0.2.7 auto", "192.0.2.7", "", "192.0.2.7 is not down by any rule"},
		{"192.0.2.8 down", "192.0.2.7", "", "192.0.2.7 is not down by any rule"},
		{"192.0.2.7 up", "192.0.2.7", "", "192.0.2.7 is not down, but up by the rule for 192.0.2.7"},
		{"192.0.2.0/24 up until 14:00", "192.0.2.7", "", "192.0.2.7 is not down, but up until 14:00 by the rule for 192.0.2.0/24"},
		// A wider rule: an exception.
		{"192.0.2.0/24 down", "192.0.2.7", "192.0.2.7 auto", "192.0.2.7 is auto, was down,192.0.2.7 is an exception now from 192.0.2.0/24, which stays down"},
		{"192.0.2.7 auto,192.0.2.0/24 down until 14:00", "192.0.2.7", "192.0.2.7 auto",
			"192.0.2.7 is auto, was down until 14:00,192.0.2.7 is an exception now from 192.0.2.0/24, which stays down until 14:00"},
		{"192.0.2.7 down", "192.0.2.7:443", "192.0.2.7:443 auto", "192.0.2.7:443 is auto, was down,192.0.2.7:443 is an exception now from 192.0.2.7, which stays down"},
		{"192.0.2.0/24 down,192.0.2.7 down", "192.0.2.7", "192.0.2.7 auto", "192.0.2.7 is auto, was down"},
		// Ports go with their address.
		{"192.0.2.7:443 down", "192.0.2.7", "192.0.2.7:443 auto", "192.0.2.7:443 is auto, was down"},
		{"192.0.2.7:443 down,192.0.2.7:80 down,192.0.2.7 down,192.0.2.7:22 up,192.0.2.8:80 down", "192.0.2.7", "192.0.2.7 auto,192.0.2.7:80 auto,192.0.2.7:443 auto",
			"192.0.2.7 is auto, was down, except 192.0.2.7:22, which is up,192.0.2.7:80 is auto, was down,192.0.2.7:443 is auto, was down"},
		{"192.0.2.7:443 down", "192.0.2.7:443", "192.0.2.7:443 auto", "192.0.2.7:443 is auto, was down"},
		{"192.0.2.7:443 down", "192.0.2.7:80", "", "192.0.2.7:80 is not down by any rule"},
		// What is inside a CIDR stays.
		{"192.0.2.0/24 down,192.0.2.7 down,192.0.2.8:80 down until 14:00,192.0.2.9 up", "192.0.2.0/24", "192.0.2.0/24 auto",
			"192.0.2.0/24 is auto, was down, except 192.0.2.7, which is down, 192.0.2.9, which is up, 192.0.2.8:80, which is down," +
				"192.0.2.7 stays down, by a rule of its own,192.0.2.8:80 stays down until 14:00, by a rule of its own"},
		{"192.0.2.7 down", "192.0.2.0/24", "", "192.0.2.7 stays down, by a rule of its own,192.0.2.0/24 is not down by any rule"},
		{"0.0.0.0/0 down", "192.0.2.0/24", "192.0.2.0/24 auto", "192.0.2.0/24 is auto, was down,192.0.2.0/24 is an exception now from 0.0.0.0/0, which stays down"},
		{"[2001:db8::7]:443 down", "2001:0db8::0007", "[2001:db8::7]:443 auto", "[2001:db8::7]:443 is auto, was down"},
	} {
		before := clocks(strings.ReplaceAll(tt.before, ",", "\n"))
		path := writeFile(t, "overrides", before)
		e, err := TakeBack(path, tt.what, "", noon)
		if err != nil {
			t.Errorf("%s, %s: %v", tt.before, tt.what, err)
			continue
		}
		if got := linesOfEdit(e); got != tt.lines {
			t.Errorf("%s, %s: lines %q, want %q", tt.before, tt.what, got, tt.lines)
		}
		if got := strings.ReplaceAll(e.told(), ", ", ","); got != strings.ReplaceAll(clocks(tt.told), ", ", ",") {
			t.Errorf("%s, %s: told\n%q, want\n%q", tt.before, tt.what, got, tt.told)
		}
		want := before
		if tt.lines != "" {
			want = ended(before) + strings.ReplaceAll(tt.lines, ",", "\n") + "\n"
		}
		if got := readWhole(t, path); got != want {
			t.Errorf("%s, %s: the file has %q, want %q", tt.before, tt.what, got, want)
		}
	}
	path := writeFile(t, "overrides", "192.0.2.7 down")
	if _, err := TakeBack(path, "192.0.2.7", "done\n", noon); err == nil {
		t.Error("a reason may have a line break")
	}
	if e, err := TakeBack(path, "192.0.2.7", "done", noon); err != nil || e.told() != "192.0.2.7 is auto, was down (done)" {
		t.Errorf("with a reason: %q, %v", e.told(), err)
	}
}

// What other replicas have said is taken back as well.
func TestTakeBackShared(t *testing.T) {
	down := func(what string) Rule { return Rule{What: what, Says: Down, Reason: "elsewhere", From: "ns2"} }
	for _, tt := range []struct {
		name, before string
		inForce      []Rule
		lines, told  string
	}{
		{"said elsewhere", "", []Rule{down("192.0.2.7")}, "192.0.2.7 auto", ""},
		{"a wider one, and a port", "# no rules", []Rule{down("192.0.2.0/24"), down("192.0.2.7:443")}, "192.0.2.7 auto,192.0.2.7:443 auto",
			"192.0.2.7 is an exception now from 192.0.2.0/24, which stays down"},
		{"said here, and not in force yet", "192.0.2.7 down", nil, "192.0.2.7 auto", "192.0.2.7 is auto, was down"},
		{"said here, and taken back elsewhere", "192.0.2.7 down", []Rule{{What: "192.0.2.7"}}, "", "192.0.2.7 is not down by any rule"},
	} {
		e, err := TakeBack(writeFile(t, "overrides", tt.before), "192.0.2.7", "", noon, tt.inForce...)
		if got := linesOfEdit(e); err != nil || got != tt.lines || e.told() != tt.told {
			t.Errorf("%s: %q, %q, error %v; want %q, %q", tt.name, got, e.told(), err, tt.lines, tt.told)
		}
	}
}

// What is taken back is down no more, whatever was in the file, and nothing else has changed.
func TestTakeBackAgainstAll(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	path := writeFile(t, "overrides", "")
	needed := 0
	for range 300 {
		text := randomFile(r)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		what := everyTarget()[r.IntN(8)]
		e, err := TakeBack(path, what.Addr().String(), "", noon)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := Parse(text, noon)
		after, err := Parse(readWhole(t, path), noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Rules) > 0 {
			needed++
		}
		for _, target := range everyTarget() {
			was, is := before.Of(target.Addr(), target.Port()), after.Of(target.Addr(), target.Port())
			want := was
			if target.Addr() == what.Addr() && was == Down {
				want = Auto
			}
			if is != want {
				t.Fatalf("seed %d: %v is %v, was %v, after %v was taken back from\n%s", seed, target, is, was, what.Addr(), text)
			}
		}
	}
	if needed < 100 {
		t.Errorf("%d needed a line, which proves little", needed)
	}
}

func TestShortened(t *testing.T) {
	for before, want := range map[string]string{
		"# ours,192.0.2.7 down,":                                        "# ours,192.0.2.7 down,",
		"192.0.2.7 down until 11:00 # over,192.0.2.8 down":              "192.0.2.8 down",
		"192.0.2.7 down,192.0.2.7 auto,":                                "",
		"192.0.2.7 down,192.0.2.7 up,":                                  "192.0.2.7 up,",
		"192.0.2.7 down,192.0.2.7 up until 14:00,":                      "192.0.2.7 down,192.0.2.7 up until 14:00,",
		"192.0.2.7 down until 14:00,192.0.2.7 up until 16:00,":          "192.0.2.7 up until 16:00,",
		"192.0.2.7 down until 16:00,192.0.2.7 auto until 14:00,":        "192.0.2.7 down until 16:00,192.0.2.7 auto until 14:00,",
		"192.0.2.0/24 down,192.0.2.7 down,192.0.2.7 auto,":              "192.0.2.0/24 down,192.0.2.7 auto,",
		"192.0.2.7 auto,192.0.2.0/24 down,":                             "192.0.2.0/24 down,",
		"192.0.0.0/16 up,192.0.2.7:80 auto,192.0.2.7 down until 14:00,": "192.0.0.0/16 up,192.0.2.7:80 auto,192.0.2.7 down until 14:00,",
	} {
		got := shortened(clocks(strings.ReplaceAll(before, ",", "\n")), noon)
		if want := clocks(strings.ReplaceAll(want, ",", "\n")); got != want {
			t.Errorf("%s: %q, want %q", before, got, want)
		}
	}
}

// What is left of a file decides as before, now and at all times to come.
func TestShortenedDecidesTheSame(t *testing.T) {
	const seed = 13
	r := rand.New(rand.NewPCG(seed, 0))
	lines, left := 0, 0
	for range 1000 {
		text := randomFile(r)
		short := shortened(text, noon)
		lines, left = lines+strings.Count(text, "\n"), left+strings.Count(short, "\n")
		for half := range 12 {
			now := noon.Add(time.Duration(half) * 30 * time.Minute)
			before, _ := Parse(text, now)
			after, err := Parse(short, now)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := decisions(before), decisions(after); a != b {
				t.Fatalf("seed %d: at %v %s, was %s, of\n%s\nfrom\n%s", seed, now, b, a, short, text)
			}
		}
	}
	if left > lines*2/3 {
		t.Errorf("%d of %d lines are left, which proves little", left, lines)
	}
}

// full is a file with room for so many octets and hardly more, because of lines that no longer matter. Its first and its last
// line do.
func full(room int) string {
	const first, last = "192.0.2.1 down\n", "192.0.2.9 up\n"
	long := strings.Replace(last, "\n", " # "+strings.Repeat("x", 1000)+"\n", 1) // few lines are read faster
	text := first + strings.Repeat(long, (maxSize-room-len(first)-len(last))/len(long))
	return text + strings.Repeat(last, (maxSize-room-len(text))/len(last))
}

// A file that is full is replaced, and no less than what matters is in it then.
func TestAddToFull(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "overrides"), filepath.Join(dir, "link")
	if err := os.WriteFile(path, []byte(full(0)), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("overrides", link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	before, _ := os.Stat(path)
	e, err := Add(link, Rule{What: "192.0.2.7", Says: Down, Reason: "kernel update"}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := readWhole(t, path), "192.0.2.1 down\n192.0.2.9 up\n192.0.2.7 down  # kernel update\n"; got != want {
		t.Errorf("the file has %.200q, want %q", got, want)
	}
	after, err := os.Lstat(path)
	if err != nil || after.Mode() != before.Mode() || os.SameFile(before, after) {
		t.Errorf("the file has mode %v, want another file with mode %v (%v)", after.Mode(), before.Mode(), err)
	}
	if got := e.told(); got != "192.0.2.7 is down, was auto (kernel update)" {
		t.Errorf("told %q", got)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
	// With another name it is the same file afterwards.
	if err := os.WriteFile(path, []byte(full(0)), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, filepath.Join(dir, "other")); err != nil {
		t.Skip("no hard links here: ", err)
	}
	if err := addOne(path, Rule{What: "192.0.2.7", Says: Down}, noon); err != nil {
		t.Fatal(err)
	}
	if got, want := readWhole(t, filepath.Join(dir, "other")), "192.0.2.1 down\n192.0.2.9 up\n192.0.2.7 down\n"; got != want {
		t.Errorf("by its other name the file has %.200q, want %q", got, want)
	}
}

// What the kubelet writes is not changed, and somebody told what to do.
func TestAddToConfigMap(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "..2026_11_26_12_00_00.123456789")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "overrides"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overrides")
	if err := errors.Join(os.Symlink(filepath.Base(data), filepath.Join(dir, "..data")), os.Symlink("..data/overrides", path)); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	err := addOne(path, Rule{What: "192.0.2.7", Says: Down}, noon)
	if want := path + " comes from a ConfigMap or Secret, and cannot be changed here; want there, by kubectl edit: 192.0.2.7 down"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := readWhole(t, path); got != "" {
		t.Errorf("the file has %q", got)
	}
	// Nothing is to be done, and so nothing is wrong.
	if e, err := TakeBack(path, "192.0.2.7", "", noon); err != nil || e.told() != "192.0.2.7 is not down by any rule" {
		t.Errorf("%q, %v", e.told(), err)
	}
}

func TestAddWithoutRight(t *testing.T) {
	path := writeFile(t, "overrides", "")
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if file, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		file.Close()
		t.Skip("whoever runs this may write everywhere")
	}
	err := addOne(path, Rule{What: "192.0.2.7", Says: Down}, noon)
	if !errors.Is(err, fs.ErrPermission) || !strings.HasSuffix(err.Error(), "want the right to write it, such as with sudo, or by somebody who has that: 192.0.2.7 down") {
		t.Errorf("error %v", err)
	}
}

// Writers of other processes are this test, with the file and a number in the environment.
func TestAppendProcess(t *testing.T) {
	path, writer := os.Getenv("OVERRIDES_FILE"), os.Getenv("OVERRIDES_WRITER")
	if path == "" {
		t.Skip("this is run by TestConcurrentWriters")
	}
	for i := range linesPerWriter {
		appendPatiently(t, path, Rule{What: fmt.Sprintf("10.1.%s.%d", writer, i), Says: Down, Reason: "process"})
	}
}

const linesPerWriter = 25

// appendPatiently waits for the lock for as long as a busy machine takes.
func appendPatiently(t *testing.T, path string, rule Rule) {
	for {
		err := addOne(path, rule, noon)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "somebody else has had it") {
			t.Error(err)
			return
		}
	}
}

// Of many writers at once none loses a line, also while the file is replaced. Whoever reads finds no mistake.
func TestConcurrentWriters(t *testing.T) {
	if lockless {
		t.Skip("files are not locked here")
	}
	const writers = 4
	// There is room for a few of the lines.
	path := writeFile(t, "overrides", full(100))
	var ended sync.WaitGroup
	for i := range writers {
		ended.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestAppendProcess$")
			cmd.Env = append(os.Environ(), "OVERRIDES_FILE="+path, fmt.Sprint("OVERRIDES_WRITER=", i))
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
		ended.Go(func() {
			for n := range linesPerWriter {
				appendPatiently(t, path, Rule{What: fmt.Sprintf("10.2.%d.%d", i, n), Says: Down})
			}
		})
	}
	done := make(chan struct{})
	go func() { ended.Wait(); close(done) }()
	for reads := 0; ; reads++ {
		r := read(path)
		if _, err := Parse(r.Content, noon); err != nil || r.Err != nil {
			t.Errorf("reading %d: %v %v", reads, err, r.Err)
		}
		select {
		case <-done:
		default:
			continue
		}
		rules, err := Parse(readWhole(t, path), noon)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := rules.Size(), 2+2*writers*linesPerWriter; got != want {
			t.Errorf("%d rules, want %d", got, want)
		}
		if size := len(readWhole(t, path)); size > maxSize/2 {
			t.Errorf("the file has %d octets, so it was not replaced", size)
		}
		return
	}
}

func addOne(path string, rule Rule, now time.Time) error {
	_, err := Add(path, rule, now)
	return err
}
