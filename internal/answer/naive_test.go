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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// naiveSource is a Source to which nothing new comes.
type naiveSource struct {
	look    func(addr netip.Addr, port uint16) Verdict
	resolve func(name string, rrtype uint16) (addrs []netip.Addr, known bool)
}

func (s naiveSource) Ask(addr netip.Addr, port uint16) Verdict { return s.look(addr, port) }

func (s naiveSource) Settle() bool { return false }

func (s naiveSource) Resolve(name string, rrtype uint16) ([]netip.Addr, bool) {
	return s.resolve(strings.ToLower(name), rrtype)
}

// naiveQuery is all that Filter is told besides the message.
type naiveQuery struct {
	request *dns.Msg
	zone    Zone
	room    int
	source  naiveSource
}

// naiveSet is an RRset that verdicts may change.
type naiveSet struct {
	owner   string
	rrtype  uint16
	members []*naiveMember // in the order of the message, those of the answer first
	signed  bool
	asked   bool // an address or SRV record of it may leave, or move
	watched bool
	fate    string // empty where nothing happens, else thin, sort, keep, replace or fail
}

func (s *naiveSet) isAddress() bool { return s.rrtype == dns.TypeA || s.rrtype == dns.TypeAAAA }

func (s *naiveSet) isService() bool { return s.rrtype == dns.TypeSRV }

// those returns the members that are dead, or those that are not.
func (s *naiveSet) those(dead bool) (members []*naiveMember) {
	for _, m := range s.members {
		if m.dead == dead {
			members = append(members, m)
		}
	}
	return members
}

// naiveMember is one record of such an RRset.
type naiveMember struct {
	rr       dns.RR
	extra    bool // in the additional section
	set      *naiveSet
	places   []*naivePlace // where it leads to
	open     bool          // and maybe elsewhere
	dead     bool
	relieved bool // dead only by damping, and needed
}

// naivePlace is an address, with the ports of which one is enough. Port 0 stands for those of the policy.
type naivePlace struct {
	addr   netip.Addr
	ports  []uint16
	glue   dns.RR           // the record of the additional section that has it
	hint   dns.SVCBKeyValue // the parameter that has it
	damped bool
	down   bool
}

func naiveKey(owner string, rrtype uint16) string {
	return strings.ToLower(owner) + " " + dns.TypeToString[rrtype]
}

func naiveKeyOf(rr dns.RR) string { return naiveKey(rr.Header().Name, rr.Header().Rrtype) }

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

// naiveService returns an SRV record for TCP.
func naiveService(rr dns.RR) *dns.SRV {
	srv, ok := rr.(*dns.SRV)
	if !ok || srv.Hdr.Class != dns.ClassINET || srv.Port == 0 || srv.Target == "." {
		return nil
	}
	if labels := dns.SplitDomainName(strings.ToLower(srv.Hdr.Name)); len(labels) > 1 {
		switch labels[1] {
		case "_udp", "_sctp", "_dccp", "_udplite", "_quic":
			return nil
		}
	}
	return srv
}

// naiveBinding returns what HTTPS and SVCB records have in common.
func naiveBinding(rr dns.RR) *dns.SVCB {
	switch rr := rr.(type) {
	case *dns.SVCB:
		return rr
	case *dns.HTTPS:
		return &rr.SVCB
	default:
		return nil
	}
}

// naiveTarget returns the name that an HTTPS or SVCB record leads to.
func naiveTarget(svcb *dns.SVCB) string {
	if svcb.Target == "." {
		return svcb.Hdr.Name
	}
	return svcb.Target
}

