package shaker

import (
	"context"
	"iter"
	"runtime/pprof"
	"sync"
	"sync/atomic"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// coroutines have stacks that have grown already. Plugins can run on one of them, while the goroutine of the query waits.
//
// A server answers each query in a new goroutine, whose stack has 2 KB. Where that is too small, the runtime makes one of
// twice the size and copies all frames, which takes 2 to 3 µs where plugins are stacked on one another: more than all that
// shaker does. To switch to a coroutine and back takes less, since the scheduler has no part in it (package iter, Pull).
//
// Who calls must not be locked to its thread (runtime.LockOSThread), or the process ends; CoreDNS and its plugins are not.
type coroutines struct {
	racks [16]rack
	turn  atomic.Uint32
	near  sync.Pool // of *rack: what a processor takes out is what it has put in, most of the time
	made  atomic.Int32
}

// maxCoroutines bounds the coroutines, which stay until the end. Where upstreams are slow, each keeps one occupied; then
// queries are answered as they would be without.
const maxCoroutines = 1024

// rack has the coroutines that are idle. The one that was used last is used next: its stack is in the processor's cache.
type rack struct {
	mu     sync.Mutex
	idle   []*coroutine
	closed bool
	_      [64]byte // no two racks share a cache line
}

// coroutine calls plugins, one query after the other.
type coroutine struct {
	home   *rack
	resume func() (struct{}, bool)
	end    func()

	call  call
	rcode int
	err   error
}

// call is a query to a plugin.
type call struct {
	next    plugin.Handler
	ctx     context.Context
	writer  dns.ResponseWriter
	request *dns.Msg
}

// newCoroutines returns none as yet. They have to be closed.
func newCoroutines() *coroutines {
	c := new(coroutines)
	c.near.New = func() any { return &c.racks[c.turn.Add(1)%uint32(len(c.racks))] }
	return c
}

// close ends all coroutines that are idle. The others end with their query, and later queries are answered without.
func (c *coroutines) close() {
	if c == nil {
		return
	}
	for i := range c.racks {
		for _, k := range c.racks[i].close() {
			k.end()
		}
	}
}

// take returns a coroutine, nil where there is none to be had.
func (c *coroutines) take() *coroutine {
	if c == nil {
		return nil
	}
	r := c.near.Get().(*rack)
	k, open := r.take()
	c.near.Put(r)
	if k == nil && open {
		k = c.make(r)
	}
	return k
}

// make returns a new coroutine, nil where there are enough.
func (c *coroutines) make(home *rack) *coroutine {
	if c.made.Add(1) > maxCoroutines {
		c.made.Add(-1)
		return nil
	}
	k := &coroutine{home: home}
	k.resume, k.end = iter.Pull(func(yield func(struct{}) bool) {
		defer c.made.Add(-1)
		pprof.SetGoroutineLabels(coroutineLabels)
		k.run(yield)
	})
	return k
}

var coroutineLabels = pprof.WithLabels(context.Background(), pprof.Labels("shaker", "coroutine"))

// run is what the coroutine does.
func (k *coroutine) run(yield func(struct{}) bool) {
	for {
		k.rcode, k.err = k.call.next.ServeDNS(k.call.ctx, k.call.writer, k.call.request)
		if !yield(struct{}{}) {
			return
		}
	}
}

// serve makes a call. A panic in it is passed on, and ends the coroutine.
func (k *coroutine) serve(c call) (rcode int, err error) {
	k.call = c
	k.resume()
	rcode, err = k.rcode, k.err
	k.call, k.err = call{}, nil
	k.home.give(k)
	return rcode, err
}

// take returns the coroutine that was used last, if one is idle, and whether more may be made.
func (r *rack) take() (k *coroutine, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.idle); n > 0 {
		k, r.idle = r.idle[n-1], r.idle[:n-1]
	}
	return k, !r.closed
}

// give takes back a coroutine whose work is done.
func (r *rack) give(k *coroutine) {
	r.mu.Lock()
	if !r.closed {
		r.idle = append(r.idle, k)
		k = nil
	}
	r.mu.Unlock()
	if k != nil {
		k.end()
	}
}

// close returns the coroutines that are idle. From now on there are none.
func (r *rack) close() (idle []*coroutine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	idle, r.idle, r.closed = r.idle, nil, true
	return idle
}
