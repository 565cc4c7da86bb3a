package checker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A SYN without an answer is sent again after firstRetry, and after as long linearRetries times more. From then on
// each wait is twice the last (RFC 6298, sections 2.1 and 5.5). Since 6.5, Linux does the same for MethodSocket
// (tcp_syn_linear_timeouts in ip-sysctl.rst): both methods take a lost packet alike.
const (
	firstRetry    = time.Second
	linearRetries = 4
)

// The descriptors' numbers in epoll data.
const (
	event4 int32 = iota
	event6
	eventRoutes
)

// rawProber implements MethodRaw. It sends SYNs of its own making on raw sockets. The kernel knows of no connection,
// and answers each SYN-ACK with a RST by itself, at once, even while this process is stopped. So no handshake ever
// completes.
type rawProber struct {
	loop
	egress  egress
	conns   [2]*rawConn // by event number; that of IPv6 is nil where the system has none
	reserve portReserve
	routes  *routes
	secret  sipKey
	begun   time.Time // by presence

	probes   []*probe         // by their id
	vacant   []int32          // ids of those that are in none of the maps
	byPath   paths            // ids of those whose SYN has a port
	lines    map[path][]int32 // probes for which no port is free, by their path without one
	freed    []path           // on which a port has become free
	nextPort uint16

	lookedAt time.Time // when drops was read last
	drops    [2]uint32
	lossAt   [2]time.Time // when the newest drop was noticed
}

// probe is a try with its SYN, or one in line for a port.
type probe struct {
	try
	at      path       // without a source port while in line
	source  netip.Addr // invalid for IPv6 where the kernel chooses
	hash    uint64     // of at, if that has a source port
	isn     uint32
	retries uint8
}

func newRawProber(o Config, deliver func([]Report)) (_ backend, err error) {
	p := &rawProber{
		egress: o.egress(),
		lines:  make(map[path][]int32),
	}
	defer func() {
		if err != nil {
			p.closeAll()
		}
	}()
	var secret [16]byte
	rand.Read(secret[:])
	p.secret = sipKeyFrom(secret)
	if err := p.egress.verify(); err != nil {
		return nil, err
	}
	if p.reserve, err = reservePorts(); err != nil {
		return nil, err
	}
	if p.routes, err = newRoutes(p.egress); err != nil {
		return nil, err
	}
	if p.conns[event4], err = openRaw(false, p.reserve.ports, p.egress); err != nil {
		return nil, err
	}
	p.conns[event6], err = openRaw(true, p.reserve.ports, p.egress)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, err
	}
	if err := p.open(&o, poolSize(MethodRaw, o.Pool), deliver); err != nil {
		return nil, err
	}
	p.begun = p.presence.seen
	if err := p.watchAll(); err != nil {
		p.closeDescriptors()
		return nil, err
	}
	p.start(p)
	return p, nil
}

func (p *rawProber) watchAll() error {
	for id, conn := range p.conns {
		if conn == nil {
			continue
		}
		if err := p.watch(conn.fd, unix.EPOLLIN, int32(id)); err != nil {
			return err
		}
	}
	return p.watch(p.routes.changes, unix.EPOLLIN, eventRoutes)
}

// family returns the event number of the family of addr.
func family(addr netip.Addr) int32 {
	if addr.Is4() {
		return event4
	}
	return event6
}

// launch implements carrier.
func (p *rawProber) launch(f *flight, old *try, now time.Time) error {
	source, err := p.sourceFor(&f.job)
	if err != nil {
		if old != nil {
			p.cutOff(old)
		}
		return err
	}
	var pr *probe
	if old != nil {
		pr = p.probes[old.id]
		p.changePort(pr, now)
	} else {
		pr = p.takeVacant()
		pr.at = newPath(f.job.Target, 0)
		if f.sent > 0 && len(p.lines[pr.at]) > 0 || !p.assignPort(pr, now) {
			return p.awaitPort(f, pr, source, now)
		}
	}
	pr.source, pr.retries, pr.sent = source, 0, time.Time{}
	f.link(&pr.try)
	p.send(pr)
	return nil
}

// sourceFor returns the address to send from. It is invalid for IPv6 where the kernel chooses.
func (p *rawProber) sourceFor(j *job) (netip.Addr, error) {
	if p.conns[family(j.Target.Addr())] == nil {
		return netip.Addr{}, errNoFamily
	}
	if j.Source.IsValid() || j.Target.Addr().Is6() {
		return j.Source, nil
	}
	chosen, err := p.routes.to(j.Target.Addr().As4())
	return netip.AddrFrom4(chosen), err
}

// awaitPort puts the first SYN of a check in line for a port. A further one finds no port.
func (p *rawProber) awaitPort(f *flight, pr *probe, source netip.Addr, now time.Time) error {
	if f.sent > 0 {
		p.vacate(pr)
		return errNoPort
	}
	pr.source = source
	f.link(&pr.try)
	p.lines[pr.at] = append(p.lines[pr.at], pr.id)
	p.await(f, now)
	return nil
}