// naivePorts returns the TCP ports of an HTTPS or SVCB record. An alias has none of its own.
func naivePorts(svcb *dns.SVCB, qname string) []uint16 {
	if svcb.Priority == 0 {
		return nil
	}
	// What the names say, the record's own first.
	scheme, numbers := "", map[string]uint16{}
	if svcb.Hdr.Rrtype == dns.TypeHTTPS {
		scheme = "_https"
	}
	for _, name := range []string{svcb.Hdr.Name, qname} {
		labels := append(dns.SplitDomainName(strings.ToLower(name)), "", "")
		own, n := labels[0], uint64(0)
		if !strings.HasPrefix(own, "_") {
			continue
		}
		if number, err := strconv.ParseUint(own[1:], 10, 16); err == nil {
			own, n = labels[1], number
		}
		if !strings.HasPrefix(own, "_") {
			continue
		}
		if numbers[own] == 0 {
			numbers[own] = uint16(n)
		}
		if scheme == "" {
			scheme = own
		}
	}
	number := numbers[scheme]
	secure := scheme == "_https" || scheme == "_wss"

	// What the parameters say.
	var alpn []string
	defaults, given := true, -1
	for _, kv := range svcb.Value {
		switch kv := kv.(type) {
		case *dns.SVCBAlpn:
			alpn = kv.Alpn
		case *dns.SVCBNoDefaultAlpn:
			defaults = false
		case *dns.SVCBPort:
			given = int(kv.Port)
		}
	}
	isQUIC := func(id string) bool { return id == "h3" || id == "doq" || strings.HasPrefix(id, "h3-") }
	if len(alpn) > 0 && !slices.ContainsFunc(alpn, func(id string) bool { return !isQUIC(id) }) && !(secure && defaults) {
		return nil
	}

	port := number
	switch {
	case given >= 0:
		port = uint16(given)
	case secure && number == 0:
		port = 443
	case (scheme == "_http" || scheme == "_ws") && number == 0:
		port = 80
	case scheme == "_dns" || scheme == "":
		var ports []uint16
		if slices.Contains(alpn, "dot") {
			ports = append(ports, 853)
		}
		if slices.Contains(alpn, "h2") || slices.Contains(alpn, "http/1.1") {
			ports = append(ports, 443)
		}
		return ports
	}
	if port == 0 {
		return nil
	}
	return []uint16{port}
}

// naiveHint returns the addresses of a hint, and whether it may become empty. There are none where one is malformed.
func naiveHint(svcb *dns.SVCB, kv dns.SVCBKeyValue) (addrs []netip.Addr, mayGo bool) {
	var ips []net.IP
	switch kv := kv.(type) {
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
		if kv.Key() == dns.SVCB_IPV4HINT {
			addr = addr.Unmap()
		}
		addrs = append(addrs, addr)
	}
	for _, other := range svcb.Value {
		if m, ok := other.(*dns.SVCBMandatory); ok && slices.Contains(m.Code, kv.Key()) {
			return addrs, false
		}
	}
	return addrs, true
}

// naiveRules counts how often each rule made a difference, so that a test can tell which were tried.
type naiveRules map[string]int

func (r naiveRules) note(rule string, applies bool) bool {
	if applies && r != nil {
		r[rule]++
	}
	return applies
}

// naiveFilter is the manual once more, written for clarity: on a copy of the message, set by set, with maps and strings.
func naiveFilter(original *dns.Msg, q naiveQuery, rules naiveRules) (*dns.Msg, Result) {
	n := &naive{naiveQuery: q, rules: rules, p: q.zone.Policy, m: original.Copy()}
	n.dissect()
	n.result.Addresses = n.places
	if n.questions > 4096 {
		return original, Result{Addresses: 4097} // or whatever, since nobody counts all of them
	}
	n.ask()
	n.relieve()
	n.tellFates()
	n.findOrder()
	n.findGone()
	n.thinHints()
	n.thinGlue()
	if !n.changed && !n.hasLongTTL() {
		return original, n.result
	}
	n.rules.note("TTL alone", !n.changed)
	n.assemble(original)
	return n.m, n.result
}

// naive is the work on one message.
type naive struct {
	naiveQuery
	rules  naiveRules
	p      *Policy
	m      *dns.Msg
	result Result

	glue        map[string][]dns.RR // the additional section's addresses by owner and type
	sets        map[string]*naiveSet
	inOrder     []*naiveSet
	memberOf    map[dns.RR]*naiveMember
	places      int
	questions   int             // to the source
	signedGlue  map[string]bool // by owner and type
	watchedGlue map[string]bool
	changed     bool
	order       map[*naiveSet][]dns.RR         // the RRset's records in their new order
	gone        map[string]map[netip.Addr]bool // addresses that leave an RRset of the answer
	extraHints  int                            // that leave the additional section
	leaving     map[dns.RR]bool                // glue
}

func (n *naive) qname() string {
	if len(n.m.Question) == 0 {
		return ""
	}
	return n.m.Question[0].Name
}

