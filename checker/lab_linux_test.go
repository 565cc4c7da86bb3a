package checker

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// families calls test with an address of the host per family.
func families(t *testing.T, h *lab.Host, test func(t *testing.T, family string, addr netip.Addr)) {
	t.Helper()
	for _, addr := range []netip.Addr{h.Addr4, h.Addr6} {
		family := "IPv4"
		if addr.Is6() {
			family = "IPv6"
		}
		test(t, family, addr)
	}
}

// expect checks one target and compares the result.
func expect(t *testing.T, name string, p *Prober, c *collector, check Check, want Result, wantErr error) {
	t.Helper()
	if check.Timeout == 0 {
		check.Timeout = 300 * time.Millisecond
	}
	if err := p.Submit(check); err != nil {
		t.Fatal(err)
	}
	r := c.take(t, 1)[check.Tag]
	if r.Result != want || wantErr != nil && !errors.Is(r.Err, wantErr) {
		t.Errorf("%s: %v (%v), want %v (%v)", name, r.Result, r.Err, want, wantErr)
	}
}

func TestLabTargets(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Listen(80)
		web.ListenStuck(82, 0)
		web.Drop(83)
		web.Reject(lab.Reset, 84)
		for _, m := range methods() {
			p, c := newTestProber(t, Options{Method: m})
			families(t, web, func(t *testing.T, family string, addr netip.Addr) {
				at := func(port uint16) Check { return Check{Target: netip.AddrPortFrom(addr, port)} }
				name := func(s string) string { return fmt.Sprintf("%s, %s, %s", m, family, s) }
				expect(t, name("open"), p, c, at(80), Answered, nil)
				expect(t, name("closed"), p, c, at(81), Refused, syscall.ECONNREFUSED)
				if m == MethodSocket {
					// A check that completes the handshake takes the last place in the queue.
					expect(t, name("stuck, with room in its queue"), p, c, at(82), Answered, nil)
					expect(t, name("stuck, with room in its queue, again"), p, c, at(82), Answered, nil)
				}
				expect(t, name("black hole"), p, c, at(83), Timeout, ErrTimeout)
				expect(t, name("reset by a firewall"), p, c, at(84), Refused, syscall.ECONNREFUSED)
			})
		}
	})
}

// An ICMP error from elsewhere is about the target, whatever it says.
func TestLabICMP(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		router := l.Host("router")
		web := router.Host("web")
		web.Listen(80)
		kinds4 := []lab.Kind{lab.NetUnreachable, lab.HostUnreachable, lab.ProtUnreachable, lab.PortUnreachable,
			lab.NetProhibited, lab.HostProhibited, lab.AdminProhibited}
		kinds6 := []lab.Kind{lab.NoRoute6, lab.AdminProhibited6, lab.AddrUnreachable6, lab.PortUnreachable6,
			lab.PolicyFail6, lab.RejectRoute6}
		p, c := newTestProber(t, Options{Method: MethodSocket})
		for kind, addr := range combine(kinds4, web.Addr4, kinds6, web.Addr6) {
			router.Reject(kind)
			expect(t, string(kind), p, c, Check{Target: netip.AddrPortFrom(addr, 80)}, Unreachable, nil)
			router.Clear()
		}
		router.Expire(80)
		for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
			expect(t, "time exceeded", p, c, Check{Target: netip.AddrPortFrom(addr, 80)}, Unreachable, nil)
		}
		router.Clear()
		for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
			expect(t, "all clear", p, c, Check{Target: netip.AddrPortFrom(addr, 80)}, Answered, nil)
		}
	})
}

func combine(kinds4 []lab.Kind, addr4 netip.Addr, kinds6 []lab.Kind, addr6 netip.Addr) map[lab.Kind]netip.Addr {
	all := make(map[lab.Kind]netip.Addr)
	for _, k := range kinds4 {
		all[k] = addr4
	}
	for _, k := range kinds6 {
		all[k] = addr6
	}
	return all
}

// A neighbour that does not answer ARP or neighbour discovery is dead; the kernel says so after about
// three seconds.
func TestLabNeighbour(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		l.Host("web")
		p, c := newTestProber(t, Options{Method: MethodSocket})
		ghost4 := netip.MustParseAddr("198.18.1.77")
		ghost6 := netip.MustParseAddr("2001:db8:1::77")
		expect(t, "IPv4", p, c, Check{Target: netip.AddrPortFrom(ghost4, 80), Timeout: 10 * time.Second}, Unreachable, syscall.EHOSTUNREACH)
		expect(t, "IPv6", p, c, Check{Target: netip.AddrPortFrom(ghost6, 80), Timeout: 10 * time.Second}, Unreachable, syscall.EHOSTUNREACH)
	})
}

// What this machine does to its own SYNs is not held against the target.
func TestLabOwnFaults(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Listen(80)
		p, c := newTestProber(t, Options{Method: MethodSocket})
		for _, rule := range []string{
			"tcp dport 80 reject",
			"tcp dport 80 reject with icmpx type admin-prohibited",
		} {
			l.FilterOut(rule)
			families(t, web, func(t *testing.T, family string, addr netip.Addr) {
				check := Check{Target: netip.AddrPortFrom(addr, 80), Timeout: time.Second}
				expect(t, family+", "+rule, p, c, check, Inconclusive, ErrFiltered)
			})
			l.Clear()
		}
		families(t, web, func(t *testing.T, family string, addr netip.Addr) {
			check := Check{Target: netip.AddrPortFrom(addr, 80), Timeout: time.Second}
			expect(t, family+", no rule", p, c, check, Answered, nil)
		})
		nowhere := []string{"203.0.113.1:80", "[2001:db8:ffff::1]:80"}
		for _, target := range nowhere {
			expect(t, "no route to "+target, p, c, Check{Target: netip.MustParseAddrPort(target)}, Inconclusive, syscall.ENETUNREACH)
		}
		l.IP("route add unreachable 203.0.113.0/24", "route add prohibit 203.0.114.0/24", "route add blackhole 203.0.115.0/24")
		for _, target := range []string{"203.0.113.1:80", "203.0.114.1:80", "203.0.115.1:80"} {
			expect(t, "a route that leads nowhere, to "+target, p, c, Check{Target: netip.MustParseAddrPort(target)}, Inconclusive, nil)
		}
	})
}
