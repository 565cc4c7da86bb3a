package health

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// However the wall clock is set, people see instants as it has them now.
func TestClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour, 24 * 365 * time.Hour, -time.Second, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var off atomic.Int64
			wall := func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
			m := New(Options{Clock: wall})
			defer m.Close()
			var dead atomic.Bool
			m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
				if dead.Load() {
					return checker.Report{Result: checker.Refused}, time.Millisecond
				}
				return checker.Report{Result: checker.Answered}, time.Millisecond
			}))
			s := Settings{Damping: time.Hour, DampingMax: time.Hour}
			target := m.Target(addr(1), unique.Make(s), maxDuration)
			for range 3 {
				dead.Store(false)
				time.Sleep(20 * time.Second)
				dead.Store(true)
				time.Sleep(20 * time.Second)
			}
			dead.Store(false)
			time.Sleep(20 * time.Second)
			m.freezing.began.Store(m.now() - int64(time.Minute))
			synctest.Wait()

			before := target.Status()
			frozenBefore, _ := m.Frozen()
			off.Store(int64(step))
			after := target.Status()
			frozenAfter, _ := m.Frozen()
			for _, tt := range []struct {
				what          string
				before, after time.Time
			}{
				{"since", before.Since, after.Since}, {"checked", before.Checked, after.Checked},
				{"damped until", before.DampedUntil, after.DampedUntil}, {"frozen", frozenBefore, frozenAfter},
			} {
				if tt.before.IsZero() || tt.after.Sub(tt.before) != step {
					t.Errorf("%s: %v, then %v, want a step of %v", tt.what, tt.before, tt.after, step)
				}
			}
			if age := wall().Sub(after.Since); age < 20*time.Second || age > 60*time.Second {
				t.Errorf("%v old", age)
			}
			if time.Until(frozenAfter.Add(-step)) != -time.Minute {
				t.Errorf("frozen since %v", frozenAfter)
			}
		})
	}
}

// An instant does not wander although no two clocks are read at the same moment, and does not drift away either.
func TestClockIsSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jitter, n := []time.Duration{0, time.Microsecond, -15 * time.Millisecond, 16 * time.Millisecond, -time.Microsecond}, 0
		var drift time.Duration
		m := New(Options{Clock: func() time.Time {
			n++
			return time.Now().Add(jitter[n%len(jitter)] + drift)
		}})
		defer m.Close()
		target := m.Target(addr(1), plain, maxDuration)
		first := target.Status().Since
		for range 1000 {
			time.Sleep(7*time.Millisecond + 3)
			if got := target.Status().Since; got != first {
				t.Fatalf("since %v, and then since %v", first, got)
			}
		}
		drift = time.Hour
		first = target.Status().Since
		for range 1000 {
			time.Sleep(7*time.Millisecond + 3)
			if got := target.Status().Since; got != first {
				t.Fatalf("after a step since %v, and then since %v", first, got)
			}
		}
		first = first.Add(-drift)
		for range 3600 {
			drift += time.Millisecond
			time.Sleep(time.Second)
			if off := target.Status().Since.Sub(first) - drift; off < -70*time.Millisecond || off > 70*time.Millisecond {
				t.Fatalf("since is off by %v when the clock has drifted by %v", off, drift)
			}
		}
	})
}
