package checker

import (
	"encoding/binary"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a TCP socket that carries one try after the other.
type socket struct {
	try // its id is the index in socketProber.sockets

	fd     int
	origin origin
	idle   *idleSockets // where it is between two checks
}

// origin is what a socket cannot change any more: its family and its source address, and the interface of the link-local
// address that it has connected to, which Linux binds it to (tcp_v6_connect in net/ipv6/tcp_ipv6.c).
type origin struct {
	v6     bool
	scope  uint32
	source netip.Addr
}

func (o origin) family() int {
	if o.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// openSocket makes a socket that does not acknowledge a SYN-ACK. Whichever way it is closed, even by the end of the
// process, it sends a RST and no FIN. It learns who sent an ICMP error.
func openSocket(o origin, e egress) (*socket, error) {
	fd, err := unix.Socket(o.family(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, origin: o}
	err = e.apply(fd)
	if err == nil {
		err = s.configure()
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) configure() error {
	level, receiveErrors := unix.IPPROTO_IP, unix.IP_RECVERR
	if s.origin.v6 {
		level, receiveErrors = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	for _, option := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
		{level, receiveErrors, 1},
	} {
		if err := unix.SetsockoptInt(s.fd, option.level, option.name, option.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if !s.origin.source.IsValid() {
		return nil
	}
	// The port is chosen by connect(2), where both ends are known: many more checks fit that way.
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", bindTo(s.fd, s.origin.source))
}

// bindTo gives a socket its source address, and no port yet.
func bindTo(fd int, source netip.Addr) error {
	if source.Is6() {
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: source.As16()})
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
}

// connect sends the SYN. EINPROGRESS is the normal outcome.
func (s *socket) connect(j *job) error { return connectTo(s.fd, j.Target, j.scope) }

// reset makes the socket ready to connect again, from another source port. A connected socket sends a RST first; one
// that connects falls silent.
func (s *socket) reset() error { return disconnect(s.fd) }

// mayHaveReachedItself tells whether the socket has, or may have, the address that is being checked.
func (s *socket) mayHaveReachedItself() bool {
	return !s.origin.source.IsValid() || s.origin.source == s.flight.job.Target.Addr().WithZone("")
}

// connectedToItself tells whether the kernel chose the very port that is being checked as source port, and the address
// as source address. Then the socket has answered its own SYN (RFC 9293, section 3.5, simultaneous open), and nobody
// listens.
func (s *socket) connectedToItself() bool {
	target := s.flight.job.Target
	local, ok := localAddr(s.fd, s.origin.v6)
	return ok && local == netip.AddrPortFrom(target.Addr().WithZone(""), target.Port())
}

// connectTo calls connect(2). This function and those below exist because x/sys allocates socket addresses, and has
// none for AF_UNSPEC.
func connectTo(fd int, target netip.AddrPort, scope uint32) error {
	port := networkOrder(target.Port())
	if target.Addr().Is6() {
		sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: target.Addr().As16(), Scope_id: scope}
		return rawConnect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
	}
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: target.Addr().As4()}
	return rawConnect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// disconnect is connect(2) to AF_UNSPEC.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	return rawConnect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

func rawConnect(fd int, sa unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size)
	if errno != 0 {
		return errno
	}
	return nil
}

// localAddr returns a socket's own address and port.
func localAddr(fd int, v6 bool) (netip.AddrPort, bool) {
	var sa unix.RawSockaddrInet6 // the larger of the two
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, false
	}
	if v6 {
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), networkOrder(sa.Port)), true
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
	return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), networkOrder(sa4.Port)), true
}

// networkOrder converts a port between the host's and the network's byte order.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
