package checker

import "time"

// evidence is what has come back to tries of a check. A SYN-ACK proves that the port accepts, so it counts for more than a
// RST, which proves that one SYN was not accepted. Either says more than an error.
type evidence struct {
	answered    bool
	refused     error         // of the first RST
	rtt         time.Duration // of the SYN-ACK, or of the first RST
	unreachable error         // the newest ICMP error
	fault       error         // the newest of this machine's that has kept a try from being answered
}

// note takes in what became of a try. That nothing came back to it need not be noted.
func (e *evidence) note(r Result, err error, rtt time.Duration) {
	switch {
	case e.answered:
	case r == Answered:
		e.answered, e.rtt = true, rtt
	case r == Refused && e.refused == nil:
		e.refused, e.rtt = err, rtt
	case r == Unreachable:
		e.unreachable = err
	case r == Inconclusive:
		e.fault = err
	}
}

// verdict returns what the check has found if nothing else comes back. Where a try failed on this machine, silence and
// errors prove nothing.
func (e *evidence) verdict() (r Result, rtt time.Duration, err error) {
	switch {
	case e.answered:
		return Answered, e.rtt, nil
	case e.refused != nil:
		return Refused, e.rtt, e.refused
	case e.fault != nil:
		return Inconclusive, 0, e.fault
	case e.unreachable != nil:
		return Unreachable, 0, e.unreachable
	default:
		return Timeout, 0, ErrTimeout
	}
}
