package lab

import (
	"bytes"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A datagram is recorded whole, and arrives again when it is played, from whom it claims to come.
func TestTape(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		for _, addr := range []netip.Addr{web.Addr4, web.Addr6} {
			var here net.PacketConn
			var err error
			web.Do(func() { here, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 5000).String()) })
			if err != nil {
				t.Fatal(err)
			}
			defer here.Close()
			here.SetDeadline(time.Now().Add(patience))
			tape := web.Tape(5000)
			words := bytes.Repeat([]byte("word "), 200)
			c, err := net.Dial("udp", here.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(words); err != nil {
				t.Fatal(err)
			}
			expect := func(from, want string) {
				t.Helper()
				got := make([]byte, 2000)
				n, source, err := here.ReadFrom(got)
				if err != nil || string(got[:n]) != want || source.String() != from {
					t.Errorf("%d octets from %v, %v; want %d from %s", n, source, err, len(want), from)
				}
			}
			expect(c.LocalAddr().String(), string(words))
			l.Until("the packet on the tape", func() bool { return len(tape.Packets()) > 0 })
			p := tape.Packets()[0]
			if p.Protocol != protoUDP || p.Src.String() != c.LocalAddr().String() || p.Dst.Addr() != addr || !bytes.Equal(p.Payload, words) {
				t.Errorf("on the tape is %v to %v with %d octets", p.Src, p.Dst, len(p.Payload))
			}
			web.Play(Datagram(p.Src, p.Dst, p.Payload))
			expect(c.LocalAddr().String(), string(words))
			// A stranger with an address that is not even of the lab.
			stranger := netip.MustParseAddrPort("192.0.2.9:53")
			if addr.Is6() {
				stranger = netip.MustParseAddrPort("[2001:db8:ffff::9]:53")
			}
			web.Play(Datagram(stranger, netip.AddrPortFrom(addr, 5000), []byte("odd")))
			expect(stranger.String(), "odd")
			tape.Stop()
		}
	})
}

// A program runs in the namespace of its host.
func TestHostStart(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		web := l.Host("web")
		for _, tt := range []struct {
			host *Host
			want string
		}{{web, web.Addr4.String() + "/24"}, {l, "198.18.1.1/24"}} {
			p := tt.host.Start(exec.Command("ip", "-4", "addr", "show", "scope", "global"))
			if err := p.Wait(); err != nil || !strings.Contains(p.Log.String(), tt.want) {
				t.Errorf("%s: %v, it has\n%s", tt.host.Name, err, p.Log.String())
			}
		}
	})
}