// dissect finds the RRsets, and where their records lead to.
func (n *naive) dissect() {
	n.glue = map[string][]dns.RR{}
	n.sets, n.memberOf = map[string]*naiveSet{}, map[dns.RR]*naiveMember{}
	n.signedGlue, n.watchedGlue = map[string]bool{}, map[string]bool{}
	for _, rr := range n.m.Answer {
		_, isAddress := naiveIP(rr)
		svcb := naiveBinding(rr)
		if isAddress || naiveService(rr) != nil || svcb != nil && svcb.Hdr.Class == dns.ClassINET {
			n.addMember(rr, false)
		}
	}
	for _, rr := range n.m.Extra {
		if _, isAddress := naiveIP(rr); isAddress {
			n.glue[naiveKeyOf(rr)] = append(n.glue[naiveKeyOf(rr)], rr)
		}
		if svcb := naiveBinding(rr); svcb != nil && svcb.Hdr.Class == dns.ClassINET {
			n.addMember(rr, true)
		}
	}
	for i, section := range [][]dns.RR{n.m.Answer, n.m.Extra} {
		for _, rr := range section {
			sig, ok := rr.(*dns.RRSIG)
			if !ok {
				continue
			}
			key := naiveKey(sig.Hdr.Name, sig.TypeCovered)
			if n.glue[key] != nil && i == 1 {
				n.signedGlue[key] = true
			}
			if s := n.sets[key]; s.standsIn(i == 1) {
				s.signed = true
			}
		}
	}
	for _, s := range n.inOrder {
		for _, m := range s.members {
			switch {
			case s.isAddress():
				addr, _ := naiveIP(m.rr)
				m.places = []*naivePlace{{addr: addr, ports: []uint16{0}}}
			case s.isService():
				n.findTarget(m)
			default:
				n.findBinding(m)
			}
			n.places += len(m.places)
			for _, place := range m.places {
				n.questions += len(place.ports)
			}
		}
	}
}

func (n *naive) addMember(rr dns.RR, extra bool) {
	key := naiveKeyOf(rr)
	s := n.sets[key]
	if s == nil {
		s = &naiveSet{owner: rr.Header().Name, rrtype: rr.Header().Rrtype}
		n.sets[key], n.inOrder = s, append(n.inOrder, s)
	}
	m := &naiveMember{rr: rr, extra: extra, set: s}
	s.members, n.memberOf[rr] = append(s.members, m), m
}

// standsIn tells whether the RRset is in the answer, or in the additional section.
func (s *naiveSet) standsIn(extra bool) bool {
	return s != nil && slices.ContainsFunc(s.members, func(m *naiveMember) bool { return m.extra == extra })
}

// keepsAll tells whether the fallback leaves the RRset as it is.
func (n *naive) keepsAll(s *naiveSet) bool {
	return n.p.Fallback.Kind == FallbackAll || s.isService() && n.p.Fallback.Kind == FallbackAddresses
}

// findTarget finds the places of an SRV record.
func (n *naive) findTarget(m *naiveMember) {
	srv := naiveService(m.rr)
	a, aaaa := n.glue[naiveKey(srv.Target, dns.TypeA)], n.glue[naiveKey(srv.Target, dns.TypeAAAA)]
	for _, g := range slices.Concat(a, aaaa) {
		addr, _ := naiveIP(g)
		m.places = append(m.places, &naivePlace{addr: addr, ports: []uint16{srv.Port}, glue: g})
	}
	if len(m.set.members) == 1 && n.keepsAll(m.set) && len(m.places) == 0 {
		n.rules.note("SRV record that is alone and stays", true)
		return
	}
	for rrtype, given := range map[uint16][]dns.RR{dns.TypeA: a, dns.TypeAAAA: aaaa} {
		if len(given) > 0 {
			continue
		}
		n.questions++
		addrs, known := n.source.Resolve(srv.Target, rrtype)
		m.open = m.open || !known
		for _, addr := range addrs {
			m.places = append(m.places, &naivePlace{addr: addr, ports: []uint16{srv.Port}})
		}
	}
}

// findBinding finds the places of an HTTPS or SVCB record.
func (n *naive) findBinding(m *naiveMember) {
	svcb := naiveBinding(m.rr)
	ports := naivePorts(svcb, n.qname())
	if len(ports) == 0 {
		return
	}
	n.rules.note("two ports", len(ports) == 2)
	for _, kv := range svcb.Value {
		addrs, mayGo := naiveHint(svcb, kv)
		same := !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a != addrs[0] })
		if same && !mayGo {
			continue
		}
		for _, addr := range addrs {
			m.places = append(m.places, &naivePlace{addr: addr, ports: ports, hint: kv})
		}
	}
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, g := range n.glue[naiveKey(naiveTarget(svcb), rrtype)] {
			addr, _ := naiveIP(g)
			m.places = append(m.places, &naivePlace{addr: addr, ports: ports, glue: g})
		}
	}
}

