package members

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
	"github.com/hashicorp/memberlist"
)

const (
	// maxMessage bounds a message over a connection, in octets.
	maxMessage = 1<<20 + 1<<10
	// socketBuffer is what the kernel is asked to keep of packets, in octets, both ways. It may give less.
	socketBuffer = 4 << 20
	// maxWrite is how long a packet may wait for the kernel to take it. It waits where the kernel has packets for machines
	// that it cannot find, and then this one is lost like any other.
	maxWrite = 20 * time.Millisecond
	// maxRead is how long a message over a connection may take.
	maxRead = 10 * time.Second
	// handedOver is how many packets and connections wait for memberlist at most.
	handedOver = 1024
)

// transport carries packets and connections, all sealed, and lets nothing in that is not from a holder of a key. It is the
// transport of memberlist, which sees only what members tell about members. What else members tell each other goes past it: memberlist has
// them wait in a queue that is read from its end, and that drops what does not fit.
type transport struct {
	self     netip.AddrPort
	me       receiver
	name     string
	tell     Listener
	keys     atomic.Pointer[keyring]
	allowed  atomic.Pointer[bart.Lite] // nil allows anybody
	members  *addresses
	unknown  *numbering // of packets to replicas that are not members, or not yet
	doors    doors
	counts   tallies
	complain *complaints
	wire     func(packet []byte) bool // that of Config

	packets chan *memberlist.Packet
	streams chan net.Conn
	udp     atomic.Pointer[net.UDPConn]
	tcp     *net.TCPListener

	couriers couriers

	ctx    context.Context // until close
	end    context.CancelFunc
	inward sync.WaitGroup // what reads
	left   sync.Once
}

// listen opens the sockets. Port 0 stands for one that is free.
func listen(at netip.AddrPort) (*net.TCPListener, *net.UDPConn, error) {
	for try := 1; ; try++ {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %v by TCP: %w", at, cause(err))
		}
		got := tcp.Addr().(*net.TCPAddr).AddrPort()
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), got.Port())))
		if err == nil {
			// Whatever is possible. Linux takes any number, and has limits of its own.
			_, _ = udp.SetReadBuffer(socketBuffer), udp.SetWriteBuffer(socketBuffer)
			return tcp, udp, nil
		}
		tcp.Close()
		// Of a port that the kernel has chosen only the one half may be free.
		if at.Port() != 0 || try == 10 {
			return nil, nil, fmt.Errorf("listen on %v by UDP: %w", at, cause(err))
		}
	}
}

// cause leaves out what the error would say a second time.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// newTransport opens the sockets. Somebody has to set keys before start.
func newTransport(at netip.AddrPort, name string) (*transport, error) {
	tcp, udp, err := listen(at)
	if err != nil {
		return nil, err
	}
	t := &transport{
		self: netip.AddrPortFrom(at.Addr(), uint16(tcp.Addr().(*net.TCPAddr).Port)),
		me:   receiverOf(name), name: name,
		members: newAddresses(), unknown: newNumbering(),
		packets: make(chan *memberlist.Packet, handedOver),
		streams: make(chan net.Conn, maxConnections),
		tcp:     tcp,
	}
	t.doors.isMember = t.members.has
	t.udp.Store(udp)
	t.ctx, t.end = context.WithCancel(context.Background())
	return t, nil
}

func (t *transport) start(l Listener) {
	t.tell, t.complain = l, newComplaints(&t.counts, l.Warningf)
	udp := t.udp.Load()
	t.inward.Go(func() { t.readPackets(udp) })
	t.inward.Go(t.acceptConnections)
}

// allow has only those speak to this replica, and this replica speak only to them. None stands for anybody.
func (t *transport) allow(those []netip.Prefix) {
	if len(those) == 0 {
		t.allowed.Store(nil)
		return
	}
	set := new(bart.Lite)
	for _, p := range those {
		set.Insert(p.Masked())
	}
	t.allowed.Store(set)
}

func (t *transport) isAllowed(a netip.Addr) bool {
	set := t.allowed.Load()
	return set == nil || set.Contains(a.WithZone(""))
}

// plain is an address as it is configured: IPv4 is not mapped into IPv6.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// errorPause is how long to wait after an error of a socket, before it is read again.
const errorPause = 5 * time.Millisecond

func (t *transport) readPackets(udp *net.UDPConn) {
	buffer, opened, known := make([]byte, maxPacket+1), make([]byte, 0, maxPacket), new(copies)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil && n == 0: // otherwise a packet that is longer, on some systems
			time.Sleep(errorPause)
		default:
			t.takePacket(opened, known, buffer[:n], plain(from))
		}
	}
}

