package answer

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// naiveVerdicts is a Source to which nothing new comes.
type naiveVerdicts func(addr netip.Addr, port uint16) Verdict

func (f naiveVerdicts) Ask(addr netip.Addr, port uint16) Verdict { return f(addr, port) }

func (f naiveVerdicts) Settle() bool { return false }

// naiveSet is an RRset of the answer.
type naiveSet struct {
	owner        string
	rrtype       uint16
	living, dead []dns.RR // in the order of the answer
	places       map[string]bool
	signed       bool
	watched      bool
	fate         string // empty where nothing happens, else thin, sort, keep, remove or fail
}

func naiveKey(owner string, rrtype uint16) string {
	return strings.ToLower(owner) + " " + dns.TypeToString[rrtype]
}

func naiveIP(rr dns.RR) (netip.Addr, bool) {
	var addr netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		addr, _ = netip.AddrFromSlice(rr.A)
		addr = addr.Unmap()
	case *dns.AAAA:
		addr, _ = netip.AddrFromSlice(rr.AAAA)
	}
	return addr, addr.IsValid() && rr.Header().Class == dns.ClassINET
}

// naiveService returns the port of an SRV record for TCP.
func naiveService(rr dns.RR) (target string, port uint16) {
	srv, ok := rr.(*dns.SRV)
	if labels := dns.SplitDomainName(rr.Header().Name); !ok || len(labels) < 2 || strings.ToLower(labels[1]) != "_tcp" || srv.Hdr.Class != dns.ClassINET {
		return "", 0
	}
	return srv.Target, srv.Port
}

// naiveHints returns a record with hints, and where its addresses are used.
func naiveHints(rr dns.RR) (svcb *dns.SVCB, port uint16) {
	switch rr := rr.(type) {
	case *dns.SVCB:
		svcb = rr
	case *dns.HTTPS:
		svcb = &rr.SVCB
	default:
		return nil, 0
	}
	if svcb.Priority == 0 || svcb.Hdr.Class != dns.ClassINET {
		return nil, 0
	}
	port = 443
	for _, kv := range svcb.Value {
		if p, ok := kv.(*dns.SVCBPort); ok {
			port = p.Port
		}
	}
	return svcb, port
}

// naiveHint returns the addresses of a hint, and whether it may become empty.
func naiveHint(svcb *dns.SVCB, i int) (addrs []netip.Addr, mayGo bool) {
	var ips []net.IP
	switch kv := svcb.Value[i].(type) {
	case *dns.SVCBIPv4Hint:
		ips = kv.Hint
	case *dns.SVCBIPv6Hint:
		ips = kv.Hint
	}
	for _, ip := range ips {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, true
		}
		addrs = append(addrs, addr.Unmap())
	}
	for _, kv := range svcb.Value {
		if m, ok := kv.(*dns.SVCBMandatory); ok && slices.Contains(m.Code, svcb.Value[i].Key()) {
			return addrs, false
		}
	}
	return addrs, true
}

