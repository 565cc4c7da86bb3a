package answer

import (
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
	standby func(name string, rrtype uint16) (addrs []netip.Addr, ttl uint32)
}

func (s naiveSource) Ask(addr netip.Addr, port uint16) Verdict { return s.look(addr, port) }

func (s naiveSource) Settle() bool { return false }

func (s naiveSource) Standby(name string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
	return s.standby(name, rrtype)
}

func (s naiveSource) Resolve(name string, rrtype uint16) ([]netip.Addr, bool) {
	return s.resolve(strings.ToLower(name), rrtype)
}

// naiveQuery is all that Filter is told besides the message.
type naiveQuery struct {
	request *dns.Msg
	zone    Zone
	client  naiveClient
	drawn   func(netip.Addr) float64
	signer  Signer
	source  naiveSource
}

// query returns what Filter is told.
func (q naiveQuery) query() *Query {
	return &Query{Request: q.request, Client: q.client, Zone: q.zone, Signer: q.signer, Draw: q.drawn}
}

// naiveClient is a Client.
type naiveClient struct {
	room int
	addr netip.Addr
}

func (c naiveClient) Room() int { return c.room }

func (c naiveClient) Addr() netip.Addr { return c.addr }

// naiveSet is an RRset that verdicts may change.
type naiveSet struct {
	owner   string
	rrtype  uint16
	members []*naiveMember // in the order of the message, those of the answer first
	signed  bool
	asked   bool // an address or SRV record of it may leave, or move
	watched bool
	fate    string         // empty where nothing happens, else thin, sort, keep, replace or fail
	order   []*naiveMember // those that remain, where there is a choice of their order

	substitutes   []netip.Addr // where the fate is replace
	substituteTTL uint32       // at most
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
	rr      dns.RR
	extra   bool // in the additional section
	set     *naiveSet
	places  []*naivePlace // where it leads to
	open    bool          // and maybe elsewhere
	dead    bool
	tier    int
	benched bool   // its tier is not the one that is served
	leaves  string // empty where it does not, else down, benched or unpicked
}

// remains tells whether the record is in the new message.
func (m *naiveMember) remains() bool {
	return m.set.fate != "fail" && m.set.fate != "replace" && m.leaves == ""
}

// naivePlace is an address, with the ports of which one is enough. Port 0 stands for those of the policy.
type naivePlace struct {
	addr    netip.Addr
	ports   []uint16
	glue    dns.RR           // the record of the additional section that has it
	hint    dns.SVCBKeyValue // the parameter that has it
	verdict Verdict          // none where nobody asked for it
	damped  bool
	down    bool
	leaves  bool // the hint
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
	if n.questions > n.mostQuestions() {
		return original, Result{Addresses: 4097} // or whatever, since nobody counts all of them
	}
	n.ask()
	n.relieve()
	n.tellFates()
	n.findOrder()
	n.findGone()
	n.thinHints()
	n.thinGlue()
	n.selectGlue()
	n.findCaps()
	if !n.changed && !n.hasLongTTL() {
		return original, n.result
	}
	n.rules.note("TTL alone", !n.changed)
	n.assemble(original)
	if n.declined {
		q.signer = nil
		return naiveFilter(original, q, rules)
	}
	return n.m, n.result
}

