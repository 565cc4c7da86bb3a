package checker

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Checkers that share a prober end apart: what one has in flight, and in line for a port or a place, fails at once,
// and nothing of another does.
func TestOneOfManyEnds(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		hole := blackHole(t)
		living, _ := listen(t, "tcp4", "127.0.0.1:0")
		stays := startChecker(t, Config{Method: m})
		waiting, cancel := context.WithCancel(t.Context())
		var others sync.WaitGroup
		defer others.Wait()
		defer cancel()
		for range 3 {
			others.Go(func() {
				if r := stays.Check(waiting, hole); r.Err != context.Canceled {
					t.Errorf("the other's check: %v, %v", r.Result, r.Err)
				}
			})
		}
		for _, pool := range []int{0, 1} {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			c := NewCheckerConfig(Config{Method: m, Pool: pool})
			ready, ended := c.WaitReady(), make(chan error)
			go func() { ended <- c.CheckingLoop(ctx) }()
			<-ready
			if r := c.Check(t.Context(), living); r.Result != Answered {
				t.Fatalf("%v, %v", r.Result, r.Err)
			}
			var own sync.WaitGroup
			for range 40 { // more than MethodRaw has ports
				own.Go(func() {
					if err := c.CheckAddr(hole.String(), time.Hour); err != ErrClosed && err != ErrNotReady {
						t.Errorf("pool %d: %v", pool, err)
					}
				})
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			// With MethodDial a check that comes later needs no loop.
			for done := async(own.Wait); !isClosed(done); runtime.Gosched() {
				c.Close()
			}
			if r := stays.Check(t.Context(), living); r.Result != Answered {
				t.Errorf("the other, after the end: %v, %v", r.Result, r.Err)
			}
		}
	})
}

// async returns a channel that is closed when f has returned.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Nothing of a session that has ended is left in the loop.
func TestEndLeavesNothingInFlight(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		if m == MethodDial {
			t.Skip("a prober of its own")
		}
		hole := blackHole(t)
		first, err := newSession(Config{Method: m})
		if err != nil {
			t.Fatal(err)
		}
		second, err := newSession(Config{Method: m})
		if err != nil {
			t.Fatal(err)
		}
		if first.prober != second.prober {
			t.Fatal("two probers")
		}
		var all sync.WaitGroup
		for range 3 * reservedPorts {
			all.Go(func() {
				r := first.check(context.Background(), first.sources.job(Check{Target: hole, Timeout: time.Hour}))
				if r.Result != Inconclusive || r.Err != ErrClosed {
					t.Errorf("%v, %v", r.Result, r.Err)
				}
			})
		}
		first.end()
		all.Wait()
		j := first.sources.job(Check{Target: hole, Timeout: time.Hour})
		if r := first.check(context.Background(), j); r.Err != ErrClosed {
			t.Errorf("after the end: %v, %v", r.Result, r.Err)
		}
		second.end()
		if p, ok := second.prober.backend.(*rawProber); ok && p.flights.len()+len(p.lines)+p.byPath.len() != 0 {
			t.Errorf("%d in flight, %d lines, %d ports in use", p.flights.len(), len(p.lines), p.byPath.len())
		}
		if len(shared.probers) != 0 {
			t.Errorf("%d probers are left", len(shared.probers))
		}
	})
}

// Sessions share a prober only if packets leave in the same way, and if it has the places that they ask for.
func TestSharing(t *testing.T) {
	first, err := newSession(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.end()
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name   string
		config Config
		shares bool
	}{
		{"nothing asked for", Config{}, true},
		{"the default by its name", Config{Method: MethodSocket}, true},
		{"a source", Config{Source: []netip.Addr{addr("127.0.0.9")}}, true},
		{"few places", Config{Pool: 1}, true},
		{"more places than the default", Config{Pool: maxPool + 1}, false},
		{"an interface", Config{Interface: "lo"}, false},
		{"another method", Config{Method: MethodDial}, false},
	} {
		s, err := newSession(tt.config)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if shares := s.prober == first.prober; shares != tt.shares {
			t.Errorf("%s: shares the prober %t, want %t", tt.name, shares, tt.shares)
		}
		s.end()
		s.end() // once more does no harm
		select {
		case <-first.prober.Done():
			t.Fatalf("%s: its end ended the other", tt.name)
		default:
		}
	}
}

// A prober that fails takes the CheckingLoops of all who share it with it; the next gets another.
func TestSharedProberFails(t *testing.T) {
	var ended []chan error
	for range 2 {
		c, result := NewChecker(), make(chan error, 1)
		ready := c.WaitReady()
		go func() { result <- c.CheckingLoop(t.Context()) }()
		<-ready
		if ended = append(ended, result); len(ended) == 2 {
			// Nobody else sends a report without a waiter: deliverToWaiters panics.
			if err := c.session.prober.Submit(Check{Timeout: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, result := range ended {
		if err := <-result; err == nil {
			t.Error("CheckingLoop returned nil")
		}
	}
	living, _ := listen(t, "tcp4", "127.0.0.1:0")
	if err := startChecker(t, Config{}).CheckAddr(living.String(), 10*time.Second); err != nil {
		t.Error("the next:", err)
	}
}

// By every method, a SYN to port 0 gets the answer that any other gets.
func TestPortZeroByMethod(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		c := startChecker(t, Config{Method: m})
		for _, addr := range loopback(t) { // with port 0
			var refused *ErrConnect
			if err := c.CheckAddr(addr, 10*time.Second); !errors.As(err, &refused) || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v", addr, err)
			}
		}
	})
}
