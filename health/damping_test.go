package health

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

func TestDamping(t *testing.T) {
	const s, m = time.Second, time.Minute
	tests := map[string]struct {
		damping, most time.Duration
		want          map[uint8]time.Duration // by falls
	}{
		"off":          {0, 0, map[uint8]time.Duration{0: 0, 1: 0, 3: 0, 255: 0}},
		"off, most":    {0, m, map[uint8]time.Duration{3: 0, 255: 0}},
		"negative":     {-s, -m, map[uint8]time.Duration{3: 0, 255: 0}},
		"usual":        {30 * s, 5 * m, map[uint8]time.Duration{0: 0, 1: 0, 2: 0, 3: 30 * s, 4: m, 5: 2 * m, 6: 4 * m, 7: 5 * m, 8: 5 * m, 255: 5 * m}},
		"default most": {6 * s, 0, map[uint8]time.Duration{2: 0, 3: 6 * s, 4: 12 * s, 7: m, 255: m}},
		"constant":     {m, s, map[uint8]time.Duration{2: 0, 3: m, 4: m, 255: m}},
		"enormous":     {1<<63 - 1, 1<<63 - 1, map[uint8]time.Duration{2: 0, 3: maxDuration / 10, 6: maxDuration / 10 * 8, 9: maxDuration, 255: maxDuration}},
	}
	for name, tt := range tests {
		settings := settings(unique.Make(Settings{Damping: tt.damping, DampingMax: tt.most}))
		for falls, want := range tt.want {
			if got := settings.damping(falls); got != want {
				t.Errorf("%s, down for time %d: %v, want %v", name, falls, got, want)
			}
		}
	}
}

// A target that comes and goes stays away longer each time, until it has proved itself.
func TestDampingOfTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 2 * time.Minute
		var seen recorder
		m := New(Options{Listener: &seen})
		defer m.Close()
		var alive atomic.Bool
		alive.Store(true)
		m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
			if alive.Load() {
				return checker.Report{Result: checker.Answered}, time.Millisecond
			}
			return checker.Report{Result: checker.Refused}, time.Millisecond
		}))
		target := m.Target(addr(1), unique.Make(Settings{Damping: 30 * time.Second, DampingMax: most}), maxDuration)
		other := m.Target(addr(1), plain, maxDuration) // without damping
		until := func(target *Target, want State) time.Duration {
			began := time.Now()
			for target.State() != want {
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			return time.Since(began)
		}
		until(target, Up)
		for n, want := range []time.Duration{0, 0, 30 * time.Second, time.Minute, most, most} {
			seen.reset()
			alive.Store(false)
			if took := until(target, Down); took > 3500*time.Millisecond {
				t.Errorf("fall %d: noticed after %v only", n, took)
			}
			until(other, Down)
			fell := target.Status().Since
			synctest.Wait()
			told := slices.ContainsFunc(seen.reset(), func(c Change) bool {
				return c.Target == target && c.To == Down && c.Falls == n+1 && c.Damping == want
			})
			if !told {
				t.Errorf("fall %d: not told of with damping %v", n, want)
			}
			alive.Store(true)
			until(other, Up)
			if want > 0 {
				time.Sleep(4 * time.Second)
				synctest.Wait()
				s := target.Status()
				if !target.Damped() || m.Counts().Damped != 1 || s.Falls != n+1 || s.DampedUntil.Sub(fell) != want {
					t.Errorf("fall %d: damped %v, counted %d, %+v", n, target.Damped(), m.Counts().Damped, s)
				}
			}
			until(target, Up)
			// It was alive again once the other was down too, up to 2.2 s later, and then it took up to 2.5 s to be up.
			if took := time.Since(fell); took < want || took > want+5*time.Second {
				t.Errorf("fall %d: down for %v, want %v", n, took, want)
			}
			if s := target.Status(); target.Damped() || m.Counts().Damped != 0 || !s.DampedUntil.IsZero() {
				t.Errorf("fall %d: up, but damped", n)
			}
			time.Sleep(most - 20*time.Second)
		}
		time.Sleep(21 * time.Second)
		alive.Store(false)
		until(target, Down)
		if s := target.Status(); s.Falls != 1 {
			t.Errorf("%d falls after it had been up for long, want 1", s.Falls)
		}
	})
}

// While it is damped a target may fail again, and be forgotten.
func TestDampedTargetFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		var result atomic.Uint32 // a checker.Result
		m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
			return checker.Report{Result: checker.Result(result.Load())}, time.Millisecond
		}))
		target := m.Target(addr(1), unique.Make(Settings{Damping: time.Hour, DampingMax: time.Hour}), 4*time.Minute)
		for i, step := range []struct {
			result checker.Result
			state  State
			damped bool
		}{
			{checker.Answered, Up, false}, {checker.Refused, Down, false}, {checker.Answered, Up, false},
			{checker.Refused, Down, false}, {checker.Answered, Up, false}, {checker.Timeout, Down, false},
			{checker.Answered, Down, true}, {checker.Inconclusive, Down, true}, {checker.Unreachable, Down, false},
			{checker.Inconclusive, Down, false}, {checker.Answered, Down, true},
		} {
			result.Store(uint32(step.result))
			time.Sleep(20 * time.Second)
			synctest.Wait()
			damped := 0
			if step.damped {
				damped = 1
			}
			if target.State() != step.state || target.Damped() != step.damped || m.Counts().Damped != damped {
				t.Errorf("step %d, %v: %v, damped %v, counted %d", i, step.result, target.State(), target.Damped(), m.Counts().Damped)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := m.Counts(); n != (Counts{}) {
			t.Errorf("%+v once it was forgotten", n)
		}
	})
}
