package health

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// outcome is what a target does to its probes.
type outcome struct {
	result checker.Result
	after  time.Duration
}

func awaitNetwork(t *testing.T, m *Monitor, outcomes []outcome) *network {
	by := map[netip.AddrPort]outcome{}
	for i, o := range outcomes {
		by[addr(i)] = o
	}
	return newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
		o := by[c.Target]
		return checker.Report{Result: o.result}, o.after
	})
}

func TestAwait(t *testing.T) {
	const ms = time.Millisecond
	const hold = 100 * ms
	tests := map[string]struct {
		outcomes []outcome
		settings Settings
		ages     []time.Duration // of the targets when the wait begins; shorter: 0
		hold     time.Duration
		want     time.Duration
	}{
		"nothing":                {nil, Settings{}, nil, hold, 0},
		"no hold":                {[]outcome{{checker.Answered, ms}}, Settings{}, nil, 0, 0},
		"negative hold":          {[]outcome{{checker.Answered, ms}}, Settings{}, nil, -1, 0},
		"answered":               {[]outcome{{checker.Answered, 7 * ms}}, Settings{}, nil, hold, 7 * ms},
		"refused":                {[]outcome{{checker.Refused, 5 * ms}}, Settings{}, nil, hold, 5 * ms},
		"the slowest counts":     {[]outcome{{checker.Answered, 7 * ms}, {checker.Refused, 9 * ms}}, Settings{}, nil, hold, 9 * ms},
		"inconclusive":           {[]outcome{{checker.Inconclusive, 3 * ms}}, Settings{}, nil, hold, 3 * ms},
		"silent":                 {[]outcome{{checker.Timeout, time.Second}, {checker.Answered, ms}}, Settings{}, nil, hold, hold},
		"unreachable, no row":    {[]outcome{{checker.Unreachable, ms}}, Settings{}, nil, hold, hold},
		"unreachable, row":       {[]outcome{{checker.Unreachable, 2 * ms}}, Settings{Fall: 1}, nil, hold, 2 * ms},
		"known":                  {[]outcome{{checker.Answered, ms}}, Settings{}, []time.Duration{50 * ms}, hold, 0},
		"silent, half over":      {[]outcome{{checker.Timeout, time.Second}}, Settings{}, []time.Duration{60 * ms}, hold, 40 * ms},
		"silent, over":           {[]outcome{{checker.Timeout, time.Second}}, Settings{}, []time.Duration{hold}, hold, 0},
		"old ends, new answers":  {[]outcome{{checker.Timeout, time.Second}, {checker.Answered, 20 * ms}}, Settings{}, []time.Duration{60 * ms}, hold, 40 * ms},
		"old over, new answers":  {[]outcome{{checker.Timeout, time.Second}, {checker.Answered, 20 * ms}}, Settings{}, []time.Duration{hold}, hold, 20 * ms},
		"two ages":               {[]outcome{{checker.Timeout, time.Second}, {checker.Timeout, time.Second}}, Settings{}, []time.Duration{60 * ms, 20 * ms}, hold, 80 * ms},
		"long hold, verdict":     {[]outcome{{checker.Timeout, time.Second}}, Settings{}, nil, time.Hour, 3 * time.Second},
		"hold of all eternity":   {[]outcome{{checker.Answered, ms}}, Settings{}, nil, 1<<63 - 1, ms},
		"many, one inconclusive": {[]outcome{{checker.Inconclusive, ms}, {checker.Answered, 4 * ms}, {checker.Refused, 2 * ms}}, Settings{}, nil, hold, 4 * ms},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(Options{})
				defer m.Close()
				m.SetProber(awaitNetwork(t, m, tt.outcomes))
				targets := make([]*Target, len(tt.outcomes), len(tt.outcomes)+1)
				begin := time.Now()
				for i := range tt.outcomes {
					if i < len(tt.ages) {
						time.AfterFunc(time.Hour-tt.ages[i], func() {
							targets[i] = m.Target(addr(i), unique.Make(tt.settings), maxDuration)
						})
					}
				}
				time.Sleep(time.Hour - time.Since(begin))
				synctest.Wait()
				for i := len(tt.ages); i < len(tt.outcomes); i++ {
					targets[i] = m.Target(addr(i), unique.Make(tt.settings), maxDuration)
				}
				holds := false
				for _, target := range targets {
					holds = holds || target.Holds(tt.hold)
				}
				if holds != (tt.want > 0) {
					t.Errorf("Holds is %v", holds)
				}
				start := time.Now()
				m.Await(append(targets, nil), tt.hold)
				if took := time.Since(start); took != tt.want {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				for _, target := range targets {
					if target.Holds(tt.hold) {
						t.Errorf("%v still holds", target.Addr())
					}
				}
				if len(m.waiters.of) != 0 || m.waiters.number.Load() != 0 {
					t.Error("the wait left something behind")
				}
			})
		})
	}
}

