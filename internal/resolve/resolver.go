// Package resolve finds out the addresses of names that answers lead to without having them, and keeps them for their
// TTL.
package resolve

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/puzpuzpuz/xsync/v4"
)

const (
	// maxNames bounds the names that are kept, and maxFlights the look-ups at a time: both come from answers, which
	// somebody else may have made up.
	maxNames   = 4096
	maxFlights = 64
	// askTimeout bounds the time that a look-up gets.
	askTimeout = 5 * time.Second
	// What a look-up has found is kept for its TTL, within these bounds, and that it has failed for retry. Whoever is asked
	// has a cache of his own if that is worth it; to ask again soon costs little, and shows when a zone was edited.
	leastTTL, mostTTL = time.Second, 30 * time.Second
	retry             = 5 * time.Second
	// noTTL is for an answer without a record that could have one.
	noTTL = 30 * time.Second
	// longest is the longest TTL there is (RFC 2181, section 8).
	longest = (1<<31 - 1) * time.Second
	// grace is how long after its TTL an answer still serves while a new one is on its way. What has not been asked for
	// in so long is of no use to anybody.
	grace = 30 * time.Second
	// sweepEvery is how often names that are of no use are looked for, where there is no room for new ones.
	sweepEvery = time.Second
)

// Ask looks up the records of a name and type, A or AAAA. A name that does not exist is no error. It is called in a
// goroutine of its own, with a context that ends with the resolver or when it has taken too long. The context of the
// query that wants to know is origin, which is only to be looked at.
type Ask func(ctx, origin context.Context, name string, rrtype uint16) (*dns.Msg, error)

// Resolver keeps the addresses of names. Its methods may be called from any goroutine.
type Resolver struct {
	ask     Ask
	epoch   time.Time
	names   *xsync.Map[question, *entry]
	size    atomic.Int64
	flights atomic.Int64
	swept   atomic.Int64 // when, as since the epoch

	ctx    context.Context
	cancel context.CancelFunc
}

type question struct {
	name   string
	rrtype uint16
}

type entry struct {
	found atomic.Pointer[found] // nil before the first look-up has ended

	mu     sync.Mutex
	flight chan struct{} // closed when the look-up ends that is under way, nil while none is
}

// found is what a look-up has found.
type found struct {
	addrs []netip.Addr
	known bool   // it has not failed
	ttl   uint32 // of the records, in seconds
	until int64  // when to look again
	stale int64  // when what is known is too old
}

