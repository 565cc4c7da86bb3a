package lab

import (
	"bufio"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The process in the namespace must not outlive a first process that was killed.
func TestKilled(t *testing.T) {
	if ns, err := newNamespace(); err != nil {
		Skip(t, err)
	} else {
		ns.close()
	}
	// The second process becomes a child of this one when the first is gone.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	cmd := outcome(t, "lives on")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, bufio.NewScanner(out))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// It died by that signal, so this is no news.
	_ = cmd.Wait()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		// ECHILD: the first process has just managed to wait for it, or it is not handed over yet.
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got == pid || err == unix.ECHILD && unix.Kill(pid, 0) == unix.ESRCH {
			break
		}
		if time.Now().After(end) {
			_ = unix.Kill(pid, unix.SIGKILL)
			t.Fatalf("process %d lives on (wait4: %v)", pid, err)
		}
	}
}

// A process without the privileges skips, and says how to run the test.
func TestUnprivileged(t *testing.T) {
	if ns, err := newNamespace(); err != nil {
		Skip(t, err)
	} else {
		ns.close()
	}
	for _, test := range []struct{ require, result string }{{"", "SKIP"}, {"required", "FAIL"}} {
		cmd := outcome(t, "passes")
		cmd.Env = append(cmd.Env, requireEnv+"="+test.require)
		done := make(chan struct{})
		go func() {
			defer close(done)
			// What leaves the bounding set never comes back, so the thread ends here; a process that it
			// starts inherits the set (capabilities(7)).
			runtime.LockOSThread()
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
				t.Error(err)
				return
			}
			wantOutcome(t, cmd, test.result, "go test -exec 'sudo -E' -run '^TestOutcome$/^passes$' github.com/coredns-shaker/shaker/internal/lab")
		}()
		<-done
	}
}

// The namespaces of a process are apart from each other and go when it closes them.
func TestNamespace(t *testing.T) {
	own := link(t)
	seen := map[string]bool{own: true}
	for range 200 {
		ns, err := newNamespace()
		if err != nil {
			Skip(t, err)
		}
		var inside string
		var tid int
		if !ns.do(func() { inside, tid = link(t), unix.Gettid() }) {
			t.Fatal("not run")
		}
		if seen[inside] {
			t.Errorf("%s is not new", inside)
		}
		if tid == os.Getpid() {
			t.Error("the main thread was taken, which cannot end")
		}
		ns.close()
		if ns.do(func() {}) {
			t.Error("runs after close")
		}
	}
	if now := link(t); now != own {
		t.Errorf("the test went from %s to %s", own, now)
	}
}

func link(t *testing.T) string {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

// readPID returns the process id that the command prints.
func readPID(t *testing.T, out *bufio.Scanner) int {
	t.Helper()
	line := regexp.MustCompile(`pid (\d+)$`)
	for out.Scan() {
		if m := line.FindStringSubmatch(out.Text()); m != nil {
			pid, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("the process ended without its id: %v", out.Err())
	return 0
}