// ask tells which places are down, which members are dead, and what is watched.
func (n *naive) ask() {
	for _, s := range n.inOrder {
		different := map[string]bool{}
		for _, m := range s.members {
			for _, place := range m.places {
				different[fmt.Sprint(place.addr, place.ports)] = true
			}
			if len(m.places) == 0 {
				different["nowhere"] = true
			}
		}
		// With a single place, nothing that could be known of it would change an answer that keeps all.
		s.asked = (s.isAddress() || s.isService()) && (len(different) > 1 || !n.keepsAll(s))
		for _, m := range s.members {
			living := 0
			for _, place := range m.places {
				binding := !s.isAddress() && !s.isService()
				if !s.asked && !binding || place.hint != nil && s.signed {
					living++
					continue
				}
				v := n.verdict(place)
				place.down, place.damped = v.State == Down, v.Damped
				if !place.down {
					living++
				}
				if v.State != Unwatched {
					s.watched = s.watched || !binding || place.hint != nil
					if place.glue != nil {
						n.watchedGlue[naiveKeyOf(place.glue)] = true
					}
				}
			}
			m.dead = s.asked && living == 0 && len(m.places) > 0 && !m.open
			n.rules.note("SRV record saved by what is not known", s.isService() && s.asked && living == 0 && len(m.places) > 0 && m.open)
			if s.isService() && s.asked {
				m.noteTarget(n.rules)
			}
		}
	}
}

// noteTarget notes what became of an SRV record by addresses that the message lacks.
func (m *naiveMember) noteTarget(rules naiveRules) {
	glue, livingGlue, others, livingOthers := 0, 0, 0, 0
	for _, place := range m.places {
		living := 0
		if !place.down {
			living = 1
		}
		if place.glue != nil {
			glue, livingGlue = glue+1, livingGlue+living
		} else {
			others, livingOthers = others+1, livingOthers+living
		}
	}
	rules.note("SRV record saved by an address that the message lacks", glue > 0 && livingGlue == 0 && livingOthers > 0)
	rules.note("SRV record dead without glue", m.dead && glue == 0)
	rules.note("SRV record dead with glue of one family", m.dead && glue > 0 && others > 0)
}

func (n *naive) verdict(place *naivePlace) Verdict {
	var all []Verdict
	count := map[State]int{}
	damped := false
	for _, port := range place.ports {
		v := n.source.Ask(place.addr, port)
		all = append(all, v)
		count[v.State]++
		damped = damped || v.Damped
	}
	switch {
	case len(all) == 1:
		return all[0]
	case count[Unwatched] > 0:
		return Verdict{}
	case count[Down] == len(all):
		return Verdict{State: Down, Damped: damped}
	case n.rules.note("one port of two is enough", count[Down] > 0 && count[Up] > 0), count[Up] > 0:
		return Verdict{State: Up}
	default:
		return Verdict{State: Unknown}
	}
}

// hasTooFew tells whether the fallback applies.
func (n *naive) hasTooFew(s *naiveSet) bool {
	priorities := map[uint16][]*naiveMember{}
	for _, m := range s.members {
		priority := uint16(0)
		if s.isService() {
			priority = naiveService(m.rr).Priority
		}
		priorities[priority] = append(priorities[priority], m)
	}
	isEnough := func(members []*naiveMember) bool {
		dead := 0
		for _, m := range members {
			if m.dead {
				dead++
			}
		}
		living := len(members) - dead
		return dead == 0 || living > 0 && 100*living >= n.p.Panic*len(members)
	}
	for _, members := range priorities {
		if isEnough(members) {
			n.rules.note("one priority of SRV records is enough", !isEnough(s.members))
			return false
		}
	}
	return true
}

// relieve takes the damped for living where there are too few.
func (n *naive) relieve() {
	for _, s := range n.inOrder {
		if !n.hasTooFew(s) {
			continue
		}
		for _, m := range s.those(true) {
			for _, place := range m.places {
				if place.damped && place.down {
					place.down, m.dead, m.relieved = false, false, true
				}
			}
		}
	}
}

// tellFates tells what happens to each set.
func (n *naive) tellFates() {
	for _, s := range n.inOrder {
		dead, living := len(s.those(true)), len(s.those(false))
		fallback, falls := n.p.Fallback.Kind, n.hasTooFew(s)
		switch {
		case dead == 0:
			continue
		case falls && fallback == FallbackServFail:
			s.fate = "fail"
			n.result.Removed += dead + living
		case s.signed && living > 0:
			s.fate = "sort"
		case falls && !s.signed && !n.keepsAll(s):
			s.fate = "replace"
			n.result.Removed += dead + living
		case falls:
			s.fate = "keep"
		default:
			s.fate = "thin"
			n.result.Removed += dead
		}
		n.changed = true
		switch s.fate {
		case "sort":
			n.result.Outcome = max(n.result.Outcome, Reordered)
		case "thin":
			n.result.Outcome = max(n.result.Outcome, Filtered)
		default:
			n.result.Outcome = Substituted
		}
	}
}

