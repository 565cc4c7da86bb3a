package peers

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// direct is a network without delay: what is sent is in the inbox of the other.
type direct struct {
	mu     sync.RWMutex
	cores  map[string]*core
	places map[netip.AddrPort]*core
}

func (d *direct) send(to string, message []byte, _ bool) {
	d.mu.RLock()
	c := d.cores[to]
	d.mu.RUnlock()
	if c != nil {
		c.take(message)
	}
}

func (d *direct) sendTo(_ string, to netip.AddrPort, message []byte) {
	d.mu.RLock()
	c := d.places[to]
	d.mu.RUnlock()
	if c != nil {
		c.take(message)
	}
}

// plug is how a core is connected to a direct network. It counts what is sent.
type plug struct {
	*direct
	octets atomic.Uint64
}

func (p *plug) send(to string, message []byte, reliable bool) {
	p.octets.Add(uint64(len(message)))
	p.direct.send(to, message, reliable)
}

func (c *core) sentOctets() uint64 { return c.network.(*plug).octets.Load() }

// crowd is replicas on a direct network.
type crowd struct {
	direct
	all  []*core
	stop func()
}

func newCrowd(b testing.TB, n int) *crowd {
	w := &crowd{direct: direct{cores: make(map[string]*core), places: make(map[netip.AddrPort]*core)}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var monitors []*health.Monitor
	for i := range n {
		m := health.New(health.Options{})
		monitors = append(monitors, m)
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1)
		quiet := func(string, ...any) {}
		c := newCore(Config{Address: at, Offers: []health.Key{quick}, MayCheck: mayCheckWith(quick)}, fmt.Sprint("r", i), m,
			Listener{Infof: quiet, Warningf: quiet, Disagreed: func(*health.Target, Disagreement) {}, Noted: func(string, string, []byte) {}}, &plug{direct: &w.direct})
		w.all = append(w.all, c)
		w.cores[c.name], w.places[at] = c, c
		running.Go(func() { c.run(ctx) })
	}
	w.stop = func() {
		cancel()
		running.Wait()
		for _, m := range monitors {
			m.Close()
		}
	}
	for _, a := range w.all {
		for _, c := range w.all {
			if a != c {
				a.joined(c.name, c.config.Address, c.meta())
			}
		}
	}
	w.await()
	return w
}

// await waits until all are level with all.
func (w *crowd) await() {
	for _, a := range w.all {
		for !w.isLevel(a) {
			runtime.Gosched()
			time.Sleep(50 * time.Microsecond)
		}
	}
}

func (w *crowd) isLevel(a *core) bool {
	for _, c := range w.all {
		c.mu.Lock()
		newest := c.ledger.newest
		c.mu.Unlock()
		a.mu.Lock()
		m := a.byName[c.name]
		level := m.self || m.have.level() >= newest && m.greeted
		a.mu.Unlock()
		if !level {
			return false
		}
	}
	return true
}

// outside returns targets that are in no table. A core takes them for some that are.
func (w *crowd) outside(c *core, n int) (targets []*health.Target) {
	for i := range n {
		t, _ := c.monitor.Find(target(i), quick)
		targets = append(targets, t)
	}
	return targets
}

// How long it takes until all replicas know that targets have changed. Each has them all in its table.
func BenchmarkFlips(b *testing.B) {
	for _, replicas := range []int{3, 10, 30} {
		for _, flips := range []int{1, 1000, 10_000} {
			b.Run(fmt.Sprintf("replicas=%d/flips=%d", replicas, flips), func(b *testing.B) {
				w := newCrowd(b, replicas)
				defer w.stop()
				first := w.all[0]
				var targets []*health.Target
				for _, c := range w.all {
					// The first replica checks the share of them all that falls to it.
					for _, t := range w.outside(c, flips*max(replicas/defaultObservers, 1)*5/4+10) {
						if d := c.Enter(t); c == first && d.Observes && len(targets) < flips {
							targets = append(targets, t)
						}
					}
				}
				word := health.SaysUp
				say := func() {
					word ^= health.SaysUp ^ health.SaysDown
					for _, t := range targets {
						first.Decide(t, health.Opinion{Word: word, InForce: health.Up, Result: checker.Answered, RTT: time.Millisecond})
					}
				}
				say()
				w.await()
				octets := first.sentOctets()
				for b.Loop() {
					say()
					w.await()
				}
				b.ReportMetric(float64(first.sentOctets()-octets)/float64(b.N)/float64(flips*(replicas-1)), "octets/flip")
			})
		}
	}
}

// How long it takes to let one that joins know of 100 000 verdicts.
func BenchmarkJoin(b *testing.B) {
	const verdicts = 100_000
	w := newCrowd(b, 2)
	defer w.stop()
	a, joiner := w.all[0], w.all[1]
	for _, t := range w.outside(a, verdicts) {
		a.Enter(t)
		a.Decide(t, health.Opinion{Word: health.SaysUp, InForce: health.Up, Result: checker.Answered, RTT: time.Millisecond})
	}
	w.await()
	octets := a.sentOctets()
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		joiner.left(a.name, true)
		for joiner.sweep() {
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		joiner.joined(a.name, a.config.Address, a.meta())
		w.await()
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.StartTimer()
	}
	b.ReportMetric(float64(a.sentOctets()-octets)/float64(b.N), "octets")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/verdicts, "heap/verdict")
}

// What it costs to decide about a target, and to have one enter.
func BenchmarkDecide(b *testing.B) {
	for _, replicas := range []int{1, 3, 30} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			w := newCrowd(b, replicas)
			defer w.stop()
			c := w.all[0]
			targets := w.outside(c, 1000)
			for _, t := range targets {
				c.Enter(t)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c.Decide(targets[i%1000], health.Opinion{Word: health.SaysUp, InForce: health.Up})
				i++
			}
		})
	}
}

func BenchmarkEnter(b *testing.B) {
	w := newCrowd(b, 3)
	defer w.stop()
	c := w.all[0]
	targets := w.outside(c, 60_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Enter(targets[i%60_000])
		i++
	}
}
