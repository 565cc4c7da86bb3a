package shaker

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// watching returns an instance that watches n names, with what is below them.
func watching(n int, engine *engine, below plugin.Handler) *instance {
	p := defaultPolicy()
	for i := range n {
		p.watched = append(p.watched, fmt.Sprintf("host%d.example.org.", i))
	}
	p.complete()
	inst := &instance{engine: engine}
	s := newShaker(zonePolicies{"example.org.": zonePolicy{"example.org.", p}}, inst)
	s.watchNames()
	s.Next = below
	inst.handlers = []*Shaker{s}
	return inst
}

// runWatches begins the look-ups, outside of a server.
func (inst *instance) runWatches() {
	ctx, cancel := context.WithCancel(context.Background())
	inst.endWatches = cancel
	for _, w := range inst.handlers[0].watches {
		inst.watches.Go(func() { w.Run(ctx) })
	}
}

// With 500 names and an upstream that is dead, the log has a few lines, and CoreDNS is ready after half a minute.
func TestWatchDeadUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		network := newNetwork(t, "10.0.0.1=answered 10.0.0.2=answered")
		defer network.engine.journal.close()
		var dead atomic.Bool
		dead.Store(true)
		answer := resolving(t, handlerTwo)
		inst := watching(500, network.engine, answering(func(w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if dead.Load() {
				return dns.RcodeServerFailure, nil
			}
			return answer(w, r)
		}))
		begin := time.Now()
		inst.runWatches()
		defer inst.end()
		for !inst.watched.Ready() {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("ready after %v", took)
		}
		expect := func(phase string, what ...string) {
			t.Helper()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			lines := journalTake(logged)
			t.Logf("%s: %d lines", phase, len(lines))
			if len(lines) > 2*(linesPerMinute+1) {
				t.Errorf("%s: %d lines:\n%s", phase, len(lines), strings.Join(lines, "\n"))
			}
			for _, want := range what {
				if !strings.Contains(strings.Join(lines, "\n"), want) {
					t.Errorf("%s: no %q in\n%s", phase, want, strings.Join(lines, "\n"))
				}
			}
		}
		expect("dead", "could not be resolved for 30s", "490 could not be resolved")
		dead.Store(false)
		expect("alive", "is resolved again", "490 are resolved again")
	})
}

// A plugin below that never answers costs no more than a bounded number of look-ups, however often CoreDNS reloads.
func TestWatchHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab.CaptureLog(t)
		network := newNetwork(t, "")
		defer network.engine.journal.close()
		let := make(chan struct{})
		hanging := plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			<-let
			return dns.RcodeServerFailure, nil
		})
		const names = 400
		for reload := range 5 {
			inst := watching(names, network.engine, hanging)
			inst.runWatches()
			time.Sleep(time.Minute)
			synctest.Wait()
			if n, want := shared.lookups.Load(), int64(min(names*(reload+1), maxLookups)); n != want {
				t.Errorf("%d look-ups hang after %d reloads, want %d", n, reload, want)
			}
			inst.end()
		}
		close(let)
		synctest.Wait()
		if n := shared.lookups.Load(); n != 0 {
			t.Errorf("%d look-ups are still counted", n)
		}
	})
}
