package answer

import "net/netip"

// Policy is what is wanted of answers.
type Policy struct {
	// TTL bounds that of the addresses that are watched, in seconds.
	TTL uint32
	// SortRTT puts the addresses with the shortest round trips first.
	SortRTT bool
	// Fallback is what to answer when too few addresses are healthy.
	Fallback Fallback
	// Panic is the share of healthy addresses, in per cent, below which the fallback applies. It always does when none
	// is.
	Panic int
}

// Zone is a zone and the policy for the names in it.
type Zone struct {
	Name string // lower case and fully qualified
	*Policy
}

// Fallback is what to answer in place of addresses that are down.
type Fallback struct {
	Kind FallbackKind
	// Addresses are those of FallbackAddresses, IPv4 and IPv6.
	Addresses []netip.Addr
}

// FallbackKind is a way to answer when addresses are down.
type FallbackKind uint8

const (
	// FallbackAll answers with all of them: that the checks are wrong is then likelier than that everything is dead.
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
