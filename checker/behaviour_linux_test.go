package checker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A behaviour is what becomes of a SYN.
type behaviour struct {
	name string
	// arrange sees to it that this becomes of SYNs for the port of the addresses it returns.
	arrange func(s *scene, port uint16) []netip.Addr
	want    outcome
	// dial is what MethodDial makes of it, if not the same: it sees no more than the errno of connect(2).
	dial *outcome
	// raw is what MethodRaw makes of it, if not the same: it is told of every SYN that this machine does not send.
	raw *outcome
	// challenged means that the kernel of MethodSocket sends an ACK before its RST gets there (RFC 5961, section 4).
	challenged bool
}

func (b *behaviour) outcome(m Method) outcome {
	switch {
	case m == MethodDial && b.dial != nil:
		return *b.dial
	case m == MethodRaw && b.raw != nil:
		return *b.raw
	default:
		return b.want
	}
}

type outcome struct {
	result Result
	err    error // nil is any where there has to be one
}

var (
	answered = outcome{result: Answered}
	refused  = outcome{Refused, syscall.ECONNREFUSED}
	timedOut = outcome{Timeout, ErrTimeout}
)

func unreachable(errno syscall.Errno) outcome { return outcome{Unreachable, errno} }

func unknown(err error) *outcome { return &outcome{Inconclusive, err} }

// scene is the lab of the behaviours.
type scene struct {
	*lab.Lab
	web     *lab.Host // linked to the prober's machine
	late    *lab.Host // its answers take longer than the timeouts of those who expect none
	cookies *lab.Host // answers every SYN with a cookie
	far     *lab.Host // behind router
	router  *lab.Host
}

const (
	silence  = 400 * time.Millisecond // timeout of checks that are to stay without an answer
	lateness = 10 * silence           // so that a busy machine is not late enough to see it
)

func newScene(l *lab.Lab) *scene {
	s := &scene{Lab: l, web: l.Host("web"), late: l.Host("late"), cookies: l.Host("cookies"), router: l.Host("router")}
	s.far = s.router.Host("far")
	s.late.Delay(lateness)
	s.cookies.Sysctl("net.ipv4.tcp_syncookies", "2")
	// The kernel asks three times for a neighbour, a second apart unless told otherwise.
	s.Sysctl("net.ipv4.neigh.web.retrans_time_ms", "20")
	s.Sysctl("net.ipv6.neigh.web.retrans_time_ms", "20")
	return s
}

func both(h *lab.Host) []netip.Addr { return []netip.Addr{h.Addr4, h.Addr6} }

// forged returns an arrange for a host that answers SYNs in that way.
func forged(answer func(s *scene, syn lab.Packet) [][]byte) func(s *scene, port uint16) []netip.Addr {
	return func(s *scene, port uint16) []netip.Addr {
		s.web.Forge(port, func(syn lab.Packet) [][]byte { return answer(s, syn) })
		return both(s.web)
	}
}

// replied is forged for a single segment, which is made of one that is in order.
func replied(flags uint8, change func(s *scene, p *lab.Packet)) func(s *scene, port uint16) []netip.Addr {
	return forged(func(s *scene, syn lab.Packet) [][]byte {
		p := syn.Reply(flags)
		change(s, &p)
		return [][]byte{p.Bytes()}
	})
}

// reported is forged for an ICMP error, of a kind per family, about a SYN like the one that came.
func reported(kind4, code4, kind6, code6 uint8, change func(syn *lab.Packet)) func(s *scene, port uint16) []netip.Addr {
	return forged(func(s *scene, syn lab.Packet) [][]byte {
		change(&syn)
		if syn.Src.Addr().Is4() {
			return [][]byte{syn.Error(s.web.Addrs4(1)[0], kind4, code4)}
		}
		return [][]byte{syn.Error(s.web.Addrs6(1)[0], kind6, code6)}
	})
}

func asItIs(*lab.Packet) {}

// stranger is an address of the host that nobody has asked.
func stranger(s *scene, asked netip.Addr) netip.Addr {
	if asked.Is4() {
		return s.web.Addrs4(1)[0]
	}
	return s.web.Addrs6(1)[0]
}

