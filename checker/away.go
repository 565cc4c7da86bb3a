package checker

import "time"

const (
	// leastAway is the shortest absence that is noted. Any machine that is not idle knows shorter ones.
	leastAway = 25 * time.Millisecond
	// lookEvery is how long the loop sleeps at most while a check is under way. A stop of this process is only
	// noticed by as much as it is longer than the sleep in which it fell.
	lookEvery = 25 * time.Millisecond
	// forever is longer than any sleep.
	forever = time.Duration(1<<63 - 1)
)

// presence is a clock that notes for how long this process was away: stopped, starved, suspended, or busy elsewhere. It
// is present when it reads the clock, and while it sleeps for as long as it wanted to.
//
// Its time goes on from where it was if the clock below is set back. If that is set forward, or runs on while this
// machine is suspended, this process was away.
type presence struct {
	clock func() time.Time
	// boot reads a clock that goes on while this machine is suspended, in which case clock may stand still. It is nil
	// where there is none.
	boot func() time.Duration

	seen   time.Time     // the latest reading
	behind time.Duration // what clock was set back by so far

	compared time.Time     // when boot was compared last
	booted   time.Duration // and its reading then

	absences absences
}

// newPresence begins now.
func newPresence(clock func() time.Time, boot func() time.Duration) presence {
	p := presence{clock: clock, boot: boot, seen: clock()}
	p.compared = p.seen
	if boot != nil {
		p.booted = boot()
	}
	return p
}

// now reads the clock.
func (p *presence) now() time.Time { return p.wake(0) }

// wake reads the clock after a sleep that was to last for that long at most.
func (p *presence) wake(sleep time.Duration) time.Time {
	now := p.clock().Add(p.behind)
	if now.Before(p.seen) {
		p.behind += p.seen.Sub(now)
		now = p.seen
	}
	if away := now.Sub(p.seen) - sleep; away >= leastAway {
		p.absences.add(away, now)
	}
	p.seen = now
	return now
}

// compareBoot notes an absence if this machine was suspended since the last comparison. Reading that clock takes a
// system call.
func (p *presence) compareBoot() {
	if p.boot == nil {
		return
	}
	booted, now := p.boot(), p.now()
	if away := booted - p.booted - now.Sub(p.compared); away >= leastAway {
		p.absences.add(away, now)
	}
	p.compared, p.booted = now, booted
}

// away returns for how long this process was away at a stretch since then: its longest absence that has ended since, or
// 0 if there was none of leastAway.
func (p *presence) away(since time.Time) time.Duration { return p.absences.longest(since) }

// absences are those that are the longest since some time: each is shorter than the one before it, which ended earlier.
// Any shorter one before a longer is of no interest any more.
type absences struct {
	all [16]absence
	n   int
}

type absence struct {
	length time.Duration
	end    time.Time
}

// add notes an absence that has just ended.
func (a *absences) add(length time.Duration, end time.Time) {
	for a.n > 0 && a.all[a.n-1].length <= length {
		a.n--
	}
	if a.n == len(a.all) {
		// Rather too long an absence than one that is forgotten.
		a.n--
		length = a.all[a.n].length
	}
	a.all[a.n] = absence{length, end}
	a.n++
}

// longest returns the length of the longest absence that has ended since then, 0 if there is none.
func (a *absences) longest(since time.Time) time.Duration {
	if a.n == 0 || !a.all[a.n-1].end.After(since) {
		return 0
	}
	for _, one := range a.all[:a.n] {
		if one.end.After(since) {
			return one.length
		}
	}
	return 0
}
