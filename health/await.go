package health

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Await blocks until none of the targets holds ([Target.Holds]): each has a verdict, or no hope for
// one, or its first hold is over. That time runs from the creation of the target, not from this call,
// so that a black hole delays answers only in the first moments of its life. Await returns at once
// when the monitor is closed. nil targets are skipped.
func (m *Monitor) Await(targets []*Target, hold time.Duration) {
	left := longestHold(targets, hold)
	if left <= 0 {
		return
	}
	wake := make(chan struct{}, 1)
	m.waiting.add(targets, wake)
	defer m.waiting.remove(targets, wake)
	timer := time.NewTimer(left)
	defer timer.Stop()
	for {
		// The look after the registration: a verdict that came before it wakes nobody.
		left = longestHold(targets, hold)
		if left <= 0 {
			return
		}
		timer.Reset(left)
		select {
		case <-wake:
		case <-timer.C:
		case <-m.closing:
			return
		}
	}
}

// longestHold returns for how long at least one of the targets holds at most.
func longestHold(targets []*Target, hold time.Duration) time.Duration {
	var longest time.Duration
	for _, t := range targets {
		if t != nil {
			longest = max(longest, t.holds(hold))
		}
	}
	return longest
}

// waiting knows who waits for the verdict of which target.
type waiting struct {
	// waits spares the goroutine the lock while there are none, which is nearly always. It goes up
	// before a waiter looks at the verdict, and is read after the verdict was stored.
	waits atomic.Int64
	mu    sync.Mutex
	of    map[*Target][]chan<- struct{}
}

func (w *waiting) add(targets []*Target, wake chan<- struct{}) {
	w.waits.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = make(map[*Target][]chan<- struct{})
	}
	for _, t := range targets {
		if t != nil && t.State() == Unknown {
			w.of[t] = append(w.of[t], wake)
		}
	}
}

func (w *waiting) remove(targets []*Target, wake chan<- struct{}) {
	w.waits.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range targets {
		left := slices.DeleteFunc(w.of[t], func(c chan<- struct{}) bool { return c == wake })
		if len(left) == 0 {
			delete(w.of, t)
		} else {
			w.of[t] = left
		}
	}
}

// wakeUp lets everyone who waits for the target look again. The target does not hold any more, so
// nobody will wait for it a second time.
func (w *waiting) wakeUp(t *Target) {
	if w.waits.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wake := range w.of[t] {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	delete(w.of, t)
}
