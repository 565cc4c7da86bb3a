package test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A host is drained and comes back, with the file changed in every way that is common.
func TestOverrides(t *testing.T) {
	log := lab.CaptureLog(t)
	f := newFarm(t, "127.0.12.1", "127.0.12.2", "127.0.12.3")
	dir := t.TempDir()
	path := filepath.Join(dir, "overrides")
	write := func(name, contents string) { lab.FileIn(t, dir, name, contents) }
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
	write("overrides", "127.0.12.1 down until 2000-01-01T00:00:00Z # long ago\n")
	f.kill(f.addrs[2])
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
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
		{"appended", func() { lab.AppendFile(t, path, "127.0.12.2 down until 2100-01-01T01:00:00+01:00 # maintenance\n") }, first},
		{"one port", func() { write("overrides", fmt.Sprintf("127.0.12.1:%d down\n", f.port)) }, second},
		{"another port", func() { write("overrides", fmt.Sprintf("127.0.12.1:%d down\n", f.port^1)) }, living},
		{"forced up, by rename", func() {
			write("new", "127.0.12.3 up\n")
			if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
				t.Fatal(err)
			}
		}, all},
		{"all but one, by a ConfigMap", func() {
			configMap("..1", "127.0.0.0/8 down\n127.0.12.2 auto\n")
			link("..data/overrides", "overrides")
		}, second},
		{"another version of it", func() { configMap("..2", "127.0.0.0/8 down\n127.0.12.1 auto\n") }, first},
		{"a mistake does not count", func() {
			write("overrides", "127.0.0.0/8 down\n127.0.12.2 auto\nnonsense\n")
			lab.Until(t, "the mistake to be noticed", func() bool {
				return counted(t, "coredns_shaker_overrides_failed", map[string]string{"file": path}) == 1
			})
		}, first},
		{"mended", func() { write("overrides", "127.0.12.2 auto\n127.0.12.1 down\n") }, second},
		{"all down is left to fallback", func() { write("overrides", "127.0.0.0/8 down\n") }, all},
	} {
		step.change()
		took := s.until("www.example.org.", dns.TypeA, step.want)
		t.Logf("%s: in force after %v", step.name, took)
	}
	for _, want := range []string{"Overrides in " + path + " that had ended before: 1, the last at 2000-01-01T00:00:00Z.",
		"Override: 127.0.12.2 is down until 2100-01-01T00:00:00Z, was auto (maintenance)"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %q:\n%s", want, log)
		}
	}
	if n := counted(t, "coredns_shaker_overrides_rules", map[string]string{"file": path}); n != 1 {
		t.Errorf("%v rules are in force", n)
	}
	// A mistake in a reload leaves the old instance at work.
	write("overrides", "nonsense\n")
	if s.reload("example.org:0 {\nbind 127.0.0.1\nshaker {\noverrides "+path+"\n}\nwhoami\n}") == nil {
		t.Error("a reload with a mistake in the overrides worked")
	}
	write("overrides", "127.0.12.1 down\n")
	s.until("www.example.org.", dns.TypeA, second)
}