// naiveFilter is the manual once more, written for clarity: on a copy of the message, set by set, with maps
// and strings.
func naiveFilter(original, request *dns.Msg, zone Zone, look naiveVerdicts) (*dns.Msg, Result) {
	p := zone.Policy
	var result Result
	m := original.Copy()
	changed := false

	glue := map[string][]dns.RR{} // by owner in lower case
	for _, rr := range m.Extra {
		if _, ok := naiveIP(rr); ok {
			owner := strings.ToLower(rr.Header().Name)
			glue[owner] = append(glue[owner], rr)
		}
	}

	// Sort the answer into sets.
	sets := map[string]*naiveSet{}
	var inOrder []*naiveSet
	member := func(rr dns.RR, places ...string) {
		key := naiveKey(rr.Header().Name, rr.Header().Rrtype)
		if sets[key] == nil {
			sets[key] = &naiveSet{owner: rr.Header().Name, rrtype: rr.Header().Rrtype, places: map[string]bool{}}
			inOrder = append(inOrder, sets[key])
		}
		s := sets[key]
		s.living = append(s.living, rr)
		for _, place := range places {
			s.places[place] = true
		}
		if len(places) == 0 {
			s.places["nowhere"] = true
		}
	}
	for _, rr := range m.Answer {
		if addr, ok := naiveIP(rr); ok {
			result.Addresses++
			member(rr, addr.String())
		}
		if target, port := naiveService(rr); port > 0 {
			var places []string
			for _, g := range glue[strings.ToLower(target)] {
				addr, _ := naiveIP(g)
				places = append(places, netip.AddrPortFrom(addr, port).String())
			}
			result.Addresses += len(places)
			member(rr, places...)
		}
		if svcb, port := naiveHints(rr); svcb != nil {
			member(rr)
			for i := range svcb.Value {
				addrs, mayGo := naiveHint(svcb, i)
				if port > 0 && (mayGo || len(slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))) > 1) {
					result.Addresses += len(addrs)
				}
			}
		}
	}
	if result.Addresses > 4096 {
		return original, result
	}
	for _, rr := range m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if s := sets[naiveKey(sig.Hdr.Name, sig.TypeCovered)]; s != nil {
				s.signed = true
			}
		}
	}

	// Tell who is dead.
	isDead := func(s *naiveSet, addr netip.Addr, port uint16) bool {
		v := look(addr, port)
		s.watched = s.watched || v.State != Unwatched
		return v.State == Down
	}
	relieved := map[dns.RR]bool{} // those that are damped, where they are needed
	tooFew := func(s *naiveSet) bool {
		all := len(s.living) + len(s.dead)
		return len(s.dead) > 0 && (len(s.living) == 0 || 100*len(s.living) < p.Panic*all)
	}
	deadGlue := map[string]bool{} // by SRV record and glue record
	glueKey := func(srv, g dns.RR) string { return fmt.Sprintf("%p %p", srv, g) }
	for _, s := range inOrder {
		isAddress := s.rrtype == dns.TypeA || s.rrtype == dns.TypeAAAA
		isService := s.rrtype == dns.TypeSRV
		// With a single place, nothing that could be known of it would change an answer that keeps all.
		keepsAll := p.Fallback.Kind == FallbackAll || isService && p.Fallback.Kind == FallbackAddresses
		if keepsAll && len(s.places) == 1 || !isAddress && !isService {
			continue
		}
		records := s.living
		s.living = nil
		for _, rr := range records {
			dead := false
			if isAddress {
				addr, _ := naiveIP(rr)
				dead = isDead(s, addr, 0)
			} else {
				target, port := naiveService(rr)
				all := glue[strings.ToLower(target)]
				n := 0
				for _, g := range all {
					addr, _ := naiveIP(g)
					if isDead(s, addr, port) {
						deadGlue[glueKey(rr, g)] = true
						n++
					}
				}
				dead = n > 0 && n == len(all)
			}
			if dead {
				s.dead = append(s.dead, rr)
			} else {
				s.living = append(s.living, rr)
			}
		}
		if !tooFew(s) {
			continue
		}
		for _, rr := range s.dead {
			if addr, ok := naiveIP(rr); ok && look(addr, 0).Damped {
				relieved[rr] = true
			}
			target, port := naiveService(rr)
			for _, g := range glue[strings.ToLower(target)] {
				if addr, _ := naiveIP(g); deadGlue[glueKey(rr, g)] && look(addr, port).Damped {
					relieved[rr] = true
					delete(deadGlue, glueKey(rr, g))
				}
			}
		}
		dead := s.dead
		s.living, s.dead = nil, nil
		for _, rr := range records {
			if slices.Contains(dead, rr) && !relieved[rr] {
				s.dead = append(s.dead, rr)
			} else {
				s.living = append(s.living, rr)
			}
		}
	}

	// Tell what happens to each set.
	servfail, reason := false, ""
	for _, s := range inOrder {
		all := len(s.living) + len(s.dead)
		falls := tooFew(s)
		switch {
		case len(s.dead) == 0:
			continue
		case falls && p.Fallback.Kind == FallbackServFail:
			s.fate, servfail = "fail", true
			result.Removed += all
		case s.signed && len(s.living) > 0:
			s.fate = "sort"
		case falls && !s.signed && (p.Fallback.Kind == FallbackNoData || p.Fallback.Kind == FallbackAddresses && s.rrtype != dns.TypeSRV):
			s.fate = "replace"
			result.Removed += all
		case falls:
			s.fate = "keep"
		default:
			s.fate = "thin"
			result.Removed += len(s.dead)
		}
		changed = true
		switch s.fate {
		case "sort":
			result.Outcome = max(result.Outcome, Reordered)
		case "thin":
			result.Outcome = max(result.Outcome, Filtered)
		default:
			result.Outcome = Substituted
			things := map[bool]string{true: "targets", false: "addresses"}[s.rrtype == dns.TypeSRV]
			reason = fmt.Sprintf("shaker: %d of %d %s of %s are down", len(s.dead), all, things, s.owner)
		}
	}

	// Nearest first.
	order := map[*naiveSet][]dns.RR{}
	for _, s := range inOrder {
		if s.fate == "sort" {
			order[s] = slices.Concat(s.living, s.dead)
		}
		// Only what was asked for has a round trip.
		if s.rrtype != dns.TypeA && s.rrtype != dns.TypeAAAA || !p.SortRTT || p.Fallback.Kind == FallbackAll && len(s.places) == 1 {
			continue
		}
		var before, living []dns.RR
		for _, rr := range m.Answer {
			if slices.Contains(s.living, rr) || slices.Contains(s.dead, rr) && s.fate != "thin" {
				before = append(before, rr)
			}
		}
		milliseconds := func(rr dns.RR) int64 {
			addr, _ := naiveIP(rr)
			if v := look(addr, 0); v.RTT > 0 && !relieved[rr] {
				return v.RTT.Milliseconds()
			}
			return 1 << 40
		}
		living = slices.Clone(s.living)
		slices.SortStableFunc(living, func(a, b dns.RR) int { return cmp.Compare(milliseconds(a), milliseconds(b)) })
		after := living
		if s.fate != "thin" {
			after = slices.Concat(living, s.dead)
		}
		if !slices.Equal(before, after) {
			changed = true
			if s.fate == "" {
				result.Outcome = max(result.Outcome, Reordered)
			}
		}
		order[s] = after
	}

	// Thin the hints.
	for _, rr := range m.Answer {
		svcb, port := naiveHints(rr)
		if svcb == nil || port == 0 || sets[naiveKey(rr.Header().Name, rr.Header().Rrtype)].signed {
			continue
		}
		s := sets[naiveKey(rr.Header().Name, rr.Header().Rrtype)]
		var values []dns.SVCBKeyValue
		for i, kv := range svcb.Value {
			addrs, mayGo := naiveHint(svcb, i)
			if len(addrs) == 0 || !mayGo && len(slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))) == 1 {
				values = append(values, kv)
				continue
			}
			var left []net.IP
			for _, addr := range addrs {
				if !isDead(s, addr, port) {
					left = append(left, addr.AsSlice())
				}
			}
			if len(left) == len(addrs) || len(left) == 0 && !mayGo {
				values = append(values, kv)
				continue
			}
			changed = true
			result.Removed += len(addrs) - len(left)
			result.Outcome = max(result.Outcome, Filtered)
			switch {
			case len(left) == 0:
			case kv.Key() == dns.SVCB_IPV4HINT:
				values = append(values, &dns.SVCBIPv4Hint{Hint: left})
			default:
				values = append(values, &dns.SVCBIPv6Hint{Hint: left})
			}
		}
		svcb.Value = values
	}

	// Thin the additional section.
	validated := m.AuthenticatedData && result.Removed == 0
	others := map[string]bool{}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		_, port := naiveService(rr)
		switch rr := rr.(type) {
		case *dns.SRV:
			if port == 0 {
				others[strings.ToLower(rr.Target)] = true
			}
		case *dns.NS:
			others[strings.ToLower(rr.Ns)] = true
		case *dns.MX:
			others[strings.ToLower(rr.Mx)] = true
		case *dns.SVCB:
			others[strings.ToLower(rr.Target)] = true
		case *dns.HTTPS:
			others[strings.ToLower(rr.Target)] = true
		}
	}
	signedGlue := map[string]bool{}
	for _, rr := range m.Extra {
		if sig, ok := rr.(*dns.RRSIG); ok {
			signedGlue[naiveKey(sig.Hdr.Name, sig.TypeCovered)] = true
		}
	}
	removedGlue := 0
	m.Extra = slices.DeleteFunc(m.Extra, func(g dns.RR) bool {
		_, ok := naiveIP(g)
		owner := strings.ToLower(g.Header().Name)
		if !ok || others[owner] || signedGlue[naiveKey(owner, g.Header().Rrtype)] {
			return false
		}
		pointed, useful := false, false
		for _, rr := range m.Answer {
			target, port := naiveService(rr)
			if port == 0 || strings.ToLower(target) != owner {
				continue
			}
			pointed = true
			s := sets[naiveKey(rr.Header().Name, dns.TypeSRV)]
			dead := slices.Contains(s.dead, rr)
			switch s.fate {
			case "fail", "replace":
			case "thin":
				useful = useful || !dead && !deadGlue[glueKey(rr, g)]
			case "keep":
				useful = true
			default:
				useful = useful || dead || !deadGlue[glueKey(rr, g)]
			}
		}
		if pointed && !useful {
			removedGlue++
		}
		return pointed && !useful
	})
	changed = changed || removedGlue > 0
	longTTL := slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		_, isAddress := naiveIP(rr)
		_, service := naiveService(rr)
		svcb, _ := naiveHints(rr)
		concerned := isAddress || service > 0 || svcb != nil
		return concerned && sets[naiveKey(rr.Header().Name, rr.Header().Rrtype)].watched && rr.Header().Ttl > p.TTL
	})
	if !changed && !longTTL {
		return original, result
	}

	// Put the answer together.
	var answer []dns.RR
	empty := true
	lower := func(rr dns.RR) dns.RR {
		rr = dns.Copy(rr)
		rr.Header().Ttl = min(rr.Header().Ttl, p.TTL)
		return rr
	}
	for _, rr := range m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			s := sets[naiveKey(sig.Hdr.Name, sig.TypeCovered)]
			switch {
			case s == nil || !s.watched:
				answer = append(answer, sig)
			case s.fate != "fail":
				answer = append(answer, lower(sig))
			}
			continue
		}
		_, isAddress := naiveIP(rr)
		_, service := naiveService(rr)
		svcb, _ := naiveHints(rr)
		if !isAddress && service == 0 && svcb == nil {
			answer = append(answer, rr)
			if rrtype := rr.Header().Rrtype; rrtype != dns.TypeCNAME && rrtype != dns.TypeDNAME {
				empty = false
			}
			continue
		}
		s := sets[naiveKey(rr.Header().Name, rr.Header().Rrtype)]
		switch {
		case s.fate == "replace":
			for _, addr := range p.Fallback.Addresses {
				if s.places == nil || addr.Is4() != (rr.Header().Rrtype == dns.TypeA) {
					continue
				}
				text := fmt.Sprintf("%s %d IN %s %s", rr.Header().Name, min(rr.Header().Ttl, p.TTL), dns.TypeToString[rr.Header().Rrtype], addr)
				made, err := dns.NewRR(text)
				if err != nil {
					panic(err)
				}
				answer = append(answer, made)
				empty = false
			}
			s.places = nil // only once
			continue
		case s.fate == "fail", s.fate == "thin" && slices.Contains(s.dead, rr):
			continue
		case order[s] != nil:
			rr, order[s] = order[s][0], order[s][1:]
		}
		if s.watched {
			rr = lower(rr)
		}
		answer = append(answer, rr)
		empty = false
	}
	m.Answer, m.AuthenticatedData = answer, validated
	opt := m.IsEdns0()
	switch {
	case empty:
		if m.Extra = nil; opt != nil {
			m.Extra = []dns.RR{opt}
		}
		if servfail {
			m.Rcode, m.Authoritative, m.Answer, m.Ns = dns.RcodeServerFailure, false, nil, nil
		} else {
			m.Ns = []dns.RR{naiveSOA(original, zone, inOrder[len(inOrder)-1].owner)}
		}
	case removedGlue > 0:
		result.Removed += removedGlue
		result.Outcome = max(result.Outcome, Filtered)
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

func naiveSOA(m *dns.Msg, zone Zone, owner string) dns.RR {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			soa = dns.Copy(soa).(*dns.SOA)
			soa.Hdr.Ttl, soa.Minttl = min(soa.Hdr.Ttl, zone.TTL), min(soa.Minttl, zone.TTL)
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
	case zone.Name != "." && dns.IsSubDomain(zone.Name, owner):
		apex = zone.Name
	default:
		apex = owner
	}
	parent := apex
	if parent == "." {
		parent = ""
	}
	soa := &dns.SOA{
		Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: zone.TTL},
		Ns:  "ns." + parent, Mbox: "hostmaster." + parent,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: zone.TTL,
	}
	for _, name := range []*string{&soa.Ns, &soa.Mbox} {
		if _, err := dns.PackDomainName(*name, make([]byte, 255), 0, nil, false); err != nil {
			*name = "."
		}
	}
	return soa
}

