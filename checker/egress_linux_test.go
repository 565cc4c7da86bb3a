package checker

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// crossing is a lab where two hosts have the same addresses, which are reached through near, unless one says otherwise.
type crossing struct {
	*lab.Lab
	near, far *lab.Host
	wire      *lab.Capture
	atFar     *lab.Capture
	shared    []netip.AddrPort // on near and far
	second    []netip.Addr     // further addresses of the prober's machine
}

func newCrossing(l *lab.Lab) *crossing {
	x := &crossing{Lab: l, near: l.Host("near"), far: l.Host("far")}
	for _, h := range []*lab.Host{x.near, x.far} {
		// At once, where an address of IPv6 would get its route a moment later.
		h.IP("route add local 10.99.0.1/32 dev lo", "route add local 2001:db8:99::1/128 dev lo")
		h.Listen(80)
	}
	x.shared = []netip.AddrPort{netip.MustParseAddrPort("10.99.0.1:80"), netip.MustParseAddrPort("[2001:db8:99::1]:80")}
	x.second = []netip.Addr{netip.MustParseAddr("198.18.1.77"), netip.MustParseAddr("2001:db8:1::77")}
	l.IP(
		"addr add 198.18.1.77/32 dev near", "addr add 2001:db8:1::77/128 dev near nodad",
		fmt.Sprintf("route add 10.99.0.1 via %v dev near src %v metric 10", x.near.Addr4, x.near.Addr4.Prev()),
		fmt.Sprintf("route add 10.99.0.1 via %v dev far metric 20", x.far.Addr4),
		fmt.Sprintf("route add 2001:db8:99::1 via %v dev near src %v metric 10", x.near.Addr6, x.near.Addr6.Prev()),
		fmt.Sprintf("route add 2001:db8:99::1 via %v dev far metric 20", x.far.Addr6),
		fmt.Sprintf("route add 10.99.0.1 via %v dev far src %v table 7", x.far.Addr4, x.second[0]),
		fmt.Sprintf("route add 2001:db8:99::1 via %v dev far src %v table 7", x.far.Addr6, x.second[1]),
		"rule add fwmark 7 lookup 7",
	)
	l.IP6("rule add fwmark 7 lookup 7")
	x.wire, x.atFar = l.Capture(), x.far.Capture()
	return x
}

// sentFrom checks the target, which answers, and returns where the SYN came from and whether it went to far.
func (x *crossing) sentFrom(t *testing.T, p *Prober, c *collector, check Check) (source netip.Addr, far bool) {
	t.Helper()
	before, beforeFar := len(x.wire.Packets()), x.atFar.Counts(check.Target).To.SYN
	check.Timeout = 10 * time.Second
	p.Submit(check)
	if r := c.take(t, 1)[check.Tag]; r.Result != Answered {
		t.Errorf("%v: %v (%v)", check.Target, r.Result, r.Err)
	}
	for _, packet := range x.wire.Packets()[before:] {
		if packet.Dst == check.Target && packet.Flags == lab.SYN {
			return packet.Src.Addr(), x.atFar.Counts(check.Target).To.SYN > beforeFar
		}
	}
	t.Errorf("no SYN to %v", check.Target)
	return netip.Addr{}, false
}

// A check leaves from the source, through the interface and with the mark that were asked for.
func TestLabEgress(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				x := newCrossing(l)
				first := []netip.Addr{x.near.Addr4.Prev(), x.near.Addr6.Prev()}
				foreign := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1")}
				mapped := netip.AddrFrom16(x.second[0].As16())
				for _, tt := range []struct {
					name   string
					config Config
					check  []netip.Addr // Check.Source by family
					want   []netip.Addr
					far    bool
				}{
					{name: "nothing asked for", want: first},
					{name: "source", config: Config{Source: x.second}, want: x.second},
					{name: "mapped source", config: Config{Source: []netip.Addr{mapped, x.second[1]}}, want: x.second},
					{name: "source of a check", check: x.second, want: x.second},
					{name: "a check's source goes before the prober's", config: Config{Source: foreign}, check: x.second, want: x.second},
					{name: "interface", config: Config{Interface: "near"}, want: first},
					{name: "another interface", config: Config{Interface: "far"}, want: []netip.Addr{x.far.Addr4.Prev(), x.far.Addr6.Prev()}, far: true},
					{name: "interface and source", config: Config{Interface: "far", Source: x.second}, want: x.second, far: true},
					{name: "mark", config: Config{Mark: 7}, want: x.second, far: true},
					{name: "mark of no rule", config: Config{Mark: 8}, want: first},
				} {
					tt.config.Method = m
					p, c := newTestProber(t, tt.config)
					for i, target := range x.shared {
						check := Check{Target: target}
						if tt.check != nil {
							check.Source = tt.check[i]
						}
						if source, far := x.sentFrom(t, p, c, check); source != tt.want[i] || far != tt.far {
							t.Errorf("%s: SYN from %v, through the far interface %t; want %v, %t", tt.name, source, far, tt.want[i], tt.far)
						}
					}
				}

				// This machine's fault, and named as such.
				p, c := newTestProber(t, Config{Method: m, Source: foreign})
				bound, cb := newTestProber(t, Config{Method: m, Interface: "near"})
				for i, target := range x.shared {
					expectCause(t, "foreign source", p, c, Check{Target: target}, syscall.EADDRNOTAVAIL, "no_address")
					expectCause(t, "foreign source of a check", bound, cb, Check{Target: target, Source: foreign[i]}, syscall.EADDRNOTAVAIL, "no_address")
				}
				expectCause(t, "no route through the interface", bound, cb, Check{Target: netip.AddrPortFrom(x.far.Addr6, 80)},
					syscall.ENETUNREACH, "no_route")
				// For IPv4 the kernel then looks for the target on the link itself (ip_route_output_key_hash_rcu in
				// net/ipv4/route.c). That nobody is there it does not tell a raw socket that is bound to an interface.
				x.Sysctl("net.ipv4.neigh.near.retrans_time_ms", "20")
				alone := Check{Target: netip.AddrPortFrom(x.far.Addr4, 80), Timeout: 10 * time.Second}
				want, wantErr := Unreachable, error(syscall.EHOSTUNREACH)
				if m == MethodRaw {
					alone.Timeout, want, wantErr = 500*time.Millisecond, Timeout, ErrTimeout
				}
				expect(t, "no neighbour on the interface", bound, cb, alone, want, wantErr)
			})
		})
	}
}

