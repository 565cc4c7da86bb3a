package checker

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// naiveChecksum is RFC 9293, section 3.1, word by word.
func naiveChecksum(b []byte, src, dst [4]byte) uint16 {
	pseudo := append(append([]byte{}, src[:]...), dst[:]...)
	pseudo = append(pseudo, 0, 6, byte(len(b)>>8), byte(len(b)))
	sum := 0
	for _, part := range [][]byte{pseudo, b} {
		for i := range part {
			shift := 8 * (1 - i%2)
			sum += int(part[i]) << shift
			if sum > 0xffff {
				sum -= 0xffff
			}
		}
	}
	return ^uint16(sum)
}

func TestChecksumAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for length := range 2048 {
		b := make([]byte, length)
		var src, dst [4]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for i := range src {
			src[i], dst[i] = byte(r.Uint32()), byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			for i := range b {
				b[i] = 0xff // carries everywhere
			}
		}
		if got, want := checksum4(b, src, dst), naiveChecksum(b, src, dst); got != want {
			t.Fatalf("%d octets: %#x, want %#x", length, got, want)
		}
	}
}

// A SYN is what RFC 9293 says, octet by octet, and bears its right checksum.
func TestPutSYN(t *testing.T) {
	b := [synLength]byte{}
	for i := range b {
		b[i] = 0xee // of the last SYN in the same place
	}
	putSYN(&b, 0x1234, 443, 0x89abcdef, mss4)
	want := []byte{0x12, 0x34, 1, 187, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 0, 6 << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 180}
	if !bytes.Equal(b[:], want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	src, dst := [4]byte{192, 0, 2, 1}, [4]byte{198, 51, 100, 7}
	putChecksum4(b[:], src, dst)
	if naiveChecksum(b[:], src, dst) != 0 {
		t.Errorf("wrong checksum in %x", b)
	}
}

// segmentOf builds a segment the long way.
func segmentOf(from, to uint16, seq, ack uint32, flags uint8, options int) []byte {
	b := []byte{byte(from >> 8), byte(from), byte(to >> 8), byte(to),
		byte(seq >> 24), byte(seq >> 16), byte(seq >> 8), byte(seq),
		byte(ack >> 24), byte(ack >> 16), byte(ack >> 8), byte(ack),
		byte((20+options)/4) << 4, flags, 0, 0, 0, 0, 0, 0}
	return append(b, make([]byte, options)...)
}

func TestSegmentResult(t *testing.T) {
	const fin, push, urgent, echo, reduced = 0x01, 0x08, 0x20, 0x40, 0x80
	for _, tt := range []struct {
		name  string
		flags uint8
		ack   uint32 // beyond the initial sequence number
		want  Result
		says  bool
	}{
		{"SYN-ACK", flagSYN | flagACK, 1, Answered, true},
		{"SYN-ACK with ECN", flagSYN | flagACK | echo | reduced, 1, Answered, true},
		{"RST-ACK", flagRST | flagACK, 1, Refused, true},
		{"RST wins", flagRST | flagSYN | flagACK, 1, Refused, true},
		{"SYN-ACK that acknowledges nothing", flagSYN | flagACK, 0, Inconclusive, false},
		{"SYN-ACK that acknowledges too much", flagSYN | flagACK, 2, Inconclusive, false},
		{"RST that acknowledges nothing", flagRST | flagACK, 0, Inconclusive, false},
		{"RST alone", flagRST, 1, Inconclusive, false},
		{"SYN alone", flagSYN, 1, Inconclusive, false},
		{"ACK alone", flagACK, 1, Inconclusive, false},
		{"FIN", fin | flagACK, 1, Inconclusive, false},
		{"data", push | urgent | flagACK, 1, Inconclusive, false},
		{"nothing", 0, 1, Inconclusive, false},
	} {
		for _, isn := range []uint32{0, 7, 0x7fffffff, 0xfffffffe, 0xffffffff} {
			s, ok := parseSegment(segmentOf(443, 50000, 1, isn+tt.ack, tt.flags, 12))
			if !ok {
				t.Fatalf("%s: not a segment", tt.name)
			}
			if got, says := s.result(isn); got != tt.want || says != tt.says {
				t.Errorf("%s, sequence number %#x: %v, %v; want %v, %v", tt.name, isn, got, says, tt.want, tt.says)
			}
		}
	}
}

// packet4 is an IPv4 packet with that many octets of options.
func packet4(src [4]byte, options int, payload []byte) []byte {
	header := make([]byte, 20+options)
	header[0] = 4<<4 | byte(len(header)/4)
	copy(header[12:], src[:])
	return append(header, payload...)
}

// What comes in is read at every length it may be cut to.
func TestParseCut(t *testing.T) {
	src := [4]byte{192, 0, 2, 7}
	for options := 0; options <= 40; options += 4 {
		whole := packet4(src, options, segmentOf(443, 50000, 1, 8, flagSYN|flagACK, 20))
		for length := range len(whole) + 1 {
			from, payload, ok := splitIPv4(whole[:length:length])
			if want := length >= 20+options; ok != want || ok && (from != src || len(payload) != length-20-options) {
				t.Fatalf("%d of %d octets: %v, %d octets behind the header, %v", length, len(whole), from, len(payload), ok)
			}
			s, ok := parseSegment(payload)
			if want := length >= 40+options; ok != want || ok && s != (segment{443, 50000, 8, flagSYN | flagACK}) {
				t.Fatalf("%d of %d octets: %+v, %v", length, len(whole), s, ok)
			}
		}
	}
	quoted := segmentOf(50000, 443, 0x89abcdef, 0, flagSYN, 4)
	for length := range len(quoted) + 1 {
		q, ok := parseQuote(quoted[:length:length])
		if want := length >= 8; ok != want || ok && q != (quote{50000, 443, 0x89abcdef}) {
			t.Errorf("%d octets of a quote: %+v, %v", length, q, ok)
		}
	}
}

// FuzzAnswer reads anything as a packet on an IPv4 socket. What is taken for an answer is one.
func FuzzAnswer(f *testing.F) {
	f.Add(packet4([4]byte{192, 0, 2, 7}, 0, segmentOf(443, 50000, 1, 8, flagSYN|flagACK, 0)), uint32(7))
	f.Add(packet4([4]byte{192, 0, 2, 7}, 40, segmentOf(443, 50000, 1, 8, flagRST|flagACK, 40)), uint32(7))
	f.Add([]byte{0x45}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, isn uint32) {
		parseQuote(b)
		_, payload, ok := splitIPv4(b)
		if !ok {
			return
		}
		s, ok := parseSegment(payload)
		if !ok {
			return
		}
		result, says := s.result(isn)
		at := int(b[0]&15) * 4
		ack := uint32(b[at+8])<<24 | uint32(b[at+9])<<16 | uint32(b[at+10])<<8 | uint32(b[at+11])
		flags := b[at+13]
		want := Inconclusive
		switch {
		case ack-isn != 1 || flags&0x10 == 0:
		case flags&0x04 != 0:
			want = Refused
		case flags&0x02 != 0:
			want = Answered
		}
		if result != want || says != (want != Inconclusive) {
			t.Errorf("%x: %v, %v; want %v", b, result, says, want)
		}
	})
}
