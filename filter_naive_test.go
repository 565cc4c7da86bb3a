package shaker

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// naiveFilter is the manual once more, written for clarity: on a copy of the message, set by set, with maps
// and strings.
func naiveFilter(original, request *dns.Msg, zone zonePolicy, states map[netip.Addr]health.State) (*dns.Msg, filterResult) {
	p := zone.policy
	var result filterResult
	m := original.Copy()

	address := func(rr dns.RR) (netip.Addr, bool) {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
			if v4 := ip.To4(); v4 != nil {
				ip = v4
			}
		case *dns.AAAA:
			ip = rr.AAAA
		default:
			return netip.Addr{}, false
		}
		addr, ok := netip.AddrFromSlice(ip)
		return addr, ok && rr.Header().Class == dns.ClassINET
	}
	setOf := func(owner string, rrtype uint16) string {
		return strings.ToLower(owner) + " " + dns.TypeToString[rrtype]
	}

	type set struct {
		owner               string
		living, dead        []dns.RR // in the order of the answer
		distinct            map[netip.Addr]bool
		watched, signed     bool
		drop, sort, replace bool
	}
	sets := map[string]*set{}
	var inOrder []*set
	for _, rr := range m.Answer {
		addr, ok := address(rr)
		if !ok {
			continue
		}
		result.addresses++
		key := setOf(rr.Header().Name, rr.Header().Rrtype)
		if sets[key] == nil {
			sets[key] = &set{owner: rr.Header().Name, distinct: map[netip.Addr]bool{}}
			inOrder = append(inOrder, sets[key])
		}
		s := sets[key]
		s.distinct[addr] = true
		state, watched := states[addr]
		s.watched = s.watched || watched
		if watched && state == health.Down {
			s.dead = append(s.dead, rr)
		} else {
			s.living = append(s.living, rr)
		}
	}
	for _, rr := range m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if s := sets[setOf(sig.Hdr.Name, sig.TypeCovered)]; s != nil {
				s.signed = true
			}
		}
	}

	changed, servfail, reason := false, false, ""
	for _, s := range inOrder {
		if len(s.distinct) == 1 && p.fallback.kind == fallbackAll {
			// Nothing that could be known of it would change the answer, so nothing is.
			s.living, s.dead, s.watched = append(s.living, s.dead...), nil, false
		}
		if len(s.dead) == 0 {
			continue
		}
		changed = true
		all := len(s.living) + len(s.dead)
		falls := len(s.living) == 0 || 100*len(s.living) < p.panics*all
		switch {
		case falls && p.fallback.kind == fallbackServFail:
			s.drop, s.living, servfail = true, nil, true
		case s.signed && len(s.living) > 0:
			s.sort = true
			result.outcome = max(result.outcome, reordered)
			continue
		case falls && !s.signed && p.fallback.kind != fallbackAll:
			s.replace = true
		case falls:
		default:
			s.drop = true
			result.removed += len(s.dead)
			result.outcome = max(result.outcome, filtered)
			continue
		}
		if s.drop || s.replace {
			result.removed += all
		}
		result.outcome = substituted
		reason = fmt.Sprintf("shaker: %d of %d addresses of %s are down", len(s.dead), all, s.owner)
	}
	longTTL := slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		_, ok := address(rr)
		return ok && sets[setOf(rr.Header().Name, rr.Header().Rrtype)].watched && rr.Header().Ttl > p.ttl
	})
	if !changed && !longTTL {
		return original, result
	}

	var answer []dns.RR
	left := 0
	lower := func(rr dns.RR) dns.RR {
		rr.Header().Ttl = min(rr.Header().Ttl, p.ttl)
		return rr
	}
	for _, rr := range m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if s := sets[setOf(sig.Hdr.Name, sig.TypeCovered)]; s != nil && s.watched {
				lower(sig)
			}
		}
		if _, ok := address(rr); !ok {
			answer = append(answer, rr)
			continue
		}
		s := sets[setOf(rr.Header().Name, rr.Header().Rrtype)]
		switch {
		case s.replace:
			for _, addr := range p.fallback.addresses {
				if s.distinct == nil || addr.Is4() != (rr.Header().Rrtype == dns.TypeA) {
					continue
				}
				text := fmt.Sprintf("%s %d IN %s %s", rr.Header().Name, min(rr.Header().Ttl, p.ttl), dns.TypeToString[rr.Header().Rrtype], addr)
				made, err := dns.NewRR(text)
				if err != nil {
					panic(err)
				}
				answer = append(answer, made)
				left++
			}
			s.distinct = nil // only once
			continue
		case s.drop && !slices.Contains(s.living, rr):
			continue
		case s.sort:
			order := slices.Concat(s.living, s.dead)
			rr = order[0]
			s.living, s.dead = order[1:], nil
		}
		if s.watched {
			lower(rr)
		}
		answer = append(answer, rr)
		left++
	}
	m.Answer = answer
	if result.removed > 0 {
		m.AuthenticatedData = false
	}
	var opt *dns.OPT
	if o := m.IsEdns0(); o != nil {
		opt = o
	}
	if left == 0 {
		if m.Extra = nil; opt != nil {
			m.Extra = []dns.RR{opt}
		}
		if servfail {
			m.Rcode, m.Authoritative, m.Answer, m.Ns = dns.RcodeServerFailure, false, nil, nil
		} else {
			m.Ns = []dns.RR{naiveSOA(original, zone, inOrder[len(inOrder)-1].owner)}
		}
	}
	if reason != "" && request.IsEdns0() != nil {
		if opt == nil {
			opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
			m.Extra = append(m.Extra, opt)
		}
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{ExtraText: reason})
	}
	return m, result
}

