package test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// farm is a set of TCP services on one port of several addresses, each of which can die and come back.
type farm struct {
	t         testing.TB
	addrs     []netip.Addr
	port      uint16
	listeners map[netip.Addr]net.Listener
}

func newFarm(t testing.TB, addrs ...string) *farm {
	t.Helper()
	f := &farm{t: t, port: uint16(port(t)), listeners: make(map[netip.Addr]net.Listener)}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		f.addrs = append(f.addrs, addr)
		f.start(addr)
	}
	t.Cleanup(func() {
		for addr := range f.listeners {
			f.kill(addr)
		}
	})
	return f
}

func (f *farm) start(addr netip.Addr) {
	f.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, f.port).String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.listeners[addr] = l
}

func (f *farm) kill(addr netip.Addr) {
	f.listeners[addr].Close()
	delete(f.listeners, addr)
}

func (f *farm) without(addr netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(f.addrs), func(a netip.Addr) bool { return a == addr })
}

// zoneFile writes a zone example.org with the farm's addresses at www.
func (f *farm) zoneFile() string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	b.WriteString("alias 300 IN CNAME www\n")
	for _, addr := range f.addrs {
		rrtype := "A"
		if addr.Is6() {
			rrtype = "AAAA"
		}
		fmt.Fprintf(&b, "www 300 IN %s %s\n", rrtype, addr)
	}
	return lab.File(f.t, "db.example.org", b.String())
}

// hostsBlock is the same for the hosts plugin.
func (f *farm) hostsBlock() string {
	var b strings.Builder
	b.WriteString("hosts {\n")
	for _, addr := range f.addrs {
		fmt.Fprintf(&b, "%s www.example.org\n", addr)
	}
	b.WriteString("}\n")
	return b.String()
}
