package shaker

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/answer"
)

// standby is a name that answers may fall back to, and the stanza that is in charge of it, if there is one.
type standby struct {
	block *Shaker // nil without a stanza
	zone  zonePolicy
}

// findStandbys finds the stanzas that are in charge of the names in all fallbacks of the server block. It can only do so
// when all server blocks are set up; others are the keys of those that listen where this one does.
func (s *Shaker) findStandbys(others []*dnsserver.Config) {
	s.standbys = make(map[string]standby)
	for _, p := range s.policies.stanzas() {
		for _, qname := range p.Fallback.Names {
			var found standby
			if block := s.blockOf(qname, others); block != nil {
				if zone := block.policies.find(qname); zone.policy != nil {
					found = standby{block, zone}
				}
			}
			s.standbys[qname] = found
		}
	}
}

// warnOfLostStandbys tells of names in fallbacks that nobody could look up through this server.
func (s *Shaker) warnOfLostStandbys() {
	for _, p := range s.policies.stanzas() {
		for _, qname := range p.Fallback.Names {
			if !s.isOurs(qname) && s.elsewhere.Matches(qname) == "" {
				log.Warningf("%s: fallback: %q is in no server block that listens here, so that it has no addresses; add one for its zone", p.place, qname)
			}
		}
	}
}

// blockOf returns the handler of the server block that a query for the name would get to by the way that one to this
// block came, nil where that has none.
func (s *Shaker) blockOf(qname string, others []*dnsserver.Config) *Shaker {
	if s.isOurs(qname) {
		return s
	}
	longest := 0
	var block *Shaker
	for _, other := range others {
		// Of several with one zone, those with a view may not take the query.
		labels := 2*dns.CountLabel(other.Zone) + 1
		if len(other.FilterFuncs) > 0 {
			labels--
		}
		if dns.IsSubDomain(other.Zone, qname) && labels >= longest {
			longest = labels
			block, _ = other.Handler(name).(*Shaker)
		}
	}
	return block
}

// isOurs tells whether queries for a name that get to this server belong to this server block rather than to another one
// with a longer zone.
func (s *Shaker) isOurs(qname string) bool {
	ours, theirs := s.zones.Matches(qname), s.elsewhere.Matches(qname)
	return len(s.zones) == 0 || ours != "" && (theirs == "" || dns.CountLabel(ours) >= dns.CountLabel(theirs))
}

// findNeighbours finds the keys of all server blocks that listen where this one does. It can only do so when all of them
// are set up.
func (s *Shaker) findNeighbours() {
	s.keys = blockConfigs(s.controller)
	isNear := func(other *dnsserver.Config) bool {
		return slices.ContainsFunc(s.keys, func(key *dnsserver.Config) bool {
			return other.Transport == key.Transport && other.Port == key.Port && slices.ContainsFunc(key.ListenHosts, func(host string) bool {
				return slices.Contains(other.ListenHosts, host)
			})
		})
	}
	for _, key := range configs(s.controller) {
		if isNear(key) {
			s.near = append(s.near, key)
		}
	}
}

// neighbours returns the keys of other server blocks that listen where this one does.
func (s *Shaker) neighbours() (others []*dnsserver.Config) {
	for _, key := range s.near {
		if !slices.Contains(s.keys, key) {
			others = append(others, key)
		}
	}
	return others
}

