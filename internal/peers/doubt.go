package peers

import (
	"math"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// A member that says down where all others say up, and that on many hosts, has a fault of its own: a bad uplink, a bad route,
// too little CPU. That it says down does not count until that has ended.

// suspicion is how far it was found out who is in doubt.
type suspicion struct {
	on           bool
	left         int // disputed records that were not looked at yet
	contradicted map[*member]map[host]bool
}

func (s *suspicion) begin() {
	if !s.on {
		*s = suspicion{on: true, left: math.MaxInt, contradicted: make(map[*member]map[host]bool)}
	}
}

// doubt finds out who is in doubt, by some records at a time. It reports whether there are more.
func (c *core) doubt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.suspicion
	if !s.on {
		return false
	}
	now := c.now()
	s.left = min(s.left, len(c.records.disputed))
	for range piece {
		if s.left == 0 {
			c.concludeDoubt()
			return false
		}
		s.left--
		c.suspect(c.records.disputed[s.left], now)
	}
	return true
}

// suspect takes note of who is contradicted about a subject.
func (c *core) suspect(r *record, now int64) {
	notice, known := c.noticeOf(r)
	if !known {
		return
	}
	for i := range r.voices {
		v := &r.voices[i]
		if v.word != health.SaysDown || !v.member.isCandidate() || !c.isContradicted(r, v, notice, now) {
			continue
		}
		hosts := c.suspicion.contradicted[v.member]
		if hosts == nil {
			hosts = make(map[host]bool)
			c.suspicion.contradicted[v.member] = hosts
		}
		hosts[r.key.host()] = true
	}
}

func (c *core) concludeDoubt() {
	for _, m := range c.members {
		if n := len(c.suspicion.contradicted[m]); health.InDoubt(n, len(m.downs)) != m.inDoubt {
			m.inDoubt, m.doubtful = !m.inDoubt, n
			c.reseat()
		}
	}
	c.suspicion = suspicion{}
}

// isContradicted tells whether all others of the site whose words count contradict a voice that says down.
func (c *core) isContradicted(r *record, x *voice, notice time.Duration, now int64) bool {
	others := c.opinions[:0]
	for i := range r.voices {
		v := &r.voices[i]
		if v.member == x.member || !v.member.isCandidate() || !v.member.mayVote(v.word) || v.member.site != x.member.site {
			continue
		}
		if v.word == health.SaysUp && time.Duration(now-v.said) <= notice {
			continue // one that checks in its place, for those who found out first that it is in doubt
		}
		others = append(others, health.Opinion{Word: v.word, Age: time.Duration(now - v.said)})
	}
	c.opinions = others
	return health.Contradicted(time.Duration(now-x.said), others, notice)
}

// noticeOf returns how long it takes to notice that a subject has changed, where its settings are known.
func (c *core) noticeOf(r *record) (time.Duration, bool) {
	if r.topic != nil {
		return r.topic.notice, true
	}
	notice, known := c.notices[r.key.settings]
	return notice, known
}

// lookAtDiffering tells of targets about which this replica says something else than is in force, for longer than it takes to
// notice, and of those where that has ended.
func (c *core) lookAtDiffering(now int64) {
	for i := len(c.differing) - 1; i >= 0; i-- {
		x := c.differing[i]
		switch {
		case x.disagreed > 0 && !x.disagreedTold && now-x.disagreed > int64(x.notice):
			x.disagreedTold = true
			c.tellDisagreement(x, false)
		case x.disagreed == -1:
			x.disagreed, x.disagreedTold = 0, false
			delist(&c.differing, x, func(x *topic) *int32 { return &x.differing })
			c.tellDisagreement(x, true)
		}
	}
}

func (c *core) tellDisagreement(x *topic, ended bool) {
	t, d := x.spoken, Disagreement{Ended: ended, Own: x.own.word, InForce: x.inForce, Tally: x.decided.Tally}
	c.tell(func() { c.listener.Disagreed(t, d) })
}

// disagreeing is about how many targets this replica says something else than is in force.
func (c *core) disagreeing() (n int) {
	for _, x := range c.differing {
		if x.disagreedTold && x.disagreed > 0 {
			n++
		}
	}
	return n
}
