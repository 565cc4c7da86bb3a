package checker

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// blackHole returns a target on loopback that swallows SYNs: a listener whose accept queue is full.
func blackHole(t testing.TB) netip.AddrPort {
	t.Helper()
	target, l := listen(t, "tcp4", "127.0.0.3:0")
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(os.NewSyscallError("listen", err))
	}
	for {
		conn, err := net.DialTimeout("tcp4", target.String(), 200*time.Millisecond)
		if err != nil {
			return target
		}
		t.Cleanup(func() { conn.Close() })
	}
}
