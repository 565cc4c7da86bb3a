// Package test runs whole servers, as CoreDNS's own directory of this name does: CoreDNS with shaker in its chain, made
// from a Corefile and seen from outside, as its users see it. What a test looks at is an answer, the status page, a
// metric, the log, or what the process uses. Nothing in it knows a name that shaker does not export.
//
// All servers of the process share one table of targets. Tests that look at all of it, at metrics, at the log or at
// the process, and those that reload or set what the whole process has one of, run alone; the others run in parallel.
package test

// What the servers are made of. Files of tests add the plugins that only they need.
import (
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"

	_ "github.com/coredns-shaker/shaker"
)
