package health

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// table holds the targets by their keys. To find one takes no lock. The buckets are chains of targets, and there are as
// many as there were ever targets at the same time: with each target beyond that, one bucket is split in two (Litwin,
// "Linear Hashing", VLDB 1980). So no addition ever has to move all targets, and what the table needs for a target beside
// the target itself are three words. It keeps the room for the most targets that it ever had.
type table struct {
	// buckets are in segments, each as large as all before it together. Those that are not in use yet are nil.
	buckets [maxSegments]atomic.Pointer[[]chain]
	inUse   atomic.Uint32 // buckets, 0 before the first target came
	splits  atomic.Uint32 // counts the beginnings and ends of splits: it is odd during one

	// near are some of the targets that are asked for most, each at a place that its address and port tell. To look there
	// takes a third of the time.
	near [nearPlaces]atomic.Pointer[Target]

	// mu is held while the table is changed. No other lock is taken meanwhile.
	mu   sync.Mutex
	size int // targets in the table
	// places are where the targets are listed for all, in blocks. A target stays in its place until it leaves.
	places []*placeBlock
	taken  uint32   // places from the first on that were ever taken
	vacant []uint32 // those of them that are not taken now
}

// chain is the first of the targets in a bucket, which are linked through Target.chained.
type chain = atomic.Pointer[Target]

// placeBlock is so few places that a copy fits on a small stack.
type placeBlock [placesInBlock]*Target

const (
	firstBits    = 6
	firstBuckets = 1 << firstBits
	maxSegments  = 32 - firstBits + 1

	placesInBlock = 256

	nearBits   = 10 // with more, what is near would crowd the processor's cache
	nearPlaces = 1 << nearBits
)

// tableSeed, tableKeys and nearKey keep others from making up addresses with the same hash.
var (
	tableSeed = maphash.MakeSeed()
	tableKeys = [...]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}
	nearKey   = rand.Uint64() | 1
)

// hash returns the hash of a key: by multiplication, as in wyhash, which Go's own maps have where a CPU has no instructions
// for AES. These would have the key in memory first, and that takes longer than all the rest.
func (k *key) hash() uint32 {
	rest := uint64(k.port)
	if k.addr.Is4() {
		octets := k.addr.As4()
		rest |= uint64(binary.BigEndian.Uint32(octets[:])) << 16
	} else {
		octets := k.addr.As16()
		rest ^= mixed(binary.BigEndian.Uint64(octets[:8])^tableKeys[0], binary.BigEndian.Uint64(octets[8:])^tableKeys[1])
	}
	hash := mixed(rest^tableKeys[2], maphash.Comparable(tableSeed, k.settings))
	// Addresses side by side make products that are as far apart from each other, all of them. By chance that can be such
	// that many have the same last bits.
	return uint32(mixed(hash, tableKeys[3]))
}

