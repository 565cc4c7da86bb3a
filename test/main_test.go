package test

import (
	"fmt"
	"os"
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
	directives = append(directives, backendDirective)
	if err := dnsserver.SetDirectives(directives); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// CoreDNS's forward does not wait for the goroutine of its connection pool.
		goleak.IgnoreAnyFunction("github.com/coredns/coredns/plugin/pkg/proxy.(*Transport).connManager"),
	)
}
