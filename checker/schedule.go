package checker

import "time"

// MaxTries is how many SYNs a check sends at most.
const MaxTries = 16

// schedule is when a check sends its SYNs. After each comes a step: the wait until the next one, and after the last one
// until the end. A step is measured from when its SYN has left. All steps together are as long as the check's timeout.
//
// A step is void if this process was away for half of it or longer, at a stretch. It teaches nothing then, and is
// repeated, with another SYN. If it cannot be, the check goes on, but cannot conclude anything from silence.
type schedule struct {
	spacing, last time.Duration // how long a step is, and how long the last one is
	grace         time.Duration // how long all void steps may be together that are still to be repeated
	repeats       uint8         // how many those may be
	steps, step   uint8         // how many there are, and which one is under way, from 0 on
	missed        bool          // a void step was not repeated
}

// newSchedule makes a schedule for a check whose timeout is positive. Void steps are repeated for as long as the check's
// timeout at most. With one try none is.
func newSchedule(c *Check) schedule {
	n := time.Duration(min(max(c.Tries, 1), MaxTries))
	if n == 1 {
		return schedule{last: c.Timeout, steps: 1}
	}
	spacing := c.Spacing
	if spacing <= 0 {
		spacing = max(1, c.Timeout/n)
	}
	// A SYN that would leave at the timeout or after it is not sent.
	n = min(n, (c.Timeout-1)/spacing+1)
	return schedule{
		spacing: spacing,
		last:    c.Timeout - (n-1)*spacing,
		grace:   c.Timeout,
		repeats: uint8(n - 1),
		steps:   uint8(n),
	}
}

// isLast tells whether the step under way is the last one.
func (s *schedule) isLast() bool { return s.step+1 == s.steps }

// endNow makes the step under way the last one.
func (s *schedule) endNow() { s.steps = s.step + 1 }

// length returns how long the step under way is.
func (s *schedule) length() time.Duration {
	if s.isLast() {
		return s.last
	}
	return s.spacing
}

// advance ends a step without an answer, during which this process was away for that long at a stretch. It reports
// whether there is another SYN to send. If not, the error is ErrPaused if silence proves nothing.
func (s *schedule) advance(away time.Duration) (more bool, err error) {
	if length := s.length(); isVoid(length, away) {
		if s.repeats > 0 && length <= s.grace {
			s.repeats--
			s.grace -= length
			return true, nil
		}
		s.missed = true
	}
	switch {
	case !s.isLast():
		s.step++
		return true, nil
	case s.missed:
		return false, ErrPaused
	default:
		return false, nil
	}
}

// isVoid tells whether a step of that length teaches nothing, because this process was away for so long.
func isVoid(length, away time.Duration) bool { return away > 0 && away >= length-length/2 }
