package checker_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	tcpshaker "github.com/coredns-shaker/shaker/checker"
)

// The checks below are written as for github.com/tevino/tcp-shaker; only the import differs.

func startChecker(t *testing.T) *tcpshaker.Checker {
	t.Helper()
	c := tcpshaker.NewChecker()
	ctx, stopChecker := context.WithCancel(context.Background())
	ended := make(chan error)
	ready := c.WaitReady()
	go func() { ended <- c.CheckingLoop(ctx) }()
	<-ready
	t.Cleanup(func() {
		stopChecker()
		if err := <-ended; err != nil {
			t.Error("checking loop stopped due to fatal error:", err)
		}
	})
	return c
}

func livingAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// deadAddr returns an address where nobody listens, and nobody will for as long as the test runs: a connection of the
// test has its port.
func deadAddr(t *testing.T) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := d.Dial("tcp", livingAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

func TestCheckAddr(t *testing.T) {
	c := startChecker(t)
	if !c.IsReady() {
		t.Error("not ready after WaitReady")
	}
	if err := c.CheckAddr(livingAddr(t), 10*time.Second); err != nil {
		t.Error("living:", err)
	}
	_, port, _ := net.SplitHostPort(livingAddr(t))
	for _, host := range []string{"localhost", ""} {
		if err := c.CheckAddr(net.JoinHostPort(host, port), 10*time.Second); err != nil {
			t.Errorf("living, as %q: %v", host, err)
		}
	}
	for _, zeroLinger := range []bool{false, true} {
		if err := c.CheckAddrZeroLinger(livingAddr(t), 10*time.Second, zeroLinger); err != nil {
			t.Error("living:", err)
		}
	}
	err := c.CheckAddr(deadAddr(t), 10*time.Second)
	if _, ok := err.(*tcpshaker.ErrConnect); !ok || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dead: %T %v", err, err)
	}
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:nonsense", "127.0.0.1:65536", "[::1:80"} {
		if err := c.CheckAddr(addr, 10*time.Second); err == nil || errors.Is(err, tcpshaker.ErrTimeout) {
			t.Errorf("%q: error %v", addr, err)
		}
	}
	if err := c.CheckAddr(livingAddr(t), 0); err != tcpshaker.ErrTimeout {
		t.Errorf("no time at all: %v", err)
	}
}

func TestCheckConcurrently(t *testing.T) {
	c := startChecker(t)
	living, dead := livingAddr(t), deadAddr(t)
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if err := c.CheckAddr(living, time.Minute); err != nil {
				t.Error("living:", err)
			}
			if err := c.CheckAddr(dead, time.Minute); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error("dead:", err)
			}
		})
	}
	all.Wait()
}

// A checker can be stopped and started again, but not twice at a time; without a loop a check fails at once.
func TestCheckingLoop(t *testing.T) {
	c := tcpshaker.NewChecker()
	addr := livingAddr(t)
	for range 3 {
		if err := c.CheckAddr(addr, time.Hour); err != tcpshaker.ErrNotReady || c.IsReady() {
			t.Fatalf("without a loop: %v, ready %v", err, c.IsReady())
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		ready := c.WaitReady()
		go func() { ended <- c.CheckingLoop(ctx) }()
		<-ready
		if err := c.CheckingLoop(ctx); err != tcpshaker.ErrCheckerAlreadyStarted {
			t.Fatal("second loop:", err)
		}
		if err := c.CheckAddr(addr, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// Checks that are under way when the loop stops end at once.
func TestStopWhileChecking(t *testing.T) {
	c := tcpshaker.NewChecker()
	addr := livingAddr(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	ready := c.WaitReady()
	go func() { ended <- c.CheckingLoop(ctx) }()
	<-ready
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for {
				switch err := c.CheckAddr(addr, time.Hour); err {
				case nil:
				case tcpshaker.ErrNotReady, tcpshaker.ErrClosed:
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all.Wait()
}
