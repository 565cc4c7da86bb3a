package checker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// sendBatch is how many SYNs one sendmmsg(2) takes. All of them count as sent when the call begins.
	sendBatch = 16
	// receiveBatch is how many answers one recvmmsg(2) fetches.
	receiveBatch = 64
	// receiveBuffer, in bytes, bounds the answers that the kernel queues. sendBuffer bounds the SYNs that wait for
	// a neighbour's address. Without CAP_NET_ADMIN, net.core.rmem_max and wmem_max bound both.
	receiveBuffer, sendBuffer = 8 << 20, 4 << 20
)

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2), which x/sys lacks.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// rawConn is a raw socket (raw(7)) of one family, for both directions. The kernel makes the IP headers
// and, for IPv6, the checksums.
type rawConn struct {
	fd int
	v6 bool

	out [sendBatch]outgoing
	// The headers are not in outgoing because the kernel wants them side by side.
	outHeaders [sendBatch]mmsghdr
	pending    int // SYNs in out

	in        [receiveBatch]incoming
	inHeaders [receiveBatch]mmsghdr
	crowded   bool // a batch was full since drops was read last
}

type outgoing struct {
	probe   *probe
	segment [synLength]byte
	vector  unix.Iovec
	to      unix.RawSockaddrInet6 // or RawSockaddrInet4, at the same place
	control [controlLength / 8]uint64
}

// controlLength is enough for a control message with the larger of struct in_pktinfo and in6_pktinfo.
const controlLength = 40

type incoming struct {
	packet [snapLength]byte
	vector unix.Iovec
	from   unix.RawSockaddrInet6
}

// openRaw makes a raw socket that receives answers to these ports.
func openRaw(v6 bool, ports []uint16, e egress) (*rawConn, error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == unix.EPERM || err == unix.EACCES {
		return nil, fmt.Errorf("the capability CAP_NET_RAW is missing (%w). Run as root, or grant it: "+
			"setcap cap_net_raw+ep FILE for an executable, AmbientCapabilities=CAP_NET_RAW in a systemd unit, "+
			"NET_RAW among a container's added capabilities", err)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &rawConn{fd: fd, v6: v6}
	if err := c.configure(ports, e); err != nil {
		unix.Close(fd)
		return nil, err
	}
	c.layOut()
	return c, nil
}

func (c *rawConn) configure(ports []uint16, e egress) error {
	program, err := replyFilter(c.v6, ports)
	if err != nil {
		return err
	}
	if err := attachFilter(c.fd, program); err != nil {
		return err
	}
	options := []struct{ level, name, value int }{{unix.IPPROTO_IP, unix.IP_RECVERR, 1}}
	if c.v6 {
		const checksumOffset = 16 // in a TCP header; see RFC 3542, section 3.1
		options = []struct{ level, name, value int }{
			{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, checksumOffset},
		}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(c.fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	for _, b := range []struct{ name, force, size int }{
		{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, receiveBuffer},
		{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, sendBuffer},
	} {
		if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, b.force, b.size) == nil {
			continue
		}
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, b.name, b.size); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return e.apply(c.fd)
}

// layOut fills in what is the same for all packets.
func (c *rawConn) layOut() {
	for i := range c.out {
		o, h := &c.out[i], &c.outHeaders[i]
		o.vector.Base = &o.segment[0]
		o.vector.SetLen(synLength)
		h.Iov = &o.vector
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&o.to))
		h.Namelen = unix.SizeofSockaddrInet4
		if c.v6 {
			h.Namelen = unix.SizeofSockaddrInet6
		}
	}
	for i := range c.in {
		m, h := &c.in[i], &c.inHeaders[i]
		m.vector.Base = &m.packet[0]
		m.vector.SetLen(len(m.packet))
		h.Iov = &m.vector
		h.SetIovlen(1)
	}
}

// add makes the SYN of pr ready to be sent. The caller sends when the batch is full.
func (c *rawConn) add(pr *probe) (full bool) {
	o, h := &c.out[c.pending], &c.outHeaders[c.pending]
	c.pending++
	o.probe = pr
	target := pr.flight.job.Target
	if c.v6 {
		putSYN(&o.segment, pr.at.source, target.Port(), pr.isn, mss6)
		o.to = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: target.Addr().As16(), Scope_id: pr.flight.job.scope}
		h.Control = nil
		h.SetControllen(0)
		if pr.source.IsValid() {
			o.from6(h, pr.source.As16())
		}
	} else {
		dst, src := target.Addr().As4(), pr.source.As4()
		putSYN(&o.segment, pr.at.source, target.Port(), pr.isn, mss4)
		putChecksum4(o.segment[:], src, dst)
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&o.to)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst}
		o.from4(h, src)
	}
	return c.pending == sendBatch
}

