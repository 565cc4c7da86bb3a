package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The tests TestLabPeers… are the rows of the table that several replicas have to pass: five CoreDNS, each a machine of its
// own, that check 200 targets, half of them IPv4 and half IPv6.

// overFamilies runs a test with replicas that speak to each other over IPv4, and with those over IPv6. Without -full it is one of
// the two, as the plan has it.
func overFamilies(t *testing.T, p plan, f func(t *testing.T, g *group)) {
	t.Parallel()
	for name, six := range map[string]bool{"IPv4": false, "IPv6": true} {
		if six != p.six && !*fullLab {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				p := p
				p.six = six
				g := newGroup(t, l, p)
				g.startAll()
				g.untilWell()
				f(t, g)
			})
		})
	}
}

// expectWithin tells what was measured, which has to be within its bound. On a machine that has no time for the test itself,
// nobody can tell.
func (g *group) expectWithin(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	late := g.pulse.worst(took)
	t.Logf("%s: %v, has to be within %v", what, took.Round(time.Millisecond), bound)
	switch {
	case took <= bound:
	case late > 10*time.Millisecond:
		t.Logf("%s took %v; but this machine is so busy that a sleep took %v too long", what, took, late)
	default:
		t.Errorf("%s took %v, want %v at most", what, took, bound)
	}
}

// pulse sleeps again and again, and notes how much longer that takes than it should.
type pulse struct {
	mu   sync.Mutex // guards late
	late []lateness
}

type lateness struct {
	at time.Time
	by time.Duration
}

func (p *pulse) run(stop chan struct{}) {
	const nap = 5 * time.Millisecond
	for {
		select {
		case <-stop:
			return
		default:
		}
		began := time.Now()
		time.Sleep(nap)
		if by := time.Since(began) - nap; by > time.Millisecond {
			p.mu.Lock()
			p.late = append(p.late, lateness{time.Now(), by})
			p.mu.Unlock()
		}
	}
}

// worst returns how late it was at most in the time before now, and in two seconds before that.
func (p *pulse) worst(within time.Duration) (by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.late {
		if time.Since(l.at) < within+2*time.Second {
			by = max(by, l.by)
		}
	}
	return by
}

// expectNone is for what must not have happened to any replica.
func expectNone(t *testing.T, what string, byReplica map[string]int) {
	t.Helper()
	if len(byReplica) > 0 {
		t.Errorf("%s: %v, want none", what, byReplica)
	}
}

// Replicas without peers are what the others are compared with: each goes by its own checks. One that does not reach half
// of the targets removes them from its answers, and the test sees that.
func TestLabPeersAlone(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 2, alone: true})
		g.startAll()
		g.untilWell()
		if lacking, dead := g.replicas[0].wrongAnswers(); lacking+dead > 0 {
			t.Errorf("answers lack %d addresses and have %d dead ones", lacking, dead)
		}
		began := time.Now()
		w := g.newGuard(5*time.Millisecond, g.replicas...)
		g.block("half", between([]*lab.Host{g.replicas[0].host}, g.racks[:2])...)
		lab.Until(t, "half of the targets to be down", func() bool { return g.removals(began)["r1"] == len(g.addrs)/2 })
		time.Sleep(500 * time.Millisecond)
		g.unblock("half")
		queries, lacking := w.end()
		removed := g.removals(began)
		t.Logf("%d queries; removed %v, lacking from answers %v", queries, removed, lacking)
		if len(removed) != 1 || lacking["r1"] == 0 || lacking["r2"] > 0 {
			t.Errorf("removed are %v, and answers lack %v; want %d for r1, and none for r2", removed, lacking, len(g.addrs)/2)
		}
		g.untilRight()
	})
}

