// Package peers lets the replicas of a service agree on verdicts, and share the work of checking.
package peers

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/members"
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
	// the policy has for it, and for how long a target is kept. Queries for new targets wait for it, so it takes no time, and
	// it asks neither the group nor the monitor.
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

// readyWithin is when a group is ready at the latest, whether the others could be reached or not.
const readyWithin = 30 * time.Second

// Group is the replicas that this one knows, with what they say of targets. It is the [health.Council] of a monitor.
type Group struct {
	monitor *health.Monitor
	members *members.Members
	core    *core
	opened  time.Time
	ready   atomic.Bool

	end   context.CancelFunc
	ended sync.WaitGroup

	mu     sync.Mutex // guards what follows, one change at a time
	config Config
	closed bool
}

// carrier is the network of a core.
type carrier struct{ *members.Members }

func (c carrier) send(to string, message []byte, reliable bool) { c.Send(to, message, reliable) }
func (c carrier) sendTo(to string, at netip.AddrPort, message []byte) {
	c.SendTo(to, at, message)
}

// Open listens and begins to look for others. An address that is taken and a key file that cannot be used are errors. The group
// decides for the monitor from now on, unless another council does: then it only gets to know what others say, until Convene.
func Open(c Config, m *health.Monitor, l Listener) (*Group, error) { return open(c, m, l, nil) }

// open is Open with a look at each packet, see [members.Config.Wire].
func open(c Config, m *health.Monitor, l Listener, wire func([]byte) bool) (*Group, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = c.Address.Addr().String()
	}
	name := nameOf(host)
	of := c.ofMembers(name)
	of.Wire = wire
	found, err := members.Open(of)
	if err != nil {
		return nil, err
	}
	g := &Group{monitor: m, members: found, opened: time.Now(), config: c}
	c.Address = found.Self() // the port may have been 0
	l = oneAtATime(l)
	g.core = newCore(c, name, m, l, carrier{found})
	ctx, cancel := context.WithCancel(context.Background())
	g.end = cancel
	g.ended.Go(func() { g.core.run(ctx) })
	if err := found.Start(g.listen(l)); err != nil {
		cancel()
		g.ended.Wait()
		return nil, err
	}
	if m.Council() == nil {
		g.Convene()
	}
	return g, nil
}

// Convene has the group decide for its monitor, in the place of another one.
func (g *Group) Convene() {
	if g.monitor.Council() != g.core {
		g.monitor.SetCouncil(g.core)
	}
}

// check tells what is wrong with an address. The others have to reach this replica there.
func (c Config) check() error {
	a := c.Address.Addr()
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return fmt.Errorf("%v is not the address of one machine, want one at which the others reach this replica", c.Address)
	case a.Zone() != "" || a.IsMulticast():
		return fmt.Errorf("%v means nothing on other machines, want an address at which they reach this replica", c.Address)
	}
	return nil
}

func (c Config) ofMembers(name string) members.Config {
	return members.Config{Address: c.Address, Name: name, Join: c.Join, KeyFile: c.KeyFile, Allow: c.Allow}
}

// listen has the core told what the network has to tell.
func (g *Group) listen(l Listener) members.Listener {
	return members.Listener{
		Joined: g.core.joined,
		// Who leaves says goodbye by a message. Where that is lost, nobody knows better than that it is gone.
		Left:      func(name string) { g.core.left(name, false) },
		Take:      g.core.take,
		Meta:      g.core.meta,
		Infof:     l.Infof,
		Warningf:  l.Warningf,
		Recovered: l.Recovered,
	}
}

// oneAtATime has the functions of a listener be called one at a time, whoever calls them.
func oneAtATime(l Listener) Listener {
	var mu sync.Mutex
	logged := func(f func(string, ...any)) func(string, ...any) {
		return func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			f(format, args...)
		}
	}
	return Listener{
		Infof: logged(l.Infof), Warningf: logged(l.Warningf),
		Disagreed: func(t *health.Target, d Disagreement) {
			mu.Lock()
			defer mu.Unlock()
			l.Disagreed(t, d)
		},
		Noted: func(from, key string, value []byte) {
			mu.Lock()
			defer mu.Unlock()
			l.Noted(from, key, value)
		},
		Recovered: func(where string, reason any) {
			mu.Lock()
			defer mu.Unlock()
			l.Recovered(where, reason)
		},
	}
}

// Configure changes all but the Address. An error changes nothing.
func (g *Group) Configure(c Config) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || c.Address != g.config.Address {
		return fmt.Errorf("%v is not the address that this group has, want %v", c.Address, g.config.Address)
	}
	if err := g.members.Configure(c.ofMembers(g.core.name)); err != nil {
		return err
	}
	meta := g.core.meta()
	g.config = c
	c.Address = g.members.Self()
	g.core.configure(c)
	if !bytes.Equal(meta, g.core.meta()) {
		g.members.Announce()
	}
	return nil
}

// Close tells the others that this replica leaves, without waiting for them, and ends all that Open has begun: the address is
// free then. The monitor decides alone from there on, unless another group has been opened for it meanwhile. Close may be called
// twice.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	g.monitor.UnsetCouncil(g.core)
	g.end()
	g.ended.Wait()
	g.members.Close(g.core.goodbye)
}

// Ready tells whether the verdicts of all others that can be reached are known, or 30 seconds have passed. It stays true.
func (g *Group) Ready() bool {
	if !g.ready.Load() && (g.members.Settled() && g.core.ready() || time.Since(g.opened) >= readyWithin) {
		g.ready.Store(true)
	}
	return g.ready.Load()
}

// Note tells all others a note, in the place of the one before with the same key. A key may have 400 octets, a value 700. What
// does not fit is left out.
func (g *Group) Note(key string, value []byte) { g.core.note(key, value) }

// Report returns what there is to tell of the group.
func (g *Group) Report() Report {
	r := g.core.report()
	for _, j := range g.members.Joins() {
		r.Join = append(r.Join, Joined(j))
	}
	r.Ready = g.Ready()
	r.Counts = Counts(g.members.Counts())
	r.Counts.Rejected["format"] += g.core.counts.malformed.Load()
	r.Counts.Rejected["flood"] += g.core.counts.lost.Load()
	return r
}

// Said returns what each replica that observes a target says of it, and this one. It is nil for a target that nobody knows.
func (g *Group) Said(t *health.Target) []Said { return g.core.said(t) }

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
	// Frozen is why its words do not count, and InDoubt why its downs do not; Behind is that they do not arrive, and Stuck that its checks do not end.
	Frozen, InDoubt, Behind, Stuck bool
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
	// Rejected are packets and connections by reason: "source", not among those that may speak to us; "key", not sealed with a
	// key that we have; "format", another protocol; "flood", too many at a time; "misled", for another replica, mostly
	// for the one that had our address before; and "replay", a copy of what has come before.
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
// but not safe: everybody on this machine can read the file.
func CheckKeyFile(path string) (doubt string, err error) { return members.CheckKeyFile(path) }
