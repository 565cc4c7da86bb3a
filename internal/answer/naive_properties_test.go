package answer

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// What holds for every message, whatever the filters agree on.

// naiveCompare filters m both ways and checks what has to hold for every message.
func naiveCompare(t *testing.T, m *dns.Msg, q naiveQuery, rules naiveRules) Result {
	t.Helper()
	before := filterTake(m)
	isDown := false
	look := q.source.look
	q.source.look = func(addr netip.Addr, port uint16) Verdict {
		v := look(addr, port)
		isDown = isDown || v.State == Down
		return v
	}
	got, result := Filter(m, q.query(), q.source)
	want, wantResult := naiveFilter(m, q, rules)
	before.expectUnchanged(t)
	if (got == m) != (want == m) {
		t.Errorf("the very message: %v, want %v", got == m, want == m)
	}
	if wantResult.Addresses > maxPairs { // or half of that
		wantResult.Addresses = result.Addresses // nobody has counted all of them
	}
	if result != wantResult {
		t.Errorf("result %+v, want %+v", result, wantResult)
	}
	gotPacked, gotErr := got.Pack()
	wantPacked, _ := want.Pack()
	switch {
	case gotErr != nil && before.packed != nil:
		t.Errorf("does not pack: %v", gotErr)
	case !bytes.Equal(gotPacked, wantPacked):
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	naiveInvariants(t, m, got, q)
	if !isDown && q.zone.Pick == 0 && q.zone.Tiers.Len() == 0 {
		naiveExpectAll(t, m, got)
	}
	if wantResult.Addresses <= q.zone.most() {
		naiveExpectPicked(t, m, got, q)
	}
	if t.Failed() {
		t.Logf("input\n%v\nrequest\n%v\nclient %v\nsigner %v\nzone %s policy %s\nverdicts\n%s", m, q.request, q.client, q.signer, q.zone.Name, naivePolicyText(q), naiveAsked(m, q))
	}
	return result
}

// naiveRecordsOf returns the records of a section by RRset, without their TTLs, which may change, and without hints, which may
// go. It leaves signatures out where there may be new ones.
func naiveRecordsOf(section []dns.RR, q naiveQuery) (sets map[string][]string, ttls map[string]uint32, number int) {
	sets, ttls = make(map[string][]string), make(map[string]uint32)
	for _, rr := range section {
		rrtype := rr.Header().Rrtype
		if rrtype == dns.TypeOPT || rrtype == dns.TypeRRSIG && q.signer != nil {
			continue
		}
		rr = dns.Copy(rr)
		key := naiveKeyOf(rr)
		ttls[key] = max(ttls[key], rr.Header().Ttl)
		rr.Header().Ttl = 0
		if svcb := naiveBinding(rr); svcb != nil {
			svcb.Value = slices.DeleteFunc(svcb.Value, func(kv dns.SVCBKeyValue) bool {
				return kv.Key() == dns.SVCB_IPV4HINT || kv.Key() == dns.SVCB_IPV6HINT
			})
		}
		sets[key] = append(sets[key], rr.String())
		number++
	}
	return sets, ttls, number
}

// bringsOthers tells whether the fallback may bring addresses that are not in the message.
func (q naiveQuery) bringsOthers() bool {
	return q.zone.Fallback.Kind == FallbackAddresses || len(q.zone.Fallback.Names) > 0
}

// naiveInvariants checks what the two filters could agree on and both be wrong.
func naiveInvariants(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	answerBefore, answerTTLs, numberBefore := naiveRecordsOf(m.Answer, q)
	answerAfter, newAnswerTTLs, numberAfter := naiveRecordsOf(got.Answer, q)
	extraBefore, extraTTLs, _ := naiveRecordsOf(m.Extra, q)
	extraAfter, newExtraTTLs, _ := naiveRecordsOf(got.Extra, q)
	if !q.bringsOthers() {
		if numberAfter > numberBefore {
			t.Errorf("%d records became %d", numberBefore, numberAfter)
		}
		naiveSubset(t, answerBefore, answerAfter)
	}
	naiveSubset(t, extraBefore, extraAfter)
	if q.zone.Fallback.Kind == FallbackAll {
		for _, rr := range m.Answer {
			key := naiveKeyOf(rr)
			if len(answerBefore[key]) > 0 && len(answerAfter[key]) == 0 && !naiveFamilyLives(m, rr, q) {
				t.Errorf("%s is empty", key)
			}
		}
	}
	for _, ttls := range [][2]map[string]uint32{{answerTTLs, newAnswerTTLs}, {extraTTLs, newExtraTTLs}} {
		for key, ttl := range ttls[1] {
			if ttl > ttls[0][key] {
				t.Errorf("the TTL of %s rose from %d to %d", key, ttls[0][key], ttl)
			}
		}
	}
	if got.Truncated != m.Truncated {
		t.Errorf("TC became %v", got.Truncated)
	}
	naiveOneStory(t, m, got, q)
	naiveExpectOneTTL(t, m, got, q)
	if q.signer != nil {
		naiveExpectValid(t, m, got, q)
	}
}

// naiveFamilyLives tells whether the owner of an address record has an address of the other family that is up, or a name
// that stands in for those.
func naiveFamilyLives(m *dns.Msg, rr dns.RR, q naiveQuery) bool {
	other := map[uint16]uint16{dns.TypeA: dns.TypeAAAA, dns.TypeAAAA: dns.TypeA}[rr.Header().Rrtype]
	addrs, _ := q.source.Resolve(rr.Header().Name, other)
	for _, rr := range naiveRRset(m.Answer, naiveKey(rr.Header().Name, other)) {
		if addr, ok := naiveIP(rr); ok {
			addrs = append(slices.Clone(addrs), addr)
		}
	}
	for _, name := range q.zone.Fallback.Names {
		if standby, _ := q.source.Standby(name, other); len(standby) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return q.source.Ask(addr, 0).State == Up })
}

