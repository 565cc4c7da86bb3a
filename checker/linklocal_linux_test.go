package checker

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A socket that has connected to a link-local address does not check what is not on that link.
func TestAfterLinkLocal(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		l.Host("peer") // for a link
		p, c := newTestProber(t, Config{Method: MethodSocket})
		for _, addr := range []string{linkLocal(t), "::1"} {
			p.Submit(Check{Target: netip.MustParseAddrPort(net.JoinHostPort(addr, "81")), Timeout: 10 * time.Second})
			if r := c.take(t, 1)[nil]; r.Result != Refused {
				t.Errorf("%s: %v (%v)", addr, r.Result, r.Err)
			}
		}
	})
}

// linkLocal returns a link-local address of this machine, with its zone.
func linkLocal(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			ip, ok := a.(*net.IPNet)
			if ok && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
				return ip.IP.String() + "%" + i.Name
			}
		}
	}
	t.Fatal("no interface has a link-local address")
	return ""
}
