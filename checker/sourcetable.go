package checker

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// sourceTable remembers source addresses by IPv4 target: a hash table with open addressing whose entries are eight
// bytes, so that a look-up reads one line of memory as a rule. Entries leave all together. newSourceTable makes one.
type sourceTable struct {
	factors [2]uint64     // odd and secret, so that nobody can choose targets that collide
	entries []sourceEntry // a power of two of them, at most half of them in use
	used    int
}

// sourceEntry is vacant where its target is 0.
type sourceEntry struct{ target, source uint32 }

// rememberedRoutes bounds the memory that addresses which come and go can take. A million targets have room, with 16 MB.
const rememberedRoutes = 1 << 20

// leastSources is how many entries the smallest table has.
const leastSources = 64

func newSourceTable() sourceTable {
	return sourceTable{factors: [2]uint64{rand.Uint64() | 1, rand.Uint64() | 1}, entries: make([]sourceEntry, leastSources)}
}

// get returns the source for a target. It knows none for 0.0.0.0.
func (s *sourceTable) get(target [4]byte) (source [4]byte, ok bool) {
	key := binary.BigEndian.Uint32(target[:])
	e := s.entries[s.place(key)]
	binary.BigEndian.PutUint32(source[:], e.source)
	return source, e.target != 0
}

// put remembers a source. Beyond rememberedRoutes it forgets all others first.
func (s *sourceTable) put(target, source [4]byte) {
	key := binary.BigEndian.Uint32(target[:])
	switch {
	case key == 0:
		return
	case s.used >= rememberedRoutes:
		s.forget()
	case 2*(s.used+1) > len(s.entries):
		s.grow()
	}
	at := s.place(key)
	if s.entries[at].target == 0 {
		s.used++
	}
	s.entries[at] = sourceEntry{key, binary.BigEndian.Uint32(source[:])}
}

// place returns where a target is, or has to be.
func (s *sourceTable) place(key uint32) int {
	mask := len(s.entries) - 1
	hash := uint64(key) * s.factors[0]
	hash = (hash ^ hash>>32) * s.factors[1] // neighbours are far apart now, whatever the factors
	at := int(hash >> (64 - bits.Len(uint(mask))))
	for e := s.entries[at]; e.target != 0 && e.target != key; e = s.entries[at] {
		at = (at + 1) & mask
	}
	return at
}

func (s *sourceTable) grow() {
	old := s.entries
	s.entries = make([]sourceEntry, 2*len(old))
	for _, e := range old {
		if e.target != 0 {
			s.entries[s.place(e.target)] = e
		}
	}
}

// forget empties the table.
func (s *sourceTable) forget() {
	clear(s.entries)
	s.used = 0
}
