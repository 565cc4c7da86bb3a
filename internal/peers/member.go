package peers

import (
	"math"
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/health"
)

const (
	// silentAfter is how long a member may be silent, which tells something each second, until its words do not count.
	silentAfter = 3 * time.Second
	// behindAfter is for how long nothing of what is missing may arrive from a member that is heard of, until its words do not
	// count: they may be old. It is asked each second.
	behindAfter = 5 * time.Second
	// keepWords is for how long what a lost member has said is kept, so that it need not be told all anew when it is back.
	keepWords = 2 * time.Minute
	// keepMember is for how long a lost member is shown.
	keepMember = time.Hour
	maxMembers = 256
)

// member is what is known of a replica: this one, or another.
type member struct {
	name string
	hash uint64
	meta
	at        netip.AddrPort
	self      bool
	dismissed bool  // it is forgotten
	joined    bool  // the network reaches it, as far as that knows
	since     int64 // when it was heard of first
	heard     int64 // when last, never where it was not

	beat
	greeted  bool  // it has sent one
	newer    bool  // it speaks another version of the protocol
	advanced int64 // when the number of finished checks last changed, or nothing was to be checked

	have    spans
	levelAt int64 // when all was known for the first time, 0 before that
	asked   int64 // when to ask for what is missing
	askWait int64 // how long is waited for the answer, 0 before it is asked for
	// base is the number up to which all removals are known, and whole that of the newest message which told how far.
	base, whole uint64
	answered    int64 // when something was last sent that it asked for

	offers map[uint64]claim
	notes  map[string]uint64 // the number of each
	// words is of how many subjects it says something, observes how many of them it checks, and downs how many of its
	// subjects are down on each host.
	words    int
	downs    map[host]int
	buried   []*record // it says nothing of them any more, but an older entry may be on its way
	overfull bool

	// What follows is found out from that each time something passes, see appraise.
	alive, stuck, inDoubt bool
	behind                bool   // what it says does not arrive, though it is heard of
	level                 uint64 // of have
	levelMoved            int64  // when that was last another one, or nothing was missing
	doubtful              int    // hosts where it is contradicted, as of when it came in doubt
	// stale is the number of the newest entry that it had told when it was lost, or stopped. Until freshAt it may not have
	// checked since what it said by then.
	stale   uint64
	freshAt int64
	told    teller
}

// claim is whether settings are offered, by the entry with a number.
type claim struct {
	number  uint64
	offered bool
}

// never is when what has not happened did.
const never = -1 << 62

func newMember(name string, now int64) *member {
	return &member{name: name, hash: health.HashMember(name), since: now, heard: never, advanced: now, levelMoved: now,
		offers: make(map[uint64]claim), notes: make(map[string]uint64), downs: make(map[host]int), told: teller{spent: never}}
}

// isCandidate tells whether it takes part in checking what it offers.
func (m *member) isCandidate() bool { return m.alive && !m.stuck && !m.behind }

// mayVote tells whether a word of a candidate counts. Who is in doubt is so for what it does not reach: that a target answers it
// is true all the same.
func (m *member) mayVote(w health.Word) bool {
	return !m.frozen && (!m.inDoubt || w != health.SaysDown)
}

// lag is how many of its entries are missing.
func (m *member) lag() uint64 { return m.have.missing(m.newest) }

// count keeps the numbers when what it says of a subject changes.
func (m *member) count(r *record, from, to opinion) {
	switch was, is := !from.isNothing(), !to.isNothing(); {
	case is && !was:
		m.words++
	case was && !is:
		m.words--
	}
	if was, is := from.word == health.SaysDown, to.word == health.SaysDown; was != is {
		h := r.key.host()
		if is {
			m.downs[h]++
		} else if m.downs[h]--; m.downs[h] == 0 {
			delete(m.downs, h)
		}
	}
}

// takeBeat takes a heartbeat. Of two that were overtaken on the way the later counts.
func (m *member) takeBeat(x beat, now int64) {
	if x.newest < m.newest || x.finished < m.finished {
		return
	}
	if x.finished != m.finished || x.pending == 0 {
		m.advanced = now
	}
	if !m.greeted {
		m.asked = min(m.asked, now+askAfter) // it knows this replica now, and may not have when it was asked before
	}
	m.beat, m.greeted = x, true
	m.keepLevel(now)
}

// keepLevel has what is missing asked for soon, or takes note that nothing is.
func (m *member) keepLevel(now int64) (level bool) {
	switch {
	case m.have.level() < m.newest:
		m.ask(now)
		return false
	case m.greeted && m.levelAt == 0:
		m.levelAt = max(now, 1)
	}
	return true
}

// askAfter is how long what is missing may be on its way.
const askAfter = int64(50 * time.Millisecond)

// askAgain is how long is waited for the first answer, and twice as long each time, up to a second.
const askAgain = int64(200 * time.Millisecond)

// askOn is how long after an answer is asked for what is still missing. It is longer than answerAgain.
const askOn = int64(150 * time.Millisecond)

// ask has what is missing asked for soon.
func (m *member) ask(now int64) {
	if m.asked == 0 {
		m.asked = now + askAfter
	}
}

// appraise finds out whether its words may count. It reports whether that has changed. What it said before it was away counts
// for less until it has had the time to recheck.
func (m *member) appraise(now int64, recheck time.Duration) bool {
	alive := m.self || m.heard != never && now-m.heard <= int64(silentAfter)
	stuck := !m.self && health.IsStuck(int(min(m.pending, math.MaxInt32)), time.Duration(now-m.advanced), m.longest)
	if level := m.have.level(); !alive || level != m.level || level >= m.newest {
		m.level, m.levelMoved = level, now
	}
	behind := !m.self && now-m.levelMoved > int64(behindAfter)
	switch {
	case m.alive && !alive:
		m.stale = m.newest
	case alive && !m.alive:
		m.freshAt = now + int64(recheck)
	}
	changed := alive != m.alive || stuck != m.stuck || behind != m.behind
	m.alive, m.stuck, m.behind = alive, stuck, behind
	return changed
}

// isStale tells whether a word, told by an entry with this number, may be one that it has not checked since it was away.
func (m *member) isStale(w health.Word, number uint64) bool {
	return number <= m.stale && (w == health.SaysUp || w == health.SaysDown)
}

// pause takes the time out that this process was stopped, up to now. What has arrived since is not moved into the future.
func (m *member) pause(d, now int64) {
	if m.heard != never {
		m.heard = min(m.heard+d, now)
	}
	m.advanced, m.levelMoved = min(m.advanced+d, now), min(m.levelMoved+d, now)
}
