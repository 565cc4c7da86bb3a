package checker

import "time"

// flight is a check under way. It is used for one check after the other.
type flight struct {
	job      job
	schedule schedule
	tries    *try // what may still be answered, the oldest first
	places   int  // how many it holds in the pool: one, and another for each try but one, if there was room
	sent     int  // SYNs that have left

	began    time.Time // when its first SYN left
	stepped  time.Time // when the SYN of its step left
	over     time.Time // when its step is over, or its wait for the pace
	paced    bool      // it waits for the pace, and its next SYN leaves then
	due      time.Time // when it has to be looked after: when over, or when a try's SYN is to be repeated
	evidence evidence  // what has come back, apart from what ends the check at once

	// For flights alone.
	slot       int     // where it is
	prev, next *flight // its neighbours there; nil if it is not in flights
}

// isLookedAfter tells whether f is in flights.
func (f *flight) isLookedAfter() bool { return f.next != nil }

// try is one SYN of a check. Its carrier uses it for one SYN after the other.
type try struct {
	flight *flight // nil between two checks
	next   *try    // in the flight's list
	id     int32   // its carrier's number for it
	sent   time.Time
	repeat time.Time // when its carrier sends the same SYN again; zero for never
}

// link makes t the newest of f's tries.
func (f *flight) link(t *try) {
	t.flight = f
	last := &f.tries
	for *last != nil {
		last = &(*last).next
	}
	*last = t
}

// unlink takes t out of its flight's list.
func (t *try) unlink() {
	at := &t.flight.tries
	for *at != t {
		at = &(*at).next
	}
	*at = t.next
	t.next = nil
}

// isAlone tells whether no other try of the check may still be answered, or has been.
func (t *try) isAlone() bool {
	return t.flight.tries == t && t.next == nil && t.flight.evidence.refused == nil
}

// waiting returns how many tries may still be answered.
func (f *flight) waiting() (n int) {
	for t := f.tries; t != nil; t = t.next {
		n++
	}
	return n
}

// isSpent tells whether nothing can come back any more: all SYNs are sent, and each of them has ended.
func (f *flight) isSpent() bool {
	return f.tries == nil && f.schedule.isLast() && !f.paced
}

// nextDue returns when the flight has to be looked after.
func (f *flight) nextDue() time.Time {
	due := f.over
	for t := f.tries; t != nil; t = t.next {
		if !t.repeat.IsZero() && t.repeat.Before(due) {
			due = t.repeat
		}
	}
	return due
}
