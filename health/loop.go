package health

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

const (
	// batch is how many checks go to the prober in one call.
	batch = 256
	// closedRetry is how long a prober is left alone that is closed although it is still the one to
	// use. It is about to be replaced, and until then every probe would come right back.
	closedRetry = 250 * time.Millisecond
	// busyRetry is how long a prober is left alone that is behind with its work. It does a part of that meanwhile.
	busyRetry = 10 * time.Millisecond
	// keepReports is how many reports there is always room for, which takes 200 KB.
	keepReports = 4096
)

// never is the instant of what is not going to happen.
const never = math.MaxInt64

// loop is what only the monitor's goroutine touches.
type loop struct {
	reports []checker.Report // of this turn; the inbox uses its array in the next one
	taken   int              // how many of reports were taken

	wheel   wheel
	fresh   list // due, and never probed
	routine list // due, in that order

	freezer    freezer
	news       []func()        // each tells the listener something
	checks     []checker.Check // the batch being put together
	dues       []int64         // when each of them was due
	generation uint16          // the newest of Monitor.generation that was seen
	unfinished bool            // a panic ended the last turn
	sending    bool            // there was a prober when the queues were last looked at
	resume     int64           // no probe before then, see closedRetry

	sharing  sharing
	pending  []*Target // of Monitor.pending, and those that a freeze has restored
	finished uint64    // probes that came back
	flying   int64     // probes that did not yet
}

// run is the monitor's goroutine.
func (m *Monitor) run() {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("shaker", "monitor")))
	defer close(m.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	armed := int64(0)
	for {
		m.guardedTurn()
		now := m.now()
		at := m.nextTurn(now)
		m.planned.Store(at)
		switch at {
		case armed:
		case never:
			timer.Stop()
			armed = never
		default:
			timer.Reset(time.Duration(at - now))
			armed = at
		}
		select {
		case <-m.closing:
			return
		case <-m.wake:
		case <-timer.C:
			armed = never
		}
	}
}

func (m *Monitor) guardedTurn() {
	if m.panicked != nil {
		defer func() {
			if reason := recover(); reason != nil {
				m.panicked(reason)
			}
		}()
	}
	m.turn(m.now())
}

// turn does all there is to do at the instant now. A panic out of a callback may end it early; the
// next turn goes on from there.
func (m *Monitor) turn(now int64) {
	m.loop.unfinished = true
	m.passTime(now)
	m.convene(now)
	m.hearOfPeers(now)
	m.takeReports(now)
	m.thawIfHeard(now)
	m.takeAdded(now)
	m.reconsider(now)
	m.tellFrozen()
	m.tellNews()
	m.sweep(now)
	m.loop.wheel.advance(tickOf(now), &m.loop.routine)
	m.send(now)
	m.finished.Store(m.loop.finished)
	m.flying.Store(m.loop.flying)
	m.loop.unfinished = false
}

// tellNews tells the listener what the reports led to beyond the targets that they were about.
func (m *Monitor) tellNews() {
	for len(m.loop.news) > 0 {
		tell := m.loop.news[0]
		m.loop.news = m.loop.news[1:]
		tell()
	}
	m.loop.news = nil // and with it the targets that it keeps in memory
}

// nextTurn returns the instant at which there is something to do, if nobody wakes the goroutine up
// before.
func (m *Monitor) nextTurn(now int64) int64 {
	l := &m.loop
	if l.unfinished || l.sharing.changing || len(l.pending) > 0 {
		return now
	}
	at := m.nextSweep()
	if !l.sending {
		return at
	}
	if t, ok := l.wheel.next(); ok {
		at = min(at, t<<tickBits)
	}
	if l.fresh.head != nil || l.routine.head != nil {
		// To wait for each single token would mean a wake-up for each. A tick's worth goes together.
		at = min(at, max(l.resume, m.bucket.ready(), now+int64(tick)))
	}
	return at
}

// takeReports takes all reports that were delivered.
func (m *Monitor) takeReports(now int64) {
	l := &m.loop
	if l.taken == len(l.reports) {
		m.inboxMu.Lock()
		l.reports, m.inbox = m.inbox, l.reports[:0]
		m.inboxMu.Unlock()
		l.taken = 0
	}
	for l.taken < len(l.reports) {
		r := &l.reports[l.taken]
		l.taken++
		m.takeReport(r, now)
	}
	if cap(l.reports) > keepReports && len(l.reports) < cap(l.reports)/8 {
		l.reports = nil // grown by a burst that is over
	}
	// The array is kept; what it refers to must not be.
	clear(l.reports)
	l.reports, l.taken = l.reports[:0], 0
}

// takeReport takes one report. The callbacks come last, so that a panic in them leaves nothing undone.
func (m *Monitor) takeReport(r *checker.Report, now int64) {
	t, ok := r.Tag.(*Target)
	if !ok || t == nil || t.monitor != m || t.stage != inFlight {
		return
	}
	t.stage = idle
	m.loop.flying--
	if r.Result == checker.Inconclusive && errors.Is(r.Err, checker.ErrClosed) {
		m.loop.takeBack(t, now)
		return
	}
	m.loop.finished++
	s := settings(t.settings)
	first := t.load()&checked == 0
	c := m.judge(t, r, &s, now)
	if c != nil {
		first = first || c.From == Unknown
	}
	if mark := t.load(); mark&rests == 0 {
		m.loop.schedule(t, spread(t.wait(mark, r.Result, &s, now), first, rand.Float64()), now)
	}
	if t.share.Load() != nil {
		c = m.consult(t, false, now)
	}
	if m.listener == nil {
		return
	}
	m.listener.Checked(t, *r)
	if c != nil {
		m.listener.Changed(*c)
	}
}

