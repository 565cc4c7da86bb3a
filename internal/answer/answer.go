// Package answer edits DNS answers by verdicts on the addresses in them: which records leave, which stay, and in what
// order.
//
// [Filter] does it in steps. It dissects the message into RRsets and the addresses that they lead to, asks for the
// verdicts, decides for each RRset what becomes of it, and then makes a new message, if anything is to change at all.
//
// All sections tell one story. An RRset that stands in the answer and beside it has the same members and the same TTL in
// both places, and an address that nobody should use any more is in neither a hint nor the additional section.
package answer

import (
	"math"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Source tells what is known of addresses.
type Source interface {
	// Ask returns the verdict on an address at one port, or at the ports of the policy where port is 0.
	Ask(addr netip.Addr, port uint16) Verdict
	// Resolve returns the addresses that a name has by its records of a type, A or AAAA. It reports false where they are
	// not known, or not yet. The slice is not to be changed.
	Resolve(name string, rrtype uint16) (addrs []netip.Addr, known bool)
	// Settle is called when all has been asked for. It waits for what is about to come, and reports whether it did: then
	// all has to be asked for again, and Settle may be called once more.
	Settle() bool
}

// State is what an address is believed to be. The zero value is Unwatched.
type State uint8

const (
	// Unwatched means that nobody looks after the address, so nothing is known.
	Unwatched State = iota
	// Unknown means that there is no verdict yet.
	Unknown
	// Up means that it answers.
	Up
	// Down means that it does not.
	Down
)

// Verdict is what is known of an address.
type Verdict struct {
	State State
	// Damped tells of an address that is down that it answers, and is down only because it went down too often.
	Damped bool
	// RTT is its round trip, 0 where none is known.
	RTT time.Duration
}

// rank returns the address's place among others; the smaller goes first. Round trips count by whole
// milliseconds: what is below them is noise, and would have addresses change places all the time.
func (v Verdict) rank(p *Policy) uint32 {
	switch {
	case v.State == Down:
		return lastRank
	case !p.SortRTT:
		return 0
	case v.RTT == 0:
		return lastRank - 1
	default:
		return uint32(min(v.RTT.Milliseconds(), lastRank-2))
	}
}

// lastRank is that of what is down.
const lastRank = math.MaxUint32

// Query is what is answered, and to whom.
type Query struct {
	Zone    Zone
	Request *dns.Msg
	Client  Client
}

// Client is who gets the answer.
type Client interface {
	// Room returns how many octets a message to the client may have, without being truncated.
	Room() int
}

// Result says what [Filter] did.
type Result struct {
	// Addresses is how many a verdict could be had on, once for each record that leads to them.
	Addresses int
	// Removed is how many of them are not in the new message.
	Removed int
	Outcome Outcome
}

// Outcome is what became of an answer. A later one outweighs an earlier one.
type Outcome uint8

const (
	// Untouched means that every address stayed, in its place.
	Untouched Outcome = iota
	// Reordered means that no address left, but their order is another.
	Reordered
	// Filtered means that addresses are missing.
	Filtered
	// Substituted means that the fallback applied to an RRset.
	Substituted

	Outcomes // number of outcomes
)

// String returns the outcome in lower case, as metrics and logs have it.
func (o Outcome) String() string {
	switch o {
	case Reordered:
		return "reordered"
	case Filtered:
		return "filtered"
	case Substituted:
		return "fallback"
	default:
		return "untouched"
	}
}

// maxPairs is the number of addresses and ports from which on a message passes as it is, names to resolve included. A
// message of 64 KB has room for a few thousand addresses, and for millions of pairs if SRV records share targets.
const maxPairs = 4096

// maxText is the number of octets in the text of different names from which on a message passes as it is. That many
// names have less, if none has more than the 255 octets that are usual. Octets that need escapes make four of one.
const maxText = maxPairs * 256

// Filter returns the message to send in place of m, the answer to a query: m itself where nothing has
// to change, and otherwise a new message. What m refers to is never changed, since the plugins below
// may hold on to it. It allocates nothing where nothing changes.
func Filter(m *dns.Msg, q *Query, source Source) (*dns.Msg, Result) {
	a := anatomyFor(m)
	defer a.release()
	p := q.Zone.Policy
	a.dissect(m, p, source)
	for a.askable() {
		a.ask(p, source)
		if !source.Settle() {
			break
		}
		if a.resolves {
			a.dissect(m, p, source)
		}
	}
	result := Result{Addresses: len(a.pairs)}
	if !a.askable() || !a.decide(p) && !a.exceeds(p.TTL) {
		return m, result
	}
	e := edit{anatomy: a, query: q}
	m = e.make()
	result.Removed, result.Outcome = e.removed, e.outcome
	return m, result
}
