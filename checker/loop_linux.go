package checker

import (
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startBatch bounds how many SYNs leave between two looks at the answers. Linux sends the ACK that
	// MethodSocket withholds by itself after 200 ms (TCP_DELACK_MAX), so a look is never far away; on
	// loopback, where the answer is made within the call that sends, a SYN takes about 10 µs.
	startBatch = 64
	// eventBatch is how many events one epoll_pwait(2) fetches.
	eventBatch = 256
	// wakeEvent marks the eventfd in epoll data; carriers use numbers from 0 on.
	wakeEvent = -1
)

// carrier is what a method does its own way. All of it runs in the loop's goroutine.
type carrier interface {
	// launch sends a check's SYN, or makes it ready for flush. Unless the error is ECONNREFUSED, what
	// fails here failed on this machine.
	launch(j job, now time.Time) error
	// flush sends what launch and lapse have made ready.
	flush()
	// handle looks at what epoll says of a descriptor. It reports false if it has left some for later.
	handle(event *unix.EpollEvent, now time.Time) (all bool)
	// lapse looks after a flight that is due.
	lapse(f *flight, now time.Time)
	// finish ends a flight, whatever it is waiting for.
	finish(f *flight, r Result, err error, now time.Time)
	// tidy is called once a turn. It returns when the next turn has to be at the latest, zero for any time.
	tidy(now time.Time) (next time.Time)
	// abandon closes what is open, and passes on the checks that it has neither let depart nor refused.
	abandon(each func(*job))
}

// loop is what MethodSocket and MethodRaw have in common: a thread of its own, which sleeps in
// epoll_pwait(2), takes checks in, has a carrier send their SYNs, keeps their time, and reports on them.
type loop struct {
	deliver func([]Report)
	carrier carrier
	epoll   int
	wake    int // eventfd

	mu       sync.Mutex // protects what follows, and writes to wake
	incoming []job
	gone     []*waiter
	leaving  []departure
	sleeping bool // the loop is in epoll_pwait and has to be woken
	ended    bool // nothing more is accepted
	failure  error

	finished chan struct{}

	// What follows belongs to the loop.
	queue   queue
	flights flights
	left    []departure // whose checks have ended, but were not reported yet
	tidyAt  time.Time
	reports []Report
	spare   []Report // the other buffer for reports
	events  [eventBatch]unix.EpollEvent
}

// open makes the loop's descriptors; start or abort has to follow.
func (l *loop) open(pool int, deliver func([]Report)) error {
	l.deliver = deliver
	l.finished = make(chan struct{})
	l.queue.limit = pool
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.epoll)
		return os.NewSyscallError("eventfd", err)
	}
	if err := l.watch(l.wake, unix.EPOLLIN, wakeEvent); err != nil {
		l.abort()
		return err
	}
	return nil
}

func (l *loop) abort() {
	unix.Close(l.epoll)
	unix.Close(l.wake)
}

// watch has handle called for events on fd, with id in their data.
func (l *loop) watch(fd int, events uint32, id int32) error {
	event := unix.EpollEvent{Events: events, Fd: id}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

func (l *loop) start(c carrier) {
	l.carrier = c
	go l.run()
}

func (l *loop) submit(jobs []job) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(jobs) > 0 && jobs[0].waiter.isOver() {
		return ErrClosed
	}
	l.incoming = append(l.incoming, jobs...)
	l.rouse()
	return nil
}

func (l *loop) cancel(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.gone = append(l.gone, w)
		l.rouse()
	}
}

// departure is the end of a session.
type departure struct {
	session  *session
	reported chan struct{} // closed when all of its checks are
}

func (l *loop) dismiss(s *session) {
	d := departure{s, make(chan struct{})}
	l.mu.Lock()
	s.over = true
	l.leaving = append(l.leaving, d)
	l.rouse()
	l.mu.Unlock()
	select {
	case <-d.reported:
	case <-l.finished:
	}
}