// naiveCompare filters m both ways and checks what has to hold for every message.
func naiveCompare(t *testing.T, m, request *dns.Msg, zone Zone, look naiveVerdicts) Result {
	t.Helper()
	before := filterTake(m)
	got, result := Filter(m, request, zone, look)
	want, wantResult := naiveFilter(m, request, zone, look)
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
	naiveInvariants(t, m, got, zone.Fallback.Kind)
	if t.Failed() {
		t.Logf("input\n%v\nrequest\n%v\npolicy %+v\nverdicts %s", m, request, zone.Policy, naiveAsked(m, look))
	}
	return result
}

// naiveInvariants checks what the two filters could agree on and both be wrong.
func naiveInvariants(t *testing.T, m, got *dns.Msg, kind FallbackKind) {
	t.Helper()
	// Records by RRset, without their TTL, which may change, and without hints, which may go.
	read := func(section []dns.RR) (sets map[string][]string, number int) {
		sets = make(map[string][]string)
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			rr = dns.Copy(rr)
			rr.Header().Ttl = 0
			if svcb, _ := naiveHints(rr); svcb != nil {
				svcb.Value = slices.DeleteFunc(svcb.Value, func(kv dns.SVCBKeyValue) bool {
					return kv.Key() == dns.SVCB_IPV4HINT || kv.Key() == dns.SVCB_IPV6HINT
				})
			}
			key := naiveKey(rr.Header().Name, rr.Header().Rrtype)
			sets[key] = append(sets[key], rr.String())
			number++
		}
		return sets, number
	}
	answerBefore, numberBefore := read(m.Answer)
	answerAfter, numberAfter := read(got.Answer)
	extraBefore, _ := read(m.Extra)
	extraAfter, _ := read(got.Extra)
	if kind != FallbackAddresses {
		if numberAfter > numberBefore {
			t.Errorf("%d records became %d", numberBefore, numberAfter)
		}
		naiveSubset(t, answerBefore, answerAfter)
	}
	naiveSubset(t, extraBefore, extraAfter)
	if kind == FallbackAll {
		for key := range answerBefore {
			if len(answerAfter[key]) == 0 {
				t.Errorf("%s is empty", key)
			}
		}
	}
	for _, rr := range got.Answer {
		target, port := naiveService(rr)
		if port == 0 {
			continue
		}
		a, aaaa := naiveKey(target, dns.TypeA), naiveKey(target, dns.TypeAAAA)
		if len(extraBefore[a])+len(extraBefore[aaaa]) > 0 && len(extraAfter[a])+len(extraAfter[aaaa]) == 0 {
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

// naiveAsked returns the verdicts on what is in m.
func naiveAsked(m *dns.Msg, look naiveVerdicts) string {
	var b strings.Builder
	states := naiveVerdicts(func(addr netip.Addr, port uint16) Verdict {
		v := look(addr, port)
		fmt.Fprintln(&b, netip.AddrPortFrom(addr, port), v)
		return v
	})
	Filter(m, new(dns.Msg), filterPolicyOf(Fallback{Kind: FallbackNoData}), states)
	return b.String()
}

// naiveMessage makes up an answer that a plugin, or somebody at the other end of a forward, could give.
func naiveMessage(r *rand.Rand) (request, m *dns.Msg) {
	owners := []string{"a.example.org.", "A.example.org.", "b.example.org.", `c\.d.example.org.`, "example.org.", ".", "w.example.net."}
	services := []string{"_x._tcp.example.org.", "_X._TCP.Example.org.", "_y._tcp.", "_x._udp.example.org.", "_tcp.example.org.", `\._tcp.a._tcp.`}
	if r.IntN(20) == 0 {
		for i := range 2 * manyKeys {
			owners = append(owners, fmt.Sprintf("n%d.Example.org.", i))
			services = append(services, fmt.Sprintf("_n%d._Tcp.Example.org.", i))
		}
	}
	if r.IntN(3) == 0 {
		owners, services = owners[:2], services[:2] // the usual answer has one name
	}
	request, m = new(dns.Msg), new(dns.Msg)
	request.SetQuestion(owners[0], dns.TypeA)
	if r.IntN(2) == 0 {
		request.SetEdns0(1232, r.IntN(2) == 0)
	}
	m.SetReply(request)
	m.Authoritative, m.AuthenticatedData, m.RecursionAvailable = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	g := naiveRecords{r, owners, services}
	kind := r.IntN(4) // of records that there are most of
	for range r.IntN(1 + 2*len(owners)) {
		switch {
		case r.IntN(4) == 0:
			m.Answer = append(m.Answer, g.other())
		case kind == 0 || r.IntN(6) == 0:
			m.Answer = append(m.Answer, g.service())
		case kind == 1 || r.IntN(6) == 0:
			m.Answer = append(m.Answer, g.binding())
		default:
			m.Answer = append(m.Answer, g.address())
		}
	}
	if r.IntN(3) == 0 {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS} {
			for _, owner := range slices.Concat(owners, services) {
				m.Answer = append(m.Answer, g.signature(owner, rrtype))
			}
		}
	}
	for range r.IntN(3) {
		if r.IntN(3) == 0 {
			m.Ns = append(m.Ns, &dns.SOA{Hdr: g.header(dns.TypeSOA), Ns: "ns.", Mbox: "host.", Minttl: uint32(r.IntN(60))})
		} else {
			m.Ns = append(m.Ns, &dns.NS{Hdr: g.header(dns.TypeNS), Ns: []string{"ns.example.org.", g.owner()}[r.IntN(2)]})
		}
	}
	for range r.IntN(1 + len(owners)) {
		m.Extra = append(m.Extra, g.address())
	}
	if r.IntN(4) == 0 {
		m.Extra = append(m.Extra, g.signature(g.owner(), []uint16{dns.TypeA, dns.TypeAAAA}[r.IntN(2)]))
	}
	if r.IntN(3) == 0 {
		m.SetEdns0(4096, false)
	}
	return request, m
}

// naiveRecords makes up records.
type naiveRecords struct {
	*rand.Rand
	owners, services []string
}

func (r naiveRecords) owner() string { return r.owners[r.IntN(len(r.owners))] }

func (r naiveRecords) header(rrtype uint16) dns.RR_Header {
	h := dns.RR_Header{Name: r.owner(), Rrtype: rrtype, Class: dns.ClassINET, Ttl: uint32(r.IntN(60))}
	if r.IntN(20) == 0 {
		h.Class = dns.ClassCHAOS
	}
	return h
}

func (r naiveRecords) signature(owner string, covered uint16) dns.RR {
	sig := &dns.RRSIG{Hdr: r.header(dns.TypeRRSIG), TypeCovered: covered, SignerName: "example.org.", Signature: "c2ln"}
	sig.Hdr.Name = owner
	return sig
}

func (r naiveRecords) address() dns.RR {
	ip := naiveAddress(r.IntN(6))
	switch r.IntN(10) {
	case 0:
		return &dns.A{Hdr: r.header(dns.TypeA)} // without data
	case 1:
		return &dns.A{Hdr: r.header(dns.TypeA), A: net.IP(ip.AsSlice()).To16()} // as from ParseIP
	case 2, 3, 4:
		return &dns.AAAA{Hdr: r.header(dns.TypeAAAA), AAAA: naiveAddress6(ip).AsSlice()}
	default:
		return &dns.A{Hdr: r.header(dns.TypeA), A: ip.AsSlice()}
	}
}

func (r naiveRecords) service() dns.RR {
	h := r.header(dns.TypeSRV)
	h.Name = r.services[r.IntN(len(r.services))]
	return &dns.SRV{Hdr: h, Priority: uint16(r.IntN(2)), Port: naivePorts[r.IntN(len(naivePorts))], Target: r.owner()}
}

func (r naiveRecords) binding() dns.RR {
	svcb := dns.SVCB{Hdr: r.header(dns.TypeSVCB), Priority: uint16(r.IntN(4)), Target: r.owner()}
	if svcb.Priority > 0 {
		svcb.Value = r.parameters()
	}
	if r.IntN(3) == 0 {
		return &svcb
	}
	svcb.Hdr.Rrtype = dns.TypeHTTPS
	return &dns.HTTPS{SVCB: svcb}
}

func (r naiveRecords) parameters() (values []dns.SVCBKeyValue) {
	mandatory := new(dns.SVCBMandatory)
	if r.IntN(2) == 0 {
		values = append(values, &dns.SVCBAlpn{Alpn: []string{"h2"}})
	}
	if r.IntN(2) == 0 {
		values = append(values, &dns.SVCBPort{Port: naivePorts[r.IntN(len(naivePorts))]})
	}
	if n := r.IntN(4); n > 0 {
		hint := new(dns.SVCBIPv4Hint)
		for range n {
			hint.Hint = append(hint.Hint, naiveAddress(r.IntN(6)).AsSlice())
		}
		values = append(values, hint)
		if r.IntN(3) == 0 {
			mandatory.Code = append(mandatory.Code, dns.SVCB_IPV4HINT)
		}
	}
	if n := r.IntN(4); n > 0 {
		hint := new(dns.SVCBIPv6Hint)
		for range n {
			hint.Hint = append(hint.Hint, naiveAddress6(naiveAddress(r.IntN(6))).AsSlice())
		}
		values = append(values, hint)
		if r.IntN(3) == 0 {
			mandatory.Code = append(mandatory.Code, dns.SVCB_IPV6HINT)
		}
	}
	if len(mandatory.Code) > 0 {
		values = append(values, mandatory)
	}
	return values
}

func (r naiveRecords) other() dns.RR {
	switch r.IntN(5) {
	case 0:
		return &dns.CNAME{Hdr: r.header(dns.TypeCNAME), Target: r.owner()}
	case 1:
		return &dns.DNAME{Hdr: r.header(dns.TypeDNAME), Target: r.owner()}
	case 2:
		return &dns.MX{Hdr: r.header(dns.TypeMX), Mx: r.owner()}
	case 3:
		return &dns.TXT{Hdr: r.header(dns.TypeTXT), Txt: []string{"x"}}
	default:
		covered := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeSRV, dns.TypeHTTPS, dns.TypeSVCB}[r.IntN(6)]
		return r.signature(slices.Concat(r.owners, r.services)[r.IntN(len(r.owners)+len(r.services))], covered)
	}
}

