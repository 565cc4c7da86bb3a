package health

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// Council is the other replicas of the service. Together with them a monitor decides whether a target is down, and shares the
// work: of each target only a few replicas are observers, which check it. Without a council the own checks decide.
type Council interface {
	// Enter is called when a target is about to come into the table, by whoever asked for it, and while the table is
	// locked. It returns what is known of the target, so that the first answer with it is right. It must not ask the monitor.
	Enter(t *Target) Decision
	// Decide notes what this replica says of a target, and returns what is decided. It is called from the monitor's
	// goroutine, and only from there: after Enter, when the own word has changed, and when somebody has called
	// [Monitor.Reconsider].
	Decide(t *Target, own Opinion) Decision
	// Leave is called from the monitor's goroutine when a target has left the table.
	Leave(t *Target)
	// Froze is called from the monitor's goroutine when verdicts freeze or thaw here.
	Froze(frozen bool)
}

// Word is what a replica says of a target. The zero value is nothing.
type Word uint8

const (
	// NoWord is that of a replica that does not have the target in its table, or does not check it.
	NoWord Word = iota
	// Checking is that of an observer that has no verdict by its own checks yet. It counts like the verdict in force.
	Checking
	// Unable is that of an observer whose checks lead to no verdict: it may not check the target, has no room for it, or
	// its checks are inconclusive. Another replica takes its place.
	Unable
	// SaysUp and SaysDown are verdicts by own checks.
	SaysUp
	SaysDown
)

// Opinion is what a replica says of a target, and why.
type Opinion struct {
	Word Word
	// InForce is the verdict in force at that replica.
	InForce State
	// Age is how long ago the word was said first.
	Age time.Duration
	// Result is the newest result, and RTT the smoothed round trip, 0 where there is none.
	Result checker.Result
	RTT    time.Duration
}

// Decision is what a council has decided of a target.
type Decision struct {
	// State is the verdict in force.
	State State
	// Observes tells whether this replica has to check the target.
	Observes bool
	// Alone tells that the own checks decide. The State is of no meaning then.
	Alone bool
	// Tally is what led to the State.
	Tally Tally
	// RTT is the shortest that an observer of the own site has told, for a target that this replica does not check.
	RTT time.Duration
}

// Tally is how many of the Of observers of a target say that it is up, and down. Of several sites it counts the sites.
type Tally struct{ Up, Down, Of int }

// Subject is what replicas call a target by: its address and port, and a number that stands for the settings, see
// [Fingerprint].
type Subject struct {
	Addr     netip.AddrPort
	Settings uint64
}

// Fingerprint returns a number that stands for settings in all replicas. The source is no part of it: that is another one on
// each machine.
func Fingerprint(k Key) uint64 {
	s := settings(k)
	s.Source = netip.Addr{}
	sum := sha256.Sum256([]byte(s.String()))
	return binary.BigEndian.Uint64(sum[:])
}

// SetCouncil has verdicts decided by a council from now on, and by the own checks alone where it is nil.
func (m *Monitor) SetCouncil(c Council) {}

// Reconsider has the council asked again about targets, soon.
func (m *Monitor) Reconsider(targets ...*Target) {}

// LostPeers tells that all peers, of which there were some, have fallen silent together, within about the time before now.
// Where the targets did so, too, this machine is cut off.
func (m *Monitor) LostPeers(within time.Duration) {}

// FoundPeers tells that a peer is heard of again.
func (m *Monitor) FoundPeers() {}

// Own returns what this replica says of the target by its own checks.
func (t *Target) Own() Opinion { return Opinion{} }
