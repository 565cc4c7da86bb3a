package shaker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

// policy is what one stanza says.
type policy struct {
	answer.Policy

	zones     []string // lower case and fully qualified
	zonesHere []string // as the stanza has them; none where it takes those of the server block
	place     string   // of the stanza in the Corefile

	ports     []uint16
	anyPort   bool // one port that answers is enough
	settings  health.Settings
	source4   netip.Addr
	source6   netip.Addr
	hold      time.Duration
	idle      time.Duration
	permits   permits
	detours   detours
	overrides *override.File // nil without
	// localOverrides tells that they are not shared with other replicas.
	localOverrides bool
	watched        []string // names, lower case and fully qualified
	named          bool     // targets are told the names that lead to them, because there is a status page

	// key4 and key6 stand for settings with the source of each family.
	key4, key6 health.Key

	counters firstCounters
}

// defaultPolicy is a stanza without properties.
func defaultPolicy() *policy {
	return &policy{
		Policy: answer.Policy{TTL: 30, ClientBits4: 24, ClientBits6: 56},
		ports:  []uint16{443},
		settings: health.Settings{
			Interval: 2 * time.Second,
			Fast:     500 * time.Millisecond,
			Timeout:  time.Second,
			Tries:    4,
			Rise:     2,
			Fall:     3,
			// Clients keep an answer for its TTL, so they could not follow a target that comes and goes faster.
			Damping:    30 * time.Second,
			DampingMax: 5 * time.Minute,
		},
		hold: 100 * time.Millisecond,
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
	p.permits.addDefaults()
}

// mayProbe tells whether an address, which is of a record, may be probed: the address at which that is done decides.
func (p *policy) mayProbe(addr netip.Addr) bool {
	return p.permits.allows(p.detours.of(netip.AddrPortFrom(addr, 0)).Addr())
}

// doubts tells what in a stanza is allowed, but hardly does what somebody meant by it.
func (p *policy) doubts() (lines []string) {
	if len(p.zonesHere) > 0 {
		if i := slices.IndexFunc(p.zones, isReverse); i >= 0 {
			lines = append(lines, fmt.Sprintf("zone %q is a reverse zone, where answers have no addresses to check; "+
				"to choose addresses, use allow and deny", p.zones[i]))
		}
	}
	if idle := p.permits.withoutEffect(); len(idle) > 0 {
		more := ""
		if n := len(idle) - 1; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		lines = append(lines, fmt.Sprintf("allow %s%s changes nothing, since no deny holds it, and what no prefix holds is checked as well; "+
			"to check nothing else, add deny 0.0.0.0/0 ::/0", prefix.String(idle[0]), more))
	}
	if p.Weights.Len() > 0 && p.Pick == 0 && p.Sort != answer.SortClient {
		lines = append(lines, "weight changes nothing without pick or sort client")
	}
	for answered, to := range p.detours.rules.AllSorted() {
		if p.permits.denies(to.at) {
			lines = append(lines, fmt.Sprintf("probe leads from %s to %s, where nothing may be probed, so that it is not checked at all; "+
				"to check it there, add allow %[2]s", prefix.String(answered), prefix.String(to.at)))
		}
	}
	return lines
}

// key returns the settings for probes of addr.
func (p *policy) key(addr netip.Addr) health.Key {
	if addr.Is4() {
		return p.key4
	}
	return p.key6
}

// probes tells in its own words what decides to which targets an answer leads. Policies that differ in it may lead to
// other ones.
func (p *policy) probes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %v any %v of %v, rules", p.Fallback, p.key4.Value(), p.key6.Value(), p.anyPort, p.ports)
	for prefix, allow := range p.permits.rules.AllSorted() {
		fmt.Fprintf(&b, " %v %v", prefix, allow)
	}
	for answered, to := range p.detours.rules.AllSorted() {
		fmt.Fprintf(&b, ", %v at %v", answered, to)
	}
	return b.String()
}

// portsOf returns the ports to check an address at: the one that is given, for which there is room in own, or those of
// the policy where it is 0.
func (p *policy) portsOf(port uint16, own *[1]uint16) []uint16 {
	if port == 0 {
		return p.ports
	}
	own[0] = port
	return own[:]
}

// zonePolicies finds the policy for a name: that of the longest zone which contains it.
type zonePolicies map[string]zonePolicy

type zonePolicy struct {
	name string // of the zone
	*policy
}

// stanzas returns the policies of all zones, each once, in the order of their first zones.
func (z zonePolicies) stanzas() (all []*policy) {
	for _, zone := range slices.Sorted(maps.Keys(z)) {
		if p := z[zone].policy; p.zones[0] == zone {
			all = append(all, p)
		}
	}
	return all
}

// findLoneZone notes the only zone, if there is one, so that names in it are found in less time.
func (s *Shaker) findLoneZone() {
	for _, zone := range s.policies {
		if len(s.policies) == 1 {
			s.lone = zone
		}
	}
}

// zoneOf tells the zone and policy for a name as [zonePolicies.find] does.
func (s *Shaker) zoneOf(qname string) zonePolicy {
	if s.lone.policy != nil && s.lone.endsPlainly(qname) {
		return s.lone
	}
	return s.policies.find(qname)
}

// endsPlainly tells whether a name is in the zone. It reports false also where that takes a closer look.
func (z *zonePolicy) endsPlainly(qname string) bool {
	at := len(qname) - len(z.name)
	switch {
	case z.name == ".":
		return true
	case at < 0 || qname[at:] != z.name:
		return false
	default:
		return at == 0 || qname[at-1] == '.' && (at == 1 || qname[at-2] != '\\') // which may be a dot inside of a label
	}
}

// answers returns what concerns the answers to queries for names in the zone.
func (z *zonePolicy) answers() answer.Zone {
	return answer.Zone{Name: z.name, Policy: &z.policy.Policy}
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