// reason returns the words for the last RRset that fell.
func (n *naive) reason() (reason string) {
	for _, s := range n.inOrder {
		if s.fate == "fail" || s.fate == "replace" || s.fate == "keep" {
			things := map[bool]string{true: "targets", false: "addresses"}[s.isService()]
			reason = fmt.Sprintf("shaker: %d of %d %s of %s are down", len(s.those(true)), len(s.members), things, s.owner)
		}
	}
	return reason
}

// findOrder has the nearest first, and what is dead last.
func (n *naive) findOrder() {
	n.order = map[*naiveSet][]dns.RR{}
	for _, s := range n.inOrder {
		sorts := s.isAddress() && s.asked && n.p.SortRTT
		if !sorts && s.fate != "sort" {
			continue
		}
		distance := func(m *naiveMember) int64 {
			if v := n.verdict(m.places[0]); sorts && v.RTT > 0 && !m.relieved {
				return v.RTT.Milliseconds()
			}
			return 1 << 40
		}
		before, after := s.members, s.those(false)
		if sorts {
			slices.SortStableFunc(after, func(a, b *naiveMember) int { return cmp.Compare(distance(a), distance(b)) })
		}
		if s.fate == "thin" {
			before = s.those(false)
		} else {
			after = append(after, s.those(true)...)
		}
		if !slices.Equal(before, after) {
			n.changed = true
			if s.fate == "" {
				n.result.Outcome = max(n.result.Outcome, Reordered)
			}
		}
		for _, m := range after {
			n.order[s] = append(n.order[s], m.rr)
		}
	}
}

// findGone finds the addresses that are in the old answer section and not in the new one.
func (n *naive) findGone() {
	n.gone = map[string]map[netip.Addr]bool{}
	for key, s := range n.sets {
		if !s.isAddress() {
			continue
		}
		n.gone[key] = map[netip.Addr]bool{}
		for _, m := range s.members {
			addr := m.places[0].addr
			if s.fate == "fail" || s.fate == "thin" && m.dead || s.fate == "replace" && !slices.Contains(n.p.Fallback.Addresses, addr) {
				n.gone[key][addr] = true
			}
		}
	}
}

// thinHints has the hints leave that nobody should use.
func (n *naive) thinHints() {
	for _, s := range n.inOrder {
		if s.isAddress() || s.isService() || s.signed {
			continue
		}
		for _, m := range s.members {
			n.thinHintsOf(m)
		}
	}
}

