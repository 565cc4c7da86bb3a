package shaker

import (
	"bytes"
	"fmt"
	"io"
	golog "log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A reading is in force when the next one agrees, and mistakes leave what was in force.
func TestOverridesFileTake(t *testing.T) {
	log := serverLog(t)
	f, err := openOverrides(serverFile(t, "overrides", "192.0.2.1 down\n"))
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
		{serverFile(t, "large", strings.Repeat("#", overridesSize+1)), "is larger than 1048576 octets"},
		{serverFile(t, "wrong", "# a comment\n192.0.2.7 drain\n"), `wrong: line 2: "drain" is not possible, want up, down or auto`},
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
		written := serverLog(t)
		golog.SetOutput(&panickingLog{written, "Override: 192.0.2.1 is down"})
		path := serverFile(t, "overrides", "")
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

// A host is drained and comes back, with the file changed in every way that is common.
func TestServerOverrides(t *testing.T) {
	log := serverLog(t)
	f := newFarm(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	dir := t.TempDir()
	path := filepath.Join(dir, "overrides")
	write := func(name, contents string) { serverFileIn(t, dir, name, contents) }
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, "new")); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// As the kubelet replaces a ConfigMap: the key is a link into ..data, which is a link to a directory.
	configMap := func(version, rules string) {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(version+"/overrides", rules)
		link(version, "..data")
	}
	write("overrides", "# nothing yet\n")
	f.kill(f.addrs[2])
	s := serverStart(t, fmt.Sprintf(`example.org:0 {
		shaker {
			port %d
			interval 100ms
			allow 127.0.0.0/8
			overrides %s
		}
		%s
	}`, f.port, path, f.hostsBlock()))
	all, first, second := f.addrs, f.addrs[:1], f.addrs[1:2]
	living := f.addrs[:2]
	s.until("www.example.org.", dns.TypeA, living)
	for _, step := range []struct {
		name   string
		change func()
		want   []netip.Addr
	}{
		{"appended", func() { appendFile(t, path, "127.0.0.2 down # maintenance\n") }, first},
		{"one port", func() { write("overrides", fmt.Sprintf("127.0.0.1:%d down\n", f.port)) }, second},
		{"another port", func() { write("overrides", fmt.Sprintf("127.0.0.1:%d down\n", f.port^1)) }, living},
		{"forced up, by rename", func() {
			write("new", "127.0.0.3 up\n")
			if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
				t.Fatal(err)
			}
		}, all},
		{"all but one, by a ConfigMap", func() {
			configMap("..1", "127.0.0.0/8 down\n127.0.0.2 auto\n")
			link("..data/overrides", "overrides")
		}, second},
		{"another version of it", func() { configMap("..2", "127.0.0.0/8 down\n127.0.0.1 auto\n") }, first},
		{"a mistake does not count", func() {
			write("overrides", "127.0.0.0/8 down\n127.0.0.2 auto\nnonsense\n")
			overridesUntilFailed(t, path)
		}, first},
		{"mended", func() { write("overrides", "127.0.0.2 auto\n127.0.0.1 down\n") }, second},
		{"all down is left to fallback", func() { write("overrides", "127.0.0.0/8 down\n") }, all},
	} {
		step.change()
		took := s.until("www.example.org.", dns.TypeA, step.want)
		t.Logf("%s: in force after %v", step.name, took)
	}
	if want := "Override: 127.0.0.2 is down, was auto"; !strings.Contains(log.String(), want) {
		t.Errorf("the log does not have %q:\n%s", want, log)
	}
	const rules = `
		# HELP coredns_shaker_overrides_rules Number of overrides in force.
		# TYPE coredns_shaker_overrides_rules gauge
		coredns_shaker_overrides_rules{file="FILE"} 1
	`
	if err := testutil.CollectAndCompare(newOverridesCollector(), strings.NewReader(strings.ReplaceAll(rules, "FILE", path)),
		"coredns_shaker_overrides_rules"); err != nil {
		t.Error(err)
	}
	// A mistake in a reload leaves the old instance at work.
	write("overrides", "nonsense\n")
	if _, err := s.inst.Restart(serverInput("example.org:0 {\nshaker {\noverrides " + path + "\n}\nwhoami\n}")); err == nil {
		t.Error("a reload with a mistake in the overrides worked")
	}
	write("overrides", "127.0.0.1 down\n")
	s.until("www.example.org.", dns.TypeA, second)
}

// overridesUntilFailed waits until a mistake in the file was noticed.
func overridesUntilFailed(t *testing.T, path string) {
	t.Helper()
	watchUntil(t, "the mistake to be noticed", func() bool {
		_, _, failed := (*liveOverrides.Load())[path].report()
		return failed
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
