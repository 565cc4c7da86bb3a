package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What the commands of docs/peers.md print is what the page shows: a line in the file of one replica drains an address on all.
// The ports are others, and CoreDNS is the program of the test. TestLaptop runs them as they are, as root.
func TestLaptopAsShown(t *testing.T) {
	t.Parallel()
	installed(t, "dig", "bind9-dnsutils")
	drain := fenceWith(t, "sh", "down  # try it")
	shown := fenceWith(t, "txt", "127.0.0.1 answers")
	const undrain = "echo '127.0.0.3 auto' >>laptop/2/overrides"
	if !strings.Contains(readFile(t, "docs/peers.md"), "`"+undrain+"`") {
		t.Errorf("docs/peers.md has no %q", undrain)
	}
	l := startLaptop(t)
	for _, tt := range []struct{ command, want string }{
		{drain, shown},
		{strings.Replace(drain, "echo '127.0.0.3 down  # try it' >>laptop/1/overrides", undrain, 1),
			strings.ReplaceAll(shown, "127.0.0.2\n", "127.0.0.2 127.0.0.3\n")},
	} {
		// What a busy machine has not done after the second in the command it has done after the next one.
		l.UntilNil(func() error {
			if got := l.run(tt.command); got != tt.want {
				return fmt.Errorf("%s\nprints\n%s\nwant\n%s", tt.command, got, tt.want)
			}
			return nil
		})
	}
	l.end()
}

// laptop is a copy of what the commands need, where three replicas run.
type laptop struct {
	*lab.Process
	t     *testing.T
	dir   string
	ports *strings.Replacer // those of the Corefile by others that are free
}

// startLaptop runs the first command.
func startLaptop(t *testing.T) *laptop {
	t.Helper()
	l := &laptop{t: t, dir: t.TempDir(), ports: strings.NewReplacer("1053", strconv.Itoa(port(t)), "7946", strconv.Itoa(port(t)),
		"8053", strconv.Itoa(port(t)))}
	const corefile = "deploy/laptop/Corefile"
	if err := os.MkdirAll(filepath.Join(l.dir, filepath.Dir(corefile)), 0o700); err != nil {
		t.Fatal(err)
	}
	lab.FileIn(t, filepath.Join(l.dir, filepath.Dir(corefile)), filepath.Base(corefile), l.ports.Replace(readFile(t, corefile)))
	cmd := l.command(fenceWith(t, "sh", "go build -o laptop/ ./cmd/coredns"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	l.Process = lab.Start(t, cmd)
	t.Cleanup(func() { syscall.Kill(-l.PID(), syscall.SIGKILL) }) // the replicas are children of the shell
	return l
}

// command returns one of the commands of the page, of a shell in the copy.
func (l *laptop) command(text string) *exec.Cmd {
	l.t.Helper()
	binary, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "go() { mkdir -p laptop && ln -sf \"$COREDNS\" laptop/coredns; }\n"+l.ports.Replace(text))
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), asCoreDNS+"=1", "COREDNS="+binary)
	return cmd
}

// run runs a command and returns what it prints.
func (l *laptop) run(text string) string {
	l.t.Helper()
	output, err := l.command(text).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", text, err, output)
	}
	return string(output)
}

// end is Ctrl-C, which a terminal sends to all of them.
func (l *laptop) end() {
	l.t.Helper()
	if err := syscall.Kill(-l.PID(), syscall.SIGINT); err != nil {
		l.t.Fatal(err)
	}
	l.Wait() // until nobody writes to the log any more, so it is the end of all
}
