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

// Who was stopped for a while does not take others for alive longer than it hears of them afterwards.
func TestPauseEnds(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		time.Sleep(5 * time.Second)
		stopped, other := w.houses[0], w.houses[1]
		name := other.core.name
		stopped.pause()
		time.Sleep(30 * time.Second)
		stopped.proceed() // what has arrived meanwhile is there at once
		time.Sleep(2 * time.Second)
		other.crash()
		time.Sleep(silentAfter + time.Second)
		if x := stopped.member(name); x.Alive {
			t.Errorf("4 s after the crash of %d: %+v", other.number, x)
		}
	})
}
