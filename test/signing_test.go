package test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// signingFarm has hosts with an address of each family. 1 and 2 are dead, 3 to 6 live, and 7 is not checked. A host of IPv4
// answers or refuses; with IPv6, of which loopback has one address only, a file says so.
type signingFarm struct {
	*zoneKey
	port      uint16
	overrides string // path of the file
}

func newSigningFarm(t *testing.T) *signingFarm {
	t.Helper()
	f := newFarm(t, "127.0.12.3", "127.0.12.4", "127.0.12.5", "127.0.12.6")
	var rules strings.Builder
	for host := 1; host <= 6; host++ {
		rule := "up"
		if isDead(signingAddr(host, dns.TypeAAAA)) {
			rule = "down"
		}
		fmt.Fprintf(&rules, "%v %s\n", signingAddr(host, dns.TypeAAAA), rule)
	}
	return &signingFarm{newZoneKey(t), f.port, lab.File(t, "overrides", rules.String())}
}

// signingAddr returns an address of a host.
func signingAddr(host int, rrtype uint16) netip.Addr {
	if rrtype == dns.TypeA {
		return netip.AddrFrom4([4]byte{127, 0, 12, byte(host)})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 13: 12, 15: byte(host)})
}

// signingHost returns the host of an address, 0 if it has none.
func signingHost(addr netip.Addr) int {
	for host := 1; host <= 7; host++ {
		if addr == signingAddr(host, dns.TypeA) || addr == signingAddr(host, dns.TypeAAAA) {
			return host
		}
	}
	return 0
}

func isDead(addr netip.Addr) bool { return signingHost(addr) == 1 || signingHost(addr) == 2 }

// signingCase is what a stanza says, and what becomes of names with these hosts.
type signingCase struct {
	name       string
	properties string
	hosts4     []int // of the A records
	hosts6     []int // of the AAAA records
	want4      []int // of the A records in the answer, none where it is NODATA
	want6      []int
	pick       int   // how many of those that are wanted are answered, 0 for all
	wantSRV    []int // of the SRV records in the answer, none where it is NODATA
	// sparesDead is set where an SRV record, for which no other stands in, leads to hosts that are dead.
	sparesDead bool
}

var signingCases = []signingCase{
	{
		name:   "removed",
		hosts4: []int{1, 3, 4}, hosts6: []int{1, 3, 4},
		want4: []int{3, 4}, want6: []int{3, 4}, wantSRV: []int{3, 4},
	},
	{
		name:       "untouched",
		properties: "fallback nodata",
		hosts4:     []int{3, 4}, hosts6: []int{3, 4},
		want4: []int{3, 4}, want6: []int{3, 4}, wantSRV: []int{3, 4},
	},
	{
		name:       "first tier",
		properties: "prefer 127.0.12.0/30 2001:db8::c:1/126\nprefer 127.0.12.4 2001:db8::c:4",
		hosts4:     []int{1, 2, 3, 4, 5}, hosts6: []int{1, 2, 3, 4, 5},
		want4: []int{3}, want6: []int{3}, wantSRV: []int{3},
	},
	{
		name:       "second tier",
		properties: "prefer 127.0.12.1 2001:db8::c:1\nprefer 127.0.12.3 127.0.12.4 2001:db8::c:3 2001:db8::c:4",
		hosts4:     []int{1, 3, 4, 5}, hosts6: []int{1, 3, 4, 5},
		want4: []int{3, 4}, want6: []int{3, 4}, wantSRV: []int{3, 4},
	},
	{
		name:       "pick 1",
		properties: "pick 1",
		hosts4:     []int{1, 3, 4, 5}, hosts6: []int{1, 3, 4, 5},
		want4: []int{3, 4, 5}, want6: []int{3, 4, 5}, pick: 1, wantSRV: []int{3, 4, 5},
	},
	{
		name:       "pick 2 of a tier by client",
		properties: "prefer 127.0.12.1 2001:db8::c:1\nprefer 127.0.12.4/30 127.0.12.3 2001:db8::c:4/126 2001:db8::c:3\npick 2\nsort client",
		hosts4:     []int{1, 3, 4, 5}, hosts6: []int{1, 3, 4, 5},
		want4: []int{3, 4, 5}, want6: []int{3, 4, 5}, pick: 2, wantSRV: []int{3, 4, 5},
	},
	{
		name:       "fallback ADDRESS",
		properties: "fallback 127.0.12.7 2001:db8::c:7",
		hosts4:     []int{1, 2}, hosts6: []int{1, 2},
		want4: []int{7}, want6: []int{7}, wantSRV: []int{1, 2}, sparesDead: true,
	},
	{
		name:       "fallback ADDRESS of one family",
		properties: "fallback 127.0.12.7",
		hosts4:     []int{1, 2}, hosts6: []int{1, 2},
		want4: []int{7}, wantSRV: []int{1, 2}, sparesDead: true,
	},
	{
		name:       "fallback NAME",
		properties: "fallback standby.example.org",
		hosts4:     []int{1, 2}, hosts6: []int{1, 2},
		want4: []int{5, 6}, want6: []int{5, 6}, wantSRV: []int{1, 2}, sparesDead: true,
	},
	{
		name:       "fallback NAME and pick 1",
		properties: "fallback dead.example.org standby.example.org nodata\npick 1",
		hosts4:     []int{1, 2}, hosts6: []int{1, 2},
		want4: []int{5, 6}, want6: []int{5, 6}, pick: 1,
	},
	{
		name:       "nodata",
		properties: "fallback nodata",
		hosts4:     []int{1, 2}, hosts6: []int{1, 2},
	},
	{
		name:   "one family dead",
		hosts4: []int{3, 4}, hosts6: []int{1, 2},
		want4: []int{3, 4}, wantSRV: []int{3, 4},
	},
}

