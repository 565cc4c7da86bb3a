package shaker

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"

	"github.com/coredns-shaker/shaker/health"
)

// wait is what an answer waits for, and how long it did.
type wait struct {
	targets []*health.Target  // that may have their verdicts soon
	awaited []*health.Target  // those of earlier rounds
	lookups []<-chan struct{} // each is closed when the addresses of a name may be known
	began   time.Time
	took    time.Duration
	rounds  int  // how often it waited for targets
	over    bool // nothing more is waited for
}

// maxRounds is how often an answer waits for verdicts. One round is enough unless what is known then leads to further
// names: those that the answer falls back to, and the other family of the same name.
const maxRounds = 8

// isOver tells whether nothing more is waited for. For nil it has not begun.
func (w *wait) isOver() bool { return w != nil && w.over }

// Settle implements answer.Source. It waits for addresses first, and then for the verdicts on them, for no longer than
// `hold` altogether.
func (p *pass) Settle() bool {
	w := p.wait
	if w == nil || w.over || len(w.targets)+len(w.lookups) == 0 {
		return false
	}
	engine, first := p.shaker.instance.engine, w.began.IsZero()
	if first {
		w.began = time.Now()
	}
	left := p.zone.hold - time.Since(w.began)
	if left <= 0 || !engine.enter() {
		w.over = true
		return false
	}
	defer engine.leave()
	if first && !engine.connections.mayHold(p.RemoteAddr(), w.began) {
		w.over = true
		return false
	}
	if lookups := w.lookups; len(lookups) > 0 {
		w.lookups, w.targets = nil, nil // those that are still of interest are found again
		awaitAll(lookups, left)
	} else {
		engine.monitor.Await(w.targets, left)
		w.awaited, w.targets = append(w.awaited, w.targets...), nil
		w.rounds++
		w.over = w.rounds == maxRounds
	}
	p.recourse.forget()
	w.took = max(time.Since(w.began), 1) // also where the clock is too coarse to tell
	engine.connections.held(p.RemoteAddr(), w.took)
	p.rejected = 0
	return true
}

// awaitAll waits until all channels are closed, but not for longer than most.
func awaitAll(closed []<-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for _, c := range closed {
		select {
		case <-c:
		case <-timer.C:
			return
		}
	}
}

// trace adds the wait to the trace of the query, if there is one.
func (w *wait) trace(ctx context.Context) {
	span := opentracing.SpanFromContext(ctx)
	if span == nil {
		return
	}
	unknown := 0
	for _, t := range w.awaited {
		if t.State() == health.Unknown {
			unknown++
		}
	}
	span.Tracer().StartSpan("shaker hold",
		opentracing.ChildOf(span.Context()),
		opentracing.StartTime(w.began),
		opentracing.Tags{"targets": len(w.awaited), "unknown": unknown},
	).FinishWithOptions(opentracing.FinishOptions{FinishTime: w.began.Add(w.took)})
}

const (
	// holdShare is how much longer a connection goes without waiting than it has waited.
	holdShare = 10
	// maxConnections bounds the connections that are remembered.
	maxConnections = 4096
)

// connections remembers which TCP connections have waited. The queries of one are answered one after the other, so that
// all that are behind one that waits do so as well (github.com/miekg/dns, Server.serveTCPConn). A connection therefore
// waits for no more than a tenth of the time.
type connections struct {
	mu   sync.Mutex
	next map[netip.AddrPort]time.Time // from when on a connection may wait again
}

// mayHold tells whether an answer to this client may wait now, and notes that it does until held is called.
func (c *connections) mayHold(client net.Addr, now time.Time) bool {
	addr, ok := connectionOf(client)
	if !ok {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if next, known := c.next[addr]; known && now.Before(next) {
		return false
	}
	if len(c.next) >= maxConnections {
		for other, next := range c.next {
			if !now.Before(next) {
				delete(c.next, other)
			}
		}
		if len(c.next) >= maxConnections {
			return false
		}
	}
	if c.next == nil {
		c.next = make(map[netip.AddrPort]time.Time)
	}
	c.next[addr] = now.Add(time.Hour)
	return true
}

// held notes for how long an answer has waited by now.
func (c *connections) held(client net.Addr, took time.Duration) {
	addr, ok := connectionOf(client)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next[addr] = time.Now().Add(holdShare * took)
}

// connectionOf returns what tells a connection from others. Datagrams are answered independently of one another, and so
// are the streams of QUIC.
func connectionOf(client net.Addr) (netip.AddrPort, bool) {
	tcp, ok := client.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	return tcp.AddrPort(), true
}
