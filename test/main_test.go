package test

import (
	"os"
	"slices"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"go.uber.org/goleak"
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
		coremain.Run()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m,
		// CoreDNS's forward does not wait for the goroutine of its connection pool.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/proxy.(*Transport).connManager"),
		// Nor for the one that looks after an upstream that did not answer; between two looks it sleeps for half a second.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/up.(*Probe).Do.func1"),
	)
}
