package checker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/pprof"
	"sync"
	"time"
)

// ErrTimeout is returned, and reported, where nothing came back in time. It is compared by identity;
// its methods Timeout and Temporary return true.
var ErrTimeout error = &timeoutError{}

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

// Checker checks one address per call. Make it with NewChecker, run CheckingLoop, and use it from any number
// of goroutines.
type Checker struct {
	options    Config
	zeroLinger bool

	mu     sync.Mutex
	prober *Prober       // nil while no CheckingLoop runs
	ready  chan struct{} // closed while one does
}

// NewChecker returns a Checker that does nothing until its CheckingLoop runs. It uses the best method that
// needs no privilege.
func NewChecker() *Checker { return NewCheckerConfig(Config{}) }

// NewCheckerConfig is NewChecker with a choice of the method and of how packets leave this machine. What
// cannot be is an error of CheckingLoop.
func NewCheckerConfig(o Config) *Checker {
	return &Checker{options: o, zeroLinger: true, ready: make(chan struct{})}
}

// NewCheckerZeroLinger is NewChecker with a choice that only matters where handshakes are completed
// (MethodDial): whether the connection is then reset, or else closed in the ordinary way.
func NewCheckerZeroLinger(zeroLinger bool) *Checker {
	c := NewChecker()
	c.zeroLinger = zeroLinger
	return c
}

var defaultChecker = sync.OnceValue(func() *Checker {
	c := NewChecker()
	ready, ended := c.WaitReady(), make(chan struct{})
	go func() {
		pprof.SetGoroutineLabels(profiled)
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

// CheckingLoop makes the Checker work until ctx ends, and then returns nil; another error says what
// keeps it from working. Checks that are still under way when it returns have failed with ErrClosed.
// It can be called again after it has returned.
func (c *Checker) CheckingLoop(ctx context.Context) error {
	prober, err := c.start()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-prober.Done():
	}
	c.mu.Lock()
	c.prober = nil
	c.ready = make(chan struct{})
	c.mu.Unlock()
	prober.Close()
	return prober.Err()
}

func (c *Checker) start() (*Prober, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.prober != nil {
		return nil, ErrCheckerAlreadyStarted
	}
	prober, err := NewProber(c.options, func(reports []Report) {
		for _, r := range reports {
			waiter := r.Tag.(*waiter)
			r.Tag = nil
			waiter.report <- r // has room for the one report of its check
		}
	})
	if err != nil {
		return nil, fmt.Errorf("checker: cannot start: %w", err)
	}
	c.prober = prober
	close(c.ready)
	return prober, nil
}

// WaitReady returns a channel that is closed as soon as checks are possible.
func (c *Checker) WaitReady() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// IsReady tells whether checks are possible.
func (c *Checker) IsReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prober != nil
}

// CheckAddr checks addr, a "host:port" whose parts may be names, within timeout, resolution included.
// It returns nil where a SYN-ACK came back, ErrTimeout where nothing did, *ErrConnect where the
// target refused or cannot be reached, and other errors where the check was not possible.
func (c *Checker) CheckAddr(addr string, timeout time.Duration) error {
	return c.CheckAddrZeroLinger(addr, timeout, c.zeroLinger)
}

// CheckAddrZeroLinger is CheckAddr with the choice of NewCheckerZeroLinger for this check alone.
func (c *Checker) CheckAddrZeroLinger(addr string, timeout time.Duration, zeroLinger bool) error {
	if !c.IsReady() {
		return ErrNotReady
	}
	deadline := time.Now().Add(timeout)
	target, err := resolve(addr, deadline)
	if err != nil {
		return err
	}
	left := time.Until(deadline)
	if left <= 0 {
		return ErrTimeout
	}
	report := c.check(context.Background(), Check{Target: target, Timeout: left}, zeroLinger)
	switch {
	case report.Result == Answered:
		return nil
	case report.Result == Timeout, errors.Is(report.Err, ErrBusy):
		return ErrTimeout
	case errors.Is(report.Err, ErrNotReady), errors.Is(report.Err, ErrClosed), errors.Is(report.Err, ErrTarget):
		return report.Err
	default:
		return &ErrConnect{report.Err}
	}
}

// longest is how long a check takes at most. Linux gives up connecting after as long, see tcp_syn_retries in
// tcp(7).
const longest = 127 * time.Second

// Check checks target until the deadline of ctx, if that is sooner than 127 seconds from now. Where ctx is
// cancelled before, the check is given up and its report is Inconclusive with the error of ctx; it is
// Inconclusive with ErrNotReady where no CheckingLoop runs. For what else it can be see Report, whose Tag is
// nil here.
func (c *Checker) Check(ctx context.Context, target netip.AddrPort) Report {
	if err := ctx.Err(); err != nil {
		return Report{Err: err}
	}
	timeout := longest
	if deadline, ok := ctx.Deadline(); ok {
		// A deadline that passes at this moment is the timeout of the shortest check, not a mistake.
		timeout = max(1, min(timeout, time.Until(deadline)))
	}
	return c.check(ctx, Check{Target: target, Timeout: timeout}, c.zeroLinger)
}

// waiter is somebody who waits for the report of a check in flight or in line.
type waiter struct {
	ctx    context.Context // once it is cancelled nobody waits any more
	report chan Report
	flight *flight // of its check, for the loop alone
}

// gone tells whether nobody waits any more. Without a waiter, the report is always wanted; and at the deadline
// the time of the check itself is up, of which the report tells.
func (w *waiter) gone() bool {
	if w == nil {
		return false
	}
	err := w.ctx.Err()
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

// check carries out one check and waits for it.
func (c *Checker) check(ctx context.Context, check Check, zeroLinger bool) Report {
	c.mu.Lock()
	prober := c.prober
	c.mu.Unlock()
	if prober == nil {
		return Report{Err: ErrNotReady}
	}
	w := &waiter{ctx: ctx, report: make(chan Report, 1)}
	check.Tag = w
	j := prober.newJob(check)
	j.orderly = !zeroLinger
	j.waiter = w
	if err := prober.backend.submit([]job{j}); err != nil {
		return Report{Err: err}
	}
	select {
	case r := <-w.report:
		return r
	case <-ctx.Done():
	}
	if !w.gone() {
		return <-w.report
	}
	prober.backend.cancel(w)
	return Report{Err: ctx.Err()}
}

// resolve turns "host:port" into an address. It prefers IPv4 addresses, as net.ResolveTCPAddr does,
// and takes an empty host for this machine.
func resolve(addr string, deadline time.Time) (netip.AddrPort, error) {
	if target, err := netip.ParseAddrPort(addr); err == nil {
		return target, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return netip.AddrPort{}, resolveError(err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, resolveError(err)
	}
	best := addrs[0] // LookupNetIP returns at least one address or an error
	for _, a := range addrs {
		if a.Unmap().Is4() {
			best = a
			break
		}
	}
	return netip.AddrPortFrom(best.Unmap(), uint16(port)), nil
}

func resolveError(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return ErrTimeout
	}
	return err
}
