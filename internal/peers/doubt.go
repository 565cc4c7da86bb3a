package peers

import (
	"time"

	"github.com/coredns-shaker/shaker/health"
)

// A member that says down where all others say up, and that on many hosts, has a fault of its own: a bad uplink, a bad route,
// too little CPU. Its words do not count until that has ended.

const (
	// doubtFrom is how many hosts it takes at least, and they have to be more than half of those where it says down.
	doubtFrom = 10
)

// isDoubtful tells whether a member is in doubt that says down on so many hosts, and is contradicted on some of them.
func isDoubtful(contradicted, down int) bool {
	return contradicted >= doubtFrom && 2*contradicted > down
}

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
			if v.word != health.SaysDown || !v.member.isCandidate() || !r.contradicts(v, now-int64(notice)) {
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
		if is := isDoubtful(len(contradicted[m]), len(m.downs)); is != m.inDoubt {
			m.inDoubt = is
			m.doubtful = len(contradicted[m])
			c.reseat()
		}
	}
}

// contradicts tells whether all others whose words count say up, one at least, where a voice says down, and whether all have
// said so since before an instant.
func (r *record) contradicts(x *voice, before int64) bool {
	if x.said > before {
		return false
	}
	others := 0
	for i := range r.voices {
		v := &r.voices[i]
		switch {
		case v.member == x.member, !v.member.isCandidate(), v.member.frozen, v.member.site != x.member.site:
		case v.word == health.SaysUp && v.said <= before:
			others++
		case v.word == health.SaysUp, v.word == health.SaysDown && !v.member.inDoubt:
			return false
		}
	}
	return others > 0
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
