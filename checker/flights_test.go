package checker

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whatever is added, removed and postponed: a flight is due from its time on, and no later than a tick after it; whoever
// calls due when next says so misses none.
func TestFlights(t *testing.T) {
	const tick = 1 << tickBits
	waits := []time.Duration{0, 1, tick - 1, tick, time.Millisecond, 20 * time.Millisecond, 2 * time.Second, time.Hour}
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	w := flights{epoch: now}
	var out []*flight // those in w
	forget := func(i int) {
		w.remove(out[i])
		out[i] = out[len(out)-1]
		out = out[:len(out)-1]
	}
	for step := range 50000 {
		later := func() time.Time { return now.Add(waits[random.IntN(len(waits))] + time.Duration(random.IntN(3*tick))) }
		switch action := random.IntN(6); {
		case action < 3 && len(out) < 200:
			f := &flight{due: later()}
			w.add(f)
			out = append(out, f)
		case action == 3 && len(out) > 0:
			forget(random.IntN(len(out)))
		case action == 4 && len(out) > 0:
			w.postpone(out[random.IntN(len(out))], later())
		default:
			advance(t, &w, &now, random)
			for f := w.due(now); f != nil; f = w.due(now) {
				if f.due.After(now) {
					t.Fatalf("step %d: due %v early", step, f.due.Sub(now))
				}
				w.postpone(f, later())
			}
			for _, f := range out {
				if late := now.Sub(f.due); late > tick {
					t.Fatalf("step %d: not due %v after its time", step, late)
				}
			}
		}
		if w.len() != len(out) {
			t.Fatalf("step %d: %d flights, want %d", step, w.len(), len(out))
		}
	}
	left := make(map[*flight]bool)
	for f := range w.all() {
		left[f] = true
	}
	for _, f := range out {
		if !left[f] {
			t.Error("a flight is not among all")
		}
	}
	if len(left) != len(out) {
		t.Errorf("%d flights in all, want %d", len(left), len(out))
	}
}

// advance moves now to when w wants to be asked, or before, or far beyond.
func advance(t *testing.T, w *flights, now *time.Time, random *rand.Rand) {
	t.Helper()
	next, ok := w.next()
	if ok != (w.len() > 0) {
		t.Fatalf("next says %v of %d flights", ok, w.len())
	}
	wait := max(0, next.Sub(*now))
	switch {
	case !ok:
	case random.IntN(10) == 0:
		*now = now.Add(wait + time.Duration(random.Int64N(int64(time.Minute))))
	case random.IntN(2) == 0:
		*now = now.Add(wait)
	default:
		*now = now.Add(wait / 2)
	}
}

// BenchmarkFlights adds and removes a flight while 10 000 others are out, in the order of their departure, as checks
// that are answered do.
func BenchmarkFlights(b *testing.B) {
	w := flights{epoch: time.Now()}
	out := make([]flight, 10000)
	for i := range b.N {
		f := &out[i%len(out)]
		if i >= len(out) {
			w.remove(f)
		}
		f.due = w.epoch.Add(time.Second + time.Duration(i)*time.Microsecond)
		w.add(f)
	}
}
