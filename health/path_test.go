package health

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

var noRoute = checker.Report{Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}

// What this machine cannot reach any more goes down, unless it is this machine that reaches nobody.
func TestLost(t *testing.T) {
	one := func(format string, n int) []netip.AddrPort { return addrPorts(format, 1, n, 1) }
	others := one("192.0.2.%d", 5)
	var second []netip.AddrPort
	for _, a := range one("192.0.2.%d", 30) {
		second = append(second, netip.AddrPortFrom(a.Addr(), 2))
	}
	tests := map[string]struct {
		lost, others []netip.AddrPort
		fate         checker.Report
		settings     Settings
		known        bool // the lost were up before
		down         bool
		within       time.Duration
	}{
		"one of two":           {one("10.0.0.%d", 1), one("192.0.2.%d", 1), noRoute, Settings{}, true, true, 25 * time.Second},
		"half":                 {one("10.0.0.%d", 20), one("192.0.2.%d", 20), noRoute, Settings{}, true, true, 25 * time.Second},
		"many ports":           {addrPorts("10.0.0.%d", 1, 3, 10), others, noRoute, Settings{}, true, true, 25 * time.Second},
		"a port, alone":        {[]netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:2")}, one("192.0.2.%d", 1), noRoute, Settings{}, true, true, 25 * time.Second},
		"a port of each":       {second, one("192.0.2.%d", 30), noRoute, Settings{}, true, true, 25 * time.Second},
		"local reject":         {one("10.0.0.%d", 1), others, checker.Report{Err: checker.ErrFiltered}, Settings{}, true, true, 25 * time.Second},
		"fall 1":               {one("10.0.0.%d", 1), others, noRoute, Settings{Fall: 1}, true, true, 25 * time.Second},
		"quick":                {one("10.0.0.%d", 1), others, noRoute, Settings{Interval: 200 * time.Millisecond}, true, true, 21 * time.Second},
		"slow":                 {one("10.0.0.%d", 1), others, noRoute, Settings{Interval: 10 * time.Second}, true, true, 41 * time.Second},
		"slow, long row":       {one("10.0.0.%d", 1), others, noRoute, Settings{Interval: 10 * time.Second, Fall: 6}, true, true, 61 * time.Second},
		"another family":       {one("2001:db8::%d", 1), others, noRoute, Settings{}, true, true, 25 * time.Second},
		"never reached":        {one("10.0.0.%d", 1), others, noRoute, Settings{}, false, false, 5 * time.Minute},
		"family never reached": {one("2001:db8::%d", 5), others, noRoute, Settings{}, false, false, 5 * time.Minute},
		"everything":           {one("10.0.0.%d", 5), nil, noRoute, Settings{}, true, false, 5 * time.Minute},
		"everything, many":     {one("10.0.%d.1", 100), nil, noRoute, Settings{}, true, false, 5 * time.Minute},
		"all but a network":    {one("10.0.%d.1", 100), one("192.0.2.%d", 20), noRoute, Settings{}, true, false, 5 * time.Minute},
		"never, nobody":        {one("10.0.%d.1", 100), nil, noRoute, Settings{}, false, false, 5 * time.Minute},
		"busy":                 {one("10.0.0.%d", 1), others, checker.Report{Err: checker.ErrBusy}, Settings{}, true, false, 5 * time.Minute},
		"answers lost":         {one("10.0.0.%d", 1), others, checker.Report{Err: checker.ErrOverflow}, Settings{}, true, false, 5 * time.Minute},
		"descriptors":          {one("10.0.0.%d", 1), others, checker.Report{Err: os.NewSyscallError("socket", syscall.EMFILE)}, Settings{}, true, false, 5 * time.Minute},
		"ports":                {one("10.0.0.%d", 1), others, checker.Report{Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}, Settings{}, true, false, 5 * time.Minute},
		"memory":               {one("10.0.0.%d", 1), others, checker.Report{Err: os.NewSyscallError("connect", syscall.ENOBUFS)}, Settings{}, true, false, 5 * time.Minute},
		"permission":           {one("10.0.0.%d", 1), others, checker.Report{Err: os.NewSyscallError("connect", syscall.EACCES)}, Settings{}, true, false, 5 * time.Minute},
		"something else":       {one("10.0.0.%d", 1), others, checker.Report{Err: errors.New("else")}, Settings{}, true, false, 5 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, percent := range []int{0, 90} {
				synctest.Test(t, func(t *testing.T) {
					e := newEstate(t)
					defer e.Close()
					e.SetFreeze(percent, 5*time.Minute)
					if !tt.known {
						e.befall(tt.fate, tt.lost...)
					}
					others := e.want(Settings{}, tt.others...)
					lost := e.want(tt.settings, tt.lost...)
					e.pass(20 * time.Second)
					state := Unknown
					if tt.known {
						state = Up
						e.wantStates(t, "at first", Up, lost)
						e.befall(tt.fate, tt.lost...)
						e.seen.reset()
						e.pass(noPathFor - time.Second)
						e.wantStates(t, "soon after", Up, lost)
						e.pass(tt.within - noPathFor + time.Second)
					} else {
						e.pass(tt.within)
					}
					if tt.down {
						state = Down
					}
					e.wantStates(t, "lost", state, lost)
					e.wantStates(t, "others", Up, others)
					e.wantFrozen(t, "lost", false)
					if !tt.down {
						return
					}
					wantLost(t, e, tt.fate, settings(unique.Make(tt.settings)))
					e.befall(checker.Report{Result: checker.Answered}, tt.lost...)
					s := lost[0].Settings()
					e.pass(s.Interval + time.Duration(s.Rise)*s.Fast + time.Second)
					e.wantStates(t, "back", Up, lost)
				})
			}
		})
	}
}

