// Package oracle is a monitor for tests, with a prober that knows all results beforehand and sends nothing.
package oracle

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// Oracle is the monitor and its prober. Addresses that have no result stay silent for ever. Results and Delay are to be
// changed only while nothing is checked.
type Oracle struct {
	Monitor *health.Monitor
	Results map[netip.Addr]checker.Result
	// Delay is how long results take. While it has not passed, which in a bubble of testing/synctest it does not by
	// itself, whoever asks finds no verdict.
	Delay time.Duration

	mu     sync.Mutex
	probed map[netip.AddrPort]checker.Check
}

// New returns an oracle with results such as "10.0.0.1=answered 10.0.0.2=refused", until the end of the test.
func New(t testing.TB, results string) *Oracle {
	t.Helper()
	return NewWithClock(t, results, nil)
}

// NewWithClock returns one that believes in a wall clock of the test's own.
func NewWithClock(t testing.TB, results string, clock func() time.Time) *Oracle {
	t.Helper()
	o := &Oracle{
		Monitor: health.New(health.Options{Clock: clock}),
		Results: make(map[netip.Addr]checker.Result),
		probed:  make(map[netip.AddrPort]checker.Check),
	}
	for _, word := range strings.Fields(results) {
		addr, result, _ := strings.Cut(word, "=")
		i := slices.IndexFunc(checker.Results(), func(r checker.Result) bool { return r.String() == result })
		if i < 0 {
			t.Fatalf("no such result: %q", word)
		}
		o.Results[netip.MustParseAddr(addr)] = checker.Result(i)
	}
	o.Monitor.SetProber(o)
	t.Cleanup(o.Monitor.Close)
	return o
}

// Submit implements health.Prober.
func (o *Oracle) Submit(checks ...checker.Check) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range checks {
		o.probed[c.Target] = c
		if result, ok := o.Results[c.Target.Addr()]; ok {
			reports := []checker.Report{{Tag: c.Tag, Result: result, RTT: time.Millisecond}}
			if o.Delay > 0 {
				time.AfterFunc(o.Delay, func() { o.Monitor.Deliver(reports) })
			} else {
				o.Monitor.Deliver(reports)
			}
		}
	}
	return nil
}

// Silence forgets all results.
func (o *Oracle) Silence() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.Results)
}

// Probed returns the newest check of each target that was checked.
func (o *Oracle) Probed() map[netip.AddrPort]checker.Check {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.probed)
}

// Await has a target checked, and waits for its verdict if it is to have one.
func (o *Oracle) Await(target netip.AddrPort, key health.Key) *health.Target {
	t := o.Monitor.Target(target, key, time.Hour)
	if _, ok := o.Results[target.Addr()]; ok {
		o.Monitor.Await([]*health.Target{t}, time.Hour)
	}
	return t
}
