package checker

import (
	"encoding/binary"
	"math/bits"
)

// sipKey is the secret of a keyed hash: SipHash-2-4, written down from the paper (Aumasson and Bernstein, "SipHash: a fast
// short-input PRF", 2012, sections 2.1 to 2.4) and tested with the vectors of its reference implementation. It is a
// pseudorandom function, as RFC 6528, section 3, asks for: without the key, nobody can tell the hash of one path from
// those of others. Linux makes the sequence numbers of its own SYNs with it (secure_tcp_seq in net/core/secure_seq.c).
type sipKey [2]uint64

// sipKeyFrom reads a key of 16 bytes.
func sipKeyFrom(b [16]byte) sipKey {
	return sipKey{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
}

// sipState is v0 to v3 in the paper.
type sipState struct{ v0, v1, v2, v3 uint64 }

func (k sipKey) start() sipState {
	return sipState{k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573}
}

// round is SipRound. It is this short so that the compiler puts it in place of its calls.
func (s sipState) round() sipState {
	a, c := s.v0+s.v1, s.v2+s.v3
	b, d := bits.RotateLeft64(s.v1, 13)^a, bits.RotateLeft64(s.v3, 16)^c
	a, c = bits.RotateLeft64(a, 32)+d, c+b
	return sipState{a, bits.RotateLeft64(b, 17) ^ c, bits.RotateLeft64(c, 32), bits.RotateLeft64(d, 21) ^ a}
}

// add takes in a word of the input.
func (s sipState) add(word uint64) sipState {
	s.v3 ^= word
	s = s.round().round()
	s.v0 ^= word
	return s
}

// sum adds the last word, which has the input's length in its highest byte, and returns the hash.
func (s sipState) sum(last uint64) uint64 {
	s = s.add(last)
	s.v2 ^= 0xff
	s = s.round().round().round().round()
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}

// hash returns the hash of a path's 20 bytes: the address, and both ports in the order of the network.
func (k sipKey) hash(at *path) uint64 {
	s := k.start().add(binary.LittleEndian.Uint64(at.addr[:8])).add(binary.LittleEndian.Uint64(at.addr[8:]))
	ports := uint64(bits.ReverseBytes16(at.port)) | uint64(bits.ReverseBytes16(at.source))<<16
	return s.sum(ports | uint64(len(at.addr)+4)<<56)
}
