package peers

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// Whoever has a target in its table that its own users asked for asks those who shall check it, and have said nothing of it,
// to do so. They take it into their tables for as long as a policy of theirs keeps it there. When it leaves them they say
// nothing again, and who still wants it asks again. A target that is in a table only because others asked asks nobody, or two
// replicas would keep it for ever.

const (
	// maxWants is how many targets a replica asks others for in a second, and takes in for others.
	maxWants = 20_000
	// askEvery is how often those are asked again who do not say anything, and askLater how often once another has taken their
	// place.
	askEvery, askLater = time.Second, 10 * time.Second
	// askSpread is after what time at most it is asked for targets when the candidates have changed, so that not all ask at once.
	askSpread = 200 * time.Millisecond
	// refuseFor is for how long a replica says that it is not allowed to check a target, and fullFor that it has no room.
	refuseFor, fullFor = 10 * time.Minute, 20 * time.Second
	// maxRefused bounds the memory of both.
	maxRefused = 65536
)

// want is for a member to check a subject.
type want struct {
	member *member
	key    key
}

// waitFor has those asked who shall check a topic and have said nothing.
func (c *core) waitFor(x *topic, now int64) {
	enlist(&c.silent, x, &x.silent)
	for i := range x.seats {
		s := &x.seats[i]
		if s.ask != 0 {
			continue
		}
		s.ask = max(now, 1)
		if now-c.reseated < int64(askSpread) {
			s.ask += rand.Int64N(int64(askSpread))
		} else if !x.isDue {
			x.isDue = true
			c.due = append(c.due, x)
			c.wakeUp()
		}
	}
}

// askForTargets asks for the targets that have only just come, and those that are due.
func (c *core) askForTargets() {
	var wants []want
	c.locked(func() {
		due := c.due
		c.due = nil
		now := c.now()
		for _, x := range due {
			x.isDue = false
			c.ask(x, now)
		}
		wants, c.wants = c.wants, nil
	})
	c.sendWants(wants)
}

// ask notes whom to ask for a topic, if users of this replica want it.
func (c *core) ask(x *topic, now int64) {
	if len(x.seats) == 0 || !isWanted(x) {
		return
	}
	for i := range x.seats {
		s := &x.seats[i]
		if now < s.ask {
			continue
		}
		if c.wantsLeft == 0 {
			return // the next second
		}
		c.wantsLeft--
		c.wants = append(c.wants, want{s.member, x.record.key})
		again := int64(askEvery)
		if s.passedOver {
			again = int64(askLater)
		}
		s.ask = now + again - rand.Int64N(again/4)
	}
}

// isWanted tells whether users of this replica want a topic.
func isWanted(x *topic) bool {
	return slices.ContainsFunc(x.targets, (*health.Target).Wanted)
}

// stepIn has those passed over who have said nothing of a subject that this replica was asked to check, where they are to do
// so before it: whoever has asked has waited for them.
func (c *core) stepIn(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records.get(k, false)
	if r == nil || r.topic == nil || len(r.topic.seats) == 0 {
		return
	}
	x, now := r.topic, c.now()
	if own := c.assemble(x, c.rosterOf(k.settings), now); own.checks {
		return
	}
	for i := range x.seats {
		x.seats[i].since = min(x.seats[i].since, now-int64(speakWithin))
	}
	c.reconsider(x)
}

// lookAtSilent asks again, and passes over those who have said nothing for too long: for some topics at a time. It reports
// whether there are more.
func (c *core) lookAtSilent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.unheard = min(c.unheard, len(c.silent))
	for range piece {
		if c.unheard == 0 {
			return false
		}
		c.unheard--
		x := c.silent[c.unheard]
		if len(x.seats) == 0 {
			delist(&c.silent, x, func(x *topic) *int32 { return &x.silent })
			continue
		}
		for i := range x.seats {
			if s := &x.seats[i]; !s.passedOver && now-s.since >= int64(speakWithin) {
				s.passedOver = true
				c.reconsider(x)
			}
		}
		c.ask(x, now)
	}
	return true
}

// sendWants sends wants, sorted by who is asked.
func (c *core) sendWants(wants []want) {
	var w wantsWriter
	for len(wants) > 0 {
		to := wants[0].member
		w.begin(c.name)
		rest := wants[:0]
		for _, x := range wants {
			if x.member != to {
				rest = append(rest, x)
				continue
			}
			if !w.add(&x.key) {
				c.send(to.name, w.message, false)
				w.begin(c.name)
				w.add(&x.key)
			}
		}
		c.send(to.name, w.message, false)
		wants = rest
	}
}

// refuse tells that this replica cannot check a subject: it is not allowed to, or has no room.
func (c *core) refuse(k key, allowed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records.get(k, true)
	if r == nil {
		return
	}
	if r.topic != nil || len(c.refused) >= maxRefused {
		c.records.drop(r)
		return
	}
	now := c.now()
	last := refuseFor
	if allowed {
		last = fullFor
	}
	c.refused[k] = now + int64(last)
	c.say(r, opinion{word: health.Unable}, now)
}

// takeBack says nothing any more of a subject that was refused.
func (c *core) takeBack(k key) {
	delete(c.refused, k)
	if r := c.records.get(k, false); r != nil && r.topic == nil {
		c.say(r, opinion{}, c.now())
		c.records.drop(r)
	}
}