// naiveCounts returns how often an answer has each address, by owner and type.
func naiveCounts(m *dns.Msg) map[string]map[netip.Addr]int {
	counts := make(map[string]map[netip.Addr]int)
	for _, rr := range m.Answer {
		if addr, ok := naiveIP(rr); ok {
			key := naiveKeyOf(rr)
			if counts[key] == nil {
				counts[key] = make(map[netip.Addr]int)
			}
			counts[key][addr]++
		}
	}
	return counts
}

// No RRset has more addresses than are picked, unless it had to keep them for its signature, and no address has become more
// frequent.
func naiveExpectPicked(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	before := naiveCounts(m)
	signable := q.signer != nil
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		if sig, ok := rr.(*dns.RRSIG); ok {
			ours := sig.KeyTag == naiveKeyTag && sig.Algorithm == dns.ECDSAP256SHA256 && strings.EqualFold(sig.SignerName, "example.org.")
			signable = signable && ours && dns.IsSubDomain("example.org.", sig.Hdr.Name)
		}
	}
	for key, counts := range naiveCounts(got) {
		all := 0
		for addr, n := range counts {
			all += n
			if n > max(1, before[key][addr]) {
				t.Errorf("%s has %s %d times, and had it %d times", key, addr, n, before[key][addr])
			}
		}
		isFixed := !signable && len(naiveSignatures(m.Answer, key)) > 0
		if q.zone.Pick > 0 && all > q.zone.Pick && !isFixed {
			t.Errorf("%s has %d addresses, of which %d are to be picked", key, all, q.zone.Pick)
		}
	}
}

