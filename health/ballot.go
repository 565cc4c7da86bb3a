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
	unsteady vote = 1 << stampUnsteady     // besides heard: just before, there was no path to the target
)

const (
	stampHeard = iota
	stampKnown
	stampAsked
	stampUnsteady

	stamps
)

// seat is the place of a host, or of several, in a network.
type seat struct {
	host    uint64 // the first that took it
	targets uint32 // that use it
	// stamps has the newest slot for which a vote says so, 0 where there was none. Whoever is unsteady is heard, who is
	// heard is known, and who is known is asked. So unsteady is the oldest, and asked the newest.
	stamps [stamps]uint32
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

// ballot has the votes of all hosts, by the slots that they are cast for.
type ballot struct {
	now      int64 // the newest slot
	slots    [voteSlots]count
	past     count // stands for all slots before these
	networks map[netip.Prefix]*subnet
	crowds   [maxCrowds]*subnet
	seed     maphash.Seed
	// met is how often somebody in a seat was heard of for the first time.
	met int
}

func newBallot() ballot {
	return ballot{networks: make(map[netip.Prefix]*subnet), seed: maphash.MakeSeed()}
}

func voteSlotAt(now int64) int64 { return now>>voteSlotBits + 1 }

// advance empties the slots that have begun since it was called last.
func (b *ballot) advance(now int64) {
	slot := voteSlotAt(now)
	for i := max(b.now+1, slot-voteSlots+1); i <= slot; i++ {
		b.slots[i%voteSlots] = count{}
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

// enter gives a target its seat.
func (b *ballot) enter(t *Target) {
	prefix := networkOf(t.addr)
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
	t.seat = n.take(hostOf(t.addr))
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
	b.add(s, -1)
	*s = seat{}
	prefix := networkOf(t.addr)
	if n := b.networks[prefix]; n != nil && n.isEmpty() {
		delete(b.networks, prefix)
	}
}

// cast counts a vote of a target's host for a slot, which may be past.
func (b *ballot) cast(t *Target, v vote, slot int64) {
	if t.seat == nil {
		b.enter(t)
	}
	s := t.seat
	switch {
	case v == heard && int64(s.stamps[stampHeard]) >= slot:
		return // as so often where many share a seat
	case v&heard == heard && s.stamps[stampHeard] == 0:
		b.met++
	}
	b.add(s, -1)
	for i := range s.stamps {
		if v&(1<<i) != 0 {
			s.stamps[i] = max(s.stamps[i], uint32(slot))
		}
	}
	b.add(s, 1)
}

// add counts what a seat says n times. One that fell silent after it was heard of counts as silent since any slot
// between the two, but not since the slot in which it was heard.
func (b *ballot) add(s *seat, n int32) {
	heard, known, asked := s.stamps[stampHeard], s.stamps[stampKnown], s.stamps[stampAsked]
	b.slot(heard).heard += n
	b.slot(s.stamps[stampUnsteady]).unsteady += n
	if known != heard {
		b.slot(known).silent += n
		b.slot(heard).silent -= n
	}
	if asked != known {
		b.slot(asked).mute += n
		b.slot(known).mute -= n
	}
}

// slot returns where votes of a slot are counted.
func (b *ballot) slot(i uint32) *count {
	if i == 0 || int64(i) <= b.now-voteSlots {
		return &b.past
	}
	return &b.slots[i%voteSlots]
}

// count is how many seats say what. In a slot, it is how many more say so since that slot than since the next.
type count struct {
	heard    int32 // of one of its targets at least
	silent   int32 // not heard of, although one of its targets was up
	mute     int32 // not heard of, and none of its targets was up
	unsteady int32 // heard of, but one of its targets only after there had been no path to it
}

// since counts from a slot on, which may be before time began.
func (b *ballot) since(slot int64) (sum count) {
	for i := max(slot, b.now-voteSlots+1, 0); i <= b.now; i++ {
		c := &b.slots[i%voteSlots]
		sum.heard += c.heard
		sum.silent += c.silent
		sum.mute += c.mute
		sum.unsteady += c.unsteady
	}
	return sum
}
