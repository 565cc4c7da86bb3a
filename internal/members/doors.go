package members

import (
	"net"
	"net/netip"
	"sync"
)

const (
	// maxConnections bounds the connections that others have to us. Half of them are kept free for the addresses of members.
	maxConnections = 128
	// maxPerAddress bounds those from one address. A stranger is counted by the /64 of IPv6, which one machine may have all for
	// itself. There is room for a machine with several replicas.
	maxPerAddress = 32
)

// doors lets connections in. Whoever has not shown a key yet makes room for who comes later, the oldest first: so those who
// connect and say nothing keep nobody out.
type doors struct {
	isMember func(netip.Addr) bool

	mu      sync.Mutex
	guests  map[*guest]struct{}
	waiting []*guest // have not shown a key yet, the oldest first
	closed  bool
}

// guest is a connection.
type guest struct {
	net.Conn
	doors  *doors
	from   netip.Prefix
	member bool
}

// enter lets a connection in, or tells that there is no room. The caller has to close what is let in, and what is not.
func (d *doors) enter(conn net.Conn, from netip.Addr) (*guest, bool) {
	g := &guest{Conn: conn, doors: d, member: d.isMember(from)}
	g.from = machine(from, g.member)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.hasRoom(g) {
		return nil, false
	}
	if d.guests == nil {
		d.guests = make(map[*guest]struct{})
	}
	d.guests[g] = struct{}{}
	d.waiting = append(d.waiting, g)
	return g, true
}

// machine is what connections are counted by.
func machine(a netip.Addr, member bool) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !member {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// hasRoom makes room where it can. The caller holds mu.
func (d *doors) hasRoom(g *guest) bool {
	beside, strangers := 0, 0
	for other := range d.guests {
		if other.from == g.from {
			beside++
		}
		if !other.member {
			strangers++
		}
	}
	switch {
	case beside >= maxPerAddress:
		return d.evict(func(other *guest) bool { return other.from == g.from })
	case !g.member && strangers >= maxConnections/2:
		return d.evict(func(other *guest) bool { return !other.member })
	case len(d.guests) >= maxConnections:
		return d.evict(func(other *guest) bool { return g.member || !other.member })
	}
	return true
}

// evict closes the oldest connection of some that has not shown a key. The caller holds mu.
func (d *doors) evict(of func(*guest) bool) bool {
	for _, g := range d.waiting {
		if of(g) {
			d.forget(g)
			g.Conn.Close()
			return true
		}
	}
	return false
}

// forget takes a connection off the lists. The caller holds mu.
func (d *doors) forget(g *guest) {
	delete(d.guests, g)
	d.stopsWaiting(g)
}

func (d *doors) stopsWaiting(g *guest) {
	for i, other := range d.waiting {
		if other == g {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			return
		}
	}
}

// settle keeps a connection that has shown a key from making room for others. It tells whether it has not done so yet.
func (g *guest) settle() bool {
	g.doors.mu.Lock()
	defer g.doors.mu.Unlock()
	g.doors.stopsWaiting(g)
	_, here := g.doors.guests[g]
	return here
}

// Close closes the connection.
func (g *guest) Close() error {
	g.doors.mu.Lock()
	g.doors.forget(g)
	g.doors.mu.Unlock()
	return g.Conn.Close()
}

// close closes all connections, and lets nobody in any more.
func (d *doors) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for g := range d.guests {
		g.Conn.Close()
	}
	clear(d.guests)
	d.waiting = nil
}
