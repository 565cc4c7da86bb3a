package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A living, a refusing and a silent host, by every method and on both families.
func TestLabSynping(t *testing.T) {
	for _, method := range []string{"socket", "raw", "dial"} {
		t.Run(method, func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				living, refusing, silent := l.Host("living"), l.Host("refusing"), l.Host("silent")
				living.Listen(443)
				silent.Drop(443)
				for _, v6 := range []bool{false, true} {
					var targets []string
					for _, h := range []*lab.Host{living, refusing, silent} {
						target := h.Addr4.String() + ":443"
						if v6 {
							target = "[" + h.Addr6.String() + "]:443"
						}
						targets = append(targets, target)
					}
					var stdout, stderr bytes.Buffer
					status := run(t.Context(), append([]string{"-method", method, "-n", "2", "-i", "100ms", "-t", "1s"}, targets...), &stdout, &stderr)
					t.Logf("synping -method %s: status %d\n%s", method, status, &stdout)
					if status != 1 || stderr.Len() > 0 {
						t.Errorf("status %d, error output %q", status, &stderr)
					}
					for i, result := range []string{" answered in ", " refused in ", " timeout: no answer within 1s\n"} {
						if n := strings.Count(stdout.String(), targets[i]+result); n != 2 {
							t.Errorf("%s: %d lines with%q, want 2", targets[i], n, result)
						}
					}
					if want := "6 sent, 2 answered, 66.6667% loss"; !strings.Contains(stdout.String(), want) {
						t.Errorf("no %q", want)
					}
					stdout.Reset()
					status = run(t.Context(), []string{"-method", method, "-n", "3", "-i", "1ms", "-t", "10s", "-json", targets[0]}, &stdout, &stderr)
					if status != 0 || stderr.Len() > 0 {
						t.Errorf("the living alone: status %d, error output %q", status, &stderr)
					}
					if n := strings.Count(stdout.String(), `"method":"`+method+`"`); n != 4 {
						t.Errorf("%d lines tell the method, want 3 checks and a summary:\n%s", n, &stdout)
					}
				}
			})
		})
	}
}

// Without the capability, synping says what is missing and how to get it.
func TestRawWithoutCapability(t *testing.T) {
	type outcome struct {
		status         int
		stdout, stderr string
		err            error
	}
	ended := make(chan outcome)
	go func() {
		// Capabilities are a thread's; this one ends with its goroutine, because it stays locked.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			ended <- outcome{err: err}
			return
		}
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), []string{"-method", "raw", "127.0.0.1:1"}, &stdout, &stderr)
		ended <- outcome{status, stdout.String(), stderr.String(), nil}
	}()
	got := <-ended
	if got.err != nil {
		t.Fatal(got.err)
	}
	if got.status != exitFailed || got.stdout != "" || !strings.HasPrefix(got.stderr, "synping: cannot start: ") ||
		!strings.Contains(got.stderr, "CAP_NET_RAW") || !strings.Contains(got.stderr, "setcap cap_net_raw+ep") {
		t.Errorf("status %d, wrote %q, and as error %q", got.status, got.stdout, got.stderr)
	}
}
