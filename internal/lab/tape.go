package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// Tape records all that a host sends and gets over UDP and TCP. What is on it can be looked at, and played again as a
// [Datagram], see [Host.Play].
type Tape struct {
	t     testing.TB
	name  string
	ended sync.WaitGroup
	stop  func()

	mu  sync.Mutex // guards got
	got []Taped
}

// Taped is a packet on a tape.
type Taped struct {
	Time     time.Time
	Protocol uint8 // of IP: 6 is TCP, 17 is UDP
	Src, Dst netip.AddrPort
	Payload  []byte // what UDP or TCP carry
}

const protoUDP = 17

// Tape begins to record what goes over the host's link to its parent and is from or for the port. Fragments, packets of other
// protocols than TCP and UDP, and those with IPv6 extension headers are left out.
func (h *Host) Tape(port uint16) *Tape {
	h.t.Helper()
	tape := &Tape{t: h.t, name: h.Name}
	var r *recorder
	var err error
	h.Do(func() { r, err = newRecorder() })
	if err != nil {
		h.t.Fatalf("lab: %s: tape: %v", h.Name, err)
	}
	tape.ended.Go(func() {
		r.run(func(at time.Time, packet []byte) {
			if p, ok := parseTaped(packet); ok && (p.Src.Port() == port || p.Dst.Port() == port) {
				p.Time = at
				tape.mu.Lock()
				tape.got = append(tape.got, p)
				tape.mu.Unlock()
			}
		})
	})
	tape.stop = sync.OnceFunc(func() { r.close(); tape.ended.Wait() })
	h.t.Cleanup(tape.stop)
	return tape
}

// Packets returns what is on the tape up to now, in order.
func (t *Tape) Packets() []Taped {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.got)
}

// Stop ends the recording. The end of the test does so, too.
func (t *Tape) Stop() { t.stop() }

// Play sends IP packets to the host over its link, whoever they claim to come from.
func (h *Host) Play(packets ...[]byte) {
	h.t.Helper()
	p, err := newPlayer(h)
	if err != nil {
		h.t.Fatalf("lab: %s: play: %v", h.Name, err)
	}
	defer p.close()
	for _, packet := range packets {
		if err := p.send(packet); err != nil {
			h.t.Fatalf("lab: %s: play: %v", h.Name, err)
		}
	}
}

// Datagram returns the IP packet of a UDP datagram (RFC 768).
func Datagram(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload)+1)
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	sum := checksum(pseudoHeader(protoUDP, src.Addr(), dst.Addr(), len(b)), b)
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return packIP(protoUDP, src.Addr(), dst.Addr(), b)
}

// parseTaped reads an IP packet of TCP or UDP.
func parseTaped(b []byte) (p Taped, ok bool) {
	proto, src, dst, body, size, ok := parseIP(b)
	if !ok || len(body) < 8 || size < 8 || size > len(body) {
		return Taped{}, false
	}
	body = body[:size] // without what fills up a short frame
	var header int
	switch proto {
	case protoUDP:
		header = 8
	case protoTCP:
		if len(body) >= 20 {
			header = int(body[12]>>4) * 4
		}
	}
	if header == 0 || header > len(body) {
		return Taped{}, false
	}
	return Taped{
		Protocol: proto,
		Src:      netip.AddrPortFrom(src, binary.BigEndian.Uint16(body)),
		Dst:      netip.AddrPortFrom(dst, binary.BigEndian.Uint16(body[2:])),
		Payload:  slices.Clone(body[header:]),
	}, true
}