// Targets die, by refusal and in silence: all replicas agree, at nearly the same time, and within the time that a single one
// takes. They come back for all.
func TestLabPeersAgree(t *testing.T) {
	overFamilies(t, plan{replicas: 5}, func(t *testing.T, g *group) {
		for i, death := range []struct {
			how   string
			die   func(...netip.Addr)
			bound time.Duration
		}{
			{"refuse", g.refuse, refusalNoticed},
			{"fall silent", g.silence, silenceNoticed},
		} {
			targets := append(g.pick(0, 5*i, 5), g.pick(3, 5*i, 5)...)
			w := g.newGuard(5*time.Millisecond, g.replicas...)
			began := time.Now()
			death.die(targets...)
			s := g.untilDown(began, targets)
			t.Logf("targets %s: %v", death.how, s)
			g.expectWithin(t, death.how+", until all know", s.took[len(s.took)-1], death.bound+100*time.Millisecond)
			g.expectWithin(t, death.how+", between the first and the last to know", s.apart[len(s.apart)-1], 50*time.Millisecond)
			g.untilRight()
			_, lacking := w.end()
			expectNone(t, "living addresses that answers lacked", lacking)
			for _, r := range g.replicas {
				if lacking, dead := r.wrongAnswers(); lacking+dead > 0 {
					t.Errorf("%s: answers lack %d addresses and have %d dead ones", r.name, lacking, dead)
				}
			}
			g.revive(targets...)
			t.Logf("they are back after %v", g.untilRight())
		}
	})
}

// One replica does not reach half of the targets. Nobody removes any, and it comes to doubt itself.
func TestLabPeersHalf(t *testing.T) {
	overFamilies(t, plan{replicas: 5, six: true}, func(t *testing.T, g *group) {
		began := time.Now()
		w := g.newGuard(5*time.Millisecond, g.replicas...)
		sick := g.replicas[0]
		g.block("half", between([]*lab.Host{sick.host}, g.racks[:2])...)
		lab.Until(t, "the replica to be in doubt", func() bool {
			return slices.ContainsFunc(g.replicas[1].peers().Members, func(m memberView) bool { return m.InDoubt && m.Address == sick.peerAddress().String() })
		})
		t.Logf("in doubt after %v", time.Since(began))
		time.Sleep(lasting(2*time.Second, 60*time.Second) - time.Since(began))
		expectNone(t, "removals while one does not reach half", g.removals(began))
		g.unblock("half")
		healed := time.Now()
		lab.Until(t, "the doubt to end", func() bool {
			return !slices.ContainsFunc(g.replicas[1].peers().Members, func(m memberView) bool { return m.InDoubt })
		})
		t.Logf("without doubt %v after it reaches all", time.Since(healed))
		queries, lacking := w.end()
		t.Logf("%d queries", queries)
		expectNone(t, "removals", g.removals(began))
		expectNone(t, "living addresses that answers lacked", lacking)
	})
}

// The uplink of one replica is cut. It freezes, and nobody else removes anything. Then it is as before.
func TestLabPeersCut(t *testing.T) {
	overFamilies(t, plan{replicas: 5}, func(t *testing.T, g *group) {
		began := time.Now()
		w := g.newGuard(5*time.Millisecond, g.replicas...)
		g.block("uplink", cut(g.replicas[0].host)...)
		lab.Until(t, "it to freeze", g.replicas[0].isFrozen)
		t.Logf("frozen after %v", time.Since(began))
		time.Sleep(lasting(5*time.Second, 60*time.Second) - time.Since(began))
		if !g.replicas[0].isFrozen() {
			t.Error("it is not frozen any more")
		}
		removed := g.removals(began)
		g.unblock("uplink")
		healed := time.Now()
		g.untilKnown()
		g.untilRight()
		lab.Until(t, "it to thaw", func() bool { return !g.replicas[0].isFrozen() })
		t.Logf("as before after %v", time.Since(healed))
		queries, lacking := w.end()
		t.Logf("%d queries; removed %v, lacking from answers %v", queries, removed, lacking)
		delete(removed, "r1")
		expectNone(t, "removals elsewhere", removed)
		for _, r := range g.replicas[1:] {
			if lacking[r.name] > 0 {
				t.Errorf("answers of %s lacked %d living addresses", r.name, lacking[r.name])
			}
		}
	})
}

