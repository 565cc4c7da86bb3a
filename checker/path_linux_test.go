package checker

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What the kernel says where this machine has no path, whatever the method: either the method cannot tell and says
// something about the target, or it knows that there is no path.
func TestLabNoPath(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				s := newScene(l)
				p, c := newTestProber(t, Config{Method: m})
				names := map[netip.AddrPort]string{}
				for i, b := range behaviours {
					own := strings.HasPrefix(b.name, "own firewall") || strings.HasSuffix(b.name, " route") && b.name != "reject route"
					if !own || b.outcome(m).result == Timeout {
						continue
					}
					port := uint16(100 + i)
					for _, addr := range b.arrange(s, port) {
						target := netip.AddrPortFrom(addr, port)
						names[target] = b.name
						p.Submit(Check{Target: target, Timeout: 10 * time.Second, Tag: target})
					}
				}
				told := map[string]int{}
				for tag, r := range c.take(t, len(names)) {
					name := names[tag.(netip.AddrPort)]
					if r.Result != Inconclusive {
						continue
					}
					told[name]++
					forbidden := name == "prohibited route" || name == "own firewall, prohibited" && m == MethodDial
					if got := NoPath(r.Err); got == forbidden {
						t.Errorf("%s, %v: %v of %v", name, tag, got, r.Err)
					}
				}
				if told["no route"] != 2 || told["black hole route"] != 2 || told["prohibited route"] != 2 || len(told) < 3 {
					t.Errorf("inconclusive were only %v", told)
				}
			})
		})
	}
}
