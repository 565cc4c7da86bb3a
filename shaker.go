// Package shaker is a CoreDNS plugin that keeps dead addresses out of DNS answers.
//
// It looks at the answers that the plugins below produce, has every address in them checked by a
// half-open TCP handshake, and takes out those whose port does not answer.
package shaker

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-shaker/shaker/internal/resolve"
	"github.com/coredns-shaker/shaker/internal/watch"
)

// name is the plugin's name and its directive in the Corefile.
const name = "shaker"

var log = clog.NewWithPlugin(name)

// Shaker is the handler of one server block.
type Shaker struct {
	Next plugin.Handler

	policies zonePolicies
	lone     zonePolicy   // the only one of them, the zero value where there are more
	zones    plugin.Zones // of the server block
	// keys are what CoreDNS knows of each key of the server block, and near of each of all server blocks that listen where
	// this one does, in the order of the Corefile. They are there when all plugins are set up.
	keys, near []*dnsserver.Config
	elsewhere  plugin.Zones       // of the other server blocks that listen where this one does
	standbys   map[string]standby // by their names, of all stanzas
	instance   *instance
	controller *caddy.Controller
	watches    []*watch.Watch
	resolver   *resolve.Resolver // of names that SRV records lead to
	dnssec     dnssecPlugin      // nil where the server block has none
	coroutines *coroutines       // nil where queries are answered in their own goroutines
	samples    bool              // some queries are samples, from which growth is learned
	// writesAtOnce is set where a plugin may still change a message that it has written.
	writesAtOnce bool
	// filtered and passed are for queries whose answers are looked at, and for all others.
	filtered, passed growth
}

// Name implements plugin.Handler.
func (s *Shaker) Name() string { return name }

// Ready implements ready.Readiness. It speaks for all server blocks, because the ready plugin asks only one
// of them. Where there are other replicas, their verdicts have to be known first.
func (s *Shaker) Ready() bool { return s.instance.watched.Ready() && s.instance.knowsPeers() }