// wantLost checks what is told of targets that went down because there is no path to them.
func wantLost(t *testing.T, e *estate, fate checker.Report, s Settings) {
	t.Helper()
	for _, c := range e.seen.reset() {
		if c.To != Down {
			continue
		}
		falls := map[State]int{Up: 1}[c.From]
		if c.Result != checker.Inconclusive || c.Err != fate.Err || c.Run < s.Fall || c.Falls != falls {
			t.Fatalf("told %+v", c)
		}
		if s := c.Target.Status(); s.State != Down || s.Result != checker.Inconclusive || s.Err != reason(fate.Err) {
			t.Fatalf("%+v", s)
		}
	}
}

// A fault of this machine may look like a missing path, hit any check, and come and go, as a full table of connections
// does. No target is lost by it, however many of its own checks fail in a row.
func TestLostAtRandom(t *testing.T) {
	for _, share := range []float64{0.3, 0.9, 0.99} {
		synctest.Test(t, func(t *testing.T) {
			var seen recorder
			m := New(Options{Listener: &seen})
			defer m.Close()
			random := rand.New(rand.NewPCG(31, 32))
			began := time.Now()
			m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
				if time.Since(began) > 10*time.Second && random.Float64() < share {
					return checker.Report{Err: checker.ErrFiltered}, time.Millisecond
				}
				return checker.Report{Result: checker.Answered}, time.Millisecond
			}))
			for _, a := range addrPorts("10.0.%d.1", 1, 200, 1) {
				m.Target(a, plain, maxDuration)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if c := m.Counts(); c.Up != 200 {
				t.Errorf("%v of checks fail: %+v", share, c)
			}
		})
	}
}

// A path that is gone for a moment, again and again, and faults that say nothing in between.
func TestLostRow(t *testing.T) {
	busy := checker.Report{Err: checker.ErrBusy}
	answered := checker.Report{Result: checker.Answered}
	tests := map[string]struct {
		steps []checker.Report // each for 15 s
		want  State
	}{
		"in a row":                {[]checker.Report{noRoute, noRoute}, Down},
		"an answer in between":    {[]checker.Report{noRoute, answered, noRoute}, Up},
		"busy in between":         {[]checker.Report{noRoute, busy, noRoute}, Down},
		"busy last":               {[]checker.Report{noRoute, busy}, Up},
		"reached again, unstably": {[]checker.Report{noRoute, answered, noRoute, answered, noRoute, answered}, Up},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstate(t)
				defer e.Close()
				e.SetFreeze(90, 5*time.Minute)
				e.want(Settings{}, addrPorts("192.0.2.%d", 1, 3, 1)...)
				lost := e.want(Settings{}, addr(1))
				e.pass(10 * time.Second)
				for _, r := range tt.steps {
					e.befall(r, addr(1))
					e.pass(15 * time.Second)
				}
				e.wantStates(t, "in the end", tt.want, lost)
			})
		})
	}
}

// The dead are no reason to keep what is lost, however many they are, nor are those that were never reached.
func TestLostAmongTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, 5*time.Minute)
		e.want(Settings{}, addrPorts("192.0.2.%d", 1, 9, 1)...)
		lost := e.want(Settings{}, addr(1))
		e.pass(10 * time.Second)
		dead := addrPorts("203.0.%d.1", 1, 200, 1)
		e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, dead...)
		e.want(Settings{}, dead...)
		never := addrPorts("2001:db8:%x::1", 1, 200, 1)
		e.befall(noRoute, never...)
		unknown := e.want(Settings{}, never...)
		e.pass(time.Minute)
		e.befall(noRoute, addr(1))
		e.pass(25 * time.Second)
		e.wantStates(t, "lost", Down, lost)
		e.wantStates(t, "never reached", Unknown, unknown)
		e.wantFrozen(t, "lost", false)
	})
}

