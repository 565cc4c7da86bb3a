// Package octets takes binary messages apart that anybody may have made up.
package octets

import "encoding/binary"

// Reader reads from the front of a message. Once something is not there it has failed, and all that it returns from then on is
// zero.
type Reader struct {
	Left   []byte // what was not read yet
	Failed bool
}

// Fail makes it one that has failed.
func (r *Reader) Fail() { r.Failed, r.Left = true, nil }

// Expect makes it one that has failed, unless all is as it should be.
func (r *Reader) Expect(ok bool) {
	if !ok {
		r.Fail()
	}
}

// Octets returns the next n, which stay part of the message.
func (r *Reader) Octets(n int) []byte {
	if n > len(r.Left) {
		r.Fail()
		return nil
	}
	b := r.Left[:n:n]
	r.Left = r.Left[n:]
	return b
}

// Octet returns the next one.
func (r *Reader) Octet() byte {
	if len(r.Left) == 0 {
		r.Fail()
		return 0
	}
	b := r.Left[0]
	r.Left = r.Left[1:]
	return b
}

// Uint16 returns a number of 2 octets, in network byte order.
func (r *Reader) Uint16() uint16 {
	if b := r.Octets(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint64 returns a number of 8 octets, in network byte order.
func (r *Reader) Uint64() uint64 {
	if b := r.Octets(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Number returns one that binary.AppendUvarint has written.
func (r *Reader) Number() uint64 {
	x, n := binary.Uvarint(r.Left)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.Left = r.Left[n:]
	return x
}

// Signed returns one that binary.AppendVarint has written.
func (r *Reader) Signed() int64 {
	x, n := binary.Varint(r.Left)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.Left = r.Left[n:]
	return x
}
