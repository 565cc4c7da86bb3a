package checker

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// trimEvery is how often sockets that the recent peak needed, but no longer, are closed.
const trimEvery = 10 * time.Second

// socketProber implements MethodSocket: a pool of sockets that are used again and again.
//
// A socket's life: connect(2) sends the SYN; TCP_DEFER_ACCEPT keeps the kernel from acknowledging the
// SYN-ACK (tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c); connect(AF_UNSPEC) sends the RST
// and leaves the socket in its epoll set, ready for the next check on a new source port.
//
// An event is never taken for that of another SYN on the same socket. When epoll hands out an event it asks the socket
// for its present state, and the loop handles all events that it was given before a socket connects again. One whose try
// was cut off meanwhile has no flight.
type socketProber struct {
	loop
	egress egress

	pool      int // the queue's limit, while the process has descriptors to spare
	sockets   []*socket
	vacant    []int32 // indexes of sockets that are nil
	idle      map[origin]*idleSockets
	latest    *idleSockets // those that were wanted last, or nil
	idling    int          // sockets in idle
	leastIdle int          // the fewest of them since the last trim
	trimAt    time.Time
	ephemeral ephemeral
}

func newSocketProber(o Config, deliver func([]Report)) (backend, error) {
	pool := poolSize(MethodSocket, o.Pool)
	p := &socketProber{egress: o.egress(), pool: pool, idle: make(map[origin]*idleSockets)}
	if err := p.egress.verify(); err != nil {
		return nil, err
	}
	if err := p.open(&o, pool, deliver); err != nil {
		return nil, err
	}
	p.start(p)
	return p, nil
}

// handle implements carrier.
func (p *socketProber) handle(event *unix.EpollEvent, now time.Time) (all bool) {
	s := p.sockets[event.Fd]
	if s == nil || s.flight == nil || event.Events == 0 {
		return true // the echo of our own connect(AF_UNSPEC)
	}
	result, err, over := Answered, error(nil), true
	if event.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		result, err, over = s.takeError(event.Events)
	}
	if result == Answered && p.hasReachedItself(s, now) {
		result, err = Refused, unix.ECONNREFUSED
	}
	if over {
		p.take(&s.try, result, err, now)
	}
	return true
}

// hasReachedItself tells whether s is connected to itself. The kernel is only asked where that may be.
func (p *socketProber) hasReachedItself(s *socket, turn time.Time) bool {
	const wellKnown = 1024 // the kernel chooses no port below
	port := s.flight.job.Target.Port()
	return port >= wellKnown && s.mayHaveReachedItself() && p.ephemeral.mayHaveChosen(port, turn) && s.connectedToItself()
}

// repeat implements carrier. The kernel does that.
func (p *socketProber) repeat(*flight, time.Time) {}

// mayHaveLost implements carrier.
func (p *socketProber) mayHaveLost(*flight, time.Time) bool { return false }

// cutOff implements carrier. It makes the socket ready for the next SYN.
func (p *socketProber) cutOff(t *try) {
	s := p.sockets[t.id]
	s.flight = nil
	if s.reset() != nil {
		p.discard(s)
		return
	}
	s.idle.sockets = append(s.idle.sockets, s)
	p.idling++
}

// launch implements carrier.
func (p *socketProber) launch(f *flight, old *try, _ time.Time) error {
	s, err := p.socketFor(&f.job, old)
	if err != nil {
		return err
	}
	sent := p.presence.now()
	if err := s.connect(&f.job); err != nil && err != unix.EINPROGRESS {
		p.discard(s)
		return os.NewSyscallError("connect", err)
	}
	f.link(&s.try)
	p.depart(&s.try, sent)
	return nil
}

// socketFor returns a socket for another SYN of a check. It is that of old, if that is not nil.
func (p *socketProber) socketFor(j *job, old *try) (*socket, error) {
	if old == nil {
		return p.acquire(origin{v6: j.Target.Addr().Is6(), scope: j.scope, source: j.Source})
	}
	s := p.sockets[old.id]
	if err := s.reset(); err != nil {
		p.discard(s)
		return nil, os.NewSyscallError("connect", err)
	}
	return s, nil
}

