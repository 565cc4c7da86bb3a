// Package server is CoreDNS with shaker in its place, for mains that differ only in the plugins that they link.
package server

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

// Run is all that a main has to do: it puts shaker into the chain of plugins, and starts CoreDNS with the flags of the
// command line, or with -check reads the Corefile only. It returns when the server has stopped, and ends the process where
// coremain.Run does: after -version and -plugins, after a signal, and with status 1 after an error.
func Run() {
	directives, err := Directives()
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
