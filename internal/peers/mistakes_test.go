package peers

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// What is removed by mistake when a replica of five is at fault for a minute: by own checks alone, if any of three observers
// could remove a target, and by this rule. A target counts once for each replica that removes it, though it lives.
func TestMistakes(t *testing.T) {
	const targets = 150
	tests := []struct {
		name  string
		fault func(m *model)
	}{
		{"a sick replica", func(m *model) { m.ill[2] = reachesNone }},
		{"half is not reached by one", func(m *model) { m.ill[2] = reachesHalf }},
		{"5 % loss", func(m *model) { m.lossy = 20 }},
	}
	for _, tt := range tests {
		line := []string{fmt.Sprintf("%-28s", tt.name)}
		for _, rule := range []string{"own checks", "any of 3", "this rule"} {
			removed, checks := mistakes(t, targets, rule, tt.fault)
			line = append(line, fmt.Sprintf("%s: %3d removed, %.1f checks a second", rule, removed, checks))
			if rule == "this rule" && removed > 0 {
				t.Errorf("%s: %d were removed by mistake", tt.name, removed)
			}
		}
		t.Log(strings.Join(line, "; "))
	}
}

// mistakes returns how many different targets some replica removes, and how often each was checked in a second.
func mistakes(t *testing.T, targets int, rule string, fault func(*model)) (removed int, checks float64) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{town: newTown(t, 5, 7), targets: targets, ill: make([]illness, 5), dead: make([]byte, targets), wanting: true}
		m.check = m.answer
		stop := make(chan struct{})
		done := make(chan struct{}, 2)
		for _, h := range m.houses {
			h.start()
			// A freeze would hide what the rule does by itself.
			h.monitor.SetFreeze(0, 0)
			if rule == "own checks" {
				h.monitor.SetCouncil(nil)
			}
			if rule == "any of 3" {
				h.monitor.SetCouncil(anyOf{h.core})
			}
		}
		go func() { m.meet(stop); done <- struct{}{} }()
		go func() { m.users(stop); done <- struct{}{} }()
		time.Sleep(5 * time.Second)
		m.mu.Lock()
		fault(m)
		clear(m.syns)
		m.mu.Unlock()
		gone := make(map[netip.AddrPort]bool)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			for _, h := range m.houses {
				for i := range targets {
					if x, ok := h.monitor.Find(target(i), quick); ok && x.State() == health.Down {
						gone[target(i)] = true
					}
				}
			}
		}
		m.mu.Lock()
		for _, n := range m.syns {
			checks += float64(n)
		}
		m.mu.Unlock()
		removed, checks = len(gone), checks/60/float64(targets)
		close(stop)
		<-done
		<-done
		for _, h := range m.houses {
			h.crash()
		}
		time.Sleep(5 * time.Second)
	})
	return removed, checks
}

// anyOf decides that a target is down when any observer says so.
type anyOf struct{ *core }

func (a anyOf) Enter(t *health.Target) health.Decision { return a.decided(t, a.core.Enter(t)) }
func (a anyOf) Decide(t *health.Target, own health.Opinion) health.Decision {
	return a.decided(t, a.core.Decide(t, own))
}

func (a anyOf) decided(t *health.Target, d health.Decision) health.Decision {
	if d.Tally.Down > 0 {
		d.State = health.Down
	}
	return d
}

// lost tells whether the SYN of a check is lost, and all of its further tries.
func (m *model) lost() bool {
	if m.lossy == 0 {
		return false
	}
	return m.town.rng.IntN(m.lossy) == 0
}