func naiveSOA(m *dns.Msg, zone zonePolicy, owner string) dns.RR {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			soa = dns.Copy(soa).(*dns.SOA)
			soa.Hdr.Ttl, soa.Minttl = min(soa.Hdr.Ttl, zone.ttl), min(soa.Minttl, zone.ttl)
			return soa
		}
	}
	apex := ""
	for _, rr := range m.Ns {
		if ns, ok := rr.(*dns.NS); ok && dns.IsSubDomain(ns.Hdr.Name, owner) && apex == "" {
			apex = ns.Hdr.Name
		}
	}
	switch {
	case apex != "":
	case zone.zone != "." && dns.IsSubDomain(zone.zone, owner):
		apex = zone.zone
	default:
		apex = owner
	}
	parent := apex
	if parent == "." {
		parent = ""
	}
	soa := &dns.SOA{
		Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: zone.ttl},
		Ns:  "ns." + parent, Mbox: "hostmaster." + parent,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: zone.ttl,
	}
	for _, name := range []*string{&soa.Ns, &soa.Mbox} {
		if _, err := dns.PackDomainName(*name, make([]byte, 255), 0, nil, false); err != nil {
			*name = "."
		}
	}
	return soa
}

// naiveCompare filters m both ways and checks what has to hold for every message.
func naiveCompare(t *testing.T, m, request *dns.Msg, zone zonePolicy, states map[netip.Addr]health.State) filterResult {
	t.Helper()
	before := filterTake(m)
	got, result := filter(m, request, zone, &filterStates{states: states})
	want, wantResult := naiveFilter(m, request, zone, states)
	before.expectUnchanged(t)
	if (got == m) != (want == m) {
		t.Errorf("the very message: %v, want %v", got == m, want == m)
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
	// What the two could agree on and both be wrong.
	addresses := func(m *dns.Msg) (sets map[string][]string, number int) {
		sets = make(map[string][]string)
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				if rr.Hdr.Class == dns.ClassINET && len(rr.A) > 0 {
					key := strings.ToLower(rr.Hdr.Name) + " A"
					sets[key] = append(sets[key], rr.A.String())
					number++
				}
			case *dns.AAAA:
				if rr.Hdr.Class == dns.ClassINET && len(rr.AAAA) > 0 {
					key := strings.ToLower(rr.Hdr.Name) + " AAAA"
					sets[key] = append(sets[key], rr.AAAA.String())
					number++
				}
			}
		}
		return sets, number
	}
	setsBefore, numberBefore := addresses(m)
	setsAfter, numberAfter := addresses(got)
	if zone.fallback.kind != fallbackAddresses {
		if numberAfter > numberBefore {
			t.Errorf("%d addresses became %d", numberBefore, numberAfter)
		}
		for key, addrs := range setsAfter {
			for _, addr := range addrs {
				if !slices.Contains(setsBefore[key], addr) {
					t.Errorf("%s got %s", key, addr)
				}
			}
		}
	}
	if zone.fallback.kind == fallbackAll {
		for key := range setsBefore {
			if len(setsAfter[key]) == 0 {
				t.Errorf("%s is empty", key)
			}
		}
	}
	if t.Failed() {
		t.Logf("input\n%v\nrequest\n%v\npolicy %+v\nstates %v", m, request, zone.policy, states)
	}
	return result
}

