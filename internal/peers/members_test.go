package peers

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// Two targets that differ only in their source are one subject: the first is checked, and both have its verdict. When the
// first leaves, the other takes over.
func TestTwoSources(t *testing.T) {
	simulate(t, 2, 1, func(w *town) {
		time.Sleep(time.Second)
		h := w.houses[0]
		s := quick.Value()
		s.Source = netip.MustParseAddr("192.0.2.200")
		first := h.monitor.Target(target(1), quick, 2*time.Second)
		second := h.monitor.Target(target(1), unique.Make(s), time.Minute)
		time.Sleep(time.Second)
		if first.State() != health.Up || second.State() != health.Up {
			t.Errorf("%v and %v", first.State(), second.State())
		}
		h.core.mu.Lock()
		if n := len(h.core.topics); n != 1 {
			t.Errorf("%d topics", n)
		}
		h.core.mu.Unlock()
		if first.Own().Word != health.SaysUp || second.Own().Word != health.NoWord || second.RTT() == 0 {
			t.Errorf("%+v and %+v", first.Own(), second.Own())
		}
		time.Sleep(8 * time.Second)
		if _, in := h.monitor.Find(target(1), quick); in {
			t.Fatal("the first is still there")
		}
		if second.Own().Word != health.SaysUp {
			t.Errorf("%+v", second.Own())
		}
		if all := h.core.said(second); len(all) != 2 || !all[0].Self || all[1].Self || !all[1].Observer || all[1].Opinion.Word != health.SaysUp || all[1].Opinion.RTT == 0 {
			t.Errorf("said %+v", all)
		}
	})
}

// All targets of a subject have the verdict at once, whoever of the replicas has led to it.
func TestTwoSourcesAlone(t *testing.T) {
	simulate(t, 1, 1, func(w *town) {
		h := w.houses[0]
		s := quick.Value()
		s.Source = netip.MustParseAddr("192.0.2.200")
		first := h.monitor.Target(target(1), quick, time.Minute)
		second := h.monitor.Target(target(1), unique.Make(s), time.Minute)
		time.Sleep(3 * time.Second)
		w.answers(func(*house, int) checker.Result { return checker.Refused })
		time.Sleep(3 * time.Second)
		if first.State() != health.Down || second.State() != health.Down {
			t.Errorf("%v and %v", first.State(), second.State())
		}
	})
}

// What a lost member has said is forgotten after a while, and learned anew when it is back. After an hour nobody shows it.
func TestLostMembersAreForgotten(t *testing.T) {
	simulate(t, 3, 1, func(w *town) {
		time.Sleep(time.Second)
		w.want(50)
		time.Sleep(3 * time.Second)
		w.cutOff(2)
		time.Sleep(keepWords + 5*time.Second)
		c := w.houses[0].core
		c.checkInvariants(t)
		c.mu.Lock()
		if n := c.byName["r2-1"].words; n != 0 {
			t.Errorf("%d words are left", n)
		}
		c.mu.Unlock()
		w.set(func() { clear(w.cut) })
		w.want(50)
		time.Sleep(5 * time.Second)
		if m := w.houses[0].member("r2-1"); !m.Alive || m.Lag > 0 || m.Observed == 0 {
			t.Errorf("%+v", m)
		}
		w.houses[2].crash()
		time.Sleep(keepMember + time.Minute)
		if n := len(w.houses[0].core.report().Members); n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

// There are only so many members. Who is lost makes room.
func TestMembersAreBounded(t *testing.T) {
	c := newCore(Config{}, "self", nil, Listener{}, new(wire))
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
	}
	for i := range maxMembers + 10 {
		c.joined(fmt.Sprint("m", i), at(i), appendMeta(nil, &meta{protocol: 1}))
	}
	if n := len(c.members); n != maxMembers {
		t.Errorf("%d members", n)
	}
	c.left("m7", false)
	c.joined("late", at(5000), appendMeta(nil, &meta{protocol: 1}))
	if c.byName["m7"] != nil || c.byName["late"] == nil || len(c.members) != maxMembers {
		t.Errorf("%d members", len(c.members))
	}
	// One that starts anew takes its own place.
	c.joined("late-2", at(5000), nil)
	if c.byName["late"] != nil || c.byName["late-2"] == nil {
		t.Error("it has two places")
	}
}

// No message is kept beyond the room that there is.
func TestInboxIsBounded(t *testing.T) {
	c := newCore(Config{}, "self", nil, Listener{}, new(wire))
	for range 100 {
		c.take(make([]byte, reliableSize))
	}
	c.take(make([]byte, 2*reliableSize))
	if n := len(c.inbox.octets); n > maxInbox {
		t.Errorf("%d octets", n)
	}
	if n := c.counts.lost.Load(); n == 0 {
		t.Error("nothing was lost")
	}
}

// Names are unique to each start, and short enough.
func TestNames(t *testing.T) {
	a, b := nameOf("host"), nameOf("host")
	if a == b || len(nameOf(string(make([]byte, 500)))) > maxName {
		t.Errorf("%q and %q", a, b)
	}
}

// Where sites are counted, it does not depend on chance in which order: a replica that comes and observes nothing has no target looked
// at again.
func TestSitesHaveAnOrder(t *testing.T) {
	simulate(t, 6, 1, func(w *town) {
		for i, h := range w.houses {
			h.config.Site, h.config.Quorum, h.config.Observers = fmt.Sprint("s", i), true, 1
			h.crash()
			h.start()
		}
		time.Sleep(5 * time.Second)
		w.want(20)
		time.Sleep(10 * time.Second)
		c := w.houses[0].core
		c.locked(func() {
			for range 10 {
				c.reseat()
				now := c.now()
				for _, x := range c.topics {
					own := c.assemble(x, c.rosterOf(x.record.key.settings), now)
					if len(c.voters) != 6 || c.signature(own.checks) != x.signature {
						t.Errorf("%d voters, signature %x and before %x", len(c.voters), c.signature(own.checks), x.signature)
					}
				}
			}
		})
	})
}

// A replica that has more targets than it may speak of says so, once.
func TestTooManyTargets(t *testing.T) {
	var told []string
	c := newCore(Config{}, "self", nil, Listener{Warningf: func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }}, new(wire))
	for i := range maxWords + 10 {
		r := c.records.get(keyOf(health.Subject{Addr: target(i), Settings: 1}), true)
		c.say(r, opinion{word: health.SaysUp}, 0)
	}
	c.tellMembers(0)
	c.tellMembers(0)
	c.flushNews()
	if len(told) != 1 || c.self.words != maxWords {
		t.Errorf("%d words, told %q", c.self.words, told)
	}
}

// When the candidates have changed all topics are looked at, also where a target leaves in between.
func TestWalkLeavesOutNothing(t *testing.T) {
	c := newCore(Config{}, "self", health.New(health.Options{}), Listener{}, new(wire))
	defer c.monitor.Close()
	var targets []*health.Target
	for i := range 2*piece + 1 {
		x, _ := c.monitor.Find(target(i), quick)
		c.Enter(x)
		targets = append(targets, x)
	}
	for c.walk() {
	}
	c.configure(Config{Offers: []health.Key{quick}})
	if !c.walk() {
		t.Fatal("all were looked at at once")
	}
	c.Leave(targets[0])
	c.Leave(targets[2*piece])
	for c.walk() {
	}
	for i, x := range targets[1 : 2*piece] {
		if !c.byTarget[x].queued {
			t.Errorf("target %d is not decided anew", i+1)
		}
	}
}
