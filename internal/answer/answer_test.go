package answer

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// filterStates is a Source. Addresses and ports that are not in it are not watched.
type filterStates struct {
	states filterBook
	later  filterBook // what settle brings, if anything
	// names are the addresses of names, but for those that are pending.
	names    map[string][]netip.Addr
	pending  map[string]bool
	standbys map[string]selectStandby // what names have to offer
	asked    []netip.AddrPort
}

// filterBook is what is known. Port 0 stands for the ports of the policy.
type filterBook map[netip.AddrPort]Verdict

func (s *filterStates) Ask(addr netip.Addr, port uint16) Verdict {
	s.asked = append(s.asked, netip.AddrPortFrom(addr, port))
	return s.states[netip.AddrPortFrom(addr, port)]
}

func (s *filterStates) Settle() bool {
	if s.later == nil {
		return false
	}
	s.states, s.later = s.later, nil
	return true
}

// Resolve implements Source: names have the addresses that are in the message, and no others.
func (s *filterStates) Resolve(name string, rrtype uint16) ([]netip.Addr, bool) {
	addrs, pending := s.names[name], s.pending[name]
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is4() != (rrtype == dns.TypeA) }), !pending
}

// Standby implements Source.
func (s *filterStates) Standby(name string, rrtype uint16) (addrs []netip.Addr, ttl uint32) {
	offer := s.standbys[name]
	return slices.DeleteFunc(slices.Clone(offer.addrs), func(a netip.Addr) bool { return a.Is4() != (rrtype == dns.TypeA) }), offer.ttl
}

// room is a client, and how many octets it takes.
type room int

func (r room) Room() int { return int(r) }

func (r room) Addr() netip.Addr { return netip.Addr{} }

// filter asks on behalf of a client that takes everything.
func filter(m, request *dns.Msg, zone Zone, source Source) (*dns.Msg, Result) {
	return Filter(m, &Query{Request: request, Client: room(dns.MaxMsgSize), Zone: zone}, source)
}

// filterVerdicts reads verdicts such as "10.0.0.1=down 10.0.0.2=up,1500us [2001:db8::1]:443=unknown", with the
// round trip where there is one.
func filterVerdicts(t testing.TB, s string) *filterStates {
	t.Helper()
	states := make(filterBook)
	for _, word := range strings.Fields(s) {
		at, what, _ := strings.Cut(word, "=")
		state, rtt, hasRTT := strings.Cut(what, ",")
		var v Verdict
		if state == "damped" {
			state, v.Damped = "down", true
		}
		switch state {
		case "down":
			v.State = Down
		case "up":
			v.State = Up
		case "unknown":
			v.State = Unknown
		default:
			t.Fatalf("no such state: %q", word)
		}
		if hasRTT {
			var err error
			if v.RTT, err = time.ParseDuration(rtt); err != nil {
				t.Fatal(err)
			}
		}
		if addr, err := netip.ParseAddr(at); err == nil {
			states[netip.AddrPortFrom(addr, 0)] = v
		} else {
			states[netip.MustParseAddrPort(at)] = v
		}
	}
	return &filterStates{states: states}
}

// filterPolicy is a policy with a fallback as in a Corefile, for the zone example.org.
func filterPolicy(t testing.TB, fallback string, panics int) Zone {
	t.Helper()
	zone := filterPolicyOf(Fallback{})
	zone.Panic = panics
	for kind := FallbackAll; kind < FallbackAddresses; kind++ {
		if kind.String() == fallback {
			zone.Fallback.Kind = kind
			return zone
		}
	}
	zone.Fallback.Kind = FallbackAddresses
	for _, word := range strings.Fields(fallback) {
		zone.Fallback.Addresses = append(zone.Fallback.Addresses, netip.MustParseAddr(word))
	}
	return zone
}

func filterPolicyOf(f Fallback) Zone { return Zone{"example.org.", &Policy{TTL: 30, Fallback: f}} }

