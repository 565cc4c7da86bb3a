package health

import (
	"encoding/binary"
	"time"

	"github.com/cespare/xxhash/v2"
)

// What replicas agree by: pure functions of what is known, without memory and without chance. So replicas that know the same
// decide the same, and nobody has to lead them.

const (
	// MostVoters is how many voters a target has at most.
	MostVoters = 15
	// doubtedFrom is on how many hosts others have to contradict a replica at least before it is in doubt.
	doubtedFrom = 10
	// stuckAfter is how long the checks of a replica may take to come back, beyond their longest timeout.
	stuckAfter = 3 * time.Second
)

// Hash returns a number that stands for the subject in all replicas, on all platforms.
func (s Subject) Hash() uint64 {
	var octets [26]byte
	addr := s.Addr.Addr().Unmap().As16()
	copy(octets[:], addr[:])
	binary.BigEndian.PutUint16(octets[16:], s.Addr.Port())
	binary.BigEndian.PutUint64(octets[18:], s.Settings)
	return xxhash.Sum64(octets[:])
}

// HashMember returns a number that stands for the name of a replica, likewise.
func HashMember(name string) uint64 { return xxhash.Sum64String(name) }

// Weight returns that of a member for a target. The members that check a target are those with the highest (Thaler and
// Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998). So each gets the same share of all targets, and who comes
// or goes changes no other member's but for the seats that it takes or leaves. target is of [Subject.Hash], and member of
// [HashMember].
func Weight(target, member uint64) uint64 {
	var octets [16]byte
	binary.BigEndian.PutUint64(octets[:8], target)
	binary.BigEndian.PutUint64(octets[8:], member)
	return xxhash.Sum64(octets[:])
}

// Agree returns what the voters of a site have decided: a target is down if and only if more than half of them say so, and up
// if it is not, and one at least says that. Who is [Checking], or has said nothing yet, counts like the verdict in force at
// whoever evaluates, see [Told] for targets that have none. Who is [Unable] is no voter. The tally is of those who say
// something. Without voters the state is Unknown.
func Agree(words []Word, inForce State) (State, Tally) {
	var says Tally
	undecided := 0
	for _, w := range words {
		switch w {
		case Unable:
			continue
		case SaysUp:
			says.Up++
		case SaysDown:
			says.Down++
		default:
			undecided++
		}
		says.Of++
	}
	counted := says
	switch inForce {
	case Up:
		counted.Up += undecided
	case Down:
		counted.Down += undecided
	}
	return counted.verdict(), says
}

// AgreeSites returns what the sites have decided, each of which has a say, by what the voters of each have decided: down if and
// only if more than half of the sites say so. Of one site it is what that says.
func AgreeSites(sites []State) (State, Tally) {
	says := tallyOf(sites)
	return says.verdict(), says
}

// tallyOf counts verdicts.
func tallyOf(verdicts []State) Tally {
	says := Tally{Of: len(verdicts)}
	for _, s := range verdicts {
		switch s {
		case Up:
			says.Up++
		case Down:
			says.Down++
		}
	}
	return says
}

// verdict returns what so many have decided.
func (t Tally) verdict() State {
	switch {
	case 2*t.Down > t.Of:
		return Down
	case t.Up > 0:
		return Up
	default:
		return Unknown
	}
}

// Told returns what takes the place of the verdict in force where a target has none yet, because it just enters the table: the
// verdict that is in force at most of the others. Those at which none is do not count.
func Told(others []State) State {
	says := tallyOf(others)
	says.Of = says.Up + says.Down
	return says.verdict()
}

// Notices is how long it takes at most until checks with the settings, with the defaults filled in, notice that a target has
// died or that it lives again: whichever takes longer.
func (s Settings) Notices() time.Duration {
	step := min(max(s.Fast, s.Timeout), maxDuration)
	rows := max(s.Rise, s.Fall)
	if time.Duration(rows) > maxDuration/max(step, 1) {
		return maxDuration
	}
	return s.Interval + time.Duration(rows)*step
}

// Contradicted tells whether all other voters of a target contradict a replica that says for age that it is down: there is one at
// least that has a verdict, all of those say up, and all of them have said so for longer than it takes to notice that ([Settings.Notices]),
// as has the replica.
func Contradicted(age time.Duration, others []Opinion, notices time.Duration) bool {
	ups := 0
	for _, o := range others {
		switch {
		case o.Word == SaysDown:
			return false
		case o.Word != SaysUp:
			continue
		case o.Age <= notices:
			return false
		}
		ups++
	}
	return ups > 0 && age > notices
}

// InDoubt tells whether a replica is in doubt that says of so many hosts that they are down, and of so many of these is
// [Contradicted]: at least 10, and more than half.
func InDoubt(contradicted, down int) bool {
	return contradicted >= doubtedFrom && 2*contradicted > down
}

// IsStuck tells whether a replica does not check any more: checks are pending, the number of finished ones has not grown for
// so long, and the longest timeout of its settings does not explain that.
func IsStuck(pending int, unchanged, longestTimeout time.Duration) bool {
	return pending > 0 && unchanged > stuckAfter+min(longestTimeout, maxDuration)
}
