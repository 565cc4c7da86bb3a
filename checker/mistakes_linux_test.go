package checker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a library that checks ports has got wrong elsewhere. (That the result of an old check goes to a new one on
// the same descriptor is what TestLabAnswerAfterTheEnd and TestLabStorm look for.)

// untouchedSignals in the environment makes the test binary check a port with DefaultChecker and then wait for
// a signal.
const untouchedSignals = "CHECKER_UNTOUCHED_SIGNALS"

func init() {
	addr := os.Getenv(untouchedSignals)
	if addr == "" {
		return
	}
	fmt.Println(DefaultChecker().CheckAddr(addr, 30*time.Second))
	select {}
}

// The library leaves signals to the program: without a handler of its own, SIGTERM ends it.
func TestSignalsAreLeftAlone(t *testing.T) {
	target, _ := listen(t, "tcp4", "127.0.0.1:0")
	// Others may be ignored here already: nohup(1) and background jobs of a shell pass that on.
	const signal = syscall.SIGTERM
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), untouchedSignals+"="+target.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var line string
	if _, err := fmt.Fscanln(out, &line); err != nil || line != "<nil>" {
		t.Errorf("the check: %q, %v", line, err)
	}
	cmd.Process.Signal(signal)
	cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != signal {
		t.Errorf("after %v: %v", signal, cmd.ProcessState)
	}
}

// A socket that cannot be made ready leaves no descriptor.
func TestSocketErrorLeavesNothing(t *testing.T) {
	before := lowestDescriptor()
	for _, open := range []func() error{
		func() error { _, err := openSocket(origin{}, egress{device: "no-such-interface"}); return err },
		func() error {
			_, err := openSocket(origin{source: netip.MustParseAddr("192.0.2.1")}, egress{})
			return err
		},
		func() error { _, err := newSocketProber(Config{Interface: "no-such-interface"}, nil); return err },
		func() error { _, err := newRawProber(Config{Interface: "no-such-interface"}, nil); return err },
		func() error { _, err := newDialProber(Config{Interface: "no-such-interface"}, nil); return err },
	} {
		if err := open(); err == nil {
			t.Error("there is no error")
		}
	}
	if now := lowestDescriptor(); now != before {
		t.Errorf("descriptors stayed open: the next is %d, not %d", now, before)
	}
}

// Checks in flight, and in line, take no goroutine each; those of MethodRaw no descriptor either.
func TestChecksInFlightCostNoGoroutine(t *testing.T) {
	const checks = 1000
	hole := blackHole(t)
	for _, m := range []Method{MethodSocket, MethodRaw} {
		t.Run(m.String(), func(t *testing.T) {
			needs(t, m)
			p, c := newTestProber(t, Config{Method: m})
			living, _ := listen(t, "tcp4", "127.0.0.1:0")
			goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
			for range checks {
				if err := p.Submit(Check{Target: hole, Timeout: time.Hour}); err != nil {
					t.Fatal(err)
				}
			}
			// What comes after them is answered, so they are on their way.
			p.Submit(Check{Target: living, Timeout: time.Minute, Tag: "living"})
			c.take(t, 1)
			if now := runtime.NumGoroutine(); now > goroutines {
				t.Errorf("%d goroutines, and %d before", now, goroutines)
			}
			if now := openDescriptors(t); m == MethodRaw && now > descriptors {
				t.Errorf("%d descriptors, and %d before", now, descriptors)
			}
		})
	}
}

// forbiddenLinger in the environment makes the test binary check a port where SO_LINGER cannot be set.
const forbiddenLinger = "CHECKER_FORBIDDEN_LINGER"

func init() {
	addr := os.Getenv(forbiddenLinger)
	if addr == "" {
		return
	}
	fmt.Println(checkWithoutLinger(netip.MustParseAddrPort(addr)))
	os.Exit(0)
}

func checkWithoutLinger(target netip.AddrPort) error {
	err := loadSeccomp([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompNumber},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 5, K: unix.SYS_SETSOCKOPT},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompArguments + 8},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SOL_SOCKET},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompArguments + 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SO_LINGER},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOBUFS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return err
	}
	for m, want := range map[Method]Result{MethodSocket: Inconclusive, MethodDial: Answered} {
		reports := make(chan Report, 1)
		p, err := NewProber(Config{Method: m}, func(r []Report) { reports <- r[0] })
		if err != nil {
			return err
		}
		defer p.Close()
		descriptors := 0
		for i := range 100 {
			p.Submit(Check{Target: target, Timeout: time.Minute})
			r := <-reports
			if r.Result != want || want == Inconclusive && !errors.Is(r.Err, unix.ENOBUFS) {
				return fmt.Errorf("%v: %v (%w)", m, r.Result, r.Err)
			}
			if i == 0 { // Go's own poller has opened what it keeps
				descriptors = lowestDescriptor()
			}
			// The runtime has files open for a moment, now and then. What a check has left stays.
			for patience := time.Now().Add(10 * time.Second); lowestDescriptor() != descriptors; time.Sleep(time.Millisecond) {
				if time.Now().After(patience) {
					return fmt.Errorf("%v: the next descriptor after %d checks is %d, not %d", m, i+1, lowestDescriptor(), descriptors)
				}
			}
		}
	}
	return nil
}

// Where a socket cannot be told to reset its connection, it is closed all the same.
func TestLingerErrorLeavesNothing(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("the filter is for 64-bit little-endian systems where setsockopt is a system call of its own")
	}
	target, _ := listen(t, "tcp4", "127.0.0.1:0")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), forbiddenLinger+"="+target.String())
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "<nil>\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// Timeouts are kept without a timer for each check.
func TestChecksCostNoTimer(t *testing.T) {
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1 // every allocation
	before := timersMade()
	timers := make([]*time.Timer, 100)
	for i := range timers {
		timers[i] = time.NewTimer(time.Hour)
	}
	if n := timersMade() - before; n != int64(len(timers)) {
		t.Fatalf("%d timers are counted as %d", len(timers), n)
	}
	hole := blackHole(t)
	living, _ := listen(t, "tcp4", "127.0.0.1:0")
	for _, m := range []Method{MethodSocket, MethodRaw} {
		t.Run(m.String(), func(t *testing.T) {
			needs(t, m)
			p, c := newTestProber(t, Config{Method: m})
			before := timersMade()
			const checks = 1000
			for i := range checks {
				p.Submit(Check{Target: hole, Timeout: 10 * time.Millisecond, Tag: 2 * i},
					Check{Target: living, Timeout: time.Minute, Tag: 2*i + 1})
			}
			c.take(t, 2*checks)
			if n := timersMade() - before; n > checks/10 {
				t.Errorf("%d timers for %d checks", n, 2*checks)
			}
		})
	}
}

// timersMade returns how many timers the process has made while MemProfileRate was 1.
func timersMade() (made int64) {
	runtime.GC() // what was allocated is counted after the next collection but one
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 10_000)
	n, ok := runtime.MemProfile(records, true)
	for !ok {
		records = make([]runtime.MemProfileRecord, 2*n)
		n, ok = runtime.MemProfile(records, true)
	}
	for _, r := range records[:n] {
		frames := runtime.CallersFrames(r.Stack())
		for more := true; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			if frame.Function == "time.newTimer" {
				made += r.AllocObjects
				break
			}
		}
	}
	return made
}
