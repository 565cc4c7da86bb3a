package checker

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// loopback are this machine's loopback addresses by network, with port 0.
func loopback(t *testing.T) map[string]string {
	t.Helper()
	if !hasIPv6(t) {
		return map[string]string{"tcp4": "127.0.0.1:0"}
	}
	return map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}
}

// resetter is a listener that resets each connection as soon as it has accepted it.
type resetter struct {
	addr  netip.AddrPort
	reset chan struct{} // one for each connection
}

func newResetter(t *testing.T, network, addr string, finFirst bool) *resetter {
	t.Helper()
	at, l := listen(t, network, addr)
	r := &resetter{addr: at, reset: make(chan struct{}, 1<<16)}
	acceptAll(t, l, func(conn int) {
		if finFirst {
			unix.Shutdown(conn, unix.SHUT_WR)
		}
		unix.SetsockoptLinger(conn, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(conn)
		r.reset <- struct{}{}
	})
	return r
}

// starved is a socketProber that gets no CPU between a SYN and the look at its answer, until wait returns.
type starved struct {
	*socketProber
	wait func()
	left bool // a SYN has, since wait returned
}

func (p *starved) launch(f *flight, old *try, now time.Time) error {
	p.left = true
	return p.socketProber.launch(f, old, now)
}

func (p *starved) flush() {
	if p.left {
		p.wait()
		p.left = false
	}
}

func newStarvedProber(t *testing.T, wait func()) (*Prober, *collector) {
	t.Helper()
	c := newCollector()
	p := &socketProber{pool: 1, idle: make(map[origin]*idleSockets)}
	if err := p.open(&Config{}, 1, c.deliver); err != nil {
		t.Fatal(err)
	}
	p.start(&starved{socketProber: p, wait: wait})
	prober := &Prober{backend: p}
	t.Cleanup(prober.Close)
	return prober, c
}

// A process that got no CPU for longer than the kernel withholds the ACK finds its handshake complete, and maybe
// reset by the host. Either way the port has answered.
func TestResetAfterHandshake(t *testing.T) {
	for network, addr := range loopback(t) {
		for name, finFirst := range map[string]bool{"RST": false, "FIN and RST": true} {
			t.Run(network+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newResetter(t, network, addr, finFirst)
				p, c := newStarvedProber(t, func() { <-r.reset })
				for range 2 { // on the same socket
					p.Submit(Check{Target: r.addr, Timeout: time.Minute})
					if report := c.take(t, 1)[nil]; report.Result != Answered || report.Err != nil {
						t.Errorf("%v (%v) in %v, want answered", report.Result, report.Err, report.RTT)
					}
				}
			})
		}
	}
}

// A starved process still tells a RST in answer to its SYN.
func TestRefusedWhileStarved(t *testing.T) {
	for network, addr := range loopback(t) {
		p, c := newStarvedProber(t, func() {}) // on loopback the RST is here by then
		p.Submit(Check{Target: refusing(t, network, addr), Timeout: time.Minute})
		if report := c.take(t, 1)[nil]; report.Result != Refused || report.Err != syscall.ECONNREFUSED {
			t.Errorf("%s: %v (%v) in %v, want refused", network, report.Result, report.Err, report.RTT)
		}
	}
}

// A host that resets all that it accepts has answered, by every method.
func TestHostThatResets(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		for network, addr := range loopback(t) {
			r := newResetter(t, network, addr, false)
			p, c := newTestProber(t, Config{Method: m})
			const checks = 1000
			for i := range checks {
				p.Submit(Check{Target: r.addr, Timeout: time.Minute, Tag: i})
			}
			results := make(map[Result]int)
			for _, report := range c.take(t, checks) {
				results[report.Result]++
			}
			if results[Answered] != checks {
				t.Errorf("%s: %v, want %d answered", network, results, checks)
			}
		}
	})
}

