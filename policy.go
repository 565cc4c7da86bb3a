package shaker

import (
	"net/netip"
	"time"
	"unique"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// policy is what one stanza says.
type policy struct {
	zones []string // lower case and fully qualified
	place string   // of the stanza in the Corefile

	ports    []uint16
	anyPort  bool // one port that answers is enough
	settings health.Settings
	source4  netip.Addr
	source6  netip.Addr
	hold     time.Duration
	ttl      uint32 // seconds
	sortRTT  bool   // nearest addresses first
	idle     time.Duration
	fallback fallback
	panics   int // per cent of healthy addresses below which the fallback applies
	probed   prefixes
	forced   *overridesFile // nil without
	watched  []string       // names, lower case and fully qualified
	noted    bool           // names are noted at their targets, because there is a status page

	// key4 and key6 stand for settings with the source of each family.
	key4, key6 health.Key
}

// fallback is what to answer when every address is down.
type fallback struct {
	kind      fallbackKind
	addresses []netip.Addr // of fallbackAddresses, IPv4 and IPv6
}

type fallbackKind uint8

const (
	fallbackAll fallbackKind = iota
	fallbackNoData
	fallbackServFail
	fallbackAddresses
)

func (k fallbackKind) String() string {
	switch k {
	case fallbackNoData:
		return "nodata"
	case fallbackServFail:
		return "servfail"
	case fallbackAddresses:
		return "addresses"
	default:
		return "all"
	}
}

// defaultPolicy is a stanza without properties.
func defaultPolicy() *policy {
	return &policy{
		ports: []uint16{443},
		settings: health.Settings{
			Interval: 2 * time.Second,
			Fast:     500 * time.Millisecond,
			Timeout:  time.Second,
			Rise:     2,
			Fall:     3,
			// Clients keep an answer for ttl, so they could not follow a target that comes and goes faster.
			Damping:    30 * time.Second,
			DampingMax: 5 * time.Minute,
		},
		hold: 100 * time.Millisecond,
		ttl:  30,
		idle: 10 * time.Minute,
	}
}

// complete derives what the parsed properties imply.
func (p *policy) complete() {
	settings := p.settings
	settings.Source = p.source4
	p.key4 = unique.Make(settings)
	settings.Source = p.source6
	p.key6 = unique.Make(settings)
	p.probed.complete()
}

// key returns the settings for probes of addr.
func (p *policy) key(addr netip.Addr) health.Key {
	if addr.Is4() {
		return p.key4
	}
	return p.key6
}

// zonePolicies finds the policy for a name: that of the longest zone which contains it.
type zonePolicies map[string]zonePolicy

type zonePolicy struct {
	zone string
	*policy
}

// maxName is the longest presentation form of a name: 255 octets, each escaped as \DDD.
const maxName = 1024

// find tells the zone and policy for a name; the policy is nil where no zone contains the name. It
// does not allocate.
func (z zonePolicies) find(name string) zonePolicy {
	for i := range len(name) {
		if isUpper(name[i]) {
			return z.findMixedCase(name)
		}
	}
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if p, ok := z[name[off:]]; ok {
			return p
		}
	}
	return z["."]
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// findMixedCase is find for the names of clients that mix upper and lower case. It is apart because of the
// room it takes on the stack: queries are served by new goroutines, whose stacks would have to grow.
//
//go:noinline
func (z zonePolicies) findMixedCase(name string) zonePolicy {
	var buffer [maxName]byte
	if len(name) > len(buffer) {
		return zonePolicy{}
	}
	lower := buffer[:len(name)]
	for i := range len(name) {
		c := name[i]
		if isUpper(c) {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if p, ok := z[string(lower[off:])]; ok {
			return p
		}
	}
	return z["."]
}
