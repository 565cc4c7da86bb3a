package test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A replica restarts while targets are dead in silence, and nothing has it look for them before it is asked. It is ready
// once it knows the verdicts of the others. So its first answers have no dead address, without a wait.
func TestLabPeersRestart(t *testing.T) {
	overFamilies(t, plan{replicas: 5, asked: true, six: true}, func(t *testing.T, g *group) {
		dead := append(g.pick(0, 0, 10), g.pick(2, 0, 10)...)
		g.silence(dead...)
		g.untilRight()
		for range 3 {
			r := g.replicas[0]
			r.stop()
			g.replicas[1].wrongAnswers() // so that targets are wanted by somebody
			served, ready := r.startMeasured()
			lacking, there := r.wrongAnswers()
			t.Logf("it serves after %v and is ready after %v; its first answers lack %d living addresses, and have %d dead ones",
				served.Round(time.Millisecond), ready.Round(time.Millisecond), lacking, there)
			if lacking+there > 0 {
				t.Error("its first answers are wrong")
			}
			if ready > served+5*time.Second {
				t.Errorf("ready only %v after it serves", ready-served)
			}
			g.untilKnown()
			g.untilRight()
		}
	})
}

// A replica that reaches no other is ready after 30 seconds all the same, and goes by its own checks.
func TestLabPeersReadyAlone(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 2})
		r := g.replicas[1]
		g.block("uplink", between([]*lab.Host{r.host}, []*lab.Host{g.replicas[0].host})...)
		dead := g.pick(0, 0, 5)
		g.silence(dead...)
		began := time.Now()
		r.start()
		r.awaitReady()
		took := time.Since(began)
		t.Logf("ready after %v", took)
		if took > 32*time.Second {
			t.Error("want 30s at most")
		}
		g.untilRight()
	})
}

// All replicas restart at once while targets are dead in silence: they are right no later than as many that have no peers.
func TestLabPeersRestartAll(t *testing.T) {
	overFamilies(t, plan{replicas: 5}, func(t *testing.T, g *group) {
		g.silence(append(g.pick(0, 0, 10), g.pick(2, 0, 10)...)...)
		g.untilRight()
		restart := func(alone bool) time.Duration {
			for _, r := range g.replicas {
				r.kill()
				r.alone = alone
			}
			began := time.Now()
			for _, r := range g.replicas {
				r.launch()
			}
			for _, r := range g.replicas {
				r.awaitServing()
			}
			g.untilRight()
			right := time.Since(began)
			for _, r := range g.replicas {
				r.awaitReady()
			}
			t.Logf("without peers %v: all are right after %v, and ready after %v", alone, right.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
			return right
		}
		alone := restart(true)
		g.expectWithin(t, "all at once, until all are right", restart(false), alone+500*time.Millisecond)
	})
}

// traffic sends queries at a steady pace to replicas in turn.
type traffic struct {
	g     *group
	stop  chan struct{}
	ended sync.WaitGroup

	mu     sync.Mutex // guards what follows
	may    func(*node) bool
	tally  trafficTally
	deaths []time.Time // when answers came that had a dead address
}

type trafficTally struct{ queries, silent, dead, lacking int }

// newTraffic begins with so many queries a second, to those replicas only that may get some at that time. Whoever gets no answer
// in a second gives up.
func (g *group) newTraffic(rate int, may func(*node) bool) *traffic {
	const workers = 8
	l := &traffic{g: g, stop: make(chan struct{}), may: may}
	for range workers {
		l.ended.Go(func() {
			ticks := time.NewTicker(workers * time.Second / time.Duration(rate))
			defer ticks.Stop()
			var asking sync.WaitGroup
			defer asking.Wait()
			for {
				select {
				case <-l.stop:
					return
				case <-ticks.C:
				}
				asking.Go(l.ask)
			}
		})
	}
	return l
}

func (l *traffic) ask() {
	r := l.choose()
	if r == nil {
		return
	}
	name, qtype := l.g.names[rand.IntN(len(l.g.names))], []uint16{dns.TypeA, dns.TypeAAAA}[rand.IntN(2)]
	q := new(dns.Msg).SetQuestion(name, qtype)
	q.SetEdns0(4096, false)
	m, _, err := (&dns.Client{Timeout: time.Second}).Exchange(q, r.at(groupDNS))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.queries++
	if err != nil {
		l.tally.silent++
		return
	}
	lacking, dead := l.g.compare(name, qtype, addresses(m))
	l.tally.lacking += lacking
	if dead > 0 {
		l.tally.dead++
		l.deaths = append(l.deaths, time.Now())
	}
}

func (l *traffic) choose() *node {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*node
	for _, r := range l.g.replicas {
		if l.may(r) {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[rand.IntN(len(all))]
}

func (l *traffic) end() trafficTally {
	close(l.stop)
	l.ended.Wait()
	return l.tally
}

// Three replicas restart one after the other under a thousand queries a second, with a fifth of the targets dead in silence.
// Clients ask those that are ready, as behind a service of Kubernetes: no answer has a dead address.
func TestLabPeersRolling(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 3, asked: true})
		g.startAll()
		g.untilWell()
		var dead []netip.Addr
		for rack := range g.racks {
			dead = append(dead, g.pick(rack, 0, 5)...)
		}
		g.silence(dead...)
		g.untilRight()
		for _, tt := range []struct {
			who  string
			mind bool // whether one is ready
		}{{"those that are ready", true}, {"all that answer", false}} {
			var mu sync.Mutex
			serves := map[*node]bool{g.replicas[0]: true, g.replicas[1]: true, g.replicas[2]: true}
			set := func(r *node, to bool) { mu.Lock(); defer mu.Unlock(); serves[r] = to }
			w := g.newTraffic(1000, func(r *node) bool { mu.Lock(); defer mu.Unlock(); return serves[r] })
			for _, r := range g.replicas {
				time.Sleep(500 * time.Millisecond)
				set(r, false)
				time.Sleep(100 * time.Millisecond) // what is on its way
				r.stop()
				r.launch()
				began := time.Now()
				r.awaitServing()
				if !tt.mind {
					set(r, true)
				}
				r.awaitReady()
				set(r, true)
				t.Logf("asking %s: %s is ready %v after its start", tt.who, r.name, time.Since(began).Round(time.Millisecond))
			}
			time.Sleep(lasting(time.Second, 10*time.Second))
			n := w.end()
			t.Logf("asking %s: %+v", tt.who, n)
			if n.queries < 1000 || n.lacking > 0 {
				t.Errorf("asking %s: %d answers lacked living addresses", tt.who, n.lacking)
			}
			if tt.mind && n.dead > 0 {
				t.Errorf("asking %s: %d answers had dead addresses", tt.who, n.dead)
			}
			if n.silent > n.queries/100 {
				t.Errorf("asking %s: %d of %d queries were not answered", tt.who, n.silent, n.queries)
			}
		}
	})
}

