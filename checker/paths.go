package checker

import (
	"math/bits"
	"net/netip"
)

// path is what tells apart the probes whose SYNs are on their way.
type path struct {
	addr         [16]byte
	port, source uint16
}

func newPath(target netip.AddrPort, source uint16) path {
	return path{addr: target.Addr().As16(), port: target.Port(), source: source}
}

// paths finds the probe that has a path. It is a hash table with open addressing and linear probing: an entry is
// eight bytes, so that most look-ups read one line of memory. The hash is keyed, and whoever uses the table has
// computed it before for another reason. So nobody can choose targets that collide. The zero value is empty.
//
// An entry has the upper half of its hash beside its id. Its place is taken from that half too, which lets the table
// move entries without asking for their hashes again.
type paths struct {
	entries []pathEntry // a power of two of them, at most half of them in use
	used    int
}

// pathEntry is vacant where its id is 0.
type pathEntry struct {
	hash uint32
	id   int32 // one more than the probe's
}

// leastPaths is how many entries the smallest table has.
const leastPaths = 64

// len returns how many paths there are.
func (p *paths) len() int { return p.used }

// find returns the id that is beside this hash and for which match is true.
func (p *paths) find(hash uint64, match func(id int32) bool) (id int32, ok bool) {
	if p.used == 0 {
		return 0, false
	}
	h := uint32(hash >> 32)
	for at := p.home(h); p.entries[at].id != 0; at = p.after(at) {
		if e := p.entries[at]; e.hash == h && match(e.id-1) {
			return e.id - 1, true
		}
	}
	return 0, false
}

// add adds an id, whose path must not be there yet. It may have another path besides, until that is removed.
func (p *paths) add(hash uint64, id int32) {
	if 2*(p.used+1) > len(p.entries) {
		p.grow()
	}
	p.used++
	p.put(pathEntry{uint32(hash >> 32), id + 1})
}

// remove removes an id that was added with this hash. Entries behind it that its place kept from theirs move up (Knuth, "The
// Art of Computer Programming", volume 3, section 6.4, algorithm R).
func (p *paths) remove(hash uint64, id int32) {
	e := pathEntry{uint32(hash >> 32), id + 1}
	hole := p.home(e.hash)
	for p.entries[hole] != e {
		hole = p.after(hole)
	}
	for at := p.after(hole); p.entries[at].id != 0; at = p.after(at) {
		if p.distance(p.home(p.entries[at].hash), at) >= p.distance(hole, at) {
			p.entries[hole] = p.entries[at]
			hole = at
		}
	}
	p.entries[hole] = pathEntry{}
	p.used--
}

// home returns where an entry is if nobody was there before.
func (p *paths) home(hash uint32) int { return int(hash >> (32 - bits.Len(uint(len(p.entries)-1)))) }

func (p *paths) after(at int) int { return (at + 1) & (len(p.entries) - 1) }

// distance returns how many steps forward lead from one place to another.
func (p *paths) distance(from, to int) int { return (to - from) & (len(p.entries) - 1) }

func (p *paths) put(e pathEntry) {
	at := p.home(e.hash)
	for p.entries[at].id != 0 {
		at = p.after(at)
	}
	p.entries[at] = e
}

func (p *paths) grow() {
	old := p.entries
	p.entries = make([]pathEntry, max(leastPaths, 2*len(old)))
	for _, e := range old {
		if e.id != 0 {
			p.put(e)
		}
	}
}
