// Command coredns is CoreDNS with the shaker plugin in it.
//
// It takes the flags of CoreDNS and reads the same Corefile. Which plugins are linked, and which are not and why, is in
// plugins.go. To have shaker in a CoreDNS with all of its plugins, add it to CoreDNS's plugin.cfg right before cache.
package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"github.com/coredns-shaker/shaker"
)

func main() {
	directives, err := withShaker(dnsserver.Directives)
	if err == nil {
		err = dnsserver.SetDirectives(directives)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "coredns:", err)
		os.Exit(1)
	}
	// CoreDNS prints it with -version and at the start, and has it as revision in coredns_build_info. It is empty unless
	// somebody has set it with -ldflags.
	coremain.GitCommit = cmp.Or(coremain.GitCommit, "shaker "+shaker.Version())
	coremain.Run()
}
