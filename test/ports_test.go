package test

import (
	"net"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// port returns a port of loopback that is the test's own, see [lab.Port].
func port(t testing.TB) int { t.Helper(); return lab.Port(t) }

// local returns an address of 127.0.0.1 with such a port.
func local(t testing.TB) string { t.Helper(); return lab.Local(t) }

// taken returns an address of 127.0.0.1 where somebody listens until the end of the test.
func taken(t testing.TB) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr)
}
