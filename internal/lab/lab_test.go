package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// outcomeEnv makes TestOutcome the subject of itself.
const outcomeEnv = "LAB_OUTCOME"

// outcomes are the tests that TestOutcome runs in further processes, most of which must not pass.
var outcomes = map[string]func(t *testing.T, l *Lab){
	"passes":     func(t *testing.T, _ *Lab) { t.Log("a mark") },
	"fails":      func(t *testing.T, _ *Lab) { t.Error("a mark") },
	"stops":      func(t *testing.T, _ *Lab) { t.Fatal("a mark") },
	"panics":     func(*testing.T, *Lab) { panic("a mark") },
	"exits":      func(*testing.T, *Lab) { fmt.Println("a mark"); os.Exit(0) },
	"leaks":      func(*testing.T, *Lab) { fmt.Println("a mark"); go func() { select {} }() },
	"skips":      func(t *testing.T, _ *Lab) { t.Skip("a mark") },
	"nests":      func(t *testing.T, _ *Lab) { t.Run("inner", func(t *testing.T) { Run(t, nil) }) },
	"bad host":   func(_ *testing.T, l *Lab) { l.Host("a name that is too long") },
	"bad sysctl": func(_ *testing.T, l *Lab) { l.Sysctl("net.ipv4.no_such_thing", "1") },
	"far sysctl": func(_ *testing.T, l *Lab) { l.Sysctl("kernel.hostname", "lab") },
	"bad rule":   func(_ *testing.T, l *Lab) { l.FilterOut("no such words") },
	"bad stat":   func(_ *testing.T, l *Lab) { l.Stat("NoSuchCounter") },
	"ends in Do": func(t *testing.T, l *Lab) { l.Host("web").Do(t.FailNow) },
	"lives on": func(*testing.T, *Lab) {
		fmt.Printf("pid %d\n", os.Getpid())
		select {}
	},
}

func TestOutcome(t *testing.T) {
	if os.Getenv(outcomeEnv) != "" {
		for name, f := range outcomes {
			t.Run(name, func(t *testing.T) { Run(t, f) })
		}
		inside := os.Getenv(insideEnv) != ""
		t.Run("strays", func(t *testing.T) {
			if !inside {
				Run(t, nil)
			}
		})
		t.Run(fmt.Sprintf("renamed %t", inside), func(t *testing.T) { Run(t, nil) })
		return
	}
	for _, test := range []struct{ name, result, text string }{
		{"passes", "PASS", "a mark"},
		{"fails", "FAIL", "a mark"},
		{"stops", "FAIL", "a mark"},
		{"panics", "FAIL", "a mark"},
		{"exits", "FAIL", "a mark"},
		{"leaks", "FAIL", "found unexpected goroutines"},
		{"skips", "SKIP", "a mark"},
		{"nests", "FAIL", "cannot be nested"},
		{"strays", "FAIL", "did not run"},
		{"renamed false", "FAIL", "did not run"},
		{"bad host", "FAIL", "a name that is too long"},
		{"bad sysctl", "FAIL", "no_such_thing"},
		{"far sysctl", "FAIL", "has to begin with net."},
		{"bad rule", "FAIL", "no such words"},
		{"bad stat", "FAIL", "NoSuchCounter"},
		{"ends in Do", "FAIL", "its namespace is gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if ns, err := newNamespace(); err != nil {
				Skip(t, err)
			} else {
				ns.close()
			}
			wantOutcome(t, outcome(t, test.name), test.result, test.text)
		})
	}
	// In a process that lacks what the lab needs.
	t.Run("without tools", func(t *testing.T) {
		if ns, err := newNamespace(); err != nil {
			Skip(t, err)
		} else {
			ns.close()
		}
		cmd := outcome(t, "passes")
		cmd.Env = append(cmd.Env, "PATH=/nonexistent", requireEnv+"=")
		wantOutcome(t, cmd, "SKIP", "apt-get install ")
		cmd = outcome(t, "passes")
		cmd.Env = append(cmd.Env, "PATH=/nonexistent", requireEnv+"=required")
		wantOutcome(t, cmd, "FAIL", "apt-get install ")
	})
}

// outcome returns a command that runs the subtest of TestOutcome with that name.
func outcome(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name = strings.ReplaceAll(name, " ", "_")
	cmd := exec.Command(binary, "-test.run=^TestOutcome$/^"+name+"$", "-test.v", "-test.paniconexit0")
	cmd.Env = append(os.Environ(), outcomeEnv+"=1")
	return cmd
}

func wantOutcome(t *testing.T, cmd *exec.Cmd, result, text string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if failed := err != nil; failed != (result == "FAIL") {
		t.Errorf("%v, want %s", err, result)
	}
	if !strings.Contains(string(out), "    --- "+result+": TestOutcome/") {
		t.Errorf("not reported as %s", result)
	}
	if !strings.Contains(string(out), text) {
		t.Errorf("not in the output: %q", text)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestPattern(t *testing.T) {
	for name, want := range map[string]string{
		"TestA":            "^TestA$",
		"TestA/one":        "^TestA$/^one$",
		"TestA/1.5|2/#01":  `^TestA$/^1\.5\|2$/^#01$`,
		"TestA/[::1]:80/x": `^TestA$/^\[::1\]:80$/^x$`,
	} {
		if got := pattern(name); got != want {
			t.Errorf("pattern(%q) = %q, want %q", name, got, want)
		}
	}
}

// Names that mean something in a pattern, and names used twice, reach the second process unharmed.
func TestNames(t *testing.T) {
	for _, name := range []string{"[2001:db8::1]:80", "a|b", "1.5 (x)", "twice", "twice"} {
		t.Run(name, func(t *testing.T) {
			ran := false
			Run(t, func(*testing.T, *Lab) { ran = true })
			if inside := os.Getenv(insideEnv) != ""; ran != inside {
				t.Errorf("ran: %t, in the second process: %t", ran, inside)
			}
		})
	}
}

func TestRelay(t *testing.T) {
	var out strings.Builder
	r := &relay{to: &out, name: "TestA/b"}
	for _, chunk := range []string{
		"=== RUN   TestA\n=== RUN   TestA/b\nhalf a line", reached + "\n    a_test.go:1: te", "xt\n",
		"    --- SKIP: TestA/b/c (0.00s)\n", "--- FAIL: TestA (0.00s)\n", "FAIL\n    --- SK",
	} {
		if n, err := r.Write([]byte(chunk)); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !r.reached || r.skipped {
		t.Errorf("reached %t, skipped %t; want true, false", r.reached, r.skipped)
	}
	if _, err := r.Write([]byte("IP: TestA/b (0.01s)")); err != nil {
		t.Fatal(err)
	}
	r.flush()
	if !r.skipped {
		t.Error("skipped unnoticed")
	}
	expected := "half a line=== LAB\n    a_test.go:1: text\n    --- SKIP: TestA/b/c (0.00s)\n"
	if out.String() != expected {
		t.Errorf("relayed:\n%s\nwant:\n%s", out.String(), expected)
	}
}