// rejected returns an arrange for a router that answers with an ICMP error.
func rejected(kind lab.Kind, family func(*lab.Host) netip.Addr) func(s *scene, port uint16) []netip.Addr {
	return func(s *scene, port uint16) []netip.Addr {
		s.router.Reject(kind, port)
		return []netip.Addr{family(s.far)}
	}
}

func v4(h *lab.Host) netip.Addr { return h.Addr4 }
func v6(h *lab.Host) netip.Addr { return h.Addr6 }

// firewalled returns an arrange for a firewall of the prober's own machine.
func firewalled(reject string, family func(*lab.Host) netip.Addr) func(s *scene, port uint16) []netip.Addr {
	return func(s *scene, port uint16) []netip.Addr {
		s.FilterOut(fmt.Sprintf("tcp dport %d %s", port, reject))
		return []netip.Addr{family(s.web)}
	}
}

// routed returns an arrange for routes of the prober's own machine that lead nowhere.
func routed(kind, net4, net6 string) func(s *scene, port uint16) []netip.Addr {
	return func(s *scene, _ uint16) []netip.Addr {
		p4, p6 := netip.MustParsePrefix(net4), netip.MustParsePrefix(net6)
		if kind != "" {
			s.IP(fmt.Sprintf("route add %s %v", kind, p4), fmt.Sprintf("route add %s %v", kind, p6))
		}
		return []netip.Addr{p4.Addr().Next(), p6.Addr().Next()}
	}
}

