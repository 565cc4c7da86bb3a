package shaker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/status"
)

// Bounds of what explanations take up, for all who want some together.
const (
	// explainRate is how many there are in a second, and how many at once after a while without any.
	explainRate = 10
	// maxExplaining is how many may be under way. One that hangs in a plugin below is, for as long as it does.
	maxExplaining = 4
	// explainTimeout is how long the plugins below have for one.
	explainTimeout = 5 * time.Second
	// maxExplained is how many server blocks one asks.
	maxExplained = 16
	// maxZonesListed is how many zones the error names that a name is in none of.
	maxZonesListed = 20
)

// explaining bounds explanations. It outlives reloads.
type explaining struct {
	mu     sync.Mutex
	used   float64 // of explainRate, at the instant last
	last   time.Time
	number int // under way
}

// begin counts an explanation. Unless it returns an error, end has to follow.
func (e *explaining) begin(now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.number >= maxExplaining {
		return &status.Refusal{Status: http.StatusServiceUnavailable, RetryAfter: explainTimeout,
			Reason: fmt.Sprintf("%d explanations are under way already, or hang in a plugin below", maxExplaining)}
	}
	used := max(0, e.used-now.Sub(e.last).Seconds()*explainRate)
	if used+1 > explainRate {
		return &status.Refusal{Status: http.StatusTooManyRequests, RetryAfter: time.Second,
			Reason: fmt.Sprintf("more than %d explanations in a second, for all who ask together", explainRate)}
	}
	e.used, e.last = used+1, now
	e.number++
	return nil
}

func (e *explaining) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.number--
}

// explain tells how the server blocks answer a question. It implements status.Subject.Explain.
func (inst *instance) explain(ctx context.Context, q status.Question) (*status.Explanation, error) {
	if !inst.started.Load() {
		return nil, &status.Refusal{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Reason: "CoreDNS is about to start"}
	}
	candidates, err := inst.candidates(q)
	if err != nil {
		return nil, err
	}
	if err := shared.explaining.begin(time.Now()); err != nil {
		return nil, err
	}
	for i := range candidates {
		candidates[i].choose(q)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	e := &status.Explanation{Blocks: make([]status.Explained, len(candidates))}
	answers := make([]chan status.Explained, len(candidates))
	var all sync.WaitGroup
	for i, c := range candidates {
		if i >= maxExplained {
			continue
		}
		answers[i] = make(chan status.Explained, 1)
		all.Go(func() { answers[i] <- c.explain(ctx, q) })
	}
	go func() {
		defer cancel()
		defer shared.explaining.end()
		all.Wait()
	}()
	for i, c := range candidates {
		e.Blocks[i] = c.await(ctx, answers[i])
	}
	return e, nil
}

// candidate is a server block with a policy for a name.
type candidate struct {
	block  *Shaker
	zone   zonePolicy
	key    *dnsserver.Config // that holds the name
	server string            // the key as the Corefile has it, with the defaults
	chosen bool              // for the query of the client, once choose was called
}

// candidates returns those for a question, in the order of the Corefile, or those of them that it is about.
func (inst *instance) candidates(q status.Question) (all []candidate, err error) {
	for _, block := range inst.handlers {
		zone := block.policies.find(q.Name)
		if zone.policy == nil {
			continue
		}
		if i := block.keyFor(q.Name); i >= 0 {
			all = append(all, candidate{block: block, zone: zone, key: block.keys[i], server: block.controller.ServerBlockKeys[i]})
		}
	}
	if len(all) == 0 {
		return nil, &status.Refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf("%s is in none of the ZONES, which are %s", q.Name, inst.zonesListed())}
	}
	if q.Server == "" {
		return all, nil
	}
	var servers []string
	for i, c := range all {
		if q.Server == c.server || q.Server == strconv.Itoa(i+1) {
			return all[i : i+1], nil
		}
		servers = append(servers, c.server)
	}
	return nil, &status.Refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf("server: %q is no server block for %s, want a number from 1 to %d or one of %s",
		q.Server, q.Name, len(all), strings.Join(servers, ", "))}
}

// choose finds out whether CoreDNS would choose the candidate. That has views and the providers of metadata at work.
func (c *candidate) choose(q status.Question) {
	c.chosen = slices.Contains(c.block.keys, c.block.choice(c.key, q))
}