// What stopped holding does not begin again.
func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for letters, want := range map[string]bool{
			"": true, "t": true, "tu": true, "tut": false, "a": false, "r": false,
			"-": false, "-t": false, "-tu": false, "t-": false, "t-t": false, "-a": false,
		} {
			m := newMonitor(Options{})
			p := &manual{}
			m.SetProber(p)
			target := m.Target(addr(1), plain, time.Hour)
			now := int64(0)
			m.turn(now)
			for _, letter := range letters {
				m.Deliver([]checker.Report{{Tag: p.take()[0].Tag, Result: results[letter]}})
				now += int64(10 * time.Second)
				m.turn(now)
			}
			if got := target.Holds(time.Minute); got != want {
				t.Errorf("%q: %v", letters, got)
			}
			time.Sleep(time.Minute)
			if target.Holds(time.Minute) {
				t.Errorf("%q: holds when its time is over", letters)
			}
		}
	})
}

// An answer waits for a new prober too, but no longer than hold.
func TestAwaitWithoutProber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		target := m.Target(addr(1), plain, time.Hour)
		start := time.Now()
		m.Await([]*Target{target}, time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestAwaitMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		m.SetProber(awaitNetwork(t, m, []outcome{{checker.Answered, 10 * time.Millisecond}, {checker.Timeout, time.Second}}))
		living := m.Target(addr(0), plain, time.Hour)
		silent := m.Target(addr(1), plain, time.Hour)
		start := time.Now()
		var waiters sync.WaitGroup
		for i := range 500 {
			waiters.Go(func() {
				want, targets := 10*time.Millisecond, []*Target{living, living}
				if i%5 == 0 {
					want, targets = 100*time.Millisecond, []*Target{silent, living}
				}
				m.Await(targets, 100*time.Millisecond)
				if took := time.Since(start); took != want {
					t.Errorf("took %v, want %v", took, want)
				}
			})
		}
		waiters.Wait()
		if len(m.waiters.of) != 0 || m.waiters.number.Load() != 0 {
			t.Error("the waits left something behind")
		}
	})
}

func TestAwaitClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		target := m.Target(addr(1), plain, time.Hour)
		start := time.Now()
		var waiters sync.WaitGroup
		for range 10 {
			waiters.Go(func() { m.Await([]*Target{target}, time.Hour) })
		}
		synctest.Wait()
		m.Close()
		waiters.Wait()
		m.Await([]*Target{target}, time.Hour)
		if took := time.Since(start); took != 0 {
			t.Errorf("the waits took %v", took)
		}
	})
}

func TestAwaitKnownAllocatesNothing(t *testing.T) {
	m := newMonitor(Options{})
	p := &instant{m: m}
	m.SetProber(p)
	targets := []*Target{m.Target(addr(1), plain, time.Hour), m.Target(addr(2), plain, time.Hour)}
	m.turn(0)
	m.turn(1)
	if allocs := testing.AllocsPerRun(1000, func() { m.Await(targets, time.Hour) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
