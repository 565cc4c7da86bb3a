package lab

import (
	"bytes"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// What is built reads back as what it was built from, and its checksums are right.
func TestForgedPackets(t *testing.T) {
	for _, addrs := range [][3]string{
		{"192.0.2.1", "198.51.100.7", "203.0.113.9"},
		{"2001:db8::1", "2001:db8::7", "2001:db8::9"},
	} {
		syn := Packet{
			Src:   netip.AddrPortFrom(netip.MustParseAddr(addrs[0]), 40001),
			Dst:   netip.AddrPortFrom(netip.MustParseAddr(addrs[1]), 80),
			Flags: SYN, Seq: 0xfffffffe,
		}
		reply := syn.Reply(SYN | ACK)
		if reply.Ack != 0xffffffff || reply.Src != syn.Dst || reply.Dst != syn.Src {
			t.Errorf("the reply is %+v", reply)
		}
		for _, p := range []Packet{syn, reply} {
			if got, ok := parse(p.Bytes()); !ok || got != p {
				t.Errorf("%+v reads %+v, %t", p, got, ok)
			}
		}
		router := netip.MustParseAddr(addrs[2])
		e := syn.Error(router, 3, 1)
		want := Packet{Src: netip.AddrPortFrom(router, 0), Dst: netip.AddrPortFrom(syn.Src.Addr(), 0), About: syn.Dst, ICMPType: 3, ICMPCode: 1}
		if got, ok := parse(e); !ok || got != want {
			t.Errorf("the error reads %+v, %t, want %+v", got, ok, want)
		}
		if !bytes.HasSuffix(e, syn.Bytes()) {
			t.Error("the error does not quote the whole packet")
		}
	}
	// The example of RFC 1071, section 3.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03}, []byte{0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %#x", got)
	}
}

// Kernels take what is forged for real: a SYN-ACK, a RST and an ICMP error, and the silence of the host's own.
func TestForge(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		router := l.Host("router")
		web := router.Host("web")
		for port := range uint16(4) {
			web.Listen(80 + port)
		}
		web.Forge(81, func(syn Packet) [][]byte { return [][]byte{syn.Reply(RST | ACK).Bytes()} })
		web.Forge(82, func(syn Packet) [][]byte {
			if syn.Dst.Addr().Is4() {
				return [][]byte{syn.Error(web.Addrs4(1)[0], 3, 1)}
			}
			return [][]byte{syn.Error(web.Addrs6(1)[0], 1, 3)}
		})
		silent := web.Forge(83, func(Packet) [][]byte { return nil })
		web.Forge(84, func(syn Packet) [][]byte { return [][]byte{syn.Reply(SYN | ACK).Bytes()} })
		wire := l.Capture()
		want(t, nil, 80, web.Addr4, web.Addr6)
		want(t, syscall.ECONNREFUSED, 81, web.Addr4, web.Addr6)
		want(t, syscall.EHOSTUNREACH, 82, web.Addr4, web.Addr6)
		want(t, os.ErrDeadlineExceeded, 83, web.Addr4, web.Addr6)
		want(t, nil, 84, web.Addr4, web.Addr6)

		from := netip.AddrPortFrom(web.Addr4, 83)
		silent.Send(Packet{Src: from, Dst: netip.AddrPortFrom(router.Addr4.Prev(), 9), Flags: RST}.Bytes())
		l.Until("what is sent unasked to arrive", func() bool { return wire.Counts(from).From.RST == 1 })
	})
}
