package override

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// record keeps what a file tells.
type record struct {
	panicsAt string // the line that cannot be taken; "" for none

	mu     sync.Mutex // protects what follows
	lines  []string
	panics []string
	taken  int // lines that take has returned
}

func (r *record) listener() Listener {
	tell := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if r.panicsAt != "" && strings.HasPrefix(line, r.panicsAt) {
			panic("log fault")
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lines = append(r.lines, line)
	}
	return Listener{Infof: tell, Errorf: tell, Recovered: func(where string, reason any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.panics = append(r.panics, fmt.Sprintf("%s: %v", where, reason))
	}}
}

// take returns the lines that no take before it has returned.
func (r *record) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.lines[r.taken:]
	r.taken = len(r.lines)
	return fresh
}

func (r *record) recovered() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.panics)
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
		{"half written", reading{Content: "192.0.2.1 down\n192.0.2.2 do"}, 1, false, ""},
		{"written", reading{Content: "192.0.2.1 down\n192.0.2.2 down\n"}, 1, false, ""},
		{"written, again", reading{Content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, false, "192.0.2.2 is down, was auto"},
		{"truncated for a moment", reading{}, 2, false, ""},
		{"a mistake", reading{Content: "x down"}, 2, false, ""},
		{"the mistake again", reading{Content: "x down"}, 2, true, `line 1: "x" is neither a CIDR`},
		{"it is told once", reading{Content: "x down"}, 2, true, ""},
		{"gone", reading{Err: errors.New("no such file")}, 2, true, ""},
		{"still gone", reading{Err: errors.New("no such file")}, 2, true, "Overrides stay as they were: no such file"},
		{"back", reading{Content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, true, ""},
		{"back again", reading{Content: "192.0.2.1 down\n192.0.2.2 down\n"}, 2, false, "overrides: 2"},
		{"many", reading{Content: many.String()}, 2, false, ""},
		{"many again", reading{Content: many.String()}, maxLines + 5, false, "7 more changed"},
		{"empty", reading{}, maxLines + 5, false, ""},
		{"empty again", reading{}, 0, false, "overrides: 0"},
	} {
		f.take(step.take)
		rules, _, failed := f.Report()
		if rules != step.rules || failed != step.failed {
			t.Errorf("%s: %d rules, failed %v; want %d, %v", step.name, rules, failed, step.rules, step.failed)
		}
		logged := strings.Join(log.take(), "\n")
		if !strings.Contains(logged, step.logged) || step.logged == "" && logged != "" {
			t.Errorf("%s: logged %q, want %q", step.name, logged, step.logged)
		}
	}
}

