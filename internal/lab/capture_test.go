package lab

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wantCounts waits until that much has been captured for the target: the last packet may still be under way when the
// connection that sent it is closed.
func wantCounts(t *testing.T, c *Capture, target netip.AddrPort, expected Counts) {
	t.Helper()
	got := c.Counts(target)
	for end := time.Now().Add(patience); got != expected && time.Now().Before(end); got = c.Counts(target) {
		time.Sleep(time.Millisecond)
	}
	if got != expected {
		t.Errorf("%s: %v: %+v, want %+v", c.name, target, got, expected)
	}
}

func TestCaptureCounts(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		const n = 100
		router := l.Host("router")
		web := router.Host("web")
		for _, h := range []*Host{l, web} {
			h.Listen(80)
			h.Listen(81)
		}
		captures := []*Capture{l.Capture(), router.Capture(), web.Capture()}
		start := time.Now()
		for _, addr := range []netip.Addr{l.Addr4, l.Addr6, web.Addr4, web.Addr6} {
			for range n {
				want(t, nil, 80, addr)
				want(t, syscall.ECONNREFUSED, 82, addr)
			}
			for i, c := range captures {
				open, refused := Counts{
					To:   Tally{SYN: n, ACK: n, RST: n},
					From: Tally{SYNACK: n},
				}, Counts{
					To:   Tally{SYN: n},
					From: Tally{RST: n},
				}
				if addr.IsLoopback() && i > 0 {
					open, refused = Counts{}, Counts{}
				}
				wantCounts(t, c, netip.AddrPortFrom(addr, 80), open)
				wantCounts(t, c, netip.AddrPortFrom(addr, 82), refused)
				wantCounts(t, c, netip.AddrPortFrom(addr, 81), Counts{})
			}
		}
		packets := captures[0].Packets()
		last := start
		for _, p := range packets {
			if p.Time.Before(last.Add(-time.Millisecond)) || p.Time.After(time.Now().Add(time.Millisecond)) {
				t.Fatalf("%+v came after %v", p, last)
			}
			last = p.Time
		}
		for _, c := range captures {
			c.Stop()
			c.Stop()
		}
		want(t, nil, 80, web.Addr4)
		if got := captures[0].Packets(); len(got) != len(packets) {
			t.Errorf("%d packets after Stop, %d before", len(got), len(packets))
		}
	})
}

func TestCaptureData(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		web.Listen(80)
		wire := l.Capture()
		for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
			target := netip.AddrPortFrom(addr, 80)
			c, err := net.Dial("tcp", target.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			c.Close()
			l.Until("both sides have closed", func() bool { return wire.Counts(target).From.FIN == 1 })
			to := wire.Counts(target).To
			if to.SYN != 1 || to.Data != 1 || to.FIN != 1 || to.RST != 0 {
				t.Errorf("%v: sent %+v", target, to)
			}
			data := 0
			for _, p := range wire.Packets() {
				if p.Dst == target {
					data += p.Data
				}
			}
			if data != 5 {
				t.Errorf("%v: %d bytes sent, want 5", target, data)
			}
		}
	})
}

// 10 000 connections as fast as they go, over a link and over loopback, all captured. What the kernel sends again is
// captured too: all namespaces of a machine share the queues of its CPUs (netdev_max_backlog), so that a test elsewhere
// may cost this one a packet.
func TestCaptureLoad(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		const workers, each = 8, 1250
		web := l.Host("web")
		web.Listen(80)
		l.Listen(80)
		wire := l.Capture()
		resent := func() int { return l.Stat("TcpExtTCPSynRetrans") + web.Stat("TcpExtTCPSynRetrans") }
		for _, addr := range []netip.Addr{web.Addr4, web.Addr6, l.Addr4, l.Addr6} {
			before := resent()
			start := time.Now()
			var running sync.WaitGroup
			for range workers {
				running.Go(func() {
					for range each {
						want(t, nil, 80, addr)
					}
				})
			}
			running.Wait()
			took := time.Since(start)
			const n = workers * each
			expected := Counts{To: Tally{SYN: n, ACK: n, RST: n}, From: Tally{SYNACK: n}}
			UntilNil(t, func() error {
				got, again := wire.Counts(netip.AddrPortFrom(addr, 80)), resent()-before
				allOpened := got.To.SYN+got.From.SYNACK == 2*n+again && got.To.SYN >= n && got.From.SYNACK >= n
				if got == expected || again > 0 && allOpened && got.To.ACK >= n && got.To.RST >= n {
					return nil
				}
				return fmt.Errorf("%v: %+v, want %+v and %d sent again", addr, got, expected, again)
			})
			t.Logf("%v: %d packets in %v, %d sent again", addr, 4*n, took, resent()-before)
		}
	})
}

func TestParse(t *testing.T) {
	tcp4 := []byte{
		0x45, 0, 0, 45, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4, 45 bytes
		0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0, 0, 0, 0, 0, 0, // 8080 to 80, PSH ACK
	}
	p, ok := parse(tcp4)
	expected := Packet{
		Src: netip.MustParseAddrPort("192.0.2.1:8080"), Dst: netip.MustParseAddrPort("192.0.2.2:80"),
		Flags: PSH | ACK, Seq: 1, Ack: 2, Data: 5,
	}
	if !ok || p != expected {
		t.Errorf("%+v, %t, want %+v", p, ok, expected)
	}
	// Cut anywhere, it must neither panic nor be taken for a segment.
	for n := range tcp4 {
		if p, ok := parse(tcp4[:n]); ok {
			t.Errorf("%d bytes: %+v", n, p)
		}
	}
	icmp := append([]byte{0x45, 0, 0, 68, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 1, 192, 0, 2, 1, 3, 13, 0, 0, 0, 0, 0, 0}, tcp4...)
	p, ok = parse(icmp)
	expected = Packet{
		Src: netip.MustParseAddrPort("198.51.100.1:0"), Dst: netip.MustParseAddrPort("192.0.2.1:0"),
		About: netip.MustParseAddrPort("192.0.2.2:80"), ICMPType: 3, ICMPCode: 13,
	}
	if !ok || p != expected {
		t.Errorf("%+v, %t, want %+v", p, ok, expected)
	}
	for n := range len(icmp) - 16 {
		if p, ok := parse(icmp[:n]); ok {
			t.Errorf("%d bytes: %+v", n, p)
		}
	}
	fragment := append([]byte(nil), tcp4...)
	fragment[7] = 1
	if p, ok := parse(fragment); ok {
		t.Errorf("a later fragment: %+v", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 40, 58, 64}, make([]byte, 80)...))
	f.Fuzz(func(_ *testing.T, b []byte) { parse(b) })
}