// takePacket takes a packet. What is in it is opened into a buffer that is used again.
func (t *transport) takePacket(buffer []byte, known *copies, packet []byte, from netip.AddrPort) {
	if !t.isAllowed(from.Addr()) {
		t.complain.refuse(source, from)
		return
	}
	what, content, why := openPacket(buffer, t.keys.Load(), t.me, known, packet)
	if why != taken {
		t.complain.refuse(why, from)
		return
	}
	t.counts.received(len(packet))
	if what == forUser {
		t.takeMessage(content)
		return
	}
	select {
	case t.packets <- &memberlist.Packet{Buf: append([]byte(nil), content...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
	default:
		t.complain.refuse(flood, from)
	}
}

func (t *transport) acceptConnections() {
	for {
		conn, err := t.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as too many open files
			time.Sleep(errorPause)
		default:
			t.admit(conn, plain(conn.RemoteAddr().(*net.TCPAddr).AddrPort()))
		}
	}
}

// admit has a connection served, if it is from somebody who may speak to us, and there is room.
func (t *transport) admit(conn net.Conn, from netip.AddrPort) {
	if !t.isAllowed(from.Addr()) {
		conn.Close()
		t.complain.refuse(source, from)
		return
	}
	g, ok := t.doors.enter(conn, from.Addr())
	if !ok {
		conn.Close()
		t.complain.refuse(flood, from)
		return
	}
	t.inward.Go(func() { t.serve(g, from) })
}

// serve finds out what a connection is for.
func (t *transport) serve(g *guest, from netip.AddrPort) {
	conn, what, why := accepted(g, t.keys.Load(), t.name)
	if !g.settle() {
		why = flood // it had to make room
	}
	switch {
	case why != taken:
		g.Close()
		if t.ctx.Err() == nil {
			t.complain.refuse(why, from)
		}
	case what == forUser:
		defer conn.Close()
		t.readMessages(conn)
	default:
		select {
		case t.streams <- conn:
		default:
			g.Close()
			t.complain.refuse(flood, from)
		}
	}
}

// readMessages reads messages until the end of a connection. Each is its length in 4 octets, and itself.
func (t *transport) readMessages(conn net.Conn) {
	for {
		var head [4]byte
		if conn.SetDeadline(time.Now().Add(maxRead)) != nil {
			return
		}
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > maxMessage {
			return
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(conn, message); err != nil {
			return
		}
		t.counts.received(len(message))
		t.takeMessage(message)
	}
}

// takeMessage passes a message on. A mistake there costs the message, and not the process.
func (t *transport) takeMessage(message []byte) {
	defer func() {
		if reason := recover(); reason != nil {
			t.tell.Recovered("while a message of another replica was taken", reason)
		}
	}()
	t.tell.Take(message)
}

// send is [Members.Send].
func (t *transport) send(to string, message []byte, reliable bool) {
	if reliable {
		t.couriers.post(t, to, message)
		return
	}
	if p, ok := t.members.of(to); ok {
		t.write(p.at, p, forUser, message) // what is lost is asked for
	}
}

// addressee returns how a replica is addressed, which may be no member.
func (t *transport) addressee(name string) place {
	p, ok := t.members.of(name)
	if !ok {
		p = place{who: receiverOf(name), numbering: t.unknown}
	}
	return p
}

// sendTo is [Members.SendTo].
func (t *transport) sendTo(to string, at netip.AddrPort, message []byte) {
	t.write(at, t.addressee(to), forUser, message)
}

// write sends a packet.
func (t *transport) write(at netip.AddrPort, to place, what kind, content []byte) error {
	if len(content) > maxPacket-packetOverhead {
		return fmt.Errorf("a packet has %d octets, want %d at most", len(content), maxPacket-packetOverhead)
	}
	if !t.isAllowed(at.Addr()) {
		// memberlist takes only errors of this form to be about the other end.
		return &net.OpError{Op: "write", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: notAllowed(at)}
	}
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	*buffer = sealPacket((*buffer)[:0], t.keys.Load(), to.who, to.numbering, what, content)
	t.counts.sent(len(*buffer))
	if t.wire != nil && !t.wire(*buffer) {
		return nil
	}
	udp := t.udp.Load()
	if err := udp.SetWriteDeadline(time.Now().Add(maxWrite)); err != nil {
		return err
	}
	_, err := udp.WriteToUDPAddrPort(*buffer, at)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // lost, which says nothing of the other end
	}
	return err
}

func notAllowed(at netip.AddrPort) error {
	return fmt.Errorf("%v is not among those that may speak to this replica", at.Addr())
}

// dial makes a connection to a replica, or whoever is there if the name is "".
func (t *transport) dial(at netip.AddrPort, name string, what kind, timeout time.Duration) (net.Conn, error) {
	if !t.isAllowed(at.Addr()) {
		return nil, notAllowed(at)
	}
	// The others expect us to have the address that we listen at.
	d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: t.self.Addr().AsSlice()}}
	raw, err := d.DialContext(t.ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	conn := &outgoing{Conn: raw, keep: context.AfterFunc(t.ctx, func() { raw.Close() })}
	c, err := dialed(conn, t.keys.Load(), what, name, min(timeout, patience))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// outgoing is a connection that is closed with the transport.
type outgoing struct {
	net.Conn
	keep func() bool
}

// Close closes the connection.
func (c *outgoing) Close() error {
	c.keep()
	return c.Conn.Close()
}

// leave frees the address, so that another group can listen there. What is still to be sent goes out from another port.
func (t *transport) leave() { t.left.Do(t.leaveOnce) }

func (t *transport) leaveOnce() {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.self.Addr(), 0)))
	if err == nil {
		udp = t.udp.Swap(udp)
	} else {
		udp = t.udp.Load()
	}
	udp.Close()
	t.end()
	t.tcp.Close()
	t.doors.close()
	t.inward.Wait()
}

// The methods that follow are those of memberlist.NodeAwareTransport.

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// FinalAdvertiseAddr returns where the others reach this replica.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.self.Addr().AsSlice(), int(t.self.Port()), nil
}

// WriteTo sends a packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet to the replica with a name.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	at, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	err = t.write(plain(at), t.addressee(a.Name), forMemberlist, b)
	return time.Now(), err
}

// PacketCh returns where packets are.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout makes a connection.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout makes a connection to the replica with a name.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	at, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return nil, err
	}
	return t.dial(plain(at), a.Name, forMemberlist, timeout)
}

// StreamCh returns where connections are.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown ends all that the transport has begun.
func (t *transport) Shutdown() error {
	t.leave()
	t.couriers.ended.Wait()
	return t.udp.Load().Close()
}
