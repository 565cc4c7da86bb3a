package main

import (
	"math"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// tally counts the results of checks. The zero value is that of none.
type tally struct {
	sent   int
	counts map[checker.Result]int
	rtt    spread // of the answered ones
}

func (t *tally) add(r checker.Report) {
	if t.counts == nil {
		t.counts = make(map[checker.Result]int)
	}
	t.sent++
	t.counts[r.Result]++
	if r.Result == checker.Answered {
		t.rtt.add(r.RTT)
	}
}

func (t *tally) answered() int { return t.counts[checker.Answered] }

// allAnswered is false where nothing was sent, as with ping.
func (t *tally) allAnswered() bool { return t.sent > 0 && t.answered() == t.sent }

// loss returns the share of checks that were not answered, in percent; 0 where nothing was sent.
func (t *tally) loss() float64 {
	if t.sent == 0 {
		return 0
	}
	return 100 * float64(t.sent-t.answered()) / float64(t.sent)
}

// spread is the minimum, mean, maximum and standard deviation of times. The zero value is that of none.
//
// The deviation is what ping calls mdev, sqrt(E[x²] - E[x]²). It is summed up by Welford's method, which is the same
// number: the difference of the two large means would lose its digits when times are long and close to each other.
type spread struct {
	n        int
	min, max time.Duration
	mean     float64 // in nanoseconds
	squares  float64 // sum of the squared distances from the mean
}

func (s *spread) add(d time.Duration) {
	if s.n == 0 || d < s.min {
		s.min = d
	}
	s.max = max(s.max, d)
	s.n++
	distance := float64(d) - s.mean
	s.mean += distance / float64(s.n)
	s.squares += distance * (float64(d) - s.mean)
}

func (s *spread) avg() time.Duration { return time.Duration(math.Round(s.mean)) }

func (s *spread) mdev() time.Duration {
	if s.n == 0 {
		return 0
	}
	return time.Duration(math.Round(math.Sqrt(s.squares / float64(s.n))))
}
