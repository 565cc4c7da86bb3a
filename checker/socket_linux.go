package checker

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startBatch bounds how many SYNs leave between two looks at the answers. Linux sends the ACK
	// that we withhold by itself after 200 ms (TCP_DELACK_MAX), so a look is never far away; on
	// loopback a connect takes about 10 µs.
	startBatch = 64
	// eventBatch is how many answers one epoll_pwait(2) fetches.
	eventBatch = 256
	// trimEvery is how often sockets that the recent peak needed, but no longer, are closed.
	trimEvery = 10 * time.Second
	// wakeEvent marks the eventfd in epoll data; sockets have their index there.
	wakeEvent = -1
)

// socketProber implements MethodSocket: one thread, one epoll instance, and a pool of sockets that
// are used again and again.
//
// A socket's life: connect(2) sends the SYN; TCP_DEFER_ACCEPT keeps the kernel from acknowledging the
// SYN-ACK (tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c); connect(AF_UNSPEC) sends the RST
// and leaves the socket in its epoll set, ready for the next check on a new source port.
//
// An event cannot be taken for that of another check on the same socket: epoll asks the socket for its
// present state when it hands out the event, and the loop handles all events it was given before it
// abandons or starts a check.
type socketProber struct {
	deliver func([]Report)
	epoll   int
	wake    int // eventfd

	mu       sync.Mutex // protects what follows, and writes to wake
	incoming []job
	sleeping bool // the loop is in epoll_pwait and has to be woken
	ended    bool // nothing more is accepted
	failure  error

	finished chan struct{}

	// What follows belongs to the loop.
	pool      int // the queue's limit, while the process has descriptors to spare
	queue     queue
	flights   flights
	sockets   []*socket
	vacant    []int32 // indexes of sockets that are nil
	idle      map[origin][]*socket
	idling    int // sockets in idle
	leastIdle int // the fewest of them since the last trim
	trimAt    time.Time
	reports   []Report
	spare     []Report // the other buffer for reports
	events    [eventBatch]unix.EpollEvent
}

func newSocketProber(pool int, deliver func([]Report)) (backend, error) {
	p := &socketProber{
		deliver:  deliver,
		finished: make(chan struct{}),
		queue:    queue{limit: pool},
		pool:     pool,
		idle:     make(map[origin][]*socket),
	}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(p.epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &event); err != nil {
		unix.Close(p.epoll)
		unix.Close(p.wake)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	go p.run()
	return p, nil
}

func (p *socketProber) submit(jobs []job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return ErrClosed
	}
	p.incoming = append(p.incoming, jobs...)
	p.rouse()
	return nil
}

// rouse wakes the loop. The caller holds mu.
func (p *socketProber) rouse() {
	if !p.sleeping {
		return
	}
	p.sleeping = false
	// The counter of eventfd(2) cannot overflow: it is written at most once per sleep.
	unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (p *socketProber) close() {
	p.mu.Lock()
	p.ended = true
	p.rouse()
	p.mu.Unlock()
	<-p.finished
}

func (p *socketProber) done() <-chan struct{} { return p.finished }

func (p *socketProber) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// run owns its thread, and never returns it: no other goroutine can delay an answer's RST there.
func (p *socketProber) run() {
	runtime.LockOSThread()
	defer close(p.finished)
	err := p.loop()
	p.mu.Lock()
	p.ended = true
	p.sleeping = false
	p.failure = err
	rest := p.incoming
	p.incoming = nil
	unix.Close(p.wake)
	p.mu.Unlock()
	p.shutDown(rest, err)
}

// loop returns nil when the prober is closed, otherwise what went wrong.
func (p *socketProber) loop() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	for p.receive() {
		p.start()
		p.flush()
		n, err := unix.EpollWait(p.epoll, p.events[:], p.sleep())
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		now := time.Now()
		for i := range max(n, 0) {
			p.handle(&p.events[i], now)
		}
		// While answers wait to be fetched, that of a check past its deadline may be among them.
		if n < len(p.events) {
			p.expire(now)
		}
		p.trim(now)
	}
	return nil
}

// receive takes over what was submitted. It reports false when the prober is to end.
func (p *socketProber) receive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sleeping = false
	if p.ended {
		return false
	}
	if len(p.incoming) > 0 {
		now := time.Now()
		for _, j := range p.incoming {
			p.queue.push(j, now)
		}
		clear(p.incoming)
		p.incoming = p.incoming[:0]
	}
	return true
}

// sleep returns how long epoll_pwait may sleep, in milliseconds; -1 is until something happens.
func (p *socketProber) sleep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.incoming) > 0 || p.ended || p.queue.startable() {
		return 0
	}
	p.sleeping = true
	next, ok := p.queue.expiry()
	earlier := func(t time.Time) {
		if !ok || t.Before(next) {
			next, ok = t, true
		}
	}
	if len(p.flights) > 0 {
		earlier(p.flights[0].deadline)
	}
	if p.idling > 0 || p.queue.limit < p.pool {
		earlier(p.trimAt)
	}
	if !ok {
		return -1
	}
	// Rounded up: a sleep that ends too early would spin until the deadline.
	return int(max(0, time.Until(next)+time.Millisecond-1) / time.Millisecond)
}

// handle looks at what epoll says of one socket.
func (p *socketProber) handle(event *unix.EpollEvent, now time.Time) {
	if event.Fd == wakeEvent {
		var counter [8]byte
		unix.Read(p.wake, counter[:])
		return
	}
	s := p.sockets[event.Fd]
	if s == nil || !s.busy || event.Events == 0 {
		return // the echo of our own connect(AF_UNSPEC)
	}
	if event.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		result, err := s.failure()
		p.finish(s, result, err, now)
		return
	}
	if s.connectedToItself() {
		p.finish(s, Refused, unix.ECONNREFUSED, now)
		return
	}
	p.finish(s, Answered, nil, now)
}

