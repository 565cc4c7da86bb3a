package peers

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// set changes the town under its lock.
func (w *town) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// answers has checks come back as f says.
func (w *town) answers(f func(h *house, i int) checker.Result) {
	w.set(func() {
		w.check = func(h *house, a netip.AddrPort) (checker.Result, time.Duration) {
			octets := a.Addr().As4()
			return f(h, int(octets[1])<<16|int(octets[2])<<8|int(octets[3])), time.Millisecond
		}
	})
}

// saidLines returns the lines of a house that match.
func (h *house) saidLines(pattern string) (lines []string) {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	for _, line := range h.lines {
		if regexp.MustCompile(pattern).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// expectLine checks that a house has said something just so often.
func (h *house) expectLine(t *testing.T, times int, pattern string) {
	t.Helper()
	if got := h.saidLines(pattern); len(got) != times {
		t.Errorf("%d has told %d times, not %d, that %q: %q", h.number, len(got), times, pattern, h.saidLines("."))
	}
}

func (h *house) member(name string) Member {
	r := h.core.report()
	if i := slices.IndexFunc(r.Members, func(m Member) bool { return m.Name == name }); i >= 0 {
		return r.Members[i]
	}
	return Member{}
}

const letters = "?ud"

// expectStates checks that all who run say the same of all targets.
func (w *town) expectStates(t *testing.T, targets int, state health.State) {
	t.Helper()
	for _, h := range w.houses {
		if h.core == nil || h.paused {
			continue
		}
		if got := h.states(targets); got != strings.Repeat(letters[state:state+1], targets) {
			t.Errorf("%d says %s", h.number, got)
		}
	}
}

// A replica that reaches nobody removes nothing. It is in doubt, and the others know, until that ends.
func TestDoubt(t *testing.T) {
	simulate(t, 5, 1, func(w *town) {
		for _, h := range w.houses {
			h.monitor.SetFreeze(0, 0)
		}
		time.Sleep(time.Second)
		w.want(100)
		time.Sleep(3 * time.Second)
		w.answers(func(h *house, i int) checker.Result {
			if h.number == 2 && i < 60 {
				return checker.Timeout
			}
			return checker.Answered
		})
		time.Sleep(2*bound + 2*time.Second)
		w.expectStates(t, 100, health.Up)
		for _, h := range w.houses {
			if m := h.member("r2-1"); !m.InDoubt {
				t.Errorf("%d does not doubt: %+v", h.number, m)
			}
			h.expectLine(t, 1, "^! .*is in doubt: [0-9]+ hosts that are down by its( own)? checks are up for all other observers")
		}
		// It goes on checking, and others vote in its place where it says down.
		for i, n := range w.checkers(100) {
			if n < 3 || n > 4 {
				t.Errorf("target %d is checked by %d", i, n)
			}
		}
		for x := range w.houses[0].monitor.All() {
			voters := 0
			for _, s := range w.houses[0].core.said(x) {
				voters += boolInt(s.Observer)
				if s.Observer && s.Member == "r2-1" && s.Opinion.Word == health.SaysDown {
					t.Errorf("%v: the down of one in doubt counts", x.Addr())
				}
			}
			if voters != 3 {
				t.Errorf("%v: %d have a say", x.Addr(), voters)
			}
		}
		w.houses[2].expectDisagreements(t, false)
		w.answers(func(*house, int) checker.Result { return checker.Answered })
		time.Sleep(4 * time.Second)
		for _, h := range w.houses {
			if m := h.member("r2-1"); m.InDoubt {
				t.Errorf("%d still doubts: %+v", h.number, m)
			}
			h.expectLine(t, 1, "no longer in doubt")
			if n := h.core.report().Disagreeing; n != 0 {
				t.Errorf("%d disagrees about %d", h.number, n)
			}
		}
		w.houses[2].expectDisagreements(t, true)
	})
}

// Where two replicas contradict each other, none is more right than the other. Each is in doubt, and what both do not reach at once is
// all that leaves. That one comes in doubt before the other changes nothing.
func TestAllInDoubt(t *testing.T) {
	simulate(t, 2, 1, func(w *town) {
		time.Sleep(time.Second)
		w.want(60)
		time.Sleep(3 * time.Second)
		w.answers(func(h *house, i int) checker.Result {
			if i%2 == h.number {
				return checker.Timeout
			}
			return checker.Answered
		})
		for range 20 {
			time.Sleep(time.Second)
			w.want(60)
		}
		for _, h := range w.houses {
			for _, c := range h.takeChanges() {
				if c.To == health.Down {
					t.Errorf("%d removes %v by %+v", h.number, c.Target.Addr(), c.Tally)
				}
			}
			for _, m := range h.core.report().Members {
				if !m.InDoubt {
					t.Errorf("%d does not doubt %s", h.number, m.Name)
				}
			}
		}
		w.answers(func(*house, int) checker.Result { return checker.Answered })
		time.Sleep(10 * time.Second)
		for _, h := range w.houses {
			h.expectLine(t, 2, " is in doubt")
			h.expectLine(t, 2, "no longer in doubt")
		}
	})
}

// expectDisagreements checks that disagreements were told, each once, and that all have ended or none.
func (h *house) expectDisagreements(t *testing.T, ended bool) {
	t.Helper()
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	begins, ends := 0, 0
	for _, d := range h.told {
		if d.Ended {
			ends++
			continue
		}
		begins++
		if d.Own != health.SaysDown || d.InForce != health.Up || d.Tally.Of != 3 {
			t.Errorf("told %+v", d)
		}
	}
	if begins < 10 || (ends == begins) != ended || !ended && ends > 0 {
		t.Errorf("%d disagreements have begun and %d ended", begins, ends)
	}
}

// A replica that is cut off freezes, and the others decide without it. It follows them while it hears of them.
func TestFrozenReplica(t *testing.T) {
	simulate(t, 2, 1, func(w *town) {
		time.Sleep(time.Second)
		for _, h := range w.houses {
			for i := range 40 { // on 4 networks
				h.monitor.Target(target(i%4<<8|i), quick, keep)
			}
		}
		time.Sleep(3 * time.Second)
		dead := func(i int) bool { return i < 10 }
		w.answers(func(h *house, i int) checker.Result {
			if h.number == 0 || dead(i&255) {
				return checker.Timeout
			}
			return checker.Answered
		})
		time.Sleep(2 * bound)
		if !w.houses[0].isFrozen() {
			t.Error("it is not frozen")
		}
		if m := w.houses[1].member("r0-1"); !m.Frozen {
			t.Errorf("nobody knows: %+v", m)
		}
		w.houses[1].expectLine(t, 1, "verdicts are frozen there")
		for _, h := range w.houses {
			for i := range 40 {
				x, _ := h.monitor.Find(target(i%4<<8|i), quick)
				if got := x.State(); got == health.Down != dead(i) {
					t.Errorf("%d says that target %d is %v", h.number, i, got)
				}
			}
		}
		w.answers(func(*house, int) checker.Result { return checker.Answered })
		time.Sleep(2 * bound)
		w.houses[1].expectLine(t, 1, "not frozen there any more")
	})
}

// Peers and targets that fall silent together are this machine's fault, also if there is one target only.
func TestLostPeers(t *testing.T) {
	tests := []struct {
		name  string
		peers bool // they are lost
		dead  bool // the target is silent for all
		want  health.State
	}{
		{"the uplink is cut", true, false, health.Up},
		{"the target has died", false, true, health.Down},
	}
	for _, tt := range tests {
		simulate(t, 3, 1, func(w *town) {
			time.Sleep(time.Second)
			w.want(1)
			time.Sleep(3 * time.Second)
			w.answers(func(h *house, i int) checker.Result {
				if tt.dead || tt.peers && h.number == 0 {
					return checker.Timeout
				}
				return checker.Answered
			})
			if tt.peers {
				w.cutOff(0)
			}
			time.Sleep(10 * time.Second)
			for _, h := range w.houses {
				if got := h.states(1); got != letters[tt.want:tt.want+1] {
					t.Errorf("%s: %d says %s", tt.name, h.number, got)
				}
			}
			if tt.peers {
				w.houses[0].expectLine(t, 2, "^! .*silent for 3s")
				w.set(func() { clear(w.cut) })
				w.answers(func(*house, int) checker.Result { return checker.Answered })
				time.Sleep(5 * time.Second)
				w.houses[0].expectLine(t, 2, "heard of again")
				if w.houses[0].isFrozen() {
					t.Error("it is still frozen")
				}
			}
		})
	}
}

// cutOff cuts a replica off from all others.
func (w *town) cutOff(number int) {
	w.set(func() {
		for i := range w.houses {
			w.cut[[2]int{i, number}], w.cut[[2]int{number, i}] = true, true
		}
	})
}

// When a replica dies or stops, no verdict changes, and others check in its place within 4 s. When it goes on, nothing happens
// either.
func TestCrashAndPause(t *testing.T) {
	for _, how := range []string{"crash", "pause", "suspend", "goodbye", "stuck"} {
		simulate(t, 5, 1, func(w *town) {
			time.Sleep(time.Second)
			w.answers(func(_ *house, i int) checker.Result {
				if i%5 == 0 {
					return checker.Timeout
				}
				return checker.Answered
			})
			w.want(100)
			time.Sleep(5 * time.Second)
			for _, h := range w.houses {
				h.takeChanges()
			}
			h := w.houses[3]
			within := 4 * time.Second
			switch how {
			case "crash":
				h.crash()
			case "pause", "suspend":
				h.pause()
			case "goodbye":
				h.goodbye()
				within = 200 * time.Millisecond
			case "stuck":
				h.monitor.SetProber(deaf{})
				within = 6 * time.Second
			}
			time.Sleep(within)
			for i := range 100 {
				n := 0
				for _, h := range w.houses {
					if h.core == nil || h.number == 3 {
						continue
					}
					x, _ := h.monitor.Find(target(i), quick)
					h.core.mu.Lock()
					n += boolInt(h.core.byTarget[x].observes)
					h.core.mu.Unlock()
				}
				if n != 3 {
					t.Errorf("%s: target %d is checked by %d", how, i, n)
					break
				}
			}
			if how == "suspend" {
				w.set(func() { h.waiting = nil }) // nothing waits for a machine that sleeps
				for x := range h.monitor.All() {
					h.later(time.Second, func(*core) {
						h.monitor.Deliver([]checker.Report{{Tag: x, Result: checker.Answered, RTT: time.Millisecond}})
					})
				}
			}
			h.proceed()
			time.Sleep(5 * time.Second)
			for _, h := range w.houses {
				if changes := h.takeChanges(); h.core != nil && len(changes) > 0 {
					t.Errorf("%s: %d has changed its mind: %+v", how, h.number, changes[0])
				}
			}
			switch how {
			case "goodbye":
				w.houses[0].expectLine(t, 1, "has said goodbye")
				w.houses[0].expectLine(t, 0, "silent")
			case "stuck":
				w.houses[0].expectLine(t, 1, "finishes no checks")
			case "pause", "suspend":
				w.houses[0].expectLine(t, 1, "silent for 3s")
				w.houses[0].expectLine(t, 1, "heard of again")
				h.expectLine(t, 0, "silent")
			}
		})
	}
}

// Who finds out last that a member is in doubt already hears those who check in its place for others. They change nothing.
func TestDoubtLate(t *testing.T) {
	const notice = 5 * time.Second
	for _, tt := range []struct {
		name   string
		others []voice
		want   bool
	}{
		{"one has said up for long", []voice{{opinion: opinion{word: health.SaysUp}}}, true},
		{"and another one says so now", []voice{{opinion: opinion{word: health.SaysUp}}, {opinion: opinion{word: health.SaysUp}, said: int64(9 * time.Second)}}, true},
		{"none but now", []voice{{opinion: opinion{word: health.SaysUp}, said: int64(9 * time.Second)}}, false},
		{"one says down, too", []voice{{opinion: opinion{word: health.SaysUp}}, {opinion: opinion{word: health.SaysDown}}}, false},
	} {
		r := &record{voices: append([]voice{{opinion: opinion{word: health.SaysDown}}}, tt.others...)}
		for i := range r.voices {
			r.voices[i].member = newMember(string(rune('a'+i)), 0)
			r.voices[i].member.alive = true
		}
		if got := new(core).isContradicted(r, &r.voices[0], notice, int64(10*time.Second)); got != tt.want {
			t.Errorf("%s: contradicted %t, want %t", tt.name, got, tt.want)
		}
	}
}

// That a member is silent is told. That it finishes no checks either follows from that.
func TestSilentIsNotStuck(t *testing.T) {
	for _, alive := range []bool{true, false} {
		c := &core{self: newMember("a", 0), linesLeft: maxLines}
		m := newMember("b", 0)
		m.greeted, m.alive, m.stuck, m.told.joined, m.told.lost = true, alive, true, true, !alive
		c.tellMember(m, 1)
		if told := len(c.news) > 0; told != alive {
			t.Errorf("alive %t: told %t", alive, told)
		}
	}
}

// deaf is a prober from which nothing ever comes back.
type deaf struct{}

func (deaf) Submit(...checker.Check) error { return nil }

// Targets of which only one replica's users know are checked by three. When nobody wants them they leave all tables. Users of
// another one who want them later are told at once.
func TestWants(t *testing.T) {
	simulate(t, 5, 1, func(w *town) {
		time.Sleep(time.Second)
		w.answers(func(_ *house, i int) checker.Result {
			if i%2 == 0 {
				return checker.Refused
			}
			return checker.Answered
		})
		w.want(50, w.houses[4])
		time.Sleep(100 * time.Millisecond)
		for i, n := range w.checkers(50) {
			if n != 3 {
				t.Errorf("target %d is checked by %d", i, n)
			}
		}
		time.Sleep(time.Second)
		for i := range 50 {
			if got, want := w.houses[0].monitor.Target(target(i), quick, keep).State(), []health.State{health.Down, health.Up}[i%2]; got != want {
				t.Errorf("target %d is %v at once, not %v", i, got, want)
			}
		}
		time.Sleep(2*keep + 10*time.Second)
		for _, h := range w.houses {
			if n := h.monitor.Len(); n > 0 {
				t.Errorf("%d has %d targets", h.number, n)
			}
		}
	})
}

// As long as users of one replica want a target, it has three that check it, also if these forget it again and again.
func TestWantsGoOn(t *testing.T) {
	simulate(t, 5, 1, func(w *town) {
		time.Sleep(time.Second)
		for range 100 {
			w.want(20, w.houses[4])
			time.Sleep(2 * time.Second)
			before := w.checkers(20)
			time.Sleep(20 * time.Millisecond)
			for i, n := range w.checkers(20) {
				if n != 3 && before[i] != 3 {
					t.Errorf("target %d is checked by %d", i, n)
				}
			}
		}
	})
}

// Who may not check a target, or has no room for it, says so, and another one takes its place.
func TestUnable(t *testing.T) {
	tests := []struct {
		name  string
		limit func(h *house)
	}{
		{"not allowed", func(h *house) {
			c := h.config
			c.MayCheck = func(health.Subject) (k health.Key, keep time.Duration, ok bool) { return quick, keep, false }
			h.core.configure(c)
		}},
		{"no room", func(h *house) { h.monitor.SetLimits(1, 0); h.monitor.Target(target(999), quick, time.Hour) }},
		{"other settings", func(h *house) {
			c := h.config
			c.Offers, c.MayCheck = []health.Key{slow}, mayCheckWith(slow)
			h.core.configure(c)
		}},
	}
	for _, tt := range tests {
		simulate(t, 5, 1, func(w *town) {
			time.Sleep(time.Second)
			tt.limit(w.houses[1])
			time.Sleep(time.Second)
			w.want(50, w.houses[0])
			time.Sleep(time.Second)
			for i, n := range w.checkers(50) {
				if n != 3 {
					t.Errorf("%s: target %d is checked by %d", tt.name, i, n)
				}
			}
			if tt.name == "other settings" {
				time.Sleep(time.Second)
				w.houses[0].expectLine(t, 1, "^! .*other settings: its verdicts do not count for 50 targets")
				if !w.houses[0].member("r1-1").Strange {
					t.Error("it is not strange")
				}
				w.houses[1].core.configure(w.houses[1].config)
				time.Sleep(2 * time.Second)
				w.houses[0].expectLine(t, 1, "has the settings of this replica")
			}
		})
	}
}

// Notes reach all, also those who come later.
func TestNotes(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		w.set(func() { w.loss = 0.3 })
		time.Sleep(time.Second)
		w.houses[1].crash()
		for i := range 500 {
			w.houses[0].core.note(fmt.Sprint("k", i%100), []byte(fmt.Sprint(i)))
			time.Sleep(time.Millisecond)
		}
		w.houses[1].start()
		time.Sleep(15 * time.Second)
		for _, h := range w.houses[1:] {
			for i := range 100 {
				var got string
				w.set(func() { got = h.notes[fmt.Sprint("k", i)] })
				if want := fmt.Sprint(400 + i); got != want {
					t.Errorf("%d knows %q, not %q", h.number, got, want)
				}
			}
		}
		for range 2 {
			if !w.houses[0].core.note("k1", []byte("401")) || w.houses[0].core.note(strings.Repeat("k", 401), nil) || w.houses[0].core.note("k", make([]byte, 701)) {
				t.Error("what fits is told wrongly")
			}
		}
	})
}

