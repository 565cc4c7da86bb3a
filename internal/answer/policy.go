package answer

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Policy is what is wanted of answers.
type Policy struct {
	// TTL bounds that of the addresses that are watched, in seconds.
	TTL uint32
	// Tiers are which addresses are served only where no better ones live.
	Tiers Tiers
	// Fallback is what to answer when too few addresses are healthy.
	Fallback Fallback
	// Panic is the share of healthy addresses, in per cent, below which a tier is not served, and the fallback applies
	// where there is no other. It always does when none is healthy.
	Panic int
	// Sort is the order of addresses.
	Sort Order
	// ClientBits4 and ClientBits6 are how many bits of a client's address SortClient goes by.
	ClientBits4, ClientBits6 int
	// Pick is how many addresses of an RRset to answer with at most, 0 for all.
	Pick int
	// Weights are how much more often than others an address comes first, or is picked.
	Weights Weights
}

// selects tells whether addresses that are up may leave an answer, or change places.
func (p *Policy) selects() bool { return p.Pick > 0 || p.Sort != Unsorted || p.Tiers.Len() > 0 }

// Zone is a zone and the policy for the names in it.
type Zone struct {
	Name string // lower case and fully qualified
	*Policy
}

// Tiers are prefixes in the order in which the addresses in them are preferred. The zero value has none, so that all
// addresses are alike.
type Tiers struct {
	table bart.Table[int]
	n     int
}

// Add adds a tier behind all others. It reports a prefix that is in one of them already, if there is one.
func (t *Tiers) Add(tier []netip.Prefix) (twice netip.Prefix, ok bool) {
	for _, p := range tier {
		if _, taken := t.table.Get(p); taken {
			return p, false
		}
		t.table.Insert(p, t.n)
	}
	t.n++
	return netip.Prefix{}, true
}

// Len returns the number of tiers that were added.
func (t *Tiers) Len() int { return t.n }

// Of returns the tier of an address, from 0: that of the longest prefix which holds it, and Len where none does.
func (t *Tiers) Of(addr netip.Addr) int {
	if tier, found := t.table.Lookup(addr); found {
		return tier
	}
	return t.n
}

// All returns every prefix with its tier, from 0, in the order of their addresses, IPv4 first.
func (t *Tiers) All() iter.Seq2[netip.Prefix, int] { return t.table.AllSorted() }

// Weights are numbers from 1 to 1000 that prefixes have. The zero value has none.
type Weights struct {
	table bart.Table[int]
}

// Set gives a prefix its weight. It reports false where the prefix has one already.
func (w *Weights) Set(p netip.Prefix, weight int) bool {
	if _, taken := w.table.Get(p); taken {
		return false
	}
	w.table.Insert(p, weight)
	return true
}

// Len returns the number of prefixes that have a weight.
func (w *Weights) Len() int { return w.table.Size() }

// Of returns the weight of an address: that of the longest prefix which holds it, and 1 where none does.
func (w *Weights) Of(addr netip.Addr) int {
	if weight, found := w.table.Lookup(addr); found {
		return weight
	}
	return 1
}

// All returns every prefix that has a weight, with it, in the order of their addresses, IPv4 first.
func (w *Weights) All() iter.Seq2[netip.Prefix, int] { return w.table.AllSorted() }

// Order is an order of addresses. The zero value is Unsorted.
type Order uint8

const (
	// Unsorted is the order of the message.
	Unsorted Order = iota
	// SortRTT is by round trip, the shortest first.
	SortRTT
	// SortClient is by the network of the client: each has an order of its own that stays the same, see [Rendezvous].
	SortClient
)

// String returns the order as a Corefile has it.
func (o Order) String() string {
	switch o {
	case SortRTT:
		return "rtt"
	case SortClient:
		return "client"
	default:
		return "none"
	}
}

// Fallback is what to answer in place of addresses that are down: those of the first of Names which has any that live,
// and else what Kind says.
type Fallback struct {
	Names []string // lower case and fully qualified
	Kind  FallbackKind
	// Addresses are those of FallbackAddresses, IPv4 and IPv6.
	Addresses []netip.Addr
}

// FallbackKind is a way to answer when addresses are down.
type FallbackKind uint8

const (
	// FallbackAll answers with all of them: that the checks are wrong is then likelier than that everything is dead. But
	// where a name has living addresses of the other family, they prove that the checks are right, and the answer is that
	// there are none of this one.
	FallbackAll FallbackKind = iota
	// FallbackNoData answers that there are none.
	FallbackNoData
	// FallbackServFail answers that the server has failed.
	FallbackServFail
	// FallbackAddresses answers with others.
	FallbackAddresses
)

// String returns the kind as a Corefile has it; that of FallbackAddresses stands for them.
func (k FallbackKind) String() string {
	switch k {
	case FallbackNoData:
		return "nodata"
	case FallbackServFail:
		return "servfail"
	case FallbackAddresses:
		return "addresses"
	default:
		return "all"
	}
}
