package checker

import (
	"errors"
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

// target is a host with a service on port 80.
type target struct {
	*lab.Host
	service *lab.Listener
}

func newTarget(l *lab.Lab) *target {
	web := l.Host("web")
	return &target{web, web.Listen(80)}
}

// unnoticed has n checks of the host carried out. It returns an error unless all that went over the wire is one SYN, one
// SYN-ACK and one RST for each, and the service saw none of it.
func (web *target) unnoticed(t *testing.T, wire *lab.Capture, targets []netip.AddrPort, n int, check func()) error {
	t.Helper()
	opened, accepted := web.Stat("TcpPassiveOpens"), web.service.Accepted()
	check()
	lab.Until(t, "the last RST", func() bool { return wire.Counts(targets...).To.RST >= n })
	wire.Stop()
	want := lab.Counts{To: lab.Tally{SYN: n, RST: n}, From: lab.Tally{SYNACK: n}}
	got := wire.Counts(targets...)
	expectNoEarlyACK(t, wire, got.To.ACK, targets)
	if got != want {
		return fmt.Errorf("captured %+v, want %+v", got, want)
	}
	opened, accepted = web.Stat("TcpPassiveOpens")-opened, web.service.Accepted()-accepted
	if opened != 0 || accepted != 0 {
		return fmt.Errorf("the listener saw %d connections and accepted %d", opened, accepted)
	}
	t.Logf("%d checks: %+v", n, want)
	return nil
}

// expectNoEarlyACK fails if any of that many bare ACKs is not one that the kernel had withheld for as long as it can.
func expectNoEarlyACK(t *testing.T, wire *lab.Capture, acks int, targets []netip.AddrPort) {
	t.Helper()
	if early := acks - overdueACKs(wire.Packets(), targets...); early != 0 {
		t.Fatalf("%d bare ACKs less than 200 ms after their SYN-ACK", early)
	}
}

// ends are those of a connection.
type ends struct{ prober, target netip.AddrPort }

// overdueACKs returns how many ACKs to the targets the kernel sent by itself, because the process got no CPU for the
// 200 ms that it waits after a SYN-ACK (TCP_DELACK_MAX).
func overdueACKs(packets []lab.Packet, targets ...netip.AddrPort) (n int) {
	const withheld = 200*time.Millisecond - 20*time.Millisecond // its clock may be so coarse
	wanted := make(map[netip.AddrPort]bool, len(targets))
	for _, target := range targets {
		wanted[target] = true
	}
	answered := make(map[ends]time.Time) // when the first SYN-ACK came
	for _, p := range packets {
		switch to, from := (ends{p.Src, p.Dst}), (ends{p.Dst, p.Src}); {
		case wanted[p.Dst] && p.Flags == lab.SYN:
			delete(answered, to)
		case wanted[p.Src] && p.Flags&(lab.SYN|lab.ACK) == lab.SYN|lab.ACK:
			if _, again := answered[from]; !again {
				answered[from] = p.Time
			}
		case wanted[p.Dst] && p.Flags == lab.ACK && p.Data == 0:
			if at, ok := answered[to]; ok && p.Time.Sub(at) >= withheld {
				n++
			}
		}
	}
	return n
}

// An ACK is overdue if it comes 200 ms after the first SYN-ACK of its own connection.
func TestOverdueACKs(t *testing.T) {
	prober, target := netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("192.0.2.2:80")
	begin := time.Now()
	out := func(at time.Duration, flags uint8) lab.Packet {
		return lab.Packet{Time: begin.Add(at * time.Millisecond), Src: prober, Dst: target, Flags: flags}
	}
	in := func(at time.Duration) lab.Packet {
		return lab.Packet{Time: begin.Add(at * time.Millisecond), Src: target, Dst: prober, Flags: lab.SYN | lab.ACK}
	}
	for _, tt := range []struct {
		name    string
		packets []lab.Packet
		want    int
	}{
		{"no ACK", []lab.Packet{out(0, lab.SYN), in(1), out(300, lab.RST)}, 0},
		{"at once", []lab.Packet{out(0, lab.SYN), in(1), out(2, lab.ACK)}, 0},
		{"after 100 ms", []lab.Packet{out(0, lab.SYN), in(1), out(101, lab.ACK)}, 0},
		{"after 200 ms", []lab.Packet{out(0, lab.SYN), in(1), out(201, lab.ACK), out(202, lab.RST)}, 1},
		{"after another SYN-ACK", []lab.Packet{out(0, lab.SYN), in(1), in(150), out(201, lab.ACK)}, 1},
		{"of the next connection", []lab.Packet{out(0, lab.SYN), in(1), out(2, lab.RST), out(200, lab.SYN), in(201), out(202, lab.ACK)}, 0},
		{"without a SYN-ACK", []lab.Packet{out(0, lab.SYN), out(300, lab.ACK)}, 0},
	} {
		if got := overdueACKs(tt.packets, target); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if got := overdueACKs(tt.packets, prober); got != 0 {
			t.Errorf("%s: %d of another target", tt.name, got)
		}
	}
}

// expectAnswers carries out packetChecks checks, all of which have to be answered.
func expectAnswers(t *testing.T, m Method, targets []netip.AddrPort) {
	t.Helper()
	counts, oddities, err := atFullSpeed(Config{Method: m}, targets, packetChecks)
	if counts[Answered] != packetChecks || err != nil {
		t.Fatal(counts, oddities, err)
	}
}

// Captured packets: a check of a living target is SYN, SYN-ACK, RST, and nothing more; the listener never
// sees a connection. With MethodSocket that takes a machine that has a CPU for the prober once in 200 ms.
func TestLabPackets(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := newTarget(l)
		for _, m := range []Method{MethodSocket, MethodRaw} {
			for family, targets := range living(web.Host, 80) {
				t.Run(m.String()+"/"+family, func(t *testing.T) {
					round := func() error {
						return web.unnoticed(t, l.Capture(), targets, packetChecks, func() { expectAnswers(t, m, targets) })
					}
					if m == MethodSocket {
						untilClean(t, round)
					} else if err := round(); err != nil {
						t.Error(err)
					}
				})
			}
		}
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
	counts, oddities, err := atFullSpeed(Config{Method: MethodRaw}, targets, len(targets))
	if counts[Answered] != len(targets) || err != nil {
		fmt.Println(counts, oddities, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Nor does MethodRaw complete a handshake, lose an answer or send anything twice if its process is stopped when the
// answers come.
func TestLabPacketsStopped(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		held := hold(web, 80)
		for family, addrs := range map[string][]netip.Addr{"IPv4": web.Addrs4(inFlight), "IPv6": web.Addrs6(inFlight)} {
			t.Run(family, func(t *testing.T) {
				targets := make([]netip.AddrPort, len(addrs))
				for i, addr := range addrs {
					targets[i] = netip.AddrPortFrom(addr, 80)
				}
				checkWhileStopped(t, l.Capture(), held, targets)
			})
		}
	})
}

// checkWhileStopped has another process check all the targets at once, and answers when that is stopped.
func checkWhileStopped(t *testing.T, wire *lab.Capture, web *held, targets []netip.AddrPort) {
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
	defer child.Process.Kill() // unless it has ended
	syns := web.await(t, targets)
	if err := child.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := awaitStop(child.Process.Pid); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	sent := wire.Counts(targets...).To.SYN
	web.answer(syns)
	want := lab.Counts{To: lab.Tally{SYN: sent, RST: len(targets)}, From: lab.Tally{SYNACK: len(targets)}}
	lab.UntilNil(t, func() error {
		if got := wire.Counts(targets...); got != want {
			return fmt.Errorf("captured %+v while the process was stopped, want %+v", got, want)
		}
		return nil
	})
	// Not a wait for anything: by then a SYN without an answer is to be sent again.
	time.Sleep(2 * firstRetry)
	if err := child.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	wire.Stop()
	if got := wire.Counts(targets...); got != want {
		t.Errorf("captured %+v in the end, want %+v", got, want)
	}
	t.Logf("%d checks: %+v", len(targets), want)
}

// awaitStop waits until the child process is stopped. It returns an error if the process ends instead.
func awaitStop(pid int) error {
	const stopped = 5 // CLD_STOPPED, see sigaction(2)
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("waitid", err)
		case info.Code != stopped:
			return errors.New("the process has ended")
		default:
			return nil
		}
	}
}