// Nothing is missing.
func naiveExpectAll(t *testing.T, m, got *dns.Msg) {
	t.Helper()
	text := func(section []dns.RR) string {
		var all []string
		for _, rr := range section {
			rr = dns.Copy(rr)
			rr.Header().Ttl = 0
			all = append(all, rr.String())
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	for i, sections := range [][2][]dns.RR{{m.Answer, got.Answer}, {m.Ns, got.Ns}, {m.Extra, got.Extra}} {
		if before, after := text(sections[0]), text(sections[1]); before != after {
			t.Errorf("nothing is down, and section %d, which was\n%s\nis\n%s", i, before, after)
		}
	}
}

// Where the TTL of an address was lowered, no address of that RRset has a longer one, here or in the other section. What
// stands in for others has a TTL of its own.
func naiveExpectOneTTL(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	if q.bringsOthers() {
		return
	}
	before := [][]dns.RR{m.Answer, m.Extra}
	caps := make(map[string]uint32)
	addresses := func(visit func(section int, rr dns.RR, key string)) {
		for i, section := range [][]dns.RR{got.Answer, got.Extra} {
			for _, rr := range section {
				if _, ok := naiveIP(rr); ok {
					visit(i, rr, naiveKeyOf(rr))
				}
			}
		}
	}
	addresses(func(section int, rr dns.RR, key string) {
		addr, _ := naiveIP(rr)
		lowered := true
		for _, old := range naiveRRset(before[section], key) {
			if same, _ := naiveIP(old); same == addr && old.Header().Ttl <= rr.Header().Ttl {
				lowered = false
			}
		}
		if ttl, found := caps[key]; lowered && (!found || rr.Header().Ttl < ttl) {
			caps[key] = rr.Header().Ttl
		}
	})
	addresses(func(_ int, rr dns.RR, key string) {
		if ttl, found := caps[key]; found && rr.Header().Ttl > ttl {
			t.Errorf("%s has a TTL of more than %d, to which it was lowered elsewhere", rr, ttl)
		}
	})
}

// naiveOneStory checks that what the sections say fits together.
func naiveOneStory(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	addresses := func(section []dns.RR, owner string) (all []netip.Addr) {
		for _, rr := range section {
			if addr, ok := naiveIP(rr); ok && strings.EqualFold(rr.Header().Name, owner) {
				all = append(all, addr)
			}
		}
		return all
	}
	signed := make(map[string]bool)
	for _, rr := range m.Extra {
		if sig, ok := rr.(*dns.RRSIG); ok {
			signed[naiveKey(sig.Hdr.Name, sig.TypeCovered)] = true
		}
	}
	for _, rr := range got.Extra {
		addr, ok := naiveIP(rr)
		owner := rr.Header().Name
		if !ok || signed[naiveKeyOf(rr)] {
			continue
		}
		if slices.Contains(addresses(m.Answer, owner), addr) && !slices.Contains(addresses(got.Answer, owner), addr) {
			t.Errorf("%s has left the answer and stands in the additional section", rr)
		}
	}
	for _, rr := range got.Answer {
		srv := naiveService(rr)
		if srv == nil || len(addresses(m.Extra, srv.Target)) == 0 || len(addresses(got.Extra, srv.Target)) > 0 {
			continue
		}
		// Its addresses may have left with those in the answer, or there may be others that the message lacks.
		elsewhere := len(addresses(m.Answer, srv.Target)) > 0
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			addrs, known := q.source.Resolve(srv.Target, rrtype)
			elsewhere = elsewhere || !known || len(addrs) > 0
		}
		if !elsewhere {
			t.Errorf("%s lost all addresses of its target", rr)
		}
	}
}

func naiveSubset(t *testing.T, before, after map[string][]string) {
	t.Helper()
	for key, records := range after {
		for _, rr := range records {
			if !slices.Contains(before[key], rr) {
				t.Errorf("new: %s", rr)
			}
		}
	}
}

// naiveAsked returns what the filters are told of what is in m, a line each.
func naiveAsked(m *dns.Msg, q naiveQuery) string {
	lines := make(map[string]bool)
	source := q.source
	q.source = naiveSource{
		look: func(addr netip.Addr, port uint16) Verdict {
			v := source.look(addr, port)
			state := []string{" is not watched", " is unknown", " is up", " is down"}[v.State]
			lines[fmt.Sprintf("%s%s damped=%v rtt=%s within=%s", netip.AddrPortFrom(addr, port), state, v.Damped, v.RTT, v.Within)] = true
			return v
		},
		resolve: func(name string, rrtype uint16) ([]netip.Addr, bool) {
			addrs, known := source.resolve(name, rrtype)
			lines[fmt.Sprint(name, " ", dns.TypeToString[rrtype], " ", addrs, " ", known)] = true
			return addrs, known
		},
		standby: func(name string, rrtype uint16) ([]netip.Addr, uint32) {
			addrs, ttl := source.standby(name, rrtype)
			lines[fmt.Sprint("standby ", name, " ", dns.TypeToString[rrtype], " ", addrs, " ", ttl)] = true
			return addrs, ttl
		},
	}
	Filter(m, q.query(), q.source)
	naiveFilter(m, q, nil)
	return strings.Join(slices.Sorted(maps.Keys(lines)), "\n")
}

// naivePolicyText returns what a policy says of the addresses of naiveAddress.
func naivePolicyText(q naiveQuery) string {
	p := q.zone.Policy
	var b strings.Builder
	fmt.Fprintf(&b, "ttl %d fallback %+v panic %d sort %v %d %d pick %d, of %d tiers:", p.TTL, p.Fallback, p.Panic, p.Sort,
		p.ClientBits4, p.ClientBits6, p.Pick, p.Tiers.Len())
	for i := range 6 {
		v4 := naiveAddress(i)
		for _, addr := range []netip.Addr{v4, naiveAddress6(v4)} {
			u := Rendezvous(p.network(q.client.addr), addr)
			fmt.Fprintf(&b, "\n%s in %d, weight %d, drawn %.3f, for the client %.3f", addr, p.Tiers.Of(addr), p.Weights.Of(addr), q.drawn(addr), u)
		}
	}
	return b.String()
}