func (n *naive) thinHintsOf(m *naiveMember) {
	svcb := naiveBinding(m.rr)
	isGone := func(addr netip.Addr) bool {
		target := naiveTarget(svcb)
		return n.gone[naiveKey(target, dns.TypeA)][addr] || n.gone[naiveKey(target, dns.TypeAAAA)][addr]
	}
	var values []dns.SVCBKeyValue
	for _, kv := range svcb.Value {
		var left []net.IP
		all := 0
		for _, place := range m.places {
			if place.hint != kv {
				continue
			}
			all++
			if !place.down && !n.rules.note("hint that has left the answer section", isGone(place.addr)) {
				left = append(left, place.addr.AsSlice())
			}
		}
		_, mayGo := naiveHint(svcb, kv)
		mandatory := n.rules.note("mandatory hint", all > 0 && len(left) == 0 && !mayGo)
		if len(left) == all || mandatory {
			values = append(values, kv)
			continue
		}
		n.changed = true
		if m.extra {
			n.extraHints += all - len(left)
		} else {
			n.result.Removed += all - len(left)
			n.result.Outcome = max(n.result.Outcome, Filtered)
		}
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

// thinGlue has the additional addresses leave that nobody should use.
func (n *naive) thinGlue() {
	n.leaving = map[dns.RR]bool{}
	others := n.pointers()
	for key, records := range n.glue {
		for _, g := range records {
			addr, _ := naiveIP(g)
			twin := n.gone[key][addr]
			unused := n.isUnused(g)
			if n.rules.note("signed glue", (twin || unused) && n.signedGlue[key]) {
				continue
			}
			needed := others[strings.ToLower(g.Header().Name)]
			n.rules.note("glue that others need", unused && needed)
			n.rules.note("glue that others need has left the answer section", twin && needed)
			if twin || unused && !needed {
				n.leaving[g], n.changed = true, true
				n.rules.note("twin leaves", twin && !unused)
			}
		}
	}
}

// pointers returns the owners of addresses that records need which are not checked.
func (n *naive) pointers() map[string]bool {
	others := map[string]bool{}
	for i, section := range [][]dns.RR{n.m.Answer, n.m.Ns, n.m.Extra} {
		for _, rr := range section {
			name := ""
			switch rr := rr.(type) {
			case *dns.NS:
				name = rr.Ns
			case *dns.MX:
				name = rr.Mx
			case *dns.SRV:
				if naiveService(rr) == nil || i > 0 {
					name = rr.Target
				}
			case *dns.SVCB, *dns.HTTPS:
				svcb := naiveBinding(rr)
				if svcb.Priority > 0 && (n.memberOf[rr] == nil || len(naivePorts(svcb, n.qname())) == 0) {
					name = naiveTarget(svcb)
				}
			}
			others[strings.ToLower(name)] = true
		}
	}
	return others
}

// isUnused tells whether records lead to an additional address, and none of those that remain can use it.
func (n *naive) isUnused(g dns.RR) bool {
	pointed := ""
	for _, s := range n.inOrder {
		for _, m := range s.members {
			for _, place := range m.places {
				if place.glue != g {
					continue
				}
				pointed += dns.TypeToString[s.rrtype] + " "
				remains := s.fate != "fail" && s.fate != "replace" && !(s.fate == "thin" && m.dead)
				if remains && (s.fate == "keep" || m.dead || !place.down) {
					return false
				}
			}
		}
	}
	n.rules.note("glue of SRV unused", strings.Contains(pointed, "SRV"))
	n.rules.note("glue of HTTPS unused", strings.Contains(pointed, "HTTPS"))
	n.rules.note("glue of SVCB unused", strings.Contains(pointed, "SVCB"))
	return pointed != ""
}

// isWatched tells whether the TTL of an RRset in a section is capped.
func (n *naive) isWatched(owner string, rrtype uint16, extra bool) bool {
	key := naiveKey(owner, rrtype)
	s := n.sets[key]
	watched := s != nil && s.watched
	if extra && n.glue[key] != nil {
		n.rules.note("TTL of glue by its twin", watched && !n.watchedGlue[key])
		return watched || n.watchedGlue[key]
	}
	return watched && s.standsIn(extra)
}

func (n *naive) hasLongTTL() bool {
	for i, section := range [][]dns.RR{n.m.Answer, n.m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			isGlue := i == 1 && slices.Contains(n.glue[naiveKeyOf(rr)], rr)
			if h.Ttl > n.p.TTL && (isGlue || n.memberOf[rr] != nil) && n.isWatched(h.Name, h.Rrtype, i == 1) {
				return true
			}
		}
	}
	return false
}

// capped returns rr with a shorter TTL, if it is of what is watched.
func (n *naive) capped(rr dns.RR, extra bool) dns.RR {
	h := rr.Header()
	watched := false
	switch sig, isSignature := rr.(*dns.RRSIG); {
	case isSignature:
		watched = n.isWatched(h.Name, sig.TypeCovered, extra)
		n.rules.note("TTL of a signature", watched)
	case n.memberOf[rr] != nil, extra && slices.Contains(n.glue[naiveKeyOf(rr)], rr):
		watched = n.isWatched(h.Name, h.Rrtype, extra)
		n.rules.note("TTL in the additional section", watched && extra && h.Ttl > n.p.TTL)
	}
	if watched {
		rr = dns.Copy(rr)
		rr.Header().Ttl = min(h.Ttl, n.p.TTL)
	}
	return rr
}

// assemble puts the message together.
func (n *naive) assemble(original *dns.Msg) {
	n.rules.note("truncated answer changes", n.m.Truncated)
	reason := n.reason()
	answer, isEmpty := n.answerSection()
	n.m.Answer = answer
	n.m.AuthenticatedData = n.m.AuthenticatedData && n.result.Removed == 0
	opt := n.m.IsEdns0()
	if isEmpty {
		n.empty(original)
	} else {
		var extra []dns.RR
		for _, rr := range n.m.Extra {
			if !n.leaving[rr] {
				extra = append(extra, n.capped(rr, true))
			}
		}
		n.m.Extra = extra
		n.rules.note("hint leaves the additional section", n.extraHints > 0)
		if removed := len(n.leaving) + n.extraHints; removed > 0 {
			n.result.Removed += removed
			n.result.Outcome = max(n.result.Outcome, Filtered)
		}
	}
	if reason != "" && n.request.IsEdns0() != nil {
		n.explain(opt, reason)
	}
}

// answerSection returns the new one, and whether it has become empty.
func (n *naive) answerSection() (answer []dns.RR, isEmpty bool) {
	fell := false
	isEmpty = true
	replaced := map[*naiveSet]bool{}
	for _, rr := range n.m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if s := n.sets[naiveKey(sig.Hdr.Name, sig.TypeCovered)]; s == nil || s.fate != "fail" {
				answer = append(answer, n.capped(rr, false))
			}
			continue
		}
		m := n.memberOf[rr]
		if m == nil {
			answer = append(answer, rr)
			if rrtype := rr.Header().Rrtype; rrtype != dns.TypeCNAME && rrtype != dns.TypeDNAME {
				isEmpty = false
			}
			continue
		}
		s := m.set
		switch {
		case s.fate == "replace":
			fell = true
			if made := n.fallback(rr.Header()); !replaced[s] && len(made) > 0 {
				answer, isEmpty = append(answer, made...), false
			}
			replaced[s] = true
			continue
		case s.fate == "fail":
			fell = true
			continue
		case s.fate == "thin" && m.dead:
			continue
		case n.order[s] != nil:
			rr, n.order[s] = n.order[s][0], n.order[s][1:]
		}
		answer, isEmpty = append(answer, n.capped(rr, false)), false
	}
	n.rules.note("nothing but aliases, and nothing fell", isEmpty && !fell)
	return answer, isEmpty && fell
}

