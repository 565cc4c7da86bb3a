package health

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// What becomes of targets that fall silent, and of one that does not, while all peers are lost.
func TestLostPeers(t *testing.T) {
	slow := Settings{Interval: 20 * time.Second}
	tests := map[string]struct {
		settings Settings
		targets  int // of which all but the first living ones fall silent
		living   int
		dead     checker.Result
		die      time.Duration // when
		lose     time.Duration // when the peers are lost, 0 if they never are
		percent  int
		freezes  bool
		downs    int // in the end
	}{
		"one target, no peer lost":    {Settings{}, 1, 0, checker.Timeout, time.Second, 0, 90, false, 1},
		"one target":                  {Settings{}, 1, 0, checker.Timeout, time.Second, time.Second, 90, true, 0},
		"one target, unreachable":     {Settings{}, 1, 0, checker.Unreachable, time.Second, time.Second, 90, true, 0},
		"one target, slowly":          {slow, 1, 0, checker.Timeout, time.Second, time.Second, 90, true, 0},
		"five targets":                {Settings{}, 5, 0, checker.Timeout, time.Second, time.Second, 90, true, 0},
		"all but one of five":         {Settings{}, 5, 1, checker.Timeout, time.Second, time.Second, 90, false, 4},
		"all but one of twenty":       {Settings{}, 20, 1, checker.Timeout, time.Second, time.Second, 90, true, 0},
		"refused":                     {Settings{}, 5, 0, checker.Refused, time.Second, time.Second, 90, false, 5},
		"freezing is off":             {Settings{}, 5, 0, checker.Timeout, time.Second, time.Second, 0, false, 5},
		"the peers long before":       {Settings{}, 1, 0, checker.Timeout, time.Minute, time.Second, 90, false, 1},
		"the peers a while before":    {Settings{}, 1, 0, checker.Timeout, 10 * time.Second, time.Second, 90, false, 1},
		"the peers long after":        {Settings{}, 1, 0, checker.Timeout, time.Second, time.Minute, 90, false, 1},
		"the peers an hour before":    {slow, 1, 0, checker.Timeout, time.Hour, time.Second, 90, false, 1},
		"quick checks":                {Settings{Interval: 300 * time.Millisecond, Fast: 50 * time.Millisecond, Timeout: 100 * time.Millisecond}, 3, 0, checker.Timeout, time.Second, time.Second, 90, true, 0},
		"quick checks, a living host": {Settings{Interval: 300 * time.Millisecond, Fast: 50 * time.Millisecond, Timeout: 100 * time.Millisecond}, 3, 1, checker.Timeout, time.Second, time.Second, 90, false, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen recorder
				m := New(Options{Listener: &seen})
				defer m.Close()
				m.SetFreeze(tt.percent, time.Hour)
				living, began := map[string]bool{}, time.Now().Add(2*time.Minute)
				for i := range tt.living {
					living[addr(256*i).String()] = true
				}
				m.SetProber(newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
					switch {
					case living[c.Target.String()] || time.Since(began) < tt.die:
						return checker.Report{Result: checker.Answered, RTT: 1}, time.Millisecond
					case tt.dead == checker.Timeout:
						return checker.Report{Result: tt.dead}, c.Timeout
					default:
						return checker.Report{Result: tt.dead}, time.Millisecond
					}
				}))
				for i := range tt.targets {
					m.Target(addr(256*i), unique.Make(tt.settings), maxDuration)
				}
				pass(time.Until(began))
				if tt.lose > 0 {
					// Their heartbeats come each second. Three seconds after the last one they are lost.
					time.AfterFunc(tt.lose+2500*time.Millisecond, func() { m.LostPeers(4 * time.Second) })
				}
				pass(max(tt.die, tt.lose) + 2*time.Minute)
				m.Close()
				if _, frozen := m.Frozen(); frozen != tt.freezes || m.Counts().Down != tt.downs {
					t.Errorf("frozen %v, %d down, want %v, %d", frozen, m.Counts().Down, tt.freezes, tt.downs)
				}
				for _, c := range seen.changes {
					if tt.downs == 0 && c.From == Down && c.Run != 0 {
						t.Errorf("%+v", c)
					}
				}
			})
		})
	}
}

// A freeze because of lost peers ends when they are found, when the hosts are heard of, and after a while in any case.
func TestFoundPeers(t *testing.T) {
	tests := map[string]struct {
		found, heals time.Duration // 0 is never
		frozen       time.Duration // for how long, about
		expired      bool
		down         bool
	}{
		"found, and it is dead":      {found: 10 * time.Second, frozen: 10 * time.Second, down: true},
		"found, and it lives":        {found: 10 * time.Second, heals: 10 * time.Second, frozen: 10 * time.Second},
		"heard of":                   {heals: 20 * time.Second, frozen: 20 * time.Second},
		"never again":                {frozen: time.Minute, expired: true, down: true},
		"found after it is heard of": {found: 30 * time.Second, heals: 10 * time.Second, frozen: 10 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen recorder
				m := New(Options{Listener: &seen})
				defer m.Close()
				m.SetFreeze(90, time.Minute)
				a := newAssembly(m, Decision{Alone: true})
				defer a.check(t)
				m.SetCouncil(a)
				var alive atomic.Bool
				alive.Store(true)
				m.SetProber(newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
					if alive.Load() {
						return checker.Report{Result: checker.Answered}, time.Millisecond
					}
					return checker.Report{Result: checker.Timeout}, c.Timeout
				}))
				target := m.Target(addr(1), plain, maxDuration)
				pass(time.Minute)
				alive.Store(false)
				pass(3 * time.Second)
				m.LostPeers(4 * time.Second)
				if tt.found > 0 {
					time.AfterFunc(tt.found, m.FoundPeers)
				}
				if tt.heals > 0 {
					time.AfterFunc(tt.heals, func() { alive.Store(true) })
				}
				pass(2 * time.Minute)
				m.Close()
				if len(seen.freezes) != 2 || seen.freezes[1].Expired != tt.expired || len(a.froze) != 2 || !a.froze[0] || a.froze[1] {
					t.Fatalf("freezes %+v, the council was told %v", seen.freezes, a.froze)
				}
				if off := seen.freezes[1].Took - tt.frozen; off < -3*time.Second || off > 3*time.Second {
					t.Errorf("frozen for %v, want about %v", seen.freezes[1].Took, tt.frozen)
				}
				if is := target.State() == Down; is != tt.down {
					t.Errorf("it is %v", target.State())
				}
			})
		})
	}
}
