package health

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/coredns-shaker/shaker/checker"
)

func TestMark(t *testing.T) {
	for _, s := range []State{Unknown, Up, Down} {
		for _, r := range checker.Results() {
			m := newMark(s, r)
			if m.state() != s || m.result() != r || m&pointless != 0 {
				t.Errorf("%v, %v became %v, %v", s, r, m.state(), m.result())
			}
			m |= pointless
			if m.state() != s || m.result() != r {
				t.Errorf("%v, %v, pointless became %v, %v", s, r, m.state(), m.result())
			}
		}
	}
}

func TestSmooth(t *testing.T) {
	var target Target
	steps := []struct{ rtt, want time.Duration }{
		{800, 800}, {800, 800}, {1600, 900}, {100, 800}, {0, 700},
	}
	for i, s := range steps {
		target.smooth(s.rtt)
		if got := target.RTT(); got != s.want {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
	var quick Target
	quick.smooth(0)
	if quick.RTT() == 0 {
		t.Error("an answer within the clock's resolution looks like none")
	}
}

func TestWant(t *testing.T) {
	var target Target
	for _, s := range []struct{ keep, want time.Duration }{{5, 5}, {3, 5}, {9, 9}} {
		if !target.want(s.keep) || target.wanted.Load() != int64(s.want) {
			t.Errorf("want(%d) leaves %d, want %d", s.keep, target.wanted.Load(), s.want)
		}
	}
	target.wanted.Store(gone)
	if target.want(time.Hour) || target.wanted.Load() != gone {
		t.Error("a target that is gone was kept")
	}
}

func TestProlong(t *testing.T) {
	var target Target
	const second = time.Second
	steps := []struct {
		now  time.Duration
		keep time.Duration // asked for before
		want bool
	}{
		{100 * second, 0, false},
		{100 * second, 50 * second, true},
		{150*second - 1, 0, true},
		{150 * second, 0, false},
		{200 * second, 100 * second, true},
		{210 * second, 20 * second, true}, // ends earlier than what was asked for before
		{300*second - 1, 0, true},
		{300 * second, 0, false},
		{300*second + 1, 1, true}, // to the end of the second
		{301*second - 1, 0, true},
		{301 * second, 0, false},
		{400 * second, math.MaxInt64, true},
		{math.MaxUint32*second - 1, 0, true}, // as long as a target can stay
		{math.MaxUint32 * second, 0, false},
	}
	for i, s := range steps {
		if s.keep > 0 {
			target.want(s.keep)
		}
		if got := target.prolong(int64(s.now)); got != s.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestCheck(t *testing.T) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), plain, time.Minute)
	suspects := []struct {
		state  State
		result checker.Result
		want   bool
		tries  int
	}{
		{Unknown, checker.Inconclusive, false, 4},
		{Unknown, checker.Timeout, true, 4},
		{Up, checker.Answered, false, 4},
		{Up, checker.Refused, false, 4},
		{Up, checker.Timeout, true, 4}, // or a row of failures would get shorter checks each time
		{Up, checker.Inconclusive, false, 4},
		{Down, checker.Refused, true, 0},
		{Down, checker.Timeout, true, 0},
		{Down, checker.Answered, true, 0},
		{Down, checker.Inconclusive, true, 0},
	}
	for _, s := range suspects {
		target.mark.Store(uint32(newMark(s.state, s.result)))
		c := target.check(Settings{Timeout: 80, Tries: 4, Source: addr(2).Addr()})
		want := checker.Check{Target: addr(1), Source: addr(2).Addr(), Timeout: 80, Suspect: s.want, Tag: target}
		if s.tries > 0 {
			want.Tries, want.Spacing = s.tries, 20
		}
		if c != want {
			t.Errorf("%v, %v: %+v, want %+v", s.state, s.result, c, want)
		}
	}
}

func TestTargetSize(t *testing.T) {
	// The allocator's class before is 192, and the next one is 224.
	if size := unsafe.Sizeof(Target{}); size > 208 {
		t.Errorf("a target has %d bytes", size)
	}
	if size := unsafe.Sizeof(share{}); size > 96 {
		t.Errorf("what a target needs besides with a council has %d bytes", size)
	}
}
