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
	// startBatch bounds how many SYNs leave between two looks at the answers. A look must never be far away: after
	// 200 ms (TCP_DELACK_MAX), Linux sends the ACK that MethodSocket withholds. A SYN takes about 10 µs on
	// loopback, where the call that sends it makes the answer too.
	startBatch = 64
	// eventBatch is how many events one epoll_pwait(2) fetches.
	eventBatch = 256
	// wakeEvent is the eventfd's number in epoll data. Carriers use numbers from 0 on.
	wakeEvent = -1
)

// carrier is what each method does in its own way. All of it runs in the loop's goroutine.
type carrier interface {
	// launch sends a check's SYN, or makes it ready for flush. An error is this machine's, unless it is
	// ECONNREFUSED.
	launch(j job, now time.Time) error
	// flush sends what launch and lapse have made ready.
	flush()
	// handle takes in what epoll says of a descriptor. It reports false if it has left some of it for later.
	handle(event *unix.EpollEvent, now time.Time) (all bool)
	// lapse looks after a flight that is due.
	lapse(f *flight, now time.Time)
	// finish ends a flight, whatever it is waiting for.
	finish(f *flight, r Result, err error, now time.Time)
	// tidy does the housekeeping, once a turn. It returns the latest time for the next turn, zero for any.
	tidy(now time.Time) (next time.Time)
	// abandon closes what is open. It calls each with every check that launch took and that never became a
	// flight.
	abandon(each func(*job))
}

// loop is what MethodSocket and MethodRaw have in common. It has a thread of its own, which sleeps in
// epoll_pwait(2). It takes checks in, has its carrier send their SYNs, keeps their time, and reports on them.
type loop struct {
	deliver func([]Report)
	carrier carrier
	epoll   int
	wake    int // eventfd

	mu         sync.Mutex // protects what follows, and writes to wake
	incoming   []job
	gone       []*waiter
	dismissals []dismissal
	sleeping   bool // the loop is in epoll_pwait and has to be woken
	ended      bool // nothing more is accepted
	failure    error

	finished chan struct{}

	// What follows belongs to the loop.
	queue      queue
	flights    flights
	dismissing []dismissal // whose checks have ended, but were not reported yet
	tidyAt     time.Time
	reports    []Report
	spare      []Report // the other buffer for reports
	events     [eventBatch]unix.EpollEvent
}

// open opens the loop's descriptors. start or closeDescriptors has to follow.
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
		l.closeDescriptors()
		return err
	}
	return nil
}

func (l *loop) closeDescriptors() {
	unix.Close(l.epoll)
	unix.Close(l.wake)
}

// watch adds fd to the epoll set: handle gets its events, with id in their data.
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

// dismissal is a session that ends.
type dismissal struct {
	session  *session
	reported chan struct{} // closed when all of its checks are
}

func (l *loop) dismiss(s *session) {
	d := dismissal{s, make(chan struct{})}
	l.mu.Lock()
	s.over = true
	l.dismissals = append(l.dismissals, d)
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

// run keeps its thread to itself, so that no other goroutine there can delay the RST that follows an answer.
func (l *loop) run() {
	runtime.LockOSThread()
	pprof.SetGoroutineLabels(profileLabels)
	defer close(l.finished)
	err := l.turns()
	l.mu.Lock()
	l.ended = true
	l.sleeping = false
	l.failure = err
	rest := l.incoming
	l.incoming = nil
	l.closeDescriptors()
	l.mu.Unlock()
	l.shutDown(rest, err)
}

// turns is all of the loop's work. It returns nil when the prober is closed, and otherwise what went wrong.
func (l *loop) turns() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	for l.takeIn() {
		l.expire()
		l.startChecks()
		l.carrier.flush()
		l.deliverReports()
		l.confirmDismissals()
		looked := time.Now()
		// x/sys calls epoll_pwait(2) here. Android kills processes that call epoll_wait(2).
		n, err := unix.EpollWait(l.epoll, l.events[:], l.goToSleep())
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		now := time.Now()
		all := err == nil && n < len(l.events)
		for i := range max(n, 0) {
			all = l.handle(&l.events[i], now) && all
		}
		// While answers wait to be fetched, that of a check past its deadline may be among them. An answer may also
		// have come after epoll_pwait had looked, while this process was stopped or starved. Hence only what was
		// due before the look is over.
		if all {
			l.lapse(looked)
		}
		l.tidyAt = l.carrier.tidy(now)
	}
	return nil
}