// fallback returns the records for the fallback's addresses.
func (n *naive) fallback(h *dns.RR_Header) (records []dns.RR) {
	for _, addr := range n.p.Fallback.Addresses {
		if addr.Is4() != (h.Rrtype == dns.TypeA) {
			continue
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", h.Name, min(h.Ttl, n.p.TTL), dns.TypeToString[h.Rrtype], addr))
		if err != nil {
			panic(err)
		}
		records = append(records, rr)
	}
	return records
}

// empty makes NODATA or SERVFAIL of the message.
func (n *naive) empty(original *dns.Msg) {
	owner := ""
	fails := false
	for _, s := range n.inOrder {
		fails = fails || s.fate == "fail"
		if s.standsIn(false) {
			owner = s.owner
		}
	}
	opt := n.m.IsEdns0()
	if n.m.Extra = nil; opt != nil {
		n.m.Extra = []dns.RR{opt}
	}
	if fails {
		n.m.Rcode, n.m.Authoritative, n.m.Answer, n.m.Ns = dns.RcodeServerFailure, false, nil, nil
	} else {
		n.m.Ns = []dns.RR{naiveSOA(original, n.zone, owner)}
	}
}

// explain adds an Extended DNS Error, as far as there is room.
func (n *naive) explain(opt *dns.OPT, reason string) {
	without := n.m.Extra
	for _, text := range []string{reason, ""} {
		with := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		if opt != nil {
			with = dns.Copy(opt).(*dns.OPT)
		}
		with.Option = append(with.Option, &dns.EDNS0_EDE{ExtraText: text})
		n.m.Extra = nil
		for _, rr := range without {
			if rr != dns.RR(opt) {
				n.m.Extra = append(n.m.Extra, rr)
			} else {
				n.m.Extra = append(n.m.Extra, with)
			}
		}
		if opt == nil {
			n.m.Extra = append(n.m.Extra, with)
		}
		if compressed := n.m.Copy(); true {
			compressed.Compress = true
			if compressed.Len() <= n.room {
				n.rules.note("explained without words", text == "")
				n.rules.note("explained", text != "")
				return
			}
		}
	}
	n.rules.note("no room to explain", true)
	n.m.Extra = without
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
func naiveCompare(t *testing.T, m *dns.Msg, q naiveQuery, rules naiveRules) Result {
	t.Helper()
	before := filterTake(m)
	got, result := Filter(m, &Query{Request: q.request, Client: room(q.room), Zone: q.zone}, q.source)
	want, wantResult := naiveFilter(m, q, rules)
	before.expectUnchanged(t)
	if (got == m) != (want == m) {
		t.Errorf("the very message: %v, want %v", got == m, want == m)
	}
	if wantResult.Addresses > maxPairs {
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
	if t.Failed() {
		t.Logf("input\n%v\nrequest\n%v\nroom %d\nzone %s policy %+v\nverdicts %s", m, q.request, q.room, q.zone.Name, q.zone.Policy, naiveAsked(m, q))
	}
	return result
}

// naiveInvariants checks what the two filters could agree on and both be wrong.
func naiveInvariants(t *testing.T, m, got *dns.Msg, q naiveQuery) {
	t.Helper()
	kind := q.zone.Fallback.Kind
	// Records by RRset, without their TTL, which may change, and without hints, which may go.
	read := func(section []dns.RR) (sets map[string][]string, ttls map[string]uint32, number int) {
		sets, ttls = make(map[string][]string), make(map[string]uint32)
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
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
	answerBefore, answerTTLs, numberBefore := read(m.Answer)
	answerAfter, newAnswerTTLs, numberAfter := read(got.Answer)
	extraBefore, extraTTLs, _ := read(m.Extra)
	extraAfter, newExtraTTLs, _ := read(got.Extra)
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

// naiveAsked returns what is known of what is in m.
func naiveAsked(m *dns.Msg, q naiveQuery) string {
	var b strings.Builder
	source := naiveSource{
		func(addr netip.Addr, port uint16) Verdict {
			v := q.source.look(addr, port)
			fmt.Fprintln(&b, netip.AddrPortFrom(addr, port), v)
			return v
		},
		func(name string, rrtype uint16) ([]netip.Addr, bool) {
			addrs, known := q.source.resolve(name, rrtype)
			fmt.Fprintln(&b, name, dns.TypeToString[rrtype], addrs, known)
			return addrs, known
		},
	}
	Filter(m, &Query{Request: q.request, Client: room(0), Zone: q.zone}, source)
	return b.String()
}

func TestFilterAgainstNaive(t *testing.T) {
	messages := 30_000
	if lab.RaceEnabled || testing.Short() {
		messages = 5000
	}
	var outcomeCount [Outcomes]int
	rules := make(naiveRules)
	for seed := range messages {
		r := rand.New(rand.NewPCG(uint64(seed), 0))
		m, q := naiveMessage(r)
		result := naiveCompare(t, m, q, rules)
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
	rules.expectAll(t, messages)
}

// naiveRuleNames are what naiveFilter notes.
var naiveRuleNames = []string{
	"truncated answer changes",
	"two ports",
	"one port of two is enough",
	"SRV record that is alone and stays",
	"SRV record saved by what is not known",
	"SRV record saved by an address that the message lacks",
	"SRV record dead without glue",
	"SRV record dead with glue of one family",
	"glue of SRV unused",
	"glue of HTTPS unused",
	"glue of SVCB unused",
	"glue that others need",
	"signed glue",
	"twin leaves",
	"glue that others need has left the answer section",
	"hint that has left the answer section",
	"hint leaves the additional section",
	"mandatory hint",
	"TTL alone",
	"TTL of a signature",
	"TTL in the additional section",
	"TTL of glue by its twin",
	"one priority of SRV records is enough",
	"nothing but aliases, and nothing fell",
	"explained",
	"explained without words",
	"no room to explain",
}

// expectAll checks that every rule was tried.
func (r naiveRules) expectAll(t *testing.T, messages int) {
	t.Helper()
	for _, rule := range naiveRuleNames {
		t.Logf("%d times %s", r[rule], rule)
		if r[rule] < messages/1000 {
			t.Errorf("only %d times in %d messages: %s", r[rule], messages, rule)
		}
	}
	for rule := range r {
		if !slices.Contains(naiveRuleNames, rule) {
			t.Errorf("nobody expects %s", rule)
		}
	}
}

// FuzzFilter filters any message that parses, with verdicts that depend on the address, the port and the input.
func FuzzFilter(f *testing.F) {
	for seed := range 128 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		m, q := naiveMessage(r)
		m.Compress = seed%2 == 0
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed, uint64(seed), uint16(r.IntN(16)), uint16(r.IntN(12)), uint16(r.IntN(60)), uint16(r.IntN(3)), uint16(q.room), seed%3 == 0)
	}
	f.Fuzz(func(t *testing.T, packed []byte, salt uint64, kind, panics, ttl, zone, size uint16, edns bool) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			t.Skip()
		}
		request := new(dns.Msg)
		request.SetQuestion("a.example.org.", dns.TypeA)
		if edns {
			request.SetEdns0(1232, false)
		}
		hash := func(of ...any) uint32 {
			h := fnv.New32a()
			fmt.Fprint(h, append(of, salt)...)
			return h.Sum32()
		}
		source := naiveSource{
			func(addr netip.Addr, port uint16) Verdict {
				n := hash(addr, port)
				if n%8 == 7 {
					return Verdict{}
				}
				state := []State{Down, Down, Down, Down, Up, Up, Unknown}[n%8]
				return Verdict{State: state, Damped: state == Down && n/32%4 == 0, RTT: time.Duration(n/8%4) * time.Millisecond}
			},
			func(name string, rrtype uint16) (addrs []netip.Addr, known bool) {
				n := hash(name, rrtype)
				return naiveAddresses(rrtype, int(n%3), func(i int) int { return int(n>>(4*i)) % 6 }), n/16%4 != 0
			},
		}
		naiveCompare(t, m, naiveQuery{request, naivePolicy(int(kind), int(panics), int(ttl), int(zone)), int(size), source}, nil)
	})
}
