package shaker

import (
	"slices"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-shaker/shaker/internal/lab"
)

func TestMain(m *testing.M) {
	// As in a plugin.cfg, so that Corefiles may have the directive.
	dnsserver.Directives = slices.Insert(slices.Clone(dnsserver.Directives), slices.Index(dnsserver.Directives, "cache"), name)
	lab.Main(m)
}
