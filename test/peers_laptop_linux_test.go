package test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The commands of docs/peers.md start three replicas on one machine. What somebody drains on one of them is drained on all,
// and the end of that may be written on another.
func TestLaptop(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) { // where the ports are free
		page, err := os.ReadFile("../docs/peers.md")
		if err != nil {
			t.Fatal(err)
		}
		_, section, _ := strings.Cut(string(page), "\n## A group on one machine\n")
		blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(section, 2)
		if len(blocks) != 2 {
			t.Fatal("docs/peers.md does not have the two commands under \"A group on one machine\"")
		}
		drain := regexp.MustCompile(`(?m)^echo '127\.0\.0\.3 down.*$`).FindString(blocks[1][1])
		undo := regexp.MustCompile("`(echo '127\\.0\\.0\\.3 auto'[^`]*)`").FindStringSubmatch(section)
		if drain == "" || undo == nil {
			t.Fatal("docs/peers.md does not say how to drain 127.0.0.3, and how to undo that")
		}
		dir := copyOfRoot(t)
		all := bash(dir, blocks[0][1])
		p := l.Start(all)
		addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
		until := func(want []netip.Addr) {
			t.Helper()
			p.UntilNil(func() error {
				for _, replica := range addrs {
					m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA), fmt.Sprintf("%v:1053", replica))
					if err != nil {
						return err
					}
					if got := addresses(m); !slices.Equal(got, want) {
						return fmt.Errorf("%v answers %v, want %v", replica, got, want)
					}
				}
				return nil
			})
		}
		until(addrs)
		for _, replica := range addrs {
			p.UntilNil(func() error {
				v := new(peersView)
				if err := getJSON(fmt.Sprintf("http://%v:8053/peers.json", replica), v); err != nil {
					return err
				}
				if n := v.alive(); n != 3 {
					return fmt.Errorf("%v hears of %d members, want 3", replica, n)
				}
				return nil
			})
		}
		for _, step := range []struct {
			command string
			want    []netip.Addr
		}{{drain, addrs[:2]}, {undo[1], addrs}} {
			if out, err := bash(dir, step.command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", step.command, err, out)
			}
			until(step.want)
		}
		// Ctrl-C, which all of them get.
		if err := syscall.Kill(-p.PID(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil && !strings.Contains(err.Error(), "interrupt") && !strings.Contains(err.Error(), "status 130") {
			t.Errorf("Ctrl-C: %v", err)
		}
		for _, replica := range addrs {
			if err := getJSON(fmt.Sprintf("http://%v:8053/peers.json", replica), new(peersView)); err == nil {
				t.Errorf("%v serves on after Ctrl-C", replica)
			}
		}
	})
}

// bash is a command for a shell. All that it starts ends with it, and can be signalled as one group.
func bash(dir, command string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWPID}
	return cmd
}

// copyOfRoot is a directory in which everything stands that stands at the top of this repository. Commands may write to it.
func copyOfRoot(t *testing.T) (dir string) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, entry := range entries {
		if name := entry.Name(); name != "laptop" && name != ".git" {
			if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}
