package lab

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// dial connects, closes with a RST, and returns the error. It is os.ErrDeadlineExceeded if nothing came.
func dial(target netip.AddrPort, timeout time.Duration) error {
	d := net.Dialer{Timeout: timeout}
	c, err := d.Dial("tcp", target.String())
	if failure, ok := errors.AsType[net.Error](err); ok && failure.Timeout() {
		return os.ErrDeadlineExceeded
	}
	if err != nil {
		return err
	}
	return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close())
}

// want dials the port of each address; a nil error stands for a connection.
func want(t *testing.T, err error, port uint16, addrs ...netip.Addr) {
	t.Helper()
	// Long enough for a busy machine, where an answer is to come.
	timeout := 5 * time.Second
	if err == os.ErrDeadlineExceeded {
		timeout = 150 * time.Millisecond
	}
	for _, addr := range addrs {
		target := netip.AddrPortFrom(addr, port)
		if got := dial(target, timeout); !errors.Is(got, err) {
			t.Errorf("%v: %v, want %v", target, got, err)
		}
	}
}

func TestReject(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		web.Listen(80)
		web.Listen(81)
		wire := l.Capture()
		for _, test := range []struct {
			kind       Kind
			err4, err6 error
			typ, code  uint8
		}{
			{Reset, syscall.ECONNREFUSED, syscall.ECONNREFUSED, 0, 0},
			{NetUnreachable, syscall.ENETUNREACH, nil, 3, 0},
			{HostUnreachable, syscall.EHOSTUNREACH, nil, 3, 1},
			{ProtUnreachable, syscall.ENOPROTOOPT, nil, 3, 2},
			{PortUnreachable, syscall.ECONNREFUSED, nil, 3, 3},
			{NetProhibited, syscall.ENETUNREACH, nil, 3, 9},
			{HostProhibited, syscall.EHOSTUNREACH, nil, 3, 10},
			{AdminProhibited, syscall.EHOSTUNREACH, nil, 3, 13},
			{NoRoute6, nil, syscall.ENETUNREACH, 1, 0},
			{AdminProhibited6, nil, syscall.EACCES, 1, 1},
			{AddrUnreachable6, nil, syscall.EHOSTUNREACH, 1, 3},
			{PortUnreachable6, nil, syscall.ECONNREFUSED, 1, 4},
			{PolicyFail6, nil, syscall.EACCES, 1, 5},
			{RejectRoute6, nil, syscall.EACCES, 1, 6},
		} {
			t.Run(string(test.kind), func(t *testing.T) {
				for _, h := range []*Host{web, router} {
					before := len(wire.Packets())
					h.Reject(test.kind, 80, 443)
					want(t, test.err4, 80, web.Addr4)
					want(t, test.err6, 80, web.Addr6)
					want(t, nil, 81, web.Addr4, web.Addr6)
					h.Clear()
					want(t, nil, 80, web.Addr4, web.Addr6)

					var errs []Packet
					for _, p := range wire.Packets()[before:] {
						if p.About.IsValid() {
							errs = append(errs, p)
						}
					}
					if test.kind == Reset {
						if len(errs) > 0 {
							t.Errorf("%s: ICMP errors: %+v", h.Name, errs)
						}
						continue
					}
					from, about := h.Addr4, web.Addr4
					if test.err4 == nil {
						from, about = h.Addr6, web.Addr6
					}
					if len(errs) != 1 {
						t.Fatalf("%s: %d ICMP errors, want 1: %+v", h.Name, len(errs), errs)
					}
					e := errs[0]
					if e.ICMPType != test.typ || e.ICMPCode != test.code || e.Src.Addr() != from || e.About != netip.AddrPortFrom(about, 80) {
						t.Errorf("%s: sent %+v, want type %d, code %d from %v about %v", h.Name, e, test.typ, test.code, from, about)
					}
				}
			})
		}
		t.Run("expire", func(t *testing.T) {
			router.Expire(80)
			want(t, syscall.EHOSTUNREACH, 80, web.Addr4, web.Addr6)
			want(t, nil, 81, web.Addr4, web.Addr6)
			router.Clear()
			want(t, nil, 80, web.Addr4, web.Addr6)
			for _, c := range []struct {
				addr netip.Addr
				typ  uint8
			}{{web.Addr4, 11}, {web.Addr6, 3}} {
				if !slices.ContainsFunc(wire.Packets(), func(p Packet) bool {
					return p.About == netip.AddrPortFrom(c.addr, 80) && p.ICMPType == c.typ && p.ICMPCode == 0
				}) {
					t.Errorf("%v: no time exceeded on the wire", c.addr)
				}
			}
		})
		// The kernel's limits would let six through, and from then on one or ten a second; and to all
		// destinations together fifty, and from then on a thousand a second.
		t.Run("many", func(t *testing.T) {
			const n = 300
			router.Reject(HostUnreachable)
			router.Reject(AddrUnreachable6)
			defer router.Clear()
			for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
				for range n {
					want(t, syscall.EHOSTUNREACH, 82, addr)
				}
				expected := Counts{To: Tally{SYN: n}, ICMP: n}
				if got := wire.Counts(netip.AddrPortFrom(addr, 82)); got != expected {
					t.Errorf("%v: %+v, want %+v", addr, got, expected)
				}
			}
		})
	})
}