// A member that comes and goes makes few lines, and the last is right.
func TestFlappingMember(t *testing.T) {
	simulate(t, 2, 1, func(w *town) {
		time.Sleep(2 * time.Second)
		for i := range 200 {
			w.set(func() { w.cut[[2]int{1, 0}] = i%2 == 0 })
			time.Sleep(4 * time.Second)
		}
		if n := len(w.houses[0].saidLines("r1-1")); n < 10 || n > 800/10+lineBurst {
			t.Errorf("%d lines", n)
		}
		time.Sleep(30 * time.Second)
		lines := w.houses[0].saidLines("r1-1")
		if last := lines[len(lines)-1]; !strings.Contains(last, "heard of again") {
			t.Errorf("the last line is %q", last)
		}
	})
}

// Who learns of nobody, and asks before anybody has heard of it, is answered all the same.
func TestStrangerIsAnswered(t *testing.T) {
	network := new(wire)
	c := newCore(Config{Offers: []health.Key{quick}}, "a", nil, Listener{}, network)
	c.sendChanges()
	at := netip.MustParseAddrPort("192.0.2.7:7946")
	c.receive(appendAsk(appendEnvelope(nil, kindAsk, "b"), &ask{[]span{{1, ^uint64(0)}}, 0, at}))
	if len(network.sent) != 1 || network.sent[0].to != "b" {
		t.Fatalf("sent %+v", network.sent)
	}
	for range 10 * strangersAnswered {
		c.receive(appendAsk(appendEnvelope(nil, kindAsk, "b"), &ask{[]span{{1, ^uint64(0)}}, 0, at}))
	}
	if len(network.sent) > strangersAnswered {
		t.Errorf("%d packets to strangers", len(network.sent))
	}
}

