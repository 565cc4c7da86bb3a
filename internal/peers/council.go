package peers

import (
	"slices"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/health"
)

// topic is what this replica has to do with a subject that is in its table.
type topic struct {
	record *record
	// targets differ only in the source of their probes. The first speaks for all.
	targets []*health.Target
	spoken  *health.Target // the first, also when it has left
	own     opinion        // by own checks; InForce is that of the monitor
	wordAt  uint64         // the number that an entry would have had when the own word was said first
	inForce health.State
	decided health.Decision // last
	// notice is how long it takes to notice that the target has changed.
	notice time.Duration

	able       bool   // the policies allow to check it for others
	configured uint64 // when that was found out
	observes   bool
	wanting    bool // this replica would check it, were it able
	queued     bool // it is about to be decided anew
	seats      []seat
	isDue      bool // it is to be asked at once
	// signature stands for those who decided last.
	signature uint64
	// place is where it is among all topics; silent and differing are places in lists, plus 1, 0 where it is in none.
	place, silent, differing int32
	disagreed                int64 // since when the own word differs from the verdict in force
	disagreedTold            bool
}

// Enter implements [health.Council].
func (c *core) Enter(t *health.Target) health.Decision {
	settings := c.fingerprintOf(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	x := c.topicOf(t, settings)
	if x == nil {
		c.self.overfull = true
		return health.Decision{Alone: true, Observes: true}
	}
	d := c.decide(x, now)
	if len(x.seats) > 0 {
		c.waitFor(x, now)
	}
	return c.forTarget(x, t, d)
}

// Decide implements [health.Council].
func (c *core) Decide(t *health.Target, own health.Opinion) health.Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byTarget[t]
	if x == nil {
		return health.Decision{Alone: true, Observes: true}
	}
	now := c.now()
	if t == x.targets[0] {
		if own.Word != x.own.word {
			x.wordAt = c.ledger.newest + 1
		}
		x.own = opinion{own.Word, own.InForce, own.Result, shortTrip(own.RTT)}
		x.queued = false
	}
	d := c.decide(x, now)
	if t == x.targets[0] && d != x.decided {
		// Nothing else asks again about the others, which go along with the first.
		c.askAgain(x.targets[1:]...)
	}
	c.conclude(x, d, now)
	return c.forTarget(x, t, d)
}

// forTarget returns a decision as it is for one of several targets: only the first is checked.
func (c *core) forTarget(x *topic, t *health.Target, d health.Decision) health.Decision {
	if t != x.targets[0] && !d.Alone {
		d.Observes = false
		if d.RTT == 0 {
			d.RTT = x.own.trip()
		}
	}
	return d
}

// conclude takes a decision into the topic, and tells the others what this replica says then.
func (c *core) conclude(x *topic, d health.Decision, now int64) {
	x.inForce, x.decided, x.observes = d.State, d, d.Observes
	said := x.own
	if d.Alone {
		// The monitor applies it to itself. What it will be is what it says by own checks, if it says something.
		x.inForce = x.own.inForce
		switch x.own.word {
		case health.SaysUp:
			x.inForce = health.Up
		case health.SaysDown:
			x.inForce = health.Down
		}
	}
	said.inForce = x.inForce
	switch {
	case x.wanting:
		said = opinion{word: health.Unable}
	case !d.Observes:
		said = c.hint(x)
	default:
		said.word = c.ownWord(x)
	}
	c.say(x.record, said, now)
	c.compare(x, d, now)
	if len(x.seats) > 0 {
		c.waitFor(x, now)
	}
}

// hint is what a replica says of a target that it does not check. That is nothing, unless the target is down and nobody has told
// that: then those who check it from now on have to know.
func (c *core) hint(x *topic) opinion {
	if x.inForce != health.Down {
		return opinion{}
	}
	for i := range x.record.voices {
		if v := &x.record.voices[i]; !v.member.self && v.inForce != health.Unknown && v.member.isCandidate() {
			return opinion{}
		}
	}
	return opinion{inForce: health.Down}
}

// say notes what this replica says of a subject. Round trips that differ by less than a factor of 2 are not told again.
func (c *core) say(r *record, o opinion, now int64) {
	v := r.voice(c.self)
	if v != nil && v.word == o.word && v.inForce == o.inForce && o.rtt < 2*v.rtt && v.rtt < 2*o.rtt {
		return
	}
	if v != nil && v.opinion == o || v == nil && o.isNothing() {
		return
	}
	if !c.ledger.say(r.key, o, now) {
		c.self.overfull = true
		return
	}
	c.wakeUp()
	if o.isNothing() {
		c.records.silence(r, c.self)
		return
	}
	said := now
	if v != nil && v.word == o.word {
		said = v.said
	}
	c.records.hear(r, voice{member: c.self, said: said, opinion: o})
}

