package lab

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// Forger answers in the place of a host's kernel.
type Forger struct {
	t    testing.TB
	name string
	wire *wire
}

// Forge takes a port away from the host's kernel, which from now on hears nothing on it. Each SYN for it is
// passed to answer instead, one after the other, and the packets that answer returns are sent in order. They
// may claim to come from any address but one of the parent's, who would drop them.
func (h *Host) Forge(port uint16, answer func(syn Packet) [][]byte) *Forger {
	h.t.Helper()
	h.Drop(port)
	w, err := newWire(h)
	if err != nil {
		h.t.Fatalf("lab: %s: forge: %v", h.Name, err)
	}
	f := &Forger{t: h.t, name: h.Name, wire: w}
	w.listen(func(p Packet) {
		if p.Dst.Port() == port && !p.About.IsValid() && p.Flags&(SYN|ACK|RST) == SYN {
			f.Send(answer(p)...)
		}
	})
	h.t.Cleanup(w.close)
	return f
}

// Send sends packets from the host to its parent.
func (f *Forger) Send(packets ...[]byte) {
	for _, p := range packets {
		if err := f.wire.send(p); err != nil {
			f.t.Errorf("lab: %s: forge: %v", f.name, err)
		}
	}
}

// Reply returns a segment that goes back where p came from, and acknowledges its SYN.
func (p Packet) Reply(flags uint8) Packet {
	return Packet{Src: p.Dst, Dst: p.Src, Flags: flags, Seq: 1000, Ack: p.Seq + 1}
}

// Bytes returns the IP packet of a segment without options and data.
func (p Packet) Bytes() []byte {
	const header, window = 20, 65535
	b := make([]byte, header)
	binary.BigEndian.PutUint16(b[0:], p.Src.Port())
	binary.BigEndian.PutUint16(b[2:], p.Dst.Port())
	binary.BigEndian.PutUint32(b[4:], p.Seq)
	binary.BigEndian.PutUint32(b[8:], p.Ack)
	b[12], b[13] = header/4<<4, p.Flags
	binary.BigEndian.PutUint16(b[14:], window)
	src, dst := p.Src.Addr(), p.Dst.Addr()
	binary.BigEndian.PutUint16(b[16:], checksum(pseudoHeader(protoTCP, src, dst, len(b)), b))
	return packIP(protoTCP, src, dst, b)
}

// Error returns the IP packet of an ICMP error about p from any address, of p's family.
func (p Packet) Error(from netip.Addr, kind, code uint8) []byte {
	to := p.Src.Addr()
	b := append([]byte{kind, code, 7: 0}, p.Bytes()...)
	if to.Is4() {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return packIP(protoICMP, from, to, b)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(pseudoHeader(protoICMPv6, from, to, len(b)), b))
	return packIP(protoICMPv6, from, to, b)
}

// packIP puts an IP header before the payload (RFC 791 section 3.1, RFC 8200 section 3).
func packIP(proto uint8, src, dst netip.Addr, payload []byte) []byte {
	const hops = 64
	if src.Is6() {
		b := []byte{0: 6 << 4, 6: proto, 7: hops}
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		return append(b, payload...)
	}
	b := []byte{0: 4<<4 | 5, 8: hops, 9: proto, 11: 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// pseudoHeader is what the checksums of TCP and ICMPv6 cover besides the payload (RFC 9293 section 3.1, RFC
// 8200 section 8.1). The two families differ only in the size of fields.
func pseudoHeader(proto uint8, src, dst netip.Addr, size int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return binary.BigEndian.AppendUint32(b, uint32(proto))
}

// checksum is that of RFC 1071. All parts but the last have an even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i, octet := range b {
			sum += uint32(octet) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
