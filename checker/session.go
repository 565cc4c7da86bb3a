package checker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// session is a Checker's use of a prober, from when its checks become possible until they no longer are.
type session struct {
	prober  *Prober
	release func()
	sources sources
	places  chan struct{} // of Config.Pool; nil where the prober's own pool is the only bound

	once    sync.Once
	closing chan struct{} // closed when the session begins to end
	over    bool          // nothing more is accepted; protected by the prober
}

func newSession(config Config) (*session, error) {
	s := &session{closing: make(chan struct{})}
	var err error
	if s.sources, err = config.sources(); err == nil {
		err = s.take(config)
	}
	if err != nil {
		return nil, fmt.Errorf("checker: cannot start: %w", err)
	}
	return s, nil
}

// take gets the session its prober. That of MethodDial is its own, since it takes nothing while it does nothing.
func (s *session) take(config Config) (err error) {
	if config.Method.actual() == MethodDial {
		if s.prober, err = NewProber(config, deliverToWaiters); err == nil {
			s.release = s.prober.Close
		}
		return err
	}
	if config.Pool > 0 {
		s.places = make(chan struct{}, config.Pool)
	}
	s.prober, s.release, err = shared.take(&config)
	return err
}

// end gives the prober back, and has checks that are under way fail with ErrClosed.
func (s *session) end() {
	s.once.Do(func() {
		close(s.closing)
		s.prober.backend.dismiss(s)
		s.release()
	})
}

// waiter is somebody who waits for the report of a check in flight or in line.
type waiter struct {
	session *session
	ctx     context.Context // once it is cancelled nobody waits any more
	report  chan Report
	flight  *flight // of its check, for the loop alone
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

// of tells whether the waiter is one of the session.
func (w *waiter) of(s *session) bool { return w != nil && w.session == s }

// isOver tells whether the waiter's session accepts no more checks.
func (w *waiter) isOver() bool { return w != nil && w.session.over }

func deliverToWaiters(reports []Report) {
	for _, r := range reports {
		w := r.Tag.(*waiter)
		r.Tag = nil
		w.report <- r // has room for the one report of its check
	}
}

// check carries out one check and waits for it.
func (s *session) check(ctx context.Context, j job) Report {
	if s.places != nil {
		if err := s.enter(ctx, j.Timeout); err != nil {
			return Report{Err: err}
		}
		defer func() { <-s.places }()
	}
	w := &waiter{session: s, ctx: ctx, report: make(chan Report, 1)}
	j.Tag, j.waiter = w, w
	if err := s.prober.backend.submit([]job{j}); err != nil {
		return Report{Err: err}
	}
	select {
	case r := <-w.report:
		// Who gives up in line is told by whoever comes first, and for this reason.
		if r.Result == Inconclusive && w.gone() {
			r.Err = ctx.Err()
		}
		return r
	case <-ctx.Done():
	}
	if !w.gone() {
		return <-w.report
	}
	s.prober.backend.cancel(w)
	return Report{Err: ctx.Err()}
}

// enter takes one of the places, within as long as the check itself may take.
func (s *session) enter(ctx context.Context, within time.Duration) error {
	select {
	case s.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case s.places <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrBusy
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ErrBusy
		}
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}
