package checker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reservedPorts is how many source ports MethodRaw takes turns with. No two checks of one target use the same port at
// the same time. If a RST is lost, the target keeps its half of the handshake until its next SYN-ACK, a second later.
// The more ports there are, the rarer a SYN runs into that.
const reservedPorts = 16

// portReserve is the source ports. Sockets are bound to them, so that nobody else on this machine gets them. The
// sockets never listen or connect, so that the kernel answers with a RST whatever comes in on the ports.
type portReserve struct {
	ports   []uint16
	sockets []int
}

// reservePorts takes the ports that the kernel suggests.
func reservePorts() (r portReserve, err error) {
	for range reservedPorts {
		port, err := r.bind()
		if err != nil {
			r.close()
			return portReserve{}, fmt.Errorf("%d source ports cannot be reserved: %w", reservedPorts, err)
		}
		r.ports = append(r.ports, port)
	}
	return r, nil
}

// bind takes a free port on both families, or the IPv4 one where there is no IPv6, and returns it.
func (r *portReserve) bind() (uint16, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	var any unix.Sockaddr = &unix.SockaddrInet6{}
	if err == unix.EAFNOSUPPORT {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		any = &unix.SockaddrInet4{}
	}
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	r.sockets = append(r.sockets, fd)
	if _, both := any.(*unix.SockaddrInet6); both {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return 0, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, any); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	switch bound, err := unix.Getsockname(fd); bound := bound.(type) {
	case *unix.SockaddrInet4:
		return uint16(bound.Port), nil
	case *unix.SockaddrInet6:
		return uint16(bound.Port), nil
	default:
		return 0, os.NewSyscallError("getsockname", err)
	}
}

func (r *portReserve) close() {
	for _, fd := range r.sockets {
		unix.Close(fd)
	}
	r.sockets = nil
}
