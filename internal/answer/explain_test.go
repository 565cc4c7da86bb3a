package answer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// explainWitness tells that it was asked.
type explainWitness struct{ Source }

func (w explainWitness) Account(addr netip.Addr, port uint16) string {
	switch w.Ask(addr, port).State {
	case Down:
		return "down since 12:00:01: timeout"
	case Up:
		return "up since 11:00:00"
	default:
		return ""
	}
}

// For whatever message and policy, Explain makes the same message as Filter, says of each record whether it is in that,
// and has a reason for each that is not.
func TestExplainAgainstFilter(t *testing.T) {
	messages := 20_000
	if lab.RaceEnabled || testing.Short() {
		messages = 3000
	}
	leaving, hints := 0, 0
	for seed := range messages {
		m, q := naiveMessage(rand.New(rand.NewPCG(uint64(seed), 1)))
		before := filterTake(m)
		e := Explain(m, q.query(), explainWitness{q.source})
		before.expectUnchanged(t)
		want, result := Filter(m, q.query(), q.source)
		if e.Result != result || e.Message.String() != want.String() {
			t.Errorf("%+v\n%v\nwant %+v\n%v", e.Result, e.Message, result, want)
		}
		if e.Passed == "" && len(e.Sets) == 0 || e.Passed != "" && e.Message != m {
			t.Errorf("passed %q, %d sets, result %+v", e.Passed, len(e.Sets), result)
		}
		for _, s := range e.Sets {
			gone, left := explainExpect(t, e.Message, &s)
			leaving, hints = leaving+gone, hints+left
		}
		if t.Failed() {
			t.Fatalf("seed %d\n%v\nbecame\n%v\npolicy %s\n%s", seed, m, e.Message, naivePolicyText(q), explainText(e))
		}
	}
	if leaving < messages/2 || hints < messages/20 {
		t.Errorf("%d records and %d addresses in hints left in %d messages: they prove little", leaving, hints, messages)
	}
}

// explainExpect checks what was told of an RRset against the new message, and returns how many records and how many
// addresses in hints left.
func explainExpect(t *testing.T, got *dns.Msg, s *ExplainedSet) (gone, hints int) {
	t.Helper()
	section := got.Answer
	if s.Extra {
		section = got.Extra
	}
	var rrset []string
	for _, rr := range section {
		if rr.Header().Rrtype == s.Type && strings.EqualFold(rr.Header().Name, s.Name) && explainLeads(rr) {
			rrset = append(rrset, explainKey(rr))
		}
	}
	if s.Decision == "" {
		t.Errorf("%s %s: no decision", s.Name, dns.TypeToString[s.Type])
	}
	kept := make(map[int]bool)
	for _, m := range s.Members {
		what := m.Record.String()
		switch {
		case m.Why == "" || len(m.Steps) == 0 || slices.Contains(m.Steps, ""):
			t.Errorf("%s: why %q, steps %q", what, m.Why, m.Steps)
		case m.Rank == 0:
			gone++
			if last := m.Steps[len(m.Steps)-1]; last != "it leaves: "+m.Why {
				t.Errorf("%s leaves, and the last step is %q", what, last)
			}
			// One that was there twice may have left once.
			if slices.Contains(rrset, explainKey(m.Record)) && !explainIsTwice(s, m.Record) {
				t.Errorf("%s is in the answer", what)
			}
		case m.Rank > len(rrset) || !strings.EqualFold(rrset[m.Rank-1], explainKey(m.Record)):
			t.Errorf("%s is not in place %d of %q", what, m.Rank, rrset)
		case kept[m.Rank] && s.Fallback == "":
			t.Errorf("%s is not alone in place %d", what, m.Rank)
		default:
			kept[m.Rank] = true
			hints += explainExpectHints(t, section, &m)
		}
	}
	if len(kept) != len(rrset) && s.Fallback == "" {
		t.Errorf("%s %s: %d records stay, and %d are in the new answer", s.Name, dns.TypeToString[s.Type], len(kept), len(rrset))
	}
	return gone, hints
}

// explainLeads tells whether a record leads to addresses, or would if it had a port.
func explainLeads(rr dns.RR) bool {
	if srv, ok := rr.(*dns.SRV); ok {
		return isChecked(srv)
	}
	_, _, isAddress := address(rr)
	return isAddress || naiveBinding(rr) != nil && rr.Header().Class == dns.ClassINET && isService(rr.Header().Rrtype)
}

