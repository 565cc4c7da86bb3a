package health

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Await blocks until none of the targets holds any more, see [Target.Holds]. A target holds for as
// long as hold after its creation, however late this call comes, so that a black hole delays answers
// only in the first moments of its life. Await returns at once when the monitor is closed. nil targets
// are skipped.
func (m *Monitor) Await(targets []*Target, hold time.Duration) {
	left := longestHold(targets, hold)
	if left <= 0 {
		return
	}
	wake := make(chan struct{}, 1)
	m.waiters.add(targets, wake)
	defer m.waiters.remove(targets, wake)
	timer := time.NewTimer(left)
	defer timer.Stop()
	for {
		// A verdict that came before the registration wakes nobody, so look once more after it.
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

// longestHold returns how long it takes at most until none of the targets holds.
func longestHold(targets []*Target, hold time.Duration) (left time.Duration) {
	for _, t := range targets {
		if t != nil {
			left = max(left, t.holds(hold))
		}
	}
	return left
}

// waiters knows who waits for the verdict of which target.
type waiters struct {
	// number of waiters. It spares the monitor's goroutine the lock while there are none, which is nearly
	// always. It goes up before a waiter looks at the verdict, and is read after the verdict was stored.
	number atomic.Int64
	mu     sync.Mutex
	of     map[*Target][]chan<- struct{}
}

func (w *waiters) add(targets []*Target, wake chan<- struct{}) {
	w.number.Add(1)
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

func (w *waiters) remove(targets []*Target, wake chan<- struct{}) {
	w.number.Add(-1)
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
func (w *waiters) wakeUp(t *Target) {
	if w.number.Load() == 0 {
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