// takeIn takes over what others have asked for. It reports false if that is the end of the prober.
func (l *loop) takeIn() bool {
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
		l.endGone(time.Now())
	}
	l.dismissing = append(l.dismissing, l.dismissals...)
	l.dismissals = nil
	for _, d := range l.dismissing {
		l.endSession(d.session, time.Now())
	}
	return true
}

// endSession ends all checks of a session, in flight and in line.
func (l *loop) endSession(s *session, now time.Time) {
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

// confirmDismissals tells the sessions that end that all of their checks are reported.
func (l *loop) confirmDismissals() {
	for _, d := range l.dismissing {
		close(d.reported)
	}
	clear(l.dismissing)
	l.dismissing = l.dismissing[:0]
}

// endGone ends the flights of waiters who are gone. Their checks in line end when their turn comes.
func (l *loop) endGone(now time.Time) {
	for _, w := range l.gone {
		l.carrier.flush() // so that it is known what has left
		if w.flight != nil {
			l.carrier.finish(w.flight, Inconclusive, w.ctx.Err(), now)
		}
	}
	clear(l.gone)
	l.gone = l.gone[:0]
}

// expire ends the checks that have been in line for too long.
func (l *loop) expire() {
	if l.queue.empty() {
		return
	}
	l.queue.expire(time.Now(), func(j job) { l.report(&j, Inconclusive, ErrBusy) })
}

// goToSleep notes that from now on the loop has to be woken. It returns for how long epoll_pwait may sleep, in
// milliseconds; -1 is until something happens. If there is work to do it returns 0 and notes nothing.
func (l *loop) goToSleep() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.incoming) > 0 || len(l.gone) > 0 || len(l.dismissals) > 0 || l.ended || l.queue.startable() {
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

// startChecks has the SYNs of checks in line sent, as far as there are places.
func (l *loop) startChecks() {
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

// giveUp ends a check whose SYN could not leave.
func (l *loop) giveUp(j *job, err error) {
	l.queue.release(j)
	r := Inconclusive
	if errors.Is(err, unix.ECONNREFUSED) {
		r = Refused
	}
	l.report(j, r, err)
}

// depart notes that a SYN has left. The carrier has to look after the flight when it is due.
func (l *loop) depart(f *flight, sent, due time.Time) {
	f.sent, f.due = sent, due
	l.flights.add(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = f
	}
}

// arrive reports on a flight, which ends.
func (l *loop) arrive(f *flight, r Result, err error, now time.Time) {
	l.report(&f.job, r, err)
	if r == Answered || r == Refused {
		l.reports[len(l.reports)-1].RTT = f.rtt(now)
	}
	l.land(f)
	l.queue.release(&f.job)
	f.job = job{}
}

// land undoes depart.
func (l *loop) land(f *flight) {
	l.flights.remove(f)
	if f.job.waiter != nil {
		f.job.waiter.flight = nil
	}
}

func (l *loop) report(j *job, r Result, err error) {
	l.reports = append(l.reports, Report{Tag: j.Tag, Result: r, Err: err})
}

// deliverReports passes the reports on.
func (l *loop) deliverReports() {
	if len(l.reports) == 0 {
		return
	}
	finished := l.reports
	l.reports = l.spare[:0] // before deliver, which may panic: nothing is reported twice
	l.deliver(finished)
	clear(finished)
	l.spare = finished
}

// shutDown closes everything and reports all checks that are left.
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
	l.deliverReports()
}
