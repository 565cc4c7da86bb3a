package checker

import "time"

// queue admits jobs to a pool of bounded size, in the order in which they came. Suspects wait apart and fill no more
// than half of the pool: addresses that swallow SYNs cannot keep those that answer from being checked. A job leaves
// the line when it has waited for longer than its check's timeout, or when its waiter is gone. A queue is not safe
// for concurrent use.
type queue struct {
	limit    int // places in the pool
	inFlight int // places taken
	suspects int // of those, which suspects and further tries hold

	regular, doubtful fifo
	// sweepAt is when expire has to look through the lines next, if there is anything in them.
	sweepAt time.Time
}

// sweepEvery is the least time between two looks through the lines. A timeout in line may be late by as much.
const sweepEvery = 10 * time.Millisecond

func (q *queue) push(j job, now time.Time) {
	w := queued{job: j, expires: now.Add(j.Timeout)}
	if q.empty() || w.expires.Before(q.sweepAt) {
		q.sweepAt = w.expires
	}
	if j.Suspect {
		q.doubtful.push(w)
	} else {
		q.regular.push(w)
	}
}

// next returns where the next job that may start waits, or nil.
func (q *queue) next() *fifo {
	switch {
	case q.inFlight >= q.limit:
		return nil
	case q.regular.head() != nil:
		return &q.regular
	case q.doubtful.head() != nil && q.suspects < max(1, q.limit/2):
		return &q.doubtful
	default:
		return nil
	}
}

// backlog returns how many jobs could start now if there were time.
func (q *queue) backlog() int {
	n := min(q.regular.len(), q.limit-q.inFlight)
	return n + max(0, min(q.doubtful.len(), q.limit-q.inFlight-n, max(1, q.limit/2)-q.suspects))
}

func (q *queue) empty() bool { return q.regular.head() == nil && q.doubtful.head() == nil }

// pop takes the next job out of its line and gives it a place in the pool. One that has waited for too long gets no
// place: pop reports it as expired. ok is false if no job may start.
func (q *queue) pop(now time.Time) (j job, expired, ok bool) {
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		if head := f.head(); head != nil && head.expired(now) {
			return f.pop().job, true, true
		}
	}
	f := q.next()
	if f == nil {
		return job{}, false, false
	}
	j = f.pop().job
	q.inFlight++
	if j.Suspect {
		q.suspects++
	}
	return j, false, true
}

// release takes back a place that pop has given.
func (q *queue) release(j *job) {
	q.inFlight--
	if j.Suspect {
		q.suspects--
	}
}

// widen gives a check in flight another place for a further try. It reports false if a job needs it more. Further tries
// fill no more than suspects do, together with them: most of them go to addresses that swallow SYNs.
func (q *queue) widen() bool {
	if q.inFlight >= q.limit || q.suspects >= max(1, q.limit/2) || q.regular.head() != nil {
		return false
	}
	q.inFlight++
	q.suspects++
	return true
}

// narrow takes back places that widen has given.
func (q *queue) narrow(places int) {
	q.inFlight -= places
	q.suspects -= places
}

// expire takes jobs that have waited for too long out of the lines, and calls yield with each.
func (q *queue) expire(now time.Time, yield func(job)) {
	if q.empty() || now.Before(q.sweepAt) {
		return
	}
	var next time.Time
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		f.filter(func(w *queued) bool {
			if w.expired(now) {
				yield(w.job)
				return false
			}
			if next.IsZero() || w.expires.Before(next) {
				next = w.expires
			}
			return true
		})
	}
	q.sweepAt = next
	if soonest := now.Add(sweepEvery); next.Before(soonest) {
		q.sweepAt = soonest
	}
}

// remove takes jobs that match out of the lines, and calls yield with each.
func (q *queue) remove(match func(*job) bool, yield func(job)) {
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		f.filter(func(w *queued) bool {
			if !match(&w.job) {
				return true
			}
			yield(w.job)
			return false
		})
	}
}

// expiry returns when expire has to be called next. ok is false if the lines are empty.
func (q *queue) expiry() (at time.Time, ok bool) { return q.sweepAt, !q.empty() }

// drain takes all jobs out of the lines, and calls yield with each.
func (q *queue) drain(yield func(job)) {
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		for f.head() != nil {
			yield(f.pop().job)
		}
	}
}

type queued struct {
	job
	expires time.Time
}

func (w *queued) expired(now time.Time) bool { return !w.expires.After(now) || w.waiter.gone() }

// fifo is a slice whose front moves. It is compacted when more than half of it has been taken.
type fifo struct {
	items []queued
	front int
}

func (f *fifo) push(w queued) { f.items = append(f.items, w) }

func (f *fifo) len() int { return len(f.items) - f.front }

func (f *fifo) head() *queued {
	if f.front == len(f.items) {
		return nil
	}
	return &f.items[f.front]
}

func (f *fifo) pop() queued {
	w := f.items[f.front]
	f.items[f.front] = queued{}
	f.front++
	switch {
	case f.front == len(f.items):
		f.items, f.front = f.items[:0], 0
	case f.front > 64 && f.front > len(f.items)/2:
		n := copy(f.items, f.items[f.front:])
		clear(f.items[n:])
		f.items, f.front = f.items[:n], 0
	}
	return w
}

// filter keeps what keep returns true for.
func (f *fifo) filter(keep func(*queued) bool) {
	kept := f.items[:f.front]
	for i := f.front; i < len(f.items); i++ {
		if keep(&f.items[i]) {
			kept = append(kept, f.items[i])
		}
	}
	clear(f.items[len(kept):])
	f.items = kept
}