// What 1, 2, 3 and 5 replicas send to their targets.
func TestLabPeersSYNs(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 5})
		var one float64
		for i, r := range g.replicas {
			r.start()
			g.untilWell()
			if i == 3 {
				continue
			}
			before, began := g.syns(), time.Now()
			time.Sleep(lasting(3*time.Second, 30*time.Second))
			rate := float64(g.syns()-before) / time.Since(began).Seconds() / float64(len(g.addrs))
			if i == 0 {
				one = rate
			}
			t.Logf("%d replicas: %.2f SYNs a second and target, %.2f times those of one", i+1, rate, rate/one)
			if rate > 3.1*one || rate < one*0.9*float64(min(3, i+1)) {
				t.Errorf("%d replicas send %.2f times the SYNs of one, want %d and 3.1 at most", i+1, rate/one, min(3, i+1))
			}
		}
	})
}

// Thousands of targets go down within seconds, while the replicas lose packets to each other. All know of each within two seconds.
func TestLabPeersFlips(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		perRack := 250
		if *fullLab {
			perRack = 1250
		}
		g := newGroup(t, l, plan{replicas: 5, perRack: perRack, properties: "interval 4s 1s\ntimeout 800ms\nfall 1\ndamping off", asked: true})
		g.loseBetweenReplicas(5)
		g.startAll()
		g.untilWell()
		for _, flip := range []struct {
			what string
			do   func(...netip.Addr)
		}{{"down", g.refuse}, {"up", g.revive}} {
			began := time.Now()
			flip.do(g.addrs...)
			g.untilRight()
			apart := g.apart(began)
			g.expectWithin(t, fmt.Sprintf("%d targets go %s, each known to all after it is known to one", len(g.addrs), flip.what), apart[len(apart)-1], 2*time.Second)
			t.Logf("in the middle %v, for one of a hundred more than %v", apart[len(apart)/2], apart[len(apart)*99/100])
		}
	})
}

// apart returns for each target that has changed since a time how much later the last replica knew of it than the first, in order.
func (g *group) apart(began time.Time) (all []time.Duration) {
	g.t.Helper()
	first, last := make(map[netip.Addr]time.Time), make(map[netip.Addr]time.Time)
	for _, r := range g.running() {
		for addr, target := range r.targets() {
			if at, seen := first[addr]; !seen || target.Since.Before(at) {
				first[addr] = target.Since
			}
			if target.Since.After(last[addr]) {
				last[addr] = target.Since
			}
		}
	}
	for addr, at := range last {
		if at.After(began) {
			all = append(all, at.Sub(first[addr]))
		}
	}
	if len(all) == 0 {
		g.t.Fatal("no target has changed")
	}
	slices.Sort(all)
	return all
}