// naiveMessage makes up an answer that a plugin, or somebody at the other end of a forward, could give.
func naiveMessage(r *rand.Rand) (request, m *dns.Msg) {
	owners := []string{"a.example.org.", "A.example.org.", "b.example.org.", `c\.d.example.org.`, "example.org.", ".", "w.example.net."}
	if r.IntN(20) == 0 {
		for i := range 2 * manySets {
			owners = append(owners, fmt.Sprintf("n%d.Example.org.", i))
		}
	}
	if r.IntN(3) == 0 {
		owners = owners[:2] // the usual answer has one name
	}
	request, m = new(dns.Msg), new(dns.Msg)
	request.SetQuestion(owners[0], dns.TypeA)
	if r.IntN(2) == 0 {
		request.SetEdns0(1232, r.IntN(2) == 0)
	}
	m.SetReply(request)
	m.Authoritative, m.AuthenticatedData, m.RecursionAvailable = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	header := func(rrtype uint16) dns.RR_Header {
		h := dns.RR_Header{Name: owners[r.IntN(len(owners))], Rrtype: rrtype, Class: dns.ClassINET, Ttl: uint32(r.IntN(60))}
		if r.IntN(20) == 0 {
			h.Class = dns.ClassCHAOS
		}
		return h
	}
	for range r.IntN(1 + 2*len(owners)) {
		ip := naiveAddress(r)
		switch r.IntN(12) {
		case 0:
			m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(dns.TypeCNAME), Target: owners[r.IntN(len(owners))]})
		case 1:
			covered := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME}[r.IntN(3)]
			m.Answer = append(m.Answer, &dns.RRSIG{Hdr: header(dns.TypeRRSIG), TypeCovered: covered, SignerName: "example.org.", Signature: "c2ln"})
		case 2:
			m.Answer = append(m.Answer, &dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{"x"}})
		case 3:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(dns.TypeA)}) // without data
		case 4:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(dns.TypeA), A: net.IP(ip.AsSlice()).To16()}) // as from ParseIP
		case 5, 6, 7:
			b := ip.As16()
			b[10], b[11] = 0x20, 0x01
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: b[:]})
		default:
			m.Answer = append(m.Answer, &dns.A{Hdr: header(dns.TypeA), A: ip.AsSlice()})
		}
	}
	if r.IntN(3) == 0 {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, owner := range owners {
				m.Answer = append(m.Answer, &dns.RRSIG{Hdr: header(dns.TypeRRSIG), TypeCovered: rrtype, SignerName: "org.", Signature: "c2ln"})
				m.Answer[len(m.Answer)-1].Header().Name = owner
			}
		}
	}
	for range r.IntN(3) {
		if r.IntN(3) == 0 {
			m.Ns = append(m.Ns, &dns.SOA{Hdr: header(dns.TypeSOA), Ns: "ns.", Mbox: "host.", Minttl: uint32(r.IntN(60))})
		} else {
			m.Ns = append(m.Ns, &dns.NS{Hdr: header(dns.TypeNS), Ns: "ns.example.org."})
		}
	}
	if r.IntN(3) == 0 {
		m.Extra = append(m.Extra, &dns.A{Hdr: header(dns.TypeA), A: naiveAddress(r).AsSlice()})
	}
	if r.IntN(3) == 0 {
		m.SetEdns0(4096, false)
	}
	return request, m
}