// zone writes a zone file in which several names lead to the hosts of the case.
func (tt *signingCase) zone(t *testing.T, port uint16) string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n$TTL 300\n@ SOA ns hostmaster 1 7200 1800 86400 300\n@ NS ns\nns A 192.0.2.53\n")
	b.WriteString("alias CNAME www\n_y._tcp CNAME _x._tcp\n")
	add := func(name string, rrtype uint16, hosts ...int) {
		for _, host := range hosts {
			fmt.Fprintf(&b, "%s %s %v\n", name, dns.TypeToString[rrtype], signingAddr(host, rrtype))
		}
	}
	hints := func(hosts []int, rrtype uint16) string {
		var addrs []string
		for _, host := range hosts {
			addrs = append(addrs, signingAddr(host, rrtype).String())
		}
		return strings.Join(addrs, ",")
	}
	for _, name := range []string{"www", "*.web"} {
		add(name, dns.TypeA, tt.hosts4...)
		add(name, dns.TypeAAAA, tt.hosts6...)
		fmt.Fprintf(&b, "%s HTTPS 1 . alpn=h2 port=%d ipv4hint=%s ipv6hint=%s\n", name, port, hints(tt.hosts4, dns.TypeA), hints(tt.hosts6, dns.TypeAAAA))
	}
	for host := 1; host <= 7; host++ {
		target := fmt.Sprintf("h%d", host)
		has4, has6 := slices.Contains(tt.hosts4, host), slices.Contains(tt.hosts6, host)
		if has4 {
			add(target, dns.TypeA, host)
		}
		if has6 {
			add(target, dns.TypeAAAA, host)
		}
		if has4 || has6 {
			for _, name := range []string{"_x._tcp", "*.srv"} {
				fmt.Fprintf(&b, "%s SRV 0 0 %d %s\n", name, port, target)
			}
		}
	}
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		add("standby", rrtype, 2, 5, 6)
		add("dead", rrtype, 1, 2)
	}
	return lab.File(t, "db.example.org", b.String())
}