func (l *loop) poller() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return -1
	}
	return l.epoll
}

// rouse wakes the loop. The caller holds mu.
func (l *loop) rouse() {
	if !l.sleeping {
		return
	}
	l.sleeping = false
	// The counter of eventfd(2) cannot overflow: it is written at most once per sleep.
	unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (l *loop) close() {
	l.mu.Lock()
	l.ended = true
	l.rouse()
	l.mu.Unlock()
	<-l.finished
}

func (l *loop) done() <-chan struct{} { return l.finished }

func (l *loop) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// run owns its thread, and never returns it: no other goroutine can delay an answer's RST there.
func (l *loop) run() {
	runtime.LockOSThread()
	pprof.SetGoroutineLabels(profiled)
	defer close(l.finished)
	err := l.turns()
	l.mu.Lock()
	l.ended = true
	l.sleeping = false
	l.failure = err
	rest := l.incoming
	l.incoming = nil
	l.abort()
	l.mu.Unlock()
	l.shutDown(rest, err)
}

// turns returns nil when the prober is closed, otherwise what went wrong.
func (l *loop) turns() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	for l.receive() {
		l.expire()
		l.launch()
		l.carrier.flush()
		l.hand()
		l.bid()
		looked := time.Now()
		// x/sys calls epoll_pwait(2) here: Android kills who calls epoll_wait(2).
		n, err := unix.EpollWait(l.epoll, l.events[:], l.sleep())
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		now := time.Now()
		all := err == nil && n < len(l.events)
		for i := range max(n, 0) {
			all = l.handle(&l.events[i], now) && all
		}
		// While answers wait to be fetched, that of a check past its deadline may be among them. So may be
		// one that came when epoll_pwait had looked already and this process did not run, because it was
		// stopped or because others did: only what was due before is past saving.
		if all {
			l.lapse(looked)
		}
		l.tidyAt = l.carrier.tidy(now)
	}
	return nil
}

// receive takes over what was submitted. It reports false when the prober is to end.
func (l *loop) receive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sleeping = false
	if l.ended {
		return false
	}
	if len(l.incoming) > 0 {
		now := time.Now()
		for i := range l.incoming {
			l.queue.push(l.incoming[i], now)
		}
		clear(l.incoming)
		l.incoming = l.incoming[:0]
	}
	if len(l.gone) > 0 {
		l.drop(time.Now())
	}
	l.left = append(l.left, l.leaving...)
	l.leaving = nil
	for _, d := range l.left {
		l.end(d.session, time.Now())
	}
	return true
}

// end ends the checks of a session, in flight and in line.
func (l *loop) end(s *session, now time.Time) {
	l.carrier.flush() // so that it is known what has left
	var own []*flight
	for _, f := range l.flights {
		if f.job.waiter.of(s) {
			own = append(own, f)
		}
	}
	for _, f := range own {
		if f.job.waiter.of(s) { // unless its SYN could not leave after all
			l.carrier.finish(f, Inconclusive, ErrClosed, now)
			l.carrier.flush() // what may be next now
		}
	}
	l.queue.remove(func(j *job) bool { return j.waiter.of(s) }, func(j job) { l.report(&j, Inconclusive, ErrClosed) })
}

// bid lets sessions go whose checks have been reported.
func (l *loop) bid() {
	for _, d := range l.left {
		close(d.reported)
	}
	clear(l.left)
	l.left = l.left[:0]
}

// drop ends the flights of those who are gone. What they have in line goes when its turn comes.
func (l *loop) drop(now time.Time) {
	for _, w := range l.gone {
		l.carrier.flush() // so that it is known what has left
		if w.flight != nil {
			l.carrier.finish(w.flight, Inconclusive, w.ctx.Err(), now)
		}
	}
	clear(l.gone)
	l.gone = l.gone[:0]
}

// expire reports on those who have been in line for too long.
func (l *loop) expire() {
	if l.queue.empty() {
		return
	}
	l.queue.expire(time.Now(), func(j job) { l.report(&j, Inconclusive, ErrBusy) })
}