// Old messages change nothing, in whatever order they come again.
func TestReplay(t *testing.T) {
	simulate(t, 2, 3, func(w *town) {
		b := w.houses[1]
		var recorded [][]byte
		time.Sleep(time.Second)
		w.set(func() { w.record = func(message []byte) { recorded = append(recorded, slices.Clone(message)) } })
		w.want(20)
		for round := range 6 {
			w.answers(func(_ *house, i int) checker.Result {
				if (i+round)%3 == 0 {
					return checker.Refused
				}
				return checker.Answered
			})
			time.Sleep(3 * time.Second)
		}
		w.set(func() { w.record = nil })
		before := b.states(20)
		for i := range 3 * len(recorded) {
			b.core.take(recorded[(i*7919)%len(recorded)])
			if i%50 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			if got := b.states(20); got != before {
				t.Fatalf("a replay changed %s to %s", before, got)
			}
		}
	})
}

// Who says nothing of a target, though it should and lives, is passed over until it does.
func TestSilentObserverIsPassedOver(t *testing.T) {
	simulate(t, 5, 1, func(w *town) {
		time.Sleep(time.Second)
		w.set(func() {
			w.drop = func(to *house, message []byte) bool { return to.number == 1 && kind(message[1]) == kindWants }
		})
		w.want(50, w.houses[0])
		time.Sleep(2500 * time.Millisecond)
		short := slices.DeleteFunc(w.checkers(50), func(n int) bool { return n == 3 })
		if len(short) == 0 {
			t.Error("all have three observers, so nobody was waited for")
		}
		time.Sleep(time.Second)
		for i, n := range w.checkers(50) {
			if n != 3 {
				t.Errorf("target %d is checked by %d", i, n)
			}
		}
		w.set(func() { w.drop = nil })
		time.Sleep(time.Duration(askLater) + time.Second)
		n := 0
		for x := range w.houses[1].monitor.All() {
			n += boolInt(x.Own().Word == health.SaysUp)
		}
		if n != len(short) {
			t.Errorf("it checks %d, and %d wait for it", n, len(short))
		}
	})
}

