package checker

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a TCP socket that carries one check after the other.
type socket struct {
	fd     int
	index  int32 // in socketProber.sockets, and in the data of its epoll events
	origin origin

	busy     bool
	job      job
	sent     time.Time
	deadline time.Time
	flight   int // position in flights
}

// origin is what a socket cannot change once it is made: its family and its source address.
type origin struct {
	v6     bool
	source netip.Addr
}

func (o origin) family() int {
	if o.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// openSocket makes a socket that leaves the SYN-ACK unacknowledged, that says RST instead of FIN
// whichever way it is closed, even by the end of the process, and that learns who sent an ICMP error.
func openSocket(o origin) (*socket, error) {
	fd, err := unix.Socket(o.family(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, origin: o}
	if err := s.configure(); err != nil {
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
	if s.origin.v6 {
		return os.NewSyscallError("bind", unix.Bind(s.fd, &unix.SockaddrInet6{Addr: s.origin.source.As16()}))
	}
	return os.NewSyscallError("bind", unix.Bind(s.fd, &unix.SockaddrInet4{Addr: s.origin.source.As4()}))
}

// connect sends the SYN. EINPROGRESS is the normal outcome.
func (s *socket) connect(j *job) error {
	port := networkOrder(j.Target.Port())
	if s.origin.v6 {
		sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: j.Target.Addr().As16(), Scope_id: j.scope}
		return rawConnect(s.fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
	}
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: j.Target.Addr().As4()}
	return rawConnect(s.fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// reset dissolves the association, see connect(2): a connected socket sends a RST, a connecting one
// falls silent, and the socket can connect again, from another source port.
func (s *socket) reset() error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	return rawConnect(s.fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// rawConnect exists because x/sys has no socket address for AF_UNSPEC, and allocates the others.
func rawConnect(fd int, sa unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size)
	if errno != 0 {
		return errno
	}
	return nil
}

// connectedToItself tells whether the kernel chose the very port that is being checked as source port:
// then the socket has answered its own SYN (RFC 9293, section 3.5, simultaneous open), and nobody
// listens. Only a port outside the well-known ones can be so chosen.
func (s *socket) connectedToItself() bool {
	if s.job.Target.Port() < 1024 {
		return false
	}
	local, ok := s.local()
	return ok && local == s.job.Target
}

// local returns the socket's own address and port.
func (s *socket) local() (netip.AddrPort, bool) {
	var sa unix.RawSockaddrInet6 // the larger of the two
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(s.fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, false
	}
	if s.origin.v6 {
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

// flights are the sockets with a check in flight, as a heap: the earliest deadline is first.
type flights []*socket

func (f *flights) add(s *socket)    { heap.Push(f, s) }
func (f *flights) remove(s *socket) { heap.Remove(f, s.flight) }

// Len implements heap.Interface.
func (f flights) Len() int { return len(f) }

// Less implements heap.Interface.
func (f flights) Less(i, j int) bool { return f[i].deadline.Before(f[j].deadline) }

// Swap implements heap.Interface.
func (f flights) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].flight, f[j].flight = i, j
}

// Push implements heap.Interface.
func (f *flights) Push(x any) {
	s := x.(*socket)
	s.flight = len(*f)
	*f = append(*f, s)
}

// Pop implements heap.Interface.
func (f *flights) Pop() any {
	last := len(*f) - 1
	s := (*f)[last]
	(*f)[last] = nil
	*f = (*f)[:last]
	return s
}
