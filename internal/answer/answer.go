// Package answer edits DNS answers by verdicts on the addresses in them: which records leave, which stay, what takes the
// place of those that are down, and in what order they are.
//
// [Filter] does it in steps. It dissects the message into RRsets and the addresses that they lead to, and asks for the
// verdicts. It decides for each RRset which tier is served, what the fallback is if none is, in what order the addresses
// are, which are picked, and how long the answer may be kept. Then it makes a new message, if anything is to change at all.
//
// An RRset with signatures changes only where a [Signer] makes new ones. Else it keeps its members, the dead last.
//
// [Explain] does the same, and then reads from the dissected message what was decided in each step, and about which record.
//
// All sections tell one story. An RRset that stands in the answer and beside it has the same members and the same TTL in
// both places, and an address that nobody should use any more is in neither a hint nor the additional section.
package answer

import (
	"net/netip"
	"slices"
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
	// Standby returns what a name is answered with by its own policy, for a type that is A or AAAA, and for how many
	// seconds that may be kept. There are no addresses where the name has none that live, or none that are known yet.
	// The slice is not to be changed.
	Standby(name string, rrtype uint16) (addrs []netip.Addr, ttl uint32)
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
	// Within is how long it takes at most until an address that is Unknown has a verdict, 0 where nobody can tell.
	Within time.Duration
}

// Query is what is answered, and to whom.
type Query struct {
	Zone    Zone
	Request *dns.Msg
	Client  Client
	// Signer signs what is changed. Where it is nil, RRsets with signatures keep all members.
	Signer Signer
	// Draw returns a number above 0 and below 1 for an address, which decides with its weight whether it is picked. Where
	// it is nil, each number is drawn at random. Under SortClient it is not used.
	Draw func(netip.Addr) float64
}

// Client is who gets the answer.
type Client interface {
	// Room returns how many octets a message to the client may have, without being truncated.
	Room() int
	// Addr returns the address that the query came from, the zero Addr where it has none.
	Addr() netip.Addr
}

// Signer makes DNSSEC signatures (RFC 4034).
type Signer interface {
	// Sign returns RRSIG records for an RRset, none where it has no key for the zone. What it is given and what it returns
	// is not to be changed.
	Sign(rrset []dns.RR) []dns.RR
	// Deny returns records for the authority section that prove that a name in the zone of a SOA record has no records of
	// a type, beginning with that record, and with their signatures. There are none where it has no key for the zone. What
	// it is given and what it returns is not to be changed.
	Deny(soa *dns.SOA, name string, rrtype uint16) []dns.RR
}

// Result says what [Filter] did.
type Result struct {
	// Addresses is how many a verdict could be had on, once for each record that leads to them.
	Addresses int
	// Removed is how many of them have left the message because they, or too many others, are down.
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
	// Selected means that addresses are missing which need not be, since others were preferred or picked.
	Selected
	// Filtered means that addresses are missing that are down.
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
	case Selected:
		return "selected"
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

// most returns the number for the policy. To select costs about as much as all the rest.
func (p *Policy) most() int {
	if p.selects() {
		return maxPairs / 2
	}
	return maxPairs
}

// textOfPair is the number of octets in the text of different names for each pair that there may be, from which on a
// message passes as it is. They have less, if none has more than the 255 octets that are usual. Octets that need escapes
// make four of one.
const textOfPair = 256

// Filter returns the message to send in place of m, the answer to a query: m itself where nothing has
// to change, and otherwise a new message. What m refers to is never changed, since the plugins below
// may hold on to it. It allocates nothing where nothing changes.
func Filter(m *dns.Msg, q *Query, source Source) (*dns.Msg, Result) {
	var few [8]Verdict
	if len(m.Answer) > len(few) {
		return filterMany(m, q, source)
	}
	filtered, asked := askAhead(m, q.Zone.Policy, source, few[:0])
	if filtered == nil {
		return filterFew(m, q, source, asked)
	}
	return filtered, Result{Addresses: len(asked)}
}

// filterFew is Filter where some of the few addresses are not up. Those that were asked for have their verdicts.
//
//go:noinline
func filterFew(m *dns.Msg, q *Query, source Source, asked []Verdict) (*dns.Msg, Result) {
	a := anatomyFor(m)
	defer a.release()
	a.ahead = append(a.ahead, asked...)
	return a.filterSigned(m, q, source)
}

// filterMany is Filter where there are more records than room on the stack for verdicts on them.
//
//go:noinline
func filterMany(m *dns.Msg, q *Query, source Source) (filtered *dns.Msg, _ Result) {
	a := anatomyFor(m)
	defer a.release()
	if len(m.Answer) <= ordinary {
		a.ahead = slices.Grow(a.ahead, len(m.Answer))
		if filtered, a.ahead = askAhead(m, q.Zone.Policy, source, a.ahead); filtered != nil {
			return filtered, Result{Addresses: len(a.ahead)}
		}
	}
	return a.filterSigned(m, q, source)
}

// filterSigned is Filter for what has to be dissected.
func (a *anatomy) filterSigned(m *dns.Msg, q *Query, source Source) (*dns.Msg, Result) {
	filtered, result, valid := a.filter(m, q, source)
	if !valid {
		return a.filterUnsigned(m, q, source)
	}
	return filtered, result
}

// filterUnsigned is Filter where nobody can sign what would change. It is apart like [anatomy.edited].
//
//go:noinline
func (a *anatomy) filterUnsigned(m *dns.Msg, q *Query, source Source) (*dns.Msg, Result) {
	unsigned := *q
	unsigned.Signer = nil
	filtered, result, _ := a.filter(m, &unsigned, source)
	return filtered, result
}

// filter is Filter. It reports false where something would have to be signed again, and cannot be.
func (a *anatomy) filter(m *dns.Msg, q *Query, source Source) (_ *dns.Msg, _ Result, valid bool) {
	p := q.Zone.Policy
	a.dissect(m, q, source)
	for a.askable() {
		a.ask(q, source)
		a.assess(p)
		a.relent(p)
		a.judge(p, source)
		if !source.Settle() {
			break
		}
		if a.resolves {
			a.dissect(m, q, source)
		}
	}
	result := Result{Addresses: len(a.pairs)}
	if !a.askable() {
		return m, result, true
	}
	changed := a.decide(q)
	a.limit(p)
	if !changed && !a.exceeds() {
		return m, result, true
	}
	return a.edited(q, result)
}

// edited returns the new message, what was done, and whether that is valid. It is apart because of the room it takes on the
// stack, which the questions to the source would need as well.
//
//go:noinline
func (a *anatomy) edited(q *Query, result Result) (*dns.Msg, Result, bool) {
	e := edit{anatomy: a, copies: copiesFor(a.message), query: *q}
	m := e.make()
	result.Removed, result.Outcome = e.removed, e.outcome
	return m, result, !e.invalid
}
