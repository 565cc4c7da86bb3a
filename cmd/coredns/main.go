// Command coredns is CoreDNS with the shaker plugin in it.
//
// It takes the flags of CoreDNS and reads the same Corefile. With -check it reads the Corefile, prints the policies of
// shaker that would be in force, and ends without serving. Which plugins are linked, and which are not and why, is in
// plugins.go. To have shaker in a CoreDNS with all of its plugins, add it to CoreDNS's plugin.cfg right before cache.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	clog "github.com/coredns/coredns/plugin/pkg/log"

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
	onlyCheck := flag.Bool("check", false, "Check the Corefile, print the policies of shaker, and serve nothing")
	flag.Parse()
	if *onlyCheck && !isOn("version") && !isOn("plugins") { // which come first at a start as well
		check()
		return
	}
	coremain.Run()
}

// isOn tells whether a flag of CoreDNS is given that has no value.
func isOn(name string) bool { return flag.Lookup(name).Value.String() == "true" }

// check reads the Corefile as coremain.Run does, and heeds the same flags. The policies are all that goes to standard
// output; with -quiet there is nothing. It does not return after an error.
func check() {
	log.SetFlags(coremain.LogFlags)
	clog.SetOutput(os.Stderr)
	if format := flag.Lookup("log-format").Value.String(); format != "text" {
		failOn(clog.Configure(format, os.Stderr))
	}
	if flag.NArg() > 0 {
		failOn(fmt.Errorf("extra command line arguments: %s", flag.Args()))
	}
	corefile, err := caddy.LoadCaddyfile("dns")
	failOn(err)
	var output io.Writer = os.Stdout
	if dnsserver.Quiet {
		output = io.Discard
	}
	failOn(shaker.Check(output, corefile))
}

// failOn ends the process with an error, if there is one, as coremain does.
func failOn(err error) {
	switch {
	case err == nil:
	case clog.IsJSON():
		clog.Fatal(err)
	default:
		log.Fatal(err)
	}
}
