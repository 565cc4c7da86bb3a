package peers

import (
	"slices"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// report returns what there is to tell. Join, Ready and Counts are not the core's.
func (c *core) report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	r := Report{Observers: c.observers, Disagreeing: c.disagreeing()}
	for _, m := range c.selfFirst() {
		r.Members = append(r.Members, c.describe(m, now))
	}
	return r
}

// selfFirst returns this replica, and then all others by name. The caller holds mu.
func (c *core) selfFirst() []*member {
	all := []*member{c.self}
	for _, m := range c.members {
		if !m.self {
			all = append(all, m)
		}
	}
	return all
}

func (c *core) describe(m *member, now int64) Member {
	x := Member{
		Name: m.name, Host: m.host, Address: m.at, Site: m.site, Quorum: m.quorum, Shaker: m.shaker, Self: m.self,
		Since: time.Duration(now - m.since), Heard: time.Duration(now - max(m.heard, m.since)), Alive: m.alive,
		Frozen: m.frozen, InDoubt: m.inDoubt, Behind: m.behind, Stuck: m.stuck, Strange: c.isStrange(m), Newer: m.isNewer(),
		Lag: m.lag(), Observed: m.observed, Finished: m.finished,
	}
	if m.self {
		x.Heard, x.Lag = 0, 0
		x.Finished, _ = c.checks()
		x.Observed = uint64(m.words)
	}
	return x
}

// said returns what each replica says of a target that observes it, this one first and then by name.
func (c *core) said(t *health.Target) []Said {
	settings := c.fingerprintOf(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records.get(keyOf(health.Subject{Addr: t.Addr(), Settings: settings}), false)
	if r == nil {
		return nil
	}
	now := c.now()
	var voters []*member
	if r.topic != nil {
		c.assemble(r.topic, c.rosterOf(settings), now)
		voters = c.voters
	}
	all := make([]Said, 0, len(r.voices)+len(voters))
	add := func(m *member, v voice) {
		all = append(all, Said{Member: m.name, Host: m.host, Site: m.site, Self: m.self, Observer: slices.Contains(voters, m),
			Opinion: health.Opinion{Word: v.word, InForce: v.inForce, Age: time.Duration(max(now-v.said, 0)), Result: v.result, RTT: v.trip()}})
	}
	for _, m := range c.selfFirst() {
		switch v := r.voice(m); {
		case v != nil && !v.isNothing():
			add(m, *v)
		case slices.Contains(voters, m):
			add(m, voice{said: now})
		}
	}
	return all
}
