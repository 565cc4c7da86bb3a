// Package lab is what the tests of this module share: small fixtures, such as [CaptureLog] and [Until], and the
// network that tests run in. It has hosts that accept, refuse, swallow, reject, delay or lose packets, die and
// come back, on IPv4 and on IPv6, and a capture that counts what went over the wire. The network needs Linux, root, iproute2 and nftables; a test skips where one is missing and
// says how to get it. With SHAKER_LAB=required in the environment such a skip is a failure.
//
//	func TestRefused(t *testing.T) {
//		lab.Run(t, func(t *testing.T, l *lab.Lab) {
//			web := l.Host("web")
//			web.Listen(80)
//			web.Drop(81)
//			wire := l.Capture()
//
//			alive := netip.AddrPortFrom(web.Addr4, 80)
//			probe(t, alive)
//			probe(t, netip.AddrPortFrom(web.Addr6, 81))
//
//			want := lab.Counts{To: lab.Tally{SYN: 1, RST: 1}, From: lab.Tally{SYNACK: 1}}
//			if got := wire.Counts(alive); got != want {
//				t.Errorf("on the wire: %+v, want %+v", got, want)
//			}
//		})
//	}
//
// # Processes
//
// A thread can enter another network namespace, but the goroutines and threads that the code under test
// starts would not follow it. Run therefore starts the test binary once more, for this one test, in a
// network namespace of its own: all of that process is the prober's machine. The code before and after
// Run runs in both processes, so Run is best the only statement of its test or subtest; it cannot be
// nested. The second process dies with the first, and every namespace with its process: nothing is left
// in /run/netns. Its coverage is not collected. [Bench] does the same for a benchmark.
//
// # Network
//
// The prober's machine has a loopback interface, no default route, and one link to each of its hosts.
// The n-th host is reached over 198.18.n.0/24 and 2001:db8:n::/64, where the prober has address 1 and the
// host address 2; an address between 3 and 254 is a neighbour that does not exist. The host also owns every
// address of 10.n.0.0/16 and 2001:db8:n:1::/64, see [Host.Addrs4]. A host made with [Host.Host] stands
// behind another, which becomes a router: ICMP errors that come from it come from a third party.
//
// Duplicate address detection and the kernel's rate limits on ICMP errors are off. A host is ready when
// it is returned: it has answered on both families. Its methods are for one goroutine at a time; those of
// [Listener] and [Capture] are for any.
package lab

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

const (
	// requireEnv turns a skip into a failure when it is set to "required".
	requireEnv = "SHAKER_LAB"
	// insideEnv holds the test's name in the process that Run starts.
	insideEnv = "SHAKER_LAB_INSIDE"
	// reached is the line by which the second process says that it has come to Run.
	reached = "=== LAB"
	// patience bounds every wait for something that takes milliseconds unless it never happens. It is long, because
	// it costs nothing until a test fails, and a busy machine must not be what makes it fail.
	patience = time.Minute
)

// Lab is the prober's machine, the only one that a test starts with. It is a [Host] like the others, and
// its namespace is the one of the process.
type Lab = Host

// Run runs f in a network namespace of its own. The test fails or skips as f does.
func Run(t *testing.T, f func(t *testing.T, l *Lab)) {
	t.Helper()
	switch inside := os.Getenv(insideEnv); inside {
	case t.Name():
		fmt.Println(reached)
		f(t, newLab(t))
	case "":
		rerun(t)
	default:
		t.Fatalf("lab: Run of %s cannot be nested in, or stand beside, the Run of %s", t.Name(), inside)
	}
}

// Apart runs f in a process of its own, at the same time as other tests: for those that need CoreDNS for themselves and
// mostly wait. The code before it runs in both processes, as with [Run].
func Apart(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	switch inside := os.Getenv(insideEnv); inside {
	case t.Name():
		fmt.Println(reached)
		f(t)
	case "":
		t.Parallel()
		// The parent is the thread that starts the process (prctl(2), PR_SET_PDEATHSIG), so that has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		again(t, func(cmd *exec.Cmd) error {
			endWithParent(cmd)
			return cmd.Start()
		})
	default:
		t.Fatalf("lab: Apart of %s cannot be nested in, or stand beside, that of %s", t.Name(), inside)
	}
}

// rerun runs the test once more in a process whose network namespace is new.
func rerun(t *testing.T) {
	t.Helper()
	ns, err := prepare()
	if err != nil {
		Skip(t, err)
	}
	defer ns.close()
	again(t, ns.start)
}

