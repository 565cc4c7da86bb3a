package shaker

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/oracle"
)

// network is an oracle, and what of shaker uses it.
type network struct {
	*oracle.Oracle
	engine *engine
}

// newNetwork reads results such as "10.0.0.1=answered 10.0.0.2=refused".
func newNetwork(t testing.TB, results string) *network {
	t.Helper()
	o := oracle.New(t, results)
	return &network{o, &engine{monitor: o.Monitor, journal: newJournal(events.New())}}
}

// settle waits for the verdict of an address under the default policy, if it is to have one.
func (n *network) settle(addr netip.Addr) {
	p := defaultPolicy()
	p.complete()
	n.Await(netip.AddrPortFrom(addr, 443), p.key(addr))
}

// settleAll does so for every address that has a result.
func (n *network) settleAll() {
	for addr := range n.Results {
		n.settle(addr)
	}
}

// shaker returns a handler for example.org above a plugin that gives this answer.
func (n *network) shaker(zone zonePolicy, answer string) *Shaker {
	return n.above(zone, handlerAnswers(answer))
}

func (n *network) above(zone zonePolicy, next plugin.Handler) *Shaker {
	s := newShaker(zonePolicies{"example.org.": zone}, &instance{engine: n.engine})
	s.Next = next
	return s
}

// policyFor is a policy with a fallback as in a Corefile, for the zone example.org.
func policyFor(t testing.TB, fallbackIs string, panics int) zonePolicy {
	t.Helper()
	p := defaultPolicy()
	p.Panic = panics
	s := stanza{policy: p}
	if fallbackIs != "" {
		if err := s.fallback(strings.Fields(fallbackIs)); err != nil {
			t.Fatal(err)
		}
	}
	p.complete()
	return zonePolicy{"example.org.", p}
}

// signature is the RRSIG of A records, behind a name and a TTL.
const signature = " IN RRSIG A 13 3 300 20300101000000 20200101000000 1 example.org. c2lnbmF0dXJl"
