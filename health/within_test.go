package health

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

func TestSilence(t *testing.T) {
	const ms, most = time.Millisecond, time.Duration(1<<63 - 1)
	for _, tt := range []struct {
		settings     Settings
		want, repeat time.Duration
	}{
		{Settings{}, 3 * time.Second, 1500 * ms},
		{Settings{Fall: 1}, time.Second, 1500 * ms},
		{Settings{Fast: 700 * ms, Timeout: 300 * ms}, 1700 * ms, 1000 * ms},
		{Settings{Fast: 300 * ms, Timeout: 300 * ms}, 900 * ms, 600 * ms},
		{Settings{Interval: 5 * time.Second, Fast: 2 * time.Second, Fall: 2}, 3 * time.Second, 3 * time.Second},
		// A probe does not follow another sooner than after a tick.
		{Settings{Interval: ms, Timeout: ms}, 2*tick + ms, tick + ms},
		// No sum overflows.
		{Settings{Fall: 1 << 20}, 1 << 20 * time.Second, 1500 * ms},
		{Settings{Fall: 1<<31 - 1}, maxDuration, 1500 * ms},
		{Settings{Fall: 1<<31 - 1, Timeout: time.Minute}, maxDuration, time.Minute + 500*ms},
		{Settings{Interval: most, Fast: most, Timeout: most}, maxDuration, 2 * maxDuration},
	} {
		s := settings(unique.Make(tt.settings))
		if got, repeat := s.silence(), s.onceMore(); got != tt.want || repeat != tt.repeat {
			t.Errorf("%v: %v, and one more check %v, want %v and %v", s, got, repeat, tt.want, tt.repeat)
		}
	}
}

// What is told at some age of a target that gets these results, each at the end of its check, the last for ever.
func TestWithin(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		settings Settings
		letters  string
		after    time.Duration // until a check has its result
		age      time.Duration
		want     time.Duration
	}{
		"new":                       {Settings{}, "t", time.Second, 0, 3 * time.Second},
		"silent once":               {Settings{}, "t", time.Second, 1200 * ms, 1800 * ms},
		"silent twice":              {Settings{}, "t", time.Second, 2999 * ms, ms},
		"down":                      {Settings{}, "t", time.Second, 3 * time.Second, 0},
		"silent, fall 1":            {Settings{Fall: 1}, "t", time.Second, 400 * ms, 600 * ms},
		"rejected on the way":       {Settings{}, "u", ms, 100 * ms, 2900 * ms},
		"first check under way":     {Settings{}, "a", 50 * ms, 49 * ms, 2951 * ms},
		"up":                        {Settings{}, "a", 50 * ms, 50 * ms, 0},
		"refused":                   {Settings{}, "r", 50 * ms, 50 * ms, 0},
		"inconclusive":              {Settings{}, "-", 50 * ms, 50 * ms, 0},
		"inconclusive, then silent": {Settings{}, "-t", 50 * ms, 1100 * ms, 0},
		"inconclusive at last":      {Settings{}, "t-", 200 * ms, 1900 * ms, 0},
		"late":                      {Settings{}, "t", 5 * time.Second, 4 * time.Second, 1500 * ms},
		"late for long":             {Settings{}, "t", time.Minute, 100 * time.Second, 1500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(Options{})
				defer m.Close()
				left := []rune(tt.letters)
				m.SetProber(newNetwork(t, m, func(checker.Check) (checker.Report, time.Duration) {
					letter := left[0]
					left = left[min(1, len(left)-1):]
					return checker.Report{Result: results[letter]}, tt.after
				}))
				target := m.Target(addr(1), unique.Make(tt.settings), time.Hour)
				synctest.Wait()
				time.Sleep(tt.age)
				synctest.Wait()
				if got := target.Within(); got != tt.want {
					t.Errorf("%v at the age of %v (%v), want %v", got, tt.age, target.State(), tt.want)
				}
			})
		})
	}
}

// Whatever the settings, a silent target is down when it was told to be.
func TestWithinIsABound(t *testing.T) {
	const seed = 12
	r := rand.New(rand.NewPCG(seed, 0))
	upTo := func(most time.Duration) time.Duration { return 1 + time.Duration(r.Int64N(int64(most))) }
	for range 200 {
		s := Settings{Interval: upTo(3 * time.Second), Timeout: upTo(2 * time.Second), Fall: 1 + r.IntN(5)}
		s.Fast = upTo(s.Interval)
		result, after := checker.Timeout, s.Timeout
		if r.IntN(3) == 0 {
			result, after = checker.Unreachable, upTo(s.Timeout)
		}
		synctest.Test(t, func(t *testing.T) {
			m := New(Options{})
			defer m.Close()
			m.SetProber(newNetwork(t, m, always(result, after)))
			begin := time.Now()
			target := m.Target(addr(1), unique.Make(s), time.Hour)
			var down, until time.Duration // the time of the verdict, and what it was told to be
			for target.State() == Unknown {
				if until = time.Since(begin) + target.Within(); until > time.Minute {
					t.Fatalf("seed %d, %v: down within %v", seed, s, until)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			if down = time.Since(begin) - time.Millisecond; down > until {
				t.Errorf("seed %d, %v: down after %v, told to be within %v", seed, s, down, until)
			}
		})
	}
}

func TestWithinFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 40, "10.0.%d.%d:443", checker.Timeout, Settings{})
		defer f.Close()
		f.SetFreeze(90, time.Hour)
		f.cut.Store(2)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if _, frozen := f.Frozen(); !frozen {
			t.Fatal("verdicts are not frozen")
		}
		target := f.Target(addr(1<<16), plain, time.Hour)
		if got := target.Within(); got != 0 {
			t.Errorf("%v while verdicts are frozen", got)
		}
		f.SetFreeze(0, 0)
		synctest.Wait()
		if got := target.Within(); got != 3*time.Second {
			t.Errorf("%v when they are not any more", got)
		}
	})
}

func TestWithinClosed(t *testing.T) {
	m := New(Options{})
	target := m.Target(addr(1), plain, time.Hour)
	if target.Within() <= 0 {
		t.Error("nobody can tell before a prober is there")
	}
	m.Close()
	if got := target.Within(); got != 0 {
		t.Errorf("%v after the end", got)
	}
}

func TestWithinAllocatesNothing(t *testing.T) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), unique.Make(Settings{Fall: 5}), time.Hour)
	if allocs := testing.AllocsPerRun(1000, func() { target.Within() }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkWithin(b *testing.B) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), plain, time.Hour)
	for b.Loop() {
		target.Within()
	}
}
