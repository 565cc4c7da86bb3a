package peers

import (
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// A member that says down where all others say up, and that on many hosts, has a fault of its own: a bad uplink, a bad route,
// too little CPU. Its words do not count until that has ended.

// doubt finds out who is in doubt.
func (c *core) doubt(now int64) {
	contradicted := make(map[*member]map[host]bool)
	for _, r := range c.records.disputed {
		notice, known := c.noticeOf(r)
		if !known {
			continue
		}
		for i := range r.voices {
			v := &r.voices[i]
			if v.word != health.SaysDown || !v.member.isCandidate() || !c.isContradicted(r, v, notice, now) {
				continue
			}
			hosts := contradicted[v.member]
			if hosts == nil {
				hosts = make(map[host]bool)
				contradicted[v.member] = hosts
			}
			hosts[r.key.host()] = true
		}
	}
	for _, m := range c.members {
		if is := health.InDoubt(len(contradicted[m]), len(m.downs)); is != m.inDoubt {
			m.inDoubt = is
			m.doubtful = len(contradicted[m])
			c.reseat()
		}
	}
}

// isContradicted tells whether all others of the site whose words count contradict a voice that says down.
func (c *core) isContradicted(r *record, x *voice, notice time.Duration, now int64) bool {
	others := c.opinions[:0]
	for i := range r.voices {
		v := &r.voices[i]
		if v.member == x.member || !v.member.isCandidate() || !v.member.mayVote() || v.member.site != x.member.site {
			continue
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
	t, d := x.spoken, Disagreement{Ended: ended, Own: x.own.word, InForce: x.inForce, Tally: x.tally}
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