func TestService(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		addrs := slices.Concat([]netip.Addr{web.Addr4, web.Addr6}, web.Addrs4(3), web.Addrs6(3))
		want(t, syscall.ECONNREFUSED, 80, addrs...)
		for range 3 {
			before := web.Stat("TcpPassiveOpens")
			s := web.Listen(80)
			want(t, nil, 80, addrs...)
			l.Until("all are accepted", func() bool { return s.Accepted() == len(addrs) })
			if n := web.Stat("TcpPassiveOpens") - before; n != len(addrs) {
				t.Errorf("%d handshakes, want %d", n, len(addrs))
			}
			c, err := net.Dial("tcp", netip.AddrPortFrom(web.Addr4, 80).String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s.Close()
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes from a dead service", n)
			}
			want(t, syscall.ECONNREFUSED, 80, addrs...)
		}
	})
}

func TestServiceOfProber(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		want(t, syscall.ECONNREFUSED, 80, l.Addr4, l.Addr6)
		s := l.Listen(80)
		want(t, nil, 80, l.Addr4, l.Addr6, netip.MustParseAddr("127.1.2.3"))
		l.Until("all are accepted", func() bool { return s.Accepted() == 3 })
	})
}

func TestListenStuck(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		s := web.ListenStuck(80, 2)
		target := netip.AddrPortFrom(web.Addr4, 80)
		for range 3 {
			c, err := net.Dial("tcp", target.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		// The client's side of a handshake is done a moment before the server's.
		l.Until("three connections wait", func() bool { return web.Stat("TcpPassiveOpens") == 3 })
		want(t, os.ErrDeadlineExceeded, 80, web.Addr4)
		if n := s.Accepted(); n != 0 {
			t.Errorf("accepted %d", n)
		}
	})
}

func TestDrop(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		web.Listen(80)
		web.Listen(81)
		for _, h := range []*Host{web, router} {
			h.Drop(80, 443)
			want(t, os.ErrDeadlineExceeded, 80, web.Addr4, web.Addr6)
			want(t, os.ErrDeadlineExceeded, 443, web.Addr4)
			want(t, nil, 81, web.Addr4, web.Addr6)
			h.Clear()
			want(t, nil, 80, web.Addr4, web.Addr6)
			h.Drop()
			want(t, os.ErrDeadlineExceeded, 81, web.Addr4, web.Addr6)
			h.Clear()
			want(t, nil, 81, web.Addr4, web.Addr6)
		}
		// One address of many.
		some := web.Addrs4(3)
		web.FilterIn("ip daddr " + some[1].String() + " drop")
		want(t, nil, 80, some[0], some[2])
		want(t, os.ErrDeadlineExceeded, 80, some[1])
	})
}

func TestDown(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web, other := l.Host("web"), l.Host("other")
		web.Listen(80)
		other.Listen(80)
		for range 2 {
			web.Down()
			want(t, os.ErrDeadlineExceeded, 80, web.Addr4, web.Addr6)
			want(t, nil, 80, other.Addr4, other.Addr6)
			web.Up()
			want(t, nil, 80, web.Addr4, web.Addr6)
		}
		web.Down()
		web.Clear()
		want(t, nil, 80, web.Addr4, web.Addr6)
	})
}

// A neighbour that does not answer ARP or neighbour discovery: the kernel itself tells.
func TestNoNeighbour(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		wire := l.Capture()
		for gateway, h := range map[*Host]*Host{l: router, router: web} {
			// Three tries, a second apart unless told otherwise.
			gateway.Sysctl("net.ipv4.neigh."+h.Name+".retrans_time_ms", "20")
			gateway.Sysctl("net.ipv6.neigh."+h.Name+".retrans_time_ms", "20")
			want(t, syscall.EHOSTUNREACH, 80, h.Addr4.Next(), h.Addr6.Next())
		}
		if n := wire.Counts(netip.AddrPortFrom(web.Addr4.Next(), 0), netip.AddrPortFrom(web.Addr6.Next(), 0)).ICMP; n != 2 {
			t.Errorf("%d ICMP errors from the router, want 2", n)
		}
	})
}

func TestUnroute(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		web.Listen(80)
		addrs := []netip.Addr{web.Addr4, web.Addr6, web.Addrs4(1)[0], web.Addrs6(1)[0]}
		wire := l.Capture()
		targets := make([]netip.AddrPort, len(addrs))
		for i, addr := range addrs {
			targets[i] = netip.AddrPortFrom(addr, 80)
		}
		want(t, nil, 80, addrs...)

		before := wire.Counts(targets...)
		router.Unroute()
		want(t, syscall.ENETUNREACH, 80, addrs...)
		want(t, syscall.ENETUNREACH, 80, router.Addr4, router.Addr6)
		if after := wire.Counts(targets...); after != before {
			t.Errorf("something went over the wire: %+v, then %+v", before, after)
		}
		router.Route()
		want(t, nil, 80, addrs...)

		web.Unroute()
		// Or the router would take its default route, back to the prober's machine.
		router.IP("route del 0.0.0.0/0", "route del ::/0")
		want(t, syscall.ENETUNREACH, 80, addrs...)
		if n := wire.Counts(targets...).ICMP - before.ICMP; n != len(addrs) {
			t.Errorf("%d ICMP errors, want %d", n, len(addrs))
		}
		web.Clear()
		want(t, nil, 80, addrs...)
		want(t, syscall.ENETUNREACH, 80, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1"))
	})
}

