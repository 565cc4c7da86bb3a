package checker

import (
	"context"
	"slices"
	"time"
)

// dialCheck is a check, of one or more tries. Each is a dial in a goroutine of its own, and belongs to the check's goroutine
// in all else.
type dialCheck struct {
	*dialProber
	ctx      context.Context // of the check
	job      *job
	schedule schedule
	evidence evidence
	timer    *time.Timer // of the step, or of the wait for the pace
	stepped  time.Time   // when the step began
	paced    bool        // the next try waits for the pace, and leaves then
	live     []liveDial  // the oldest first
	places   int         // how many it holds in the pool
	sent     int         // how many have called connect, or are to
	number   int         // of the newest
	results  chan dialed // has room for every try
}

// liveDial is a dial that is under way.
type liveDial struct {
	number int
	socket *dialSocket
	cancel context.CancelFunc
	ended  chan struct{}
}

// carryOut carries out a check. When it returns, all of its dials have ended.
func (p *dialProber) carryOut(j *job) Report {
	ctx, cancel := context.WithCancel(p.ctx)
	if waiter := j.waiter; waiter != nil {
		defer context.AfterFunc(waiter.ctx, func() {
			if waiter.gone() {
				cancel()
			}
		})()
	}
	schedule := newSchedule(&j.Check)
	c := &dialCheck{
		dialProber: p, ctx: ctx, job: j, schedule: schedule,
		timer:   time.NewTimer(j.Timeout),
		places:  1,
		results: make(chan dialed, 2*schedule.steps+2),
	}
	r, rtt, err := c.sendTries()
	c.timer.Stop()
	cancel()
	for len(c.live) > 0 {
		c.giveUpOldest()
	}
	c.fit()
	return Report{Tag: j.Tag, Result: r, RTT: rtt, Tries: c.sent, Err: err}
}

// sendTries sends tries until there is a result.
func (c *dialCheck) sendTries() (Result, time.Duration, error) {
	c.send()
	for {
		over := false
		select {
		case <-c.ctx.Done():
			return Inconclusive, 0, ErrClosed
		case d := <-c.results:
			c.take(d)
		case <-c.timer.C:
			over = true
		}
		c.takeAll()
		if c.evidence.refused != nil && len(c.live) > 0 {
			c.lookOnceMore()
		}
		if c.evidence.answered || c.evidence.refused != nil || c.isSpent() {
			return c.evidence.verdict()
		}
		switch {
		case !over:
		case c.isAnswered():
			c.timer.Reset(sameMoment) // its dial is about to return
		default:
			if end, err := c.proceed(); err != nil {
				return Inconclusive, 0, err
			} else if end {
				return c.evidence.verdict()
			}
		}
	}
}

// sameMoment is how far apart two answers may be that count as taken in at the same moment. The goroutines of two dials
// may take as long to tell of theirs.
const sameMoment = time.Millisecond

// lookOnceMore takes in what comes in the same moment.
func (c *dialCheck) lookOnceMore() {
	moment := time.NewTimer(sameMoment)
	defer moment.Stop()
	for len(c.live) > 0 && !c.evidence.answered {
		select {
		case d := <-c.results:
			c.take(d)
		case <-moment.C:
			c.takeAll()
			return
		}
	}
}

// takeAll takes in what has come by now.
func (c *dialCheck) takeAll() {
	for {
		select {
		case d := <-c.results:
			c.take(d)
		default:
			return
		}
	}
}

// take takes in what became of a try. One that was given up is of no interest any more.
func (c *dialCheck) take(d dialed) {
	for i, one := range c.live {
		if one.number == d.number {
			c.live = append(c.live[:i], c.live[i+1:]...)
			one.cancel()
			c.note(d)
			c.fit()
			return
		}
	}
}

func (c *dialCheck) note(d dialed) {
	if !d.left {
		c.sent--
	}
	if isErrno(d.err, descriptorErrnos) && len(c.live) > 0 {
		c.giveUpOldest()
		c.dialOn() // in its place
		return
	}
	c.evidence.note(d.result, d.err, d.took)
	if d.result == Inconclusive && c.number == 1 {
		c.schedule.endNow() // as where a first SYN cannot leave
	}
}

// isAnswered tells whether something has come back to a try, though its dial has not returned yet.
func (c *dialCheck) isAnswered() bool {
	return slices.ContainsFunc(c.live, func(one liveDial) bool { return one.socket.isAnswered() })
}

// isSpent tells whether nothing can come back any more.
func (c *dialCheck) isSpent() bool { return len(c.live) == 0 && c.schedule.isLast() && !c.paced }

// proceed goes on when the timer has run down. It reports whether that is the end.
func (c *dialCheck) proceed() (end bool, err error) {
	if c.paced {
		c.paced = false
		c.send()
		return false, nil
	}
	rest := c.rest()
	if rest > 0 {
		c.timer.Reset(rest)
		return false, nil
	}
	more, err := c.schedule.advance(lateBy(-rest))
	if !more || err != nil {
		return true, err
	}
	if c.pace != nil {
		if wait := c.pace(); wait > 0 {
			c.paced = true
			c.timer.Reset(wait)
			return false, nil
		}
	}
	c.send()
	return false, nil
}

// rest returns how much of the step is left. The step begins when its dial connects, which may be late where this process
// gets little of the CPU.
func (c *dialCheck) rest() time.Duration {
	began := c.stepped
	if last := len(c.live) - 1; last >= 0 && c.live[last].number == c.number {
		at := c.live[last].socket.began.Load()
		if at == nil {
			return sameMoment // it has yet to
		}
		began = *at
	}
	return c.schedule.length() - time.Since(began)
}

// send begins a step. Its try takes the place of the oldest if there is no other.
func (c *dialCheck) send() {
	if len(c.live) > 0 && !c.widen() {
		c.giveUpOldest()
	}
	c.dialOn()
	c.stepped = time.Now()
	c.timer.Reset(c.schedule.length())
}

// dialOn starts another dial.
func (c *dialCheck) dialOn() {
	ctx, cancel := context.WithCancel(c.ctx)
	c.sent++
	c.number++
	one := liveDial{number: c.number, socket: new(dialSocket), cancel: cancel, ended: make(chan struct{})}
	c.live = append(c.live, one)
	c.spawn(func() {
		defer close(one.ended)
		d := c.dial(ctx, c.job, one.socket)
		d.number = one.number
		c.results <- d
	})
}

// giveUpOldest ends the oldest dial.
func (c *dialCheck) giveUpOldest() {
	oldest := c.live[0]
	c.live = c.live[1:]
	oldest.cancel()
	<-oldest.ended
}

// widen takes another place in the pool if there is one to spare.
func (c *dialCheck) widen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.queue.widen() {
		return false
	}
	c.places++
	return true
}

// fit gives back the places that the check no longer needs.
func (c *dialCheck) fit() {
	if spare := c.places - max(1, len(c.live)); spare > 0 {
		c.places -= spare
		c.giveBack(spare)
	}
}
