package checker

import "time"

// queue admits jobs to a pool of bounded size, in order of arrival, with one exception: suspects fill
// no more than half of it, and wait apart, so that addresses which swallow SYNs cannot keep those
// which answer from being checked. Whoever has waited for longer than the check's own timeout, or is gone,
// leaves the line. It is not safe for concurrent use.
type queue struct {
	limit    int // places in the pool
	inFlight int
	suspects int // of those in flight

	regular, doubtful fifo
	// sweepAt is when expire has to look at the lines next, if anybody is there.
	sweepAt time.Time
}

// sweepEvery bounds how often the lines are looked through, and with it how late their timeouts are.
const sweepEvery = 10 * time.Millisecond

func (q *queue) push(j job, now time.Time) {
	w := waiting{job: j, expires: now.Add(j.Timeout)}
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

func (q *queue) startable() bool { return q.next() != nil }

func (q *queue) empty() bool { return q.regular.head() == nil && q.doubtful.head() == nil }

// pop takes the next job that may start, and its place in the pool with it. It reports expired for
// one that leaves the line instead; that one has no place.
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

// release gives back the place of a job that pop had given one.
func (q *queue) release(j *job) {
	q.inFlight--
	if j.Suspect {
		q.suspects--
	}
}

// expire takes out of the lines, and yields, who has to leave them.
func (q *queue) expire(now time.Time, yield func(job)) {
	if q.empty() || now.Before(q.sweepAt) {
		return
	}
	var next time.Time
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		f.filter(func(w *waiting) bool {
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

// remove takes out of the lines, and yields, those that match.
func (q *queue) remove(match func(*job) bool, yield func(job)) {
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		f.filter(func(w *waiting) bool {
			if !match(&w.job) {
				return true
			}
			yield(w.job)
			return false
		})
	}
}

// expiry returns when expire has to be called next.
func (q *queue) expiry() (at time.Time, ok bool) { return q.sweepAt, !q.empty() }

// drain empties the queue.
func (q *queue) drain(yield func(job)) {
	for _, f := range []*fifo{&q.regular, &q.doubtful} {
		for f.head() != nil {
			yield(f.pop().job)
		}
	}
}

type waiting struct {
	job
	expires time.Time
}

func (w *waiting) expired(now time.Time) bool { return !w.expires.After(now) || w.waiter.gone() }

// fifo is a slice whose front moves; it is compacted when more than half of it has been taken.
type fifo struct {
	items []waiting
	front int
}

func (f *fifo) push(w waiting) { f.items = append(f.items, w) }

func (f *fifo) head() *waiting {
	if f.front == len(f.items) {
		return nil
	}
	return &f.items[f.front]
}

func (f *fifo) pop() waiting {
	w := f.items[f.front]
	f.items[f.front] = waiting{}
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

// filter keeps those in line for whom keep returns true.
func (f *fifo) filter(keep func(*waiting) bool) {
	kept := f.items[:f.front]
	for i := f.front; i < len(f.items); i++ {
		if keep(&f.items[i]) {
			kept = append(kept, f.items[i])
		}
	}
	clear(f.items[len(kept):])
	f.items = kept
}
