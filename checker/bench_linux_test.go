package checker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The benchmarks check living addresses on loopback, both ends of which run on this machine, and
// report CPU time per check besides the wall-clock time: the latter says little on a shared machine.
// Judge them by their ratio to the baselines of the same run.

// inFlight is how many checks the benchmarks keep going at a time.
const inFlight = 128

// wire is what a benchmark checks over: living targets, and the address that they are reached from.
type wire struct {
	targets []netip.AddrPort
	source  netip.Addr
}

// wireTargets is how many targets a wire has.
const wireTargets = 4096

// overLoopback has its targets in 127/8, all of them one listener.
func overLoopback(b *testing.B) wire {
	b.Helper()
	at, l := listenAsService(b)
	acceptAll(b, l, closeConn)
	w := wire{source: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	for i := range wireTargets {
		w.targets = append(w.targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), at.Port()))
	}
	return w
}

// listenAsService listens on a port as services have it: none of those that the kernel gives to whoever wants just any.
func listenAsService(b *testing.B) (netip.AddrPort, *net.TCPListener) {
	b.Helper()
	var kernels ephemeral
	kernels.begin()
	defer kernels.close()
	for port := kernels.known.from - 1; port >= 1024; port-- {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err == nil {
			b.Cleanup(func() { l.Close() })
			return l.Addr().(*net.TCPAddr).AddrPort(), l.(*net.TCPListener)
		}
	}
	b.Fatal("no port is free below those that the kernel chooses from")
	return netip.AddrPort{}, nil
}

// acceptAll has a thread of its own take what arrives in the accept queue, in the cheapest way there is: checks that
// complete the handshake would fill the queue otherwise.
func acceptAll(t testing.TB, l *net.TCPListener, take func(conn int)) {
	t.Helper()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(file.Fd()) // blocking from now on
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, _, err := unix.Accept(fd)
			switch err {
			case nil:
				take(conn)
			case unix.EINTR, unix.ECONNABORTED:
			default:
				return
			}
		}
	})
	t.Cleanup(func() {
		unix.Shutdown(fd, unix.SHUT_RDWR)
		accepting.Wait()
		file.Close()
	})
}

func closeConn(conn int) { unix.Close(conn) }

// measureCPU runs work and reports the CPU time that the process spent on each check.
func measureCPU(b *testing.B, work func()) {
	b.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := used()
	work()
	b.ReportMetric(float64(used()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

// BenchmarkProber is the batch form: a check goes out for each that is back, as many in a call as there are.
func BenchmarkProber(b *testing.B) {
	for _, m := range methods() {
		b.Run(m.String(), func(b *testing.B) {
			needs(b, m)
			benchProber(b, m, overLoopback(b))
		})
	}
}

func benchProber(b *testing.B, m Method, w wire) {
	back := make(chan int, inFlight)
	p, err := NewProber(Config{Method: m, Pool: inFlight}, func(reports []Report) {
		for _, r := range reports {
			if r.Result != Answered {
				b.Errorf("%v: %v", r.Result, r.Err)
			}
		}
		back <- len(reports)
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	checks := make([]Check, 0, inFlight)
	measureCPU(b, func() {
		free := inFlight
		for sent, finished := 0, 0; finished < b.N; {
			checks = checks[:0]
			for ; free > 0 && sent < b.N; free, sent = free-1, sent+1 {
				checks = append(checks, Check{Target: w.targets[sent%len(w.targets)], Timeout: 10 * time.Second})
			}
			p.Submit(checks...)
			n := <-back
			free, finished = free+n, finished+n
		}
	})
}

// BenchmarkChecker is the blocking form, with a goroutine per check under way.
func BenchmarkChecker(b *testing.B) {
	targets := overLoopback(b).targets
	c := NewChecker()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	ready := c.WaitReady()
	go func() { ended <- c.CheckingLoop(ctx) }()
	<-ready
	inGoroutines(b, func(i int) error {
		return c.CheckAddr(targets[i%len(targets)].String(), 10*time.Second)
	})
	cancel()
	<-ended
}

// BenchmarkBaselineDialer is what a program without this package does: a goroutine per check, a full
// connect, a reset.
func BenchmarkBaselineDialer(b *testing.B) { benchDialer(b, overLoopback(b)) }

func benchDialer(b *testing.B, w wire) {
	inGoroutines(b, func(i int) error {
		conn, err := net.DialTimeout("tcp4", w.targets[i%len(w.targets)].String(), 10*time.Second)
		if err != nil {
			return err
		}
		conn.(*net.TCPConn).SetLinger(0)
		return conn.Close()
	})
}

// inGoroutines calls check b.N times, each call in a goroutine of its own.
func inGoroutines(b *testing.B, check func(i int) error) {
	places := make(chan struct{}, inFlight)
	measureCPU(b, func() {
		var all sync.WaitGroup
		for i := range b.N {
			places <- struct{}{}
			all.Go(func() {
				if err := check(i); err != nil {
					b.Error(err)
				}
				<-places
			})
		}
		all.Wait()
	})
}

// BenchmarkBaselineSocketPerCheck is the leanest loop that makes a new socket for each check: one
// thread, one epoll instance, no queue, no timeouts.
func BenchmarkBaselineSocketPerCheck(b *testing.B) { benchSocketPerCheck(b, overLoopback(b)) }

func benchSocketPerCheck(b *testing.B, w wire) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(epoll)
	events := make([]unix.EpollEvent, inFlight)
	measureCPU(b, func() {
		for started, finished := 0, 0; finished < b.N; {
			for ; started < b.N && started-finished < inFlight; started++ {
				startOnNewSocket(b, epoll, w.targets[started%len(w.targets)])
			}
			n, err := unix.EpollWait(epoll, events, -1)
			if err != nil && err != unix.EINTR {
				b.Fatal(err)
			}
			for i := range max(n, 0) {
				if events[i].Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
					b.Fatal("refused")
				}
				unix.Close(int(events[i].Fd))
				finished++
			}
		}
	})
}

func startOnNewSocket(b *testing.B, epoll int, target netip.AddrPort) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	sa := &unix.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		b.Fatal(err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		b.Fatal(err)
	}
}
