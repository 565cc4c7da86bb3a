package checker

import (
	"errors"
	"net/netip"
	"time"
)

// Result is what one check taught about its target. The zero value is Inconclusive.
type Result uint8

const (
	// Inconclusive says nothing about the target: the check failed on this machine (no route, no
	// descriptor, no buffer, no free port, a local firewall, no CPU) or was cut short. Report.Err tells why. A check
	// of several tries is inconclusive if none is answered, and any of them failed on this machine.
	Inconclusive Result = iota
	// Answered means that a SYN-ACK came back: the target's kernel accepts connections on the port. What comes
	// after it does not matter, be it a RST. If a RST to another try of the check is taken in at the same moment,
	// the SYN-ACK decides. It proves that the port accepts; the RST only proves that one SYN was not accepted.
	Answered
	// Refused means that a RST came back in answer to the SYN (RFC 9293, section 3.5.2): the host lives, nothing
	// listens. Of several tries, the first one that is answered decides.
	Refused
	// Timeout means that nothing came back in time.
	Timeout
	// Unreachable means that an ICMP error came back (RFC 792, RFC 4443), or that the neighbour did
	// not answer ARP or neighbour discovery. Such an error ends its try, not the check (RFC 1122, section 4.2.3.9:
	// most of them may pass). The check is unreachable if no try is answered, and any has ended so.
	Unreachable

	numResults
)

// String returns the result in lower case, as used in logs and metric labels.
func (r Result) String() string {
	switch r {
	case Answered:
		return "answered"
	case Refused:
		return "refused"
	case Timeout:
		return "timeout"
	case Unreachable:
		return "unreachable"
	default:
		return "inconclusive"
	}
}

// Results returns every result once, in the order of their values.
func Results() []Result {
	all := make([]Result, numResults)
	for i := range all {
		all[i] = Result(i)
	}
	return all
}

// Check asks whether a TCP port answers.
type Check struct {
	// Target is the address and port to send the SYN to. An IPv4-mapped IPv6 address is taken as
	// IPv4. Port 0 and an invalid address are reported as Inconclusive with ErrTarget.
	Target netip.AddrPort
	// Source is the local address to send from; the zero value leaves the choice to the kernel. It
	// has to be of the target's family.
	Source netip.Addr
	// Timeout bounds the wait for the answer, from the SYN on. It has to be positive. Time in which this process was
	// away does not count, see ErrPaused.
	Timeout time.Duration
	// Tries is how many SYNs the check sends, each from a source port of its own, while nothing answers and Timeout is
	// not over: 1 if it is less than that, MaxTries if it is more. An answer to any of them ends the check. That the
	// kernel, or MethodRaw in its place, sends a SYN again after a second is not counted as a try.
	Tries int
	// Spacing is the time from one try to the next. Where it is not positive, Timeout is divided evenly among the
	// tries. A try that would leave at the timeout or after it is not sent.
	Spacing time.Duration
	// Suspect marks a check that is expected to stay unanswered. Suspects never take more than half
	// of the pool, so that black holes cannot starve the living.
	Suspect bool
	// Tag comes back in the Report unchanged.
	Tag any
}

// Report is the outcome of one Check.
type Report struct {
	Tag    any
	Result Result
	// RTT is the time from the SYN that was answered to its answer, for Answered and Refused; otherwise 0. It is 0 as
	// well if this process was away in between, at a stretch for more than an eighth of it and for 25 ms at least, which
	// MethodDial does not know: nobody can tell then when the answer came.
	RTT time.Duration
	// Tries is how many SYNs have left, at most as many as the check's tries and void steps (see ErrPaused) together.
	// MethodDial counts its calls of connect.
	Tries int
	// Err is nil for Answered, ErrTimeout for Timeout, and otherwise holds the errno where there
	// was one (errors.Is finds it).
	Err error
}

var (
	// ErrClosed is the reason of checks that were cut short because their prober was closed.
	ErrClosed = errors.New("checker: closed")
	// ErrTarget is the reason of checks whose target, source or timeout cannot be used.
	ErrTarget = errors.New("checker: invalid target, source or timeout")
	// ErrFiltered is the reason of checks whose SYN a firewall on this machine has rejected.
	ErrFiltered = errors.New("checker: SYN rejected by a firewall on this machine")
	// ErrOverflow is the reason of checks whose answer may have been thrown away, because answers came in faster
	// than they were read.
	ErrOverflow = errors.New("checker: answers were lost on this machine")
	// ErrPaused is the reason of checks during which this process was away: stopped, starved of CPU, suspended, or busy
	// in the function that takes reports. If it is away at a stretch for half of the wait that follows a SYN, or
	// longer, that wait does not count, and there is another SYN with another wait. There are no more of them than the
	// check has tries, less one, and together they are no longer than its timeout. If still more waits do not count, or
	// the only one does not, and nothing answers, the check is Inconclusive for this reason. What is shorter than 25 ms
	// goes unnoticed. MethodDial only notices what delays the end of a wait.
	ErrPaused = errors.New("checker: this process did not run while it waited for an answer")
	// ErrBusy is the reason of checks that found no free place in the pool within their timeout.
	ErrBusy = errors.New("checker: no free place in the pool in time")
)