// wait returns how long after its probe the next one of a target is sent, before the spread. The result has led to the mark.
func (t *Target) wait(m mark, r checker.Result, s *Settings, now int64) time.Duration {
	switch {
	case m&damped != 0:
		// No result could bring it up before its time.
		return min(s.Interval, max(s.Fast, time.Duration(t.dampedUntil(s)-now)))
	case m&(inherited|unable) == inherited:
		return s.Fast
	default:
		return s.wait(m.own(), r)
	}
}

// judge takes a result into the own standing of a target and into all that follows from it. It returns nil if its state is
// the same as before.
func (m *Monitor) judge(t *Target, r *checker.Report, s *Settings, now int64) *Change {
	noPath := r.Result == checker.Inconclusive && checker.NoPath(r.Err)
	m.takeVote(t, r.Result, noPath)
	if t.isDoomed(r.Result, s) {
		m.freezeIfCutOff(t, now)
	}
	by := usual
	switch {
	case m.isExcused(t, r.Result, s):
		by = excused
	case noPath && m.isLost(t, s):
		by = lost
	}
	before := t.load()
	m.statusMu.Lock()
	c := t.judge(r, s, now, by)
	t.record(r, c != nil, now)
	if c != nil {
		t.noteWord(before, c.Run, now)
	} else {
		t.noteWord(before, 0, now)
	}
	m.statusMu.Unlock()
	m.recount(before, t.load())
	if c != nil && before&shared == 0 || r.Result == checker.Inconclusive {
		m.waiters.wakeUp(t)
	}
	return c
}

// recount keeps the numbers of targets when the mark of one has changed.
func (m *Monitor) recount(from, to mark) {
	if from.state() != to.state() {
		m.states[to.state()].Add(1)
		m.states[from.state()].Add(-1)
	}
	track(&m.damped, from.isDamped(), to.isDamped())
	track(&m.resting, from&rests != 0, to&rests != 0)
}

// track counts one that was, or was not, and is now, or is not.
func track(n *atomic.Int64, was, is bool) {
	switch {
	case is && !was:
		n.Add(1)
	case was && !is:
		n.Add(-1)
	}
}

// takeBack makes a target due again whose probe was cut short because its prober was closed.
func (l *loop) takeBack(t *Target, now int64) {
	if t.prober == l.generation {
		l.resume = now + int64(closedRetry)
	}
	l.enqueue(t)
}

func (l *loop) enqueue(t *Target) {
	t.stage = listed
	if t.load()&checked != 0 {
		l.routine.push(t)
	} else {
		l.fresh.push(t)
	}
}

// schedule makes the target due when wait has passed since its probe was sent, or at once where the
// probe took longer than that. It does where Fast is below Timeout and nothing comes back.
func (l *loop) schedule(t *Target, wait time.Duration, now int64) {
	t.due = max(t.due+int64(wait), now)
	l.await(t)
}

// await puts a target where it waits until it is due.
func (l *loop) await(t *Target) {
	t.stage = listed
	if tickOf(t.due) <= l.wheel.now {
		l.routine.push(t)
	} else {
		l.wheel.add(t)
	}
}

// send hands the targets in the queues to the prober, as far as the rate allows.
func (m *Monitor) send(now int64) {
	l := &m.loop
	m.proberMu.Lock()
	defer m.proberMu.Unlock()
	if l.generation != m.generation {
		l.generation, l.resume = m.generation, 0
	}
	l.sending = m.prober != nil
	if !l.sending || now < l.resume {
		return
	}
	for left := m.bucket.tokens(now); left > 0; {
		if busy, ok := m.prober.(interface{ Behind() bool }); ok && busy.Behind() {
			l.resume = now + int64(busyRetry)
			return
		}
		n := m.fill(min(left, batch), now)
		if n == 0 {
			return
		}
		left -= n
		m.bucket.spend(n)
		m.submit(now)
	}
}

// fill puts up to n checks into the batch and returns how many it has then.
func (m *Monitor) fill(n int, now int64) int {
	l := &m.loop
	for len(l.checks) < n {
		t := m.popDue(now)
		if t == nil {
			break
		}
		l.dues = append(l.dues, t.due)
		t.stage, t.due, t.prober = inFlight, now, l.generation
		l.checks = append(l.checks, t.check(settings(t.settings)))
	}
	return len(l.checks)
}

// popDue takes the next target that is due out of its queue, nil if none is. Targets that nobody wants
// any more leave the table here, and those that have come to rest are left out.
func (m *Monitor) popDue(now int64) *Target {
	l := &m.loop
	for t := l.fresh.pop(); t != nil; t = l.fresh.pop() {
		if t.load()&rests == 0 {
			return t
		}
		t.stage = idle
	}
	for {
		t := l.routine.pop()
		switch {
		case t == nil:
			return nil
		case !t.prolong(now) && m.forget(t):
			l.freezer.ballot.leave(t)
		case t.load()&rests == 0:
			return t
		}
		t.stage = idle
	}
}

// submit hands the batch over to the prober. If that refuses it or panics, the targets are due again.
func (m *Monitor) submit(now int64) {
	l := &m.loop
	accepted := false
	defer func() {
		if !accepted {
			l.resume = now + int64(closedRetry)
			for i := range l.checks {
				t := l.checks[i].Tag.(*Target)
				t.due = l.dues[i]
				l.enqueue(t)
			}
		}
		clear(l.checks)
		l.checks, l.dues = l.checks[:0], l.dues[:0]
	}()
	accepted = m.prober.Submit(l.checks...) == nil
	if accepted {
		l.flying += int64(len(l.checks))
	}
	if !accepted || m.late == nil {
		return
	}
	for _, due := range l.dues {
		m.late(time.Duration(max(0, now-due)))
	}
}
