package shaker

import (
	"context"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
)

// engine is the table of targets, the prober that checks them, and the journal that tells of both.
type engine struct {
	monitor *health.Monitor
	journal *journal
	held    atomic.Int64 // answers that wait
	// connections are those of clients whose answers have waited.
	connections connections

	closing chan struct{}  // closed when the engine stops
	guards  sync.WaitGroup // one for each prober

	mu     sync.Mutex // protects what follows
	prober *checker.Prober
	method checker.Method
}

// startEngine returns an engine without a prober, which adds to these events. It has to be stopped.
func startEngine(to *events.Log) *engine {
	e := &engine{journal: newJournal(to), closing: make(chan struct{})}
	e.monitor = health.New(health.Options{
		Listener: e.journal,
		Late:     func(d time.Duration) { checkDelay.Observe(d.Seconds()) },
		Panic:    func(reason any) { reportPanic("in the monitor", reason) },
	})
	return e
}

// stop ends all checks. What is known of targets can be asked for still.
func (e *engine) stop() {
	close(e.closing)
	e.monitor.SetProber(nil)
	e.mu.Lock()
	if e.prober != nil {
		e.prober.Close()
		e.prober = nil
	}
	e.mu.Unlock()
	e.guards.Wait()
	e.monitor.Close()
	e.journal.close()
}

// useMethod has targets checked by a method from now on.
func (e *engine) useMethod(method checker.Method) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.prober != nil && e.method == method {
		return nil
	}
	return e.replaceProber(method)
}

// replaceProber starts a prober and ends the one before it, whose checks the monitor sends again. The caller holds mu.
func (e *engine) replaceProber(method checker.Method) error {
	prober, err := checker.NewProber(checker.Config{Method: method, Pace: e.monitor.Pace}, e.monitor.Deliver)
	if err != nil {
		return err
	}
	old := e.prober
	e.prober, e.method = prober, method
	e.monitor.SetProber(prober)
	if old != nil {
		old.Close()
	}
	e.guards.Go(func() {
		pprof.Do(context.Background(), pprof.Labels("shaker", "guard"), func(context.Context) { e.guard(prober) })
	})
	return nil
}

// guard replaces a prober that fails, no more often than once in a second.
func (e *engine) guard(prober *checker.Prober) {
	<-prober.Done()
	for err := prober.Err(); err != nil; {
		log.Errorf("Checking has failed and begins anew in a second: %v", err)
		if e.journal.noteTrouble("prober") {
			e.journal.events.Addf(events.Trouble, "Checking has failed and begins anew in a second: %v", err)
		}
		select {
		case <-e.closing:
			return
		case <-time.After(time.Second):
		}
		e.mu.Lock()
		if e.prober != prober {
			e.mu.Unlock()
			return
		}
		err = e.replaceProber(e.method)
		e.mu.Unlock()
	}
}

// maxHeld bounds the answers that wait at the same time. Each keeps a goroutine, and a client, waiting;
// a flood of new names must not pile them up.
const maxHeld = 1024

// enter counts an answer that is about to wait. Where it reports false, too many do so already; otherwise leave has to
// follow.
func (e *engine) enter() bool {
	if e.held.Add(1) > maxHeld {
		e.leave()
		return false
	}
	return true
}

func (e *engine) leave() { e.held.Add(-1) }