// from4 says where the packet comes from, see IP_PKTINFO in ip(7). The kernel refuses an address that is not
// this machine's.
func (o *outgoing) from4(h *mmsghdr, src [4]byte) {
	info := (*unix.Inet4Pktinfo)(o.controlMessage(h, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo))
	info.Spec_dst = src
}

// from6 is from4 for IPv6, see IPV6_PKTINFO in ipv6(7).
func (o *outgoing) from6(h *mmsghdr, src [16]byte) {
	info := (*unix.Inet6Pktinfo)(o.controlMessage(h, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo))
	info.Addr = src
}

// controlMessage gives h its control message and returns where its data is (cmsg(3)).
func (o *outgoing) controlMessage(h *mmsghdr, level, kind int32, size int) unsafe.Pointer {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&o.control))
	c.Level, c.Type = level, kind
	c.SetLen(unix.CmsgLen(size))
	h.Control = (*byte)(unsafe.Pointer(&o.control))
	h.SetControllen(unix.CmsgSpace(size))
	return unsafe.Pointer(&(*[controlLength]byte)(unsafe.Pointer(&o.control))[unix.CmsgLen(0)])
}

// send sends what add has made ready, and calls done for each SYN with what became of it. One that cannot be sent
// does not keep others from being sent.
func (c *rawConn) send(done func(pr *probe, err error)) {
	n := c.pending
	c.pending = 0
	for i := 0; i < n; {
		sent, err := c.sendMessages(c.outHeaders[i:n])
		if err == unix.EINTR {
			continue
		}
		for range sent {
			done(c.out[i].probe, nil)
			c.out[i].probe = nil
			i++
		}
		if err != nil {
			done(c.out[i].probe, os.NewSyscallError("sendmmsg", err))
			c.out[i].probe = nil
			i++
		}
	}
}

// sendMessages returns how many messages it has sent. The kernel reports an error only if it is the first message's.
// The call never waits, and a batch is through within some 100 µs. So it is not worth telling Go's scheduler, which
// would wake another thread to take over from this one.
func (c *rawConn) sendMessages(m []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return 0, unix.ENOBUFS
	default:
		return 0, errno
	}
}

// receive fetches answers into in and returns their number, 0 if there are none.
func (c *rawConn) receive() (int, error) {
	if c.v6 {
		for i := range c.inHeaders {
			h := &c.inHeaders[i]
			h.Name = (*byte)(unsafe.Pointer(&c.in[i].from))
			h.Namelen = unix.SizeofSockaddrInet6
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.inHeaders[0])), receiveBatch,
		unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return 0, nil
	default:
		return 0, errno
	}
}

// packet returns the sender and the segment of a packet that receive has fetched.
func (c *rawConn) packet(i int) (from netip.Addr, s segment, ok bool) {
	m := &c.in[i]
	b := m.packet[:min(int(c.inHeaders[i].n), len(m.packet))]
	if c.v6 {
		from = netip.AddrFrom16(m.from.Addr)
	} else {
		var src [4]byte
		if src, b, ok = splitIPv4(b); !ok {
			return from, s, false
		}
		from = netip.AddrFrom4(src)
	}
	s, ok = parseSegment(b)
	return from, s, ok
}

// drops returns how many packets the kernel has thrown away because the queue was full (SK_MEMINFO_DROPS in
// linux/sock_diag.h).
func (c *rawConn) drops() uint32 {
	const drops = 8
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(c.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return info[drops]
}

// readQuote takes an entry from the error queue. It returns what the ICMP error says, where the segment that it quotes
// went, and the quote. It reports false if the queue is empty.
func (c *rawConn) readQuote() (e icmpError, to netip.Addr, q quote, ok bool) {
	e, to, payload, ok := readError(c.fd)
	if ok {
		q, _ = parseQuote(payload) // a quote too short is one from port 0, which no SYN leaves
	}
	return e, to, q, ok
}

func (c *rawConn) close() { unix.Close(c.fd) }

// errNoFamily is the reason of checks of a family that this machine does not have.
var errNoFamily = fmt.Errorf("checker: %w", unix.EAFNOSUPPORT)

// isTransient tells whether an error of receive will pass, as those do that ICMP messages raise. Others mean that
// something is wrong with the socket.
func isTransient(err error) bool {
	for _, lasting := range []unix.Errno{unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}