func (p *rawProber) takeVacant() *probe {
	if last := len(p.vacant) - 1; last >= 0 {
		pr := p.probes[p.vacant[last]]
		p.vacant = p.vacant[:last]
		return pr
	}
	pr := new(probe)
	pr.id = int32(len(p.probes))
	p.probes = append(p.probes, pr)
	return pr
}

// isn returns the sequence number for a SYN that leaves at now, on a path with that hash. It is a sum of a secret and a
// clock, for two reasons. Nobody can guess it, so only who sees the SYN can forge an answer to it (RFC 6528). And it is
// far from the last one on the same path, after 66 µs and for four seconds. The check before may have left half a
// handshake behind, if its answer was late. A SYN within the window of that, of up to 64 KiB, is answered with a RST, as
// if the target refused.
func (p *rawProber) isn(hash uint64, now time.Time) uint32 {
	return uint32(hash) + uint32(now.Sub(p.begun))
}

// assignPort gives pr, which has none or is to change it, a port that no other probe of the target has, and a sequence
// number.
func (p *rawProber) assignPort(pr *probe, now time.Time) bool {
	at := pr.at
	for range reservedPorts {
		at.source = p.reserve.ports[p.nextPort%reservedPorts]
		p.nextPort++
		hash := p.secret.hash(&at)
		if p.onPath(hash, &at) == nil {
			p.byPath.add(hash, pr.id)
			pr.at, pr.hash, pr.isn = at, hash, p.isn(hash, now)
			return true
		}
	}
	return false
}

// changePort gives pr another port if there is one, and another sequence number in any case. No answer to its last SYN
// is taken for one to the next.
func (p *rawProber) changePort(pr *probe, now time.Time) {
	before := *pr
	if p.assignPort(pr, now) {
		p.release(&before)
	} else {
		pr.isn = p.isn(pr.hash, now)
	}
}

// release makes the port of pr free.
func (p *rawProber) release(pr *probe) {
	p.byPath.remove(pr.hash, pr.id)
	if len(p.lines) > 0 {
		at := pr.at
		at.source = 0
		p.freed = append(p.freed, at)
	}
}

// onPath returns the probe that has the path with that hash, or nil.
func (p *rawProber) onPath(hash uint64, at *path) *probe {
	id, ok := p.byPath.find(hash, func(id int32) bool { return p.probes[id].at == *at })
	if !ok {
		return nil
	}
	return p.probes[id]
}

// send puts pr's SYN into the next batch.
func (p *rawProber) send(pr *probe) {
	conn := p.conns[family(pr.flight.job.Target.Addr())]
	if conn.add(pr) {
		p.flushConn(conn)
	}
}

// flush implements carrier. What is in line for a port that has become free gets it, and is sent too.
func (p *rawProber) flush() {
	p.flushConns()
	for len(p.freed) > 0 {
		last := len(p.freed) - 1
		at := p.freed[last]
		p.freed = p.freed[:last]
		p.advance(at)
		p.flushConns()
	}
}

func (p *rawProber) flushConns() {
	for _, conn := range p.conns {
		if conn != nil && conn.pending > 0 {
			p.flushConn(conn)
		}
	}
}

func (p *rawProber) flushConn(conn *rawConn) {
	now := p.presence.now()
	conn.send(func(pr *probe, err error) {
		switch {
		case pr.retries > 0:
			// What becomes of a repeated SYN does not matter: the first has left.
		case err != nil:
			p.takeBack(pr, err)
		default:
			pr.repeat = now.Add(firstRetry)
			p.depart(&pr.try, now)
		}
	})
}

// takeBack takes back a probe whose SYN could not leave.
func (p *rawProber) takeBack(pr *probe, err error) {
	f := pr.flight
	if f.job.Source.IsValid() && !p.egress.owns(f.job.Source) {
		err = os.NewSyscallError("sendmmsg", unix.EADDRNOTAVAIL) // rather than EINVAL or ENETUNREACH
	}
	pr.unlink()
	p.cutOff(&pr.try)
	if f.sent == 0 {
		p.giveUp(f, err)
	} else {
		p.strand(f, err)
	}
}

// repeat implements carrier. The SYNs leave before any answer is read, so that their probes cannot have another flight by
// then.
func (p *rawProber) repeat(f *flight, now time.Time) {
	for t := f.tries; t != nil; t = t.next {
		if t.repeat.IsZero() || t.repeat.After(now) {
			continue
		}
		pr := p.probes[t.id]
		pr.retries++
		pr.repeat = now.Add(firstRetry << max(0, int(pr.retries)-linearRetries))
		p.send(pr)
	}
}

// mayHaveLost implements carrier.
func (p *rawProber) mayHaveLost(f *flight, now time.Time) bool {
	p.noteDrops(now)
	return !f.began.After(p.lossAt[family(f.job.Target.Addr())])
}

