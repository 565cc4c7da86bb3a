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
	// askTimeout bounds the time that a look-up gets.
	askTimeout = 5 * time.Second
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
	Infof, Warningf func(format string, args ...any)
	// LookedUp is called after each look-up.
	LookedUp func(worked bool)
}

// Watch is a name that is looked up.
type Watch struct {
	name  string
	types []uint16
	ttl   uint32
	ask   Ask
	tell  Listener

	mu      sync.Mutex
	failing time.Time // since when the name is not resolved; zero while it is, and before the first look-up
	told    bool      // the log says so
	known   bool      // it was resolved at least once
	pending []Target  // of the first look-up that worked: those without a verdict, as far as is known
}

// New returns the watch of a name: for records of these types, looked up again when their TTL has run out, but not
// later than after ttl seconds.
func New(name string, types []uint16, ttl uint32, ask Ask, tell Listener) *Watch {
	return &Watch{name: name, types: types, ttl: ttl, ask: ask, tell: tell}
}

// Ready tells whether the name was resolved and its targets have verdicts, or nobody should wait for that any longer.
func (w *Watch) Ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return !w.failing.IsZero() && time.Since(w.failing) >= patience
	}
	w.pending = slices.DeleteFunc(w.pending, func(t Target) bool { return !t.Holds(patience) })
	return len(w.pending) == 0
}

// Run looks the name up until the context ends.
func (w *Watch) Run(ctx context.Context) {
	w.mu.Lock()
	w.failing = time.Now()
	w.mu.Unlock()
	for retry := firstRetry; ; {
		l, ended := w.lookUpUnless(ctx)
		if ended {
			return
		}
		wait := w.refresh(l.ttl)
		if w.learn(l) {
			retry = firstRetry
		} else {
			wait, retry = retry, min(2*retry, lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lookUpUnless looks the name up in a goroutine of its own, and does not wait for it any longer when the context ends:
// who is asked may take his time, and whoever ends the watch may not be able to wait.
func (w *Watch) lookUpUnless(ctx context.Context) (l *lookup, ended bool) {
	result := make(chan *lookup, 1)
	go func() { result <- w.lookUp(ctx) }()
	select {
	case l = <-result:
	case <-ctx.Done():
	}
	return l, ctx.Err() != nil
}

// refresh returns the time until the next look-up.
func (w *Watch) refresh(ttl uint32) time.Duration {
	return max(time.Duration(min(ttl, w.ttl))*time.Second, leastRefresh)
}

// learn takes in a look-up and tells whether it worked. The log has a line when it did not for a while, and another when
// it works again.
func (w *Watch) learn(l *lookup) bool {
	w.tell.LookedUp(l.err == nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.err == nil {
		if w.told {
			w.tell.Infof("%s is resolved again", w.name)
		}
		if !w.known {
			w.known, w.pending = true, l.targets
		}
		w.failing, w.told = time.Time{}, false
		return true
	}
	if w.failing.IsZero() {
		w.failing = time.Now()
	}
	if time.Since(w.failing) >= patience && !w.told {
		w.told = true
		w.tell.Warningf("%s, which is watched, could not be resolved for %v: %v. Nothing waits for it any longer, "+
			"but it is tried again every %v", w.name, patience, l.err, lastRetry)
	}
	return false
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
	keep := w.refresh(math.MaxUint32) + time.Minute
	l := &lookup{ttl: math.MaxUint32}
	useful := 0
	for _, qtype := range w.types {
		m, targets, err := w.ask(ctx, w.name, qtype, keep)
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
			if slices.Contains(w.types, rr.Header().Rrtype) {
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
	for _, t := range w.types {
		names = append(names, dns.TypeToString[t])
	}
	return names
}
