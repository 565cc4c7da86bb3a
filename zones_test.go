package shaker

import (
	"context"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/request"
)

// Which server block CoreDNS chooses; ./test has the same with whole servers.
func TestZoneReached(t *testing.T) {
	filters := []dnsserver.FilterFunc{func(context.Context, *request.Request) bool { return false }}
	key := func(zone string, change func(*dnsserver.Config)) *dnsserver.Config {
		cfg := &dnsserver.Config{Zone: zone, Transport: "dns", Port: "53", ListenHosts: []string{"10.0.0.1", "10.0.0.2"}}
		if change != nil {
			change(cfg)
		}
		return cfg
	}
	for _, tt := range []struct {
		name  string
		zone  string
		other *dnsserver.Config // beside that for example.org
		want  bool
	}{
		{"the zone", "example.org.", key("example.net.", nil), true},
		{"a part", "a.example.org.", key("example.net.", nil), true},
		{"above", "org.", key("example.net.", nil), true},
		{"the root", ".", key("a.example.org.", nil), true},
		{"outside", "example.net.", key(".", nil), false},
		{"taken", "a.example.org.", key("a.example.org.", nil), false},
		{"taken with others", "b.a.example.org.", key("a.example.org.", nil), false},
		{"taken in part", "a.example.org.", key("b.a.example.org.", nil), true},
		{"by a shorter zone", "a.example.org.", key("org.", nil), true},
		{"by one as long", "a.example.org.", key("example.org.", nil), true},
		{"by a view", "a.example.org.", key("a.example.org.", func(c *dnsserver.Config) { c.FilterFuncs = filters }), true},
		{"at another port", "a.example.org.", key("a.example.org.", func(c *dnsserver.Config) { c.Port = "54" }), true},
		{"over TLS", "a.example.org.", key("a.example.org.", func(c *dnsserver.Config) { c.Transport = "tls" }), true},
		{"at one of the addresses", "a.example.org.", key("a.example.org.", func(c *dnsserver.Config) { c.ListenHosts = c.ListenHosts[1:] }), true},
		{"at more addresses", "a.example.org.", key("a.example.org.", func(c *dnsserver.Config) { c.ListenHosts = append(c.ListenHosts, "::1") }), false},
	} {
		if got := reaches(tt.zone, key("example.org.", nil), []*dnsserver.Config{tt.other}); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
