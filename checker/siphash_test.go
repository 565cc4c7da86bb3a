package checker

import (
	"encoding/binary"
	"testing"
)

// sipHash is the algorithm for an input of any length, word by word as in the paper.
func sipHash(k sipKey, b []byte) uint64 {
	s, n := k.start(), len(b)
	for ; len(b) >= 8; b = b[8:] {
		s = s.add(binary.LittleEndian.Uint64(b))
	}
	var last [8]byte
	copy(last[:], b)
	last[7] = byte(n)
	return s.sum(binary.LittleEndian.Uint64(last[:]))
}

// The vectors are those of the paper (appendix A) and of its reference implementation: the key is 00 01 … 0f, and
// the input counts up likewise.
func TestSipHash(t *testing.T) {
	var count [64]byte
	for i := range count {
		count[i] = byte(i)
	}
	key := sipKeyFrom([16]byte(count[:]))
	for _, c := range []struct {
		length int
		want   uint64
	}{
		{0, 0x726fdb47dd0e0e31},
		{1, 0x74f839c593dc67fd},
		{8, 0x93f5f5799a932462},
		{15, 0xa129ca6149be45e5},
	} {
		if got := sipHash(key, count[:c.length]); got != c.want {
			t.Errorf("%d bytes: %#x, want %#x", c.length, got, c.want)
		}
	}
	at := path{
		addr: [16]byte(count[:]), port: binary.BigEndian.Uint16(count[16:]), source: binary.BigEndian.Uint16(count[18:]),
	}
	if got, want := key.hash(&at), sipHash(key, count[:20]); got != want {
		t.Errorf("path: %#x, want %#x", got, want)
	}
}
