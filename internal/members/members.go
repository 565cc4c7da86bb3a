// Package members finds the other replicas of a service, and carries messages between them. Who is a member, and who of them
// is there, is found out by memberlist. All that goes over the network is sealed with a key that all have.
package members

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config is what is to be known beforehand.
type Config struct {
	// Address is where this replica listens, by UDP and TCP, and at which the others reach it. It is not unspecified. Port 0
	// stands for one that is free.
	Address netip.AddrPort
	// Name is that of this replica, 1 to 128 octets. It must be another one after each start.
	Name string
	// Join are hosts with ports: addresses, or names that are resolved again and again.
	Join []string
	// KeyFile has a key on each line. The first encrypts, all decrypt. It is read again when it changes.
	KeyFile string
	// Allow are those who may speak to this replica at all, anybody where there are none.
	Allow []netip.Prefix

	// Wire sees each packet that is sent, and has it be lost where it is false. It is for tests, and nil otherwise.
	Wire func(packet []byte) bool
}

// Listener is told what happens. None of its functions may wait for anybody, keep a slice, or call a method of Members, other
// than Send and SendTo. None may be nil.
type Listener struct {
	// Joined is told of a member that is there, or that tells something else of itself than before. Left is told that it is
	// gone, whether it has said so or not. Both are called one at a time.
	Joined func(name string, at netip.AddrPort, meta []byte)
	Left   func(name string)
	// Take is told what others have sent. It is called by several goroutines at a time.
	Take func(message []byte)
	// Meta returns what this replica tells of itself, 512 octets at most.
	Meta func() []byte
	// Infof and Warningf are for people. They are called by several goroutines at a time.
	Infof, Warningf func(format string, args ...any)
	// Recovered is told of a panic that was recovered from, where that is done.
	Recovered func(where string, reason any)
}

const (
	// leaveWithin is how long telling the others that this replica leaves may take, in the background.
	leaveWithin = 2 * time.Second
	// tellWithin is how long telling them something else of this replica may take, in the background.
	tellWithin = 5 * time.Second
)

// Members are the replicas that this one knows.
type Members struct {
	tell      Listener
	name      string
	transport *transport
	list      *memberlist.Memberlist
	joiner    *joiner

	mu     sync.Mutex // guards what follows, one change at a time
	config Config
	keys   *keyFile
	closed bool

	gone       atomic.Bool // nobody is told of anything any more
	background sync.WaitGroup
}

// Open listens, and reads the keys. Nothing else happens before Start. An address that is taken and a key file that cannot be
// used are errors.
func Open(c Config) (*Members, error) {
	m := &Members{name: c.Name, config: c}
	keys, err := openKeyFile(c.KeyFile, readKeys)
	if err != nil {
		return nil, err
	}
	m.keys = keys
	if m.transport, err = newTransport(c.Address, c.Name); err != nil {
		return nil, err
	}
	m.transport.keys.Store(keys.keys)
	m.transport.wire = c.Wire
	m.transport.allow(c.Allow)
	m.joiner = newJoiner(m, c.Join)
	return m, nil
}

// Start begins to look for others, and to tell of them. An error ends all of it.
func (m *Members) Start(l Listener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell = l
	m.transport.start(l)
	list, err := memberlist.Create(settings(m))
	if err != nil {
		m.closed = true
		m.transport.Shutdown()
		return err
	}
	m.list = list
	m.follow(m.keys)
	m.joiner.start()
	return nil
}

// follow has the keys of a file in force from now on.
func (m *Members) follow(f *keyFile) {
	m.keys = f
	f.start(m.tell, m.transport.keys.Store)
}

// Self returns where this replica listens.
func (m *Members) Self() netip.AddrPort { return m.transport.self }

// Configure changes all but the Address and the Name. An error changes nothing.
func (m *Members) Configure(c Config) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || c.Address != m.config.Address || c.Name != m.config.Name {
		return fmt.Errorf("%v is not the address that this group has, want %v", c.Address, m.config.Address)
	}
	if c.KeyFile != m.config.KeyFile {
		keys, err := openKeyFile(c.KeyFile, readKeys)
		if err != nil {
			return err
		}
		m.keys.stop()
		m.follow(keys)
	}
	m.transport.allow(c.Allow)
	if !slices.Equal(c.Join, m.config.Join) {
		m.joiner.set(c.Join)
	}
	m.config = c
	return nil
}

