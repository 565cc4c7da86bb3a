package shaker

import (
	"slices"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// As in a plugin.cfg, so that Corefiles may have the directive.
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), slices.Index(dnsserver.Directives, "cache"), name)
	goleak.VerifyTestMain(m)
}