// The prober's own firewall.
func TestFilterOut(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		web.Listen(80)
		web.Listen(81)
		wire := l.Capture()
		for _, test := range []struct {
			rule       string
			err4, err6 error
		}{
			{"reject with tcp reset", syscall.ECONNREFUSED, syscall.ECONNREFUSED},
			{"reject with icmp type admin-prohibited", syscall.EHOSTUNREACH, nil},
			{"reject with icmpv6 type admin-prohibited", nil, syscall.EACCES},
			{"drop", os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		} {
			before := wire.Counts(netip.AddrPortFrom(web.Addr4, 80)).To.SYN
			l.FilterOut("tcp dport 80 " + test.rule)
			want(t, test.err4, 80, web.Addr4)
			want(t, test.err6, 80, web.Addr6)
			want(t, nil, 81, web.Addr4, web.Addr6)
			after := wire.Counts(netip.AddrPortFrom(web.Addr4, 80)).To.SYN
			if sent := after > before; sent != (test.err4 == nil) {
				t.Errorf("%s: SYNs on the wire: %d, then %d", test.rule, before, after)
			}
			l.Clear()
			want(t, nil, 80, web.Addr4, web.Addr6)
		}
	})
}

func TestLose(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		const sent, percent = 4000, 30
		web := l.Host("web")
		for _, test := range []struct {
			addr           netip.Addr
			came, accepted string // counters of what comes, and of what is not lost then
		}{{web.Addr4, "IpInReceives", "UdpNoPorts"}, {web.Addr6, "Ip6InReceives", "Udp6NoPorts"}} {
			// Not connected, so that the ICMP errors do not come back to it.
			c, err := net.ListenUDP("udp", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// send returns how many were not lost, of those that have come when counter says that all have.
			send := func(counter string) int {
				before, accepted := web.Stat(counter), web.Stat(test.accepted)
				for range sent {
					if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(test.addr, 9)); err != nil {
						t.Fatal(err)
					}
				}
				l.Until(fmt.Sprintf("%d datagrams to %v to come", sent, test.addr), func() bool { return web.Stat(counter)-before >= sent })
				return web.Stat(test.accepted) - accepted
			}
			if n := send(test.accepted); n != sent {
				t.Errorf("%v: %d of %d arrived without loss", test.addr, n, sent)
			}
			web.Lose(percent)
			// Six standard deviations either way: one run in 500 million fails.
			mean, deviation := sent*(1-percent/100.), math.Sqrt(sent*percent/100.*(1-percent/100.))
			if n := float64(send(test.came)); math.Abs(n-mean) > 6*deviation {
				t.Errorf("%v: %v of %d arrived, want %v ± %.0f", test.addr, n, sent, mean, 6*deviation)
			}
			web.Clear()
			if n := send(test.accepted); n != sent {
				t.Errorf("%v: %d of %d arrived after Clear", test.addr, n, sent)
			}
		}
	})
}

func TestDelay(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		web.Listen(80)
		// A busy machine adds to a round trip: some may take too long, but not all, and none is too quick.
		wantRTT := func(port uint16, err error, addr netip.Addr, d time.Duration) {
			l.Until(fmt.Sprintf("a round trip to %v that takes about %v", addr, d), func() bool {
				start := time.Now()
				want(t, err, port, addr)
				rtt := time.Since(start)
				if rtt < d {
					t.Errorf("%v: a round trip took %v with a delay of %v", addr, rtt, d)
				}
				return rtt <= d+25*time.Millisecond
			})
		}
		for _, d := range []time.Duration{30 * time.Millisecond, 60 * time.Millisecond, 0} {
			web.Delay(d)
			if d == 0 {
				web.Delay(time.Hour)
				web.Clear()
			}
			for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
				for range 5 {
					wantRTT(80, nil, addr, d)
					wantRTT(81, syscall.ECONNREFUSED, addr, d)
				}
			}
		}
	})
}

func TestSysctl(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		a, b := l.Host("a"), l.Host("b")
		for i, h := range []*Host{l, a, b} {
			h.Sysctl("net.ipv4.tcp_synack_retries", string(rune('1'+i)))
		}
		for i, h := range []*Host{l, a, b} {
			h.Do(func() {
				got, err := os.ReadFile("/proc/sys/net/ipv4/tcp_synack_retries")
				if wanted := string(rune('1'+i)) + "\n"; err != nil || string(got) != wanted {
					t.Errorf("%s: %q, %v, want %q", h.Name, got, err, wanted)
				}
			})
		}
	})
}