// mostQuestions is half as many where addresses are selected.
func (n *naive) mostQuestions() int {
	if n.p.Pick > 0 || n.p.Sort != Unsorted || n.p.Tiers.Len() > 0 {
		return 2048
	}
	return 4096
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
	left        bool                             // an address or hint has left the answer section
	touched     map[bool]map[string]bool         // RRsets that lose or change addresses, by whether in the additional section
	declined    bool                             // the signer has not signed
	gone        map[string]map[netip.Addr]string // addresses that leave an RRset of the answer, and why: down or selected
	extraHints  map[string]int                   // that leave the additional section, by why
	leaving     map[dns.RR]string                // glue, and why
	caps        map[string]uint32                // of the TTL, by owner and type
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
	n.touched = map[bool]map[string]bool{}
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

// isFixed tells whether nothing may leave the RRset, since nobody would sign what is left.
func (n *naive) isFixed(s *naiveSet) bool { return s.signed && n.signer == nil }

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
		// With a single place, nothing that could be known of it would change SRV records that all stay.
		s.asked = s.isAddress() || s.isService() && (len(different) > 1 || !n.keepsAll(s))
		for _, m := range s.members {
			living := 0
			for _, place := range m.places {
				binding := !s.isAddress() && !s.isService()
				if !s.asked && !binding || place.hint != nil && n.isFixed(s) {
					living++
					continue
				}
				v := n.verdict(place)
				place.verdict, place.down, place.damped = v, v.State == Down, v.Damped
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
	var within []time.Duration
	for _, port := range place.ports {
		v := n.source.Ask(place.addr, port)
		all = append(all, v)
		count[v.State]++
		damped = damped || v.Damped
		if v.State == Unknown && v.Within > 0 {
			within = append(within, v.Within)
		}
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
	case n.rules.note("a verdict within a time on one of two ports", len(within) > 0):
		return Verdict{State: Unknown, Within: slices.Min(within)}
	default:
		return Verdict{State: Unknown}
	}
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
					place.down, m.dead = false, false
				}
			}
		}
	}
}

// tellFates tells what happens to each set.
func (n *naive) tellFates() {
	for _, s := range n.inOrder {
		n.bench(s)
		if n.hasTooFew(s) {
			s.fate = n.fateOfFallen(s)
		} else {
			s.fate = n.fateOfServed(s)
		}
		key := naiveKey(s.owner, s.rrtype)
		switch s.fate {
		case "thin":
			n.left = true
			n.touch(false, key)
		case "keep":
			n.changed = true
			n.result.Outcome = Substituted
		case "replace", "fail":
			n.left = true
			n.touch(false, key)
			n.result.Removed += len(s.members)
			n.result.Outcome = Substituted
		}
	}
}

// fateOfServed tells what happens to an RRset that has enough.
func (n *naive) fateOfServed(s *naiveSet) string {
	dead, benched := 0, 0
	for _, m := range s.members {
		switch {
		case m.dead:
			dead++
		case m.benched:
			benched++
		}
	}
	switch {
	case dead+benched == 0:
		return ""
	case n.isFixed(s):
		return "sort"
	}
	for _, m := range s.members {
		switch {
		case m.dead:
			m.leaves = "down"
		case m.benched:
			m.leaves = "benched"
		}
	}
	n.result.Removed += dead
	n.result.Outcome = max(n.result.Outcome, Selected)
	if dead > 0 {
		n.result.Outcome = max(n.result.Outcome, Filtered)
	}
	return "thin"
}