// Two replicas and three do not hear of each other for a while, and targets die meanwhile. Each side removes them. Once they hear
// of each other again, they are of one view.
func TestLabPeersSplit(t *testing.T) {
	overFamilies(t, plan{replicas: 5, six: true}, func(t *testing.T, g *group) {
		began := time.Now()
		w := g.newGuard(5*time.Millisecond, g.replicas...)
		g.block("split", g.split(2)...)
		lab.Until(t, "the sides to lose each other", func() bool {
			return g.replicas[0].peers().alive() == 2 && g.replicas[4].peers().alive() == 3
		})
		t.Logf("the sides have lost each other after %v", time.Since(began))
		refusing, silent := g.pick(1, 0, 5), g.pick(2, 0, 5)
		died := time.Now()
		g.refuse(refusing...)
		g.silence(silent...)
		s := g.untilDown(died, append(refusing, silent...))
		t.Logf("targets that die during the split: %v", s)
		g.expectWithin(t, "until each side knows", s.took[len(s.took)-1], silenceNoticed+100*time.Millisecond)
		time.Sleep(lasting(5*time.Second, 120*time.Second) - time.Since(began))
		g.unblock("split")
		healed := time.Now()
		g.untilKnown()
		g.untilShared(3)
		g.untilRight()
		g.expectWithin(t, "one view after the split", time.Since(healed), 20*time.Second)
		_, lacking := w.end()
		expectNone(t, "removals of living targets", g.removals(began))
		expectNone(t, "living addresses that answers lacked", lacking)
	})
}

// Replicas are killed or stopped, first one and then two. No verdict changes, and others take over their targets.
func TestLabPeersKilled(t *testing.T) {
	overFamilies(t, plan{replicas: 5}, func(t *testing.T, g *group) {
		dead := g.pick(0, 0, 5)
		g.silence(dead...)
		g.untilRight()
		for _, end := range []struct {
			how  string
			do   func(*node)
			back func(*node)
		}{
			{"stopped", (*node).pause, (*node).goOn},
			{"killed", (*node).kill, func(r *node) { r.start(); r.awaitReady() }},
		} {
			for n := 1; n <= 2; n++ {
				began := time.Now()
				victims, others := g.replicas[:n], g.replicas[n:]
				w := g.newGuard(5*time.Millisecond, others...)
				for _, r := range victims {
					end.do(r)
				}
				g.untilShared(3)
				g.expectWithin(t, fmt.Sprintf("%d %s, until others have taken over", n, end.how), time.Since(began), 4*time.Second)
				more := g.pick(1, 10*n, 2)
				if end.how == "killed" {
					more = g.pick(2, 10*n, 2)
				}
				died := time.Now()
				g.silence(more...)
				s := g.untilDown(died, more)
				g.expectWithin(t, "a target dies meanwhile, until all know", s.took[len(s.took)-1], silenceNoticed+100*time.Millisecond)
				for _, r := range victims {
					end.back(r)
				}
				t.Logf("%d %s: all know each other again after %v, share the work after %v, and are right after %v", n, end.how,
					g.untilKnown(), g.untilShared(3), g.untilRight())
				_, lacking := w.end()
				expectNone(t, fmt.Sprintf("%d %s: removals of living targets", n, end.how), g.removals(began))
				expectNone(t, fmt.Sprintf("%d %s: living addresses that answers lacked", n, end.how), lacking)
				for _, r := range g.running() {
					for _, e := range r.follow.since(began, "up") {
						if slices.Contains(dead, e.Address) {
							t.Errorf("%d %s: %s: %s", n, end.how, r.name, e.Text)
						}
					}
				}
				g.revive(more...)
				g.untilRight()
			}
		}
	})
}

// logged returns how many lines of the log have all of the words.
func (r *node) logged(words ...string) (n int) {
	for line := range strings.Lines(r.p.Log.String()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}