// Whatever somebody does who writes the file again and again, the rules come into force, or the log says why not. One look
// in 250 ms sees one of the readings.
func TestFileRewritten(t *testing.T) {
	const rule, mistake, gone = "192.0.2.2 down\n", "192.0.2.2 do", "!"
	for _, tt := range []struct {
		name   string
		finds  func(i int) string // content, or gone
		rules  int                // in force in the end
		failed bool
		logged []string // beginnings of all lines
	}{
		{"as it was", func(int) string { return "192.0.2.1 down\n" }, 1, false, nil},
		{"with other comments", func(i int) string { return fmt.Sprint("192.0.2.1 down # ", i/2) }, 1, false, nil},
		{"as it was, with a new comment each time", func(i int) string { return fmt.Sprint("192.0.2.1 down # ", i) }, 1, false,
			[]string{"Overrides in PATH change faster than they are read, want them to stay for 500ms. Until then the newest that have no mistake are taken every 2s"}},
		{"once", func(int) string { return rule }, 1, false,
			[]string{"Override: 192.0.2.1 is auto, was down", "Override: 192.0.2.2 is down, was auto", "Overrides in force from PATH: 1"}},
		{"with a new comment each time", func(i int) string { return fmt.Sprint(rule, "# ", i) }, 1, false,
			[]string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"never complete, but now and then", func(i int) string {
			return fmt.Sprint("# ", i, "\n", []string{mistake, rule, mistake, mistake}[i%4])
		}, 1, false, []string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"never without a mistake", func(i int) string { return fmt.Sprint("# ", i, "\n", mistake) }, 1, true,
			[]string{"Overrides in PATH change faster", `Overrides stay as they were: PATH: line 2: "do" is not possible`}},
		{"with a mistake each time, from the fifth second on", func(i int) string {
			return fmt.Sprint("# ", i, "\n", []string{rule, mistake}[min(i/20, 1)])
		}, 1, true, []string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down",
			"Overrides in force from PATH: 1", `Overrides stay as they were: PATH: line 2: "do" is not possible`}},
		{"with a mistake each time, until the fifth second", func(i int) string {
			return fmt.Sprint("# ", i, "\n", []string{mistake, rule}[min(i/20, 1)])
		}, 1, false, []string{"Overrides in PATH change faster", `Overrides stay as they were: PATH: line 2: "do" is not possible`,
			"Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"emptied first", func(i int) string { return []string{"", fmt.Sprint(rule, "# ", i)}[i%2] }, 1, false,
			[]string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"emptied, and then as it was", func(i int) string { return []string{"", "192.0.2.1 down\n"}[i%2] }, 1, false,
			[]string{"Overrides in PATH change faster"}},
		{"removed first", func(i int) string { return []string{gone, fmt.Sprint(rule, "# ", i)}[i%2] }, 1, false,
			[]string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"removed or empty", func(i int) string { return []string{gone, ""}[i%2] }, 1, true,
			[]string{"Overrides in PATH change faster", "Overrides stay as they were: no such file"}},
		{"empty or removed", func(i int) string { return []string{"", gone}[i%2] }, 1, true,
			[]string{"Overrides in PATH change faster", "Overrides stay as they were: no such file"}},
		{"for a second, then it stays", func(i int) string { return fmt.Sprint(rule, "# ", min(i, 4)) }, 1, false,
			[]string{"Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
		{"with and without mistake, by turns", func(i int) string { return []string{mistake, rule}[i%2] }, 1, false,
			[]string{"Overrides in PATH change faster", "Override: 192.0.2.1 is auto", "Override: 192.0.2.2 is down", "Overrides in force from PATH: 1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := new(record)
			path := writeFile(t, "overrides", "192.0.2.1 down\n")
			f, err := Open(path, log.listener())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 60 { // 15 s
				time.Sleep(lookEvery)
				r := reading{Content: tt.finds(i), Modified: time.Now()}
				if r.Content == gone {
					r = reading{Err: errors.New("no such file")}
				}
				f.take(r)
			}
			rules, modified, failed := f.Report()
			if rules != tt.rules || failed != tt.failed {
				t.Errorf("%s: %d rules, failed %v; want %d, %v", tt.name, rules, failed, tt.rules, tt.failed)
			}
			if old := time.Since(modified); !failed && old > patience+lookEvery {
				t.Errorf("%s: rules in force are from %v ago", tt.name, old)
			}
			logged := log.take()
			if !slices.EqualFunc(logged, tt.logged, func(line, want string) bool {
				return strings.HasPrefix(line, strings.ReplaceAll(want, "PATH", path))
			}) {
				t.Errorf("%s: logged\n%s\nwant\n%s", tt.name, strings.Join(logged, "\n"), strings.Join(tt.logged, "\n"))
			}
		})
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
		var panics atomic.Bool // at the next look
		f, err := open(path, log.listener(), func(path string) reading {
			if panics.Swap(false) {
				panic("read fault")
			}
			return read(path)
		}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		defer f.Stop()
		for _, rule := range []string{"192.0.2.1 down\n", "192.0.2.2 down\n"} {
			lab.AppendFile(t, path, rule)
			time.Sleep(3 * lookEvery)
			synctest.Wait()
		}
		panics.Store(true)
		time.Sleep(3 * lookEvery)
		synctest.Wait()
		where := "while " + path + " was read: "
		if got, want := log.recovered(), []string{where + "log fault", where + "read fault"}; !slices.Equal(got, want) {
			t.Errorf("panics %q, want %q", got, want)
		}
		if rules, _, failed := f.Report(); rules != 2 || failed {
			t.Errorf("%d rules, failed %v; want 2", rules, failed)
		}
		panics.Store(true)
		if _, err := open(path, log.listener(), f.looks.Read, time.Now); err == nil || !strings.Contains(err.Error(), "could not be read") {
			t.Errorf("a panic in the first look: error %v", err)
		}
	})
}

// hangingFile is one of which a look may hang.
type hangingFile struct {
	mu      sync.Mutex // protects what follows
	begun   int        // looks
	content string
	hung    chan struct{} // looks wait until it is closed
}

func newHangingFile(content string) *hangingFile {
	h := &hangingFile{content: content, hung: make(chan struct{})}
	close(h.hung)
	return h
}

func (h *hangingFile) read(string) reading {
	h.mu.Lock()
	h.begun++
	hung := h.hung
	h.mu.Unlock()
	<-hung
	h.mu.Lock()
	defer h.mu.Unlock()
	return reading{Content: h.content, Modified: time.Now()}
}

func (h *hangingFile) looks() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begun
}

// hang has all looks from now on hang.
func (h *hangingFile) hang() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hung = make(chan struct{})
}

