// Package watch looks names up again and again, so that what they lead to has verdicts before the first client asks and
// never goes idle.
package watch

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// leastRefresh is the shortest time from one look-up of a name that worked to the next.
	leastRefresh = 5 * time.Second
	// A look-up that failed is tried again after firstRetry, and after twice as long each time, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// askTimeout bounds the time that a look-up gets. One that takes no heed of that has failed after overdue.
	askTimeout = 5 * time.Second
	overdue    = askTimeout + time.Second
	// patience is for how long a name that cannot be resolved, or a target without verdict, keeps its name from being
	// ready. One name that is broken must not keep a resolver out of service.
	patience = 30 * time.Second
)

// Ask looks up the records of a name and type. It has the targets that they lead to checked for at least keep from now
// on, and returns them. A name that does not exist, or has no such records, is no error.
//
// It need not heed the context: who asks goes on without its answer.
type Ask func(ctx context.Context, name string, qtype uint16, keep time.Duration) (*dns.Msg, []Target, error)

// Target is what a look-up leads to.
type Target interface {
	// Holds tells whether the target may have its first verdict soon, and is younger than that.
	Holds(age time.Duration) bool
}

// Listener is told what happens. None of its functions may be nil.
type Listener struct {
	// LookedUp is called once for each look-up.
	LookedUp func(worked bool)
	// Unresolved is called when a name could not be resolved for so long. Nobody waits for it any longer, but it is
	// tried again every so often.
	Unresolved func(name string, since time.Duration, again time.Duration, reason error)
	// Resolved is called when a name of which that was told is resolved again.
	Resolved func(name string)
}

// Wanted is what to watch.
type Wanted struct {
	Name  string   // fully qualified
	Types []uint16 // of the records
	TTL   uint32   // in seconds; a look-up is repeated no later than that, even if the records have a longer one
	// Settings stands for all that decides what a look-up leads to. Where it differs from that of another instance, what
	// that has found is of no use.
	Settings string
}

// Watch is a name that is looked up.
type Watch struct {
	Wanted
	ask   Ask
	tell  Listener
	group *Group
	index int // in the group
	// early is by how much of its time each wait for the next look-up is shorter, from 0 to spread.
	early float64

	mu sync.Mutex
	state
}

// state is what is known of a name. An instance that replaces another one takes it over.
type state struct {
	failing time.Time // since when the name is not resolved; zero while it is, and before the first look-up
	reason  error     // the newest
	told    bool      // that it is not resolved
	known   bool      // it was resolved at least once
	pending []Target  // of the first look-up that worked: those without a verdict, as far as is known
}

// isReady tells whether the name was resolved and its targets have verdicts, or nobody should wait for that any longer.
func (w *Watch) isReady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return !w.failing.IsZero() && time.Since(w.failing) >= patience
	}
	w.pending = slices.DeleteFunc(w.pending, func(t Target) bool { return !t.Holds(patience) })
	return len(w.pending) == 0
}

// flight is a look-up that is under way.
type flight struct {
	answer chan *lookup
	late   bool // it counts as one that failed
}

// Run looks the name up until the context ends. There is never more than one look-up of it under way.
func (w *Watch) Run(ctx context.Context) {
	due := time.Now().Add(w.begin())
	var now *flight
	wake := time.NewTimer(0)
	defer wake.Stop()
	for retry := firstRetry; ; {
		wake.Reset(time.Until(w.next(due)))
		var l *lookup
		select {
		case <-ctx.Done():
			return
		case l = <-now.landed():
			if ctx.Err() != nil {
				return
			}
			if !now.late {
				w.tell.LookedUp(l.err == nil)
			}
			now = nil
		case <-wake.C:
			switch {
			case time.Now().Before(due):
			case now == nil:
				now, due = w.depart(ctx), time.Now().Add(overdue)
			default:
				l = &lookup{err: fmt.Errorf("no answer, for %v at least", overdue)}
				if !now.late {
					now.late = true
					w.tell.LookedUp(false)
				}
			}
		}
		switch {
		case l == nil:
		case w.learn(l):
			due, retry = time.Now().Add(w.refresh(l.ttl)), firstRetry
		default:
			due, retry = time.Now().Add(w.shorten(retry)), min(2*retry, lastRetry)
		}
		w.complain()
	}
}

// begin returns the time until the first look-up.
func (w *Watch) begin() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known && w.failing.IsZero() {
		w.failing = time.Now()
	}
	return w.group.delay(w.index)
}

// depart begins a look-up, in a goroutine of its own: who is asked may take his time, and whoever ends the watch may not
// be able to wait.
func (w *Watch) depart(ctx context.Context) *flight {
	f := &flight{answer: make(chan *lookup, 1)}
	go func() { f.answer <- w.lookUp(ctx) }()
	return f
}

// landed returns where the answer arrives, nil while nothing is under way.
func (f *flight) landed() chan *lookup {
	if f == nil {
		return nil
	}
	return f.answer
}

// refresh returns the time from a look-up that worked to the next.
func (w *Watch) refresh(ttl uint32) time.Duration {
	return max(w.shorten(time.Duration(min(ttl, w.TTL))*time.Second), leastRefresh)
}

// shorten returns a wait for the next look-up that differs from name to name.
func (w *Watch) shorten(wait time.Duration) time.Duration {
	return wait - time.Duration(w.early*float64(wait))
}

// learn takes in a look-up and tells whether it worked.
func (w *Watch) learn(l *lookup) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.err != nil {
		if w.failing.IsZero() {
			w.failing = time.Now()
		}
		w.reason = l.err
		return false
	}
	if w.told {
		w.tell.Resolved(w.Name)
	}
	if !w.known {
		w.known, w.pending = true, l.targets
	}
	w.failing, w.reason, w.told = time.Time{}, nil, false
	return true
}

// next returns when there is something to do: when the next look-up is due, or when it has to be told that none works.
func (w *Watch) next(due time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reason != nil && !w.told {
		if patient := w.failing.Add(patience); patient.Before(due) {
			return patient
		}
	}
	return due
}

// complain tells that the name has not been resolved for too long.
func (w *Watch) complain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.failing); w.reason != nil && !w.told && since >= patience {
		w.told = true
		w.tell.Unresolved(w.Name, since, lastRetry, w.reason)
	}
}

// lookup is what a look-up has found.
type lookup struct {
	ttl     uint32 // the shortest of all records
	targets []Target
	err     error
}

// lookUp asks for all types.
func (w *Watch) lookUp(ctx context.Context) *lookup {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// A minute more than until the next look-up, in case that one fails.
	keep := max(time.Duration(w.TTL)*time.Second, leastRefresh) + time.Minute
	l := &lookup{ttl: math.MaxUint32}
	useful := 0
	for _, qtype := range w.Types {
		m, targets, err := w.ask(ctx, w.Name, qtype, keep)
		if err != nil {
			err = fmt.Errorf("%s: %w", dns.TypeToString[qtype], err)
			if l.err != nil {
				err = fmt.Errorf("%w, %w", l.err, err) // on one line, as the log has it
			}
			l.err = err
			continue
		}
		l.targets = append(l.targets, targets...)
		for _, rr := range m.Answer {
			l.ttl = min(l.ttl, rr.Header().Ttl)
			if slices.Contains(w.Types, rr.Header().Rrtype) {
				useful++
			}
		}
	}
	if useful == 0 && l.err == nil {
		l.err = fmt.Errorf("it has no %s records", strings.Join(w.typeNames(), " or "))
	}
	return l
}

func (w *Watch) typeNames() (names []string) {
	for _, t := range w.Types {
		names = append(names, dns.TypeToString[t])
	}
	return names
}
