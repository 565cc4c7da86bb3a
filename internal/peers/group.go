// Package peers lets the replicas of a service agree on verdicts, and share the work of checking.
package peers

import (
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// Config is what a group is made of.
type Config struct {
	// Address is where this replica listens, by UDP and TCP, and at which the others reach it. It is not unspecified.
	Address netip.AddrPort
	// Join are hosts with ports: addresses, or names that are resolved again and again.
	Join []string
	// KeyFile has a key on each line. The first encrypts, all decrypt. It is read again when it changes.
	KeyFile string
	// Site is where this replica is. With Quorum a majority of the sites decides.
	Site   string
	Quorum bool
	// Observers is how many replicas of a site check a target, 3 where it is 0.
	Observers int
	// Allow are those who may speak to this replica at all, anybody where there are none.
	Allow []netip.Prefix

	// Shaker is the version, for people.
	Shaker string
	// Offers are the settings with which this replica may be asked to check targets.
	Offers []health.Key
	// MayCheck tells whether a policy has settings with this fingerprint and allows the address. It returns the key that
	// the policy has for it, and for how long a target is kept.
	MayCheck func(health.Subject) (k health.Key, keep time.Duration, ok bool)
}

// Listener is told what happens. Its functions are called one at a time, and hold up the group. None may be nil.
type Listener struct {
	// Infof and Warningf are about the group and its members, for the log and the events.
	Infof, Warningf func(format string, args ...any)
	// Disagreed is told that what this replica says of a target differs from the verdict in force for longer than it takes
	// to notice, and that this has ended.
	Disagreed func(t *health.Target, d Disagreement)
	// Noted is told a note of another replica, see [Group.Note]. It must not keep the value.
	Noted func(from, key string, value []byte)
	// Recovered is told of a panic that was recovered from, where that is done.
	Recovered func(where string, reason any)
}

// Disagreement is when it began or ended.
type Disagreement struct {
	Ended   bool
	Own     health.Word
	InForce health.State
	Tally   health.Tally
}

// Group is the replicas that this one knows, with what they say of targets. It is the [health.Council] of a monitor.
type Group struct{}

// Open listens and begins to look for others. An address that is taken and a key file that cannot be used are errors.
func Open(c Config, m *health.Monitor, l Listener) (*Group, error) { return new(Group), nil }

// Configure changes all but the Address. An error changes nothing.
func (g *Group) Configure(c Config) error { return nil }

// Close tells the others that this replica leaves, without waiting for them, and ends all that Open has begun. The monitor
// decides alone then.
func (g *Group) Close() {}

// Ready tells whether the verdicts of all others that can be reached are known. It stays true.
func (g *Group) Ready() bool { return true }

// Note tells all others a note, in the place of the one before with the same key. A key may have 400 octets, a value 700.
func (g *Group) Note(key string, value []byte) {}

// Report returns what there is to tell of the group.
func (g *Group) Report() Report { return Report{} }

// Said returns what each replica that observes a target says of it, and this one. It is nil for a target that nobody knows.
func (g *Group) Said(t *health.Target) []Said { return nil }

// Report is what there is to tell of a group.
type Report struct {
	Members []Member // this replica first, then by name
	// Observers is how many replicas of a site are to check a target, as configured here.
	Observers int
	// Join is what came of each place in Config.Join: the error of the last time, nil where it worked.
	Join []Joined
	// Disagreeing is of how many targets this replica says another verdict than is in force, as in Listener.Disagreed.
	Disagreeing int
	Ready       bool
	Counts      Counts
}

// Joined is what came of joining a place.
type Joined struct {
	Place string
	Err   error
}

// Member is a replica.
type Member struct {
	Name    string // unique to each start of a replica
	Host    string // its host name
	Address netip.AddrPort
	Site    string
	Quorum  bool
	Shaker  string // version
	Self    bool
	Since   time.Duration // for how long it is known
	// Heard is how long ago it was heard of, and Alive whether that is recent enough.
	Heard time.Duration
	Alive bool
	// Frozen and InDoubt are why its words do not count; Stuck is that its checks do not end.
	Frozen, InDoubt, Stuck bool
	// Strange tells that none of its settings are ours, and Newer that it speaks a version of the protocol that is not known here.
	Strange, Newer bool
	// Lag is how many of its changes are not known here yet.
	Lag uint64
	// Observed is how many targets it checks, and Finished how many checks it has finished.
	Observed, Finished uint64
}

// Counts are numbers since Open.
type Counts struct {
	SentMessages, SentOctets, ReceivedMessages, ReceivedOctets uint64
	// Rejected are packets and connections by reason: "source", "key", "format", "flood".
	Rejected map[string]uint64
}

// Said is what a replica says of a target.
type Said struct {
	Member   string
	Host     string
	Site     string
	Self     bool
	Observer bool // its word counts
	Opinion  health.Opinion
}

// CheckKeyFile looks for mistakes in a key file without opening a group. The doubt, if there is one, is of what is possible
// but not safe: others can read the file.
func CheckKeyFile(path string) (doubt string, err error) { return "", nil }

// Enter implements [health.Council].
func (g *Group) Enter(t *health.Target) health.Decision {
	return health.Decision{Observes: true, Alone: true}
}

// Decide implements [health.Council].
func (g *Group) Decide(t *health.Target, own health.Opinion) health.Decision {
	return health.Decision{Observes: true, Alone: true}
}

// Leave implements [health.Council].
func (g *Group) Leave(t *health.Target) {}

// Froze implements [health.Council].
func (g *Group) Froze(frozen bool) {}
