package checker

import (
	"net"
	"net/netip"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// BenchmarkVeth is as the other benchmarks, over a pair of virtual Ethernet interfaces to a host in another
// network namespace. The kernel carries a packet to the far end, and the answer back, within the system call
// that sends, as long as nothing else keeps it: that work is counted as the sender's. What the kernel does
// in ksoftirqd, for one, is no process's and is not counted.
func BenchmarkVeth(b *testing.B) {
	for _, bench := range []struct {
		name string
		run  func(*testing.B, wire)
	}{
		{"socket", func(b *testing.B, w wire) { benchProber(b, MethodSocket, w) }},
		{"raw", func(b *testing.B, w wire) { benchProber(b, MethodRaw, w) }},
		{"dial", func(b *testing.B, w wire) { benchProber(b, MethodDial, w) }},
		{"baseline-dialer", benchDialer},
		{"baseline-socket-per-check", benchSocketPerCheck},
		{"baseline-bare-raw", benchBareRaw},
	} {
		b.Run(bench.name, func(b *testing.B) {
			lab.Bench(b, func(b *testing.B, l *lab.Lab) { bench.run(b, overVeth(b, l)) })
		})
	}
}

// overVeth has its targets on a host that is made for it.
func overVeth(b *testing.B, l *lab.Lab) wire {
	b.Helper()
	web := l.Host("web")
	var listener net.Listener
	var err error
	web.Do(func() { listener, err = net.Listen("tcp4", "0.0.0.0:80") })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	acceptAll(b, listener.(*net.TCPListener), closeConn)
	w := wire{source: web.Addr4.Prev()}
	for _, addr := range web.Addrs4(wireTargets) {
		w.targets = append(w.targets, netip.AddrPortFrom(addr, 80))
	}
	return w
}