// release ends that.
func (h *hangingFile) release(content string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.content = content
	close(h.hung)
}

// While a look hangs there is no other. People are told once, and again when it has ended.
func TestFileHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(record)
		h := newHangingFile("192.0.2.1 down\n")
		f, err := open("/net/overrides", log.listener(), h.read, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		defer f.Stop()
		for _, step := range []struct {
			name    string
			do      func()
			after   time.Duration
			rules   int
			failed  bool
			looking bool // at most one look
			logged  []string
		}{
			{"for a while", h.hang, hangs, 1, false, true, nil},
			{"too long", func() {}, time.Second, 1, true, true,
				[]string{"Overrides stay as they were: /net/overrides has not been read within 5s, so its file system hangs"}},
			{"for ever", func() {}, time.Hour, 1, true, true, nil},
			{"it ends", func() { h.release("192.0.2.1 down\n") }, time.Second, 1, false, false, []string{"Overrides in force from /net/overrides: 1"}},
			{"for a while, again", h.hang, hangs, 1, false, true, nil},
			{"too long, again", func() {}, time.Second, 1, true, true,
				[]string{"Overrides stay as they were: /net/overrides has not been read within 5s, so its file system hangs"}},
			{"it ends, with other rules", func() { h.release("192.0.2.2 down\n192.0.2.3 up\n") }, time.Second, 2, false, false, []string{
				"Override: 192.0.2.1 is auto, was down", "Override: 192.0.2.2 is down, was auto", "Override: 192.0.2.3 is up, was auto",
				"Overrides in force from /net/overrides: 2"}},
		} {
			looks := h.looks()
			step.do()
			time.Sleep(step.after)
			synctest.Wait()
			rules, _, failed := f.Report()
			if rules != step.rules || failed != step.failed {
				t.Errorf("%s: %d rules, failed %v; want %d, %v", step.name, rules, failed, step.rules, step.failed)
			}
			if logged := log.take(); !slices.Equal(logged, step.logged) {
				t.Errorf("%s: logged %q, want %q", step.name, logged, step.logged)
			}
			if n := h.looks() - looks; step.looking && n > 1 || !step.looking && n < 2 {
				t.Errorf("%s: %d looks have begun", step.name, n)
			}
		}
	})
}

// Whoever stops the file, or opens it, may hold a lock that all others need.
func TestFileHangsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHangingFile("192.0.2.1 down\n")
		f, err := open("/net/overrides", new(record).listener(), h.read, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		h.hang()
		defer h.release("") // the looks that were given up
		time.Sleep(time.Second)
		began := time.Now()
		f.Stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("Stop took %v", took)
		}
		looks := h.looks()
		time.Sleep(time.Hour)
		if n := h.looks() - looks; n != 0 {
			t.Errorf("%d looks after Stop", n)
		}
		began = time.Now()
		_, err = open("/net/overrides", new(record).listener(), h.read, time.Now)
		if want := "/net/overrides has not been read within 5s, so its file system hangs, want a file of rules, which may be empty"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if took := time.Since(began); took != hangs {
			t.Errorf("it took %v to open", took)
		}
	})
}

// The numbers in docs/overrides.md are those of the code.
func TestDocumentedNumbers(t *testing.T) {
	lab.ExpectWords(t, "../../docs/overrides.md",
		fmt.Sprintf("The file is read %s times a second", map[time.Duration]string{time.Second / 4: "four"}[lookEvery]),
		fmt.Sprintf("is taken every %s seconds", map[time.Duration]string{2 * time.Second: "two"}[patience]),
		fmt.Sprintf("has not been read within %s seconds", map[time.Duration]string{5 * time.Second: "five"}[hangs]),
		fmt.Sprintf("A file may have up to %d MiB", maxSize>>20),
		fmt.Sprintf("It has up to %d characters", maxReason),
	)
}
