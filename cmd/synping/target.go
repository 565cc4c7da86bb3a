package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// target is one HOST:PORT of the command line, and what its checks have taught so far.
type target struct {
	name  string // as on the command line
	addr  netip.AddrPort
	addrs int // how many addresses the host has; 0 where it is an address itself
	tally
}

// title names the target in the summary.
func (t *target) title() string {
	if t.addrs == 0 {
		return t.addr.String()
	}
	return fmt.Sprintf("%s (%s)", t.name, t.addr)
}

// resolver is the part of net.Resolver that names need.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupPort(ctx context.Context, network, service string) (int, error)
}

// resolve finds the first address of each target. network is ip, ip4 or ip6.
func resolve(ctx context.Context, r resolver, names []string, network string) ([]*target, error) {
	targets := make([]*target, len(names))
	for i, name := range names {
		t, err := resolveOne(ctx, r, name, network)
		if err != nil {
			return nil, fmt.Errorf("target %q: %w", name, err)
		}
		targets[i] = t
	}
	return targets, nil
}

func resolveOne(ctx context.Context, r resolver, name, network string) (*target, error) {
	host, service, err := split(name)
	if err != nil {
		return nil, err
	}
	port, err := r.LookupPort(ctx, "tcp", service)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("no such port: %q, want a number from 1 to 65535 or a service such as https", service)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		if network == "ip4" && !addr.Is4() {
			return nil, fmt.Errorf("%s is an IPv6 address: leave -4 out, or give a name or an IPv4 address", addr)
		}
		if network == "ip6" && addr.Is4() {
			return nil, fmt.Errorf("%s is an IPv4 address: leave -6 out, or give a name or an IPv6 address", addr)
		}
		return &target{name: name, addr: netip.AddrPortFrom(addr, uint16(port))}, nil
	}
	addrs, err := r.LookupNetIP(ctx, network, host)
	switch {
	case err != nil && network == "ip4":
		return nil, fmt.Errorf("no IPv4 address, which -4 asks for: %w", err)
	case err != nil && network == "ip6":
		return nil, fmt.Errorf("no IPv6 address, which -6 asks for: %w", err)
	case err != nil:
		return nil, err
	}
	return &target{name: name, addr: netip.AddrPortFrom(addrs[0].Unmap(), uint16(port)), addrs: len(addrs)}, nil
}

// split is net.SplitHostPort with errors that say what would be right.
func split(name string) (host, service string, err error) {
	host, service, err = net.SplitHostPort(name)
	bare := strings.Trim(name, "[]")
	switch {
	case err != nil && strings.Contains(bare, ":"):
		return "", "", fmt.Errorf("want an IPv6 address in brackets and a port, such as [2001:db8::1]:443")
	case err != nil, service == "":
		host = strings.TrimSuffix(bare, ":")
		if host == "" {
			host = "example.org"
		}
		return "", "", fmt.Errorf("no port: want HOST:PORT, such as %s", net.JoinHostPort(host, "443"))
	case host == "":
		return "", "", fmt.Errorf("no host: want HOST:PORT, such as %s", net.JoinHostPort("localhost", service))
	}
	return host, service, nil
}
