//go:build unix

package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// On SIGUSR1 caddy forgets the hook that starts look-ups. It acts on signals for the rest of the process, so this
// is for a process of its own.
func TestWatchSignal(t *testing.T) {
	const child = "SHAKER_TEST_SIGNAL"
	if os.Getenv(child) == "" {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWatchSignal$", "-test.count=1")
		// Caddy reads what it starts from without a lock when a signal comes, of which the race detector would tell.
		c.Env = append(os.Environ(), child+"=1", "GORACE=report_bugs=0")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "looked up after each of 3 reloads") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	b := newWatchQueries(t, "127.0.6.8", "127.0.6.9")
	close(b.wait)
	directive := b.directive(t)
	// Each reading of the Corefile watches another name.
	var readings atomic.Int32
	watched := func(reading int32) string { return fmt.Sprintf("w%d.test.", reading) }
	caddy.RegisterCaddyfileLoader("test", caddy.LoaderFunc(func(string) (caddy.Input, error) {
		return corefile(fmt.Sprintf("test:0 {\nbind 127.0.0.1\nshaker {\nwatch %s\n}\n%s\n}\n", watched(readings.Add(1)), directive)), nil
	}))
	caddy.TrapSignals()
	input, err := caddy.LoadCaddyfile("dns")
	if err != nil {
		t.Fatal(err)
	}
	inst, err := caddy.Start(input)
	if err != nil {
		t.Fatal(err)
	}
	served := &server{t: t, inst: inst} // its sockets are handed on
	served.expectServed()
	for reload := range int32(3) {
		var sent time.Time
		lab.Until(t, "the reload", func() bool {
			// caddy may not listen yet, in which case the signal is lost.
			if time.Since(sent) > time.Second {
				sent = time.Now()
				if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
					t.Fatal(err)
				}
			}
			return readings.Load() >= reload+2
		})
		lab.Until(t, "the look-up of the new instance", func() bool { return b.count(watched(readings.Load())) > 0 })
		served.expectServed()
	}
	fmt.Println("looked up after each of 3 reloads")
	os.Exit(0) // what listens to signals does not end
}
