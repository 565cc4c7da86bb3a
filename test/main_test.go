package test

import (
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What is in the environment of a process that is to be CoreDNS itself, with the arguments of that.
const (
	asCoreDNS  = "SHAKER_TEST_COREDNS"
	healthLast = "SHAKER_TEST_HEALTH_LAST" // health is set up after shaker, as in a build where it comes later in plugin.cfg
)

func TestMain(m *testing.M) {
	caddy.Quiet = true
	dnsserver.Quiet = true
	directives := slices.Clone(dnsserver.Directives)
	directives = slices.Insert(directives, slices.Index(directives, "cache"), cacheAboveDirective, "shaker")
	directives = append(directives, backendDirective)
	if os.Getenv(healthLast) != "" {
		i := slices.Index(directives, "health")
		directives = append(slices.Delete(directives, i, i+1), "health")
	}
	dnsserver.Directives = directives
	if os.Getenv(asCoreDNS) != "" {
		caddy.RegisterCaddyfileLoader("signals", caddy.LoaderFunc(func(string) (caddy.Input, error) {
			awaitTraps()
			return nil, nil // another loader has the Corefile
		}))
		coremain.Run()
		os.Exit(0)
	}
	lab.Main(m,
		// CoreDNS's forward does not wait for the goroutine of its connection pool.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/proxy.(*Transport).connManager"),
		// Nor for the one that looks after an upstream that did not answer; between two looks it sleeps for half a second.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/up.(*Probe).Do.func1"),
	)
}

// trapped is the stack of a goroutine of caddy that waits for a signal.
var trapped = regexp.MustCompile(`^goroutine \d+ \[chan receive[^]]*\]:\ngithub\.com/coredns/caddy\.trapSignals`)

// awaitTraps waits until caddy listens to signals. It begins with that in goroutines and does not wait for them, so that
// it may answer queries before. A signal that comes then ends the process as if there were no caddy. Nothing tells but the
// stacks of these goroutines.
func awaitTraps() {
	stacks := make([]byte, 1<<20)
	for {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		if !slices.ContainsFunc(all, func(stack string) bool {
			return strings.Contains(stack, "created by github.com/coredns/caddy.trapSignals") && !trapped.MatchString(stack)
		}) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
