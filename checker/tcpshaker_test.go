package checker_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// As checker/README.md says it.
import tcp "github.com/coredns-shaker/shaker/checker"

// The API of github.com/tevino/tcp-shaker, whose package is called tcp.
var (
	_ net.Error = tcp.ErrTimeout // a variable of a concrete type
	_ error     = tcp.ErrCheckerAlreadyStarted
	_ error     = (*tcp.ErrConnect)(nil)

	_ func() *tcp.Checker     = tcp.NewChecker
	_ func(bool) *tcp.Checker = tcp.NewCheckerZeroLinger
	_ func() *tcp.Checker     = tcp.DefaultChecker
	_ func() tcp.Options      = tcp.DefaultOptions

	_ func(*tcp.Checker, context.Context) error             = (*tcp.Checker).CheckingLoop
	_ func(*tcp.Checker) <-chan struct{}                    = (*tcp.Checker).WaitReady
	_ func(*tcp.Checker) bool                               = (*tcp.Checker).IsReady
	_ func(*tcp.Checker) int                                = (*tcp.Checker).PollerFd
	_ func(*tcp.Checker) error                              = (*tcp.Checker).Close
	_ func(*tcp.Checker, string, time.Duration) error       = (*tcp.Checker).CheckAddr
	_ func(*tcp.Checker, string, time.Duration, bool) error = (*tcp.Checker).CheckAddrZeroLinger
	_ func(*tcp.Checker, string, tcp.Options) error         = (*tcp.Checker).CheckAddrWithOptions
	_ func(tcp.Options, time.Duration) tcp.Options          = tcp.Options.WithTimeout
	_ func(tcp.Options, string) tcp.Options                 = tcp.Options.WithNetwork
	_ func(tcp.Options, bool) tcp.Options                   = tcp.Options.WithZeroLinger
	_                                                       = tcp.Options{Timeout: time.Second, Network: "tcp", ZeroLinger: true}
)

// hasPoller tells whether the default method here is Linux's.
var hasPoller = tcp.MethodDefault.String() == "socket"

func TestErrTimeout(t *testing.T) {
	if !tcp.ErrTimeout.Timeout() || !tcp.ErrTimeout.Temporary() || tcp.ErrTimeout.Error() != "I/O timeout" {
		t.Errorf("%v, timeout %t, temporary %t", tcp.ErrTimeout, tcp.ErrTimeout.Timeout(), tcp.ErrTimeout.Temporary())
	}
}

func TestOptions(t *testing.T) {
	if got, want := tcp.DefaultOptions(), (tcp.Options{Timeout: 3 * time.Second, Network: "tcp", ZeroLinger: true}); got != want {
		t.Errorf("default %+v, want %+v", got, want)
	}
	base := tcp.DefaultOptions()
	got := base.WithTimeout(time.Minute).WithNetwork("tcp6").WithZeroLinger(false)
	if want := (tcp.Options{Timeout: time.Minute, Network: "tcp6"}); got != want || base != tcp.DefaultOptions() {
		t.Errorf("%+v of %+v, want %+v", got, base, want)
	}
}

func TestCheckAddrWithOptions(t *testing.T) {
	c := startChecker(t)
	v4 := livingAddr(t)
	_, port, _ := net.SplitHostPort(v4)
	within := tcp.DefaultOptions().WithTimeout(10 * time.Second)
	for _, tt := range []struct{ addr, network, fault string }{
		{v4, "", ""},
		{v4, "tcp", ""},
		{v4, "tcp4", ""},
		{"localhost:" + port, "tcp4", ""},
		{":" + port, "tcp4", ""},
		{"[::ffff:127.0.0.1]:" + port, "tcp4", ""},
		{v4, "tcp6", "not an address for the network tcp6"},
		{"[::1]:" + port, "tcp4", "not an address for the network tcp4"},
		{"[::ffff:127.0.0.1]:" + port, "tcp6", "not an address for the network tcp6"},
		{v4, "udp", "unknown network udp"},
		{v4, "tcp5", "unknown network tcp5"},
	} {
		err := c.CheckAddrWithOptions(tt.addr, within.WithNetwork(tt.network))
		if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("%s over %q: %v, want %q", tt.addr, tt.network, err, tt.fault)
		}
	}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for addr, network := range map[string]string{l.Addr().String(): "tcp", ":" + port: "tcp6"} {
			if err := c.CheckAddrWithOptions(addr, within.WithNetwork(network)); err != nil {
				t.Errorf("%s over %s: %v", addr, network, err)
			}
		}
	}
	if err := c.CheckAddrWithOptions(v4, tcp.Options{}); err != tcp.ErrTimeout {
		t.Errorf("no time at all: %v", err)
	}
}