// again runs the test once more in a process that start starts.
func again(t *testing.T, start func(*exec.Cmd) error) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &relay{to: t.Output(), name: t.Name()}
	cmd := exec.CommandContext(t.Context(), binary, arguments(t)...)
	cmd.Env = append(os.Environ(), insideEnv+"="+t.Name(),
		// The race detector's runtime sleeps for a second at the end of each process, unless told otherwise.
		"GORACE=atexit_sleep_ms=100 "+os.Getenv("GORACE"))
	cmd.Stdout, cmd.Stderr = out, out
	// A process that the test left behind must not hold this one by its output.
	cmd.WaitDelay = patience
	if err = start(cmd); err == nil {
		err = cmd.Wait()
	}
	out.flush()
	switch {
	case err != nil:
		t.Fatalf("lab: the test failed in its own process: %v", err)
	case !out.reached:
		t.Fatal("lab: the test did not run in its own process: is its name the same each time, and Run or Apart always reached?")
	case out.skipped:
		t.Skip("lab: the test skipped in its own process")
	}
}

// prepare makes the namespace of the second process.
func prepare() (*namespace, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	if err = missingTools(); err == nil {
		// Before the process starts, because package net asks once, at its first use, which
		// addresses the loopback interface has.
		err = ns.setUp()
	}
	if err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

// Skip ends a test that this machine cannot run, and says why and what would help. Where that is root's
// privileges, the reason is fs.ErrPermission.
func Skip(t testing.TB, reason error) {
	t.Helper()
	var remedy string
	if errors.Is(reason, fs.ErrPermission) {
		remedy = fmt.Sprintf("; run it as root: go test -exec 'sudo -E' -run '%s' %s", pattern(t.Name()), packagePath())
	}
	if os.Getenv(requireEnv) == "required" {
		t.Fatalf("lab: %v%s (%s=required does not let the test skip)", reason, remedy, requireEnv)
	}
	t.Skipf("lab: %v%s", reason, remedy)
}

func missingTools() error {
	for tool, pkg := range map[string]string{"ip": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w; install it: apt-get install %s", err, pkg)
		}
	}
	return nil
}

// packagePath returns the import path of the package under test.
func packagePath() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" {
		return strings.TrimSuffix(info.Path, ".test")
	}
	return "./..."
}

// pattern returns the value of -run that matches the test and no other.
func pattern(name string) string {
	levels := strings.Split(name, "/")
	for i, level := range levels {
		levels[i] = "^" + regexp.QuoteMeta(level) + "$"
	}
	return strings.Join(levels, "/")
}

// arguments returns the flags of the second process: those that pick the test, and those of the package
// under test. Flags that name a file to write stay with the first process.
func arguments(t *testing.T) []string {
	args := []string{"-test.run=" + pattern(t.Name()), "-test.v", "-test.count=1", "-test.paniconexit0"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if deadline, ok := t.Deadline(); ok {
		// A tenth earlier than the first process, so that the stacks shown are those of the test.
		args = append(args, fmt.Sprintf("-test.timeout=%v", max(time.Second, time.Until(deadline)*9/10)))
	}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, fmt.Sprintf("-%s=%v", f.Name, f.Value))
		}
	})
	return args
}

// relay passes the second process's output on, line by line, and learns from it how the test went.
type relay struct {
	to               io.Writer
	name             string // of the test
	rest             []byte // the beginning of a line whose end is still to come
	reached, skipped bool
}

func (r *relay) Write(p []byte) (int, error) {
	r.rest = append(r.rest, p...)
	for {
		line, rest, whole := bytes.Cut(r.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		r.line(string(line))
		r.rest = rest
	}
}

// flush takes what is left for the last line.
func (r *relay) flush() {
	if len(r.rest) > 0 {
		r.line(string(r.rest))
		r.rest = nil
	}
}

func (r *relay) line(line string) {
	// What was printed without a line feed stands before this on the same line.
	r.reached = r.reached || strings.HasSuffix(line, reached)
	verdict, name, _ := strings.Cut(strings.TrimLeft(line, " "), ": ")
	name, _, _ = strings.Cut(name, " (")
	switch {
	// The frames of this test, of those above it and of the whole run: the first process has its own.
	case strings.HasPrefix(verdict, "--- ") && strings.HasPrefix(r.name+"/", name+"/"):
		r.skipped = r.skipped || verdict == "--- SKIP" && name == r.name
	case strings.HasPrefix(line, "=== "), line == "PASS", line == "FAIL":
	default:
		fmt.Fprintln(r.to, line)
	}
}
