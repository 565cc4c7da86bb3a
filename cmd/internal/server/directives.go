package server

import (
	"errors"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"
)

var errNoCache = errors.New(`cannot place shaker in the chain of plugins: this CoreDNS has no directive "cache", ` +
	`and shaker belongs right before it, so that cached answers are filtered with today's verdicts`)

// Directives returns CoreDNS's order of execution with shaker in its place, and changes nothing. An error means that this
// CoreDNS has no such place.
func Directives() ([]string, error) { return withShaker(dnsserver.Directives) }

// withShaker returns directives, CoreDNS's order of execution, with "shaker" right before "cache". A list that names
// shaker already comes back as it is: whoever put it into plugin.cfg chose its place. The argument is never written to,
// and its place being relative is what lets a newer CoreDNS bring directives that this file has not heard of.
func withShaker(directives []string) ([]string, error) {
	if slices.Contains(directives, "shaker") {
		return slices.Clone(directives), nil
	}
	cache := slices.Index(directives, "cache")
	if cache < 0 {
		return nil, errNoCache
	}
	return slices.Concat(directives[:cache], []string{"shaker"}, directives[cache:]), nil
}
