package checker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialProber implements MethodDial. It has workers, as many as the pool has places at most. Each carries out one check
// after the other, and ends when there is none. A check of several tries has another goroutine for each.
type dialProber struct {
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	egress egress
	pace   func() time.Duration // Config.Pace

	delivering sync.Mutex // held around deliver, before mu
	deliver    func([]Report)

	mu      sync.Mutex
	queue   queue
	sweep   *time.Timer // for those in line; nil before there are any
	ended   bool
	failure error
	workers sync.WaitGroup

	once     sync.Once
	finished chan struct{}
}

func newDialProber(o Config, deliver func([]Report)) (backend, error) {
	e := o.egress()
	if err := e.verify(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	return &dialProber{
		ctx: ctx, stop: stop,
		egress:   e,
		pace:     o.Pace,
		deliver:  deliver,
		queue:    queue{limit: poolSize(MethodDial, o.Pool)},
		finished: make(chan struct{}),
	}, nil
}

func (p *dialProber) submit(jobs []job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return ErrClosed
	}
	now := time.Now()
	for _, j := range jobs {
		p.queue.push(j, now)
	}
	for range jobs {
		j, expired, ok := p.queue.pop(now)
		if !ok {
			break
		}
		p.spawn(func() { p.work(j, expired) })
	}
	p.setSweep(now)
	return nil
}

// cancel has nothing to do: a dial ends with its waiter's context.
func (p *dialProber) cancel(*waiter) {}

// dismiss has nothing to do: a session's dialProber is its own, and is closed with it.
func (p *dialProber) dismiss(*session) {}

func (p *dialProber) poller() int { return -1 }

// isBehind implements backend. Each check has a goroutine, so none waits but for its place.
func (p *dialProber) isBehind() bool { return false }

// setSweep sets the time at which expire looks through the line next. The caller holds mu.
func (p *dialProber) setSweep(now time.Time) {
	at, ok := p.queue.expiry()
	switch {
	case !ok:
	case p.sweep == nil:
		p.sweep = time.AfterFunc(at.Sub(now), p.expire)
	default:
		p.sweep.Reset(at.Sub(now))
	}
}

// expire ends the checks that have been in line for too long.
func (p *dialProber) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	var expired []job
	now := time.Now()
	p.queue.expire(now, func(j job) { expired = append(expired, j) })
	p.setSweep(now)
	p.spawn(func() {
		for i := range expired {
			p.report(expired[i].newReport(Inconclusive, ErrBusy))
		}
	})
}

// spawn starts a worker. One that panics ends the prober. The caller holds mu, or is a worker.
func (p *dialProber) spawn(work func()) {
	p.workers.Go(func() {
		pprof.SetGoroutineLabels(profileLabels)
		defer func() {
			if v := recover(); v != nil {
				p.fail(panicError(v))
			}
		}()
		work()
	})
}

// work carries out j, and then others, until none may start.
func (p *dialProber) work(j job, expired bool) {
	for ok := true; ok; j, expired, ok = p.takeNext(&j, expired) {
		if expired {
			p.report(j.newReport(Inconclusive, ErrBusy))
		} else {
			p.report(p.check(&j))
		}
	}
}

// giveBack gives back places that further tries have taken, and has others have them.
func (p *dialProber) giveBack(places int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue.narrow(places)
	for !p.ended {
		j, expired, ok := p.queue.pop(time.Now())
		if !ok {
			return
		}
		p.spawn(func() { p.work(j, expired) })
	}
}

// takeNext gives back the place of the job that is done and takes the next one.
func (p *dialProber) takeNext(done *job, expired bool) (job, bool, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !expired {
		p.queue.release(done)
	}
	if p.ended {
		return job{}, false, false
	}
	return p.queue.pop(time.Now())
}

func (p *dialProber) report(r Report) {
	p.delivering.Lock()
	defer p.delivering.Unlock()
	p.deliver([]Report{r})
}

// check carries out one check.
func (p *dialProber) check(j *job) Report {
	if j.invalid {
		return j.newReport(Inconclusive, ErrTarget)
	}
	return p.carryOut(j)
}