// mixed returns a number whose bits depend on all bits of two others.
func mixed(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// bucketOf returns the number of the bucket that a hash is in, of so many.
func bucketOf(hash, buckets uint32) uint32 {
	all := uint32(1)<<bits.Len32(buckets-1) - 1
	if i := hash & all; i < buckets {
		return i
	}
	return hash & (all >> 1) // its bucket has not been split yet
}

// bucket returns one that is in use.
func (t *table) bucket(i uint32) *chain {
	segment := bits.Len32(i >> firstBits)
	if segment > 0 {
		i -= firstBuckets << (segment - 1)
	}
	return &(*t.buckets[segment].Load())[i]
}

// nearOf returns where the target with an address and port may be near.
func (t *table) nearOf(addr netip.Addr, port uint16) *atomic.Pointer[Target] {
	rest := uint64(port) << 32
	if addr.Is4() {
		octets := addr.As4()
		rest |= uint64(binary.BigEndian.Uint32(octets[:]))
	} else {
		octets := addr.As16()
		rest ^= binary.BigEndian.Uint64(octets[8:])
	}
	return &t.near[(rest*nearKey)>>(64-nearBits)]
}

// getNear returns the target with a key of these parts if it is near, else nil. It may have left the table a moment ago. The
// parts are not a key yet so that they stay in registers.
func (t *table) getNear(addr netip.Addr, port uint16, settings Key) *Target {
	x := t.nearOf(addr, port).Load()
	if x != nil && x.addr == addr && x.port == port && x.settings == settings {
		return x
	}
	return nil
}

// bring puts a target near, unless another one at its place was asked for since that was checked last. Two that are asked
// for all the time do not take turns: for each turn, processors would have to wait for each other.
func (t *table) bring(x *Target) {
	near := t.nearOf(x.addr, x.port)
	if at := near.Load(); at == nil || at.wanted.Load() <= 0 {
		near.CompareAndSwap(at, x)
	}
}

// get returns the target with a key, nil if there is none. It allocates nothing.
func (t *table) get(k *key) *Target {
	hash := k.hash()
	splits := t.splits.Load()
	if found := t.search(k, hash); found != nil {
		return found
	}
	if splits%2 == 0 && splits == t.splits.Load() {
		return nil
	}
	// The target may have been moved to another chain before it was come across.
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.search(k, hash)
}

func (t *table) search(k *key, hash uint32) *Target {
	buckets := t.inUse.Load()
	if buckets == 0 {
		return nil
	}
	for x := t.bucket(bucketOf(hash, buckets)).Load(); x != nil; x = x.chained.Load() {
		if x.is(k) {
			return x
		}
	}
	return nil
}

// put adds a target with a key that is not in the table.
func (t *table) put(x *Target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.size++; {
	case t.inUse.Load() == 0:
		first := make([]chain, firstBuckets)
		t.buckets[0].Store(&first)
		t.inUse.Store(firstBuckets)
	case t.size > int(t.inUse.Load()):
		t.split()
	}
	k := x.key()
	head := t.bucket(bucketOf(k.hash(), t.inUse.Load()))
	x.chained.Store(head.Load())
	head.Store(x)
	t.takePlace(x)
}

// split takes one more bucket into use, and moves those there that belong there from now on. The caller holds mu.
func (t *table) split() {
	buckets := t.inUse.Load()
	if segment := bits.Len32(buckets >> firstBits); t.buckets[segment].Load() == nil {
		more := make([]chain, buckets) // as many as there are
		t.buckets[segment].Store(&more)
	}
	t.splits.Add(1)
	from, to := t.bucket(buckets&(1<<(bits.Len32(buckets)-1)-1)), t.bucket(buckets)
	for x := from.Load(); x != nil; {
		next := x.chained.Load()
		if k := x.key(); bucketOf(k.hash(), buckets+1) == buckets {
			from.Store(next)
			x.chained.Store(to.Load())
			to.Store(x)
		} else {
			from = &x.chained
		}
		x = next
	}
	t.inUse.Store(buckets + 1)
	t.splits.Add(1)
}

// remove takes out a target that is in the table. Whoever has come across it while he searches the chain goes on from it,
// so it stays linked to the next.
func (t *table) remove(x *Target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := x.key()
	link := t.bucket(bucketOf(k.hash(), t.inUse.Load()))
	for before := link.Load(); before != x; before = link.Load() {
		link = &before.chained
	}
	link.Store(x.chained.Load())
	t.nearOf(k.addr, k.port).CompareAndSwap(x, nil)
	t.size--
	t.places[x.place/placesInBlock][x.place%placesInBlock] = nil
	t.vacant = append(t.vacant, x.place)
}

// takePlace gives a target its place. The caller holds mu.
func (t *table) takePlace(x *Target) {
	if last := len(t.vacant) - 1; last >= 0 {
		x.place = t.vacant[last]
		t.vacant = t.vacant[:last]
	} else {
		x.place = t.taken
		t.taken++
		if x.place%placesInBlock == 0 {
			t.places = append(t.places, new(placeBlock))
		}
	}
	t.places[x.place/placesInBlock][x.place%placesInBlock] = x
}

// all yields the targets, in the order in which they came as long as none has left: so they are side by side in memory,
// which makes it several times as fast as to go by the buckets. A target that is in the table from beginning to end is
// yielded once.
func (t *table) all() iter.Seq[*Target] {
	return func(yield func(*Target) bool) {
		var block placeBlock
		for i := 0; t.copyPlaces(i, &block); i++ {
			for _, x := range block {
				if x != nil && !yield(x) {
					return
				}
			}
		}
	}
}

// blocks returns how many blocks of places there are.
func (t *table) blocks() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.places)
}

// copyPlaces copies a block of places. It reports false if there are not so many.
func (t *table) copyPlaces(i int, to *placeBlock) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= len(t.places) {
		return false
	}
	*to = *t.places[i]
	return true
}