// serve starts a server that signs the zone of the case on the fly.
func (f *signingFarm) serve(t *testing.T, tt *signingCase, cache string) *server {
	t.Helper()
	return start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			deny 0.0.0.0/0 ::/0
			allow 127.0.12.0/24
			overrides %s
			hold 4s
			%s
		}
		%s
		dnssec {
			key file %s
		}
		file %s
	}`, f.port, f.overrides, tt.properties, cache, f.base, tt.zone(t, f.port)))
}

// signingQuestions are what is asked of each server.
var signingQuestions = []dns.Question{
	{Name: "www.example.org.", Qtype: dns.TypeA},
	{Name: "www.example.org.", Qtype: dns.TypeAAAA},
	{Name: "www.example.org.", Qtype: dns.TypeHTTPS},
	{Name: "wWw.eXample.org.", Qtype: dns.TypeA},
	{Name: "alias.example.org.", Qtype: dns.TypeA},
	{Name: "alias.example.org.", Qtype: dns.TypeAAAA},
	{Name: "alias.example.org.", Qtype: dns.TypeHTTPS},
	{Name: "a.web.example.org.", Qtype: dns.TypeA},
	{Name: "a.web.example.org.", Qtype: dns.TypeAAAA},
	{Name: "a.web.example.org.", Qtype: dns.TypeHTTPS},
	{Name: "_x._tcp.example.org.", Qtype: dns.TypeSRV},
	{Name: "_y._tcp.example.org.", Qtype: dns.TypeSRV},
	{Name: "a.srv.example.org.", Qtype: dns.TypeSRV},
	{Name: "standby.example.org.", Qtype: dns.TypeA},
	{Name: "www.example.org.", Qtype: dns.TypeTXT},
	{Name: "nothing.example.org.", Qtype: dns.TypeA},
}

// check returns what is wrong with an answer: other hosts than are wanted, or one that is dead.
func (tt *signingCase) check(m *dns.Msg, q dns.Question) error {
	var hosts []int // in the answer
	var dead []netip.Addr
	for i, rr := range slices.Concat(m.Answer, m.Extra) {
		for _, addr := range addressesIn(rr) {
			if isDead(addr) {
				dead = append(dead, addr)
			}
			if i < len(m.Answer) && rr.Header().Rrtype == q.Qtype && q.Qtype != dns.TypeHTTPS {
				hosts = append(hosts, signingHost(addr))
			}
		}
		if srv, ok := rr.(*dns.SRV); ok {
			var host int
			fmt.Sscanf(srv.Target, "h%d.", &host)
			hosts = append(hosts, host)
		}
	}
	var want []int
	picked := 0
	switch name := strings.ToLower(q.Name); {
	case name == "nothing.example.org.":
	case name == "standby.example.org.":
		want, picked = []int{5, 6}, tt.pick
	case q.Qtype == dns.TypeA:
		want, picked = tt.want4, tt.pick
	case q.Qtype == dns.TypeAAAA:
		want, picked = tt.want6, tt.pick
	case q.Qtype == dns.TypeSRV:
		want = tt.wantSRV
	}
	n := len(want)
	if picked > 0 {
		n = min(n, picked)
	}
	slices.Sort(hosts)
	isOther := func(host int) bool { return !slices.Contains(want, host) }
	switch {
	case m.Rcode != dns.RcodeSuccess:
		return errors.New(dns.RcodeToString[m.Rcode])
	case len(dead) > 0 && !(tt.sparesDead && q.Qtype == dns.TypeSRV):
		return fmt.Errorf("dead: %v", dead)
	case len(slices.Compact(hosts)) != n || slices.ContainsFunc(hosts, isOther):
		return fmt.Errorf("hosts %v, want %d of %v", hosts, n, want)
	}
	return nil
}

// addressesIn returns the addresses in a record, those in hints included.
func addressesIn(rr dns.RR) (addrs []netip.Addr) {
	add := func(octets []byte) {
		addr, _ := netip.AddrFromSlice(octets)
		addrs = append(addrs, addr.Unmap())
	}
	switch rr := rr.(type) {
	case *dns.A:
		add(rr.A)
	case *dns.AAAA:
		add(rr.AAAA)
	case *dns.HTTPS:
		for _, param := range rr.Value {
			switch param := param.(type) {
			case *dns.SVCBIPv4Hint:
				for _, ip := range param.Hint {
					add(ip)
				}
			case *dns.SVCBIPv6Hint:
				for _, ip := range param.Hint {
					add(ip)
				}
			}
		}
	}
	return addrs
}

// signedSet is an RRset in one section, and the signatures of it there.
type signedSet struct {
	records []dns.RR
	sigs    []*dns.RRSIG
}

// setKey finds an RRset.
type setKey struct {
	owner  string // lower case
	rrtype uint16
}

// validate returns what a validator would not believe of an answer: every RRset has a signature in its section and every
// signature an RRset, and where the answer ends in none, a denial says so.
func (k *zoneKey) validate(m *dns.Msg, q dns.Question) error {
	sections := make([]map[setKey]*signedSet, 3)
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		sections[i] = make(map[setKey]*signedSet)
		at := func(owner string, rrtype uint16) *signedSet {
			key := setKey{dns.CanonicalName(owner), rrtype}
			if sections[i][key] == nil {
				sections[i][key] = new(signedSet)
			}
			return sections[i][key]
		}
		for _, rr := range section {
			switch rr := rr.(type) {
			case *dns.OPT:
			case *dns.RRSIG:
				set := at(rr.Hdr.Name, rr.TypeCovered)
				set.sigs = append(set.sigs, rr)
			default:
				set := at(rr.Header().Name, rr.Header().Rrtype)
				set.records = append(set.records, rr)
			}
		}
		for key, set := range sections[i] {
			if err := k.verifySet(set); err != nil {
				return fmt.Errorf("section %d, %s %s: %w", i+1, key.owner, dns.TypeToString[key.rrtype], err)
			}
		}
	}
	answer, authority := sections[0], sections[1]
	end, sets := dns.CanonicalName(q.Name), 0
	for answer[setKey{end, dns.TypeCNAME}] != nil {
		end = dns.CanonicalName(answer[setKey{end, dns.TypeCNAME}].records[0].(*dns.CNAME).Target)
		sets++
	}
	if answer[setKey{end, q.Qtype}] != nil {
		sets++
	}
	if sets != len(answer) {
		return fmt.Errorf("%d of %d RRsets are no answer", len(answer)-sets, len(answer))
	}
	if answer[setKey{end, q.Qtype}] != nil {
		return nil
	}
	denial := authority[setKey{end, dns.TypeNSEC}]
	switch {
	case authority[setKey{"example.org.", dns.TypeSOA}] == nil || denial == nil:
		return fmt.Errorf("no denial of %s at %s", dns.TypeToString[q.Qtype], end)
	case len(authority) != 2:
		return fmt.Errorf("%d RRsets beside the denial", len(authority)-2)
	}
	types := denial.records[0].(*dns.NSEC).TypeBitMap
	if slices.Contains(types, q.Qtype) || slices.Contains(types, dns.TypeCNAME) {
		return fmt.Errorf("denial of other types: %v", denial.records[0])
	}
	return nil
}

// verifySet checks an RRset that stands for itself: one that a wildcard was expanded to would need more than a signature.
func (k *zoneKey) verifySet(set *signedSet) error {
	if len(set.records) == 0 || len(set.sigs) != 1 {
		return fmt.Errorf("%d records and %d signatures", len(set.records), len(set.sigs))
	}
	sig := set.sigs[0]
	if err := sig.Verify(k.key, set.records); err != nil {
		return fmt.Errorf("%w\n%v\n%v", err, sig, set.records)
	}
	for _, rr := range set.records {
		switch h := rr.Header(); {
		case h.Ttl != sig.Hdr.Ttl || h.Ttl > sig.OrigTtl:
			return fmt.Errorf("TTL %d, of the signature %d, original %d", h.Ttl, sig.Hdr.Ttl, sig.OrigTtl)
		case dns.CountLabel(h.Name) != int(sig.Labels):
			return fmt.Errorf("%d labels in the signature", sig.Labels)
		}
	}
	return nil
}

// Whatever shaker makes of answers that are signed on the fly, they validate, from the very first one. Nobody who wants
// signatures gets an address that is dead.
func TestSigning(t *testing.T) {
	t.Parallel()
	f := newSigningFarm(t)
	for _, cache := range []string{"", "cache", cacheAboveDirective} {
		for _, tt := range signingCases {
			t.Run(tt.name+", "+cache, func(t *testing.T) {
				t.Parallel()
				s := f.serve(t, &tt, cache)
				for _, q := range signingQuestions {
					ask := func() error {
						m := s.ask(q.Name, q.Qtype, withDO)
						if err := f.validate(m, q); err != nil {
							t.Fatalf("%s %s: %v\n%v", q.Name, dns.TypeToString[q.Qtype], err, m)
						}
						if err := tt.check(m, q); err != nil {
							return fmt.Errorf("%s %s: %w\n%v", q.Name, dns.TypeToString[q.Qtype], err, m)
						}
						return nil
					}
					lab.UntilNil(t, ask)
					for range 3 {
						if err := ask(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
}

// Validators that others wrote believe it too.
func TestSigningIsBelieved(t *testing.T) {
	t.Parallel()
	installed(t, "unbound", "unbound")
	installed(t, "delv", "bind9-dnsutils")
	f := newSigningFarm(t)
	anchors := f.anchors(t)
	for _, tt := range signingCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := f.serve(t, &tt, "cache")
			for _, q := range signingQuestions { // until all is known
				lab.UntilNil(t, func() error { return tt.check(s.ask(q.Name, q.Qtype, withDO), q) })
			}
			resolver := unbound(t, s, f.key)
			for _, q := range signingQuestions {
				m := resolver.ask(q.Name, q.Qtype, withDO)
				if err := tt.check(m, q); err != nil || !m.AuthenticatedData {
					t.Errorf("%s %s by unbound: AD %v, %v\n%v", q.Name, dns.TypeToString[q.Qtype], m.AuthenticatedData, err, m)
				}
				printed, err := delv(t, s, anchors, q.Name, q.Qtype)
				if err != nil || !strings.Contains(printed, "fully validated") || strings.Contains(printed, "unsigned answer") {
					t.Errorf("%s %s by delv: %v\n%s", q.Name, dns.TypeToString[q.Qtype], err, printed)
				}
			}
		})
	}
}