// explainKey is what is left of a record when its TTL and its hints may have changed.
func explainKey(rr dns.RR) string {
	rr = dns.Copy(rr)
	rr.Header().Ttl = 0
	if svcb := naiveBinding(rr); svcb != nil {
		svcb.Value = slices.DeleteFunc(svcb.Value, func(kv dns.SVCBKeyValue) bool { return hintOf(kv) != nil })
	}
	return strings.ToLower(rr.String())
}

func explainIsTwice(s *ExplainedSet, rr dns.RR) bool {
	n := 0
	for _, m := range s.Members {
		if explainKey(m.Record) == explainKey(rr) {
			n++
		}
	}
	return n > 1
}

// explainExpectHints checks that as many addresses have left the hints of a record as were told to, and returns how many.
func explainExpectHints(t *testing.T, section []dns.RR, m *ExplainedMember) (gone int) {
	t.Helper()
	before := naiveBinding(m.Record)
	if before == nil {
		return 0
	}
	for _, a := range m.Addresses {
		if a.Leaves && !strings.HasSuffix(a.Why, "so it leaves") || !a.Leaves && strings.HasSuffix(a.Why, "so it leaves") {
			t.Errorf("%s leaves: %v, why %q", a.Addr, a.Leaves, a.Why)
		}
		gone += number(a.Leaves)
	}
	want := explainHints(before) - gone
	if !slices.ContainsFunc(section, func(rr dns.RR) bool {
		after := naiveBinding(rr)
		return after != nil && explainKey(rr) == explainKey(m.Record) && explainHints(after) == want
	}) {
		t.Errorf("%s is not there with %d addresses in hints", m.Record, want)
	}
	return gone
}

func explainHints(rr *dns.SVCB) (n int) {
	for _, kv := range rr.Value {
		n += len(hintOf(kv))
	}
	return n
}

// explainText is what somebody reads.
func explainText(e Explanation) string {
	var b strings.Builder
	if e.Passed != "" {
		fmt.Fprintf(&b, "passed: %s\n", e.Passed)
	}
	for _, s := range e.Sets {
		section := "answer"
		if s.Extra {
			section = "additional"
		}
		fmt.Fprintf(&b, "%s %s, %s: %s\n", s.Name, dns.TypeToString[s.Type], section, s.Decision)
		for _, m := range s.Members {
			fmt.Fprintf(&b, "  %d %s: %s\n", m.Rank, strings.ReplaceAll(m.Record.String(), "\t", " "), m.Why)
			for _, step := range m.Steps {
				fmt.Fprintf(&b, "    %s\n", step)
			}
		}
	}
	return b.String()
}

