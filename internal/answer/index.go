package answer

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// rrsetIndex numbers RRsets in the order in which they are added. Names may be long, and be made up by somebody who wants us
// to compare them, so they are compared by their hashes first.
type rrsetIndex struct {
	keys  []rrsetKey
	table []int32 // a hash table of numbers, none where there is room; empty while there are few keys

	// What find was asked for last: RRsets come in one piece, nearly always.
	owner string
	hash  uint64
	text  int // octets in all names that it was asked for, those apart that were the same as the ones before
}

type rrsetKey struct {
	owner  string
	hash   uint64 // of the owner
	rrtype uint16
}

// manyKeys is the number of RRsets from which on they are looked up in a table.
const manyKeys = 16

// nameKeys keep others from making up names with the same hash.
var nameKeys = [...]uint64{rand.Uint64(), rand.Uint64()}

func (x *rrsetIndex) find(owner string, rrtype uint16) (n int, found bool) {
	if len(x.keys) == 0 {
		return 0, false
	}
	return x.findKey(x.keyOf(owner, rrtype))
}

func (x *rrsetIndex) findKey(key rrsetKey) (n int, found bool) {
	if len(x.keys) < manyKeys {
		for n := len(x.keys) - 1; n >= 0; n-- {
			if x.keys[n].is(key) {
				return n, true
			}
		}
		return 0, false
	}
	for at := x.place(key); x.table[at] != none; at = x.after(at) {
		if n := int(x.table[at]); x.keys[n].is(key) {
			return n, true
		}
	}
	return 0, false
}

func (k *rrsetKey) is(other rrsetKey) bool {
	return k.hash == other.hash && k.rrtype == other.rrtype && sameName(k.owner, other.owner)
}

// place returns where in the table the search for an RRset begins, and after where it goes on.
func (x *rrsetIndex) place(key rrsetKey) int {
	return int(key.hash+uint64(key.rrtype)) & (len(x.table) - 1)
}

func (x *rrsetIndex) after(at int) int { return (at + 1) & (len(x.table) - 1) }

// add numbers an RRset that find does not know.
func (x *rrsetIndex) add(owner string, rrtype uint16) (n int) {
	n = len(x.keys)
	x.keys = append(x.keys, x.keyOf(owner, rrtype))
	switch {
	case n+1 < manyKeys:
	case 2*len(x.keys) > len(x.table):
		x.widen()
	default:
		x.enter(n)
	}
	return n
}

// widen makes a table with a power of two of places, which will be in use to a half at most.
func (x *rrsetIndex) widen() {
	size := max(4*manyKeys, 4*len(x.table))
	x.table = slices.Grow(x.table[:0], size)[:size]
	for i := range x.table {
		x.table[i] = none
	}
	for n := range x.keys {
		x.enter(n)
	}
}

func (x *rrsetIndex) enter(n int) {
	at := x.place(x.keys[n])
	for x.table[at] != none {
		at = x.after(at)
	}
	x.table[at] = int32(n)
}

// reset forgets everything but the space.
func (x *rrsetIndex) reset() {
	clear(x.keys)
	*x = rrsetIndex{keys: x.keys[:0], table: x.table[:0]}
}

// keyOf returns the key of an RRset. One name has one string in all keys, as far as possible: then nobody has to compare it
// octet by octet.
func (x *rrsetIndex) keyOf(owner string, rrtype uint16) rrsetKey {
	hash := x.hashOf(owner)
	return rrsetKey{x.owner, hash, rrtype}
}

// hashOf returns the hash of a name, whatever the case of its letters: by multiplication, 16 octets at once, as in wyhash.
func (x *rrsetIndex) hashOf(owner string) uint64 {
	if x.owner == owner && owner != "" {
		return x.hash
	}
	hash := nameKeys[0] ^ uint64(len(owner))
	name := []byte(owner)
	for ; len(name) > 16; name = name[16:] {
		hash = mixed(hash^lowerAt(name, 0), nameKeys[1]^lowerAt(name, 8))
	}
	if len(name) < 8 {
		var last [8]byte
		copy(last[:], name)
		name = last[:]
	}
	// The first eight and the last eight of what is left may overlap.
	hash = mixed(hash^lowerAt(name, 0), nameKeys[1]^lowerAt(name, len(name)-8))
	x.text += len(owner)
	x.owner, x.hash = owner, hash
	return hash
}

// lowerAt returns eight octets of a name in lower case.
func lowerAt(name []byte, at int) uint64 { return lower(binary.LittleEndian.Uint64(name[at:])) }

// mixed returns a number whose bits depend on all bits of two others.
func mixed(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// sameName tells whether two names differ at most in the case of their ASCII letters (RFC 4343, section 3).
func sameName(a, b string) bool {
	if a == b {
		return true
	}
	if len(a) != len(b) {
		return false
	}
	one, two := []byte(a), []byte(b)
	for ; len(one) >= 8 && len(two) >= 8; one, two = one[8:], two[8:] {
		v, w := binary.LittleEndian.Uint64(one), binary.LittleEndian.Uint64(two)
		if v != w && lower(v) != lower(w) {
			return false
		}
	}
	return bytes.EqualFold(one, two)
}

// lower puts the letters among eight octets into lower case, all at once: names may be a thousand octets long, and there are
// thousands of them in a message.
func lower(octets uint64) uint64 {
	const (
		each = 0x0101010101010101
		high = 0x80 * each
	)
	low := octets &^ high
	fromA := low + (0x80-'A')*each    // the high bit of an octet tells that it is at least A
	aboveZ := low + (0x80-'Z'-1)*each // or above Z
	isUpper := (fromA &^ aboveZ) & high &^ octets
	return octets | isUpper>>2
}
