package members

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// fakeConn is a connection that knows whether it is closed.
type fakeConn struct {
	net.Conn
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestDoors(t *testing.T) {
	member := netip.MustParseAddr("192.0.2.1")
	d := &doors{isMember: func(a netip.Addr) bool { return a == member }}
	enter := func(from string) (*fakeConn, *guest) {
		c := new(fakeConn)
		g, ok := d.enter(c, netip.MustParseAddr(from))
		if !ok {
			return c, nil
		}
		return c, g
	}
	// One address takes no more than its part, and its own oldest one makes room.
	first, _ := enter("198.51.100.1")
	for range maxPerAddress - 1 {
		enter("198.51.100.1")
	}
	if first.closed {
		t.Error("it makes room too early")
	}
	if _, g := enter("198.51.100.1"); g == nil || !first.closed {
		t.Error("the oldest does not make room")
	}
	// A /64 of IPv6 is one.
	v6, _ := enter("2001:db8::1")
	for range maxPerAddress {
		enter("2001:db8::2")
	}
	if !v6.closed {
		t.Error("an address of the same /64 does not make room")
	}
	// All strangers together get half. A member finds room, and does not make room for strangers.
	m, g := enter(member.String())
	if g == nil {
		t.Fatal("a member finds no room")
	}
	for i := range 300 {
		enter(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String())
	}
	if n := len(d.guests); n != maxConnections/2+1 {
		t.Errorf("%d are in, want %d", n, maxConnections/2+1)
	}
	if m.closed {
		t.Error("a member has made room for strangers")
	}
	// Who has shown a key makes room for nobody.
	for _, g := range slices.Clone(d.waiting) {
		if !g.settle() {
			t.Error("one that is waiting had to go")
		}
	}
	if _, g := enter("203.0.113.7"); g != nil {
		t.Error("there is room beside those who have shown a key")
	}
	for i := range 300 {
		_, g := enter(member.String())
		if in := i < maxPerAddress-1; in != (g != nil) && i != maxPerAddress-1 && g == nil {
			t.Errorf("connection %d of a member: %v", i, g)
		}
	}
	if n := len(d.guests); n > maxConnections {
		t.Errorf("%d are in, want %d at most", n, maxConnections)
	}
	g.Close()
	g.Close()
	if g.settle() {
		t.Error("one that is closed is still there")
	}
	d.close()
	if _, g := enter(member.String()); g != nil || len(d.guests) > 0 || len(d.waiting) > 0 {
		t.Error("closed doors let somebody in")
	}
}

func TestComplaints(t *testing.T) {
	var lines told
	var counts tallies
	c := newComplaints(&counts, lines.listener().Warningf)
	at := netip.MustParseAddrPort("192.0.2.1:7946")
	for range 1000 {
		c.refuse(key, at)
	}
	c.refuse(misled, at)
	c.refuse(replay, at)
	if got, want := lines.drain(), "Warning: Peers: 1 packet or connection was refused (key 1). The last was from 192.0.2.1:7946: it is not sealed with a key in the key file here"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	c.due.Store(0)
	c.refuse(source, at)
	if got := lines.drain(); !strings.HasPrefix(got, "Warning: Peers: 1000 packets or connections were refused (source 1, key 999). The last was from 192.0.2.1:7946: it is not among") {
		t.Errorf("told %q", got)
	}
	if got := counts.counts().Rejected; got["key"] != 1000 || got["source"] != 1 || got["misled"] != 1 || got["replay"] != 1 || len(got) != int(refusals)-1 {
		t.Errorf("counts %v", got)
	}
}