// What little is lost is known all the same, soon.
func TestFlipsUnderLoss(t *testing.T) {
	for _, flips := range []int{1, 100, 1000} {
		simulate(t, 10, 1, func(w *town) {
			time.Sleep(time.Second)
			w.want(flips)
			time.Sleep(3 * time.Second)
			w.set(func() { w.loss = 0.05 })
			w.answers(func(*house, int) checker.Result { return checker.Refused })
			first, last := time.Time{}, time.Now()
			for range 800 {
				time.Sleep(5 * time.Millisecond)
				done := true
				for _, h := range w.houses {
					n := strings.Count(h.states(flips), "d")
					if n > flips/2 && first.IsZero() {
						first = time.Now()
					}
					done = done && n == flips
				}
				if last = time.Now(); done {
					break
				}
			}
			w.expectStates(t, flips, health.Down)
			// The checks themselves take their time.
			if took := time.Since(last) + last.Sub(first); took > 2*time.Second {
				t.Errorf("%d flips at 5 %% loss took %v", flips, took)
			} else {
				t.Logf("%d flips at 5 %% loss: the last is known %v after the most", flips, took)
			}
		})
	}
}

// What a group costs that has nothing to say.
func TestIdleOctets(t *testing.T) {
	for _, n := range []int{3, 10, 30} {
		simulate(t, n, 1, func(w *town) {
			time.Sleep(time.Second)
			w.want(20, w.houses[0])
			time.Sleep(5 * time.Second)
			w.set(func() { w.sent = [2]int{} })
			const window = 20 * time.Second
			time.Sleep(window)
			w.mu.Lock()
			defer w.mu.Unlock()
			octets := float64(w.sent[1]) / window.Seconds() / float64(n)
			t.Logf("%d replicas: each sends %.0f octets in %.1f messages a second", n, octets, float64(w.sent[0])/window.Seconds()/float64(n))
			if octets > 40*float64(n-1) {
				t.Errorf("%.0f octets a second", octets)
			}
		})
	}
}

