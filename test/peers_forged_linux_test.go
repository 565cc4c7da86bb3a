package test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/members"
)

// forged is a member that has the key, and says what no replica of today says. It is on the machine of the test.
type forged struct {
	*members.Members
	name string

	mu    sync.Mutex // guards known
	known map[string]netip.AddrPort
}

func (g *group) forge(name string, meta []byte) *forged {
	g.t.Helper()
	f := &forged{name: name, known: make(map[string]netip.AddrPort)}
	first := g.replicas[0]
	at := first.host.Addr4.Prev() // the switch's end of its link
	if g.six {
		at = first.host.Addr6.Prev()
	}
	m, err := members.Open(members.Config{
		Address: netip.AddrPortFrom(at, groupPeers),
		Name:    name,
		Join:    []string{first.peerAddress().String()},
		KeyFile: lab.File(g.t, "key", groupKey+"\n"),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	f.Members = m
	log := func(format string, args ...any) { g.t.Logf("the forged member: "+format, args...) }
	err = m.Start(members.Listener{
		Joined: func(name string, at netip.AddrPort, _ []byte) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.known[name] = at
		},
		Left:      func(string) {},
		Take:      func([]byte) {},
		Meta:      func() []byte { return meta },
		Infof:     log,
		Warningf:  log,
		Recovered: func(where string, reason any) { g.t.Errorf("%s: %v", where, reason) },
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.l.Until("the forged member to know the others", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.known) == len(g.replicas)
	})
	return f
}

// say sends a message to all others.
func (f *forged) say(message []byte, reliable bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.known {
		f.Send(name, message, reliable)
	}
}

// A member that speaks a later version of the protocol is told of and has no vote; neither has one that makes no sense at
// all. Nobody crashes.
func TestLabPeersForged(t *testing.T) {
	overFamilies(t, plan{replicas: 3}, func(t *testing.T, g *group) {
		g.silence(g.pick(0, 0, 5)...)
		g.untilRight()
		began := time.Now()
		before := make(map[*node]int)
		for _, r := range g.replicas {
			before[r] = len(r.peerLines(0))
		}
		f := g.forge("forged", []byte{99, 1, 2, 3})
		random := rand.New(rand.NewPCG(1, 2))
		envelope := func(version, kind byte, body int) []byte {
			m := append([]byte{version, kind, byte(len(f.name))}, f.name...)
			for range body {
				m = append(m, byte(random.Uint32()))
			}
			return m
		}
		end := time.Now().Add(lasting(3*time.Second, 20*time.Second))
		for i := 0; time.Now().Before(end); i++ {
			f.say(envelope(9, byte(i), random.IntN(100)), false)         // a later version
			f.say(envelope(0, byte(i), random.IntN(100)), false)         // an earlier one
			f.say(envelope(1, byte(i%256), random.IntN(1000)), i%2 == 0) // this one, and nonsense
			time.Sleep(5 * time.Millisecond)
		}
		g.untilRight()
		lab.UntilNil(t, func() error {
			for _, r := range g.replicas {
				if !slices.ContainsFunc(r.peers().Members, func(m memberView) bool { return m.Name == f.name && m.Newer }) {
					return fmt.Errorf("%s does not show the forged member as one of a later version: %+v", r.name, r.peers().Members)
				}
				if n := r.counted("coredns_shaker_panics_total"); n > 0 {
					return fmt.Errorf("%s has recovered from %v panics", r.name, n)
				}
			}
			return nil
		})
		f.Close(func() {})
		g.verdictsHold(t, began)
		for _, r := range g.replicas {
			lines := r.peerLines(before[r])
			told := strings.Join(lines, "\n")
			if len(lines) > 10 || !strings.Contains(told, "of the protocol, and 1 is spoken here") {
				t.Errorf("%s has these lines in its log, want few, and one of the version:\n%s", r.name, told)
			}
		}
		t.Logf("r1 has logged:\n%s", strings.Join(g.replicas[0].peerLines(before[g.replicas[0]]), "\n"))
	})
}
