package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// progressAfter is what makes a run a long one. A run with the defaults is over before.
	progressAfter = 5 * time.Second
	progressEvery = time.Second
)

// progress is a line at the foot of a terminal that tells how far a long run is. A nil progress does nothing.
type progress struct {
	w      io.Writer
	shared bool // the results go to a terminal as well, and the line has to make room for them
	width  int  // of the line that stands there now; 0 is none
}

// state is how far a run is.
type state struct {
	elapsed  time.Duration
	tally    tally
	planned  int64 // 0: endless
	underWay int
}

// ticks returns when to draw, and how to end that.
func (p *progress) ticks() (<-chan time.Time, func()) {
	if p == nil {
		return nil, func() {}
	}
	ticker := time.NewTicker(progressEvery)
	return ticker.C, ticker.Stop
}

// uncover takes the line away if it stands where results are about to come, and tells whether it did.
func (p *progress) uncover() bool {
	if p == nil || !p.shared || p.width == 0 {
		return false
	}
	p.hide()
	return true
}

func (p *progress) draw(s state) {
	if p == nil || s.elapsed < progressAfter {
		return
	}
	line := s.String()
	// Blanks instead of an escape sequence: every terminal and console knows them.
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-len(line))))
	p.width = max(p.width, len(line))
}

func (p *progress) hide() {
	if p == nil || p.width == 0 {
		return
	}
	fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
	p.width = 0
}

func (s state) String() string {
	done := s.tally.sent
	if s.planned == 0 {
		return fmt.Sprintf("%d checked, %d answered, %d under way", done, s.tally.answered(), s.underWay)
	}
	line := fmt.Sprintf("%d of %d checked, %d answered, %d under way", done, s.planned, s.tally.answered(), s.underWay)
	if done > 0 {
		left := time.Duration(float64(s.elapsed) * float64(s.planned-int64(done)) / float64(done))
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return line
}

// isTerminal takes every character device for a terminal. The others, such as /dev/null, do not mind.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
