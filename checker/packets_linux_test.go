package checker

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// packetChecks is how many checks the tests below capture.
const packetChecks = 10_000

// living returns as many living targets of the host per family as keep MethodRaw from running out of ports.
func living(h *lab.Host, port uint16) map[string][]netip.AddrPort {
	const addrs = 64
	targets := make(map[string][]netip.AddrPort)
	for family, all := range map[string][]netip.Addr{"IPv4": h.Addrs4(addrs), "IPv6": h.Addrs6(addrs)} {
		for _, addr := range all {
			targets[family] = append(targets[family], netip.AddrPortFrom(addr, port))
		}
	}
	return targets
}

// atFullSpeed carries out n checks of the targets in turn, inFlight of them at a time, and returns how many
// had which result. What was not answered it describes.
func atFullSpeed(o Config, targets []netip.AddrPort, n int) (counts [numResults]int, oddities []string, err error) {
	back := make(chan int, inFlight)
	o.Pool = inFlight
	p, err := NewProber(o, func(reports []Report) {
		for _, r := range reports {
			counts[r.Result]++
			if r.Result != Answered && len(oddities) < 10 {
				oddities = append(oddities, fmt.Sprintf("check %v: %v (%v)", r.Tag, r.Result, r.Err))
			}
		}
		back <- len(reports)
	})
	if err != nil {
		return counts, nil, err
	}
	defer p.Close() // the reports are all in by then
	for sent, finished := 0, 0; finished < n; finished += <-back {
		var checks []Check
		for ; sent < n && sent-finished < inFlight; sent++ {
			checks = append(checks, Check{Target: targets[sent%len(targets)], Timeout: time.Minute, Tag: sent})
		}
		if err := p.Submit(checks...); err != nil {
			return counts, nil, err
		}
	}
	return counts, oddities, nil
}

// expectPackets waits for the last RST and compares what was captured.
func expectPackets(t *testing.T, wire *lab.Capture, targets []netip.AddrPort, n int) {
	t.Helper()
	want := lab.Counts{To: lab.Tally{SYN: n, RST: n}, From: lab.Tally{SYNACK: n}}
	lab.UntilNil(t, func() error {
		if got := wire.Counts(targets...); got != want {
			return fmt.Errorf("captured %+v, want %+v", got, want)
		}
		return nil
	})
	t.Logf("%d checks: %+v", n, want)
}

// expectUnnoticed fails if the service on the host has seen a connection since it had opened that many.
func expectUnnoticed(t *testing.T, web *lab.Host, service *lab.Listener, opened int) {
	t.Helper()
	if n := web.Stat("TcpPassiveOpens") - opened; n != 0 || service.Accepted() != 0 {
		t.Errorf("the listener saw %d connections and accepted %d", n, service.Accepted())
	}
}

// Captured packets: a check of a living target is SYN, SYN-ACK, RST, and nothing more; the listener never
// sees a connection.
func TestLabPackets(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		service := web.Listen(80)
		opened := web.Stat("TcpPassiveOpens")
		for _, m := range []Method{MethodSocket, MethodRaw} {
			for family, targets := range living(web, 80) {
				t.Run(m.String()+"/"+family, func(t *testing.T) {
					wire := l.Capture()
					counts, oddities, err := atFullSpeed(Config{Method: m}, targets, packetChecks)
					if counts[Answered] != packetChecks || err != nil {
						t.Fatal(counts, oddities, err)
					}
					expectPackets(t, wire, targets, packetChecks)
					wire.Stop()
				})
			}
		}
		expectUnnoticed(t, web, service, opened)
	})
}

// checkInChild in the environment makes the test binary check the targets it holds, and nothing else.
const checkInChild = "CHECKER_RAW_CHECKS"

