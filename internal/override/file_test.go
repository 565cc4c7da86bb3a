package override

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// record keeps what a file tells.
type record struct {
	lines    []string
	panics   []string
	panicsAt string // the line that cannot be taken; "" for none
}

func (r *record) listener() Listener {
	tell := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if r.panicsAt != "" && strings.HasPrefix(line, r.panicsAt) {
			panic("log fault")
		}
		r.lines = append(r.lines, line)
	}
	return Listener{Infof: tell, Errorf: tell, Recovered: func(where string, reason any) {
		r.panics = append(r.panics, fmt.Sprintf("%s: %v", where, reason))
	}}
}

func writeFile(t testing.TB, name, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A reading is in force when the next one agrees, and mistakes leave what was in force.
func TestFileTake(t *testing.T) {
	log := new(record)
	f, err := Open(writeFile(t, "overrides", "192.0.2.1 down\n"), log.listener())
	if err != nil {
		t.Fatal(err)
	}
	var many strings.Builder
	for i := range maxLines + 5 {
		fmt.Fprintf(&many, "198.51.100.%d down\n", i)
	}
	first := f.last
	for _, step := range []struct {
		name   string
		take   reading
		rules  int
		failed bool
		logged string // one line of the log for this step; "" for none
	}{
		{"the same", first, 1, false, ""},
		{"half written", reading{content: "192.0.2.1 down\n192.0.2.2 do"}, 1, false, ""},
		{"written", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 1, false, ""},
		{"written, again", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, false, "192.0.2.2 is down, was auto"},
		{"truncated for a moment", reading{}, 2, false, ""},
		{"a mistake", reading{content: "x down"}, 2, false, ""},
		{"the mistake again", reading{content: "x down"}, 2, true, `line 1: "x" is neither a CIDR`},
		{"it is told once", reading{content: "x down"}, 2, true, ""},
		{"gone", reading{failure: "no such file"}, 2, true, ""},
		{"still gone", reading{failure: "no such file"}, 2, true, "Overrides stay as they were: no such file"},
		{"back", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, true, ""},
		{"back again", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, false, "overrides: 2"},
		{"many", reading{content: many.String()}, 2, false, ""},
		{"many again", reading{content: many.String()}, maxLines + 5, false, "7 more changed"},
		{"empty", reading{}, maxLines + 5, false, ""},
		{"empty again", reading{}, 0, false, "overrides: 0"},
	} {
		before := len(log.lines)
		f.take(step.take)
		rules, _, failed := f.Report()
		if rules != step.rules || failed != step.failed {
			t.Errorf("%s: %d rules, failed %v; want %d, %v", step.name, rules, failed, step.rules, step.failed)
		}
		logged := strings.Join(log.lines[before:], "\n")
		if !strings.Contains(logged, step.logged) || step.logged == "" && logged != "" {
			t.Errorf("%s: logged %q, want %q", step.name, logged, step.logged)
		}
	}
}

func TestFileUnusable(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, "is not a regular file"},
		{writeFile(t, "large", strings.Repeat("#", maxSize+1)), "is larger than 1048576 octets"},
		{writeFile(t, "wrong", "# a comment\n192.0.2.7 drain\n"), `wrong: line 2: "drain" is not possible, want up, down or auto`},
	} {
		if _, err := Open(tt.path, new(record).listener()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.path, err, tt.want)
		}
	}
}

// A panic costs one look at the file, not the process, nor the looks after it.
func TestFilePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &record{panicsAt: "Override: 192.0.2.1 is down"}
		path := writeFile(t, "overrides", "")
		f, err := Open(path, log.listener())
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		defer f.Stop()
		for _, rule := range []string{"192.0.2.1 down\n", "192.0.2.2 down\n"} {
			appendFile(t, path, rule)
			time.Sleep(3 * lookEvery)
			synctest.Wait()
		}
		if want := []string{"while " + path + " was read: log fault"}; !slices.Equal(log.panics, want) {
			t.Errorf("panics %q, want %q", log.panics, want)
		}
		if rules, _, failed := f.Report(); rules != 2 || failed {
			t.Errorf("%d rules, failed %v; want 2", rules, failed)
		}
	})
}

func appendFile(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
