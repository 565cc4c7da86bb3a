package checker

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// What a library that checks ports has got wrong elsewhere. (That the result of an old check goes to a new one on
// the same descriptor is what TestLabStorm looks for.)

// untouchedSignals in the environment makes the test binary check a port with DefaultChecker and then wait for
// a signal.
const untouchedSignals = "CHECKER_UNTOUCHED_SIGNALS"

func init() {
	addr := os.Getenv(untouchedSignals)
	if addr == "" {
		return
	}
	fmt.Println(DefaultChecker().CheckAddr(addr, 10*time.Second))
	select {}
}

// The library leaves signals to the program: without a handler of its own, SIGTERM ends it.
func TestSignalsAreLeftAlone(t *testing.T) {
	target, _ := listen(t, "tcp4", "127.0.0.1:0")
	// Others may be ignored here already: nohup(1) and background jobs of a shell pass that on.
	const signal = syscall.SIGTERM
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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
		func() error { _, err := newSocketProber(Options{Interface: "no-such-interface"}, nil); return err },
		func() error { _, err := newRawProber(Options{Interface: "no-such-interface"}, nil); return err },
		func() error { _, err := newDialProber(Options{Interface: "no-such-interface"}, nil); return err },
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
			p, c := newTestProber(t, Options{Method: m})
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
