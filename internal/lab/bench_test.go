package lab

import (
	"maps"
	"net"
	"net/netip"
	"testing"
)

func TestParseBench(t *testing.T) {
	const out = "goos: linux\nBenchmarkA/b-ad-2   9   1 ns/op\nBenchmarkA/b-2 \t  1000\t  12.5 ns/op\t 3.25 cpu-µs/op\t 7 B/op\nPASS\n"
	for name, want := range map[string]map[string]float64{
		"BenchmarkA/b":    {"ns/op": 12.5, "cpu-µs/op": 3.25, "B/op": 7},
		"BenchmarkA/b-ad": {"ns/op": 1},
	} {
		if got, err := parseBench(out, name); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	for _, bad := range []string{"", "PASS", "BenchmarkA/b-2 1000", "BenchmarkA/b-2 1000 x ns/op"} {
		if got, err := parseBench(bad, "BenchmarkA/b"); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// A connection to another host, and an example of Bench.
func BenchmarkDial(b *testing.B) {
	Bench(b, func(b *testing.B, l *Lab) {
		web := l.Host("web")
		web.Listen(80)
		b.ResetTimer()
		for b.Loop() {
			c, err := net.Dial("tcp", netip.AddrPortFrom(web.Addr4, 80).String())
			if err != nil {
				b.Fatal(err)
			}
			c.(*net.TCPConn).SetLinger(0) // or the ports run out
			c.Close()
		}
	})
}
