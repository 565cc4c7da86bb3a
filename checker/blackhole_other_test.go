//go:build !linux

package checker

import (
	"net/netip"
	"testing"
)

func blackHole(t testing.TB) netip.AddrPort {
	t.Helper()
	t.Skip("only Linux is known to drop SYNs when an accept queue is full")
	panic("unreachable")
}
