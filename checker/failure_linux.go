package checker

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// icmpError is what the error queue of a socket says, see IP_RECVERR in ip(7).
type icmpError struct {
	origin   uint8 // SO_EE_ORIGIN_…; none where there was no error
	kind     uint8 // ICMP type
	code     uint8 // ICMP code
	errno    unix.Errno
	offender netip.Addr // who sent it
}

// failure tells what the error on a socket means for the check it carries. It also takes the error
// away, so that the next check does not find it.
func (s *socket) failure() (Result, error) {
	errno := unix.EIO
	if value, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil {
		errno = unix.Errno(value)
	}
	var first icmpError
	for {
		e, _, _, ok := readError(s.fd)
		if !ok {
			break
		}
		if first.origin == unix.SO_EE_ORIGIN_NONE {
			first = e
		}
	}
	var self netip.Addr
	if first.origin != unix.SO_EE_ORIGIN_NONE {
		if local, ok := localAddr(s.fd, s.origin.v6); ok {
			self = local.Addr()
		}
	}
	return classify(errno, first, self)
}

// classify decides what an error says about the target. errno is the socket's; e is the ICMP error
// behind it, if any; self is the address that the SYN was sent from.
func classify(errno unix.Errno, e icmpError, self netip.Addr) (Result, error) {
	switch e.origin {
	case unix.SO_EE_ORIGIN_NONE:
	case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
		if e.offender == self && !e.neighbour() {
			return Inconclusive, ErrFiltered
		}
		return Unreachable, e.errno
	default: // SO_EE_ORIGIN_LOCAL, and what is not about reaching the target
		return Inconclusive, e.errno
	}
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET:
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

// neighbour tells whether the error means "host unreachable". The kernel sends that to itself when
// ARP or neighbour discovery stay without an answer (ipv4_link_failure, ip6_link_failure), which is
// about the target, unlike all else that comes from our own address.
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

// readError takes one entry from a socket's error queue: what it says, where the packet went that it is
// about, and the beginning of that packet's payload. It reports false when the queue is empty.
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

// parseExtendedError reads struct sock_extended_err and the sockaddr behind it (linux/errqueue.h). Of one
// that is too short it makes no error.
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