// naiveAddress returns one of few addresses, so that they come together.
func naiveAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

func naiveAddress6(v4 netip.Addr) netip.Addr {
	v6 := v4.As16()
	v6[10], v6[11] = 0x20, 0x01
	return netip.AddrFrom16(v6)
}

var naivePorts = []uint16{443, 443, 443, 8443, 0}

// naivePolicy makes up a policy from numbers that may be any.
func naivePolicy(kind, panics, ttl, zone int) Zone {
	f := Fallback{Kind: FallbackKind(kind % 4)}
	if f.Kind == FallbackAddresses {
		f.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")}[:1+kind/4%3]
	}
	p := filterPolicyOf(f)
	p.Panic = []int{0, 0, 0, 34, 50, 100}[panics%6]
	p.SortRTT = panics/6%2 == 1
	p.TTL = uint32(ttl % 60)
	p.Name = []string{".", "example.org.", "a.example.org."}[zone%3]
	return p
}

func TestFilterAgainstNaive(t *testing.T) {
	messages := 30_000
	if lab.RaceEnabled || testing.Short() {
		messages = 5000
	}
	var outcomeCount [Outcomes]int
	for seed := range messages {
		r := rand.New(rand.NewPCG(uint64(seed), 0))
		request, m := naiveMessage(r)
		book := make(filterBook)
		dead := r.IntN(4)
		for i := range 6 {
			for _, port := range []uint16{0, 443, 8443} {
				v := Verdict{State: []State{Unknown, Up, Down}[r.IntN(3)]}
				if r.IntN(6) < dead {
					v.State = Down
				}
				v.Damped = v.State == Down && r.IntN(4) == 0
				if r.IntN(8) == 0 {
					continue
				}
				v.RTT = time.Duration(r.IntN(4)) * 600 * time.Microsecond
				v4 := naiveAddress(i)
				book[netip.AddrPortFrom(v4, port)], book[netip.AddrPortFrom(naiveAddress6(v4), port)] = v, v
			}
		}
		policy := naivePolicy(r.IntN(12), r.IntN(12), r.IntN(60), r.IntN(3))
		result := naiveCompare(t, m, request, policy, (&filterStates{states: book}).Ask)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		outcomeCount[result.Outcome]++
	}
	t.Logf("%d messages, seeds 0 to %d", messages, messages-1)
	for o, n := range outcomeCount {
		t.Logf("%d answers %v", n, Outcome(o))
		if n < messages/50 {
			t.Errorf("only %d of %d messages %v: they prove little", n, messages, Outcome(o))
		}
	}
}

// FuzzFilter filters any message that parses, with verdicts that depend on the address, the port and the input.
func FuzzFilter(f *testing.F) {
	for seed := range 64 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		_, m := naiveMessage(r)
		m.Compress = seed%2 == 0
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed, uint64(seed), uint16(r.IntN(12)), uint16(r.IntN(12)), uint16(r.IntN(60)), uint16(r.IntN(3)), seed%3 == 0)
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
		look := func(addr netip.Addr, port uint16) Verdict {
			h := fnv.New32a()
			fmt.Fprint(h, addr, port, salt)
			n := h.Sum32()
			if n%8 == 7 {
				return Verdict{}
			}
			state := []State{Down, Down, Down, Down, Up, Up, Unknown}[n%8]
			return Verdict{State: state, Damped: state == Down && n/32%4 == 0, RTT: time.Duration(n/8%4) * time.Millisecond}
		}
		naiveCompare(t, m, request, naivePolicy(int(kind), int(panics), int(ttl), int(zone)), look)
	})
}