// compare takes note whether the own word differs from the verdict in force.
func (c *core) compare(x *topic, d health.Decision, now int64) {
	differs := !d.Alone && x.observes && !c.self.frozen &&
		(x.own.word == health.SaysUp && d.State == health.Down || x.own.word == health.SaysDown && d.State == health.Up)
	switch {
	case differs && x.disagreed == 0:
		x.disagreed = max(now, 1)
		enlist(&c.differing, x, &x.differing)
	case !differs && x.disagreed != 0 && !x.disagreedTold:
		x.disagreed = 0
		delist(&c.differing, x, func(x *topic) *int32 { return &x.differing })
	case !differs && x.disagreed != 0:
		x.disagreed = -1 // its end has to be told
	case differs && x.disagreed == -1:
		x.disagreed = max(now, 1)
	}
}

// enlist appends a topic or a record to a list, if it is not there, and notes where, plus 1. delist takes it out.
func enlist[T any](list *[]*T, x *T, place *int32) {
	if *place == 0 {
		*list = append(*list, x)
		*place = int32(len(*list))
	}
}

func delist[T any](list *[]*T, x *T, placeOf func(*T) *int32) {
	place := placeOf(x)
	if *place == 0 {
		return
	}
	last := (*list)[len(*list)-1]
	(*list)[*place-1] = last
	*placeOf(last) = *place
	(*list)[len(*list)-1] = nil
	*list, *place = (*list)[:len(*list)-1], 0
}

// Leave implements [health.Council].
func (c *core) Leave(t *health.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byTarget[t]
	if x == nil {
		return
	}
	delete(c.byTarget, t)
	first := x.targets[0] == t
	x.targets = slices.DeleteFunc(x.targets, func(y *health.Target) bool { return y == t })
	switch {
	case len(x.targets) == 0:
		c.close(x)
	case first:
		x.spoken = x.targets[0]
		x.own = opinion{}
		c.askAgain(x.targets...) // also if it was to be decided anew already: the one that left may have been waited for
	}
}

// close forgets a topic.
func (c *core) close(x *topic) {
	r := x.record
	if n := c.topicsWith[r.key.settings]; n > 1 {
		c.topicsWith[r.key.settings] = n - 1
	} else {
		delete(c.topicsWith, r.key.settings)
	}
	delist(&c.silent, x, func(x *topic) *int32 { return &x.silent })
	if x.disagreedTold {
		x.disagreed = -1
	} else {
		delist(&c.differing, x, func(x *topic) *int32 { return &x.differing })
	}
	last := c.topics[len(c.topics)-1]
	c.topics[x.place], last.place = last, x.place
	c.topics[len(c.topics)-1] = nil
	c.topics = c.topics[:len(c.topics)-1]
	r.topic = nil
	c.say(r, opinion{}, c.now())
	c.records.drop(r)
}

// Froze implements [health.Council].
func (c *core) Froze(frozen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.self.frozen == frozen {
		return
	}
	c.self.frozen = frozen
	c.beatAt = c.now()
	c.reseat()
	c.wakeUp()
}

// topicOf returns the topic of a target that comes into the table. It is nil where there is no room.
func (c *core) topicOf(t *health.Target, settings uint64) *topic {
	if x := c.byTarget[t]; x != nil {
		return x
	}
	r := c.records.get(keyOf(health.Subject{Addr: t.Addr(), Settings: settings}), true)
	if r == nil {
		return nil
	}
	x := r.topic
	if x == nil {
		x = &topic{record: r, place: int32(len(c.topics)), notice: t.Settings().Notices(), spoken: t}
		c.topicsWith[settings]++
		r.topic = x
		c.topics = append(c.topics, x)
		delete(c.refused, r.key)
	}
	x.targets = append(x.targets, t)
	c.byTarget[t] = x
	return x
}

// isAble tells whether the policies allow this replica to check a topic for others.
func (c *core) isAble(x *topic) bool {
	if x.configured != c.configured {
		x.configured, x.able = c.configured, c.mayCheck(x.record.key)
	}
	return x.able
}

// mayCheck tells whether the policies allow this replica to check a subject for others.
func (c *core) mayCheck(k key) bool {
	if !c.self.offers[k.settings].offered {
		return false
	}
	_, _, ok := c.config.MayCheck(k.subject())
	return ok
}

// fingerprintOf returns the fingerprint of a target's settings. To make one takes a while, so they are kept.
func (c *core) fingerprintOf(t *health.Target) uint64 {
	k := unique.Make(t.Settings())
	if x, ok := c.fingerprints.Load(k); ok {
		return x.(uint64)
	}
	x := health.Fingerprint(k)
	if c.fingerprintCount.Add(1) > maxFingerprints {
		c.fingerprints.Clear()
		c.fingerprintCount.Store(0)
	}
	c.fingerprints.Store(k, x)
	return x
}

// maxFingerprints bounds the memory of those that are kept.
const maxFingerprints = 4096
