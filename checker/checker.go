package checker

import (
	"context"
	"errors"
	"net/netip"
	"runtime/pprof"
	"sync"
	"time"
)

// ErrTimeout is the error of a check to which nothing came back in time. It is a net.Error: its methods Timeout and
// Temporary return true.
var ErrTimeout = &timeoutError{}

type timeoutError struct{}

func (*timeoutError) Error() string   { return "I/O timeout" }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

// ErrConnect is the error of a check that was not answered with a SYN-ACK and did not time out.
// errors.Is finds the errno of connect(2) inside where there is one.
type ErrConnect struct {
	error
}

// Unwrap returns the reason.
func (e *ErrConnect) Unwrap() error { return e.error }

var (
	// ErrCheckerAlreadyStarted is returned by CheckingLoop while another CheckingLoop of the same
	// Checker runs.
	ErrCheckerAlreadyStarted = errors.New("checker: already started")
	// ErrNotReady is returned by checks on a Checker whose CheckingLoop does not run.
	ErrNotReady = errors.New("checker: CheckingLoop is not running")
)

// Checker checks one address per call, for any number of goroutines at once. Checks are possible while its
// CheckingLoop runs; with MethodDial, which is the default everywhere but on Linux, they are possible without. The
// zero value is a Checker of NewCheckerZeroLinger(true).
//
// Checkers are cheap: those with the same Method, Interface and Mark share one thread and its sockets.
type Checker struct {
	config  Config
	orderly bool // where a handshake is completed, it ends with a FIN instead of a RST

	mu      sync.Mutex
	session *session      // nil while checks are not possible, or before the first with MethodDial
	looping bool          // CheckingLoop runs on session
	ready   chan struct{} // closed while there is a session; nil before anybody asks
}

// NewChecker returns a Checker that uses the best method that needs no privilege.
func NewChecker() *Checker { return new(Checker) }

// NewCheckerConfig is NewChecker with a choice of the method and of how packets leave this machine. CheckingLoop,
// or a check that needs none, fails if that cannot be. Pool bounds the checks of this Checker alone. Checkers without
// a Pool have the default in common, if they share a thread.
func NewCheckerConfig(config Config) *Checker { return &Checker{config: config} }

// NewCheckerZeroLinger is NewChecker with a choice that only matters where handshakes are completed
// (MethodDial): whether the connection is then reset, or else closed in the ordinary way.
func NewCheckerZeroLinger(zeroLinger bool) *Checker { return &Checker{orderly: !zeroLinger} }

var defaultChecker = sync.OnceValue(func() *Checker {
	c := NewChecker()
	ready, ended := c.WaitReady(), make(chan struct{})
	go func() {
		pprof.SetGoroutineLabels(profileLabels)
		defer close(ended)
		c.CheckingLoop(context.Background())
	}()
	select {
	case <-ready:
	case <-ended: // its checks say so: ErrNotReady
	}
	return c
})

// DefaultChecker returns the process's own Checker, whose loop runs from the first call until the
// process ends. It leaves signals alone.
func DefaultChecker() *Checker { return defaultChecker() }

// needsLoop tells whether checks are possible only while CheckingLoop runs.
func (c *Checker) needsLoop() bool { return c.config.Method.actual() != MethodDial }

// CheckingLoop makes the Checker work until ctx ends or Close is called, and then returns nil. Another error says
// what keeps the Checker from working. Checks that were under way when it returns have failed with ErrClosed. It can
// be called again after it has returned.
func (c *Checker) CheckingLoop(ctx context.Context) error {
	s, err := c.startLoop()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.closing:
	case <-s.prober.Done():
	}
	c.stop(s)
	return s.prober.Err()
}

func (c *Checker) startLoop() (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looping {
		return nil, ErrCheckerAlreadyStarted
	}
	s, err := c.start()
	c.looping = err == nil
	return s, err
}

// start returns the session, and begins one if there is none. The caller holds mu.
func (c *Checker) start() (*session, error) {
	if c.session != nil {
		return c.session, nil
	}
	s, err := newSession(c.config)
	if err != nil {
		return nil, err
	}
	c.session = s
	if c.ready == nil {
		c.ready = make(chan struct{})
	}
	close(c.ready)
	return s, nil
}

