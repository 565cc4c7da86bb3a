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
	// descriptor, no buffer, no free port, a local firewall) or was cut short. Report.Err tells why.
	Inconclusive Result = iota
	// Answered means that a SYN-ACK came back: the target's kernel accepts connections on the port. What comes
	// after it does not matter, be it a RST.
	Answered
	// Refused means that a RST came back in answer to the SYN (RFC 9293, section 3.5.2): the host lives, nothing
	// listens.
	Refused
	// Timeout means that nothing came back in time.
	Timeout
	// Unreachable means that an ICMP error came back (RFC 792, RFC 4443), or that the neighbour did
	// not answer ARP or neighbour discovery.
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
	// Timeout bounds the wait for the answer, from the SYN on. It has to be positive.
	Timeout time.Duration
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
	// RTT is the time from the SYN to its answer, for Answered and Refused; otherwise 0.
	RTT time.Duration
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
	// ErrBusy is the reason of checks that found no free place in the pool within their timeout.
	ErrBusy = errors.New("checker: no free place in the pool in time")
)
