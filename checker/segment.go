package checker

import "encoding/binary"

// The TCP segments of MethodRaw (RFC 9293, section 3.1). All of them are built and read here.

const (
	tcpHeader = 20 // without options
	synLength = tcpHeader + 4

	// window is what Linux offers in a SYN on an Ethernet.
	window = 64240
	// The largest segments that fit an Ethernet. Nobody will send one, but a firewall may find a SYN without the
	// option odd.
	mss4, mss6 = 1460, 1440
)

const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// putSYN writes a SYN with the option MSS (RFC 9293, section 3.7.1), and a checksum of 0.
func putSYN(b *[synLength]byte, from, to uint16, isn uint32, mss uint16) {
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], isn)
	binary.BigEndian.PutUint32(b[8:], 0)
	b[12], b[13] = synLength/4<<4, flagSYN
	binary.BigEndian.PutUint16(b[14:], window)
	binary.BigEndian.PutUint32(b[16:], 0) // checksum and urgent pointer
	b[20], b[21] = 2, 4
	binary.BigEndian.PutUint16(b[22:], mss)
}

// putChecksum4 completes a segment that goes from src to dst.
func putChecksum4(b []byte, src, dst [4]byte) {
	binary.BigEndian.PutUint16(b[16:], checksum4(b, src, dst))
}

// checksum4 is that of TCP over IPv4, pseudo header included. It is 0 over a segment that bears its
// right checksum.
func checksum4(b []byte, src, dst [4]byte) uint16 {
	const protocol = 6
	sum := uint64(binary.BigEndian.Uint32(src[:])) + uint64(binary.BigEndian.Uint32(dst[:])) + protocol + uint64(len(b))
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	var rest [4]byte
	copy(rest[:], b)
	sum += uint64(binary.BigEndian.Uint32(rest[:]))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// segment is what matters in a segment that has come in.
type segment struct {
	from, to uint16 // ports
	ack      uint32
	flags    uint8
}

// parseSegment reads a segment, and does not verify its checksum. A packet from this machine itself never has a right
// one. Answers bring 32 bits of sequence number back, to which a checksum would add nothing.
func parseSegment(b []byte) (s segment, ok bool) {
	if len(b) < tcpHeader {
		return segment{}, false
	}
	return segment{
		from:  binary.BigEndian.Uint16(b[0:]),
		to:    binary.BigEndian.Uint16(b[2:]),
		ack:   binary.BigEndian.Uint32(b[8:]),
		flags: b[13],
	}, true
}

// result returns what a segment says in answer to a SYN with that sequence number (RFC 9293, section
// 3.10.7.3). It reports false for a segment that does not acknowledge the SYN, and so says nothing.
func (s segment) result(isn uint32) (Result, bool) {
	if s.flags&flagACK == 0 || s.ack != isn+1 {
		return Inconclusive, false
	}
	switch {
	case s.flags&flagRST != 0:
		return Refused, true
	case s.flags&flagSYN != 0:
		return Answered, true
	default:
		return Inconclusive, false
	}
}

// splitIPv4 returns an IPv4 packet's source and what is behind its header (RFC 791, section 3.1).
func splitIPv4(b []byte) (src [4]byte, payload []byte, ok bool) {
	const least = 20
	if len(b) < least || b[0]>>4 != 4 {
		return src, nil, false
	}
	header := int(b[0]&0xf) * 4
	if header < least || header > len(b) {
		return src, nil, false
	}
	return [4]byte(b[12:16]), b[header:], true
}

// quote is what an ICMP error quotes of the segment it is about: at least these eight bytes (RFC 792,
// RFC 4443, section 3).
type quote struct {
	from, to uint16 // ports
	seq      uint32
}

func parseQuote(b []byte) (q quote, ok bool) {
	if len(b) < 8 {
		return quote{}, false
	}
	return quote{
		from: binary.BigEndian.Uint16(b[0:]),
		to:   binary.BigEndian.Uint16(b[2:]),
		seq:  binary.BigEndian.Uint32(b[4:]),
	}, true
}