func addresses(texts ...string) func(s *scene, port uint16) []netip.Addr {
	return func(*scene, uint16) (addrs []netip.Addr) {
		for _, text := range texts {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		return addrs
	}
}

// stuck fills the queue of a service that accepts nothing.
func stuck(s *scene, port uint16) []netip.Addr {
	s.web.ListenStuck(port, 0)
	before := s.web.Stat("TcpPassiveOpens")
	s.web.Do(func() {
		conn, err := net.Dial("tcp", netip.AddrPortFrom(s.web.Addr4, port).String())
		if err == nil {
			time.AfterFunc(time.Minute, func() { conn.Close() })
		}
	})
	s.Until("the queue to be full", func() bool { return s.web.Stat("TcpPassiveOpens") == before+1 })
	return both(s.web)
}

var behaviours = []behaviour{
	{name: "open", want: answered,
		arrange: func(s *scene, port uint16) []netip.Addr { s.web.Listen(port); return both(s.web) }},
	{name: "open, behind a router", want: answered,
		arrange: func(s *scene, port uint16) []netip.Addr { s.far.Listen(port); return both(s.far) }},
	{name: "closed", want: refused,
		arrange: func(s *scene, port uint16) []netip.Addr { return both(s.web) }},
	{name: "reset by a firewall", want: refused,
		arrange: func(s *scene, port uint16) []netip.Addr { s.web.Reject(lab.Reset, port); return both(s.web) }},
	{name: "black hole", want: timedOut,
		arrange: func(s *scene, port uint16) []netip.Addr { s.web.Drop(port); return both(s.web) }},
	{name: "stuck, with room in its queue", want: answered,
		arrange: func(s *scene, port uint16) []netip.Addr { s.web.ListenStuck(port, 9); return both(s.web) }},
	{name: "stuck, with a full queue", want: timedOut, arrange: stuck},
	{name: "SYN cookies", want: answered,
		arrange: func(s *scene, port uint16) []netip.Addr { s.cookies.Listen(port); return both(s.cookies) }},
	{name: "late SYN-ACK", want: timedOut,
		arrange: func(s *scene, port uint16) []netip.Addr { s.late.Listen(port); return both(s.late) }},
	{name: "late RST", want: timedOut,
		arrange: func(s *scene, port uint16) []netip.Addr { return both(s.late) }},

	{name: "own loopback, open", want: answered,
		arrange: func(s *scene, port uint16) []netip.Addr { s.Listen(port); return both(s.Lab) }},
	{name: "own loopback, closed", want: refused,
		arrange: func(s *scene, port uint16) []netip.Addr { return both(s.Lab) }},
	{name: "own address, open", want: answered, arrange: func(s *scene, port uint16) []netip.Addr {
		s.Listen(port)
		return []netip.Addr{s.web.Addr4.Prev(), s.web.Addr6.Prev()}
	}},
	{name: "own address, closed", want: refused, arrange: func(s *scene, port uint16) []netip.Addr {
		return []netip.Addr{s.web.Addr4.Prev(), s.web.Addr6.Prev()}
	}},

	// An ICMP error from elsewhere is about the target, whatever it says. A dial cannot tell where it comes from,
	// and blames the target for no errno that this machine may have come up with by itself.
	{name: "net unreachable", arrange: rejected(lab.NetUnreachable, v4),
		want: unreachable(syscall.ENETUNREACH), dial: unknown(syscall.ENETUNREACH)},
	{name: "host unreachable", arrange: rejected(lab.HostUnreachable, v4), want: unreachable(syscall.EHOSTUNREACH)},
	{name: "protocol unreachable", arrange: rejected(lab.ProtUnreachable, v4),
		want: unreachable(syscall.ENOPROTOOPT), dial: unknown(syscall.ENOPROTOOPT)},
	{name: "port unreachable", arrange: rejected(lab.PortUnreachable, v4),
		want: unreachable(syscall.ECONNREFUSED), dial: &refused},
	{name: "net prohibited", arrange: rejected(lab.NetProhibited, v4),
		want: unreachable(syscall.ENETUNREACH), dial: unknown(syscall.ENETUNREACH)},
	{name: "host prohibited", arrange: rejected(lab.HostProhibited, v4), want: unreachable(syscall.EHOSTUNREACH)},
	{name: "prohibited", arrange: rejected(lab.AdminProhibited, v4), want: unreachable(syscall.EHOSTUNREACH)},
	{name: "no route to destination", arrange: rejected(lab.NoRoute6, v6),
		want: unreachable(syscall.ENETUNREACH), dial: unknown(syscall.ENETUNREACH)},
	{name: "prohibited", arrange: rejected(lab.AdminProhibited6, v6),
		want: unreachable(syscall.EACCES), dial: unknown(syscall.EACCES)},
	{name: "address unreachable", arrange: rejected(lab.AddrUnreachable6, v6), want: unreachable(syscall.EHOSTUNREACH)},
	{name: "port unreachable", arrange: rejected(lab.PortUnreachable6, v6),
		want: unreachable(syscall.ECONNREFUSED), dial: &refused},
	{name: "source address failed policy", arrange: rejected(lab.PolicyFail6, v6),
		want: unreachable(syscall.EACCES), dial: unknown(syscall.EACCES)},
	{name: "reject route", arrange: rejected(lab.RejectRoute6, v6),
		want: unreachable(syscall.EACCES), dial: unknown(syscall.EACCES)},
	{name: "time exceeded", want: unreachable(syscall.EHOSTUNREACH),
		arrange: func(s *scene, port uint16) []netip.Addr { s.router.Expire(port); return both(s.far) }},
	{name: "parameter problem", arrange: reported(12, 0, 4, 0, asItIs),
		want: unreachable(syscall.EPROTO), dial: unknown(syscall.EPROTO)},
	// It is about the size of packets, and a SYN is the smallest there is.
	{name: "packet too big", arrange: reported(3, 4, 2, 0, asItIs), want: timedOut},
	{name: "ICMP error about another sequence number", want: timedOut,
		arrange: reported(3, 1, 1, 3, func(syn *lab.Packet) { syn.Seq += 2 })},
	{name: "ICMP error about an earlier sequence number", want: timedOut,
		arrange: reported(3, 1, 1, 3, func(syn *lab.Packet) { syn.Seq-- })},
	{name: "ICMP error about another source port", want: timedOut,
		arrange: reported(3, 1, 1, 3, func(syn *lab.Packet) { syn.Src = netip.AddrPortFrom(syn.Src.Addr(), syn.Src.Port()^1) })},
	{name: "ICMP error about another port", want: timedOut,
		arrange: reported(3, 1, 1, 3, func(syn *lab.Packet) { syn.Dst = netip.AddrPortFrom(syn.Dst.Addr(), 9) })},
	{name: "no neighbour", want: unreachable(syscall.EHOSTUNREACH),
		arrange: addresses("198.18.1.77", "2001:db8:1::77")},

	{name: "duplicate SYN-ACK", want: answered, challenged: true, arrange: forged(func(_ *scene, syn lab.Packet) [][]byte {
		p := syn.Reply(lab.SYN | lab.ACK).Bytes()
		return [][]byte{p, p}
	})},
	{name: "SYN-ACK after a RST", want: refused, arrange: forged(func(_ *scene, syn lab.Packet) [][]byte {
		return [][]byte{syn.Reply(lab.RST | lab.ACK).Bytes(), syn.Reply(lab.SYN | lab.ACK).Bytes()}
	})},
	{name: "SYN-ACK with ECN-echo", want: answered,
		arrange: replied(lab.SYN|lab.ACK|0x40, func(*scene, *lab.Packet) {})},
	{name: "SYN-ACK that acknowledges nothing", want: timedOut,
		arrange: replied(lab.SYN|lab.ACK, func(_ *scene, p *lab.Packet) { p.Ack-- })},
	{name: "SYN-ACK that acknowledges too much", want: timedOut,
		arrange: replied(lab.SYN|lab.ACK, func(_ *scene, p *lab.Packet) { p.Ack++ })},
	{name: "SYN-ACK that acknowledges 0", want: timedOut,
		arrange: replied(lab.SYN|lab.ACK, func(_ *scene, p *lab.Packet) { p.Ack = 0 })},
	{name: "RST that acknowledges nothing", want: timedOut,
		arrange: replied(lab.RST|lab.ACK, func(_ *scene, p *lab.Packet) { p.Ack-- })},
	{name: "RST without an acknowledgment", want: timedOut,
		arrange: replied(lab.RST, func(*scene, *lab.Packet) {})},
	{name: "acknowledgment only", want: timedOut,
		arrange: replied(lab.ACK, func(*scene, *lab.Packet) {})},
	{name: "SYN only", want: timedOut,
		arrange: replied(lab.SYN, func(*scene, *lab.Packet) {})},
	{name: "RST from another address", want: timedOut, arrange: replied(lab.RST|lab.ACK, func(s *scene, p *lab.Packet) {
		p.Src = netip.AddrPortFrom(stranger(s, p.Src.Addr()), p.Src.Port())
	})},
	{name: "SYN-ACK from another address", want: timedOut, arrange: replied(lab.SYN|lab.ACK, func(s *scene, p *lab.Packet) {
		p.Src = netip.AddrPortFrom(stranger(s, p.Src.Addr()), p.Src.Port())
	})},
	{name: "SYN-ACK from another port", want: timedOut, arrange: replied(lab.SYN|lab.ACK, func(_ *scene, p *lab.Packet) {
		p.Src = netip.AddrPortFrom(p.Src.Addr(), 9)
	})},

	// What this machine does to its own SYNs is not held against the target, as far as the method can tell.
	{name: "own firewall, silent", arrange: firewalled("drop", v4),
		want: timedOut, raw: unknown(syscall.EPERM)},
	{name: "own firewall, silent", arrange: firewalled("drop", v6),
		want: timedOut, raw: unknown(syscall.EPERM)},
	{name: "own firewall, reset", arrange: firewalled("reject with tcp reset", v4),
		want: refused, raw: unknown(syscall.EPERM)},
	{name: "own firewall, reset", arrange: firewalled("reject with tcp reset", v6),
		want: refused, raw: unknown(syscall.EPERM)},
	{name: "own firewall", arrange: firewalled("reject", v4),
		want: *unknown(ErrFiltered), dial: &refused, raw: unknown(syscall.EPERM)},
	{name: "own firewall", arrange: firewalled("reject", v6),
		want: *unknown(ErrFiltered), dial: &refused, raw: unknown(syscall.EPERM)},
	{name: "own firewall, prohibited", arrange: firewalled("reject with icmpx type admin-prohibited", v4),
		want: *unknown(ErrFiltered), dial: new(unreachable(syscall.EHOSTUNREACH)), raw: unknown(syscall.EPERM)},
	{name: "own firewall, prohibited", arrange: firewalled("reject with icmpx type admin-prohibited", v6),
		want: *unknown(ErrFiltered), dial: unknown(syscall.EACCES), raw: unknown(syscall.EPERM)},
	{name: "no route", arrange: routed("", "203.0.113.0/24", "2001:db8:fff0::/64"), want: *unknown(syscall.ENETUNREACH)},
	{name: "unreachable route", arrange: routed("unreachable", "203.0.114.0/24", "2001:db8:fff1::/64"),
		want: *unknown(syscall.EHOSTUNREACH), dial: new(unreachable(syscall.EHOSTUNREACH))},
	{name: "prohibited route", arrange: routed("prohibit", "203.0.115.0/24", "2001:db8:fff2::/64"), want: *unknown(syscall.EACCES)},
	{name: "black hole route", arrange: routed("blackhole", "203.0.116.0/24", "2001:db8:fff3::/64"), want: *unknown(syscall.EINVAL)},
}

// Every method makes the same of the same behaviour, on both families, unless the table says otherwise.
func TestLabBehaviour(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) { behave(t, newScene(l), m) })
		})
	}
}

