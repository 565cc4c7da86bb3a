package health

import (
	"math/bits"
	"time"
)

const (
	// tickBits makes a tick a power of two of nanoseconds, so that a shift finds it. 2^22 ns =
	// 4.2 ms: at 50 000 probes a second some 200 go out together, which makes the wake-up itself
	// cost nothing to speak of.
	tickBits = 22
	tick     = time.Duration(1) << tickBits

	digitBits = 6
	digits    = 1 << digitBits
	// levels of six bits each hold all ticks of a non-negative int64 of nanoseconds.
	levels = (63 - tickBits + digitBits - 1) / digitBits
)

// wheel holds the targets that wait for their next probe: a hierarchical timing wheel (Varghese and
// Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 7) with 64 slots on each level.
//
// Write a target's tick and now in base 64. The target stands on the level of the highest digit in
// which the two differ, in the slot that its digit names. So all targets of a level are due before
// those of the levels above, the slots of a level are in order, and one machine word tells which of
// them are occupied. To add a target takes a few instructions and touches no other. Until it is due it
// moves once per level: once for waits up to 17 s, twice up to 18 min. A binary heap would compare and
// swap some 17 targets all over memory instead, for the addition and the removal each (see
// BenchmarkWheel and BenchmarkHeap). A single level of 4096 slots would save the move, but longer waits
// would wake the goroutine up although nothing is due.
//
// A target is due as soon as its tick begins: up to 4.2 ms early, never late. So the rounding of
// several probes does not add up.
type wheel struct {
	now  int64 // the last tick that was taken out
	used [levels]uint64
	slot [levels][digits]slot
}

// slot is filled one by one and emptied as a whole, so its earliest tick is known without a search.
type slot struct {
	list
	earliest int64
}

// tickOf returns the tick that an instant (nanoseconds since the monitor's start) falls in.
func tickOf(instant int64) int64 { return instant >> tickBits }

// level returns the level of the highest digit in which a and b, which are not equal, differ.
func level(a, b int64) int { return (bits.Len64(uint64(a^b)) - 1) / digitBits }

// digit returns the digit of a tick that names its slot on a level.
func digit(tick int64, level int) int { return int(tick>>(level*digitBits)) & (digits - 1) }

// add puts a target in. Its tick has to be later than w.now.
func (w *wheel) add(t *Target) {
	at := tickOf(t.due)
	l := level(at, w.now)
	d := digit(at, l)
	s := &w.slot[l][d]
	if s.head == nil || at < s.earliest {
		s.earliest = at
	}
	s.push(t)
	w.used[l] |= 1 << d
}

// next returns the earliest tick at which a target is due.
func (w *wheel) next() (tick int64, ok bool) {
	for l, used := range w.used {
		if used != 0 {
			return w.slot[l][bits.TrailingZeros64(used)].earliest, true
		}
	}
	return 0, false
}

// advance moves on to tick to and appends the targets that are due by then, in the order of their
// slots.
func (w *wheel) advance(to int64, due *list) {
	if to <= w.now {
		return
	}
	top := level(to, w.now)
	for l := range top {
		// All of these have the higher digits of the old now, so they are in the past.
		for w.used[l] != 0 {
			due.append(w.empty(l, bits.TrailingZeros64(w.used[l])))
		}
	}
	last := digit(to, top)
	for past := uint64(1)<<last - 1; w.used[top]&past != 0; {
		due.append(w.empty(top, bits.TrailingZeros64(w.used[top])))
	}
	w.now = to
	around := w.empty(top, last)
	for t := around.pop(); t != nil; t = around.pop() {
		if tickOf(t.due) <= to {
			due.push(t)
		} else {
			w.add(t)
		}
	}
}

func (w *wheel) empty(l, d int) list {
	w.used[l] &^= 1 << d
	s := &w.slot[l][d]
	targets := s.list
	s.list = list{}
	return targets
}

// list is a first-in, first-out list of targets, linked through Target.next. A target is in one list at
// most: a slot of the wheel, or a queue of those that are due.
type list struct{ head, tail *Target }

func (l *list) push(t *Target) {
	t.next = nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
}

// pop returns the oldest target, nil if there is none.
func (l *list) pop() *Target {
	t := l.head
	if t == nil {
		return nil
	}
	l.head = t.next
	if l.head == nil {
		l.tail = nil
	}
	t.next = nil
	return t
}

// append moves all of more to the end of l.
func (l *list) append(more list) {
	switch {
	case more.head == nil:
	case l.tail == nil:
		*l = more
	default:
		l.tail.next = more.head
		l.tail = more.tail
	}
}
