package checker

import (
	"net/netip"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// mute has a port of the host say nothing by itself. The SYNs that come for it can be taken from the channel.
func mute(h *lab.Host, port uint16) (*lab.Forger, <-chan lab.Packet) {
	syns := make(chan lab.Packet, 1024)
	return h.Forge(port, func(syn lab.Packet) [][]byte { syns <- syn; return nil }), syns
}

// launch submits a check whose SYN goes over the wire, and does so again for as long as its time is up before that.
func launch(t *testing.T, wire *lab.Capture, p *Prober, c *collector, check Check) {
	t.Helper()
	for {
		before := wire.Counts(check.Target).To.SYN
		left := func() bool { return wire.Counts(check.Target).To.SYN > before }
		if err := p.Submit(check); err != nil {
			t.Fatal(err)
		}
		lab.Until(t, "a SYN, or the end of its check", func() bool { return c.waiting() > 0 || left() })
		if left() {
			return
		}
		if r := c.take(t, 1)[check.Tag]; r.Err != ErrBusy && r.Err != ErrTimeout && r.Err != ErrPaused {
			t.Fatalf("a check without a SYN: %v (%v)", r.Result, r.Err)
		}
	}
}

// noHost is an ICMP error about a packet to the host: host or address unreachable.
func noHost(h *lab.Host, syn lab.Packet) []byte {
	if syn.Dst.Addr().Is4() {
		return syn.Error(h.Addrs4(1)[0], 3, 1)
	}
	return syn.Error(h.Addrs6(1)[0], 1, 3)
}

// What is said to a check that has ended is not taken for the answer to another: not on the same descriptor, and
// not on the same ports to the same target.
func TestLabAnswerAfterTheEnd(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				web.Listen(80)
				late, lateSYNs := mute(web, 81)
				_, otherSYNs := mute(web, 82)
				wire := l.Capture()
				for _, addr := range both(web) {
					// A prober with one place has one descriptor, for one check after the other.
					p, c := newTestProber(t, Config{Method: m, Pool: 1})
					at := netip.AddrPortFrom(addr, 81)
					var ended []lab.Packet
					for range reservedPorts { // from now on MethodRaw takes ports for the second time
						launch(t, wire, p, c, Check{Target: at, Timeout: 20 * time.Millisecond})
						if r := c.take(t, 1)[nil]; r.Result != Timeout && r.Err != ErrPaused {
							t.Errorf("without an answer: %v (%v)", r.Result, r.Err)
						}
						ended = append(ended, <-lateSYNs)
					}
					for _, next := range []struct {
						port uint16
						syns <-chan lab.Packet
					}{{81, lateSYNs}, {82, otherSYNs}} {
						launch(t, wire, p, c, Check{Target: netip.AddrPortFrom(addr, next.port), Timeout: 200 * time.Millisecond})
						<-next.syns
						for _, syn := range ended {
							late.Send(noHost(web, syn), syn.Reply(lab.RST|lab.ACK).Bytes(), syn.Reply(lab.SYN|lab.ACK).Bytes())
						}
						if r := c.take(t, 1)[nil]; r.Result != Timeout && r.Err != ErrPaused {
							t.Errorf("what was said to checks of %v that have ended is the answer of port %d: %v (%v)", at, next.port, r.Result, r.Err)
						}
					}
					expect(t, "open, after all", p, c, Check{Target: netip.AddrPortFrom(addr, 80), Timeout: 10 * time.Second}, Answered, nil)
				}
			})
		})
	}
}

// A SYN is repeated as it is, so that an answer to either counts, with the time since the first.
func TestLabAnswerToRepeatedSYN(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				forger, syns := mute(web, 80)
				p, c := newTestProber(t, Config{Method: m})
				for _, addr := range both(web) {
					p.Submit(Check{Target: netip.AddrPortFrom(addr, 80), Timeout: 10 * time.Second})
					first, second := <-syns, <-syns
					if first.Src != second.Src || first.Dst != second.Dst || first.Seq != second.Seq {
						t.Errorf("two SYNs: %+v, then %+v", first, second)
					}
					forger.Send(first.Reply(lab.SYN | lab.ACK).Bytes())
					if r := c.take(t, 1)[nil]; r.Result != Answered || r.RTT < second.Time.Sub(first.Time) && !untimed(r) {
						t.Errorf("%v: %v (%v) after %v", addr, r.Result, r.Err, r.RTT)
					}
				}
			})
		})
	}
}
