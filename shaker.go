// Package shaker is a CoreDNS plugin that keeps dead addresses out of DNS answers.
//
// It looks at the answers that the plugins below produce, has every address in them checked by a
// half-open TCP handshake, and takes out those whose port does not answer.
package shaker

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// name is the plugin's name and its directive in the Corefile.
const name = "shaker"

var log = clog.NewWithPlugin(name)

// Shaker is the handler of one server block.
type Shaker struct {
	Next plugin.Handler

	policies   zonePolicies
	instance   *instance
	controller *caddy.Controller
	watches    []*watch
}

// Name implements plugin.Handler.
func (s *Shaker) Name() string { return name }