// New returns a resolver that knows nothing yet.
func New(ask Ask) *Resolver {
	r := &Resolver{ask: ask, epoch: time.Now(), names: xsync.NewMap[question, *entry]()}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends all look-ups, as far as whoever is asked heeds a context. Nobody has to wait for that: what they find is
// thrown away.
func (r *Resolver) Close() { r.cancel() }

// Get returns the addresses of a name by its records of a type. The slice is not to be changed. It never waits. Where
// the addresses are not known, wait is closed when a look-up that is under way has ended; it is nil where nobody should
// wait, since there is none or the one before it has failed. What is known costs no allocation.
func (r *Resolver) Get(origin context.Context, name string, rrtype uint16) (addrs []netip.Addr, known bool, wait <-chan struct{}) {
	now := r.now()
	key := question{name, rrtype}
	e, ok := r.names.Load(key)
	if ok {
		if f := e.found.Load(); f != nil && now < f.until {
			return f.addrs, f.known, nil
		}
	} else if e = r.add(key, now); e == nil {
		return nil, false, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.found.Load()
	if f != nil && now < f.until {
		return f.addrs, f.known, nil
	}
	if e.flight == nil && r.ctx.Err() == nil && r.enter() {
		flight := make(chan struct{})
		e.flight = flight
		go func() {
			defer r.flights.Add(-1)
			e.land(r.lookUp(origin, key), flight)
		}()
	}
	switch {
	case f == nil:
		return nil, false, e.flight
	case f.known && now < f.stale:
		return f.addrs, true, nil
	case !f.known && now < f.until+int64(grace):
		return nil, false, nil
	default:
		return nil, false, e.flight
	}
}

// Look is Get for somebody who must not change anything: what is not known is looked up at once and not kept. It returns
// the TTL as well. It waits for whoever is asked, who should heed ctx: how many do so at a time is for the caller to bound.
func (r *Resolver) Look(ctx, origin context.Context, name string, rrtype uint16) (addrs []netip.Addr, ttl uint32, known bool) {
	key := question{name, rrtype}
	if e, ok := r.names.Load(key); ok {
		if f := e.found.Load(); f != nil && (f.known && r.now() < f.stale || !f.known && r.now() < f.until) {
			return f.addrs, f.ttl, f.known
		}
	}
	if ctx.Err() != nil {
		return nil, 0, false
	}
	m, err := r.ask(ctx, origin, name, rrtype)
	if err != nil {
		return nil, 0, false
	}
	f := r.read(m, rrtype)
	return f.addrs, f.ttl, true
}

// TTL returns that of the addresses that Get returns, in seconds, as it was when they were looked up. They are looked up
// so often that nothing is won by counting it down.
func (r *Resolver) TTL(name string, rrtype uint16) uint32 {
	if e, ok := r.names.Load(question{name, rrtype}); ok {
		if f := e.found.Load(); f != nil {
			return f.ttl
		}
	}
	return 0
}

func (r *Resolver) now() int64 { return int64(time.Since(r.epoch)) }

// enter counts a look-up that is about to begin. It reports false where there are too many.
func (r *Resolver) enter() bool {
	if r.flights.Add(1) > maxFlights {
		r.flights.Add(-1)
		return false
	}
	return true
}

// add makes an entry, or returns nil where there is no room.
func (r *Resolver) add(key question, now int64) *entry {
	if r.size.Load() >= maxNames && !r.sweep(now) {
		return nil
	}
	// The name is part of a message, of which nothing else is to be kept.
	e, loaded := r.names.LoadOrStore(question{string([]byte(key.name)), key.rrtype}, new(entry))
	if !loaded {
		r.size.Add(1)
	}
	return e
}

// sweep forgets names that nobody has asked for in a while, and reports whether there is room.
func (r *Resolver) sweep(now int64) bool {
	if last := r.swept.Load(); now-last < int64(sweepEvery) || !r.swept.CompareAndSwap(last, now) {
		return false
	}
	r.names.Range(func(key question, e *entry) bool {
		if e.isUseless(now) {
			if _, deleted := r.names.LoadAndDelete(key); deleted {
				r.size.Add(-1)
			}
		}
		return true
	})
	return r.size.Load() < maxNames
}

// isUseless tells whether nobody has asked for the name in a while, or there was never room to look it up.
func (e *entry) isUseless(now int64) bool {
	if f := e.found.Load(); f != nil {
		return now >= f.until+int64(grace)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.flight == nil
}

// lookUp asks for the addresses of a name.
func (r *Resolver) lookUp(origin context.Context, key question) *found {
	ctx, cancel := context.WithTimeout(r.ctx, askTimeout)
	defer cancel()
	m, err := r.ask(ctx, origin, key.name, key.rrtype)
	if err != nil {
		return &found{until: r.now() + int64(retry)}
	}
	return r.read(m, key.rrtype)
}

// read returns what an answer says of the addresses of a name by its records of a type.
func (r *Resolver) read(m *dns.Msg, rrtype uint16) *found {
	f := &found{known: true}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok && rrtype == dns.TypeA {
				f.addrs = append(f.addrs, addr)
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok && rrtype == dns.TypeAAAA {
				f.addrs = append(f.addrs, addr)
			}
		}
	}
	now, ttl := r.now(), ttlOf(m)
	f.ttl = uint32(ttl / time.Second)
	f.until = now + int64(min(max(ttl, leastTTL), mostTTL))
	f.stale = f.until + int64(grace)
	return f
}

// ttlOf returns for how long an answer may be kept, a negative one as RFC 2308, section 5, has it.
func ttlOf(m *dns.Msg) time.Duration {
	ttl := uint32(longest / time.Second)
	none := true
	for _, rr := range m.Answer {
		ttl, none = min(ttl, rr.Header().Ttl), false
	}
	if none {
		ttl = uint32(noTTL / time.Second)
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(soa.Hdr.Ttl, soa.Minttl)
			}
		}
	}
	return time.Duration(ttl) * time.Second
}

// land notes what a look-up has found. One that failed leaves what was known before for a while.
func (e *entry) land(f *found, flight chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if before := e.found.Load(); !f.known && before != nil && before.known && f.until < before.stale {
		f = &found{before.addrs, true, before.ttl, f.until, before.stale}
	}
	e.found.Store(f)
	e.flight = nil
	close(flight)
}
