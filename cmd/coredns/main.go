// Command coredns is CoreDNS with the shaker plugin in it.
//
// It takes the flags of CoreDNS and reads the same Corefile. Which plugins are linked, and which are not and why, is in
// plugins.go. To have shaker in a CoreDNS with all of its plugins, add it to CoreDNS's plugin.cfg right before cache.
package main

import (
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
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
	coremain.Run()
}
