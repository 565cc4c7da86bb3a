package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// holder is the address on which a test holds its ports. Nothing else is there.
const holder = "127.255.255.254"

// Port returns a port of loopback that is the test's own until it ends, for UDP and for TCP, and free on 127.0.0.1. Other
// tests that ask for a port do not get it, whatever their process: it is held on another address. And it is not one of
// those that the kernel gives to whoever wants just any, which are above (ip(7), ip_local_port_range).
func Port(t testing.TB) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 on its loopback interface")
	}
	for range 1000 {
		n := 10_000 + rand.IntN(20_000)
		held, err := net.Listen("tcp", fmt.Sprintf("%s:%d", holder, n))
		if err != nil {
			continue
		}
		if isFree(n) {
			t.Cleanup(func() { held.Close() })
			return n
		}
		held.Close()
	}
	t.Fatal("no port is free")
	return 0
}

// isFree tells whether nobody uses the port on 127.0.0.1.
func isFree(n int) bool {
	addr := fmt.Sprintf("127.0.0.1:%d", n)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Local returns an address of 127.0.0.1 with a [Port] of the test's own.
func Local(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Port(t))
}
