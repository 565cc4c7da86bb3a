package checker

import (
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Answers that this machine had no room for are not held against the targets.
func TestLabOverflow(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		near := l.Host("near") // refuses, at once
		hole := l.Host("hole")
		hole.Drop()
		for _, family := range []struct {
			name       string
			port       uint16
			addrs      []netip.Addr
			near, hole netip.Addr
		}{
			{"IPv4", 80, web.Addrs4(2000), near.Addr4, hole.Addr4},
			{"IPv6", 81, web.Addrs6(2000), near.Addr6, hole.Addr6},
		} {
			t.Run(family.name, func(t *testing.T) {
				h := hold(web, family.port)
				overflow(t, l.Capture(), h, family.addrs, netip.AddrPortFrom(family.near, 81), netip.AddrPortFrom(family.hole, 80))
			})
		}
	})
}

// held is a port that answers when it is told to, the first SYN to each of its addresses and no other.
type held struct {
	port   uint16
	forger *lab.Forger

	mu   sync.Mutex
	syns map[netip.AddrPort]lab.Packet // the first ones, by their destination
}

func hold(h *lab.Host, port uint16) *held {
	s := &held{port: port, syns: make(map[netip.AddrPort]lab.Packet)}
	s.forger = h.Forge(port, func(syn lab.Packet) [][]byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, again := s.syns[syn.Dst]; !again {
			s.syns[syn.Dst] = syn
		}
		return nil
	})
	return s
}

// await waits until there is a SYN for each of the targets.
func (s *held) await(t *testing.T, targets []netip.AddrPort) []lab.Packet {
	t.Helper()
	syns := make([]lab.Packet, len(targets))
	lab.Until(t, "every SYN", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, target := range targets {
			var ok bool
			if syns[i], ok = s.syns[target]; !ok {
				return false
			}
		}
		return true
	})
	return syns
}

// answer sends a SYN-ACK for each SYN.
func (s *held) answer(syns []lab.Packet) {
	for _, syn := range syns {
		s.forger.Send(syn.Reply(lab.SYN | lab.ACK).Bytes())
	}
}

// overflow checks addrs with a prober whose loop stands still while their answers arrive, which its socket has
// no room for. Afterwards it finds that hole does not answer.
func overflow(t *testing.T, wire *lab.Capture, web *held, addrs []netip.Addr, refusing, hole netip.AddrPort) {
	t.Helper()
	const (
		timeout = 5 * time.Second
		block   = "block"
	)
	blocked, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	c := newCollector()
	p, err := NewProber(Config{Method: MethodRaw}, func(reports []Report) {
		c.deliver(reports)
		for _, r := range reports {
			if r.Tag == block {
				close(blocked)
				<-released
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer release() // or Close would wait for ever
	conn := p.backend.(*rawProber).conns[family(addrs[0])]
	if err := unix.SetsockoptInt(conn.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	checks := make([]Check, len(addrs))
	targets := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		targets[i] = netip.AddrPortFrom(addr, web.port)
		checks[i] = Check{Target: targets[i], Timeout: timeout, Tag: i}
	}
	// Checks are launched in the order of their arrival: when the last has its answer, all SYNs have left.
	p.Submit(append(checks, Check{Target: refusing, Timeout: time.Minute, Tag: block})...)
	<-blocked
	web.answer(web.await(t, targets))
	lab.Until(t, "every SYN-ACK to be captured", func() bool { return wire.Counts(targets...).From.SYNACK == len(addrs) })
	drops := conn.drops()
	release()

	var answered, lost int
	for tag, r := range c.take(t, len(addrs)+1) {
		switch {
		case tag == block:
		case r.Result == Answered:
			answered++
		case r.Result == Inconclusive && r.Err == ErrOverflow:
			lost++
		default:
			t.Fatalf("check %v: %v (%v)", tag, r.Result, r.Err)
		}
	}
	t.Logf("%d answered, %d lost; %d packets dropped", answered, lost, drops)
	if lost == 0 || answered == 0 || drops == 0 {
		t.Errorf("%d answered, %d lost; %d packets dropped", answered, lost, drops)
	}
	expect(t, "a black hole", p, c, Check{Target: hole}, Timeout, ErrTimeout)
}

// The kernel counts IPv6 packets with a wrong checksum among those it has dropped, although nothing was lost.
func TestLabWrongChecksums(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Drop()
		p, c := newTestProber(t, Config{Method: MethodRaw})
		conn := p.backend.(*rawProber).conns[event6]
		p.Submit(Check{Target: netip.AddrPortFrom(web.Addr6, 80), Timeout: time.Second})
		const packets = 5000
		web.Do(func() { flood(t, web.Addr6.Prev(), packets) })
		l.Until("the packets to be dropped", func() bool { return conn.drops() >= packets })
		if r := c.take(t, 1)[nil]; r.Result != Timeout || r.Err != ErrTimeout {
			t.Errorf("%v (%v), want a timeout", r.Result, r.Err)
		}
	})
}

// flood sends that many SYN-ACKs with a wrong checksum.
func flood(t *testing.T, to netip.Addr, packets int) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Error(os.NewSyscallError("socket", err))
		return
	}
	defer unix.Close(fd)
	var segment [synLength]byte
	putSYN(&segment, 80, 4711, 1, mss6)
	segment[13] |= flagACK // and a checksum of 0, which is that of no such segment
	for range packets {
		if err := unix.Sendto(fd, segment[:], 0, &unix.SockaddrInet6{Addr: to.As16()}); err != nil {
			t.Error(os.NewSyscallError("sendto", err))
			return
		}
	}
}