// afterHandshake is what may come in after a SYN-ACK, by its name.
func afterHandshake(h *lab.Host, syn lab.Packet) map[string][][]byte {
	segment := func(flags uint8, seq uint32) []byte {
		p := syn.Reply(flags)
		p.Seq += seq
		return p.Bytes()
	}
	ack := syn // Linux counts it as sent while it withholds it
	ack.Seq, ack.Flags = syn.Seq+1, lab.ACK
	rst, fin, icmp := segment(lab.RST|lab.ACK, 1), segment(lab.FIN|lab.ACK, 1), noHost(h, ack)
	return map[string][][]byte{
		"nothing":      nil,
		"RST":          {rst},
		"FIN":          {fin},
		"FIN and RST":  {fin, segment(lab.RST|lab.ACK, 2)},
		"ICMP":         {icmp},
		"ICMP and RST": {icmp, rst},
		"FIN and ICMP": {fin, icmp},
	}
}

// Whatever comes after a SYN-ACK, the port has answered, and the socket's next check knows nothing of it.
func TestLabAfterHandshake(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		forger, syns := mute(web, 80)
		_, silent := mute(web, 81)
		for _, addr := range both(web) {
			for name := range afterHandshake(web, lab.Packet{Src: netip.AddrPortFrom(addr, 1), Dst: netip.AddrPortFrom(addr, 80)}) {
				p, c := newStarvedProber(t, func() {
					select {
					case syn := <-syns:
						forger.Send(syn.Reply(lab.SYN | lab.ACK).Bytes())
						forger.Send(afterHandshake(web, syn)[name]...)
					case <-silent:
					}
				})
				p.Submit(Check{Target: netip.AddrPortFrom(addr, 80), Timeout: time.Minute})
				if r := c.take(t, 1)[nil]; r.Result != Answered || r.Err != nil {
					t.Errorf("%v, then %s: %v (%v), want answered", addr, name, r.Result, r.Err)
				}
				next := Check{Target: netip.AddrPortFrom(addr, 81), Timeout: 20 * time.Millisecond}
				expect(t, fmt.Sprintf("%v, the check after %s", addr, name), p, c, next, Timeout, ErrTimeout)
				p.Close()
			}
		}
	})
}

// localPort returns the port that the kernel has chosen for a socket.
func localPort(t *testing.T, fd int) uint16 {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(name.Port)
	case *unix.SockaddrInet6:
		return uint16(name.Port)
	default:
		t.Fatalf("a socket with the name %v", name)
		return 0
	}
}

// An ICMP error that comes in while its check ends for another reason is not taken for one about the socket's next.
func TestLabErrorOfCheckBefore(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		forger, syns := mute(web, 80)
		for _, addr := range both(web) {
			s, err := openSocket(origin{v6: addr.Is6()}, egress{})
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(s.fd)
			s.flight = &flight{job: job{Check: Check{Target: netip.AddrPortFrom(addr, 80)}}}
			send := func() lab.Packet {
				if err := s.connect(&s.flight.job); err != unix.EINPROGRESS {
					t.Fatal(err)
				}
				from := localPort(t, s.fd)
				for { // on a slow machine, the kernel may have sent the SYN before again
					if syn := <-syns; syn.Src.Port() == from {
						return syn
					}
				}
			}
			forger.Send(noHost(web, send()))
			events := func() int16 {
				fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
				if _, err := unix.Poll(fds, 0); err != nil {
					t.Fatal(err)
				}
				return fds[0].Revents
			}
			l.Until("the error is here", func() bool { return events()&unix.POLLERR != 0 })
			if err := s.reset(); err != nil {
				t.Fatal(err)
			}
			second := send()
			if r, err, over := s.takeError(uint32(events())); over {
				t.Errorf("%v: an error about another SYN is %v (%v)", addr, r, err)
			}
			forger.Send(noHost(web, second))
			l.Until("the error is here", func() bool { return events()&unix.POLLERR != 0 })
			if r, err, over := s.takeError(uint32(events())); r != Unreachable || err != unix.EHOSTUNREACH || !over {
				t.Errorf("%v: an error about this SYN is %v (%v)", addr, r, err)
			}
		}
	})
}
