package peers

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// All that may happen at once happens at once, and in the end all know the same.
func TestConcurrently(t *testing.T) {
	const targets = 300
	w := newCrowd(t, 3)
	defer w.stop()
	for _, c := range w.all {
		c.monitor.SetCouncil(c)
		m := c.monitor
		c.monitor.SetProber(proberFunc(func(checks ...checker.Check) error {
			for _, x := range checks {
				go m.Deliver([]checker.Report{{Tag: x.Tag, Result: []checker.Result{checker.Answered, checker.Refused}[rand.IntN(2)], RTT: time.Millisecond}})
			}
			return nil
		}))
	}
	configs := make(map[*core]Config)
	for _, c := range w.all {
		configs[c] = c.config
	}
	until := time.Now().Add(500 * time.Millisecond)
	var running sync.WaitGroup
	for _, c := range w.all {
		for _, f := range []func(i int){
			func(i int) { c.monitor.Target(target(i%targets), quick, time.Millisecond) },
			func(i int) { c.report(); c.ready(); c.meta() },
			func(i int) { c.said(c.monitor.Target(target(i%targets), quick, time.Second)) },
			func(i int) { c.note(fmt.Sprint(i%10), fmt.Append(nil, i)) },
			func(i int) { c.take([]byte{1, byte(i), 1, 'x', byte(i)}) },
			func(i int) { c.configure(configs[c]) },
			func(i int) { c.Froze(i%2 == 0) },
			func(i int) {
				other := w.all[i%3]
				c.left(other.name, i%2 == 0)
				c.joined(other.name, configs[other].Address, other.meta())
			},
			func(i int) { c.monitor.SetCouncil([]health.Council{c, nil}[i%2]) },
		} {
			running.Go(func() {
				for i := 0; time.Now().Before(until); i++ {
					f(i)
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	running.Wait()
	for _, c := range w.all {
		for _, other := range w.all {
			c.joined(other.name, other.config.Address, other.meta())
		}
		c.monitor.SetProber(nil)
	}
	time.Sleep(100 * time.Millisecond)
	w.await()
	for _, c := range w.all {
		c.checkInvariants(t)
	}
}

type proberFunc func(...checker.Check) error

func (f proberFunc) Submit(checks ...checker.Check) error { return f(checks...) }
