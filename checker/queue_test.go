package checker

import (
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	now := time.Now()
	named := func(name string, suspect bool) job {
		return job{Check: Check{Tag: name, Timeout: time.Second, Suspect: suspect}}
	}
	q := queue{limit: 4}
	for _, name := range []string{"s1", "s2", "s3"} {
		q.push(named(name, true), now)
	}
	for _, name := range []string{"r1", "r2", "r3"} {
		q.push(named(name, false), now)
	}
	pop := func(want string, wantExpired bool) job {
		t.Helper()
		j, expired, ok := q.pop(now)
		if !ok && want == "" {
			return j
		}
		if !ok || j.Tag != want || expired != wantExpired {
			t.Fatalf("popped %v, expired %v, ok %v; want %q, expired %v", j.Tag, expired, ok, want, wantExpired)
		}
		return j
	}
	// Those who are expected to answer go first; suspects take what is left, and no more than half.
	r1 := pop("r1", false)
	pop("r2", false)
	pop("r3", false)
	s1 := pop("s1", false)
	pop("", false)
	q.release(&r1)
	pop("s2", false)
	pop("", false)
	q.push(named("r4", false), now)
	q.release(&s1)
	pop("r4", false)
	// Whoever has waited for too long leaves the line, place or no place.
	if at, ok := q.expiry(); !ok || !at.Equal(now.Add(time.Second)) {
		t.Errorf("next expiry %v, %v", at, ok)
	}
	now = now.Add(time.Second)
	pop("s3", true)
	pop("", false)
	if _, ok := q.expiry(); ok || q.startable() {
		t.Error("the empty queue has something to do")
	}
	if q.inFlight != 4 || q.suspects != 1 {
		t.Errorf("%d in flight, %d suspects", q.inFlight, q.suspects)
	}
}

// A pool of one serves suspects too.
func TestQueueOfOne(t *testing.T) {
	q := queue{limit: 1}
	q.push(job{Check: Check{Timeout: time.Second, Suspect: true}}, time.Now())
	if !q.startable() {
		t.Error("a suspect cannot start in an empty pool of one")
	}
}

func TestFifo(t *testing.T) {
	var f fifo
	next, pushed := 0, 0
	for round := range 500 {
		for range round % 7 {
			f.push(waiting{job: job{Check: Check{Tag: pushed}}})
			pushed++
		}
		for range round % 5 {
			if f.head() == nil {
				break
			}
			if got := f.pop().Tag; got != next {
				t.Fatalf("popped %v, want %d", got, next)
			}
			next++
		}
	}
	for ; f.head() != nil; next++ {
		if got := f.pop().Tag; got != next {
			t.Fatalf("popped %v, want %d", got, next)
		}
	}
	if next != pushed {
		t.Errorf("popped %d of %d", next, pushed)
	}
}