// sleep returns how long epoll_pwait may sleep, in milliseconds; -1 is until something happens.
func (l *loop) sleep() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.incoming) > 0 || len(l.gone) > 0 || len(l.leaving) > 0 || l.ended || l.queue.startable() {
		return 0
	}
	l.sleeping = true
	next, ok := l.queue.expiry()
	earlier := func(t time.Time) {
		if !ok || t.Before(next) {
			next, ok = t, true
		}
	}
	if len(l.flights) > 0 {
		earlier(l.flights[0].due)
	}
	if !l.tidyAt.IsZero() {
		earlier(l.tidyAt)
	}
	if !ok {
		return -1
	}
	// Rounded up: a sleep that ends too early would spin until the deadline.
	return int(max(0, time.Until(next)+time.Millisecond-1) / time.Millisecond)
}

func (l *loop) handle(event *unix.EpollEvent, now time.Time) (all bool) {
	if event.Fd == wakeEvent {
		var counter [8]byte
		unix.Read(l.wake, counter[:])
		return true
	}
	return l.carrier.handle(event, now)
}

func (l *loop) lapse(now time.Time) {
	for range startBatch { // some SYNs are sent again; the rest has its turn after another look
		if len(l.flights) == 0 || l.flights[0].due.After(now) {
			return
		}
		l.carrier.lapse(l.flights[0], now)
	}
}

// launch sends the SYNs of those in line, as far as there is place.
func (l *loop) launch() {
	for range startBatch {
		now := time.Now()
		j, expired, ok := l.queue.pop(now)
		if !ok {
			return
		}
		if expired {
			l.report(&j, Inconclusive, ErrBusy)
			continue
		}
		err := ErrTarget
		if !j.invalid {
			err = l.carrier.launch(j, now)
		}
		if err != nil {
			l.giveUp(&j, err)
		}
	}
}

// giveUp ends a check that never got as far as a flight.
func (l *loop) giveUp(j *job, err error) {
	l.queue.release(j)
	r := Inconclusive
	if errors.Is(err, unix.ECONNREFUSED) {
		r = Refused
	}
	l.report(j, r, err)
}

// depart notes that a SYN has left. The carrier is asked to look after it when it is due.
func (l *loop) depart(f *flight, sent, due time.Time) {
	f.sent, f.due = sent, due
	l.flights.add(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = f
	}
}

// arrive ends a flight and reports on it.
func (l *loop) arrive(f *flight, r Result, err error, now time.Time) {
	l.report(&f.job, r, err)
	if r == Answered || r == Refused {
		l.reports[len(l.reports)-1].RTT = f.rtt(now)
	}
	l.land(f)
	l.queue.release(&f.job)
	f.job = job{}
}

// land takes back what depart has noted.
func (l *loop) land(f *flight) {
	l.flights.remove(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = nil
	}
}

func (l *loop) report(j *job, r Result, err error) {
	l.reports = append(l.reports, Report{Tag: j.Tag, Result: r, Err: err})
}

// hand passes the reports on.
func (l *loop) hand() {
	if len(l.reports) == 0 {
		return
	}
	finished := l.reports
	l.reports = l.spare[:0] // before deliver, which may panic: nothing is reported twice
	l.deliver(finished)
	clear(finished)
	l.spare = finished
}

// shutDown closes everything and reports on what is left.
func (l *loop) shutDown(rest []job, failure error) {
	defer func() {
		if v := recover(); v != nil {
			l.mu.Lock()
			l.failure = panicError(v)
			l.mu.Unlock()
		}
	}()
	if failure == nil {
		failure = ErrClosed
	}
	give := func(j *job) { l.report(j, Inconclusive, failure) }
	l.carrier.abandon(give)
	for _, f := range l.flights {
		give(&f.job)
	}
	l.queue.drain(func(j job) { give(&j) })
	for i := range rest {
		give(&rest[i])
	}
	l.hand()
}
