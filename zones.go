package shaker

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// parseZones reads the names behind the directive, or takes those of the server block where there are none. No zone may be
// in others.
func parseZones(c *caddy.Controller, args []string, others zonePolicies) ([]string, error) {
	for _, arg := range args {
		if err := checkZone(arg); err != nil {
			return nil, c.Errf("zone %q %v", arg, err)
		}
	}
	zones := slices.Compact(slices.Sorted(slices.Values(plugin.OriginsFromArgsOrServerBlock(args, c.ServerBlockKeys))))
	for _, zone := range zones {
		if err := checkSpelling(zone); err != nil {
			return nil, c.Errf("zone %q %v", zone, err)
		}
		if other, taken := others[zone]; taken {
			return nil, c.Errf("zone %q is in the stanza at %s already; every zone needs exactly one", zone, other.place)
		}
	}
	return zones, nil
}

// checkZone tells what is wrong with a zone as it stands in a stanza. CoreDNS itself takes nearly everything for a name.
func checkZone(arg string) error {
	_, err := netip.ParsePrefix(arg)
	isCIDR := err == nil
	switch {
	case len(plugin.Host(arg).NormalizeExact()) == 0 || !isCIDR && isNumeric(arg):
		return errors.New("is neither a domain name nor a CIDR of a reverse zone")
	case strings.ContainsRune(arg, ','):
		return errors.New("has a comma, want spaces between zones")
	case strings.ContainsRune(arg, ':') && !isCIDR:
		return errors.New("has a port or a transport, want the name alone; ports to check are a property")
	case arg == "*" || strings.HasPrefix(arg, "*."):
		return fmt.Errorf("has a wildcard, want %q, which holds all names below it", dns.Fqdn(strings.TrimPrefix(arg[1:], ".")))
	}
	return nil
}

// isNumeric tells whether arg is an address, a part of one or a CIDR with a mistake, rather than a name. No top-level
// domain is a number (RFC 3696, section 2).
func isNumeric(arg string) bool {
	address, _, _ := strings.Cut(arg, "/")
	if _, err := netip.ParseAddr(address); err == nil {
		return true
	}
	arg = strings.TrimSuffix(arg, ".")
	last := arg[strings.LastIndexByte(arg, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789/") == ""
}

// checkSpelling tells what is wrong with a name that is not as the names in queries are, and so could never be found.
func checkSpelling(name string) error {
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return errors.New("has a space, want one name; what a variable holds is a single one")
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return errors.New("is not ASCII, want the form that queries have, which begins with xn--")
		}
	}
	wire := make([]byte, 255)
	end, err := dns.PackDomainName(name, wire, 0, nil, false)
	if err != nil {
		return fmt.Errorf("is not a domain name: %w", err)
	}
	if asked, _, err := dns.UnpackDomainName(wire[:end], 0); err == nil && !strings.EqualFold(asked, name) {
		return fmt.Errorf("is not spelled as in queries, want %q", strings.ToLower(asked))
	}
	return nil
}

// checkWatched makes sure that watched names are not in the longer zone of another stanza, whose policy it is that
// decides then.
func checkWatched(c *caddy.Controller, policies zonePolicies) error {
	for _, p := range policies {
		for _, qname := range p.watched {
			if other := policies.find(qname); other.policy != p.policy {
				return c.Errf("watch: %q in the stanza at %s is in zone %q of that at %s, want it there",
					qname, p.place, other.name, other.place)
			}
		}
	}
	return nil
}

// checkReach makes sure that names in each zone are asked for in the server block, where shaker can see the query. It can
// only tell when all plugins are set up.
func (s *Shaker) checkReach() error {
	keys := blockConfigs(s.controller)
	if len(keys) == 0 || anyNameGetsTo(keys[0]) {
		return nil
	}
	block := make([]string, len(keys))
	for i, key := range keys {
		block[i] = key.Zone
	}
	others := slices.DeleteFunc(configs(s.controller), func(cfg *dnsserver.Config) bool { return slices.Contains(keys, cfg) })
	inBlock := func(qname string) bool { return plugin.Zones(block).Matches(qname) != "" }
	outside := func(p *policy, what string) error {
		return fmt.Errorf("%s: %s is outside of the server block, want what is in %s", p.place, what,
			strings.Join(slices.Compact(slices.Sorted(slices.Values(block))), " or "))
	}
	for _, zone := range slices.Sorted(maps.Keys(s.policies)) {
		p := s.policies[zone].policy
		holdsBlock := slices.ContainsFunc(block, func(key string) bool { return dns.IsSubDomain(zone, key) })
		if !inBlock(zone) && !holdsBlock {
			err := outside(p, fmt.Sprintf("zone %q", zone))
			if isReverse(zone) {
				err = fmt.Errorf("%w; to choose addresses, use allow and deny", err)
			}
			return err
		}
		for _, qname := range p.watched {
			if !inBlock(qname) {
				return outside(p, fmt.Sprintf("watch: %q", qname))
			}
		}
		if !slices.ContainsFunc(keys, func(key *dnsserver.Config) bool { return reaches(zone, key, others) }) {
			log.Warningf("%s: zone %q is of no use, since queries for it go to a server block for a longer zone, and here to none", p.place, zone)
		}
	}
	return nil
}

// blockConfigs returns what CoreDNS knows of each key of the server block.
func blockConfigs(c *caddy.Controller) (keys []*dnsserver.Config) {
	at := *c
	for at.ServerBlockKeyIndex = range c.ServerBlockKeys {
		keys = append(keys, dnsserver.GetConfig(&at))
	}
	return keys
}

// anyNameGetsTo tells whether a plugin above changes names, after the server has chosen the server block by them.
func anyNameGetsTo(block *dnsserver.Config) bool {
	return block.Handler("rewrite") != nil || block.Handler("autopath") != nil
}

// reaches tells whether the server chooses a key for queries in the zone, or for some of them. Others are those of other
// server blocks: at the same addresses one of them may have a longer zone that holds all of this one.
func reaches(zone string, key *dnsserver.Config, others []*dnsserver.Config) bool {
	if !dns.IsSubDomain(key.Zone, zone) {
		return dns.IsSubDomain(zone, key.Zone)
	}
	return !slices.ContainsFunc(others, func(other *dnsserver.Config) bool {
		elsewhere := func(host string) bool { return !slices.Contains(other.ListenHosts, host) }
		return other.Transport == key.Transport && other.Port == key.Port && !slices.ContainsFunc(key.ListenHosts, elsewhere) &&
			len(other.FilterFuncs) == 0 && // those of a view, which may not take all queries
			dns.IsSubDomain(other.Zone, zone) && dns.CountLabel(other.Zone) > dns.CountLabel(key.Zone)
	})
}

// isReverse tells whether a zone is one of the names that addresses have (RFC 1035, section 3.5, and RFC 3596).
func isReverse(zone string) bool {
	return dns.IsSubDomain("in-addr.arpa.", zone) || dns.IsSubDomain("ip6.arpa.", zone)
}
