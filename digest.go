package shaker

import (
	"sync"
	"time"
)

// digest has much news of a kind told shortly: the first ones of a while one by one, and how many there were of the rest
// when the while is over. K tells them apart.
type digest[K comparable] struct {
	most   int
	within time.Duration
	tell   func(rest map[K]int) // is called with the mutex held

	mu      sync.Mutex
	began   time.Time // of the while that is being counted
	lines   int       // told in it
	rest    map[K]int // nil while there are none
	summary *time.Timer
	closed  bool
}

// mayTell counts a piece of news, and tells whether it gets a line of its own.
func (d *digest[K]) mayTell(kind K) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Sub(d.began) >= d.within && d.summary == nil {
		d.began, d.lines = now, 0
	}
	d.lines++
	if d.lines <= d.most {
		return true
	}
	if d.rest == nil {
		d.rest = make(map[K]int)
	}
	d.rest[kind]++
	if d.summary == nil && !d.closed {
		d.summary = time.AfterFunc(d.within-now.Sub(d.began), d.summarise)
	}
	return false
}

// summarise tells of the news that got no line.
func (d *digest[K]) summarise() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rest != nil {
		d.tell(d.rest)
	}
	d.rest, d.summary = nil, nil
}

// close tells what is left to tell.
func (d *digest[K]) close() {
	d.mu.Lock()
	d.closed = true
	if d.summary != nil {
		d.summary.Stop()
	}
	d.mu.Unlock()
	d.summarise()
}
