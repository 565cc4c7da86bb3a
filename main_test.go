package shaker

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// As in a plugin.cfg, so that Corefiles may have the directive.
	directives := slices.Insert(slices.Clone(dnsserver.Directives), slices.Index(dnsserver.Directives, "cache"), name)
	if err := dnsserver.SetDirectives(directives); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
