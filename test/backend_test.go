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

	"github.com/coredns-shaker/shaker/internal/lab"
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

// ServeDNS implements plugin.Handler. It uses the message again that it has written, as a plugin that is not CoreDNS's may.
func (b backend) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Answer = b(r.Question[0])
	err := w.WriteMsg(m)
	m.Rcode, m.Answer = dns.RcodeRefused, nil
	return dns.RcodeSuccess, err
}

// What a plugin does with a message that it has written changes nothing in the answer.
func TestMessageUsedAgain(t *testing.T) {
	const record = "www.example.org. 5 IN A 192.0.2.1"
	below := backend(func(dns.Question) []dns.RR { return lab.Records(t, record) })
	s := start(t, fmt.Sprintf("example.org:0 {\n bind 127.0.0.1\n shaker {\n deny 0.0.0.0/0\n }\n %s\n}", below.directive(t)))
	for range 300 { // some of which are samples
		m := s.ask("www.example.org.", dns.TypeA)
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
			t.Fatalf("answered\n%v", m)
		}
	}
}