// checkStandbys makes sure that no answer falls back in a circle. A name in the zone of its own stanza is none: it just
// has no further fallback than the rest of the same names.
func (inst *instance) checkStandbys() error {
	passed := make(map[*policy]bool) // nothing behind them leads back
	for _, block := range inst.handlers {
		for _, p := range block.policies.stanzas() {
			if err := (&trail{passed: passed}).follow(block, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// trail is the stanzas that led here, each by a name in its fallback.
type trail struct {
	passed map[*policy]bool
	on     []*policy
	names  []string
}

// follow follows the names in the fallback of a stanza of a server block.
func (t *trail) follow(block *Shaker, p *policy) error {
	if t.passed[p] {
		return nil
	}
	t.on = append(t.on, p)
	for _, qname := range p.Fallback.Names {
		next := block.standbys[qname]
		if next.block == nil || next.zone.policy == p {
			continue
		}
		t.names = append(t.names, qname)
		if i := slices.Index(t.on, next.zone.policy); i >= 0 {
			return fmt.Errorf("%s: fallback: %q is in the stanza at %s, whose fallback leads back here by %q; want names that lead to others only",
				p.place, qname, next.zone.place, t.names[i])
		}
		if err := t.follow(next.block, next.zone.policy); err != nil {
			return err
		}
		t.names = t.names[:len(t.names)-1]
	}
	t.on = t.on[:len(t.on)-1]
	t.passed[p] = true
	return nil
}

// watchStandbys has the names that answers may fall back to watched, so that there are verdicts when they are needed.
// Names without a stanza are not: nothing of theirs is checked.
func (inst *instance) watchStandbys() {
	users := make(map[standbyName][]*Shaker)
	for _, block := range inst.handlers {
		for _, qname := range slices.Sorted(maps.Keys(block.standbys)) {
			if to := block.standbys[qname]; to.block != nil {
				at := standbyName{to.block, qname}
				users[at] = append(users[at], block)
			}
		}
	}
	for _, block := range inst.handlers {
		for _, qname := range slices.Sorted(maps.Keys(block.standbys)) {
			at := standbyName{block.standbys[qname].block, qname}
			if who := users[at]; who != nil {
				at.block.watchStandby(block.standbys[qname].zone, qname, who)
				delete(users, at)
			}
		}
	}
}

// standbyName is a name that answers may fall back to.
type standbyName struct {
	block *Shaker // that it belongs to
	qname string
}

// watchStandby has a name of the server block looked up again and again, and known to those who fall back to it.
func (s *Shaker) watchStandby(zone zonePolicy, qname string, users []*Shaker) {
	s.watch(zone, qname, answer.AddressTypes(), func(ctx context.Context, qname string, rrtype uint16) {
		for _, user := range users {
			user.resolver.Get(ctx, qname, rrtype)
		}
	})
}

// recourse is what was found out for one answer about the names that it may fall back to. It is kept so that each is looked
// at once, however many lead to it, and that whatever leads back to itself ends.
type recourse struct {
	pass  *pass
	known map[question]offer
}

type question struct {
	qname  string
	rrtype uint16
}

// offer is what a name has to offer.
type offer struct {
	addrs []netip.Addr
	ttl   uint32
}

// forget forgets what has to be asked for again.
func (d *recourse) forget() {
	if d != nil {
		clear(d.known)
	}
}

// Standby implements answer.Source.
func (p *pass) Standby(qname string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
	if p.recourse == nil {
		p.recourse = &recourse{pass: p, known: make(map[question]offer)}
	}
	return p.recourse.standby(p.shaker, qname, rrtype)
}

// standby returns what a name in a fallback of a server block has to offer.
func (d *recourse) standby(from *Shaker, qname string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
	asked := question{qname, rrtype}
	if have, ok := d.known[asked]; ok {
		return have.addrs, have.ttl
	}
	d.known[asked] = offer{}
	to := from.standbys[qname]
	v := verdicts{zone: to.zone, shaker: from, wait: d.pass.waits(), request: new(dns.Msg), observation: d.pass.observation}
	v.request.SetQuestion(qname, rrtype)
	addrs, _ = v.resolve(d.pass.Context, qname, rrtype)
	ttl = v.ttl(qname, rrtype)
	if to.block != nil {
		v.shaker = to.block
		source := recourseVerdicts{&v, d}
		addrs, ttl = answer.Standby(qname, rrtype, addrs, ttl, &answer.Query{Zone: to.zone.answers(), Client: d.pass}, source)
		d.pass.rejected += v.rejected
	}
	d.known[asked] = offer{addrs, ttl}
	return addrs, ttl
}

// recourseVerdicts are those on the addresses of a name that an answer may fall back to. It implements answer.Source.
type recourseVerdicts struct {
	*verdicts
	recourse *recourse
}

// Resolve implements answer.Source.
func (v recourseVerdicts) Resolve(qname string, rrtype uint16) (addrs []netip.Addr, known bool) {
	return v.resolve(v.recourse.pass.Context, qname, rrtype)
}

// Standby implements answer.Source.
func (v recourseVerdicts) Standby(qname string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
	return v.recourse.standby(v.shaker, qname, rrtype)
}

// Settle implements answer.Source. The answer as a whole waits.
func (v recourseVerdicts) Settle() bool { return false }