// stop ends a session, which may have ended already.
func (c *Checker) stop(s *session) {
	c.mu.Lock()
	if c.session == s {
		c.session, c.looping, c.ready = nil, false, nil
	}
	c.mu.Unlock()
	s.end()
}

// Close ends the checks that are under way, with ErrClosed, and has CheckingLoop return. It is not needed after
// CheckingLoop has returned, and does no harm then. The error is nil.
func (c *Checker) Close() error {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		c.stop(s)
	}
	return nil
}

// WaitReady returns a channel that is closed as soon as checks are possible.
func (c *Checker) WaitReady() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.needsLoop():
		ready := make(chan struct{})
		close(ready)
		return ready
	case c.ready == nil:
		c.ready = make(chan struct{})
	}
	return c.ready
}

// IsReady tells whether checks are possible.
func (c *Checker) IsReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != nil || !c.needsLoop()
}

// PollerFd returns the descriptor of the epoll instance that the Checker uses, which other Checkers may use too. It
// is negative while no CheckingLoop runs, and for methods that have none.
func (c *Checker) PollerFd() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return -1
	}
	return c.session.prober.backend.poller()
}

// CheckAddr checks addr, a "host:port" whose parts may be names, within timeout, resolution included.
// It returns nil where a SYN-ACK came back, ErrTimeout where nothing did, *ErrConnect where the
// target refused or cannot be reached, and other errors where the check was not possible.
func (c *Checker) CheckAddr(addr string, timeout time.Duration) error {
	return c.CheckAddrZeroLinger(addr, timeout, !c.orderly)
}

// CheckAddrZeroLinger is CheckAddr with the choice of NewCheckerZeroLinger for this check alone.
func (c *Checker) CheckAddrZeroLinger(addr string, timeout time.Duration, zeroLinger bool) error {
	return c.CheckAddrWithOptions(addr, Options{Timeout: timeout, Network: "tcp", ZeroLinger: zeroLinger})
}

// CheckAddrWithOptions is CheckAddr with all the choices there are for one check.
func (c *Checker) CheckAddrWithOptions(addr string, options Options) error {
	s, err := c.ongoing()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(options.Timeout)
	target, err := resolve(addr, options.Network, deadline)
	if err != nil {
		return err
	}
	left := time.Until(deadline)
	if left <= 0 {
		return ErrTimeout
	}
	j := s.sources.job(Check{Target: target, Timeout: left})
	j.orderly = !options.ZeroLinger
	report := s.check(context.Background(), j)
	switch {
	case report.Result == Answered:
		return nil
	case report.Result == Timeout, errors.Is(report.Err, ErrBusy), errors.Is(report.Err, ErrPaused):
		return ErrTimeout
	case errors.Is(report.Err, ErrClosed), errors.Is(report.Err, ErrTarget):
		return report.Err
	default:
		return &ErrConnect{report.Err}
	}
}

// ongoing returns the session for a check.
func (c *Checker) ongoing() (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.needsLoop() {
		return nil, ErrNotReady
	}
	return c.start()
}

// longestCheck is how long a check takes at most. Linux gives up connecting after as long, see tcp_syn_retries in
// tcp(7).
const longestCheck = 127 * time.Second

// Check checks target until the deadline of ctx, if that is sooner than 127 seconds from now. Where ctx is
// cancelled before, the check is given up and its report is Inconclusive with the error of ctx. Where checks are not
// possible it is Inconclusive too, with ErrNotReady if CheckingLoop does not run. For what else the report can say
// see Report; its Tag is nil here.
func (c *Checker) Check(ctx context.Context, target netip.AddrPort) Report {
	if err := ctx.Err(); err != nil {
		return Report{Err: err}
	}
	s, err := c.ongoing()
	if err != nil {
		return Report{Err: err}
	}
	timeout := longestCheck
	if deadline, ok := ctx.Deadline(); ok {
		// A deadline that passes at this moment is the timeout of the shortest check, not a mistake.
		timeout = max(1, min(timeout, time.Until(deadline)))
	}
	j := s.sources.job(Check{Target: target, Timeout: timeout})
	j.invalid = j.invalid || target.Port() == 0
	j.orderly = c.orderly
	return s.check(ctx, j)
}