// filterMessages returns a request for the first name in the answer, and the answer to it.
func filterMessages(t testing.TB, answer string) (request, m *dns.Msg) {
	t.Helper()
	request, m = new(dns.Msg), new(dns.Msg)
	rrs := lab.Records(t, answer)
	request.SetQuestion(rrs[0].Header().Name, dns.TypeA)
	m.SetReply(request)
	m.Answer = rrs
	return request, m
}

// filterSnapshot remembers all that a message refers to, so that a change can be found. It gives the
// sections spare capacity: an append in place would write there.
type filterSnapshot struct {
	m, copied *dns.Msg
	sections  [3][]dns.RR
	packed    []byte
	inexact   map[dns.RR]bool // dns.Copy makes nil of what is empty in some records, or the other way
}

func filterTake(m *dns.Msg) *filterSnapshot {
	packed, _ := m.Pack() // notes the length of each record in its header, so it comes first
	s := &filterSnapshot{m: m, copied: m.Copy(), packed: packed, inexact: make(map[dns.RR]bool)}
	for i, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		if *section == nil {
			continue
		}
		spare := make([]dns.RR, len(*section), len(*section)+8)
		copy(spare, *section)
		for _, rr := range spare {
			if !reflect.DeepEqual(rr, dns.Copy(rr)) {
				s.inexact[rr] = true
			}
		}
		*section = spare
		s.sections[i] = slices.Clone(spare[:cap(spare)])
	}
	return s
}

// expectUnchanged checks that the message is what it was, to the last pointer.
func (s *filterSnapshot) expectUnchanged(t testing.TB) {
	t.Helper()
	same := s.m.MsgHdr == s.copied.MsgHdr && s.m.Compress == s.copied.Compress && slices.Equal(s.m.Question, s.copied.Question)
	copied := [][]dns.RR{s.copied.Answer, s.copied.Ns, s.copied.Extra}
	for i, section := range [][]dns.RR{s.m.Answer, s.m.Ns, s.m.Extra} {
		// The interfaces compare by the pointers in them.
		if !slices.Equal(section[:cap(section)], s.sections[i]) {
			t.Errorf("section %d of the input has other records", i)
		}
		same = same && slices.EqualFunc(section, copied[i], func(a, b dns.RR) bool {
			return reflect.DeepEqual(a, b) || s.inexact[a] && a.String() == b.String()
		})
	}
	if !same {
		t.Errorf("the input was changed to\n%v\nfrom\n%v", s.m, s.copied)
	}
	if packed, _ := s.m.Pack(); !slices.Equal(packed, s.packed) {
		t.Error("the input packs differently")
	}
}

const filterSig = " IN RRSIG A 13 3 300 20300101000000 20200101000000 1 example.org. c2lnbmF0dXJl"