// How long MethodSocket leaves a SYN-ACK without its RST, in an idle process and in one whose goroutines take
// every core and keep the collector busy. Linux sends the ACK by itself after 200 ms; there is none here, unless other
// processes take the cores.
func TestLabResetTime(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		web.Listen(80)
		targets := living(web, 80)["IPv4"]
		measure := func(t *testing.T) error {
			wire := l.Capture()
			expectAnswers(t, MethodSocket, targets)
			wire.Stop()
			times := resetTimes(wire.Packets())
			if len(times) != packetChecks {
				t.Errorf("%d RSTs found, want %d", len(times), packetChecks)
			}
			t.Logf("SYN-ACK to RST: %s", quantiles(times))
			n := wire.Counts(targets...).To.ACK
			expectNoEarlyACK(t, wire, n, targets)
			if n != 0 {
				return fmt.Errorf("%d bare ACKs", n)
			}
			return nil
		}
		t.Run("idle", func(t *testing.T) { untilClean(t, func() error { return measure(t) }) })
		t.Run("busy", func(t *testing.T) {
			defer burn()()
			untilClean(t, func() error { return measure(t) })
		})
	})
}

// resetTimes returns how long after each SYN-ACK its RST came.
func resetTimes(packets []lab.Packet) []time.Duration {
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