// zonesListed names those that have a policy.
func (inst *instance) zonesListed() string {
	zones := make(map[string]bool)
	for _, block := range inst.handlers {
		for zone := range block.policies {
			zones[zone] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(zones))
	if more := len(sorted) - maxZonesListed; more > 0 {
		sorted = append(sorted[:maxZonesListed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(sorted, ", ")
}

// keyFor returns the number of the key of the server block that queries for a name get to it by: that with the longest zone.
// Where a plugin above changes names, it may be any. It is negative where there is none.
func (s *Shaker) keyFor(qname string) int {
	longest, found := -1, -1
	for i, key := range s.keys {
		if labels := dns.CountLabel(key.Zone); dns.IsSubDomain(key.Zone, qname) && labels > longest {
			longest, found = labels, i
		}
	}
	if found < 0 && len(s.keys) > 0 && anyNameGetsTo(s.keys[0]) {
		return 0
	}
	return found
}

// choice returns the key that CoreDNS would choose for the query of a client at the address of another key, nil where that
// is none: the one with the longest zone whose view takes the query (dnsserver.Server.ServeDNS).
func (s *Shaker) choice(at *dnsserver.Config, q status.Question) (chosen *dnsserver.Config) {
	var err error
	defer recoverLookup(q.Name, &err) // in a view
	r := new(dns.Msg)
	r.SetQuestion(q.Name, q.Type)
	r.SetEdns0(dns.DefaultMsgSize, q.DNSSEC)
	state := request.Request{W: &lookupWriter{client: q.Client}, Req: r}
	ctx := context.WithValue(context.Background(), passKey{}, aside{})
	group := s.besides(at)
	for off, end := 0, false; ; off, end = dns.NextLabel(q.Name, off) {
		zone := plugin.Name(q.Name[off:]).Normalize()
		if end {
			zone = "."
		}
		for _, key := range group {
			if key.Zone != zone {
				continue
			}
			if collector, ok := key.Handler("metadata").(dnsserver.MetadataCollector); ok {
				ctx = collector.Collect(ctx, state)
			}
			if takes(ctx, key, &state) {
				return key
			}
		}
		if end {
			return nil
		}
	}
}

// takes tells whether the view of a key takes a query. Those without a view take all.
func takes(ctx context.Context, key *dnsserver.Config, state *request.Request) bool {
	return !slices.ContainsFunc(key.FilterFuncs, func(filter dnsserver.FilterFunc) bool { return !filter(ctx, state) })
}

// newExplained returns what is known of a candidate before it is asked.
func (c *candidate) newExplained() status.Explained {
	return status.Explained{
		Server: c.server, Stanza: c.zone.place, Zone: c.zone.name, Chosen: c.chosen,
		Below: []string{}, Sets: []status.ExplainedSet{}, Within: []status.Explained{}, Answer: []string{},
	}
}

// await returns what is told of a candidate, which comes through a channel, nil where it was not asked.
func (c *candidate) await(ctx context.Context, told <-chan status.Explained) status.Explained {
	e := c.newExplained()
	if told == nil {
		e.Error = fmt.Sprintf("not asked, since there are more than %d server blocks; choose it with server=%s", maxExplained, c.server)
		return e
	}
	select {
	case e = <-told:
	case <-ctx.Done():
		select {
		case e = <-told: // at the last moment
		default:
			e.Error = fmt.Sprintf("the plugins below have not answered within %v", explainTimeout)
		}
	}
	return e
}

// explain asks the plugins below, and tells what becomes of their answer.
func (c *candidate) explain(ctx context.Context, q status.Question) (e status.Explained) {
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("while "+q.Name+" was explained", reason)
			e = c.newExplained()
			e.Error = "this is a mistake in shaker, the log tells more"
		}
	}()
	e = c.newExplained()
	o := newObservation(ctx)
	ctx = context.WithValue(c.block.standIn(ctx, c.key), passKey{}, o)
	who := asker{client: q.Client, dnssec: q.DNSSEC}
	r, m, err := c.block.askAs(ctx, who, q.Name, q.Type)
	if code, failed := errors.AsType[rcodeError](err); failed {
		e.Rcode = code.Error()
	}
	if err != nil {
		e.Error = "the plugins below have not answered: " + err.Error()
		e.Within = o.told()
		return e
	}
	p := &pass{
		late:     late{ResponseWriter: &lookupWriter{tcp: true, client: q.Client}},
		Context:  ctx,
		verdicts: verdicts{zone: c.zone, request: r, shaker: c.block},
	}
	p.observe(o)
	p.explain(m, &e)
	e.Within = o.told()
	return e
}
