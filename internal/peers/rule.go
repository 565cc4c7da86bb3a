package peers

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/coredns-shaker/shaker/health"
)

func memberHash(name string) uint64 { return xxhash.Sum64String(name) }

func subjectHash(k key) uint64 {
	var b [26]byte
	binary.BigEndian.PutUint64(b[:], k.high)
	binary.BigEndian.PutUint64(b[8:], k.low)
	binary.BigEndian.PutUint64(b[16:], k.settings)
	binary.BigEndian.PutUint16(b[24:], k.port)
	return xxhash.Sum64(b[:])
}

// rank orders members for a subject.
func rank(subject, member uint64) uint64 {
	x := subject ^ member
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// agree returns the verdict of voters: down if more than half of them say down; else up if one at least says up.
func agree(words []health.Word, inForce health.State) (health.State, health.Tally) {
	t := health.Tally{Of: len(words)}
	for _, w := range words {
		switch {
		case w == health.SaysUp, w == health.Checking && inForce == health.Up:
			t.Up++
		case w == health.SaysDown, w == health.Checking && inForce == health.Down:
			t.Down++
		}
	}
	return judge(t), t
}

func judge(t health.Tally) health.State {
	switch {
	case 2*t.Down > t.Of:
		return health.Down
	case t.Up > 0:
		return health.Up
	}
	return health.Unknown
}

// agreeSites returns the verdict of sites of which each has one.
func agreeSites(verdicts []health.State) (health.State, health.Tally) {
	t := health.Tally{Of: len(verdicts)}
	for _, v := range verdicts {
		switch v {
		case health.Up:
			t.Up++
		case health.Down:
			t.Down++
		}
	}
	return judge(t), t
}
