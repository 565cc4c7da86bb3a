package checker

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// blackHole returns a target on loopback that swallows SYNs: a listener whose accept queue is full.
func blackHole(t testing.TB) netip.AddrPort {
	t.Helper()
	target, l := listen(t, "tcp4", "127.0.0.3:0")
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	room := func() (waiting, most uint32) {
		var info *unix.TCPInfo
		raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err != nil {
			t.Fatal(os.NewSyscallError("getsockopt", err))
		}
		// Of a listener these are the queue's length and its backlog (tcp_get_info in net/ipv4/tcp.c).
		return info.Unacked, info.Sacked
	}
	raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(os.NewSyscallError("listen", err))
	}
	// A queue has room for one connection more than its backlog (sk_acceptq_is_full in include/net/sock.h).
	conn, err := net.Dial("tcp4", target.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	lab.Until(t, "the queue to be full", func() bool {
		waiting, most := room()
		return waiting > most
	})
	return target
}