func init() {
	list := os.Getenv(checkInChild)
	if list == "" {
		return
	}
	var targets []netip.AddrPort
	for target := range strings.SplitSeq(list, ",") {
		targets = append(targets, netip.MustParseAddrPort(target))
	}
	counts, oddities, err := atFullSpeed(Config{Method: MethodRaw}, targets, packetChecks)
	if counts[Answered] != packetChecks || err != nil {
		fmt.Println(counts, oddities, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Nor does MethodRaw complete a handshake, lose an answer or send anything twice while its process is stopped.
func TestLabPacketsStopped(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		service := web.Listen(80)
		opened := web.Stat("TcpPassiveOpens")
		// The process sleeps most of the time, and answers arrive while it is stopped.
		web.Delay(5 * time.Millisecond)
		for family, targets := range living(web, 80) {
			t.Run(family, func(t *testing.T) {
				wire := l.Capture()
				checkWhileStopped(t, wire, targets)
				expectPackets(t, wire, targets, packetChecks)
				wire.Stop()
			})
		}
		expectUnnoticed(t, web, service, opened)
	})
}

// checkWhileStopped has another process check the targets, which it stops for two seconds half-way through.
func checkWhileStopped(t *testing.T, wire *lab.Capture, targets []netip.AddrPort) {
	t.Helper()
	names := make([]string, len(targets))
	for i, target := range targets {
		names[i] = target.String()
	}
	var out strings.Builder
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), checkInChild+"="+strings.Join(names, ","))
	child.Stdout, child.Stderr = &out, &out
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lab.Until(t, "half of the checks", func() bool { return wire.Counts(targets...).To.SYN >= packetChecks/2 })
	if err := child.Process.Signal(unix.SIGSTOP); err != nil {
		t.Error(err)
	}
	if err := unix.Waitid(unix.P_PID, child.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Errorf("waiting for the process to stop: %v", err)
	}
	stoppedAt := wire.Counts(targets...).To.SYN
	time.Sleep(2 * time.Second)
	resumedAt := wire.Counts(targets...).To.SYN
	if err := child.Process.Signal(unix.SIGCONT); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	t.Logf("stopped after %d SYNs", stoppedAt)
	if stoppedAt < packetChecks/2 || stoppedAt >= packetChecks || resumedAt != stoppedAt {
		t.Errorf("stopped after %d SYNs, and for no more than %d; want about %d", stoppedAt, resumedAt, packetChecks/2)
	}
}

// How long MethodSocket leaves a SYN-ACK without its RST, in an idle process and in one whose goroutines take
// every core and keep the collector busy. Linux sends the ACK by itself after 200 ms; there is none here.
func TestLabResetTime(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Listen(80)
		targets := living(web, 80)["IPv4"]
		measure := func(t *testing.T) {
			wire := l.Capture()
			counts, oddities, err := atFullSpeed(Config{Method: MethodSocket}, targets, packetChecks)
			if counts[Answered] != packetChecks || err != nil {
				t.Fatal(counts, oddities, err)
			}
			wire.Stop()
			if n := wire.Counts(targets...).To.ACK; n != 0 {
				t.Errorf("%d bare ACKs", n)
			}
			times := resetTimes(wire.Packets())
			if len(times) != packetChecks {
				t.Errorf("%d RSTs found, want %d", len(times), packetChecks)
			}
			t.Logf("SYN-ACK to RST: %s", quantiles(times))
		}
		t.Run("idle", measure)
		t.Run("busy", func(t *testing.T) {
			defer burn()()
			measure(t)
		})
	})
}

// resetTimes returns how long after each SYN-ACK its RST came.
func resetTimes(packets []lab.Packet) []time.Duration {
	type ends struct{ prober, target netip.AddrPort }
	answered := make(map[ends]time.Time)
	var times []time.Duration
	for _, p := range packets {
		switch {
		case p.Flags&(lab.SYN|lab.ACK) == lab.SYN|lab.ACK:
			answered[ends{p.Dst, p.Src}] = p.Time
		case p.Flags&lab.RST != 0:
			if at, ok := answered[ends{p.Src, p.Dst}]; ok {
				times = append(times, p.Time.Sub(at))
				delete(answered, ends{p.Src, p.Dst})
			}
		}
	}
	return times
}

func quantiles(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	at := func(part float64) time.Duration { return times[int(part*float64(len(times)-1))] }
	return fmt.Sprintf("p50 %v, p99 %v, max %v", at(0.5), at(0.99), at(1))
}

// burn starts goroutines that take every core, two to each, and make garbage. It returns how to stop them.
func burn() (stop func()) {
	var done atomic.Bool
	var all sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		all.Go(func() {
			kept := make(map[string][]byte)
			for i := 0; !done.Load(); i++ {
				kept[strconv.Itoa(i%4096)] = make([]byte, 1024)
			}
		})
	}
	return func() { done.Store(true); all.Wait() }
}
