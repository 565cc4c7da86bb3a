package checker

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// lostCase is a check of which the first packets of a kind are lost.
type lostCase struct {
	kind string // SYN or SYN-ACK
	lost int
}

// rule returns the nft rule of the target's machine that loses them.
func (tt lostCase) rule(target netip.AddrPort) string {
	family := "ip"
	if target.Addr().Is6() {
		family = "ip6"
	}
	if tt.kind == "SYN" {
		return fmt.Sprintf("%s daddr %v tcp dport %d tcp flags & (syn|ack|rst) == syn numgen inc mod 1000 < %d drop",
			family, target.Addr(), target.Port(), tt.lost)
	}
	return fmt.Sprintf("%s saddr %v tcp sport %d tcp flags & (syn|ack) == syn|ack numgen inc mod 1000 < %d drop",
		family, target.Addr(), target.Port(), tt.lost)
}

// Where the first SYNs of a check are lost, or the SYN-ACKs to them, a later one is answered by a target that is an ordinary
// Linux. Half a handshake that a lost SYN-ACK leaves there ends with a RST when the target repeats it, a second later. The
// listener sees nothing of any of this, and there is no bare ACK.
func TestLabTriesLost(t *testing.T) {
	var cases []lostCase
	for lost := range tries + 1 {
		cases = append(cases, lostCase{"SYN", lost}, lostCase{"SYN-ACK", lost})
	}
	for _, m := range []Method{MethodSocket, MethodRaw} {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := newTarget(l)
				wire := l.Capture()
				p := newSyncProber(t, Config{Method: m})
				var all sync.WaitGroup
				defer all.Wait()
				for i, tt := range cases {
					for _, addrs := range [][]netip.Addr{web.Addrs4((i + 1) * attempts)[i*attempts:], web.Addrs6((i + 1) * attempts)[i*attempts:]} {
						for _, addr := range addrs {
							if target := netip.AddrPortFrom(addr, 80); tt.kind == "SYN" {
								web.FilterIn(tt.rule(target))
							} else {
								web.FilterOut(tt.rule(target))
							}
						}
						all.Go(func() {
							attempt(t, fmt.Sprintf("%d %ss lost", tt.lost, tt.kind), addrs, func(addr netip.Addr) error {
								return tt.carryOut(t, web, wire, p, netip.AddrPortFrom(addr, 80))
							})
						})
					}
				}
				all.Wait()
				if n := web.Stat("TcpPassiveOpens") + web.service.Accepted(); n != 0 {
					t.Errorf("the target saw %d connections", n)
				}
			})
		})
	}
}

func (tt lostCase) carryOut(t *testing.T, web *target, wire *lab.Capture, p syncProber, target netip.AddrPort) error {
	want, sent, rsts := Answered, tt.lost+1, 1
	if tt.lost == tries {
		want, sent, rsts = Timeout, tries, 0
	}
	if tt.kind == "SYN-ACK" {
		rsts += tt.lost
	}
	r := p.check(Check{Target: target, Timeout: triesTimeout, Tries: tries})
	if r.Result != want || r.Tries != sent {
		return fmt.Errorf("%v (%v), %d tries; want %v, %d tries", r.Result, r.Err, r.Tries, want, sent)
	}
	if want == Answered && (r.RTT <= 0 || r.RTT > spacing/2) {
		return fmt.Errorf("a round trip of %v", r.RTT)
	}
	lab.Until(t, "the RSTs", func() bool { return wire.Counts(target).To.RST >= rsts })
	if got, want := wire.Counts(target).To, (lab.Tally{SYN: sent, RST: rsts}); got != want {
		return fmt.Errorf("captured %+v, want %+v", got, want)
	}
	if err := expectSYNs(wire, target, sent); err != nil {
		return err
	}
	t.Logf("%d %ss lost, %v: %s", tt.lost, tt.kind, target, describe(wire.Packets(), target))
	return nil
}

// describe says what was sent when, in milliseconds since the first packet, and from or to which of the prober's ports.
func describe(packets []lab.Packet, target netip.AddrPort) string {
	var parts []string
	var first time.Time
	for _, p := range packets {
		if p.Src != target && p.Dst != target {
			continue
		}
		if first.IsZero() {
			first = p.Time
		}
		name, port := "ACK", p.Src.Port()
		switch {
		case p.Flags&lab.RST != 0:
			name = "RST"
		case p.Flags&(lab.SYN|lab.ACK) == lab.SYN|lab.ACK:
			name = "SYN-ACK"
		case p.Flags&lab.SYN != 0:
			name = "SYN"
		}
		if p.Src == target {
			name, port = "<"+name, p.Dst.Port()
		}
		parts = append(parts, fmt.Sprintf("%d %s %d", p.Time.Sub(first).Milliseconds(), name, port))
	}
	return strings.Join(parts, ", ")
}
