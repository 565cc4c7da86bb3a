package members

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
)

// numbering is of the packets that go one way, so that who gets them can tell a packet from its copy.
type numbering struct {
	id   uint64
	last atomic.Uint64
}

func newNumbering() *numbering {
	var b [8]byte
	rand.Read(b[:]) // it never fails
	return &numbering{id: binary.BigEndian.Uint64(b[:])}
}

// stampSize is how many octets append adds.
const stampSize = 16

func (n *numbering) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, n.id), n.last.Add(1))
}

const (
	// late is how many packets may overtake another one before that counts as a copy.
	late = remembered - 64
	// remembered is how many numbers a window has bits for. They are cleared 64 at a time.
	remembered = 1024
	// maxNumberings bounds those that are remembered: each start of another replica takes one or two. The one that was not seen for
	// the longest time is forgotten.
	maxNumberings = 16384
)

// copies tells packets from their copies, such as an attacker would send. Only one goroutine may use it.
type copies struct {
	numberings map[uint64]*window
	seen       uint64 // packets, in place of a time
}

// window is which numbers were seen (as in RFC 4303, section 3.4.3).
type window struct {
	newest uint64
	used   uint64 // when it was, by copies.seen
	bits   [remembered / 64]uint64
}

// isNew tells whether a packet with a stamp comes for the first time, and remembers it.
func (c *copies) isNew(stamp [stampSize]byte) bool {
	c.seen++
	id, number := binary.BigEndian.Uint64(stamp[:8]), binary.BigEndian.Uint64(stamp[8:])
	w := c.numberings[id]
	if w == nil {
		if c.numberings == nil {
			c.numberings = make(map[uint64]*window)
		}
		if len(c.numberings) >= maxNumberings {
			c.forget()
		}
		w = new(window)
		c.numberings[id] = w
	}
	w.used = c.seen
	return w.take(number)
}

func (c *copies) forget() {
	var oldest uint64
	var least *window
	for id, w := range c.numberings {
		if least == nil || w.used < least.used {
			oldest, least = id, w
		}
	}
	delete(c.numberings, oldest)
}

// take tells whether a number, from 1 on, was not seen before, and notes it. Numbers that are too far behind count as seen.
func (w *window) take(number uint64) bool {
	switch {
	case number == 0 || number <= w.newest && w.newest-number >= late:
		return false
	case number > w.newest:
		w.advance(number)
	}
	word, bit := number/64%(remembered/64), uint64(1)<<(number%64)
	if w.bits[word]&bit != 0 {
		return false
	}
	w.bits[word] |= bit
	return true
}

// advance makes room for higher numbers.
func (w *window) advance(number uint64) {
	from, to := w.newest/64, number/64
	for i := range min(to-from, remembered/64) {
		w.bits[(to-i)%(remembered/64)] = 0
	}
	w.newest = number
}