// Where heartbeats arrive and all else is lost, such as what is larger than a link carries or what somebody on the way picks out,
// old words do not go on deciding.
func TestOldWordsDoNotDecide(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		w.answers(func(*house, int) checker.Result { return checker.Refused })
		time.Sleep(time.Second)
		w.want(20)
		time.Sleep(5 * time.Second)
		w.expectStates(t, 20, health.Down)
		w.set(func() {
			w.drop = func(to *house, message []byte) bool {
				e, _, _ := openEnvelope(message)
				return to.number == 0 && e.kind == kindChanges
			}
		})
		w.answers(func(*house, int) checker.Result { return checker.Answered })
		time.Sleep(20 * time.Second)
		w.expectStates(t, 20, health.Up)
		w.houses[0].expectLine(t, 2, "^! .* is heard of, but what it says does not arrive: its verdicts do not count")
		w.set(func() { w.drop = nil })
		time.Sleep(5 * time.Second)
		w.houses[0].expectLine(t, 2, "arrives again")
		w.expectStates(t, 20, health.Up)
		for _, h := range w.houses[1:] {
			h.expectLine(t, 0, "does not arrive")
		}
	})
}

// What a replica said before it was stopped, or lost, does not bring a target back that has died since. It says it again when
// it has checked.
func TestReturn(t *testing.T) {
	const targets = 5
	for _, away := range []struct {
		name        string
		leave, back func(h *house)
	}{
		{"stopped", (*house).pause, (*house).proceed},
		{"cut off", func(h *house) { h.town.cutOff(1) }, func(h *house) { h.town.set(func() { clear(h.town.cut) }) }},
	} {
		t.Run(away.name, func(t *testing.T) {
			simulate(t, 2, 1, func(w *town) {
				time.Sleep(time.Second)
				w.want(targets)
				time.Sleep(3 * time.Second)
				away.leave(w.houses[1])
				w.answers(func(h *house, _ int) checker.Result {
					if h == w.houses[1] && away.name == "cut off" {
						return checker.Answered
					}
					return checker.Refused
				})
				time.Sleep(10 * time.Second)
				if got, want := w.houses[0].states(targets), strings.Repeat("d", targets); got != want {
					t.Fatalf("%s, want %s", got, want)
				}
				w.houses[0].takeChanges()
				away.back(w.houses[1])
				time.Sleep(500 * time.Millisecond)
				for i, h := range w.houses {
					if changes := h.takeChanges(); i == 0 && len(changes) > 0 {
						t.Errorf("the one that stayed: %v", changes[0])
					}
				}
				time.Sleep(20 * time.Second)
				if a, b := w.houses[0].states(targets), w.houses[1].states(targets); a != b {
					t.Errorf("%s and %s", a, b)
				}
			})
		})
	}
}
