package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// prober is the part of checker.Prober that a pinger uses.
type prober interface {
	Submit(checks ...checker.Check) error
	Close()
	Done() <-chan struct{}
	Err() error
}

// check is one check of a target: what was asked and, once it is done, what came of it.
type check struct {
	target *target
	seq    int // of the round, from 1
	sent   time.Time
	checker.Report
}

// pinger sends the checks, in rounds of one for each target, and prints what comes back.
type pinger struct {
	settings
	targets  []*target
	total    tally
	out      printer
	progress *progress // nil: none
	prober   prober
	reports  chan checker.Report // has room for all checks that can be under way

	start    time.Time
	due      time.Time // when the next round may begin
	round    int       // of the next check, from 0
	turn     int       // index of its target
	underWay int
}

func newPinger(s settings, targets []*target, out printer) *pinger {
	return &pinger{
		settings: s,
		targets:  targets,
		out:      out,
		reports:  make(chan checker.Report, s.concurrency),
	}
}

// deliver never blocks: no more checks are under way than there is room for reports.
func (p *pinger) deliver(reports []checker.Report) {
	for _, r := range reports {
		p.reports <- r
	}
}

// run ends after the last check or with ctx, and closes the prober. It prints the summary in any case; an error says why
// it could not finish.
func (p *pinger) run(ctx context.Context) error {
	p.start = time.Now()
	p.due = p.start
	p.out.printNames(p.targets)
	err := p.out.flush()
	if err == nil {
		err = p.rounds(ctx)
	}
	p.prober.Close()
	p.progress.hide()
	p.collect()
	p.out.printSummary(p.targets, &p.total, time.Since(p.start))
	// A failed output says so each time it is asked.
	return cmp.Or(err, p.out.flush())
}

// rounds returns when every check has been reported, or else when ctx or the prober ends, or the output fails.
func (p *pinger) rounds(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ticks, stop := p.progress.ticks()
	defer stop()
	for {
		if err := p.submit(); err != nil {
			<-p.prober.Done() // Err has no answer before
			return cmp.Or(p.prober.Err(), err)
		}
		if p.underWay == 0 && p.complete() {
			return nil
		}
		var due <-chan time.Time
		if p.underWay < p.concurrency && !p.complete() {
			timer.Reset(time.Until(p.due))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.prober.Done():
			return p.prober.Err()
		case r := <-p.reports:
			covered := p.progress.uncover()
			p.finish(r)
			p.collect()
			if err := p.out.flush(); err != nil {
				return err
			}
			if covered {
				p.progress.draw(p.state())
			}
		case <-due:
		case <-ticks:
			p.progress.draw(p.state())
		}
	}
}

// complete tells whether the last check has been submitted.
func (p *pinger) complete() bool { return p.count > 0 && p.round >= p.count }

// submit starts what is due and finds a place.
func (p *pinger) submit() error {
	now := time.Now()
	var checks []checker.Check
	for p.underWay+len(checks) < p.concurrency && !p.complete() {
		if p.turn == 0 {
			if now.Before(p.due) {
				break
			}
			p.due = now.Add(p.interval) // not p.due plus interval: late rounds are not made up for in a burst
		}
		t := p.targets[p.turn]
		checks = append(checks, checker.Check{
			Target:  t.addr,
			Timeout: p.timeout,
			Tag:     &check{target: t, seq: p.round + 1, sent: now},
		})
		if p.turn++; p.turn == len(p.targets) {
			p.turn = 0
			p.round++
		}
	}
	if len(checks) == 0 {
		return nil
	}
	if err := p.prober.Submit(checks...); err != nil {
		return err
	}
	p.underWay += len(checks)
	return nil
}

// finish counts and prints one report.
func (p *pinger) finish(r checker.Report) {
	p.underWay--
	if errors.Is(r.Err, checker.ErrClosed) {
		return // cut short by Ctrl-C
	}
	c := r.Tag.(*check)
	c.Report = r
	c.target.add(r)
	p.total.add(r)
	p.out.printCheck(c)
}

// collect finishes what has been reported up to now.
func (p *pinger) collect() {
	for {
		select {
		case r := <-p.reports:
			p.finish(r)
		default:
			return
		}
	}
}

func (p *pinger) state() state {
	return state{
		elapsed:  time.Since(p.start),
		tally:    p.total,
		planned:  int64(p.count) * int64(len(p.targets)),
		underWay: p.underWay,
	}
}
