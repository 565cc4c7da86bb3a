package checker

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// What the loop does with a check, from its first SYN to its report.

// errNoPort is why a further try of MethodRaw has to take the place of another.
var errNoPort = errors.New("no source port is free")

// begin sends the first SYN of a check that has a place in the pool.
func (l *loop) begin(j *job, now time.Time) {
	f := l.takeSpare()
	f.job, f.schedule, f.places = *j, newSchedule(&j.Check), 1
	if err := l.carrier.launch(f, nil, now); err != nil {
		l.giveUp(f, err)
	}
}

func (l *loop) takeSpare() *flight {
	last := len(l.spares) - 1
	if last < 0 {
		return new(flight)
	}
	f := l.spares[last]
	l.spares = l.spares[:last]
	return f
}

// await has a flight without a SYN wait until it can have one, for as long as its check may take.
func (l *loop) await(f *flight, now time.Time) {
	f.over = now.Add(f.job.Timeout)
	l.enter(f)
}

// depart notes that a try's SYN has left.
func (l *loop) depart(t *try, now time.Time) {
	f := t.flight
	t.sent = now
	f.sent++
	f.stepped, f.over = now, now.Add(f.schedule.length())
	if f.isLookedAfter() {
		l.flights.postpone(f, f.nextDue())
		return
	}
	f.began = now
	l.enter(f)
}

// enter makes f one of those that are looked after.
func (l *loop) enter(f *flight) {
	f.due = f.nextDue()
	l.flights.add(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = f
	}
}

// leave undoes enter.
func (l *loop) leave(f *flight) {
	l.flights.remove(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = nil
	}
}

// lapse looks after the flights that were due at the last look at the answers.
func (l *loop) lapse(looked time.Time) {
	for n := range startBatch { // some SYNs are sent; the rest has its turn after another look
		f := l.flights.due(looked)
		if f == nil {
			return
		}
		if n == 0 {
			l.presence.compareBoot()
		}
		l.lookAfter(f, looked)
	}
}

func (l *loop) lookAfter(f *flight, looked time.Time) {
	switch {
	case f.over.After(looked):
		l.carrier.repeat(f, looked)
		l.flights.postpone(f, f.nextDue())
	case f.sent == 0:
		l.finish(f, Inconclusive, ErrBusy, 0)
	case f.paced:
		f.paced = false
		l.sendFurther(f)
	default:
		l.endStep(f)
	}
}

// endStep goes on with a check whose step is over.
func (l *loop) endStep(f *flight) {
	more, err := f.schedule.advance(l.presence.away(f.stepped))
	switch {
	case err != nil:
		l.finish(f, Inconclusive, err, 0)
		return
	case !more:
		l.conclude(f)
		return
	case l.pace != nil:
		if wait := l.pace(); wait > 0 {
			f.paced, f.over = true, l.presence.now().Add(wait)
			l.flights.postpone(f, f.nextDue())
			return
		}
	}
	l.sendFurther(f)
}

// sendFurther sends another SYN of a check, which takes the place of its oldest try if there is no other.
func (l *loop) sendFurther(f *flight) {
	now := l.presence.now()
	f.stepped, f.over = now, now.Add(f.schedule.length()) // even if it does not leave
	l.flights.postpone(f, f.nextDue())
	var old *try
	if f.tries != nil {
		if l.queue.widen() {
			f.places++
		} else {
			old = f.takeOldest()
		}
	}
	err := l.carrier.launch(f, old, now)
	if err != nil && f.tries != nil && old == nil && (err == errNoPort || isErrno(err, descriptorErrnos)) {
		l.fit(f)
		err = l.carrier.launch(f, f.takeOldest(), now)
	}
	if err != nil {
		l.strand(f, err)
	}
}

// takeOldest unlinks the oldest try of f.
func (f *flight) takeOldest() *try {
	t := f.tries
	t.unlink()
	return t
}

// fit gives back the places that f no longer needs.
func (l *loop) fit(f *flight) {
	if spare := f.places - max(1, f.waiting()); spare > 0 {
		l.queue.narrow(spare)
		f.places -= spare
	}
}

// giveUp ends a check whose first SYN could not leave.
func (l *loop) giveUp(f *flight, err error) {
	if !errors.Is(err, unix.ECONNREFUSED) {
		l.finish(f, Inconclusive, err, 0)
		return
	}
	f.sent = 1
	l.finish(f, Refused, err, 1)
}

// strand goes on with a check of which a further SYN could not leave.
func (l *loop) strand(f *flight, err error) {
	if errors.Is(err, unix.ECONNREFUSED) {
		f.sent++
		l.note(f, Refused, err, 1)
	} else {
		l.note(f, Inconclusive, err, 0)
	}
	l.fit(f)
	l.concludeSpent(f)
}

// take takes in what has come back to a try.
func (l *loop) take(t *try, r Result, err error, now time.Time) {
	f := t.flight
	var rtt time.Duration
	if r == Answered || r == Refused {
		rtt = l.roundTrip(t, now)
	}
	if r == Answered || r == Refused && t.isAlone() {
		l.finish(f, r, err, rtt)
		return
	}
	l.note(f, r, err, rtt)
	t.unlink()
	l.carrier.cutOff(t)
	l.fit(f)
	l.concludeSpent(f)
}

// roundTrip returns the time from the SYN to now. It is 0 if this process was away for more than an eighth of it: nobody
// knows then when the answer came.
func (l *loop) roundTrip(t *try, now time.Time) time.Duration {
	rtt := max(1, now.Sub(t.sent))
	if l.presence.away(t.sent) > rtt/8 {
		return 0
	}
	return rtt
}

// note notes what became of a try that does not end the check. If a RST does, that shows when all is taken in that has come
// by now.
func (l *loop) note(f *flight, r Result, err error, rtt time.Duration) {
	if r == Refused && f.evidence.refused == nil {
		l.refused = append(l.refused, f)
	}
	f.evidence.note(r, err, rtt)
}

// settleRefusals ends the checks of which a try was refused and none was answered.
func (l *loop) settleRefusals() {
	for _, f := range l.refused {
		if f.evidence.refused != nil { // it has not ended meanwhile
			l.conclude(f)
		}
	}
	clear(l.refused)
	l.refused = l.refused[:0]
}

// concludeSpent ends a check to which nothing can come back any more.
func (l *loop) concludeSpent(f *flight) {
	if f.isSpent() && f.evidence.refused == nil {
		l.conclude(f)
	}
}

// conclude ends a check without a SYN-ACK.
func (l *loop) conclude(f *flight) {
	r, rtt, err := f.evidence.verdict()
	if r == Timeout && l.carrier.mayHaveLost(f, l.presence.now()) {
		r, err = Inconclusive, ErrOverflow
	}
	l.finish(f, r, err, rtt)
}

// finish reports on a check, whatever it is waiting for, and gives back all that it holds.
func (l *loop) finish(f *flight, r Result, err error, rtt time.Duration) {
	l.reports = append(l.reports, Report{Tag: f.job.Tag, Result: r, RTT: rtt, Tries: f.sent, Err: err})
	if f.isLookedAfter() {
		l.leave(f)
	}
	for f.tries != nil {
		l.carrier.cutOff(f.takeOldest())
	}
	l.queue.narrow(f.places - 1)
	l.queue.release(&f.job)
	*f = flight{}
	l.spares = append(l.spares, f)
}
