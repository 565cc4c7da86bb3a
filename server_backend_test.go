package shaker

import (
	"context"

	"github.com/miekg/dns"
)

// Name implements plugin.Handler.
func (serverBackend) Name() string { return backendDirective }

// ServeDNS implements plugin.Handler.
func (b serverBackend) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Answer = b(r.Question[0])
	return dns.RcodeSuccess, w.WriteMsg(m)
}