// behave checks all targets at once.
func behave(t *testing.T, s *scene, m Method) {
	var checks []Check
	for i, b := range behaviours {
		port := uint16(100 + i)
		for _, addr := range b.arrange(s, port) {
			check := Check{Target: netip.AddrPortFrom(addr, port), Timeout: 10 * time.Second, Tag: netip.AddrPortFrom(addr, port)}
			if b.want == timedOut {
				check.Timeout = silence
			}
			checks = append(checks, check)
		}
	}
	wire := s.Capture()
	p, c := newTestProber(t, Config{Method: m})
	p.Submit(checks...)
	for tag, r := range c.take(t, len(checks)) {
		target := tag.(netip.AddrPort)
		b := &behaviours[target.Port()-100]
		if r.Err == ErrBusy || r.Err == ErrPaused { // all at once are many for a busy machine
			r = inPlace(t, func() Report {
				p.Submit(Check{Target: target, Timeout: silence})
				return c.take(t, 1)[nil]
			})
		}
		want := b.outcome(m)
		if r.Result != want.result || want.err != nil && !errors.Is(r.Err, want.err) || (r.Err == nil) != (r.Result == Answered) {
			t.Errorf("%s (%v): %v (%v), want %v (%v)", b.name, target.Addr(), r.Result, r.Err, want.result, want.err)
		}
		if timed := r.Result == Answered || r.Result == Refused; timed != (r.RTT > 0) && !untimed(r) {
			t.Errorf("%s (%v): %v with round trip %v", b.name, target.Addr(), r.Result, r.RTT)
		}
		n := wire.Counts(target)
		acks := n.To.ACK + n.To.Data + n.To.FIN
		if m == MethodSocket {
			acks -= overdueACKs(wire.Packets(), target)
		}
		if acks > 0 && m != MethodDial && !(m == MethodSocket && b.challenged && acks == 1) {
			t.Errorf("%s (%v): on the wire %+v", b.name, target.Addr(), n)
		}
	}
	if n := s.cookies.Stat("TcpExtSyncookiesSent"); n < 2 {
		t.Errorf("%d SYN cookies were sent, want at least one per family", n)
	}
}

// expect checks one target until that gets a place, and compares the result.
func expect(t *testing.T, name string, p *Prober, c *collector, check Check, want Result, wantErr error) {
	t.Helper()
	if check.Timeout == 0 {
		check.Timeout = 300 * time.Millisecond
	}
	r := inPlace(t, func() Report {
		if err := p.Submit(check); err != nil {
			t.Fatal(err)
		}
		return c.take(t, 1)[check.Tag]
	})
	if r.Result != want || wantErr != nil && !errors.Is(r.Err, wantErr) {
		t.Errorf("%s: %v (%v), want %v (%v)", name, r.Result, r.Err, want, wantErr)
	}
}
