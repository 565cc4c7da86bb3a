package test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// backend is a plugin that answers what the test wants. Any goroutine may call it.
type backend func(q dns.Question) []dns.RR

// backendDirective is its place in a Corefile. The argument tells which of the backends it is.
const backendDirective = "testbackend"

var backends sync.Map // by their number

// directive returns the line of a Corefile that makes b answer.
func (b backend) directive(t testing.TB) string {
	t.Helper()
	// A port is a number that no other test has at the same time.
	number := fmt.Sprint(port(t))
	backends.Store(number, b)
	t.Cleanup(func() { backends.Delete(number) })
	return backendDirective + " " + number
}

func init() {
	plugin.Register(backendDirective, func(c *caddy.Controller) error {
		c.Next()
		number := c.RemainingArgs()[0]
		b, ok := backends.Load(number)
		if !ok {
			return c.Errf("there is no backend %s", number)
		}
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return b.(backend) })
		return nil
	})
}

// Name implements plugin.Handler.
func (backend) Name() string { return backendDirective }

// ServeDNS implements plugin.Handler.
func (b backend) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Answer = b(r.Question[0])
	return dns.RcodeSuccess, w.WriteMsg(m)
}
