package shaker

import (
	"bytes"
	"fmt"
	"io"
	golog "log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A reading is in force when the next one agrees, and mistakes leave what was in force.
func TestOverridesFileTake(t *testing.T) {
	log := lab.CaptureLog(t)
	f, err := openOverrides(lab.File(t, "overrides", "192.0.2.1 down\n"))
	if err != nil {
		t.Fatal(err)
	}
	var many strings.Builder
	for i := range overridesLines + 5 {
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
		{"the mistake again", reading{content: "x down"}, 2, true, `line 1: "x" is not possible`},
		{"it is told once", reading{content: "x down"}, 2, true, ""},
		{"gone", reading{failure: "no such file"}, 2, true, ""},
		{"still gone", reading{failure: "no such file"}, 2, true, "Overrides stay as they were: no such file"},
		{"back", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, true, ""},
		{"back again", reading{content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, false, "overrides: 2"},
		{"many", reading{content: many.String()}, 2, false, ""},
		{"many again", reading{content: many.String()}, overridesLines + 5, false, "7 more changed"},
		{"empty", reading{}, overridesLines + 5, false, ""},
		{"empty again", reading{}, 0, false, "overrides: 0"},
	} {
		before := len(log.String())
		f.take(step.take)
		rules, _, failed := f.report()
		if rules != step.rules || failed != step.failed {
			t.Errorf("%s: %d rules, failed %v; want %d, %v", step.name, rules, failed, step.rules, step.failed)
		}
		logged := log.String()[before:]
		if !strings.Contains(logged, step.logged) || step.logged == "" && logged != "" {
			t.Errorf("%s: logged %q, want %q", step.name, logged, step.logged)
		}
	}
}

func TestOverridesFileUnusable(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, "is not a regular file"},
		{lab.File(t, "large", strings.Repeat("#", overridesSize+1)), "is larger than 1048576 octets"},
		{lab.File(t, "wrong", "# a comment\n192.0.2.7 drain\n"), `wrong: line 2: "drain" is not possible, want up, down or auto`},
	} {
		if _, err := openOverrides(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.path, err, tt.want)
		}
	}
}

// panickingLog is a log that cannot write some lines.
type panickingLog struct {
	io.Writer
	line string
}

func (l *panickingLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(l.line)) {
		panic("log fault")
	}
	return l.Writer.Write(p)
}

// A panic costs one look at the file, not the process, nor the looks after it.
func TestOverridesFilePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := lab.CaptureLog(t)
		golog.SetOutput(&panickingLog{written, "Override: 192.0.2.1 is down"})
		path := lab.File(t, "overrides", "")
		f, err := openOverrides(path)
		if err != nil {
			t.Fatal(err)
		}
		f.start()
		defer f.stop()
		before := testutil.ToFloat64(panics)
		for _, rule := range []string{"192.0.2.1 down\n", "192.0.2.2 down\n"} {
			appendFile(t, path, rule)
			time.Sleep(3 * overridesEvery)
			synctest.Wait()
		}
		if n := testutil.ToFloat64(panics) - before; n != 1 || !strings.Contains(written.String(), "panic while "+path+" was read: log fault") {
			t.Errorf("%v panics, and in the log\n%s", n, written)
		}
		if rules, _, failed := f.report(); rules != 2 || failed {
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
