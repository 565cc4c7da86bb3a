package health

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
)

// Hosts vote on how well this machine reaches others. All ports of an address, whatever their settings, share one
// vote, and one port that is heard of speaks for the host. A network has a few seats. Where it has more hosts than
// seats they share them, and a seat speaks as a host does: it is heard of if any of its hosts is. So nobody gains
// weight by many ports, or by many addresses on a network.

const (
	// Addresses with the same first bits are on the same network.
	networkBits4, networkBits6 = 24, 64
	// networkSeats is one less than frozenFrom, so that one network alone never freezes verdicts.
	networkSeats = frozenFrom - 1
	// maxNetworks bounds the memory that networks of their own take. The hosts of all further networks share those
	// of a crowd.
	maxNetworks, maxCrowds = 1024, 256

	// A slot is 2^26 ns = 67 ms, and all of them span 34 s.
	voteSlots, voteSlotBits = 512, 26
)

// vote says what became of a probe. It is a set of stamps, see seat.
type vote uint8

const (
	heard    vote = 1<<stampHeard | silent // it was answered or refused
	silent   vote = 1<<stampKnown | mute   // it was not, although the target is up
	mute     vote = 1 << stampAsked        // it was not, and the target was never heard of
	troubled vote = 1 << stampTroubled     // besides silent or mute: this machine has no path
)

const (
	stampHeard = iota
	stampKnown
	stampAsked
	stampTroubled

	stamps
)

// seat is the place of a host, or of several, in a network.
type seat struct {
	host    uint64 // the first that took it
	targets uint32 // that use it
	// stamps has the slot of the newest vote that says so, 0 where there was none. Who votes for heard votes for
	// known, and who votes for known votes for asked.
	stamps [stamps]uint32
}

// counted returns in which slot the seat is counted for what. The last is the newest slot since which it has been
// both heard of and troubled.
func (s *seat) counted() [stamps]uint32 {
	slots := s.stamps
	slots[stampTroubled] = min(slots[stampHeard], slots[stampTroubled])
	return slots
}

// subnet is a network, or a crowd of them.
type subnet [networkSeats]seat

// take returns the seat of a host for one more target: its own if it has one or there is a free one, otherwise one
// that it shares.
func (n *subnet) take(host uint64) *seat {
	var free *seat
	for i := range n {
		s := &n[i]
		if s.targets > 0 && s.host == host {
			s.targets++
			return s
		}
		if s.targets == 0 && free == nil {
			free = s
		}
	}
	if free == nil {
		free = &n[host%networkSeats]
	} else {
		free.host = host
	}
	free.targets++
	return free
}

func (n *subnet) isEmpty() bool {
	for i := range n {
		if n[i].targets > 0 {
			return false
		}
	}
	return true
}

// ballot has the votes of all hosts, by when they were cast.
type ballot struct {
	now      int64 // the newest slot
	slots    [voteSlots][stamps]int32
	networks map[netip.Prefix]*subnet
	crowds   [maxCrowds]*subnet
	seed     maphash.Seed
	// met is how often somebody in a seat was heard of for the first time.
	met int
	// newest is the slot of the newest vote for heard, by family.
	newest [2]int64
}

func newBallot() ballot {
	return ballot{networks: make(map[netip.Prefix]*subnet), seed: maphash.MakeSeed()}
}

func voteSlotAt(now int64) int64 { return now>>voteSlotBits + 1 }

// advance empties the slots that have begun since it was called last.
func (b *ballot) advance(now int64) {
	slot := voteSlotAt(now)
	for i := max(b.now+1, slot-voteSlots+1); i <= slot; i++ {
		b.slots[i%voteSlots] = [stamps]int32{}
	}
	b.now = slot
}

// metNobody tells whether nobody was ever heard of.
func (b *ballot) metNobody() bool { return b.met == 0 }

func networkOf(addr netip.Addr) netip.Prefix {
	bits := networkBits6
	if addr.Is4() {
		bits = networkBits4
	}
	network, _ := addr.Prefix(bits) // no family has fewer bits
	return network
}

// hostOf returns what tells an address from others on its network.
func hostOf(addr netip.Addr) uint64 {
	octets := addr.As16()
	return binary.BigEndian.Uint64(octets[8:])
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// enter gives a target its seat.
func (b *ballot) enter(t *Target) {
	prefix := networkOf(t.key.addr)
	n := b.networks[prefix]
	switch {
	case n != nil:
	case len(b.networks) < maxNetworks:
		n = new(subnet)
		b.networks[prefix] = n
	default:
		crowd := &b.crowds[maphash.Comparable(b.seed, prefix)%maxCrowds]
		if *crowd == nil {
			*crowd = new(subnet)
		}
		n = *crowd
	}
	t.seat = n.take(hostOf(t.key.addr))
}

// leave takes a target's seat away. The vote goes with the last target that uses the seat.
func (b *ballot) leave(t *Target) {
	s := t.seat
	if s == nil {
		return
	}
	t.seat = nil
	if s.targets--; s.targets > 0 {
		return
	}
	before := s.counted()
	*s = seat{}
	b.recount(before, s.counted())
	prefix := networkOf(t.key.addr)
	if n := b.networks[prefix]; n != nil && n.isEmpty() {
		delete(b.networks, prefix)
	}
}

// cast counts a vote of a target's host.
func (b *ballot) cast(t *Target, v vote) {
	if t.seat == nil {
		b.enter(t)
	}
	s := t.seat
	if v == heard {
		b.newest[familyOf(t.key.addr)] = b.now
		if s.stamps[stampHeard] == uint32(b.now) {
			return // as nearly always where many share a seat
		}
		if s.stamps[stampHeard] == 0 {
			b.met++
		}
	}
	before := s.counted()
	for i := range s.stamps {
		if v&(1<<i) != 0 {
			s.stamps[i] = uint32(b.now)
		}
	}
	b.recount(before, s.counted())
}

// recount moves a seat from the slots in which it was counted to others.
func (b *ballot) recount(from, to [stamps]uint32) {
	oldest := b.now - voteSlots
	for i := range from {
		if from[i] == to[i] {
			continue
		}
		if slot := int64(from[i]); slot > oldest && slot > 0 {
			b.slots[slot%voteSlots][i]--
		}
		if slot := int64(to[i]); slot > oldest && slot > 0 {
			b.slots[slot%voteSlots][i]++
		}
	}
}

// count is how many seats say what since some slot.
type count struct {
	heard  int64 // of one of its targets at least
	silent int64 // not heard of, although one of its targets was up
	mute   int64 // not heard of, which none of its targets ever was
	clear  int64 // of those that were heard of: there was a path to it all the time
}

// since counts from a slot on, which may be before time began.
func (b *ballot) since(slot int64) count {
	var sum [stamps]int64
	for i := max(slot, b.now-voteSlots+1, 0); i <= b.now; i++ {
		for j, n := range b.slots[i%voteSlots] {
			sum[j] += int64(n)
		}
	}
	return count{
		heard:  sum[stampHeard],
		silent: sum[stampKnown] - sum[stampHeard],
		mute:   sum[stampAsked] - sum[stampKnown],
		clear:  sum[stampHeard] - sum[stampTroubled],
	}
}
