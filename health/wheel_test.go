package health

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func drain(l *list) (targets []*Target) {
	for t := l.pop(); t != nil; t = l.pop() {
		targets = append(targets, t)
	}
	return targets
}

func TestWheelLevels(t *testing.T) {
	ticks := []int64{1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 1 << 18, 1<<18 + 1, 1 << 24, 1 << 30, 1 << 36,
		math.MaxInt64 >> tickBits}
	var w wheel
	if _, ok := w.next(); ok {
		t.Error("an empty wheel has something due")
	}
	for _, at := range slices.Backward(ticks) {
		w.add(&Target{due: at << tickBits})
		if got, ok := w.next(); !ok || got != at {
			t.Fatalf("next is %d (%v), want %d", got, ok, at)
		}
	}
	for _, at := range ticks {
		var due list
		w.advance(at-1, &due)
		if early := drain(&due); len(early) > 0 {
			t.Fatalf("due %d, out by %d", tickOf(early[0].due), at-1)
		}
		if got, ok := w.next(); !ok || got != at {
			t.Fatalf("next is %d (%v), want %d", got, ok, at)
		}
		w.advance(at, &due)
		if out := drain(&due); len(out) != 1 || tickOf(out[0].due) != at {
			t.Fatalf("%d targets out at %d, want 1", len(out), at)
		}
	}
	if _, ok := w.next(); ok || w.used != [levels]uint64{} {
		t.Error("the wheel is not empty at the end")
	}
}

// The wheel against a plain set, with waits of every size and jumps of every size.
func TestWheelAgainstNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	size := func() int64 { return 1 + random.Int64N(1<<random.IntN(28)) }
	for range 100 {
		var w wheel
		waiting := map[*Target]bool{}
		for range 300 {
			for range random.IntN(8) {
				target := &Target{due: (w.now+size())<<tickBits + random.Int64N(int64(tick))}
				w.add(target)
				waiting[target] = true
			}
			to := w.now + size()
			if at, ok := w.next(); ok && random.IntN(2) == 0 {
				to = at
			}
			var due list
			w.advance(to, &due)
			for _, target := range drain(&due) {
				if !waiting[target] || tickOf(target.due) > to {
					t.Fatalf("tick %d is out at %d", tickOf(target.due), to)
				}
				delete(waiting, target)
			}
			earliest := int64(math.MaxInt64)
			for target := range waiting {
				earliest = min(earliest, tickOf(target.due))
			}
			if earliest <= to {
				t.Fatalf("tick %d is still in at %d", earliest, to)
			}
			if at, ok := w.next(); ok != (len(waiting) > 0) || ok && at != earliest {
				t.Fatalf("next is %d (%v), want %d", at, ok, earliest)
			}
		}
	}
}

// Advanced tick by tick, as it is under load, the wheel gives targets out in the order of their ticks.
func TestWheelOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var w wheel
	for range 1000 {
		w.add(&Target{due: (1 + random.Int64N(500)) << tickBits})
	}
	var due list
	for w.now < 500 {
		w.advance(w.now+1, &due)
	}
	out := drain(&due)
	if len(out) != 1000 || !slices.IsSortedFunc(out, func(a, b *Target) int { return int(a.due - b.due) }) {
		t.Errorf("%d targets, or not in order", len(out))
	}
}

func TestList(t *testing.T) {
	a, b, c, d := &Target{}, &Target{}, &Target{}, &Target{}
	var l, empty, more list
	if l.pop() != nil {
		t.Error("pop of an empty list")
	}
	l.append(empty)
	more.push(a)
	more.push(b)
	l.append(more)
	more = list{}
	more.push(c)
	l.append(more)
	l.append(empty)
	l.push(d)
	if got := drain(&l); !slices.Equal(got, []*Target{a, b, c, d}) || l.head != nil || l.tail != nil {
		t.Errorf("got %v", got)
	}
}

const (
	benchTargets  = 100_000
	benchInterval = 2 * time.Second
)

func benchTimes() []int64 {
	random := rand.New(rand.NewPCG(9, 10))
	waits := make([]int64, 1<<16)
	for i := range waits {
		waits[i] = int64(spread(benchInterval, false, random.Float64()))
	}
	return waits
}

// An operation is one target taken out when it is due and put back for its next probe.
func BenchmarkWheel(b *testing.B) {
	waits := benchTimes()
	var w wheel
	for i := range benchTargets {
		w.add(&Target{due: int64(tick) + int64(benchInterval)*int64(i)/benchTargets})
	}
	b.ReportAllocs()
	var due list
	for n := 0; n < b.N; {
		at, _ := w.next()
		w.advance(at, &due)
		for t := due.pop(); t != nil; t = due.pop() {
			t.due += waits[n&(1<<16-1)]
			w.add(t)
			n++
		}
	}
}

type byDue []*Target

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due < h[j].due }
func (h byDue) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(t any)        { *h = append(*h, t.(*Target)) }
func (h *byDue) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// The same with container/heap.
func BenchmarkHeap(b *testing.B) {
	waits := benchTimes()
	var h byDue
	for i := range benchTargets {
		heap.Push(&h, &Target{due: int64(tick) + int64(benchInterval)*int64(i)/benchTargets})
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		t := heap.Pop(&h).(*Target)
		t.due += waits[n&(1<<16-1)]
		heap.Push(&h, t)
		n++
	}
}
