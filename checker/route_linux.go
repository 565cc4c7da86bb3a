package checker

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// routes knows which source address the kernel would choose for an IPv4 target. MethodRaw has to know
// it before it sends, because the checksum covers it. routes remembers what the kernel says until routes,
// addresses or interfaces change.
type routes struct {
	egress  egress
	changes int // netlink socket that tells of such changes
	asking  int // UDP socket that is connected to ask, and never sends
	source  sourceTable
}

// routeGroups are the multicast groups of rtnetlink(7) whose messages may mean another source address.
var routeGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_NEXTHOP,
}

func newRoutes(e egress) (*routes, error) {
	r := &routes{egress: e, asking: -1, source: newSourceTable()}
	var err error
	r.changes, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := r.prepare(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *routes) prepare() error {
	if err := unix.Bind(r.changes, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	for _, group := range routeGroups {
		err := unix.SetsockoptInt(r.changes, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		// Kernels before 5.3 have no nexthop objects.
		if err != nil && group != unix.RTNLGRP_NEXTHOP {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	var err error
	r.asking, err = r.egress.udpSocket(netip.IPv4Unspecified())
	return err
}

// forget forgets all sources, since any may be wrong now. It has to be called when changes is readable.
func (r *routes) forget() {
	var message [4096]byte
	for {
		// What happened does not matter, nor if more happened than the socket could take (ENOBUFS).
		_, _, err := unix.Recvfrom(r.changes, message[:], unix.MSG_TRUNC)
		if err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			break
		}
	}
	r.source.forget()
}

// to returns the source address for packets to dst.
func (r *routes) to(dst [4]byte) ([4]byte, error) {
	if src, ok := r.source.get(dst); ok {
		return src, nil
	}
	src, err := r.ask(dst)
	if err != nil {
		return src, err
	}
	r.source.put(dst, src)
	return src, nil
}

// ask connects a UDP socket, which sends nothing, to learn its local address. It does not heed a rule that is about
// TCP alone (ip-rule(8), ipproto).
func (r *routes) ask(dst [4]byte) (src [4]byte, err error) {
	const anyPort = 9
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(anyPort), Addr: dst}
	if err := rawConnect(r.asking, unsafe.Pointer(&to), unsafe.Sizeof(to)); err != nil {
		return src, os.NewSyscallError("connect", err)
	}
	// Connected, the socket would keep its local address.
	defer disconnect(r.asking)
	local, ok := localAddr(r.asking, false)
	if !ok {
		return src, os.NewSyscallError("getsockname", unix.EADDRNOTAVAIL)
	}
	return local.Addr().As4(), nil
}

// sourceOf returns the source address for dst, of either family. It is slow.
func (e egress) sourceOf(dst netip.AddrPort) netip.Addr {
	fd, err := e.udpSocket(dst.Addr())
	if err != nil {
		return netip.Addr{}
	}
	defer unix.Close(fd)
	if connectTo(fd, dst, 0) != nil {
		return netip.Addr{}
	}
	local, _ := localAddr(fd, dst.Addr().Is6())
	return local.Addr()
}

// owns tells whether addr is one of this machine's. It is slow.
func (e egress) owns(addr netip.Addr) bool {
	fd, err := e.udpSocket(addr)
	if err != nil {
		return true // as far as anybody knows
	}
	defer unix.Close(fd)
	return bindTo(fd, addr) != unix.EADDRNOTAVAIL
}

// udpSocket makes a socket of addr's family that sends nothing.
func (e egress) udpSocket(addr netip.Addr) (int, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := e.apply(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (r *routes) close() {
	unix.Close(r.changes)
	if r.asking >= 0 {
		unix.Close(r.asking)
	}
}
