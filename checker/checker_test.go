package checker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func Example() {
	checker := tcpshaker.NewChecker()

	ctx, stopChecker := context.WithCancel(context.Background())
	defer stopChecker()
	go func() {
		if err := checker.CheckingLoop(ctx); err != nil {
			fmt.Println("checking loop stopped due to fatal error: ", err)
		}
	}()

	<-checker.WaitReady()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	err = checker.CheckAddr(l.Addr().String(), time.Second)
	switch err {
	case tcpshaker.ErrTimeout:
		fmt.Println("Connect timed out after 1s")
	case nil:
		fmt.Println("Connect succeeded")
	default:
		fmt.Println("Error occurred while connecting: ", err)
	}
	// Output: Connect succeeded
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
			if err := c.CheckAddr(living, 10*time.Second); err != nil {
				t.Error("living:", err)
			}
			if err := c.CheckAddr(dead, 10*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
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

func ExampleChecker_Check() {
	checker := tcpshaker.NewCheckerConfig(tcpshaker.Config{Method: tcpshaker.MethodDial})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ready := checker.WaitReady()
	go checker.CheckingLoop(ctx)
	<-ready

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	report := checker.Check(within, netip.MustParseAddrPort(l.Addr().String()))
	fmt.Println(report.Result, report.RTT > 0)
	// Output: answered true
}