// flush implements carrier.
func (p *socketProber) flush() {}

// acquire takes an idle socket, or opens a new one.
func (p *socketProber) acquire(o origin) (*socket, error) {
	idle := p.idleOf(o)
	if s := p.takeIdle(idle); s != nil {
		return s, nil
	}
	if p.size() >= p.queue.limit {
		for _, other := range p.idle {
			if s := p.takeIdle(other); s != nil {
				p.discard(s)
				break
			}
		}
	}
	p.ephemeral.begin()
	s, err := openSocket(o, p.egress)
	if isErrno(err, descriptorErrnos) && p.ephemeral.close() {
		s, err = openSocket(o, p.egress) // with the descriptor that this has made free
	}
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			// From now on jobs wait for one of the sockets that there are. tidy lifts the limit again.
			p.queue.limit = max(1, p.size())
		}
		return nil, err
	}
	s.idle = idle
	idle.open++
	if len(p.vacant) > 0 {
		s.id = p.vacant[len(p.vacant)-1]
		p.vacant = p.vacant[:len(p.vacant)-1]
		p.sockets[s.id] = s
	} else {
		s.id = int32(len(p.sockets))
		p.sockets = append(p.sockets, s)
	}
	// Edge triggered, because an idle socket has EPOLLHUP all the time.
	if err := p.watch(s.fd, unix.EPOLLOUT|unix.EPOLLET, s.id); err != nil {
		p.discard(s)
		return nil, err
	}
	return s, nil
}

// idleSockets are those of one origin that wait for a check.
type idleSockets struct {
	origin  origin
	open    int // sockets of the origin, idle or not
	sockets []*socket
}

// idleOf returns the idle sockets of an origin, which may be none. As a rule it is the same origin again.
func (p *socketProber) idleOf(o origin) *idleSockets {
	if p.latest != nil && p.latest.origin == o {
		return p.latest
	}
	idle := p.idle[o]
	if idle == nil {
		idle = &idleSockets{origin: o}
		p.idle[o] = idle
	}
	p.latest = idle
	return idle
}

func (p *socketProber) takeIdle(idle *idleSockets) *socket {
	last := len(idle.sockets) - 1
	if last < 0 {
		return nil
	}
	s := idle.sockets[last]
	idle.sockets[last] = nil
	idle.sockets = idle.sockets[:last]
	p.idling--
	p.leastIdle = min(p.leastIdle, p.idling)
	return s
}

// size returns how many sockets there are.
func (p *socketProber) size() int { return len(p.sockets) - len(p.vacant) }

// tidy implements carrier. It closes the sockets that were not needed since it did so last.
func (p *socketProber) tidy(now time.Time) (next time.Time) {
	if !now.Before(p.trimAt) {
		p.trim()
		p.trimAt = now.Add(trimEvery)
	}
	if p.idling == 0 && p.queue.limit == p.pool {
		return time.Time{}
	}
	return p.trimAt
}

func (p *socketProber) trim() {
	surplus := p.leastIdle
	for o, idle := range p.idle {
		for ; surplus > 0; surplus-- {
			s := p.takeIdle(idle)
			if s == nil {
				break
			}
			p.discard(s)
		}
		if idle.open == 0 {
			delete(p.idle, o)
		}
	}
	p.latest = nil // which may have gone
	p.queue.limit = p.pool
	p.leastIdle = p.idling
}

// discard closes a socket that is in no list. Closing takes it out of the epoll set, see epoll(7).
func (p *socketProber) discard(s *socket) {
	unix.Close(s.fd)
	s.idle.open--
	p.sockets[s.id] = nil
	p.vacant = append(p.vacant, s.id)
}

// abandon implements carrier. A RST is sent where a handshake is half open: the sockets do not linger.
func (p *socketProber) abandon(func(*flight)) {
	for _, s := range p.sockets {
		if s != nil {
			unix.Close(s.fd)
		}
	}
	p.ephemeral.close()
}
