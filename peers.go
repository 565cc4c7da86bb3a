package shaker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/peers"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

const (
	defaultObservers = 3
	maxObservers     = health.MostVoters
	// maxSite bounds the name of a site, in octets. It is sent with other things in a packet of 512.
	maxSite = 63
)

// peerSettings are what stanzas say of the other replicas. They belong to the process.
type peerSettings struct {
	listen    setting[listen]
	key       setting[string] // path of the file
	site      setting[site]
	observers setting[int]
	allow     setting[string] // CIDRs, with spaces between them
}

// listen is where this replica listens, and which others it looks for.
type listen struct {
	address netip.AddrPort
	join    string // their places, with spaces between them
}

func (l listen) String() string { return strings.TrimSpace(l.address.String() + " " + l.join) }

// site is where this replica is, and whether a majority of the sites decides.
type site struct {
	name   string
	quorum bool
}

func (s site) String() string {
	if s.quorum {
		return s.name + " quorum"
	}
	return s.name
}

// peers takes the address to listen on, or what a word in its place is about.
func (s *stanza) peers(args []string) error {
	p, here := &s.process.peers, place(s.Controller)
	about, values := args[0], args[1:]
	var usage string
	var take func() error
	switch about {
	case "key":
		usage, take = "FILE", func() error { return s.peersKey(values) }
	case "site":
		usage, take = "NAME [quorum]", func() error { return p.takeSite(values, here) }
	case "observers":
		usage, take = "COUNT", func() error { return p.takeObservers(values, here) }
	case "allow":
		usage, take = "CIDR...", func() error { return p.takeAllow(values, here) }
	default:
		return p.takeAddress(args, here)
	}
	if len(values) == 0 {
		return fmt.Errorf("%q has nothing behind it, want %[1]s %s", about, usage)
	}
	if err := take(); err != nil {
		return fmt.Errorf("%s: %w", about, err)
	}
	return nil
}

// takeAddress takes where this replica listens, and the places of others.
func (p *peerSettings) takeAddress(args []string, here string) error {
	address, err := parsePeerAddress(args[0])
	if err != nil {
		return err
	}
	join := args[1:]
	for i, arg := range join {
		if err := checkJoin(arg); err != nil {
			return err
		}
		if slices.Contains(join[:i], arg) {
			return fmt.Errorf("%q is given twice", arg)
		}
	}
	return p.listen.set(listen{address, strings.Join(join, " ")}, here)
}

// parsePeerAddress reads an address and port at which other machines reach this one.
func parsePeerAddress(arg string) (netip.AddrPort, error) {
	const want = "want the IP address and port at which the other replicas reach this one, such as 192.0.2.1:7946 or [2001:db8::1]:7946"
	address, err := netip.ParseAddrPort(arg)
	if err != nil {
		return address, fmt.Errorf("%q is not possible, %s; other words are key, site, observers and allow", arg, want)
	}
	addr := address.Addr().Unmap()
	switch {
	case addr.IsUnspecified():
		return address, fmt.Errorf("%q stands for all addresses, so that others do not know this one, %s", arg, want)
	case addr.Zone() != "":
		return address, fmt.Errorf("%q has a zone, which means nothing to other machines, %s", arg, want)
	case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return address, fmt.Errorf("%q is no address of a machine, %s", arg, want)
	case address.Port() == 0:
		return address, fmt.Errorf("%q has no port that others could know, %s", arg, want)
	}
	return netip.AddrPortFrom(addr, address.Port()), nil
}

// checkJoin looks for mistakes in the place of another replica.
func checkJoin(arg string) error {
	const want = "want the IP address or name of another replica and its port, such as 192.0.2.2:7946 or shaker.example.org:7946"
	host, port, err := net.SplitHostPort(arg)
	if err == nil {
		_, err = parsePort(port)
	}
	if err != nil {
		return fmt.Errorf("%q is not possible, %s", arg, want)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		if _, err := parsePeerAddress(arg); err != nil {
			return fmt.Errorf("%q is no address at which all find another machine, %s", arg, want)
		}
		return nil
	}
	if _, valid := dns.IsDomainName(host); !valid || host == "" || host == "." || strings.ContainsAny(host, ":/*") || isNumeric(host) {
		return fmt.Errorf("%q is not possible, %s", arg, want)
	}
	return nil
}

// peersKey takes the file with the keys, and looks into it.
func (s *stanza) peersKey(args []string) error {
	if err := single(args); err != nil {
		return err
	}
	path, here := s.file(args[0]), place(s.Controller)
	known := s.process.peers.key.isSet()
	if err := s.process.peers.key.set(path, here); err != nil || known {
		return err
	}
	doubt, err := peers.CheckKeyFile(path)
	if doubt != "" {
		log.Warningf("%s: peers: key: %s", here, doubt)
	}
	return err
}

