package peers

import (
	"testing"
	"time"
)

// The network may tell of a replica that is gone after another has taken its place, to those who were there and to those who
// have just come. Nobody takes it for the one that speaks there, or waits for it.
func TestOutdated(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		first, living := w.houses[0], w.houses[1]
		time.Sleep(5 * time.Second)
		expect := func(h *house, when string, members int) {
			t.Helper()
			if !h.member(living.core.name).Alive {
				t.Errorf("%s: %d has lost the one that speaks", when, h.number)
			}
			if !h.core.ready() {
				t.Errorf("%s: %d is not ready", when, h.number)
			}
			if n := len(h.core.report().Members); n != members {
				t.Errorf("%s: %d knows %d members, want %d", when, h.number, n, members)
			}
		}
		first.core.joined("outdated", living.at, living.core.meta())
		expect(first, "who was there is told", 4)
		time.Sleep(5 * time.Second)
		expect(first, "5 s later", 4)
		first.core.left("outdated", false)
		expect(first, "the network has noticed", 3)

		fresh := w.houses[2]
		fresh.crash()
		fresh.start()
		fresh.core.joined("outdated", living.at, living.core.meta())
		time.Sleep(2500 * time.Millisecond)
		expect(fresh, "who has just come is told", 4)
		fresh.core.left("outdated", false)
		expect(fresh, "the network has noticed", 3)
	})
}

// A replica that starts anew has the place of the one before as soon as it is heard of, and that one does not linger.
func TestSuccessor(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		time.Sleep(5 * time.Second)
		h := w.houses[1]
		before := h.core.name
		h.crash()
		h.start()
		time.Sleep(500 * time.Millisecond)
		for _, other := range []*house{w.houses[0], w.houses[2]} {
			if x := other.member(before); x.Name != "" || !other.member(h.core.name).Alive {
				t.Errorf("%d sees %+v", other.number, other.core.report().Members)
			}
		}
	})
}

// What has arrived since this process was stopped is not moved into the future by the time of the stop. Otherwise it would take
// others for alive longer than it hears of them.
func TestPauseEnds(t *testing.T) {
	for _, tt := range []struct{ at, want int64 }{{10, 40}, {95, 100}, {100, 100}, {never, never}} {
		m := &member{heard: tt.at, advanced: 10}
		m.pause(30, 100)
		if m.heard != tt.want || m.advanced != 40 {
			t.Errorf("heard at %d: after the pause it is %d, want %d; advanced at %d", tt.at, m.heard, tt.want, m.advanced)
		}
	}
}
