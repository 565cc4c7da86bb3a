package shaker

import (
	"context"
	"fmt"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/resolve"
	"github.com/coredns-shaker/shaker/internal/watch"
)

func init() { plugin.Register(name, setup) }

// setup reads all stanzas of a server block and wires one handler for them. It starts nothing: that
// is left to the instance's callbacks, see shared.go.
func setup(c *caddy.Controller) error {
	inst := instanceOf(c)
	policies, err := parse(c, &inst.settings)
	if err != nil {
		err = plugin.Error(name, err)
		shared.noteFailure(err)
		return err
	}
	s := newShaker(policies, inst)
	s.controller, s.zones = c, plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)
	inst.handlers = append(inst.handlers, s)
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		s.Next = next
		return s
	})
	return nil
}

// newShaker returns the handler of a server block.
func newShaker(policies zonePolicies, inst *instance) *Shaker {
	s := &Shaker{policies: policies, instance: inst}
	s.resolver = resolve.New(s.resolve)
	return s
}

// watchNames has the names looked up that the stanzas of a server block watch.
func (s *Shaker) watchNames() {
	for _, zone := range s.policies {
		for _, qname := range zone.watched {
			if s.policies.find(qname).name == zone.name { // and not that of another zone of the same stanza
				s.watch(zone, qname, answer.Types(qname), nil)
			}
		}
	}
}

// watch has a name of a zone looked up again and again. Who else wants to know of it, if anybody, is told each time.
func (s *Shaker) watch(zone zonePolicy, qname string, types []uint16, also func(ctx context.Context, qname string, qtype uint16)) {
	tell := watch.Listener{
		LookedUp: countLookup,
		Unresolved: func(qname string, since, again time.Duration, reason error) {
			s.instance.engine.journal.unresolved(qname, since, again, reason)
		},
		Resolved: func(qname string) { s.instance.engine.journal.resolved(qname) },
	}
	ask := func(ctx context.Context, qname string, qtype uint16, keep time.Duration) (*dns.Msg, []watch.Target, error) {
		if err := shared.beginLookup(); err != nil {
			return nil, nil, err
		}
		defer shared.endLookup()
		if also != nil {
			also(ctx, qname, qtype)
		}
		return s.lookUp(ctx, zone, qname, qtype, keep)
	}
	wanted := watch.Wanted{Name: qname, Types: types, TTL: zone.TTL, Settings: zone.probes()}
	s.watches = append(s.watches, s.instance.watched.Add(wanted, ask, tell))
}

// parse reads the stanzas of a server block. What they say of the process goes to process, which all
// server blocks share.
func parse(c *caddy.Controller, process *processSettings) (zonePolicies, error) {
	policies := make(zonePolicies)
	for c.Next() {
		// A brace at the start of a line, or what follows a closing one, would pass for a stanza.
		if c.Val() != name {
			return nil, c.Errf("unexpected %q, want a property on a line of its own, and { at the end of the line with %s", c.Val(), name)
		}
		p, err := parseStanza(c, process, policies)
		if err != nil {
			return nil, err
		}
		for _, zone := range p.zones {
			policies[zone] = zonePolicy{zone, p}
		}
	}
	return policies, checkWatched(c, policies)
}

func parseStanza(c *caddy.Controller, process *processSettings, others zonePolicies) (*policy, error) {
	p := defaultPolicy()
	p.place = place(c)
	p.zonesHere = c.RemainingArgs()
	zones, err := parseZones(c, p.zonesHere, others)
	if err != nil {
		return nil, err
	}
	p.zones = zones
	stanza := stanza{Controller: c, policy: p, process: process, seen: make(map[string]int)}
	for c.NextBlock() {
		property, args := c.Val(), c.RemainingArgs()
		if c.NextArg() {
			return nil, c.Errf("%s is followed by %q, but properties have no block", property, c.Val())
		}
		if err := stanza.property(property, args); err != nil {
			return nil, err
		}
	}
	p.complete()
	for _, doubt := range p.doubts() {
		log.Warningf("%s: %s", p.place, doubt)
	}
	return p, nil
}

func place(c *caddy.Controller) string { return fmt.Sprintf("%s:%d", c.File(), c.Line()) }

// stanza is the state of reading one stanza.
type stanza struct {
	*caddy.Controller
	policy  *policy
	process *processSettings
	seen    map[string]int // line of each property
}
