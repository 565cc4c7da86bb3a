package checker

import (
	"iter"
	"math/bits"
	"time"
)

const (
	// A tick is 2^tickBits ns = 0.26 ms. epoll_pwait(2) sleeps whole milliseconds.
	tickBits  = 18
	digitBits = 6
	digits    = 1 << digitBits
	// levels of six bits each hold all ticks of a non-negative int64 of nanoseconds.
	levels = (63 - tickBits + digitBits - 1) / digitBits
	// ripe is the slot of the flights that are due.
	ripe = levels * digits
)

// flights holds the flights in the order in which they are due: a hierarchical timing wheel (Varghese and Lauck,
// "Hashed and Hierarchical Timing Wheels", 1987, scheme 7) with 64 slots on each level. Most checks are answered long
// before they are due. To add and to remove a flight takes a few instructions and touches its neighbours at most, where
// a heap would look at flights all over memory.
//
// Write a flight's tick and now in base 64. The flight stands on the level of the highest digit in which the two
// differ, in the slot that its digit names. So all flights of a level are due before those of the levels above, and the
// slots of a level are in order.
//
// A flight is due from the end of its tick on: never early, and up to 0.26 ms late.
type flights struct {
	epoch time.Time // when tick 0 began; nothing is due before
	now   int64     // the last tick whose flights are ripe
	used  [levels]uint64
	// slots are rings. Each holds its first flight, whose prev is the last.
	slots [ripe + 1]*flight
	count int
}

// len returns how many flights there are.
func (w *flights) len() int { return w.count }

// all yields all flights, in no order.
func (w *flights) all() iter.Seq[*flight] {
	return func(yield func(*flight) bool) {
		for _, first := range w.slots {
			for f := first; f != nil; {
				if !yield(f) {
					return
				}
				if f = f.next; f == first {
					break
				}
			}
		}
	}
}

// add puts a flight in, according to its due.
func (w *flights) add(f *flight) {
	w.count++
	w.put(f)
}

// remove takes a flight out.
func (w *flights) remove(f *flight) {
	w.count--
	w.take(f)
}

// postpone makes a flight due at another time.
func (w *flights) postpone(f *flight, due time.Time) {
	if f.due == due {
		return
	}
	w.take(f)
	f.due = due
	w.put(f)
}

// next returns when due has to be called next. That may be before any flight is due. ok is false if there is none.
func (w *flights) next() (at time.Time, ok bool) {
	if w.slots[ripe] != nil {
		return w.slots[ripe].due, true
	}
	tick, _, ok := w.first()
	return w.epoch.Add(time.Duration(tick << tickBits)), ok
}

// due returns a flight that is due at now, and leaves it where it is. It returns nil if there is none.
func (w *flights) due(now time.Time) *flight {
	to := int64(now.Sub(w.epoch)) >> tickBits
	for tick, slot, ok := w.first(); ok && tick <= to; tick, slot, ok = w.first() {
		w.now = tick
		for f := w.slots[slot]; f != nil; f = w.slots[slot] {
			w.take(f)
			w.put(f) // on a lower level now, or ripe
		}
	}
	w.now = max(w.now, to)
	return w.slots[ripe]
}

// first returns the first slot that is not empty, apart from ripe, and the tick that it begins with.
func (w *flights) first() (tick int64, slot int, ok bool) {
	for level, used := range w.used {
		if used != 0 {
			digit := bits.TrailingZeros64(used)
			shift := level * digitBits
			return (w.now>>shift&^(digits-1) | int64(digit)) << shift, level*digits + digit, true
		}
	}
	return 0, 0, false
}

// slotOf returns the slot for a flight that is due then.
func (w *flights) slotOf(due time.Time) int {
	tick := (int64(due.Sub(w.epoch)) + 1<<tickBits - 1) >> tickBits
	if tick <= w.now {
		return ripe
	}
	level := (bits.Len64(uint64(tick^w.now)) - 1) / digitBits
	return level*digits + int(tick>>(level*digitBits))&(digits-1)
}

// put makes f the last of its slot.
func (w *flights) put(f *flight) {
	f.slot = w.slotOf(f.due)
	first := w.slots[f.slot]
	if first == nil {
		f.prev, f.next = f, f
		w.slots[f.slot] = f
		w.mark(f.slot, true)
		return
	}
	f.prev, f.next = first.prev, first
	f.prev.next, first.prev = f, f
}

// take takes f out of its slot.
func (w *flights) take(f *flight) {
	switch {
	case f.next == f:
		w.slots[f.slot] = nil
		w.mark(f.slot, false)
	case w.slots[f.slot] == f:
		w.slots[f.slot] = f.next
	}
	f.prev.next, f.next.prev = f.next, f.prev
	f.prev, f.next = nil, nil
}

// mark notes whether anything is in a slot.
func (w *flights) mark(slot int, used bool) {
	if slot == ripe {
		return
	}
	bit := uint64(1) << (slot % digits)
	w.used[slot/digits] &^= bit
	if used {
		w.used[slot/digits] |= bit
	}
}