// noteDrops notes at which looks the kernel had thrown answers away. It also counts IPv6 packets with a wrong
// checksum as dropped, whoever they were for. Where the queue was never long, they must have been the reason.
func (p *rawProber) noteDrops(now time.Time) {
	if now == p.lookedAt {
		return
	}
	p.lookedAt = now
	for i, conn := range p.conns {
		if conn == nil {
			continue
		}
		drops := conn.drops()
		if drops != p.drops[i] && conn.crowded {
			p.lossAt[i] = now
		}
		p.drops[i], conn.crowded = drops, false
	}
}

// cutOff implements carrier. The kernel says to the target what has to be said.
func (p *rawProber) cutOff(t *try) {
	pr := p.probes[t.id]
	if pr.at.source != 0 {
		p.release(pr)
	} else {
		p.leaveLine(pr)
	}
	p.vacate(pr)
}

func (p *rawProber) leaveLine(pr *probe) {
	p.lines[pr.at] = slices.DeleteFunc(p.lines[pr.at], func(id int32) bool { return id == pr.id })
	if len(p.lines[pr.at]) == 0 {
		delete(p.lines, pr.at)
	}
}

func (p *rawProber) vacate(pr *probe) {
	*pr = probe{try: try{id: pr.id}}
	p.vacant = append(p.vacant, pr.id)
}

// advance sends the SYN of the probe that is first in line for a port on that path.
func (p *rawProber) advance(at path) {
	line := p.lines[at]
	if len(line) == 0 {
		return
	}
	pr := p.probes[line[0]]
	if !p.assignPort(pr, p.presence.now()) {
		return
	}
	if line = line[1:]; len(line) > 0 {
		p.lines[at] = line
	} else {
		delete(p.lines, at)
	}
	p.leave(pr.flight)
	p.send(pr)
}

// handle implements carrier.
func (p *rawProber) handle(event *unix.EpollEvent, now time.Time) (all bool) {
	if event.Fd == eventRoutes {
		p.routes.forget()
		return true
	}
	conn := p.conns[event.Fd]
	if event.Events&unix.EPOLLERR != 0 {
		p.readErrors(conn, now)
	}
	return p.readAnswers(conn)
}

// readAnswers takes in what has come. It reports false if it has left some for later.
func (p *rawProber) readAnswers(conn *rawConn) (all bool) {
	const batches = 64
	for range batches {
		n, err := conn.receive()
		now := p.presence.now()
		if err != nil {
			if !isTransient(err) {
				panic(fmt.Errorf("recvmmsg: %w", err))
			}
			p.readErrors(conn, now)
			continue
		}
		for i := range n {
			p.takeAnswer(conn, i, now)
		}
		if n < receiveBatch {
			return true
		}
		conn.crowded = true
	}
	return false
}

// takeAnswer takes a packet in. One that does not answer a SYN in flight is none of our business.
func (p *rawProber) takeAnswer(conn *rawConn, i int, now time.Time) {
	from, s, ok := conn.packet(i)
	if !ok {
		return
	}
	pr := p.find(netip.AddrPortFrom(from, s.from), s.to)
	if pr == nil {
		return
	}
	r, ok := s.result(pr.isn)
	switch {
	case !ok:
	case r == Refused:
		p.take(&pr.try, r, unix.ECONNREFUSED, now)
	default:
		p.take(&pr.try, r, nil, now)
	}
}

// find returns the probe whose SYN has left that port for target, or nil.
func (p *rawProber) find(target netip.AddrPort, port uint16) *probe {
	at := newPath(target, port)
	pr := p.onPath(p.secret.hash(&at), &at)
	if pr == nil || pr.sent.IsZero() {
		return nil
	}
	return pr
}

// readErrors takes in ICMP errors. One only counts if it quotes the sequence number of a SYN in flight.
func (p *rawProber) readErrors(conn *rawConn, now time.Time) {
	for {
		e, to, q, ok := conn.readQuote()
		if !ok {
			return
		}
		pr := p.find(netip.AddrPortFrom(to, q.to), q.from)
		// "Packet too big" says nothing of a SYN, which is smaller than any limit may be.
		if pr == nil || pr.isn != q.seq || e.errno == unix.EMSGSIZE {
			continue
		}
		self := pr.source
		if !self.IsValid() {
			self = p.egress.sourceOf(pr.flight.job.Target)
		}
		result, err := classify(0, e, self)
		p.take(&pr.try, result, err, now)
	}
}

// tidy implements carrier.
func (p *rawProber) tidy(time.Time) (next time.Time) { return time.Time{} }

// abandon implements carrier.
func (p *rawProber) abandon(each func(*flight)) {
	for _, conn := range p.conns {
		if conn == nil {
			continue
		}
		for i := range conn.pending {
			if f := conn.out[i].probe.flight; !f.isLookedAfter() {
				each(f)
			}
		}
	}
	p.closeAll()
}

// closeAll closes what is open.
func (p *rawProber) closeAll() {
	for _, conn := range p.conns {
		if conn != nil {
			conn.close()
		}
	}
	if p.routes != nil {
		p.routes.close()
	}
	p.reserve.close()
}
