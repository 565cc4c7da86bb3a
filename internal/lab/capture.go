package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// Flags of a TCP segment (RFC 9293 section 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Packet is a captured TCP segment or ICMP error.
type Packet struct {
	Time time.Time // when the kernel saw it
	// Src and Dst have port 0 for an ICMP error.
	Src, Dst netip.AddrPort
	Flags    uint8
	Seq, Ack uint32
	Data     int // bytes of payload

	// About is where the segment went that an ICMP error quotes; otherwise it is invalid.
	About    netip.AddrPort
	ICMPType uint8
	ICMPCode uint8
}

// Counts says what was captured of the traffic of one or more targets.
type Counts struct {
	To, From Tally
	ICMP     int // errors about segments to the targets, whoever sent them
}

// Tally counts TCP segments, each in the first field that fits.
type Tally struct {
	RST    int // with or without ACK
	SYNACK int
	SYN    int
	FIN    int
	Data   int // segments with a payload
	ACK    int // bare acknowledgements
	Other  int
}

func (t *Tally) add(p Packet) {
	switch {
	case p.Flags&RST != 0:
		t.RST++
	case p.Flags&(SYN|ACK) == SYN|ACK:
		t.SYNACK++
	case p.Flags&SYN != 0:
		t.SYN++
	case p.Flags&FIN != 0:
		t.FIN++
	case p.Data > 0:
		t.Data++
	case p.Flags&ACK != 0:
		t.ACK++
	default:
		t.Other++
	}
}

// Capture records the TCP segments and ICMP errors that one machine sends and receives.
//
// It sees what a firewall rule of that machine drops on the way in, and does not see what one drops on
// the way out. Nothing is lost silently: if the kernel dropped a packet, the test fails.
type Capture struct {
	t     testing.TB
	name  string
	ended sync.WaitGroup

	mu      sync.Mutex // guards what follows
	tap     *tap
	got     []Packet
	stopped bool
}

// Capture starts to record what goes over the host's interfaces. A router's capture is about its uplink
// only, because it would otherwise record what it forwards twice.
func (h *Host) Capture() *Capture {
	h.t.Helper()
	var tap *tap
	var err error
	h.Do(func() { tap, err = newTap(h.parent != nil) })
	if err != nil {
		h.t.Fatalf("lab: %s: capture: %v", h.Name, err)
	}
	c := &Capture{t: h.t, name: h.Name, tap: tap}
	c.ended.Go(func() { tap.wait(c.read) })
	h.t.Cleanup(c.Stop)
	return c
}

// Counts counts what has been captured up to now for the targets. Port 0 stands for all ports of an
// address that is not the prober's own.
func (c *Capture) Counts(targets ...netip.AddrPort) Counts {
	wanted := make(map[netip.AddrPort]bool, len(targets))
	for _, target := range targets {
		wanted[target] = true
	}
	match := func(a netip.AddrPort) bool {
		return wanted[a] || wanted[netip.AddrPortFrom(a.Addr(), 0)]
	}

	c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	var n Counts
	for _, p := range c.got {
		switch {
		case p.About.IsValid():
			if match(p.About) {
				n.ICMP++
			}
		case match(p.Dst):
			n.To.add(p)
		case match(p.Src):
			n.From.add(p)
		}
	}
	return n
}

// Packets returns what has been captured up to now, in order.
func (c *Capture) Packets() []Packet {
	c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Stop ends the capture with all that went over the wire until now. The end of the test calls it too.
func (c *Capture) Stop() {
	c.read()
	if c.check() {
		c.tap.close()
		// Not under the lock, which the goroutine takes to read.
		c.ended.Wait()
	}
}

// check fails the test if a packet was lost, and reports true at its first call.
func (c *Capture) check() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return false
	}
	c.stopped = true
	if err := c.tap.check(); err != nil {
		c.t.Errorf("lab: %s: capture: %v", c.name, err)
	}
	return true
}

// read takes what the kernel has captured; it never waits for more.
func (c *Capture) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	err := c.tap.read(func(at time.Time, packet []byte) {
		if p, ok := parse(packet); ok {
			p.Time = at
			c.got = append(c.got, p)
		}
	})
	if err != nil {
		c.t.Errorf("lab: %s: capture: %v", c.name, err)
	}
}

const (
	protoICMP   = 1
	protoTCP    = 6
	protoICMPv6 = 58
)

// parse reads an IP packet, of which the payload may be cut short. It reports false for all that is
// neither TCP nor an ICMP error, for IPv6 extension headers, and for later fragments.
func parse(b []byte) (Packet, bool) {
	proto, src, dst, body, size, ok := parseIP(b)
	if !ok {
		return Packet{}, false
	}
	switch proto {
	case protoTCP:
		if len(body) < 20 {
			return Packet{}, false
		}
		return Packet{
			Src:   netip.AddrPortFrom(src, binary.BigEndian.Uint16(body)),
			Dst:   netip.AddrPortFrom(dst, binary.BigEndian.Uint16(body[2:])),
			Seq:   binary.BigEndian.Uint32(body[4:]),
			Ack:   binary.BigEndian.Uint32(body[8:]),
			Flags: body[13],
			Data:  size - int(body[12]>>4)*4,
		}, true
	case protoICMP, protoICMPv6:
		if len(body) < 8 || !icmpError(proto, body[0]) {
			return Packet{}, false
		}
		quotedProto, _, target, quoted, _, ok := parseIP(body[8:])
		if !ok || quotedProto != protoTCP || len(quoted) < 4 {
			return Packet{}, false
		}
		return Packet{
			Src:      netip.AddrPortFrom(src, 0),
			Dst:      netip.AddrPortFrom(dst, 0),
			About:    netip.AddrPortFrom(target, binary.BigEndian.Uint16(quoted[2:])),
			ICMPType: body[0],
			ICMPCode: body[1],
		}, true
	}
	return Packet{}, false
}

// parseIP returns what is behind the IP header, and how many bytes that was before it was cut short.
func parseIP(b []byte) (proto uint8, src, dst netip.Addr, body []byte, size int, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&0xf) * 4
		if header < 20 || header > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			break
		}
		return b[9], netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])),
			b[header:], int(binary.BigEndian.Uint16(b[2:])) - header, true
	case len(b) >= 40 && b[0]>>4 == 6:
		return b[6], netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])),
			b[40:], int(binary.BigEndian.Uint16(b[4:])), true
	}
	return 0, netip.Addr{}, netip.Addr{}, nil, 0, false
}

// icmpError tells errors from queries: RFC 792 (3 destination unreachable, 11 time exceeded, 12 parameter
// problem), RFC 4443 section 2.1 (types below 128).
func icmpError(proto, kind uint8) bool {
	if proto == protoICMPv6 {
		return kind < 128
	}
	return kind == 3 || kind == 11 || kind == 12
}
