package octets

import (
	"math"
	"testing"
)

func TestReader(t *testing.T) {
	const most = "\xff\xff\xff\xff\xff\xff\xff\xff\xff"
	for _, tt := range []struct {
		name, message string
		read          func(*Reader) any
		want          any
		left          int // -1 where it fails
	}{
		{"octet", "ab", func(r *Reader) any { return r.Octet() }, byte('a'), 1},
		{"no octet", "", func(r *Reader) any { return r.Octet() }, byte(0), -1},
		{"octets", "abc", func(r *Reader) any { return string(r.Octets(2)) }, "ab", 1},
		{"no octets", "abc", func(r *Reader) any { return string(r.Octets(0)) }, "", 3},
		{"too few octets", "abc", func(r *Reader) any { return string(r.Octets(4)) }, "", -1},
		{"16 bits", "\x01\x02c", func(r *Reader) any { return r.Uint16() }, uint16(0x0102), 1},
		{"half of 16 bits", "\x01", func(r *Reader) any { return r.Uint16() }, uint16(0), -1},
		{"64 bits", "\x01\x02\x03\x04\x05\x06\x07\x08", func(r *Reader) any { return r.Uint64() }, uint64(0x0102030405060708), 0},
		{"too few of 64 bits", "\x01\x02\x03\x04\x05\x06\x07", func(r *Reader) any { return r.Uint64() }, uint64(0), -1},
		{"number", "\xac\x02c", func(r *Reader) any { return r.Number() }, uint64(300), 1},
		{"largest number", most + "\x01", func(r *Reader) any { return r.Number() }, uint64(math.MaxUint64), 0},
		{"number that is too large", most + "\x02", func(r *Reader) any { return r.Number() }, uint64(0), -1},
		{"number that does not end", "\xac", func(r *Reader) any { return r.Number() }, uint64(0), -1},
		{"negative number", "\x03c", func(r *Reader) any { return r.Signed() }, int64(-2), 1},
		{"least number", most + "\x01", func(r *Reader) any { return r.Signed() }, int64(math.MinInt64), 0},
		{"no number", "", func(r *Reader) any { return r.Signed() }, int64(0), -1},
		{"as expected", "a", func(r *Reader) any { r.Expect(true); return r.Octet() }, byte('a'), 0},
		{"not as expected", "a", func(r *Reader) any { r.Expect(false); return r.Octet() }, byte(0), -1},
	} {
		r := Reader{Left: []byte(tt.message)}
		got, failed := tt.read(&r), tt.left < 0
		if got != tt.want || r.Failed != failed || len(r.Left) != max(tt.left, 0) {
			t.Errorf("%s: %v, %d left, failed %v; want %v, %d", tt.name, got, len(r.Left), r.Failed, tt.want, tt.left)
		}
	}
}
