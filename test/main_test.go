package test

import (
	"slices"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	caddy.Quiet = true
	dnsserver.Quiet = true
	directives := slices.Clone(dnsserver.Directives)
	directives = slices.Insert(directives, slices.Index(directives, "cache"), cacheAboveDirective, "shaker")
	dnsserver.Directives = append(directives, backendDirective)
	goleak.VerifyTestMain(m,
		// CoreDNS's forward does not wait for the goroutine of its connection pool.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/proxy.(*Transport).connManager"),
	)
}
