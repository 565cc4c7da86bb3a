package checker

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// portBlock is how many source ports MethodRaw takes turns with, a power of two. A check never uses one
// that a check of the same target has in use. After a RST that was lost, the target's half of the
// handshake goes with its next SYN-ACK, a second later; the more ports, the rarer a SYN runs into that.
const portBlock = 16

// portReserve is a block of source ports. Sockets are bound to them, so that nobody else on this machine
// gets one of them, but never listen or connect, so that the kernel answers whatever comes in on them
// with a RST.
type portReserve struct {
	first   uint16 // a multiple of portBlock
	sockets []int
}

// reservePorts looks for a block where the kernel suggests a port.
func reservePorts() (portReserve, error) {
	const attempts = 200
	var err error
	for range attempts {
		var r portReserve
		if r, err = tryReserve(); err == nil {
			return r, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EACCES) {
			return portReserve{}, err
		}
	}
	return portReserve{}, fmt.Errorf("no %d free source ports side by side: %w", portBlock, err)
}

func tryReserve() (r portReserve, err error) {
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	port, err := r.bind(0)
	if err != nil {
		return r, err
	}
	r.first = port &^ (portBlock - 1)
	for i := range uint16(portBlock) {
		if r.first+i == port {
			continue
		}
		if _, err := r.bind(r.first + i); err != nil {
			return r, err
		}
	}
	return r, nil
}

// bind takes a port on both families, or the IPv4 one where there is no IPv6, and returns it.
func (r *portReserve) bind(port uint16) (uint16, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	var any unix.Sockaddr = &unix.SockaddrInet6{Port: int(port)}
	if err == unix.EAFNOSUPPORT {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		any = &unix.SockaddrInet4{Port: int(port)}
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
