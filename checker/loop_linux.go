package checker

import (
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
	// maxBehind is how many checks may wait for the loop to come round to them. That takes it less than 0.1 s.
	maxBehind = 4096
	// wakeEvent is the eventfd's number in epoll data. Carriers use numbers from 0 on.
	wakeEvent = -1
)

// carrier is what each method does in its own way. All of it runs in the loop's goroutine.
type carrier interface {
	// launch sends a SYN of f, or makes it ready for flush, and links its try to f. That takes the place of old, a
	// further try of f, where it is not nil: old is given up, whatever comes of it. An error is this machine's,
	// unless it is ECONNREFUSED; then there is no try. now may be a batch of SYNs ago.
	launch(f *flight, old *try, now time.Time) error
	// flush sends what launch and repeat have made ready.
	flush()
	// handle takes in what epoll says of a descriptor. It reports false if it has left some of it for later.
	handle(event *unix.EpollEvent, now time.Time) (all bool)
	// repeat sends those SYNs of f again whose time has come.
	repeat(f *flight, now time.Time)
	// cutOff ends a try, whatever it is waiting for. It says so to the target if that has answered.
	cutOff(t *try)
	// mayHaveLost tells whether this machine may have thrown an answer to f away.
	mayHaveLost(f *flight, now time.Time) bool
	// tidy does the housekeeping, once a turn. It returns the latest time for the next turn, zero for any.
	tidy(now time.Time) (next time.Time)
	// abandon closes what is open. It calls each with every flight that was launched and has not departed.
	abandon(each func(*flight))
}

// loop is what MethodSocket and MethodRaw have in common. It has a thread of its own, which sleeps in
// epoll_pwait(2). It takes checks in, has its carrier send their SYNs, keeps their time, and reports on them.
type loop struct {
	deliver func([]Report)
	pace    func() time.Duration // Config.Pace
	carrier carrier
	epoll   int
	wake    int // eventfd

	mu         sync.Mutex // protects what follows, and writes to wake
	incoming   []job
	gone       []*waiter
	dismissals []dismissal
	startable  int  // checks that waited for their turn, and not for a place, when the loop looked last
	sleeping   bool // the loop is in epoll_pwait and has to be woken
	ended      bool // nothing more is accepted
	failure    error

	finished chan struct{}

	// What follows belongs to the loop.
	presence   presence
	queue      queue
	flights    flights
	spares     []*flight   // for the next checks
	refused    []*flight   // of which a try is, while others are out
	dismissing []dismissal // whose checks have ended, but were not reported yet
	tidyAt     time.Time
	reports    []Report
	delivered  []Report // the other buffer for reports
	events     [eventBatch]unix.EpollEvent
}

// open opens the loop's descriptors. start or closeDescriptors has to follow.
func (l *loop) open(o *Config, pool int, deliver func([]Report)) error {
	l.deliver, l.pace = deliver, o.Pace
	l.finished = make(chan struct{})
	l.queue.limit = pool
	l.presence = newPresence(o.clocks())
	l.flights.epoch = l.presence.seen
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

func (l *loop) isBehind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended && len(l.incoming)+l.startable > maxBehind
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
		looked := l.presence.now()
		sleep := l.goToSleep(looked)
		// x/sys calls epoll_pwait(2) here. Android kills processes that call epoll_wait(2).
		n, err := unix.EpollWait(l.epoll, l.events[:], milliseconds(sleep))
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		now := l.presence.wake(sleep)
		all := err == nil && n < len(l.events)
		for i := range max(n, 0) {
			all = l.handle(&l.events[i], now) && all
		}
		// While answers wait to be fetched, that of a check past its deadline may be among them. An answer may also
		// have come after epoll_pwait had looked, while this process was stopped or starved. Hence only what was
		// due before the look is over.
		if all {
			l.settleRefusals()
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
		now := l.presence.now()
		for i := range l.incoming {
			l.queue.push(l.incoming[i], now)
		}
		clear(l.incoming)
		l.incoming = l.incoming[:0]
	}
	l.startable = l.queue.backlog()
	if len(l.gone) > 0 {
		l.endGone()
	}
	l.dismissing = append(l.dismissing, l.dismissals...)
	l.dismissals = nil
	for _, d := range l.dismissing {
		l.endSession(d.session)
	}
	return true
}

// endSession ends all checks of a session, in flight and in line.
func (l *loop) endSession(s *session) {
	l.carrier.flush() // so that it is known what has left
	var own []*flight
	for f := range l.flights.all() {
		if f.job.waiter.of(s) {
			own = append(own, f)
		}
	}
	for _, f := range own {
		if f.job.waiter.of(s) { // unless its SYN could not leave after all
			l.finish(f, Inconclusive, ErrClosed, 0)
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
func (l *loop) endGone() {
	for _, w := range l.gone {
		l.carrier.flush() // so that it is known what has left
		if w.flight != nil {
			l.finish(w.flight, Inconclusive, w.ctx.Err(), 0)
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
	l.queue.expire(l.presence.now(), func(j job) { l.report(&j, Inconclusive, ErrBusy) })
}

// goToSleep notes that from now on the loop has to be woken. It returns for how long epoll_pwait may sleep. If there is
// work to do it returns 0 and notes nothing.
func (l *loop) goToSleep(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.startable = l.queue.backlog()
	if len(l.incoming) > 0 || len(l.gone) > 0 || len(l.dismissals) > 0 || l.ended || len(l.refused) > 0 || l.startable > 0 {
		return 0
	}
	l.sleeping = true
	sleep := forever
	if due, ok := l.flights.next(); ok {
		sleep = min(lookEvery, due.Sub(now))
	}
	if next, ok := l.queue.expiry(); ok {
		sleep = min(sleep, next.Sub(now))
	}
	if !l.tidyAt.IsZero() {
		sleep = min(sleep, l.tidyAt.Sub(now))
	}
	return max(0, sleep)
}

// milliseconds converts a sleep for epoll_pwait(2), where -1 is until something happens. It is rounded up: a sleep that
// ends too early would spin until the deadline.
func milliseconds(sleep time.Duration) int {
	if sleep == forever {
		return -1
	}
	return int((sleep + time.Millisecond - 1) / time.Millisecond)
}

func (l *loop) handle(event *unix.EpollEvent, now time.Time) (all bool) {
	if event.Fd == wakeEvent {
		var counter [8]byte
		unix.Read(l.wake, counter[:])
		return true
	}
	return l.carrier.handle(event, now)
}

// startChecks has the SYNs of checks in line sent, as far as there are places.
func (l *loop) startChecks() {
	if l.queue.empty() {
		return
	}
	now := l.presence.now()
	for range startBatch {
		j, expired, ok := l.queue.pop(now)
		switch {
		case !ok:
			return
		case expired:
			l.report(&j, Inconclusive, ErrBusy)
		case j.invalid:
			l.queue.release(&j)
			l.report(&j, Inconclusive, ErrTarget)
		default:
			l.begin(&j, now)
		}
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
	l.reports = l.delivered[:0] // before deliver, which may panic: nothing is reported twice
	l.deliver(finished)
	clear(finished)
	l.delivered = finished
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
	cutShort := func(f *flight) {
		give(&f.job)
		l.reports[len(l.reports)-1].Tries = f.sent
	}
	l.carrier.abandon(cutShort)
	for f := range l.flights.all() {
		cutShort(f)
	}
	l.queue.drain(func(j job) { give(&j) })
	for i := range rest {
		give(&rest[i])
	}
	l.deliverReports()
}
