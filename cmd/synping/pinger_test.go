package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// network is a prober whose answers take as long as the test says.
type network struct {
	start   time.Time
	delay   time.Duration
	first   time.Duration // what the first answer takes longer than the others
	deliver func([]checker.Report)
	done    chan struct{}
	err     error

	mu      sync.Mutex // the answers that are due at the same moment come from goroutines of their own
	starts  []string   // when each check was submitted, and its target's port
	flying  int
	highest int // most checks in flight
	failAt  int // the number of the check that cannot be submitted any more
	timers  []*time.Timer
	checks  []*checker.Check // in flight, by number; nil once reported
}

func (n *network) Submit(checks ...checker.Check) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range checks {
		if n.failAt > 0 && len(n.starts) >= n.failAt {
			n.err = errors.New("the network is gone")
			close(n.done)
			return checker.ErrClosed
		}
		n.starts = append(n.starts, fmt.Sprintf("%v:%d", time.Since(n.start), c.Target.Port()))
		n.flying++
		n.highest = max(n.highest, n.flying)
		n.checks = append(n.checks, &c)
		number := len(n.checks) - 1
		delay := n.delay
		if number == 0 {
			delay += n.first
		}
		n.timers = append(n.timers, time.AfterFunc(delay, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.checks[number] = nil
			n.flying--
			n.deliver([]checker.Report{{Tag: c.Tag, Result: checker.Answered, RTT: delay}})
		}))
	}
	return nil
}

func (n *network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, c := range n.checks {
		if c != nil && n.timers[i].Stop() {
			n.deliver([]checker.Report{{Tag: c.Tag, Err: checker.ErrClosed}})
		}
	}
}

func (n *network) Done() <-chan struct{} { return n.done }
func (n *network) Err() error            { return n.err }

// pinger returns one whose targets have the ports 1 to targets and whose checks go through n.
func (n *network) pinger(s settings, targets int, w io.Writer) *pinger {
	var list []*target
	for i := range targets {
		list = append(list, &target{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(i+1))})
	}
	s.timeout = time.Minute
	p := newPinger(s, list, newPrinter(s, w))
	n.start, n.deliver, n.done = time.Now(), p.deliver, make(chan struct{})
	p.prober = n
	return p
}

func TestSchedule(t *testing.T) {
	tests := []struct {
		name    string
		s       settings
		targets int
		delay   time.Duration
		want    string
		highest int
	}{
		{"a round a second", settings{count: 3, concurrency: 64, interval: time.Second}, 2, 10 * time.Millisecond,
			"0s:1 0s:2 1s:1 1s:2 2s:1 2s:2", 2},
		{"no wait for answers", settings{count: 3, concurrency: 64, interval: time.Second}, 1, 5 * time.Second,
			"0s:1 1s:1 2s:1", 3},
		{"one at a time", settings{count: 2, concurrency: 1, interval: time.Second}, 3, 100 * time.Millisecond,
			"0s:1 100ms:2 200ms:3 1s:1 1.1s:2 1.2s:3", 1},
		{"late rounds are not made up for", settings{count: 4, concurrency: 1, interval: time.Second}, 1, 2500 * time.Millisecond,
			"0s:1 2.5s:1 5s:1 7.5s:1", 1},
		{"late by the second target", settings{count: 2, concurrency: 1, interval: time.Second}, 2, 2 * time.Second,
			"0s:1 2s:2 4s:1 6s:2", 1},
		{"as fast as concurrency lets", settings{count: 5, concurrency: 2}, 1, time.Second,
			"0s:1 0s:1 1s:1 1s:1 2s:1", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{delay: test.delay}
				p := n.pinger(test.s, test.targets, io.Discard)
				if err := p.run(t.Context()); err != nil {
					t.Error(err)
				}
				if got := strings.Join(n.starts, " "); got != test.want {
					t.Errorf("%s, want\n%s", got, test.want)
				}
				if n.highest != test.highest {
					t.Errorf("up to %d under way, want %d", n.highest, test.highest)
				}
				if want := test.s.count * test.targets; p.total.sent != want || !p.total.allAnswered() {
					t.Errorf("%d reported, %d answered, want %d", p.total.sent, p.total.answered(), want)
				}
			})
		})
	}
}