// dialSocket is the socket of a dial, once it has one.
type dialSocket struct {
	conn  atomic.Pointer[syscall.RawConn]
	began atomic.Pointer[time.Time] // when it was about to connect
}

// isAnswered tells whether something has come back, or the dial has ended, though it may not have told yet: where this
// process gets little of the CPU, a timer may come before an answer that has been there for long.
func (s *dialSocket) isAnswered() bool {
	conn := s.conn.Load()
	if conn == nil {
		return false
	}
	answered := false
	err := (*conn).Control(func(fd uintptr) { answered = isWritable(fd) })
	return answered || err != nil // it is closed
}

// lateBy returns for how long this process was away if something came so much too late.
func lateBy(late time.Duration) time.Duration {
	if late < leastAway {
		return 0
	}
	return late
}

// dialed is what became of a dial.
type dialed struct {
	number int // of the try
	result Result
	err    error
	left   bool // its SYN has left, for all that a dial can tell
	took   time.Duration
}

// dial connects, and resets the connection where that worked.
func (p *dialProber) dial(ctx context.Context, j *job, socket *dialSocket) dialed {
	dialer := net.Dialer{KeepAlive: -1, Control: func(_, _ string, conn syscall.RawConn) error {
		err := p.prepare(conn, j.orderly)
		now := time.Now()
		socket.began.Store(&now)
		socket.conn.Store(&conn)
		return err
	}}
	if j.Source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(j.Source, 0))
	}
	sent := time.Now()
	conn, err := dialer.DialContext(ctx, "tcp", j.Target.String())
	d := dialed{result: Answered, left: true, took: max(1, time.Since(sent))}
	if err == nil {
		conn.Close()
		return d
	}
	d.result, d.err = p.classify(err)
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		d.left = strings.HasPrefix(call.Syscall, "connect") // connectex on Windows
	}
	return d
}

// prepare readies a socket before it connects. Unless it is orderly, it sends a RST instead of a FIN whoever closes it,
// and be it because it has connected just as its dial was given up. Where that cannot be, a FIN it is.
func (p *dialProber) prepare(conn syscall.RawConn, orderly bool) error {
	var err error
	controlErr := conn.Control(func(fd uintptr) {
		err = p.egress.apply(int(fd))
		if !orderly {
			lingerZero(fd)
		}
	})
	return errors.Join(controlErr, err)
}

// classify decides what a failed dial says about the target. A dial cannot tell a missing route on
// this machine from an ICMP message, so "network unreachable" is held against nobody.
func (p *dialProber) classify(err error) (Result, error) {
	var timeout net.Error
	switch {
	case p.ctx.Err() != nil:
		return Inconclusive, ErrClosed
	case isErrno(err, answeredErrnos):
		return Answered, nil
	case isErrno(err, refusedErrnos):
		return Refused, err
	case isErrno(err, timeoutErrnos), errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, ErrTimeout
	case isErrno(err, hostErrnos):
		return Unreachable, err
	default:
		return Inconclusive, err
	}
}

func (p *dialProber) close() {
	p.once.Do(func() { p.end(nil) })
	<-p.finished
}

// fail ends the prober from within a worker.
func (p *dialProber) fail(err error) {
	p.noteFailure(err)
	go p.once.Do(func() { p.end(err) })
}

func (p *dialProber) noteFailure(failure error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = errors.Join(p.failure, failure)
}

func (p *dialProber) end(err error) {
	defer close(p.finished)
	p.mu.Lock()
	p.ended = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	p.mu.Unlock()
	p.stop()
	p.workers.Wait()
	defer func() {
		if v := recover(); v != nil {
			p.noteFailure(panicError(v))
		}
	}()
	if err == nil {
		err = ErrClosed
	}
	p.queue.drain(func(j job) { p.report(j.newReport(Inconclusive, err)) })
}

func (p *dialProber) done() <-chan struct{} { return p.finished }

func (p *dialProber) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}