func (p *socketProber) expire(now time.Time) {
	for len(p.flights) > 0 && !p.flights[0].deadline.After(now) {
		p.finish(p.flights[0], Timeout, ErrTimeout, now)
	}
}

// finish reports on the check that s carries and makes s ready for the next one.
func (p *socketProber) finish(s *socket, r Result, err error, now time.Time) {
	report := s.job.report(r, err)
	if r == Answered || r == Refused {
		report.RTT = now.Sub(s.sent)
	}
	p.reports = append(p.reports, report)
	p.flights.remove(s)
	p.queue.release(&s.job)
	s.job = job{}
	s.busy = false
	if s.reset() != nil {
		p.drop(s)
		return
	}
	p.idle[s.origin] = append(p.idle[s.origin], s)
	p.idling++
}

// start sends the SYNs of those in line, as far as there is place.
func (p *socketProber) start() {
	for range startBatch {
		now := time.Now()
		j, expired, ok := p.queue.pop(now)
		if !ok {
			return
		}
		if expired {
			p.reports = append(p.reports, j.report(Inconclusive, ErrBusy))
			continue
		}
		if err := p.launch(j, now); err != nil {
			p.queue.release(&j)
			r := Inconclusive
			if errors.Is(err, unix.ECONNREFUSED) {
				r = Refused
			}
			p.reports = append(p.reports, j.report(r, err))
		}
	}
}

// launch sends one SYN. Whatever fails here failed on this machine.
func (p *socketProber) launch(j job, now time.Time) error {
	if j.invalid {
		return ErrTarget
	}
	s, err := p.acquire(origin{v6: j.Target.Addr().Is6(), source: j.Source})
	if err != nil {
		return err
	}
	if err := s.connect(&j); err != nil && err != unix.EINPROGRESS {
		p.drop(s)
		return os.NewSyscallError("connect", err)
	}
	s.busy = true
	s.job = j
	s.sent = now
	s.deadline = now.Add(j.Timeout)
	p.flights.add(s)
	return nil
}

// acquire returns an idle socket, or a new one.
func (p *socketProber) acquire(o origin) (*socket, error) {
	if s := p.takeIdle(o); s != nil {
		return s, nil
	}
	if p.open() >= p.queue.limit {
		for other := range p.idle {
			if s := p.takeIdle(other); s != nil {
				p.drop(s)
				break
			}
		}
	}
	s, err := openSocket(o)
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			// From now on jobs wait for one of the sockets that there are; trim tries again for more.
			p.queue.limit = max(1, p.open())
		}
		return nil, err
	}
	if len(p.vacant) > 0 {
		s.index = p.vacant[len(p.vacant)-1]
		p.vacant = p.vacant[:len(p.vacant)-1]
		p.sockets[s.index] = s
	} else {
		s.index = int32(len(p.sockets))
		p.sockets = append(p.sockets, s)
	}
	// Edge triggered: an idle socket reports EPOLLHUP for as long as one listens to it.
	event := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET, Fd: s.index}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		p.drop(s)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return s, nil
}

func (p *socketProber) takeIdle(o origin) *socket {
	stack := p.idle[o]
	if len(stack) == 0 {
		return nil
	}
	s := stack[len(stack)-1]
	stack[len(stack)-1] = nil
	p.idle[o] = stack[:len(stack)-1]
	p.idling--
	p.leastIdle = min(p.leastIdle, p.idling)
	return s
}

// open returns how many sockets there are.
func (p *socketProber) open() int { return len(p.sockets) - len(p.vacant) }

// trim closes the sockets that were not needed since the last trim.
func (p *socketProber) trim(now time.Time) {
	if now.Before(p.trimAt) {
		return
	}
	surplus := p.leastIdle
	for o := range p.idle {
		for ; surplus > 0; surplus-- {
			s := p.takeIdle(o)
			if s == nil {
				break
			}
			p.drop(s)
		}
		if len(p.idle[o]) == 0 {
			delete(p.idle, o)
		}
	}
	p.queue.limit = p.pool
	p.leastIdle = p.idling
	p.trimAt = now.Add(trimEvery)
}

// drop closes a socket that is in no list. Closing takes it out of the epoll set, see epoll(7).
func (p *socketProber) drop(s *socket) {
	unix.Close(s.fd)
	p.sockets[s.index] = nil
	p.vacant = append(p.vacant, s.index)
}

func (p *socketProber) flush() {
	if len(p.reports) == 0 {
		return
	}
	finished := p.reports
	p.reports = p.spare[:0] // before deliver, which may panic: nothing is reported twice
	p.deliver(finished)
	clear(finished)
	p.spare = finished
}

// shutDown closes everything and reports on what is left.
func (p *socketProber) shutDown(rest []job, failure error) {
	if failure == nil {
		failure = ErrClosed
	}
	give := func(j job) { p.reports = append(p.reports, j.report(Inconclusive, failure)) }
	for _, s := range p.sockets {
		if s == nil {
			continue
		}
		if s.busy {
			give(s.job)
		}
		unix.Close(s.fd) // sends a RST where a handshake is half open: the sockets do not linger
	}
	p.queue.drain(give)
	for _, j := range rest {
		give(j)
	}
	unix.Close(p.epoll)
	defer func() {
		if v := recover(); v != nil {
			p.mu.Lock()
			p.failure = panicError(v)
			p.mu.Unlock()
		}
	}()
	p.flush()
}