// A round that is held up delays those after it; they do not follow in a burst.
func TestNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: 100 * time.Millisecond, first: 5 * time.Second}
		p := n.pinger(settings{count: 4, concurrency: 1, interval: time.Second}, 1, io.Discard)
		if err := p.run(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := strings.Join(n.starts, " "), "0s:1 5.1s:1 6.1s:1 7.1s:1"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: 1500 * time.Millisecond}
		p := n.pinger(settings{concurrency: 64, interval: time.Second}, 2, io.Discard)
		ctx, cancel := context.WithTimeout(t.Context(), 3700*time.Millisecond)
		defer cancel()
		if err := p.run(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(n.start); took != 3700*time.Millisecond {
			t.Errorf("returned after %v, want the moment of the interrupt", took)
		}
		// Rounds began at 0, 1, 2 and 3 s; the answers of three were there.
		if len(n.starts) != 8 || p.total.sent != 6 || !p.total.allAnswered() || p.underWay != 0 {
			t.Errorf("%d started, %d counted, %d answered", len(n.starts), p.total.sent, p.total.answered())
		}
		for _, target := range p.targets {
			if target.sent != 3 {
				t.Errorf("%s: %d counted, want 3", target.addr, target.sent)
			}
		}
	})
}

func TestProberFails(t *testing.T) {
	for _, failAt := range []int{1, 3} { // 3 is the last
		synctest.Test(t, func(t *testing.T) {
			n := &network{delay: time.Millisecond, failAt: failAt}
			var out strings.Builder
			p := n.pinger(settings{count: 4, concurrency: 64, interval: time.Second}, 1, &out)
			if err := p.run(t.Context()); !errors.Is(err, n.err) || err == nil {
				t.Errorf("%v, want %v", err, n.err)
			}
			if want := fmt.Sprintf("\n%d sent, %d answered, 0%% loss", failAt, failAt); !strings.Contains(out.String(), want) {
				t.Errorf("no summary of what there was:\n%s", &out)
			}
		})
	}
}

func TestProberEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{delay: time.Hour, err: errors.New("the network is gone")}
		p := n.pinger(settings{count: 1, concurrency: 1}, 1, io.Discard)
		time.AfterFunc(time.Second, func() { close(n.done) })
		if err := p.run(t.Context()); err != n.err {
			t.Errorf("%v, want %v", err, n.err)
		}
	})
}

// events is a terminal for two: what goes to stdout and what to stderr, in order.
type events []string

type stream struct {
	name string
	to   *events
}

func (s stream) Write(b []byte) (int, error) {
	*s.to = append(*s.to, s.name+" "+string(b))
	return len(b), nil
}

func TestProgress(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got events
				n := &network{delay: 500 * time.Millisecond}
				p := n.pinger(settings{count: 3, concurrency: 64, interval: 3100 * time.Millisecond}, 1, stream{"out", &got})
				p.progress = &progress{w: stream{"err", &got}, shared: shared}
				if err := p.run(t.Context()); err != nil {
					t.Error(err)
				}
				const (
					answer = "out 192.0.2.1:1 answered in 500.000 ms\n"
					line   = "2 of 3 checked, 2 answered, 0 under way, 3s left"
				)
				blank := strings.Repeat(" ", len(line))
				want := []string{answer, answer, "err \r" + line, "err \r" + line} // after 0.5, 3.6, 5 and 6 s
				if shared {
					// The line leaves, the answer comes, the line is back, and leaves for the summary.
					want = append(want, "err \r"+blank+"\r", answer, "err \r3 of 3 checked, 3 answered, 0 under way, 0s left", "err \r"+blank+"\r")
				} else {
					want = append(want, answer, "err \r"+blank+"\r")
				}
				if len(got) != len(want)+1 || !slices.Equal(got[:len(want)], want) || !strings.HasPrefix(got[len(want)], "out \n--- ") {
					t.Errorf("%q, want\n%q and the summary", got, want)
				}
			})
		})
	}
}

func TestState(t *testing.T) {
	answered := tally{sent: 30, counts: map[checker.Result]int{checker.Answered: 20}}
	tests := []struct {
		state state
		want  string
	}{
		{state{elapsed: time.Minute, tally: answered, underWay: 2}, "30 checked, 20 answered, 2 under way"},
		{state{elapsed: time.Minute, tally: answered, planned: 90, underWay: 2}, "30 of 90 checked, 20 answered, 2 under way, 2m0s left"},
		{state{elapsed: time.Minute, planned: 90, underWay: 64}, "0 of 90 checked, 0 answered, 64 under way"},
	}
	for _, test := range tests {
		if got := test.state.String(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