// Nobody can listen on port 0, but a SYN to it gets its answer as one to any other.
func TestPortZero(t *testing.T) {
	for _, m := range []tcp.Method{tcp.MethodDefault, tcp.MethodDial} {
		c := tcp.NewCheckerConfig(tcp.Config{Method: m})
		ctx, stop := context.WithCancel(t.Context())
		ready, ended := c.WaitReady(), make(chan error)
		go func() { ended <- c.CheckingLoop(ctx) }()
		<-ready
		err := c.CheckAddr("127.0.0.1:0", 10*time.Second)
		if _, ok := err.(*tcp.ErrConnect); !ok {
			t.Errorf("%v: %T %v", m, err, err)
		}
		if hasPoller && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: %v", m, err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Close has CheckingLoop return, and checks fail as they do without one.
func TestCloseChecker(t *testing.T) {
	c := new(tcp.Checker) // the zero value does
	for range 2 {
		if fd := c.PollerFd(); fd >= 0 {
			t.Errorf("descriptor %d without a loop", fd)
		}
		ready, ended := c.WaitReady(), make(chan error)
		go func() { ended <- c.CheckingLoop(t.Context()) }()
		<-ready
		if err := c.CheckAddr(livingAddr(t), 10*time.Second); err != nil {
			t.Error(err)
		}
		if fd := c.PollerFd(); (fd >= 0) != hasPoller {
			t.Errorf("descriptor %d", fd)
		}
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		closers.Wait()
		if err := <-ended; err != nil {
			t.Error("CheckingLoop:", err)
		}
		if c.IsReady() == hasPoller {
			t.Errorf("ready %t after Close", c.IsReady())
		}
	}
}

// Where handshakes are completed no CheckingLoop is needed, and one that runs changes nothing.
func TestDialNeedsNoLoop(t *testing.T) {
	c := tcp.NewCheckerConfig(tcp.Config{Method: tcp.MethodDial})
	addr, dead := livingAddr(t), deadAddr(t)
	check := func(when string) {
		t.Helper()
		if !c.IsReady() || c.PollerFd() >= 0 {
			t.Errorf("%s: ready %t, descriptor %d", when, c.IsReady(), c.PollerFd())
		}
		<-c.WaitReady()
		if err := c.CheckAddr(addr, 10*time.Second); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if err, ok := c.CheckAddr(dead, 10*time.Second).(*tcp.ErrConnect); !ok || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, dead: %v", when, err)
		}
	}
	check("without a loop")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- c.CheckingLoop(ctx) }()
	go func() { ended <- c.CheckingLoop(ctx) }()
	if err := <-ended; err != tcp.ErrCheckerAlreadyStarted {
		t.Error("the second of two loops:", err)
	}
	check("with a loop")
	stop()
	if err := <-ended; err != nil {
		t.Error("CheckingLoop:", err)
	}
	check("after the loop")
	c.Close()
	check("after Close")
	c.Close()

	wrong := tcp.NewCheckerConfig(tcp.Config{Method: tcp.MethodDial, Interface: "no-such-interface"})
	if err := wrong.CheckAddr(addr, 10*time.Second); err == nil || !strings.Contains(err.Error(), "cannot start: ") {
		t.Errorf("an interface that is not there: %v", err)
	}
}
