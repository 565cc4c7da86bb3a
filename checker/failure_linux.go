package checker

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// icmpError is an entry of a socket's error queue, see IP_RECVERR in ip(7).
type icmpError struct {
	origin   uint8 // SO_EE_ORIGIN_…; none where there was no error
	kind     uint8 // ICMP type
	code     uint8 // ICMP code
	errno    unix.Errno
	offender netip.Addr // who sent it
}

// takeError takes the error away that epoll reports of the socket, so that the next check does not find it. It
// returns what the error means for the check under way, and reports false if it means nothing: the check goes on.
func (s *socket) takeError(events uint32) (r Result, err error, over bool) {
	errno := unix.EIO
	if value, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil {
		errno = unix.Errno(value)
	}
	e, self := s.takeICMP()
	switch {
	case events&(unix.EPOLLOUT|unix.EPOLLHUP) == unix.EPOLLOUT:
		// The socket can be written to and is not closed (tcp_poll in net/ipv4/tcp.c). So the SYN-ACK came before
		// the error, which is about something that the kernel has sent since.
		return Answered, nil, true
	case errno == 0 && e.origin == unix.SO_EE_ORIGIN_NONE && events&unix.EPOLLHUP == 0:
		return Inconclusive, nil, false
	}
	r, err = classify(errno, e, self)
	return r, err, true
}

// takeICMP empties the error queue. It returns the first error that is about the check under way, and the address
// that the SYN came from. What else the queue holds is about a check that the socket carried before.
func (s *socket) takeICMP() (first icmpError, self netip.Addr) {
	var local netip.AddrPort
	for {
		e, to, payload, ok := readError(s.fd)
		if !ok {
			return first, local.Addr()
		}
		if first.origin != unix.SO_EE_ORIGIN_NONE {
			continue
		}
		if !local.IsValid() {
			local, _ = localAddr(s.fd, s.origin.v6)
		}
		if !e.fromICMP() || quotes(payload, to, local.Port(), s.flight.job.Target) {
			first = e
		}
	}
}

// quotes tells whether a segment that was sent to that address is one from port to target.
func quotes(segment []byte, to netip.Addr, port uint16, target netip.AddrPort) bool {
	q, ok := parseQuote(segment)
	return ok && q.from == port && q.to == target.Port() && to == target.Addr().WithZone("")
}

// classify decides what an error says about the target. errno is the socket's; e is the ICMP error
// behind it, if any; self is the address that the SYN was sent from.
func classify(errno unix.Errno, e icmpError, self netip.Addr) (Result, error) {
	if isErrno(errno, answeredErrnos) {
		return Answered, nil
	}
	switch {
	case e.origin == unix.SO_EE_ORIGIN_NONE:
	case e.fromICMP():
		if e.offender == self && !e.neighbour() {
			return Inconclusive, ErrFiltered
		}
		return Unreachable, e.errno
	default: // SO_EE_ORIGIN_LOCAL, and what is not about reaching the target
		return Inconclusive, e.errno
	}
	switch errno {
	case unix.ECONNREFUSED:
		return Refused, errno
	case unix.ETIMEDOUT:
		return Timeout, ErrTimeout
	case unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETUNREACH:
		return Unreachable, errno
	case 0:
		return Inconclusive, unix.EIO
	default:
		return Inconclusive, errno
	}
}

// fromICMP tells whether a packet brought the error.
func (e icmpError) fromICMP() bool {
	return e.origin == unix.SO_EE_ORIGIN_ICMP || e.origin == unix.SO_EE_ORIGIN_ICMP6
}

// neighbour tells whether the error means "host unreachable". The kernel sends that to itself when
// ARP or neighbour discovery stay without an answer (ipv4_link_failure, ip6_link_failure). That is about the
// target; all else that comes from our own address is not.
func (e icmpError) neighbour() bool {
	const (
		v4Unreachable, v4Host    = 3, 1 // RFC 792
		v6Unreachable, v6Address = 1, 3 // RFC 4443, section 3.1
	)
	if e.origin == unix.SO_EE_ORIGIN_ICMP {
		return e.kind == v4Unreachable && e.code == v4Host
	}
	return e.kind == v6Unreachable && e.code == v6Address
}

// readError takes an entry from a socket's error queue. It returns what the entry says, where the packet went that it
// is about, and the beginning of that packet's payload. It reports false if the queue is empty.
func readError(fd int) (e icmpError, to netip.Addr, payload []byte, ok bool) {
	var data, control [128]byte
	n, controls, _, name, err := unix.Recvmsg(fd, data[:], control[:], unix.MSG_ERRQUEUE)
	if err != nil {
		return icmpError{}, netip.Addr{}, nil, false
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		to = netip.AddrFrom4(name.Addr)
	case *unix.SockaddrInet6:
		to = netip.AddrFrom16(name.Addr)
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil {
		return icmpError{}, to, data[:n], true
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR {
			e = parseExtendedError(m.Data)
		}
	}
	return e, to, data[:n], true
}

// parseExtendedError reads struct sock_extended_err and the sockaddr behind it (linux/errqueue.h). One that is too
// short is read as no error.
func parseExtendedError(b []byte) icmpError {
	const size = 16
	if len(b) < size {
		return icmpError{}
	}
	e := icmpError{
		errno:  unix.Errno(binary.NativeEndian.Uint32(b)),
		origin: b[4],
		kind:   b[5],
		code:   b[6],
	}
	offender := b[size:]
	switch {
	case len(offender) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(offender) == unix.AF_INET:
		e.offender = netip.AddrFrom4([4]byte(offender[4:8]))
	case len(offender) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(offender) == unix.AF_INET6:
		e.offender = netip.AddrFrom16([16]byte(offender[8:24])).Unmap()
	}
	return e
}