// Announce tells the others that Meta returns something else by now.
func (m *Members) Announce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.background.Go(func() { _ = m.list.UpdateNode(tellWithin) })
	}
}

// Send sends a message to a member: over a connection where it is to be reliable, which has room for 1 MiB, and otherwise in a
// packet, which has room for 1200 octets. It does not wait, and does not tell whether the message has arrived. A member
// that is not known gets nothing.
func (m *Members) Send(to string, message []byte, reliable bool) {
	m.transport.send(to, message, reliable)
}

// SendTo sends a message in a packet to a replica that may not be known as a member yet.
func (m *Members) SendTo(to string, at netip.AddrPort, message []byte) {
	m.transport.sendTo(to, at, message)
}

// Counts returns numbers since Open.
func (m *Members) Counts() Counts { return m.transport.counts.counts() }

// Joins returns what came of each place in Config.Join.
func (m *Members) Joins() []Joined { return m.joiner.report() }

// Settled tells whether nobody else is to be expected: a place in Config.Join was joined, or all are this replica itself.
func (m *Members) Settled() bool { return m.joiner.isSettled() }

// Close calls goodbye, which may send packets, and frees the address. In the background it tells the others by gossip, too, that
// this replica leaves. Nothing is received any more when Close returns, and nobody is told of anything. It is to be called
// once, also without Start before.
func (m *Members) Close(goodbye func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.keys.stop()
	if m.list == nil {
		m.transport.Shutdown()
		return
	}
	goodbye()
	m.gone.Store(true)
	m.transport.leave()
	m.joiner.stop()
	m.background.Go(func() {
		// An error is that nobody has heard of it. They find out by themselves.
		_ = m.list.Leave(leaveWithin)
		_ = m.list.Shutdown()
	})
}

// wait waits until all is gone that Close leaves to the background.
func (m *Members) wait() { m.background.Wait() }

// The methods of hooks are called by memberlist, some of them while its table is locked.
type hooks struct{ *Members }

var (
	_ memberlist.Delegate      = hooks{}
	_ memberlist.EventDelegate = hooks{}
	_ memberlist.AliveDelegate = hooks{}
)

// NotifyAlive keeps those out that may not be members.
func (h hooks) NotifyAlive(n *memberlist.Node) error {
	if n.Name == h.name {
		return nil
	}
	at, ok := addressOf(n)
	_, known := h.transport.members.of(n.Name)
	switch {
	case !ok || n.Name == "" || len(n.Name) > maxName:
		return fmt.Errorf("%q at %v is not possible", n.Name, n.Address())
	case at == h.transport.self:
		return errPredecessor
	case !h.transport.isAllowed(at.Addr()):
		return notAllowed(at)
	case !known && h.transport.members.count() >= maxMembers:
		return fmt.Errorf("there are %d other replicas already, want fewer", maxMembers)
	}
	return nil
}

func addressOf(n *memberlist.Node) (netip.AddrPort, bool) {
	addr, ok := netip.AddrFromSlice(n.Addr)
	return plain(netip.AddrPortFrom(addr, n.Port)), ok && n.Port != 0 && !addr.Unmap().IsUnspecified() && !addr.IsMulticast()
}

func (h hooks) NotifyJoin(n *memberlist.Node) {
	at, ok := addressOf(n)
	if n.Name == h.name || !ok || h.gone.Load() {
		return
	}
	h.transport.members.put(n.Name, at)
	h.joiner.found(at)
	h.tell.Joined(n.Name, at, bytes.Clone(n.Meta))
}

func (h hooks) NotifyUpdate(n *memberlist.Node) { h.NotifyJoin(n) }

func (h hooks) NotifyLeave(n *memberlist.Node) {
	if n.Name == h.name || h.gone.Load() {
		return
	}
	if at := h.transport.members.remove(n.Name); at.IsValid() {
		h.joiner.lost(at)
		h.tell.Left(n.Name)
	}
}

func (h hooks) NodeMeta(limit int) []byte {
	meta := h.tell.Meta()
	return meta[:min(len(meta), limit)]
}

// What members tell each other goes past memberlist.

func (h hooks) NotifyMsg([]byte)                { /* nobody sends that */ }
func (h hooks) GetBroadcasts(int, int) [][]byte { return nil }
func (h hooks) LocalState(bool) []byte          { return nil }
func (h hooks) MergeRemoteState([]byte, bool)   { /* it is empty */ }
