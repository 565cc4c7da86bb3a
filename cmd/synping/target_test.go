package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// zone answers for names; an address in it is of either family.
type zone map[string][]string

func (z zone) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range z[host] {
		addr := netip.MustParseAddr(text)
		if network == "ip" || network == "ip4" == addr.Unmap().Is4() {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (zone) LookupPort(ctx context.Context, network, service string) (int, error) {
	return net.DefaultResolver.LookupPort(ctx, network, service)
}

var names = zone{
	"one.example":  {"192.0.2.1"},
	"both.example": {"2001:db8::1", "::ffff:192.0.2.1", "192.0.2.2"},
}

func TestResolve(t *testing.T) {
	tests := []struct {
		name, network, addr, title string
		addrs                      int
	}{
		{"192.0.2.7:443", "ip", "192.0.2.7:443", "192.0.2.7:443", 0},
		{"192.0.2.7:https", "ip4", "192.0.2.7:443", "192.0.2.7:443", 0},
		{"[2001:DB8::7]:65535", "ip6", "[2001:db8::7]:65535", "[2001:db8::7]:65535", 0},
		{"[fe80::7%eth0]:1", "ip", "[fe80::7%eth0]:1", "[fe80::7%eth0]:1", 0},
		{"[::ffff:192.0.2.7]:443", "ip4", "192.0.2.7:443", "192.0.2.7:443", 0},
		{"one.example:80", "ip", "192.0.2.1:80", "one.example:80 (192.0.2.1:80)", 1},
		{"both.example:80", "ip", "[2001:db8::1]:80", "both.example:80 ([2001:db8::1]:80)", 3},
		{"both.example:80", "ip4", "192.0.2.1:80", "both.example:80 (192.0.2.1:80)", 2},
		{"both.example:80", "ip6", "[2001:db8::1]:80", "both.example:80 ([2001:db8::1]:80)", 1},
	}
	for _, test := range tests {
		targets, err := resolve(t.Context(), names, []string{test.name}, test.network)
		if err != nil {
			t.Errorf("%s, %s: %v", test.name, test.network, err)
			continue
		}
		got := targets[0]
		if got.name != test.name || got.addr.String() != test.addr || got.addrs != test.addrs || got.title() != test.title {
			t.Errorf("%s, %s: %s, %s, %d addresses, %q", test.name, test.network, got.name, got.addr, got.addrs, got.title())
		}
	}
}

func TestResolveErrors(t *testing.T) {
	tests := []struct{ name, network, want string }{
		{"", "ip", "no port: want HOST:PORT, such as example.org:443"},
		{":", "ip", "no port: want HOST:PORT, such as example.org:443"},
		{"one.example", "ip", "no port: want HOST:PORT, such as one.example:443"},
		{"one.example:", "ip", "no port: want HOST:PORT, such as one.example:443"},
		{":80", "ip", "no host: want HOST:PORT, such as localhost:80"},
		{"2001:db8::7:443", "ip", "want an IPv6 address in brackets and a port, such as [2001:db8::1]:443"},
		{"[2001:db8::7]", "ip", "want an IPv6 address in brackets and a port, such as [2001:db8::1]:443"},
		{"one.example:0", "ip", `no such port: "0", want a number from 1 to 65535 or a service such as https`},
		{"one.example:65536", "ip", `no such port: "65536", want`},
		{"one.example:no-such-service", "ip", `no such port: "no-such-service", want`},
		{"[::1]:80", "ip4", "::1 is an IPv6 address: leave -4 out, or give a name or an IPv4 address"},
		{"192.0.2.7:80", "ip6", "192.0.2.7 is an IPv4 address: leave -6 out, or give a name or an IPv6 address"},
		{"none.example:80", "ip", "lookup none.example: no such host"},
		{"none.example:80", "ip4", "no IPv4 address, which -4 asks for: lookup none.example: no such host"},
		{"one.example:80", "ip6", "no IPv6 address, which -6 asks for: lookup one.example: no such host"},
	}
	for _, test := range tests {
		_, err := resolve(t.Context(), names, []string{"both.example:1", test.name}, "ip")
		if test.network != "ip" {
			_, err = resolve(t.Context(), names, []string{test.name}, test.network)
		}
		want := "target " + `"` + test.name + `": ` + test.want
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s, %s: %v, want %s", test.name, test.network, err, want)
		}
	}
}
