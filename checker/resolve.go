package checker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// resolve turns "host:port" into an address of the network, which is as in Options. Where there are both it takes an
// IPv4 address, as net.ResolveTCPAddr does. An empty host is this machine.
func resolve(addr, network string, deadline time.Time) (netip.AddrPort, error) {
	var family string // as net.Resolver.LookupNetIP takes it
	switch network {
	case "", "tcp":
		family = "ip"
	case "tcp4":
		family = "ip4"
	case "tcp6":
		family = "ip6"
	default:
		return netip.AddrPort{}, net.UnknownNetworkError(network)
	}
	if target, err := netip.ParseAddrPort(addr); err == nil {
		if is4 := target.Addr().Unmap().Is4(); is4 && family == "ip6" || !is4 && family == "ip4" {
			return netip.AddrPort{}, &net.AddrError{Err: "not an address for the network " + network, Addr: addr}
		}
		return target, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return netip.AddrPort{}, resolveError(err)
	}
	switch {
	case host == "" && family == "ip6":
		host = "::1"
	case host == "":
		host = "127.0.0.1"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if err != nil {
		return netip.AddrPort{}, resolveError(err)
	}
	best := addrs[0] // LookupNetIP returns at least one address or an error
	for _, a := range addrs {
		if a.Unmap().Is4() {
			best = a
			break
		}
	}
	return netip.AddrPortFrom(best.Unmap(), uint16(port)), nil
}

func resolveError(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return ErrTimeout
	}
	return err
}
