package checker

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Where packets are lost, a SYN without an answer is sent again, by the kernel and by MethodRaw alike: after one, two
// and three seconds, where a kernel before 6.5 leaves out that after two. A check is answered if and only if any
// SYN-ACK gets through.
func TestLabLoss(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				const timeout, most = 3500 * time.Millisecond, 4
				least := most
				if m != MethodRaw {
					least = 3
				}
				web := l.Host("web")
				web.Listen(80)
				p, c := newTestProber(t, Config{Method: m})
				targets := slices.Concat(web.Addrs4(100), web.Addrs6(100))
				wire := l.Capture()
				web.Lose(30)
				for _, addr := range targets {
					target := netip.AddrPortFrom(addr, 80)
					p.Submit(Check{Target: target, Timeout: timeout, Tag: target})
				}
				again, answers := 0, 0
				for tag, r := range c.take(t, len(targets)) {
					n := wire.Counts(tag.(netip.AddrPort))
					if r.Result == Answered {
						answers++
					}
					if n.To.SYN > 1 {
						again++
					}
					switch {
					case r.Result != Answered && r.Result != Timeout:
						t.Errorf("%v: %v (%v)", tag, r.Result, r.Err)
					case r.Result == Answered && n.From.SYNACK == 0, r.Result == Timeout && n.From.SYNACK > 0:
						t.Errorf("%v: %v after %d SYN-ACK", tag, r.Result, n.From.SYNACK)
					case r.Result == Timeout && n.To.SYN < least, n.To.SYN > most:
						t.Errorf("%v: %v after %d SYN, want %d to %d in %v", tag, r.Result, n.To.SYN, least, most, timeout)
					case r.RTT > 0 && (r.RTT > 900*time.Millisecond) != (n.To.SYN > 1):
						t.Errorf("%v: answered after %v and %d SYN", tag, r.RTT, n.To.SYN)
					}
				}
				t.Logf("%d of %d answered, %d needed more than one SYN", answers, len(targets), again)
				if again < len(targets)/10 || answers < len(targets)/2 {
					t.Error("this loss proves little")
				}
			})
		})
	}
}
