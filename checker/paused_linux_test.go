package checker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// checkForever in the environment makes the test binary check targets until its input ends, and nothing else. It holds
// the method, the tries, and the targets. Whatever the checks find that they must not is printed, then how many there
// were of which result.
const checkForever = "CHECKER_FOREVER"

// burning in the environment has such a process use all the CPU that it can get.
const burning = "CHECKER_BURNING"

func init() {
	words := strings.Fields(os.Getenv(checkForever))
	if len(words) == 0 {
		return
	}
	if err := checkUntilEOF(words[0], words[1], words[2:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pausedTimeout is that of the checks of a process that is stopped now and then. lateAnswer is how long the answers of
// the late target take, and so most of the time a check of it is under way. A round trip of longestTrip must have a stop
// in it, even on a machine that is too busy to be on time with the answers.
const (
	pausedTimeout = time.Second
	lateAnswer    = 100 * time.Millisecond
	longestTrip   = 400 * time.Millisecond
)

func checkUntilEOF(method, tries string, targets []string) error {
	m, err := ParseMethod(method)
	if err != nil {
		return err
	}
	check := Check{Timeout: pausedTimeout}
	if _, err := fmt.Sscan(tries, &check.Tries); err != nil {
		return err
	}
	p, err := NewProber(Config{Method: m}, func(reports []Report) {
		for _, r := range reports {
			r.Tag.(chan Report) <- r
		}
	})
	if err != nil {
		return err
	}
	if os.Getenv(burning) != "" {
		burn()
	}
	var done atomic.Bool
	var all sync.WaitGroup
	var mu sync.Mutex
	counts := make(map[string]int)
	for _, target := range targets {
		check := check
		check.Target = netip.MustParseAddrPort(target)
		all.Go(func() {
			for !done.Load() {
				r := syncProber{p}.check(check)
				kind := fmt.Sprintf("%v %v", r.Result, r.Err)
				if untimed(r) {
					kind = "answered, untimed"
				}
				mu.Lock()
				counts[kind]++
				if r.Result != Answered && r.Err != ErrPaused {
					fmt.Printf("bad: %v: %v (%v), %d tries\n", target, r.Result, r.Err, r.Tries)
				}
				if r.RTT >= longestTrip && m != MethodDial {
					fmt.Printf("bad: %v: a round trip of %v\n", target, r.RTT)
				}
				mu.Unlock()
				time.Sleep(lateAnswer / 10)
			}
		})
	}
	fmt.Println("started")
	io.Copy(io.Discard, os.Stdin)
	done.Store(true)
	all.Wait()
	p.Close()
	fmt.Println("counts:", counts)
	return nil
}

// A process that is stopped, be it for long, takes no living target for a silent one, and no stop for a round trip: not of
// a target that answers at once, and not of one whose SYN-ACKs come while the process is stopped.
func TestLabStopped(t *testing.T) {
	stops := []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 30 * time.Second}
	if testing.Short() {
		stops[3] = 5 * time.Second
	}
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web, late := l.Host("web"), l.Host("late")
		web.Listen(80)
		late.Listen(80)
		late.Delay(lateAnswer)
		targets := []netip.AddrPort{
			netip.AddrPortFrom(web.Addr4, 80), netip.AddrPortFrom(web.Addr6, 80),
			netip.AddrPortFrom(late.Addr4, 80), netip.AddrPortFrom(late.Addr6, 80),
		}
		wire := l.Capture()
		var children []*stoppable
		for _, m := range methods() {
			for _, tries := range []int{1, 4} {
				children = append(children, startStoppable(t, m, tries, targets, ""))
			}
		}
		progress := func() {
			before := wire.Counts(targets...).From.SYNACK
			l.Until("checks", func() bool { return wire.Counts(targets...).From.SYNACK > before+20*len(children) })
		}
		for _, stop := range stops {
			progress()
			for _, c := range children {
				c.signal(t, unix.SIGSTOP)
			}
			time.Sleep(stop)
			for _, c := range children {
				c.signal(t, unix.SIGCONT)
			}
		}
		progress()
		for _, c := range children {
			c.expectGood(t)
		}
	})
}

// stoppable is a process that checks targets until its input is closed.
type stoppable struct {
	name  string
	cmd   *exec.Cmd
	input io.Closer
	out   *bufio.Reader
}