func (p *peerSettings) takeSite(args []string, here string) error {
	s := site{name: args[0]}
	switch {
	case s.name == "quorum":
		return errors.New(`"quorum" stands first, want NAME, or NAME quorum`)
	case len(args) > 2 || len(args) == 2 && args[1] != "quorum":
		return fmt.Errorf("%q is not possible, want NAME, or NAME quorum", strings.Join(args, " "))
	}
	isOther := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
	}
	if s.name == "" || len(s.name) > maxSite || strings.ContainsFunc(s.name, isOther) {
		return fmt.Errorf("%q is not possible, want a name of letters, digits and -_. with %d octets at most", s.name, maxSite)
	}
	s.quorum = len(args) == 2
	return p.site.set(s, here)
}

func (p *peerSettings) takeObservers(args []string, here string) error {
	n, err := count(args, 1, maxObservers)
	if err != nil {
		return err
	}
	return p.observers.set(n, here)
}

func (p *peerSettings) takeAllow(args []string, here string) error {
	cidrs := make([]string, len(args))
	for i, arg := range args {
		cidr, err := prefix.Parse(arg)
		if err != nil {
			return err
		}
		cidrs[i] = prefix.String(cidr)
		if slices.Contains(cidrs[:i], cidrs[i]) {
			return fmt.Errorf("%q is given twice", arg)
		}
	}
	return p.allow.set(strings.Join(cidrs, " "), here)
}

// allowed returns the prefixes of those who may speak to this replica, none where anybody may.
func (p *peerSettings) allowed() (all []netip.Prefix) {
	for _, cidr := range strings.Fields(p.allow.value) {
		if allowed, err := prefix.Parse(cidr); err == nil { // it was parsed before
			all = append(all, allowed)
		}
	}
	return all
}

// check looks for mistakes that show only when all stanzas are read.
func (p *peerSettings) check() error {
	if !p.listen.isSet() {
		for _, other := range []struct{ word, place string }{
			{"key", p.key.place}, {"site", p.site.place}, {"observers", p.observers.place}, {"allow", p.allow.place},
		} {
			if other.place != "" {
				return fmt.Errorf("%s: peers: %s does nothing without an address to listen on, want peers ADDRESS:PORT as well", other.place, other.word)
			}
		}
		return nil
	}
	if !p.key.isSet() {
		return fmt.Errorf("%s: peers: there is no key, without which anybody could decide what is down; want peers key FILE as well", p.listen.place)
	}
	// That of this replica need not be among them: each may have a list of the others.
	allowed := p.allowed()
	for _, place := range strings.Fields(p.listen.value.join) {
		at, err := netip.ParseAddrPort(place)
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if err != nil || at == p.listen.value.address || len(allowed) == 0 {
			continue
		}
		if !slices.ContainsFunc(allowed, func(cidr netip.Prefix) bool { return cidr.Contains(at.Addr()) }) {
			return fmt.Errorf("%s: peers: allow has no CIDR with %v in it, which is to be joined (%s) but may not speak to us then; add it",
				p.allow.place, at.Addr(), p.listen.place)
		}
	}
	return nil
}

// config returns what the group of an instance is made of.
func (p *peerSettings) config(g *grants) peers.Config {
	return peers.Config{
		Address:   p.listen.value.address,
		Join:      strings.Fields(p.listen.value.join),
		KeyFile:   p.key.value,
		Site:      p.site.value.name,
		Quorum:    p.site.value.quorum,
		Observers: p.observers.or(defaultObservers),
		Allow:     p.allowed(),
		Shaker:    Version(),
		Offers:    g.offers,
		MayCheck:  g.mayCheck,
	}
}

// grants are what other replicas may ask this one to check: what any of its stanzas could lead to.
type grants struct {
	offers   []health.Key // one for each fingerprint
	policies map[uint64][]*policy
}

// grantsOf returns those of all stanzas of an instance.
func grantsOf(inst *instance) *grants {
	g := &grants{policies: make(map[uint64][]*policy)}
	for _, block := range inst.handlers {
		for _, p := range block.policies.stanzas() {
			// The source, in which the keys of the two families differ, is no part of it.
			settings := health.Fingerprint(p.key4)
			if g.policies[settings] == nil {
				g.offers = append(g.offers, p.key4)
			}
			g.policies[settings] = append(g.policies[settings], p)
		}
	}
	return g
}

// mayCheck implements the function of that name in [peers.Config]. The address is the one to be probed, whatever it is
// answered as. Of several policies that allow it, the first in the Corefile has it checked, for as long as the longest idle.
func (g *grants) mayCheck(s health.Subject) (k health.Key, keep time.Duration, ok bool) {
	addr := s.Addr.Addr()
	if !addr.IsValid() || addr.Zone() != "" || s.Addr.Port() == 0 {
		return k, 0, false
	}
	for _, p := range g.policies[s.Settings] {
		if !p.permits.allows(addr) {
			continue
		}
		if !ok {
			k, ok = p.key(addr), true
		}
		keep = max(keep, p.idle)
	}
	return k, keep, ok
}