// naiveAddress returns one of few addresses, so that they come together.
func naiveAddress(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(6))})
}

// naivePolicy makes up a policy from numbers that may be any.
func naivePolicy(kind, panics, ttl, zone int) zonePolicy {
	p := defaultPolicy()
	p.fallback.kind = fallbackKind(kind % 4)
	if p.fallback.kind == fallbackAddresses {
		p.fallback.addresses = setupAddrs("192.0.2.1", "2001:db8::1", "192.0.2.2")[:1+kind/4%3]
	}
	p.panics = []int{0, 0, 0, 34, 50, 100}[panics%6]
	p.ttl = uint32(ttl % 60)
	p.complete()
	return zonePolicy{[]string{".", "example.org.", "a.example.org."}[zone%3], p}
}

func TestFilterAgainstNaive(t *testing.T) {
	messages := 30_000
	if raceEnabled || testing.Short() {
		messages = 5000
	}
	var outcomeCount [outcomes]int
	for seed := range messages {
		r := rand.New(rand.NewPCG(uint64(seed), 0))
		request, m := naiveMessage(r)
		states := make(map[netip.Addr]health.State)
		dead := r.IntN(4)
		for i := range 6 {
			state := health.State(r.IntN(3))
			if r.IntN(6) < dead {
				state = health.Down
			}
			if r.IntN(8) == 0 {
				continue
			}
			v4 := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			v6 := v4.As16()
			v6[10], v6[11] = 0x20, 0x01
			states[v4], states[netip.AddrFrom16(v6)] = state, state
		}
		result := naiveCompare(t, m, request, naivePolicy(r.IntN(12), r.IntN(6), r.IntN(60), r.IntN(3)), states)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		outcomeCount[result.outcome]++
	}
	for o, n := range outcomeCount {
		t.Logf("%d answers %v", n, outcome(o))
		if n < messages/50 {
			t.Errorf("only %d of %d messages %v: they prove little", n, messages, outcome(o))
		}
	}
}

// FuzzFilter filters any message that parses, with verdicts that depend on the address and on the input.
func FuzzFilter(f *testing.F) {
	for seed := range 32 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		_, m := naiveMessage(r)
		m.Compress = seed%2 == 0
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed, uint64(seed), uint16(r.IntN(12)), uint16(r.IntN(6)), uint16(r.IntN(60)), uint16(r.IntN(3)), seed%3 == 0)
	}
	f.Fuzz(func(t *testing.T, packed []byte, salt uint64, kind, panics, ttl, zone uint16, edns bool) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			t.Skip()
		}
		request := new(dns.Msg)
		request.SetQuestion("a.example.org.", dns.TypeA)
		if edns {
			request.SetEdns0(1232, false)
		}
		states := make(map[netip.Addr]health.State)
		for _, rr := range m.Answer {
			var addr netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				addr, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				addr, _ = netip.AddrFromSlice(rr.AAAA)
			}
			h := fnv.New32a()
			fmt.Fprint(h, addr, salt)
			if verdict := h.Sum32() % 8; verdict < 7 && addr.IsValid() {
				states[addr.Unmap()] = []health.State{health.Down, health.Down, health.Down, health.Down, health.Up, health.Up, health.Unknown}[verdict]
			}
		}
		naiveCompare(t, m, request, naivePolicy(int(kind), int(panics), int(ttl), int(zone)), states)
	})
}