func startStoppable(t *testing.T, m Method, tries int, targets []netip.AddrPort, variable string) *stoppable {
	t.Helper()
	words := fmt.Sprintf("%v %d", m, tries)
	c := &stoppable{name: words, cmd: exec.Command(os.Args[0])}
	for _, target := range targets {
		words += " " + target.String()
	}
	c.cmd.Env = append(os.Environ(), checkForever+"="+words, variable)
	input, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() })
	c.input, c.out = input, bufio.NewReader(out)
	if line, err := c.out.ReadString('\n'); line != "started\n" {
		t.Fatalf("%s: %q (%v)", c.name, line, err)
	}
	return c
}

// A process that has used up its share of the CPU does not run for most of the time, and takes no living target down.
func TestLabQuota(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web, late := l.Host("web"), l.Host("late")
		web.Listen(80)
		late.Listen(80)
		late.Delay(lateAnswer)
		targets := []netip.AddrPort{netip.AddrPortFrom(web.Addr4, 80), netip.AddrPortFrom(late.Addr6, 80)}
		wire := l.Capture()
		var children []*stoppable
		var lifts []func()
		for _, m := range methods() {
			for _, tries := range []int{1, 4} {
				c := startStoppable(t, m, tries, targets, burning+"=1")
				children = append(children, c)
				lifts = append(lifts, lab.LimitCPU(t, c.cmd.Process.Pid, 5))
			}
		}
		before := wire.Counts(targets...).From.SYNACK
		l.Until("checks", func() bool { return wire.Counts(targets...).From.SYNACK > before+20*len(children) })
		for i, c := range children {
			lifts[i]()
			c.expectGood(t)
		}
	})
}

func (c *stoppable) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if s != unix.SIGSTOP {
		return
	}
	if err := awaitStop(c.cmd.Process.Pid); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
}

// expectGood ends the process. It fails the test if that has printed anything but counts.
func (c *stoppable) expectGood(t *testing.T) {
	t.Helper()
	c.input.Close()
	out, readErr := io.ReadAll(c.out)
	if err := c.cmd.Wait(); err != nil || readErr != nil || !strings.HasPrefix(string(out), "counts:") {
		t.Errorf("%s: %v, %v: %s", c.name, err, readErr, out)
	}
	t.Logf("%s: %s", c.name, out)
}

// stepper is a clock that can be set while it runs, and so can the one that goes on during a suspend.
type stepper struct{ offset, suspended atomic.Int64 }

func (s *stepper) clock() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

func (s *stepper) boot() time.Duration { return bootTime() + time.Duration(s.suspended.Load()) }

// What a clock does takes no living target down, and ends no check too late. One that is set forward, or a suspend, is time
// that this process has missed. One that is set back changes nothing.
func TestLabClockSet(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		for i, tt := range []struct {
			name            string
			offset, suspend time.Duration
			tries           int
			want            outcome
			sent            int // tries
		}{
			{"set forward", 5 * time.Minute, 0, 1, *unknown(ErrPaused), 1},
			{"set forward, tries", 5 * time.Minute, 0, 4, timedOut, 5},
			{"suspended", 0, time.Hour, 1, *unknown(ErrPaused), 1},
			{"suspended, tries", 0, time.Hour, 4, timedOut, 5},
			{"set back", -5 * time.Minute, 0, 1, timedOut, 1},
			{"set back, tries", -5 * time.Minute, 0, 4, timedOut, 4},
		} {
			for _, m := range []Method{MethodSocket, MethodRaw} {
				name := fmt.Sprintf("%v, %s", m, tt.name)
				port := uint16(80 + 2*i)
				if m == MethodRaw {
					port++
				}
				peer := newPeer(web, port, nil)
				var s stepper
				p := newSyncProber(t, Config{Method: m, clock: s.clock, boot: s.boot})
				attempt(t, name, web.Addrs4(attempts), func(addr netip.Addr) error {
					target, report := netip.AddrPortFrom(addr, port), make(chan Report, 1)
					begun := time.Now()
					p.Submit(Check{Target: target, Timeout: triesTimeout, Tries: tt.tries, Tag: report})
					l.Until("the SYN", func() bool { return peer.heard(target) > 0 })
					s.offset.Add(int64(tt.offset))
					s.suspended.Add(int64(tt.suspend))
					r := <-report
					took := time.Since(begun)
					if r.Result != tt.want.result || !errors.Is(r.Err, tt.want.err) || r.Tries != tt.sent || took > 2*triesTimeout {
						return fmt.Errorf("%v (%v) after %v, %d tries; want %v (%v), %d tries", r.Result, r.Err, took, r.Tries, tt.want.result, tt.want.err, tt.sent)
					}
					return nil
				})
			}
		}
	})
}