// What people read of each kind of decision.
func TestExplainWords(t *testing.T) {
	const four = "a. 60 IN A 10.0.0.1\na. 60 IN A 10.0.0.2\na. 60 IN A 10.0.1.1\na. 60 IN A 10.0.1.2"
	const two = "a. 20 IN A 10.0.0.1\na. 20 IN A 10.0.0.2"
	const signed = two + "\na. 20 IN RRSIG A 13 1 20 20380101000000 20200101000000 7 a. c2ln"
	tests := []struct{ name, policy, answer, extra, verdicts, want string }{
		{"one is down, one of a tier that waits", "prefer 10.0.0.0/24", four, "", "10.0.0.1=down 10.0.0.2=up 10.0.1.1=up 10.0.1.2=down", `
			a. A, answer: 2 of 4 are down, 1 is of a tier that waits: 1 stays
			  0 a. 60 IN A 10.0.0.1: down since 12:00:01: timeout
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    tier: it is in tier 1 of 2, which is the first with enough alive, and so is served
			    it leaves: down since 12:00:01: timeout
			  1 a. 60 IN A 10.0.0.2: up since 11:00:00
			    verdict: 10.0.0.2 is up since 11:00:00
			    tier: it is in tier 1 of 2, which is the first with enough alive, and so is served
			    it stays: up since 11:00:00
			    ttl: 60 becomes 30
			  0 a. 60 IN A 10.0.1.1: it is in tier 2, which waits as long as tier 1 lives
			    verdict: 10.0.1.1 is up since 11:00:00
			    tier: it is in tier 2 of 2, that of all addresses that prefer does not name, and tier 1 is served
			    it leaves: it is in tier 2, which waits as long as tier 1 lives
			  0 a. 60 IN A 10.0.1.2: down since 12:00:01: timeout
			    verdict: 10.0.1.2 is down since 12:00:01: timeout
			    tier: it is in tier 2 of 2, that of all addresses that prefer does not name, and tier 1 is served
			    it leaves: down since 12:00:01: timeout`},
		{"no tier lives", "prefer 10.0.0.0/24", two, "", "10.0.0.1=down 10.0.0.2=down", `
			a. A, answer: 2 of 2 are down: fallback all keeps all of it
			  1 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, but fallback all keeps all of it
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    tier: it is in tier 1 of 2, and in none are enough alive
			    fallback: fallback all keeps all of it
			    it stays: down since 12:00:01: timeout, but fallback all keeps all of it
			  2 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, but fallback all keeps all of it
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    tier: it is in tier 1 of 2, and in none are enough alive
			    fallback: fallback all keeps all of it
			    it stays: down since 12:00:01: timeout, but fallback all keeps all of it`},
		{"panic", "panic 60; fallback nodata", two, "", "10.0.0.1=down 10.0.0.2=up", `
			a. A, answer: 1 of 2 is down, so that less than 60 % live: fallback nodata says that there are none
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, and fallback nodata says that there are none
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: fallback nodata says that there are none
			    it leaves: down since 12:00:01: timeout, and fallback nodata says that there are none
			  0 a. 20 IN A 10.0.0.2: up since 11:00:00, and fallback nodata says that there are none
			    verdict: 10.0.0.2 is up since 11:00:00
			    fallback: fallback nodata says that there are none
			    it leaves: up since 11:00:00, and fallback nodata says that there are none`},
		{"relief", "", two, "", "10.0.0.1=down 10.0.0.2=damped", `
			a. A, answer: 1 of 2 is down, 1 would be if others lived: 1 stays
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    it leaves: down since 12:00:01: timeout
			  1 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, but only because it flaps, and too few others live
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    relief: it answers, and is down only because it flaps; so few others live that it counts as one that is not down
			    it stays: down since 12:00:01: timeout, but only because it flaps, and too few others live`},
		{"standby", "fallback b. c. 10.9.9.9", two, "", "10.0.0.1=down 10.0.0.2=down", `
			a. A, answer: 2 of 2 are down: c. takes its place, with 10.8.8.8
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, and c. takes its place, with 10.8.8.8
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: c. takes its place, with 10.8.8.8
			    it leaves: down since 12:00:01: timeout, and c. takes its place, with 10.8.8.8
			  0 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, and c. takes its place, with 10.8.8.8
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    fallback: c. takes its place, with 10.8.8.8
			    it leaves: down since 12:00:01: timeout, and c. takes its place, with 10.8.8.8`},
		{"addresses, one of them the same", "fallback 10.0.0.2 10.9.9.9", two, "", "10.0.0.1=down 10.0.0.2=down", `
			a. A, answer: 2 of 2 are down: fallback has 10.0.0.2, 10.9.9.9 instead
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, and fallback has 10.0.0.2, 10.9.9.9 instead
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: fallback has 10.0.0.2, 10.9.9.9 instead
			    it leaves: down since 12:00:01: timeout, and fallback has 10.0.0.2, 10.9.9.9 instead
			  1 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, but the fallback has the same address
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    fallback: fallback has 10.0.0.2, 10.9.9.9 instead
			    it stays: down since 12:00:01: timeout, but the fallback has the same address`},
		{"servfail", "fallback b. servfail", two, "", "10.0.0.1=down 10.0.0.2=down", `
			a. A, answer: 2 of 2 are down: no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, and no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			    it leaves: down since 12:00:01: timeout, and no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			  0 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, and no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    fallback: no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed
			    it leaves: down since 12:00:01: timeout, and no name in fallback has an address that lives (b.), and fallback servfail says that the server has failed`},
		{"refuted", "", two + "\na. 20 IN AAAA 2001:db8::1", "", "10.0.0.1=down 10.0.0.2=down 2001:db8::1=up", `
			a. A, answer: 2 of 2 are down: the other family of the name lives, which proves that the checks are right, so there are none of this one
			  0 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, and the other family of the name lives, which proves that the checks are right, so there are none of this one
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: the other family of the name lives, which proves that the checks are right, so there are none of this one
			    it leaves: down since 12:00:01: timeout, and the other family of the name lives, which proves that the checks are right, so there are none of this one
			  0 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, and the other family of the name lives, which proves that the checks are right, so there are none of this one
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    fallback: the other family of the name lives, which proves that the checks are right, so there are none of this one
			    it leaves: down since 12:00:01: timeout, and the other family of the name lives, which proves that the checks are right, so there are none of this one
			a. AAAA, answer: 0 of 1 are down: 1 stays
			  1 a. 20 IN AAAA 2001:db8::1: up since 11:00:00
			    verdict: 2001:db8::1 is up since 11:00:00
			    it stays: up since 11:00:00`},
		{"signed, and nobody signs again", "", signed, "", "10.0.0.1=down 10.0.0.2=up", `
			a. A, answer: 1 of 2 is down: 2 stay, since it is signed, and nobody here can sign it again
			  2 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, but its RRset is signed, and nobody here can sign it again, so it is at the end
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    order: place 2 of 2
			    it stays: down since 12:00:01: timeout, but its RRset is signed, and nobody here can sign it again, so it is at the end
			  1 a. 20 IN A 10.0.0.2: up since 11:00:00
			    verdict: 10.0.0.2 is up since 11:00:00
			    order: place 1 of 2
			    it stays: up since 11:00:00`},
		{"signed, nobody signs again, and a tier waits", "prefer 10.0.0.2/32", signed, "", "10.0.0.1=up 10.0.0.2=up", `
			a. A, answer: 0 of 2 are down, 1 is of a tier that waits: 2 stay, since it is signed, and nobody here can sign it again
			  2 a. 20 IN A 10.0.0.1: it is in tier 2 and should wait, but its RRset is signed, and nobody here can sign it again, so it is behind others
			    verdict: 10.0.0.1 is up since 11:00:00
			    tier: it is in tier 2 of 2, that of all addresses that prefer does not name, and tier 1 is served
			    order: place 2 of 2
			    it stays: it is in tier 2 and should wait, but its RRset is signed, and nobody here can sign it again, so it is behind others
			  1 a. 20 IN A 10.0.0.2: up since 11:00:00
			    verdict: 10.0.0.2 is up since 11:00:00
			    tier: it is in tier 1 of 2, which is the first with enough alive, and so is served
			    order: place 1 of 2
			    it stays: up since 11:00:00`},
		{"signed, and all are down", "fallback nodata", signed, "", "10.0.0.1=down 10.0.0.2=down", `
			a. A, answer: 2 of 2 are down: it is signed, and nobody here can sign it again, so all of it stays
			  1 a. 20 IN A 10.0.0.1: down since 12:00:01: timeout, but it is signed, and nobody here can sign it again, so all of it stays
			    verdict: 10.0.0.1 is down since 12:00:01: timeout
			    fallback: it is signed, and nobody here can sign it again, so all of it stays
			    it stays: down since 12:00:01: timeout, but it is signed, and nobody here can sign it again, so all of it stays
			  2 a. 20 IN A 10.0.0.2: down since 12:00:01: timeout, but it is signed, and nobody here can sign it again, so all of it stays
			    verdict: 10.0.0.2 is down since 12:00:01: timeout
			    fallback: it is signed, and nobody here can sign it again, so all of it stays
			    it stays: down since 12:00:01: timeout, but it is signed, and nobody here can sign it again, so all of it stays`},
		{"picked at random", "pick 1; weight 3 10.0.0.2/32", two, "", "10.0.0.1=up 10.0.0.2=up", `
			a. A, answer: 0 of 2 are down, 1 is not picked: 1 stays
			  0 a. 20 IN A 10.0.0.1: others are picked; place 2 of 2 in one draw at random, with weight 1 of 4; each answer has a draw of its own; pick takes 1
			    verdict: 10.0.0.1 is up since 11:00:00
			    it leaves: others are picked; place 2 of 2 in one draw at random, with weight 1 of 4; each answer has a draw of its own; pick takes 1
			  1 a. 20 IN A 10.0.0.2: up since 11:00:00, and it is picked: place 1 of 2 in one draw at random, with weight 3 of 4; each answer has a draw of its own; pick takes 1
			    verdict: 10.0.0.2 is up since 11:00:00
			    order: place 1 of 2 in one draw at random, with weight 3 of 4; each answer has a draw of its own; pick takes 1
			    it stays: up since 11:00:00, and it is picked: place 1 of 2 in one draw at random, with weight 3 of 4; each answer has a draw of its own; pick takes 1`},
		{"sort by round trip", "sort rtt", two, "", "10.0.0.1=up,20ms 10.0.0.2=up,3ms", `
			a. A, answer: 0 of 2 are down: 2 stay
			  2 a. 20 IN A 10.0.0.1: up since 11:00:00
			    verdict: 10.0.0.1 is up since 11:00:00
			    order: place 2 of 2 by round trip, which is 20 ms
			    it stays: up since 11:00:00
			  1 a. 20 IN A 10.0.0.2: up since 11:00:00
			    verdict: 10.0.0.2 is up since 11:00:00
			    order: place 1 of 2 by round trip, which is 3 ms
			    it stays: up since 11:00:00`},
		{"sort by client", "sort client", two, "", "10.0.0.1=up 10.0.0.2=unknown", `
			a. A, answer: 0 of 2 are down: 2 stay
			  1 a. 20 IN A 10.0.0.1: up since 11:00:00
			    verdict: 10.0.0.1 is up since 11:00:00
			    order: place 1 of 2 in the order of the network 192.0.2.0/24, with weight 1 of 2
			    it stays: up since 11:00:00
			  2 a. 20 IN A 10.0.0.2: unknown
			    verdict: 10.0.0.2 is unknown
			    order: place 2 of 2 in the order of the network 192.0.2.0/24, with weight 1 of 2
			    it stays: unknown`},
		{"services", "", "_x._tcp.a. 60 IN SRV 0 0 443 b.\n_x._tcp.a. 60 IN SRV 0 0 443 c.\n_x._tcp.a. 60 IN SRV 0 0 443 d.",
			"b. 60 IN A 10.0.0.1\nc. 60 IN A 10.0.0.2\nc. 60 IN A 10.0.0.3\nmx. 60 IN A 10.0.0.9", "10.0.0.1:443=down 10.0.0.2:443=up 10.0.0.3:443=down", `
			_x._tcp.a. SRV, answer: 1 of 3 is down: 2 stay
			  0 _x._tcp.a. 60 IN SRV 0 0 443 b.: 10.0.0.1:443 is down since 12:00:01: timeout
			    verdict: 10.0.0.1:443 is down since 12:00:01: timeout
			    it leaves: 10.0.0.1:443 is down since 12:00:01: timeout
			  1 _x._tcp.a. 60 IN SRV 0 0 443 c.: not all 2 addresses of c. are down at port 443
			    verdict: 10.0.0.2:443 is up since 11:00:00
			    verdict: 10.0.0.3:443 is down since 12:00:01: timeout
			    it stays: not all 2 addresses of c. are down at port 443
			    ttl: 60 becomes 30
			  2 _x._tcp.a. 60 IN SRV 0 0 443 d.: no address of d. is known
			    it stays: no address of d. is known
			    ttl: 60 becomes 30
			b. A, additional: 1 of 1 leaves
			  0 b. 60 IN A 10.0.0.1: down since 12:00:01: timeout
			    verdict: 10.0.0.1:443 is down since 12:00:01: timeout
			    it leaves: down since 12:00:01: timeout
			c. A, additional: 1 of 2 leaves
			  1 c. 60 IN A 10.0.0.2: up since 11:00:00
			    verdict: 10.0.0.2:443 is up since 11:00:00
			    it stays: up since 11:00:00
			    ttl: 60 becomes 30
			  0 c. 60 IN A 10.0.0.3: down since 12:00:01: timeout
			    verdict: 10.0.0.3:443 is down since 12:00:01: timeout
			    it leaves: down since 12:00:01: timeout
			mx. A, additional: 0 of 1 leave
			  1 mx. 60 IN A 10.0.0.9: no record leads to it that anybody checks
			    it stays: no record leads to it that anybody checks`},
		{"hints", "pick 1; prefer 10.0.0.0/24", "a. 60 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1,10.0.0.2,10.0.0.3,10.0.1.1", "",
			"10.0.0.1:443=down 10.0.0.2:443=up 10.0.0.3:443=up 10.0.1.1:443=up", `
			a. HTTPS, answer: 3 of 4 addresses in hints leave
			  1 a. 60 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1,10.0.0.2,10.0.0.3,10.0.1.1": records of services stay, only addresses in their hints leave
			    verdict: 10.0.0.1:443 is down since 12:00:01: timeout
			    verdict: 10.0.0.2:443 is up since 11:00:00
			    verdict: 10.0.0.3:443 is up since 11:00:00
			    verdict: 10.0.1.1:443 is up since 11:00:00
			    hint: 10.0.0.1:443 is down, so it leaves
			    hint: 10.0.0.3:443 is not picked, so it leaves
			    hint: 10.0.1.1:443 is in a tier that waits, so it leaves
			    it stays: records of services stay, only addresses in their hints leave
			    ttl: 60 becomes 30`},
		{"a hint that has to stay", "", "a. 60 IN HTTPS 1 . mandatory=ipv4hint alpn=h2 ipv4hint=10.0.0.1,10.0.0.2", "", "10.0.0.1:443=down 10.0.0.2:443=down", `
			a. HTTPS, answer: 0 of 2 addresses in hints leave
			  1 a. 60 IN HTTPS 1 . mandatory="ipv4hint" alpn="h2" ipv4hint="10.0.0.1,10.0.0.2": records of services stay, only addresses in their hints leave
			    verdict: 10.0.0.1:443 is down since 12:00:01: timeout
			    verdict: 10.0.0.2:443 is down since 12:00:01: timeout
			    hint: 10.0.0.1:443 is down, but the record needs a hint, and has no other
			    hint: 10.0.0.2:443 is down, but the record needs a hint, and has no other
			    it stays: records of services stay, only addresses in their hints leave
			    ttl: 60 becomes 30`},
		{"none to check", "", "a. 60 IN TXT x", "", "", `
			passed: it has no records that lead to addresses`},
		{"alone anyway", "", "_x._tcp.a. 60 IN SRV 0 0 443 b.", "", "", `
			passed: no address in it can be checked, or none could leave it
			_x._tcp.a. SRV, answer: 0 of 1 are down: 1 stays
			  1 _x._tcp.a. 60 IN SRV 0 0 443 b.: no verdict could change it
			    it stays: no verdict could change it`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			request, m := filterMessages(t, test.answer)
			m.Extra = lab.Records(t, test.extra)
			states := filterVerdicts(t, test.verdicts)
			states.standbys = map[string]selectStandby{"c.": {[]netip.Addr{netip.MustParseAddr("10.8.8.8")}, 60}}
			q := &Query{Request: request, Client: naiveClient{512, netip.MustParseAddr("192.0.2.77")}, Zone: selectPolicy(t, test.policy),
				Draw: func(addr netip.Addr) float64 { return map[bool]float64{true: 0.5, false: 0.4}[addr.As4()[3] == 2] }}
			e := Explain(m, q, explainWitness{states})
			if got := strings.TrimSpace(explainText(e)); got != strings.TrimSpace(strings.ReplaceAll(test.want, "\t", "")) {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

// What has more addresses than anybody looks at passes, and is not told of in detail.
func TestExplainTooMany(t *testing.T) {
	for n, want := range map[int]int{maxPairs / 2: 1, maxPairs/2 + 1: 0} {
		request, m := filterMessages(t, "a. 60 IN A 10.0.0.1")
		for i := 1; i < n; i++ {
			m.Answer = append(m.Answer, &dns.A{Hdr: *m.Answer[0].Header(), A: []byte{10, 1, byte(i >> 8), byte(i)}})
		}
		e := Explain(m, &Query{Request: request, Client: room(dns.MaxMsgSize), Zone: selectPolicy(t, "pick 3")}, explainWitness{filterVerdicts(t, "")})
		if len(e.Sets) != want || (e.Passed == "") != (want == 1) {
			t.Errorf("%d addresses: %d sets, passed %q", n, len(e.Sets), e.Passed)
		}
	}
}
