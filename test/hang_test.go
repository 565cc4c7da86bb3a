package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A server of files goes away under a file of overrides. Queries are answered by the rules in force, people are told, and
// neither a reload nor the end waits for the file.
func TestOverridesHang(t *testing.T) { lab.Apart(t, testOverridesHang) }

func testOverridesHang(t *testing.T) {
	hanging, release := lab.HangingDir(t)
	// within waits for what must not wait for ever.
	within := func(what string, do func() error) error {
		t.Helper()
		ended := make(chan error, 1)
		go func() { ended <- do() }()
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			release() // or the end of the test would hang as well
			t.Fatalf("%s hangs", what)
			return nil
		}
	}
	log := lab.CaptureLog(t)
	f := newFarm(t, "127.0.13.1", "127.0.13.2")
	path := filepath.Join(t.TempDir(), "overrides")
	lead := func(target string) {
		t.Helper()
		if err := os.Symlink(target, path+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	lead(lab.File(t, "overrides", "127.0.13.1 down\n"))
	corefile := func(overrides string) string {
		return fmt.Sprintf(`example.org:0 {
			bind 127.0.0.1
			shaker {
				port %d
				interval 100ms
				allow 127.0.0.0/8
				%s
			}
			%s
		}`, f.port, overrides, f.hostsBlock())
	}
	s := start(t, corefile("overrides "+path))
	s.until("www.example.org.", dns.TypeA, f.addrs[1:])

	lead(filepath.Join(hanging, "overrides"))
	log.Expect(t, regexp.MustCompile(`Overrides stay as they were: \S+ has not been read within 5s, so its file system hangs`))
	if n := counted(t, "coredns_shaker_overrides_failed", map[string]string{"file": path}); n != 1 {
		t.Errorf("coredns_shaker_overrides_failed is %v, want 1", n)
	}
	s.until("www.example.org.", dns.TypeA, f.addrs[1:])

	// Another instance cannot begin without its file, and says so after a while.
	err := within("a reload that needs the file", func() error { return s.reload(corefile("overrides " + path)) })
	if want := "overrides: " + path + " has not been read within 5s, so its file system hangs, want a file of rules, which may be empty"; err == nil ||
		!strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %v, want one with %s", err, want)
	}
	s.until("www.example.org.", dns.TypeA, f.addrs[1:])

	if err := within("a reload without the file", func() error { return s.reload(corefile("")) }); err != nil {
		t.Error(err)
	}
	s.until("www.example.org.", dns.TypeA, f.addrs)

	lead(lab.File(t, "overrides", ""))
	if err := s.reload(corefile("overrides " + path)); err != nil {
		t.Error(err)
	}
	lead(filepath.Join(hanging, "overrides"))
	before := log.String()
	lab.Until(t, "another look to hang", func() bool {
		return strings.Count(log.String(), "so its file system hangs") > strings.Count(before, "so its file system hangs")
	})
	within("the end", func() error { s.stop(); return nil })
}