// fateOfFallen tells what happens to an RRset that has too few.
func (n *naive) fateOfFallen(s *naiveSet) string {
	fails := n.p.Fallback.Kind == FallbackServFail
	switch {
	case n.isFixed(s) && fails:
		return "fail"
	case n.isFixed(s) && len(s.those(false)) > 0:
		return "sort"
	case n.isFixed(s):
		return "keep"
	case n.findSubstitutes(s):
		return "replace"
	case fails:
		return "fail"
	default:
		return "keep"
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

// findGone finds the addresses that are in the old answer section and not in the new one.
func (n *naive) findGone() {
	n.gone = map[string]map[netip.Addr]string{}
	for key, s := range n.sets {
		if !s.isAddress() {
			continue
		}
		stay := map[netip.Addr]bool{}
		for _, addr := range s.substitutes {
			stay[addr] = true
		}
		for _, m := range s.members {
			stay[m.places[0].addr] = stay[m.places[0].addr] || m.remains()
		}
		n.gone[key] = map[netip.Addr]string{}
		for _, m := range s.members {
			switch addr := m.places[0].addr; {
			case stay[addr]:
			case m.leaves == "benched" || m.leaves == "unpicked":
				n.gone[key][addr] = "selected"
			default:
				n.gone[key][addr] = "down"
			}
		}
	}
}

// thinHints has the hints leave that nobody should use.
func (n *naive) thinHints() {
	n.extraHints = map[string]int{}
	for _, s := range n.inOrder {
		if s.isAddress() || s.isService() || n.isFixed(s) {
			continue
		}
		for _, m := range s.members {
			for _, kv := range naiveBinding(m.rr).Value {
				n.thinHint(m, kv)
			}
			n.shortenHints(m)
		}
	}
}

// thinHint decides which addresses leave a hint.
func (n *naive) thinHint(m *naiveMember, kv dns.SVCBKeyValue) {
	svcb := naiveBinding(m.rr)
	var places []*naivePlace
	var all []naiveChoice
	reasons := map[*naivePlace]string{}
	for _, place := range m.places {
		if place.hint != kv {
			continue
		}
		target := naiveTarget(svcb)
		gone := n.gone[naiveKey(target, dns.TypeA)][place.addr] + n.gone[naiveKey(target, dns.TypeAAAA)][place.addr]
		switch {
		case place.down:
			reasons[place] = "down"
		case n.rules.note("hint that has left the answer section", gone != ""):
			reasons[place] = gone
			n.rules.note("hint that was not chosen in the answer section", gone == "selected")
		}
		c := naiveChoice{index: len(places), addr: place.addr, rtt: naiveDistance(place.verdict), dead: reasons[place] != ""}
		c.left = c.dead
		places, all = append(places, place), append(all, c)
	}
	left := n.chosen(all, func(rule string) { n.rules.note("hint "+rule, true) })
	_, mayGo := naiveHint(svcb, kv)
	if n.rules.note("mandatory hint", len(places) > 0 && len(left) == 0 && !mayGo) {
		return
	}
	for i, place := range places {
		if slices.ContainsFunc(left, func(c naiveChoice) bool { return c.index == i }) {
			continue
		}
		place.leaves = true
		n.touch(m.extra, naiveKeyOf(m.rr))
		reason := cmp.Or(reasons[place], "selected")
		if m.extra {
			n.extraHints[reason]++
			continue
		}
		n.left = true
		n.count(reason, 1)
	}
}

// count counts addresses that leave.
func (n *naive) count(reason string, addresses int) {
	switch {
	case addresses == 0:
	case reason == "down":
		n.result.Removed += addresses
		n.result.Outcome = max(n.result.Outcome, Filtered)
	default:
		n.result.Outcome = max(n.result.Outcome, Selected)
	}
}

// shortenHints takes the addresses that leave out of a record.
func (n *naive) shortenHints(m *naiveMember) {
	svcb := naiveBinding(m.rr)
	var values []dns.SVCBKeyValue
	for _, kv := range svcb.Value {
		var left []net.IP
		all := 0
		for _, place := range m.places {
			if place.hint != kv {
				continue
			}
			all++
			if !place.leaves {
				left = append(left, place.addr.AsSlice())
			}
		}
		switch {
		case len(left) == all:
			values = append(values, kv)
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
	n.leaving = map[dns.RR]string{}
	others := n.pointers()
	for key, records := range n.glue {
		for _, g := range records {
			addr, _ := naiveIP(g)
			gone := n.gone[key][addr]
			unused := n.isUnused(g)
			if n.rules.note("signed glue", (gone != "" || unused) && n.isFixedGlue(key)) {
				continue
			}
			needed := others[strings.ToLower(g.Header().Name)]
			n.rules.note("glue that others need", unused && needed)
			n.rules.note("glue that others need has left the answer section", gone != "" && needed)
			n.rules.note("glue that was not chosen in the answer section", gone == "selected")
			switch {
			case gone == "down" || unused && !needed && n.isDownBeside(g):
				n.leave(g, "down")
			case gone != "" || unused && !needed:
				n.leave(g, "selected")
				n.rules.note("glue of SRV records that are benched", gone == "")
			}
			n.rules.note("twin leaves", gone != "" && !unused)
		}
	}
}

func (n *naive) isFixedGlue(key string) bool { return n.signedGlue[key] && n.signer == nil }

// leave has an additional address leave.
func (n *naive) leave(g dns.RR, reason string) {
	n.leaving[g] = reason
	n.touch(true, naiveKeyOf(g))
}

// naiveUse is the use that a record has for an additional address.
type naiveUse struct {
	member *naiveMember
	place  *naivePlace
}

// isUse tells whether the record remains and can use the address. One that is kept although it is down keeps its addresses.
func (u naiveUse) isUse() bool {
	return u.member.remains() && (u.member.set.fate == "keep" || u.member.dead || !u.place.down)
}

// uses returns the records that lead to an additional address.
func (n *naive) uses(g dns.RR) (uses []naiveUse) {
	for _, s := range n.inOrder {
		for _, m := range s.members {
			for _, place := range m.places {
				if place.glue == g {
					uses = append(uses, naiveUse{m, place})
				}
			}
		}
	}
	return uses
}

// isDownBeside tells whether an additional address is down for a record that leads to it, or that record was to be replaced.
func (n *naive) isDownBeside(g dns.RR) bool {
	return slices.ContainsFunc(n.uses(g), func(u naiveUse) bool {
		return u.place.down || u.member.set.fate == "fail" || u.member.set.fate == "replace"
	})
}

// selectGlue has additional addresses leave that could be used, where others are better or were picked.
func (n *naive) selectGlue() {
	others := n.pointers()
	for key, records := range n.glue {
		if n.isFixedGlue(key) || others[strings.ToLower(records[0].Header().Name)] || n.sets[key] != nil {
			continue
		}
		var all []naiveChoice
		for i, g := range records {
			uses := n.uses(g)
			if len(uses) == 0 {
				continue
			}
			addr, _ := naiveIP(g)
			c := naiveChoice{index: i, addr: addr, rtt: farAway, dead: true, left: n.leaving[g] != ""}
			for _, u := range uses {
				c.rtt = min(c.rtt, naiveDistance(u.place.verdict))
				c.dead = c.dead && !(u.isUse() && !u.place.down)
			}
			all = append(all, c)
		}
		left := n.chosen(all, func(rule string) { n.rules.note("glue "+rule, true) })
		for _, c := range all {
			if !c.left && !slices.Contains(left, c) {
				n.leave(records[c.index], "selected")
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
	for _, u := range n.uses(g) {
		pointed += dns.TypeToString[u.member.set.rrtype] + " "
		if u.isUse() {
			return false
		}
	}
	n.rules.note("glue of SRV unused", strings.Contains(pointed, "SRV"))
	n.rules.note("glue of HTTPS unused", strings.Contains(pointed, "HTTPS"))
	n.rules.note("glue of SVCB unused", strings.Contains(pointed, "SVCB"))
	return pointed != ""
}

// findCaps finds how long the TTLs of what is watched may be. An RRset in the answer and beside it has one.
func (n *naive) findCaps() {
	n.caps = map[string]uint32{}
	for key, s := range n.sets {
		if s.watched {
			n.caps[key] = n.p.TTL
		}
	}
	for key := range n.watchedGlue {
		s := n.sets[key]
		n.rules.note("TTL of an RRset in the answer by its glue", s != nil && !s.watched)
		n.caps[key] = n.p.TTL
	}
	for _, s := range n.inOrder {
		n.rules.note("TTL of glue by its twin", s.watched && n.glue[naiveKeyOf(s.members[0].rr)] != nil && !n.watchedGlue[naiveKeyOf(s.members[0].rr)])
		for _, m := range s.members {
			if m.remains() {
				n.lowerByMember(m)
			}
		}
	}
	for key, records := range n.glue {
		for _, g := range records {
			for _, u := range n.uses(g) {
				if n.leaving[g] == "" && n.lower(key, u.place.verdict) {
					n.rules.note("short TTL of glue", true)
					n.rules.note("short TTL of an RRset in the answer by its glue", n.sets[key] != nil)
				}
			}
		}
	}
}

// lowerByMember lowers the TTL of the RRset of a record that remains and has addresses without a verdict.
func (n *naive) lowerByMember(m *naiveMember) {
	key := naiveKeyOf(m.rr)
	isUp := func(place *naivePlace) bool { return place.verdict.State == Up }
	if m.set.isService() && slices.ContainsFunc(m.places, isUp) {
		n.rules.note("SRV record with an address that is up", slices.ContainsFunc(m.places, func(place *naivePlace) bool {
			return place.verdict.State == Unknown && place.verdict.Within > 0
		}))
		return
	}
	for _, place := range m.places {
		isOwn := m.set.isAddress() || m.set.isService() || place.hint != nil && !place.leaves
		if isOwn && n.lower(key, place.verdict) {
			n.rules.note("short TTL of addresses", m.set.isAddress())
			n.rules.note("short TTL of SRV records", m.set.isService())
			n.rules.note("short TTL of hints", place.hint != nil)
			n.rules.note("short TTL of glue by its twin", m.set.isAddress() && n.glue[key] != nil)
		}
	}
}

// lower lowers a TTL to the time within which there is a verdict. It reports whether it did.
func (n *naive) lower(key string, v Verdict) bool {
	seconds := uint32(v.Within / time.Second)
	if v.State != Unknown || v.Within == 0 || seconds >= n.caps[key] {
		return false
	}
	n.rules.note("TTL of 0 until there is a verdict", seconds == 0)
	n.caps[key] = seconds
	return true
}

// cap returns the longest TTL of an RRset in a section, if it has one there.
func (n *naive) cap(owner string, rrtype uint16, extra bool) (ttl uint32, found bool) {
	key := naiveKey(owner, rrtype)
	if !n.sets[key].standsIn(extra) && !(extra && n.glue[key] != nil) {
		return 0, false
	}
	ttl, found = n.caps[key]
	return ttl, found
}

func (n *naive) hasLongTTL() bool {
	for i, section := range [][]dns.RR{n.m.Answer, n.m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			isGlue := i == 1 && slices.Contains(n.glue[naiveKeyOf(rr)], rr)
			ttl, found := n.cap(h.Name, h.Rrtype, i == 1)
			if found && h.Ttl > ttl && (isGlue || n.memberOf[rr] != nil) {
				return true
			}
		}
	}
	return false
}

// capped returns rr with a shorter TTL, if it is of what is watched.
func (n *naive) capped(rr dns.RR, extra bool) dns.RR {
	h := rr.Header()
	ttl, watched := uint32(0), false
	switch sig, isSignature := rr.(*dns.RRSIG); {
	case isSignature:
		ttl, watched = n.cap(h.Name, sig.TypeCovered, extra)
		n.rules.note("TTL of a signature", watched)
	case n.memberOf[rr] != nil, extra && slices.Contains(n.glue[naiveKeyOf(rr)], rr):
		ttl, watched = n.cap(h.Name, h.Rrtype, extra)
		n.rules.note("TTL in the additional section", watched && extra && h.Ttl > ttl)
	}
	if watched {
		rr = dns.Copy(rr)
		rr.Header().Ttl = min(h.Ttl, ttl)
	}
	return rr
}

// assemble puts the message together.
func (n *naive) assemble(original *dns.Msg) {
	n.rules.note("truncated answer changes", n.m.Truncated)
	before := n.m.Answer
	reason := n.reason()
	answer, isEmpty := n.answerSection()
	n.m.Answer = answer
	n.m.AuthenticatedData = n.m.AuthenticatedData && !n.left
	opt := n.m.IsEdns0()
	if isEmpty {
		n.empty(original, before)
	} else {
		n.m.Answer = n.signAgain(before, answer, false)
		n.m.Extra = n.additionalSection()
	}
	if reason != "" && n.request.IsEdns0() != nil {
		n.explain(opt, reason)
	}
	n.rules.note("nothing left but what was not chosen", n.result.Outcome == Selected)
}

// additionalSection returns the new one, and counts what has left it.
func (n *naive) additionalSection() (extra []dns.RR) {
	for _, rr := range n.m.Extra {
		if n.leaving[rr] == "" {
			extra = append(extra, n.capped(rr, true))
		}
	}
	n.rules.note("hint leaves the additional section", len(n.extraHints) > 0)
	for reason, hints := range n.extraHints {
		n.count(reason, hints)
	}
	for _, reason := range n.leaving {
		n.count(reason, 1)
	}
	return n.signAgain(n.m.Extra, extra, true)
}

// answerSection returns the new one, and whether it has become empty. Its signatures are still the old ones.
func (n *naive) answerSection() (answer []dns.RR, isEmpty bool) {
	fell := false
	isEmpty = true
	replaced := map[*naiveSet]bool{}
	order := map[*naiveSet][]*naiveMember{}
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
			if made := s.replacement(rr.Header()); !replaced[s] && len(made) > 0 {
				answer, isEmpty = append(answer, made...), false
			}
			replaced[s] = true
			continue
		case s.fate == "fail":
			fell = true
			continue
		case !m.remains():
			continue
		case len(s.order) > 0:
			rr = s.order[len(order[s])].rr
			order[s] = append(order[s], m)
		}
		answer, isEmpty = append(answer, n.capped(rr, false)), false
	}
	n.rules.note("nothing but aliases, and nothing fell", isEmpty && !fell)
	return answer, isEmpty && fell
}

// replacement returns the records that stand in for those of the RRset.
func (s *naiveSet) replacement(h *dns.RR_Header) (records []dns.RR) {
	for _, addr := range s.substitutes {
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", h.Name, min(h.Ttl, s.substituteTTL), dns.TypeToString[h.Rrtype], addr))
		if err != nil {
			panic(err)
		}
		records = append(records, rr)
	}
	return records
}

// empty makes NODATA or SERVFAIL of the message.
func (n *naive) empty(original *dns.Msg, before []dns.RR) {
	var last *naiveSet
	fails := false
	for _, s := range n.inOrder {
		fails = fails || s.fate == "fail"
		if s.standsIn(false) {
			last = s
		}
	}
	opt := n.m.IsEdns0()
	if n.m.Extra = nil; opt != nil {
		n.m.Extra = []dns.RR{opt}
	}
	if fails {
		n.m.Rcode, n.m.Authoritative, n.m.Answer, n.m.Ns = dns.RcodeServerFailure, false, nil, nil
		return
	}
	n.m.Answer = n.signAgain(before, n.m.Answer, false) // which only takes signatures away
	if sigs := naiveSignatures(before, naiveKey(last.owner, last.rrtype)); len(sigs) > 0 && n.signer != nil {
		n.m.Ns = n.denial(original, last, sigs)
	} else {
		n.m.Ns = []dns.RR{naiveSOA(original, n.zone, last.owner, "")}
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
			if compressed.Len() <= n.client.room {
				n.rules.note("explained without words", text == "")
				n.rules.note("explained", text != "")
				return
			}
		}
	}
	n.rules.note("no room to explain", true)
	n.m.Extra = without
}

// naiveSOA returns the SOA record for a name that has become empty: that of the message, or one made up. If the name was
// signed, it is that of the zone of the signer.
func naiveSOA(m *dns.Msg, zone Zone, owner, signer string) dns.RR {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && (signer == "" || strings.EqualFold(soa.Hdr.Name, signer)) {
			soa = dns.Copy(soa).(*dns.SOA)
			soa.Hdr.Ttl, soa.Minttl = min(soa.Hdr.Ttl, zone.TTL), min(soa.Minttl, zone.TTL)
			return soa
		}
	}
	apex := signer
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

func TestFilterAgainstNaive(t *testing.T) {
	messages := 20_000
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
	"a verdict within a time on one of two ports",
	"hint that was not chosen in the answer section",
	"glue that was not chosen in the answer section",
	"glue of SRV records that are benched",
	"TTL of an RRset in the answer by its glue",
	"short TTL of glue",
	"short TTL of an RRset in the answer by its glue",
	"SRV record with an address that is up",
	"short TTL of addresses",
	"short TTL of SRV records",
	"short TTL of hints",
	"short TTL of glue by its twin",
	"TTL of 0 until there is a verdict",
	"nothing left but what was not chosen",
	"tier of an SRV record by the addresses that live",
	"address benched by a better tier",
	"address benched in a tier that is not alive",
	"SRV record benched",
	"dead in a worse tier",
	"priorities of SRV records have tiers of their own",
	"a name does not stand in for itself",
	"name without addresses",
	"another name stands in",
	"the second name stands in",
	"TTL of the name that stands in",
	"panic although some of the family live",
	"the other family lives in the answer",
	"the other family is dead as well",
	"the other family is old news",
	"the other family lives elsewhere",
	"a name stands in for the other family",
	"benched where nothing may leave",
	"dead ones in the order of the client",
	"substitutes in the order of the client",
	"order by round trip",
	"order of the client",
	"picked at random",
	"picked by round trip",
	"picked for the client",
	"substitutes are picked",
	"picked from what is kept",
	"picked from what is left",
	"weights change who is picked",
	"what is to be last is last already",
	"signatures go with their RRset",
	"signed again in the answer",
	"signed again in the additional section",
	"signed again with records that nobody checks",
	"nobody signs this zone",
	"somebody else has signed",
	"denied with signatures",
	"hint benched",
	"hint of no tier that is alive",
	"hint not picked",
	"glue benched",
	"glue of no tier that is alive",
	"glue not picked",
	"glue dead and not picked",
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
		n := naiveRecords{Rand: r}.numbers()
		f.Add(packed, uint64(seed), uint16(n.kind), uint16(n.panics), uint16(n.ttl), uint16(n.zone), uint16(n.tiers), uint16(n.weights),
			uint16(n.pick), uint16(n.order), uint16(n.names), uint16(q.client.room), uint16(r.IntN(8)), q.signer != nil, seed%3 == 0)
	}
	f.Fuzz(func(t *testing.T, packed []byte, salt uint64, kind, panics, ttl, zone, tiers, weights, pick, order, names, size, client uint16, signs, edns bool) {
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
			look: func(addr netip.Addr, port uint16) Verdict {
				n := hash(addr, port)
				if n%8 == 7 {
					return Verdict{}
				}
				v := Verdict{State: []State{Down, Down, Down, Down, Up, Up, Unknown}[n%8], RTT: time.Duration(n/8%4) * time.Millisecond}
				v.Damped = v.State == Down && n/32%4 == 0
				if v.State == Unknown {
					v.Within = naiveTimes[n/32%4]
				}
				return v
			},
			resolve: func(name string, rrtype uint16) (addrs []netip.Addr, known bool) {
				n := hash(name, rrtype)
				return naiveAddresses(rrtype, int(n%3), func(i int) int { return int(n>>(4*i)) % 6 }), n/16%4 != 0
			},
			standby: func(name string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
				n := hash("standby", name, rrtype)
				return naiveAddresses(rrtype, int(n%4), func(i int) int { return (int(n/4%6) + i) % 6 }), n / 64 % 60
			},
		}
		q := naiveQuery{
			request: request, client: naiveClient{int(size), naiveClientAddress(int(client))}, drawn: naiveDraw(salt), source: source,
			zone: naivePolicy(naiveNumbers{
				int(kind), int(panics), int(ttl), int(zone), int(tiers), int(weights), int(pick), int(order), int(names),
			}),
		}
		if signs {
			q.signer = naiveSigner{}
		}
		naiveCompare(t, m, q, nil)
	})
}
