package checker

import (
	"math/rand/v2"
	"testing"
	"time"
)

// handClock is a clock that is set by hand, and one that goes on while the machine is suspended.
type handClock struct {
	now  time.Time
	boot time.Duration
}

func (c *handClock) pass(d time.Duration) { c.now, c.boot = c.now.Add(d), c.boot+d }

func newHandPresence() (*handClock, *presence) {
	c := &handClock{now: time.Unix(1<<31, 0), boot: time.Hour}
	p := newPresence(func() time.Time { return c.now }, func() time.Duration { return c.boot })
	return c, &p
}

func TestPresence(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		live func(c *handClock, p *presence) // after a SYN
		want time.Duration
	}{
		"present all the time": {func(c *handClock, p *presence) {
			for range 100 {
				c.pass(leastAway - 1)
				p.now()
			}
		}, 0},
		"asleep as long as it wanted":     {func(c *handClock, p *presence) { c.pass(time.Hour); p.wake(time.Hour) }, 0},
		"woken early":                     {func(c *handClock, p *presence) { c.pass(ms); p.wake(time.Hour) }, 0},
		"asleep until something happened": {func(c *handClock, p *presence) { c.pass(time.Hour); p.wake(forever) }, 0},
		"a little late":                   {func(c *handClock, p *presence) { c.pass(time.Second + leastAway - 1); p.wake(time.Second) }, 0},
		"late":                            {func(c *handClock, p *presence) { c.pass(time.Second + leastAway); p.wake(time.Second) }, leastAway},
		"stopped in its sleep":            {func(c *handClock, p *presence) { c.pass(30 * time.Second); p.wake(25 * ms) }, 30*time.Second - 25*ms},
		"stopped at work":                 {func(c *handClock, p *presence) { c.pass(400 * ms); p.now() }, 400 * ms},
		"stopped twice": {func(c *handClock, p *presence) {
			c.pass(400 * ms)
			p.now()
			c.pass(100 * ms)
			p.now()
		}, 400 * ms},
		"stopped twice, longer the second time": {func(c *handClock, p *presence) {
			c.pass(100 * ms)
			p.now()
			c.pass(400 * ms)
			p.now()
		}, 400 * ms},
		"the clock is set forward": {func(c *handClock, p *presence) { c.now = c.now.Add(5 * time.Minute); p.now() }, 5 * time.Minute},
		"the clock is set back":    {func(c *handClock, p *presence) { c.now = c.now.Add(-5 * time.Minute); p.now() }, 0},
		"set back, and then stopped": {func(c *handClock, p *presence) {
			c.now = c.now.Add(-5 * time.Minute)
			p.now()
			c.pass(ms * 50)
			p.now()
		}, 50 * ms},
		"suspended":                             {func(c *handClock, p *presence) { c.boot += time.Hour; c.pass(ms); p.now(); p.compareBoot() }, time.Hour},
		"suspended for next to nothing":         {func(c *handClock, p *presence) { c.boot += leastAway - 1; p.compareBoot() }, 0},
		"not suspended":                         {func(c *handClock, p *presence) { c.pass(ms); p.compareBoot(); c.pass(ms); p.compareBoot() }, 0},
		"suspended in a machine that counts it": {func(c *handClock, p *presence) { c.pass(time.Hour); p.now(); p.compareBoot() }, time.Hour},
	} {
		c, p := newHandPresence()
		c.pass(3 * time.Second) // an absence before the SYN is of no interest
		sent := p.now()
		tt.live(c, p)
		if got := p.away(sent); got != tt.want {
			t.Errorf("%s: away for %v, want %v", name, got, tt.want)
		}
		if got := p.away(p.now()); got != 0 {
			t.Errorf("%s: away for %v since now", name, got)
		}
	}
}

// Time never goes back, and goes on at the pace of the clock below.
func TestPresenceClockSetBack(t *testing.T) {
	c, p := newHandPresence()
	before := p.now()
	for _, back := range []time.Duration{time.Minute, time.Hour, 1} {
		c.now = c.now.Add(-back)
		if now := p.now(); now != before {
			t.Errorf("set back by %v: %v later", back, now.Sub(before))
		}
		c.pass(time.Millisecond)
		now := p.now()
		if got := now.Sub(before); got != time.Millisecond {
			t.Errorf("a millisecond after it was set back by %v: %v later", back, got)
		}
		before = now
	}
}

// A suspend before the last comparison is not one since then.
func TestPresenceSuspendedBefore(t *testing.T) {
	c, p := newHandPresence()
	c.boot += time.Hour
	p.compareBoot()
	c.pass(time.Millisecond)
	sent := p.now()
	c.pass(time.Millisecond)
	p.compareBoot()
	if got := p.away(sent); got != 0 {
		t.Errorf("away for %v", got)
	}
}

// The absences that are kept tell the same as all of them would, unless they become ever shorter for many times; then
// they tell of too long a one rather than of none.
func TestAbsences(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var kept absences
		var all []absence
		at := time.Unix(0, 0)
		for range 100 {
			at = at.Add(time.Duration(1 + random.IntN(10)))
			length := leastAway + time.Duration(random.ExpFloat64()*float64(time.Second))
			kept.add(length, at)
			all = append(all, absence{length, at})
			since := at.Add(-time.Duration(random.IntN(300)))
			var want time.Duration
			for _, one := range all {
				if one.end.After(since) {
					want = max(want, one.length)
				}
			}
			if got := kept.longest(since); got != want {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	}
	var kept absences
	at := time.Unix(0, 0)
	for n := range 100 {
		kept.add(time.Hour-time.Duration(n), at.Add(time.Duration(n)))
	}
	if got := kept.longest(at.Add(98)); got < time.Hour-99 || kept.n > len(kept.all) {
		t.Errorf("after many ever shorter ones: %v, %d kept", got, kept.n)
	}
	if got := kept.longest(at.Add(99)); got != 0 {
		t.Errorf("after the last: %v", got)
	}
}
