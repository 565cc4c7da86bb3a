package checker

import (
	"container/heap"
	"time"
)

// flight is a check whose SYN is on its way.
type flight struct {
	job  job
	id   int32 // its carrier's number for it
	sent time.Time
	due  time.Time // when its carrier has to look after it: when its time is up, or before

	position int // in flights
}

// rtt returns the time from the SYN to now.
func (f *flight) rtt(now time.Time) time.Duration { return max(1, now.Sub(f.sent)) }

// flights is a heap. The flight that is due next comes first.
type flights []*flight

func (f *flights) add(x *flight)    { heap.Push(f, x) }
func (f *flights) remove(x *flight) { heap.Remove(f, x.position) }

// postpone makes x due at another time.
func (f *flights) postpone(x *flight, due time.Time) {
	x.due = due
	heap.Fix(f, x.position)
}

// Len implements heap.Interface.
func (f flights) Len() int { return len(f) }

// Less implements heap.Interface.
func (f flights) Less(i, j int) bool { return f[i].due.Before(f[j].due) }

// Swap implements heap.Interface.
func (f flights) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].position, f[j].position = i, j
}

// Push implements heap.Interface.
func (f *flights) Push(x any) {
	added := x.(*flight)
	added.position = len(*f)
	*f = append(*f, added)
}

// Pop implements heap.Interface.
func (f *flights) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	(*f)[last] = nil
	*f = (*f)[:last]
	return x
}