func TestFilter(t *testing.T) {
	const (
		four = `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10 IN A 10.0.0.4`
		signed = four + "\na.example.org. 10" + filterSig
		one    = "a.example.org. 10 IN A 10.0.0.1"
		allUp  = "10.0.0.1=up 10.0.0.2=up 10.0.0.3=up 10.0.0.4=up"
		down   = "10.0.0.1=down 10.0.0.2=down 10.0.0.3=down 10.0.0.4=down"
		part   = "10.0.0.1=down 10.0.0.2=up 10.0.0.3=down 10.0.0.4=unknown"
	)
	const same = "same" // the message itself, not a copy
	tests := []struct {
		name     string
		fallback string
		panics   int
		answer   string
		verdicts string
		want     string
		removed  int
		outcome  Outcome
	}{
		{"all up", "nodata", 100, four, allUp, same, 0, Untouched},
		{"all unknown", "nodata", 100, four, strings.ReplaceAll(allUp, "up", "unknown"), same, 0, Untouched},
		{"none watched", "nodata", 100, four, "", same, 0, Untouched},
		{"no addresses", "nodata", 0, "a.example.org. 300 IN TXT x\nb.example.org. 300 IN CNAME c.", down, same, 0, Untouched},

		{"thinned", "all", 0, four, part, `a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"thinned to those that are not watched", "all", 0, four, "10.0.0.1=down 10.0.0.2=down 10.0.0.4=down",
			`a.example.org. 10 IN A 10.0.0.3`, 3, Filtered},
		{"duplicates go together", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.1`, "10.0.0.1=down 10.0.0.2=up", "a.example.org. 10 IN A 10.0.0.2", 2, Filtered},
		{"duplicates stay", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.1`, "10.0.0.1=up 10.0.0.2=up", same, 0, Untouched},

		{"sorted", "all", 0, signed, part, `a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4
			a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10` + filterSig, 0, Reordered},
		{"sorted around the signature", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10` + filterSig + `
			a.example.org. 10 IN A 10.0.0.2`, part, `a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10` + filterSig + `
			a.example.org. 10 IN A 10.0.0.1`, 0, Reordered},
		{"signature under another case", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			A.Example.Org. 10 IN A 10.0.0.2
			a.EXAMPLE.org. 10` + filterSig, part, `A.Example.Org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.1
			a.EXAMPLE.org. 10` + filterSig, 0, Reordered},
		{"signature of another name", "all", 0, four + "\nb.example.org. 10" + filterSig, part, `a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4
			b.example.org. 10` + filterSig, 2, Filtered},
		{"signature of another type", "all", 0, four + "\na.example.org. 10" + strings.Replace(filterSig, " A ", " AAAA ", 1), part,
			`a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4
			a.example.org. 10` + strings.Replace(filterSig, " A ", " AAAA ", 1), 2, Filtered},
		{"signed alias of unsigned addresses", "all", 0, `w.example.org. 10 IN CNAME a.example.org.
			w.example.org. 10` + strings.Replace(filterSig, " A ", " CNAME ", 1) + "\n" + four, part,
			`w.example.org. 10 IN CNAME a.example.org.
			w.example.org. 10` + strings.Replace(filterSig, " A ", " CNAME ", 1) + `
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"signed, only one left in panic", "nodata", 50, signed, "10.0.0.1=down 10.0.0.2=down 10.0.0.3=down 10.0.0.4=up",
			`a.example.org. 10 IN A 10.0.0.4
			a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10` + filterSig, 0, Reordered},

		{"fallback all", "all", 0, four, down, four, 0, Substituted},
		{"fallback nodata", "nodata", 0, four, down, "", 4, Substituted},
		{"fallback servfail", "servfail", 0, four, down, "", 4, Substituted},
		{"fallback addresses", "192.0.2.1 2001:db8::1 192.0.2.2", 0, four, down, `a.example.org. 10 IN A 192.0.2.1
			a.example.org. 10 IN A 192.0.2.2`, 4, Substituted},
		{"fallback addresses of the other family", "2001:db8::1", 0, four, down, "", 4, Substituted},
		{"fallback address that is down itself", "10.0.0.1", 0, four, down, "a.example.org. 10 IN A 10.0.0.1", 4, Substituted},
		{"fallback all, signed", "all", 0, signed, down, signed, 0, Substituted},
		{"fallback nodata, signed", "nodata", 0, signed, down, signed, 0, Substituted},
		{"fallback servfail, signed", "servfail", 0, signed, down, "", 4, Substituted},
		{"fallback addresses, signed", "192.0.2.1", 0, signed, down, signed, 0, Substituted},

		{"damped ones leave like others", "all", 0, four, "10.0.0.1=damped 10.0.0.2=up 10.0.0.3=down 10.0.0.4=up",
			`a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"damped ones go before the fallback", "nodata", 0, four, "10.0.0.1=damped 10.0.0.2=down 10.0.0.3=down 10.0.0.4=damped",
			`a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"damped ones go before all", "all", 0, four, "10.0.0.1=down 10.0.0.2=down 10.0.0.3=down 10.0.0.4=damped",
			"a.example.org. 10 IN A 10.0.0.4", 3, Filtered},
		{"all are damped", "servfail", 0, four, strings.ReplaceAll(down, "down", "damped"), same, 0, Untouched},
		{"damped ones avert panic", "nodata", 51, four, "10.0.0.1=damped 10.0.0.2=down 10.0.0.3=up 10.0.0.4=up",
			`a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10 IN A 10.0.0.4`, 1, Filtered},
		{"too few damped ones", "nodata", 76, four, "10.0.0.1=damped 10.0.0.2=down 10.0.0.3=up 10.0.0.4=up", "", 4, Substituted},
		{"damped ones, signed", "servfail", 0, signed, "10.0.0.1=down 10.0.0.2=damped 10.0.0.3=down 10.0.0.4=damped",
			`a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4
			a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10` + filterSig, 0, Reordered},

		{"single address, fallback all", "all", 0, one, down, one, 0, Substituted},
		{"the same address twice, fallback all", "all", 0, one + "\n" + one, down, one + "\n" + one, 0, Substituted},
		{"single address, fallback nodata", "nodata", 0, one, down, "", 1, Substituted},
		{"single address, fallback servfail", "servfail", 0, one, down, "", 1, Substituted},
		{"single address, fallback addresses", "192.0.2.1", 0, one, down, "a.example.org. 10 IN A 192.0.2.1", 1, Substituted},

		{"half healthy is not below 50 percent", "all", 50, four, part, `a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"half healthy is below 51 percent", "all", 51, four, part, four, 0, Substituted},
		{"half healthy is below 51 percent, nodata", "nodata", 51, four, part, "", 4, Substituted},
		{"half healthy is below 51 percent, servfail", "servfail", 51, four, part, "", 4, Substituted},
		{"panic 100 and one down", "192.0.2.1", 100, four, "10.0.0.1=down 10.0.0.2=up 10.0.0.3=up 10.0.0.4=up",
			"a.example.org. 10 IN A 192.0.2.1", 4, Substituted},
		{"panic 100 and none down", "192.0.2.1", 100, four, allUp, same, 0, Untouched},

		{"each RRset by itself", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			b.example.org. 10 IN A 10.0.0.3
			b.example.org. 10 IN A 10.0.0.4
			a.example.org. 10 IN AAAA 2001:db8::1
			a.example.org. 10 IN AAAA 2001:db8::2`,
			"10.0.0.1=down 10.0.0.2=up 10.0.0.3=down 10.0.0.4=down 2001:db8::1=up 2001:db8::2=down",
			`a.example.org. 10 IN A 10.0.0.2
			b.example.org. 10 IN A 10.0.0.3
			b.example.org. 10 IN A 10.0.0.4
			a.example.org. 10 IN AAAA 2001:db8::1`, 2, Substituted},
		{"one RRset falls, another is left", "nodata", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN AAAA 2001:db8::1`, "10.0.0.1=down 2001:db8::1=up", "a.example.org. 10 IN AAAA 2001:db8::1", 1, Substituted},
		{"one RRset fails, another is left", "servfail", 0, `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN AAAA 2001:db8::1`, "10.0.0.1=down 2001:db8::1=up", "a.example.org. 10 IN AAAA 2001:db8::1", 1, Substituted},
		{"interleaved RRsets", "all", 0, `a.example.org. 10 IN A 10.0.0.1
			b.example.org. 10 IN A 10.0.0.1
			A.example.org. 10 IN A 10.0.0.2
			B.example.org. 10 IN A 10.0.0.2`, "10.0.0.1=down 10.0.0.2=up", `A.example.org. 10 IN A 10.0.0.2
			B.example.org. 10 IN A 10.0.0.2`, 2, Filtered},
		{"the fallback takes the place of the first", "192.0.2.1", 0, `a.example.org. 10 IN A 10.0.0.1
			b.example.org. 10 IN TXT x
			a.example.org. 10 IN A 10.0.0.2`, "10.0.0.1=down 10.0.0.2=down", `a.example.org. 10 IN A 192.0.2.1
			b.example.org. 10 IN TXT x`, 2, Substituted},

		{"alias", "all", 0, `w.example.org. 300 IN CNAME x.example.org.
			x.example.org. 300 IN CNAME a.example.org.
			` + four, part, `w.example.org. 300 IN CNAME x.example.org.
			x.example.org. 300 IN CNAME a.example.org.
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"alias by DNAME", "all", 0, `example.net. 300 IN DNAME example.org.
			a.example.net. 300 IN CNAME a.example.org.
			` + four, part, `example.net. 300 IN DNAME example.org.
			a.example.net. 300 IN CNAME a.example.org.
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 2, Filtered},
		{"aliases are left of NODATA", "nodata", 0, "w.example.org. 300 IN CNAME a.example.org.\n" + four, down,
			"w.example.org. 300 IN CNAME a.example.org.", 4, Substituted},

		{"other classes", "nodata", 0, `a.example.org. 300 CH A 10.0.0.1
			a.example.org. 300 HS A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.3
			a.example.org. 10 IN A 10.0.0.4`, "10.0.0.1=down 10.0.0.2=down 10.0.0.3=down 10.0.0.4=up", `a.example.org. 300 CH A 10.0.0.1
			a.example.org. 300 HS A 10.0.0.2
			a.example.org. 10 IN A 10.0.0.4`, 1, Filtered},
		{"IPv6", "all", 0, `a.example.org. 10 IN AAAA 2001:db8::1
			a.example.org. 10 IN AAAA 2001:db8::2`, "2001:db8::1=down 2001:db8::2=up", "a.example.org. 10 IN AAAA 2001:db8::2", 1, Filtered},
		{"IPv4-mapped IPv6 is not the IPv4 address", "all", 0, `a.example.org. 10 IN AAAA ::ffff:10.0.0.1
			a.example.org. 10 IN AAAA 2001:db8::2`, "10.0.0.1=down 2001:db8::2=up", same, 0, Untouched},

		{"TTL of what is watched", "all", 0, `a.example.org. 300 IN A 10.0.0.1
			a.example.org. 31 IN A 10.0.0.2
			a.example.org. 29 IN A 10.0.0.9`, "10.0.0.1=up 10.0.0.2=up", `a.example.org. 30 IN A 10.0.0.1
			a.example.org. 30 IN A 10.0.0.2
			a.example.org. 29 IN A 10.0.0.9`, 0, Untouched},
		{"TTL of what is not watched", "all", 0, `a.example.org. 300 IN A 10.0.0.8
			a.example.org. 300 IN A 10.0.0.9`, "", same, 0, Untouched},
		{"TTL of a single address", "all", 0, "a.example.org. 300 IN A 10.0.0.1", "10.0.0.1=up", "a.example.org. 30 IN A 10.0.0.1", 0, Untouched},
		{"TTL of a single address that nobody watches", "nodata", 0, "a.example.org. 300 IN A 10.0.0.1", "", same, 0, Untouched},
		{"TTL of one RRset of two", "all", 0, `w.example.org. 300 IN CNAME a.example.org.
			a.example.org. 300 IN A 10.0.0.1
			a.example.org. 300 IN A 10.0.0.2
			b.example.org. 300 IN A 10.0.0.8
			b.example.org. 300 IN A 10.0.0.9`, "10.0.0.1=up", `w.example.org. 300 IN CNAME a.example.org.
			a.example.org. 30 IN A 10.0.0.1
			a.example.org. 30 IN A 10.0.0.2
			b.example.org. 300 IN A 10.0.0.8
			b.example.org. 300 IN A 10.0.0.9`, 0, Untouched},
		{"TTL of a signature", "all", 0, `a.example.org. 300 IN A 10.0.0.1
			a.example.org. 300 IN A 10.0.0.2
			A.example.org. 300` + filterSig + `
			b.example.org. 300` + filterSig, "10.0.0.1=up", `a.example.org. 30 IN A 10.0.0.1
			a.example.org. 30 IN A 10.0.0.2
			A.example.org. 30` + filterSig + `
			b.example.org. 300` + filterSig, 0, Untouched},
		{"TTL of IPv6, and of what the fallback spares", "all", 0, `a.example.org. 300 IN AAAA 2001:db8::1
			a.example.org. 300 IN AAAA 2001:db8::2`, "2001:db8::1=down 2001:db8::2=down", `a.example.org. 30 IN AAAA 2001:db8::1
			a.example.org. 30 IN AAAA 2001:db8::2`, 0, Substituted},
		{"TTL of fallback addresses", "192.0.2.1", 0, `a.example.org. 300 IN A 10.0.0.1`, down, "a.example.org. 30 IN A 192.0.2.1", 1, Substituted},
		{"TTL of fallback addresses is never raised", "192.0.2.1", 0, `a.example.org. 5 IN A 10.0.0.1`, down,
			"a.example.org. 5 IN A 192.0.2.1", 1, Substituted},
		{"TTL 0 stays", "all", 0, `a.example.org. 0 IN A 10.0.0.1
			a.example.org. 0 IN A 10.0.0.2`, "10.0.0.1=up 10.0.0.2=up", same, 0, Untouched},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request, m := filterMessages(t, tt.answer)
			before := filterTake(m)
			got, result := filter(m, request, filterPolicy(t, tt.fallback, tt.panics), filterVerdicts(t, tt.verdicts))
			before.expectUnchanged(t)
			if (got == m) != (tt.want == same) {
				t.Errorf("the very message: %v", got == m)
			}
			if tt.want != same {
				if got, want := lab.RecordText(got.Answer), lab.RecordText(lab.Records(t, tt.want)); got != want {
					t.Errorf("got\n%swant\n%s", got, want)
				}
			}
			if result.Removed != tt.removed || result.Outcome != tt.outcome {
				t.Errorf("removed %d, %v; want %d, %v", result.Removed, result.Outcome, tt.removed, tt.outcome)
			}
			wantRcode := dns.RcodeSuccess
			if tt.fallback == "servfail" && tt.want == "" {
				wantRcode = dns.RcodeServerFailure
			}
			if got.Rcode != wantRcode {
				t.Errorf("rcode %s", dns.RcodeToString[got.Rcode])
			}
			if _, err := got.Pack(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The number of addresses is told whatever becomes of them, and is 0 only where there are none.
func TestFilterCountsAddresses(t *testing.T) {
	request, m := filterMessages(t, `w.example.org. 1 IN CNAME a.example.org.
		a.example.org. 1 IN A 10.0.0.1
		a.example.org. 1 CH A 10.0.0.2
		a.example.org. 1 IN AAAA 2001:db8::1`)
	if _, result := filter(m, request, filterPolicy(t, "all", 0), filterVerdicts(t, "")); result.Addresses != 2 {
		t.Errorf("%d addresses, want 2", result.Addresses)
	}
}

// Addresses that are no addresses: forward passes on an A record without data, plugins may make others.
func TestFilterOddAddresses(t *testing.T) {
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: "a.example.org.", Rrtype: rrtype, Class: dns.ClassINET, Ttl: 300}
	}
	a := func(ip net.IP) dns.RR { return &dns.A{Hdr: header(dns.TypeA), A: ip} }
	aaaa := func(ip net.IP) dns.RR { return &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: ip} }
	odd := []dns.RR{a(nil), a(net.IP{1, 2, 3}), aaaa(nil), aaaa(net.IP{1}), a(make(net.IP, 17))}
	good := []dns.RR{
		a(net.ParseIP("10.0.0.1")), a(net.ParseIP("10.0.0.1").To4()), // 16 and 4 octets, the same address
		a(net.IP{10, 0, 0, 2}), aaaa(net.ParseIP("2001:db8::1")),
	}
	request := new(dns.Msg)
	request.SetQuestion("a.example.org.", dns.TypeA)
	m := new(dns.Msg)
	m.SetReply(request)
	m.Answer = slices.Concat(odd, good)
	before := filterTake(m)
	got, result := filter(m, request, filterPolicy(t, "all", 0), filterVerdicts(t, "10.0.0.1=down 10.0.0.2=up 2001:db8::1=up"))
	before.expectUnchanged(t)
	if len(got.Answer) != len(odd)+2 || !slices.Equal(got.Answer[:len(odd)], odd) {
		t.Errorf("got\n%s", lab.RecordText(got.Answer))
	}
	if result.Addresses != 4 || result.Removed != 2 || result.Outcome != Filtered {
		t.Errorf("%+v", result)
	}
}

// More RRsets than are compared one by one.
func TestFilterManySets(t *testing.T) {
	for _, sets := range []int{manyKeys - 1, manyKeys, manyKeys + 1, 300} {
		var answer, verdicts strings.Builder
		for i := range sets {
			// The addresses of a set come apart and under different cases.
			fmt.Fprintf(&answer, "n%d.example.org. 10 IN A 10.1.%d.%d\n", i, i/250, i%250)
		}
		for i := range sets {
			fmt.Fprintf(&answer, "N%d.Example.ORG. 10 IN A 10.2.%d.%d\n", i, i/250, i%250)
			fmt.Fprintf(&verdicts, "10.1.%d.%d=down 10.2.%d.%d=up ", i/250, i%250, i/250, i%250)
		}
		answer.WriteString("N1.EXAMPLE.org. 10" + filterSig + "\n")
		request, m := filterMessages(t, answer.String())
		before := filterTake(m)
		got, result := filter(m, request, filterPolicy(t, "all", 0), filterVerdicts(t, verdicts.String()))
		before.expectUnchanged(t)
		// The signed set keeps both.
		if result.Removed != sets-1 || len(got.Answer) != sets+2 {
			t.Errorf("%d sets: removed %d, left %d records", sets, result.Removed, len(got.Answer))
		}
		if first := got.Answer[0].String(); !strings.HasPrefix(first, "N1.") || !strings.HasSuffix(first, "10.2.0.1") {
			t.Errorf("%d sets: the first is %s", sets, first)
		}
	}
}

// Only what could change the answer is asked for, and every address of it once.
func TestFilterAsks(t *testing.T) {
	const answer = `a.example.org. 1 IN A 10.0.0.1
		a.example.org. 1 IN A 10.0.0.1
		b.example.org. 1 IN A 10.0.0.2
		b.example.org. 1 IN A 10.0.0.3`
	for fallbackIs, want := range map[string]string{
		"all":    "10.0.0.1:0 10.0.0.1:0 10.0.0.2:0 10.0.0.3:0",
		"nodata": "10.0.0.1:0 10.0.0.1:0 10.0.0.2:0 10.0.0.3:0",
	} {
		request, m := filterMessages(t, answer)
		states := filterVerdicts(t, "")
		filter(m, request, filterPolicy(t, fallbackIs, 0), states)
		if got := strings.Trim(fmt.Sprint(states.asked), "[]"); got != want {
			t.Errorf("fallback %s: asked for %s, want %s", fallbackIs, got, want)
		}
	}
}

// What settle brings counts, and nothing of what was known before: states may have gone either way.
func TestFilterAfterSettling(t *testing.T) {
	const answer = `a.example.org. 1 IN A 10.0.0.1
		a.example.org. 1 IN A 10.0.0.2
		a.example.org. 1 IN A 10.0.0.3`
	request, m := filterMessages(t, answer)
	states := filterVerdicts(t, "10.0.0.1=down 10.0.0.2=unknown 10.0.0.3=unknown")
	states.later = filterVerdicts(t, "10.0.0.1=up 10.0.0.2=down 10.0.0.3=unknown").states
	got, _ := filter(m, request, filterPolicy(t, "all", 0), states)
	if want := "a.example.org. 1 IN A 10.0.0.1\na.example.org. 1 IN A 10.0.0.3\n"; lab.RecordText(got.Answer) != want {
		t.Errorf("got\n%swant\n%s", lab.RecordText(got.Answer), want)
	}
	if len(states.asked) != 6 {
		t.Errorf("asked %d times, want 6", len(states.asked))
	}
}

// The states in an anatomy are those of the last time it asked.
func TestFilterStatesVanish(t *testing.T) {
	request, m := filterMessages(t, `a.example.org. 300 IN A 10.0.0.1
		a.example.org. 300 IN A 10.0.0.2`)
	states := filterVerdicts(t, "10.0.0.1=down")
	states.later = filterBook{} // nothing is watched any more
	if got, _ := filter(m, request, filterPolicy(t, "all", 0), states); got != m {
		t.Errorf("got\n%s", lab.RecordText(got.Answer))
	}
}
