//go:build unix

package shaker

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
)

// On SIGUSR1 caddy forgets the hook that starts look-ups. It acts on signals for the rest of the process, so this
// is for a process of its own.
func TestServerWatchSignal(t *testing.T) {
	const child = "SHAKER_TEST_SIGNAL"
	if os.Getenv(child) == "" {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerWatchSignal$", "-test.count=1")
		// Caddy reads what it starts from without a lock when a signal comes, of which the race detector would tell.
		c.Env = append(os.Environ(), child+"=1", "GORACE=report_bugs=0")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "looked up after each of 3 reloads") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	serverSetUp()
	b := watchQueriesUse(t, "127.0.6.8", "127.0.6.9")
	close(b.wait)
	port := freePort(t)
	caddy.RegisterCaddyfileLoader("test", caddy.LoaderFunc(func(string) (caddy.Input, error) {
		return serverInput(fmt.Sprintf("test:%d {\nbind 127.0.0.1\nshaker {\nwatch a.test\n}\ntestbackend\n}\n", port)), nil
	}))
	caddy.TrapSignals()
	input, err := caddy.LoadCaddyfile("dns")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := caddy.Start(input); err != nil {
		t.Fatal(err)
	}
	newest := func() *instance {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		return shared.leases[len(shared.leases)-1]
	}
	for range 3 {
		before := newest()
		// caddy may not listen yet, in which case the signal is lost.
		var sent time.Time
		watchUntil(t, "the reload", func() bool {
			if time.Since(sent) > time.Second {
				sent = time.Now()
				if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
			}
			return newest() != before
		})
		watchUntil(t, "the look-up of the new instance", func() bool {
			w := newest().handlers[0].watches[0]
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.known
		})
	}
	fmt.Println("looked up after each of 3 reloads")
	os.Exit(0) // what listens to signals does not end
}