// While verdicts are frozen nothing is lost, and what still has no path when they thaw gets its time.
func TestLostAfterFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, 5*time.Minute)
		e.want(Settings{}, addrPorts("192.0.%d.1", 1, 2, 1)...)
		lost := e.want(Settings{}, addrPorts("10.0.%d.1", 1, 2, 1)...)
		cut := addrPorts("203.0.%d.1", 1, 20, 1)
		e.want(Settings{}, cut...)
		e.pass(time.Minute)
		e.befall(noRoute, addrPorts("10.0.%d.1", 1, 2, 1)...)
		e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, cut...)
		e.pass(time.Minute)
		e.wantFrozen(t, "cut", true)
		e.wantStates(t, "cut", Up, e.all)
		e.befall(checker.Report{Result: checker.Answered}, cut[:8]...)
		e.pass(time.Minute)
		e.wantFrozen(t, "some are back", true)
		e.wantStates(t, "some are back", Up, e.all)
		e.befall(checker.Report{Result: checker.Answered}, cut...)
		e.pass(3 * time.Second)
		e.wantFrozen(t, "back", false)
		e.pass(noPathFor - 3*time.Second)
		e.wantStates(t, "back", Up, e.all)
		e.pass(6 * time.Second)
		e.wantStates(t, "lost", Down, lost)
	})
}

// Half of the uplink says that there is no route, the other half says nothing: that is one cut.
func TestFreezeWithoutPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, 5*time.Minute)
		silent, lost := addrPorts("192.0.%d.1", 1, 6, 1), addrPorts("10.0.%d.1", 1, 6, 1)
		e.want(Settings{}, append(silent, lost...)...)
		e.pass(time.Minute)
		e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, silent...)
		e.befall(noRoute, lost...)
		e.pass(time.Minute)
		e.wantFrozen(t, "cut", true)
		e.pass(10 * time.Minute)
		e.wantFrozen(t, "after MAX", false)
		e.wantStates(t, "silent", Down, e.all[:6])
		e.wantStates(t, "without a path, and nobody is heard of", Up, e.all[6:])
	})
}

// One target through random results, at random times, against a model that knows the whole past.
func TestLostAgainstNaive(t *testing.T) {
	type event struct {
		sent   int64
		r      checker.Report
		noPath bool
	}
	random := rand.New(rand.NewPCG(41, 42))
	downs := 0
	for range 400 {
		s := Settings{
			Interval: time.Duration(500+random.IntN(8000)) * time.Millisecond,
			Fast:     time.Duration(100+random.IntN(400)) * time.Millisecond,
			Rise:     1 + random.IntN(3), Fall: 1 + random.IntN(5),
		}
		m := newMonitor(Options{})
		p := &manual{}
		m.SetProber(p)
		witness := m.Target(addr(70000), plain, maxDuration)
		target := m.Target(addr(1), unique.Make(s), maxDuration)
		var now int64
		var events []event
		state, since := Unknown, 0 // since when the target was lost last, the usual rule goes on from there
		for now < int64(5*time.Minute) {
			m.turn(now)
			for _, c := range p.take() {
				if c.Tag == witness {
					m.Deliver([]checker.Report{{Tag: witness, Result: checker.Answered}})
					continue
				}
				e := event{sent: now}
				switch x := random.IntN(100); {
				case len(events) == 0:
					e.r.Result = checker.Answered
				case x < 2:
					e.r.Result = checker.Results()[1+random.IntN(4)]
				case x < 20:
					e.r.Err = checker.ErrBusy
				default:
					e.r.Err, e.noPath = checker.ErrFiltered, true
				}
				e.r.Tag = target
				events = append(events, e)
				m.Deliver([]checker.Report{e.r})
				m.turn(now)

				// What the whole past says.
				var results []checker.Result
				if since > 0 {
					results = append(results, checker.Refused) // as good as lost
				}
				for _, e := range events[since:] {
					results = append(results, e.r.Result)
				}
				if state == Up {
					row, first := 0, int64(0)
					for _, e := range events {
						switch {
						case e.noPath && row == 0:
							row, first = 1, e.sent
						case e.noPath:
							row++
						case e.r.Result != checker.Inconclusive:
							row = 0
						}
					}
					if e.noPath && row >= s.Fall && voteSlotAt(now)-voteSlotAt(first) >= int64(noPathFor)>>voteSlotBits {
						state, since = Down, len(events)
						downs++
					}
				}
				if state != Down || since < len(events) {
					state = naive(results, s.Rise, s.Fall)
				}
				if target.State() != state {
					t.Fatalf("%+v: %v after %d results, want %v", s, target.State(), len(events), state)
				}
			}
			now = max(now+1, m.nextTurn(now))
		}
	}
	if downs < 200 {
		t.Errorf("lost %d times only: not enough was tested", downs)
	}
}

// The page on checks has the numbers that decide.
func TestNoPathInDocs(t *testing.T) {
	lab.ExpectWords(t, "../docs/checks.md",
		fmt.Sprintf("all for %.0f seconds, have found no path", noPathFor.Seconds()),
		fmt.Sprintf("A network counts for %d hosts at most", networkSeats),
		fmt.Sprintf("Until this process has heard of %d hosts", startedFrom))
}