func expectCause(t *testing.T, name string, p *Prober, c *collector, check Check, errno syscall.Errno, cause string) {
	t.Helper()
	check.Timeout = 10 * time.Second
	name = fmt.Sprintf("%s, %v", name, check.Target)
	p.Submit(check)
	r := c.take(t, 1)[check.Tag]
	if r.Result != Inconclusive || Cause(r.Err) != cause || !strings.Contains(r.Err.Error(), errno.Error()) {
		t.Errorf("%s: %v (%v), cause %q; want inconclusive (%v), %q", name, r.Result, r.Err, Cause(r.Err), errno, cause)
	}
}

// What the kernel would choose as source is followed as routes and addresses change.
func TestLabRoutesChange(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				x := newCrossing(l)
				p, c := newTestProber(t, Config{Method: m})
				follow := func(what string, want []netip.Addr, far bool) {
					t.Helper()
					for i, target := range x.shared {
						// The news of a change and the next check race for the loop.
						l.Until(fmt.Sprintf("%s: SYN from %v", what, want[i]), func() bool {
							source, toFar := x.sentFrom(t, p, c, Check{Target: target})
							return source == want[i] && toFar == far
						})
					}
				}
				follow("at first", []netip.Addr{x.near.Addr4.Prev(), x.near.Addr6.Prev()}, false)
				l.IP(
					fmt.Sprintf("route replace 10.99.0.1 via %v dev near src %v metric 10", x.near.Addr4, x.second[0]),
					fmt.Sprintf("route replace 2001:db8:99::1 via %v dev near src %v metric 10", x.near.Addr6, x.second[1]),
				)
				follow("another route", x.second, false)
				l.IP6("rule add to 2001:db8:99::1 lookup 7")
				l.IP("rule add to 10.99.0.1 lookup 7",
					fmt.Sprintf("route replace 10.99.0.1 via %v dev far src %v table 7", x.far.Addr4, x.far.Addr4.Prev()),
					fmt.Sprintf("route replace 2001:db8:99::1 via %v dev far src %v table 7", x.far.Addr6, x.far.Addr6.Prev()))
				follow("another rule", []netip.Addr{x.far.Addr4.Prev(), x.far.Addr6.Prev()}, true)
				l.IP("link set dev far down")
				follow("an interface is down", x.second, false)
				// With the address go the routes that name it as source.
				l.IP("addr del 198.18.1.77/32 dev near", "addr del 2001:db8:1::77/128 dev near",
					fmt.Sprintf("route replace 10.99.0.1 via %v dev near", x.near.Addr4),
					fmt.Sprintf("route replace 2001:db8:99::1 via %v dev near", x.near.Addr6))
				follow("an address is gone", []netip.Addr{x.near.Addr4.Prev(), x.near.Addr6.Prev()}, false)
			})
		})
	}
}

// What cannot be used is an error of NewProber that names it.
func TestEgressMistakes(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		addr := netip.MustParseAddr
		for _, tt := range []struct {
			config Config
			want   string
		}{
			{Config{Interface: "nosuch0"}, `interface "nosuch0"`},
			{Config{Source: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}}, "source 192.0.2.2: want at most one address per family"},
			{Config{Source: []netip.Addr{addr("192.0.2.1"), addr("::ffff:192.0.2.2")}}, "source 192.0.2.2: want at most one"},
			{Config{Source: []netip.Addr{addr("fe80::1%lo")}}, "source fe80::1%lo: want at most one address per family, without a zone"},
			{Config{Source: []netip.Addr{{}}}, "source invalid IP: want"},
		} {
			tt.config.Method = m
			p, err := NewProber(tt.config, func([]Report) {})
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: error %v, want %s", tt.config, err, tt.want)
			}
		}
	})
}

// A mark takes a capability.
func TestMarkWithoutCapability(t *testing.T) {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its capabilities
		for _, number := range []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
			if err := dropCapability(number); err != nil {
				failed <- err
				return
			}
		}
		p, err := NewProber(Config{Mark: 7}, func([]Report) {})
		if err == nil {
			p.Close()
		}
		failed <- err
	}()
	if err := <-failed; err == nil || err.Error() != "mark 0x7: setsockopt: operation not permitted" {
		t.Errorf("error %v", err)
	}
}
