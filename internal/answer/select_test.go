package answer

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// selectPolicy reads properties as a Corefile has them, with ";" between them.
func selectPolicy(t testing.TB, properties string) Zone {
	t.Helper()
	zone := filterPolicyOf(Fallback{})
	zone.ClientBits4, zone.ClientBits6 = 24, 56
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for property := range strings.SplitSeq(properties, ";") {
		words := strings.Fields(property)
		if len(words) == 0 {
			continue
		}
		switch name, args := words[0], words[1:]; name {
		case "prefer":
			var tier []netip.Prefix
			for _, arg := range args {
				tier = append(tier, netip.MustParsePrefix(arg))
			}
			zone.Tiers.Add(tier)
		case "fallback":
			last := filterPolicy(t, "all", 0).Fallback
			for i, arg := range args {
				if strings.HasSuffix(arg, ".") {
					last.Names = append(last.Names, arg)
					continue
				}
				names := last.Names
				last = filterPolicy(t, strings.Join(args[i:], " "), 0).Fallback
				last.Names = names
				break
			}
			zone.Fallback = last
		case "panic":
			zone.Panic = number(args[0])
		case "pick":
			zone.Pick = number(args[0])
		case "weight":
			for _, arg := range args[1:] {
				zone.Weights.Set(netip.MustParsePrefix(arg), number(args[0]))
			}
		case "sort":
			zone.Sort = map[string]Order{"rtt": SortRTT, "client": SortClient}[args[0]]
		default:
			t.Fatalf("no such property: %q", name)
		}
	}
	return zone
}

// selectDraw draws for an address a number that grows with its last octet, so that the highest is picked first.
func selectDraw(addr netip.Addr) float64 {
	octets := addr.AsSlice()
	return (float64(octets[len(octets)-1]) + 0.5) / 256
}

// A policy that selects, case by case. The first address that is drawn is the one with the highest last octet.
func TestSelect(t *testing.T) {
	const same = "same"
	// Two in each of three sites, and one elsewhere.
	const sites = `a.example.org. 10 IN A 10.0.1.1
		a.example.org. 10 IN A 10.0.2.1
		a.example.org. 10 IN A 10.0.1.2
		a.example.org. 10 IN A 10.0.2.2
		a.example.org. 10 IN A 10.0.9.1`
	const prefer = "prefer 10.0.1.0/24; prefer 10.0.2.0/24"
	const up = "10.0.1.1=up 10.0.1.2=up 10.0.2.1=up 10.0.2.2=up 10.0.9.1=up"
	a := func(addrs string) string {
		var b strings.Builder
		for addr := range strings.FieldsSeq(addrs) {
			rrtype := "A"
			if strings.Contains(addr, ":") {
				rrtype = "AAAA"
			}
			b.WriteString("a.example.org. 10 IN " + rrtype + " " + addr + "\n")
		}
		return b.String()
	}
	four := a("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4")
	const fourUp = "10.0.0.1=up 10.0.0.2=up 10.0.0.3=up 10.0.0.4=up"
	const fourDown = "10.0.0.1=down 10.0.0.2=down 10.0.0.3=down 10.0.0.4=down"
	tests := []struct {
		name     string
		policy   string
		answer   string
		verdicts string
		standbys string // "name=address,address/TTL", of all types
		names    string // that can be resolved, such as "a.example.org.=2001:db8::1"
		want     string
		removed  int
		outcome  Outcome
	}{
		{"tiers: the first", prefer, sites, up, "", "", a("10.0.1.1 10.0.1.2"), 0, Selected},
		{"tiers: unknown is not down", prefer, sites, "10.0.1.1=down 10.0.1.2=unknown", "", "", a("10.0.1.2"), 1, Filtered},
		{"tiers: nobody watches", prefer, sites, "", "", "", a("10.0.1.1 10.0.1.2"), 0, Selected},
		{"tiers: the second", prefer, sites, "10.0.1.1=down 10.0.1.2=down 10.0.2.1=up 10.0.2.2=up", "", "", a("10.0.2.1 10.0.2.2"), 2, Filtered},
		{"tiers: the rest", prefer, sites, "10.0.1.1=down 10.0.1.2=down 10.0.2.1=down 10.0.2.2=down 10.0.9.1=up", "", "", a("10.0.9.1"), 4, Filtered},
		{"tiers: one is enough", prefer, sites, "10.0.1.1=down 10.0.1.2=up", "", "", a("10.0.1.2"), 1, Filtered},
		{"tiers: not for panic", prefer + "; panic 60", sites, "10.0.1.1=down 10.0.1.2=up 10.0.2.1=up", "", "", a("10.0.2.1 10.0.2.2"), 1, Filtered},
		{"tiers: panic in all", prefer + "; panic 60", sites, "10.0.1.1=down 10.0.2.1=down 10.0.9.1=down", "", "", sites, 0, Substituted},
		{"tiers: none lives", prefer, sites, "10.0.1.1=down 10.0.1.2=down 10.0.2.1=down 10.0.2.2=down 10.0.9.1=down", "", "", sites, 0, Substituted},
		{"tiers: a damped one before the fallback", prefer + "; fallback nodata", sites,
			"10.0.1.1=down 10.0.1.2=damped 10.0.2.1=damped 10.0.2.2=down 10.0.9.1=down", "", "", a("10.0.1.2"), 3, Filtered},
		{"tiers: no damped one before another tier", prefer, sites, "10.0.1.1=damped 10.0.1.2=damped 10.0.2.1=up 10.0.2.2=down", "", "", a("10.0.2.1"), 3, Filtered},
		{"tiers: the longest prefix", "prefer 10.0.0.0/8; prefer 10.0.1.0/24", sites, up, "", "", a("10.0.2.1 10.0.2.2 10.0.9.1"), 0, Selected},
		{"tiers: all in one", "prefer 10.0.0.0/8", sites, up, "", "", same, 0, Untouched},
		{"tiers: IPv6", "prefer 2001:db8:2::/48", a("2001:db8:1::1 2001:db8:2::1"), "", "", "", a("2001:db8:2::1"), 0, Selected},
		{"tiers: each family by itself", "prefer 10.0.2.0/24 2001:db8:2::/48", a("10.0.1.1 10.0.2.1 2001:db8:1::1 2001:db8:2::1"),
			"10.0.2.1=down 2001:db8:2::1=up", "", "", a("10.0.1.1 2001:db8:2::1"), 1, Filtered},
		{"tiers: signed by others", prefer, sites + "\na.example.org. 10" + filterSig, "10.0.1.1=down 10.0.1.2=up", "", "",
			a("10.0.1.2 10.0.2.1 10.0.2.2 10.0.9.1 10.0.1.1") + "a.example.org. 10" + filterSig, 0, Reordered},

		{"tiers: SRV", "prefer 10.0.2.0/24", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			_x._tcp.example.org. 10 IN SRV 0 0 80 b.
			_x._tcp.example.org. 10 IN SRV 1 0 80 a.
			--
			--
			a. 10 IN A 10.0.1.1
			b. 10 IN A 10.0.2.1`, "10.0.1.1:80=up 10.0.2.1:80=up", "", "", `_x._tcp.example.org. 10 IN SRV 0 0 80 b.
			_x._tcp.example.org. 10 IN SRV 1 0 80 a.
			--
			--
			a. 10 IN A 10.0.1.1
			b. 10 IN A 10.0.2.1`, 0, Selected},
		{"tiers: SRV, the second", "prefer 10.0.2.0/24", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			_x._tcp.example.org. 10 IN SRV 0 0 80 b.
			--
			--
			a. 10 IN A 10.0.1.1
			b. 10 IN A 10.0.2.1`, "10.0.1.1:80=up 10.0.2.1:80=down", "", "", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			--
			--
			a. 10 IN A 10.0.1.1`, 2, Filtered},
		{"tiers: glue", "prefer 10.0.2.0/24", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			--
			--
			a. 10 IN A 10.0.1.1
			a. 10 IN A 10.0.2.1`, "10.0.1.1:80=up 10.0.2.1:80=up", "", "", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			--
			--
			a. 10 IN A 10.0.2.1`, 0, Selected},
		{"tiers: glue that others need", "prefer 10.0.2.0/24", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			x.example.org. 10 IN MX 0 a.
			--
			--
			a. 10 IN A 10.0.1.1
			a. 10 IN A 10.0.2.1`, "10.0.1.1:80=up 10.0.2.1:80=up", "", "", same, 0, Untouched},
		{"tiers: hints", "prefer 10.0.2.0/24", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.1.1,10.0.2.1,10.0.2.2"`,
			"10.0.1.1:443=up 10.0.2.1:443=down 10.0.2.2:443=up", "", "", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.2.2"`, 1, Filtered},
		{"tiers: hints, the second", "prefer 10.0.2.0/24", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.1.1,10.0.2.1"`,
			"10.0.1.1:443=up 10.0.2.1:443=down", "", "", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.1.1"`, 1, Filtered},

		{"pick: as many as there are", "pick 4", four, fourUp, "", "", same, 0, Untouched},
		{"pick: one", "pick 1", four, fourUp, "", "", a("10.0.0.4"), 0, Selected},
		{"pick: three, as drawn", "pick 3", four, fourUp, "", "", a("10.0.0.4 10.0.0.3 10.0.0.2"), 0, Selected},
		{"pick: of those that live", "pick 2", four, "10.0.0.4=down 10.0.0.2=down", "", "", a("10.0.0.1 10.0.0.3"), 2, Filtered},
		{"pick: fewer live", "pick 2", four, "10.0.0.4=down 10.0.0.2=down 10.0.0.1=down", "", "", a("10.0.0.3"), 3, Filtered},
		{"pick: by weight", "pick 1; weight 1000 10.0.0.1/32", four, fourUp, "", "", a("10.0.0.1"), 0, Selected},
		{"pick: the nearest", "pick 2; sort rtt", four, "10.0.0.1=up,9ms 10.0.0.2=up,5ms 10.0.0.3=up,7ms 10.0.0.4=up", "", "",
			a("10.0.0.2 10.0.0.3"), 0, Selected},
		{"pick: in the first tier", "pick 1; " + prefer, sites, up, "", "", a("10.0.1.2"), 0, Selected},
		{"pick: of all that are dead", "pick 2", four, fourDown, "", "", a("10.0.0.4 10.0.0.3"), 0, Substituted},
		{"pick: each family", "pick 1", a("10.0.0.1 10.0.0.2 2001:db8::1 2001:db8::2"), "", "", "", a("10.0.0.2 2001:db8::2"), 0, Selected},
		{"pick: signed by others", "pick 1", four + "a.example.org. 10" + filterSig, fourUp, "", "", same, 0, Untouched},
		{"pick: of the fallback", "pick 1; fallback 192.0.2.1 192.0.2.2", four, fourDown, "", "", a("192.0.2.2"), 4, Substituted},
		{"pick: of a standby", "pick 1; fallback b.", four, fourDown, "b.=192.0.2.1,192.0.2.2/60", "", a("192.0.2.2"), 4, Substituted},
		{"pick: the first of a sorted standby", "pick 1; sort rtt; fallback b.", four, fourDown, "b.=192.0.2.1,192.0.2.2/60", "", a("192.0.2.1"), 4, Substituted},
		{"pick: hints", "pick 1", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1,10.0.0.2" ipv6hint="2001:db8::1,2001:db8::2"`,
			"", "", "", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.2" ipv6hint="2001:db8::2"`, 0, Selected},
		{"pick: hints beside their addresses", "pick 1", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1,10.0.0.2"
			a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2`, "", "", "", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.2"
			a.example.org. 10 IN A 10.0.0.2`, 0, Selected},
		{"pick: glue", "pick 1", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			--
			--
			a. 10 IN A 10.0.0.1
			a. 10 IN A 10.0.0.2
			a. 10 IN A 10.0.0.3`, "10.0.0.1:80=up 10.0.0.2:80=up 10.0.0.3:80=down", "", "", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			--
			--
			a. 10 IN A 10.0.0.2`, 1, Filtered},
		{"pick: what is there twice", "pick 1", a("10.0.0.1 10.0.0.1"), "", "", "", a("10.0.0.1"), 0, Selected},

		{"standby: lives", "fallback b.", four, fourDown, "b.=192.0.2.1/60", "", a("192.0.2.1"), 4, Substituted},
		{"standby: the smaller TTL", "fallback b.", four, fourDown, "b.=192.0.2.1/5", "", "a.example.org. 5 IN A 192.0.2.1", 4, Substituted},
		{"standby: is not needed", "fallback b.", four, fourUp, "b.=192.0.2.1/60", "", same, 0, Untouched},
		{"standby: the second", "fallback b. c.", four, fourDown, "c.=192.0.2.1/60", "", a("192.0.2.1"), 4, Substituted},
		{"standby: none", "fallback b. c.", four, fourDown, "", "", four, 0, Substituted},
		{"standby: none, addresses", "fallback b. 192.0.2.9", four, fourDown, "", "", a("192.0.2.9"), 4, Substituted},
		{"standby: none, nodata", "fallback b. nodata", four, fourDown, "", "", "", 4, Substituted},
		{"standby: itself", "fallback A.example.org.", four, fourDown, "A.example.org.=192.0.2.1/60", "", four, 0, Substituted},
		{"standby: before what is below panic", "panic 50; fallback b.", four, "10.0.0.1=up 10.0.0.2=down 10.0.0.3=down 10.0.0.4=down", "b.=192.0.2.1/60", "",
			a("192.0.2.1"), 4, Substituted},
		{"standby: not for SRV", "fallback b.", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			_x._tcp.example.org. 10 IN SRV 0 0 81 a.`, "10.0.0.1:80=down 10.0.0.1:81=down", "b.=192.0.2.1/60", "a.=10.0.0.1", `_x._tcp.example.org. 10 IN SRV 0 0 80 a.
			_x._tcp.example.org. 10 IN SRV 0 0 81 a.`, 0, Substituted},
		{"standby: signed by others", "fallback b.", four + "a.example.org. 10" + filterSig, fourDown, "b.=192.0.2.1/60", "",
			four + "a.example.org. 10" + filterSig, 0, Substituted},
		{"standby: behind a CNAME", "fallback b.", "w.example.org. 10 IN CNAME a.example.org.\n" + four, fourDown, "b.=192.0.2.1/60", "",
			"w.example.org. 10 IN CNAME a.example.org.\n" + a("192.0.2.1"), 4, Substituted},

		{"families: the other lives", "", a("2001:db8::1 2001:db8::2"), "2001:db8::1=down 2001:db8::2=down 10.0.0.1=up", "", "a.example.org.=10.0.0.1", "", 2, Substituted},
		{"families: IPv4 is dead", "", a("10.0.0.1"), "2001:db8::1=up 10.0.0.1=down", "", "a.example.org.=2001:db8::1", "", 1, Substituted},
		{"families: both are dead", "", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=down", "", "a.example.org.=10.0.0.1", a("2001:db8::1"), 0, Substituted},
		{"families: the other is unknown", "", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=unknown", "", "a.example.org.=10.0.0.1", a("2001:db8::1"), 0, Substituted},
		{"families: there is no other", "", a("2001:db8::1"), "2001:db8::1=down", "", "", a("2001:db8::1"), 0, Substituted},
		{"families: one of it lives", "panic 60", a("2001:db8::1 2001:db8::2"), "2001:db8::1=down 2001:db8::2=up 10.0.0.1=up", "", "a.example.org.=10.0.0.1",
			a("2001:db8::1 2001:db8::2"), 0, Substituted},
		{"families: in one message", "", a("10.0.0.1 2001:db8::1"), "10.0.0.1=up 2001:db8::1=down", "", "", a("10.0.0.1"), 1, Substituted},
		{"families: a standby comes first", "fallback b.", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=up", "b.=2001:db8::9/60", "a.example.org.=10.0.0.1",
			a("2001:db8::9"), 1, Substituted},
		{"families: behind a standby that is dead", "fallback b.", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=up", "", "a.example.org.=10.0.0.1", "", 1, Substituted},
		{"families: the standby of the other lives", "fallback b.", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=down", "b.=192.0.2.1/60", "a.example.org.=10.0.0.1", "", 1, Substituted},
		{"families: fallback addresses come first", "fallback 2001:db8::9", a("2001:db8::1"), "2001:db8::1=down 10.0.0.1=up", "", "a.example.org.=10.0.0.1",
			a("2001:db8::9"), 1, Substituted},
		{"families: signed by others", "", a("2001:db8::1") + "a.example.org. 10 IN RRSIG AAAA 13 3 10 20300101000000 20200101000000 7 example.org. c2ln",
			"2001:db8::1=down 10.0.0.1=up", "", "a.example.org.=10.0.0.1",
			a("2001:db8::1") + "a.example.org. 10 IN RRSIG AAAA 13 3 10 20300101000000 20200101000000 7 example.org. c2ln", 0, Substituted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := filterVerdicts(t, tt.verdicts)
			source.names, source.standbys = make(map[string][]netip.Addr), make(map[string]selectStandby)
			for word := range strings.FieldsSeq(tt.names) {
				name, addrs, _ := strings.Cut(word, "=")
				source.names[name] = selectAddrs(addrs)
			}
			for word := range strings.FieldsSeq(tt.standbys) {
				name, offer, _ := strings.Cut(word, "=")
				addrs, ttl, _ := strings.Cut(offer, "/")
				seconds, _ := strconv.Atoi(ttl)
				source.standbys[name] = selectStandby{selectAddrs(addrs), uint32(seconds)}
			}
			request, m := sectionsMessage(t, tt.answer)
			before := filterTake(m)
			q := &Query{Zone: selectPolicy(t, tt.policy), Request: request, Client: room(dns.MaxMsgSize), Draw: selectDraw}
			got, result := Filter(m, q, source)
			before.expectUnchanged(t)
			want := m
			if tt.want != same {
				_, want = sectionsMessage(t, "x. 10 IN A 10.0.0.1")
				want.Answer = nil
				if tt.want != "" {
					_, want = sectionsMessage(t, tt.want)
				}
			}
			if (got == m) != (want == m) {
				t.Errorf("the very message: %v", got == m)
			}
			for i, section := range [][]dns.RR{got.Answer, got.Extra} {
				if got, want := lab.RecordText(section), lab.RecordText([][]dns.RR{want.Answer, want.Extra}[i]); got != want {
					t.Errorf("section %d: got\n%swant\n%s", i, got, want)
				}
			}
			if result.Removed != tt.removed || result.Outcome != tt.outcome {
				t.Errorf("%d removed, %v; want %d, %v", result.Removed, result.Outcome, tt.removed, tt.outcome)
			}
		})
	}
}

// selectStandby is what a name has to offer.
type selectStandby struct {
	addrs []netip.Addr
	ttl   uint32
}

func selectAddrs(words string) (addrs []netip.Addr) {
	for word := range strings.SplitSeq(words, ",") {
		addrs = append(addrs, netip.MustParseAddr(word))
	}
	return addrs
}

// BenchmarkSelect has four addresses that are up, without selection, and with each kind of it.
func BenchmarkSelect(b *testing.B) {
	const four = `a.example.org. 10 IN A 10.0.0.1
		a.example.org. 10 IN A 10.0.0.2
		a.example.org. 10 IN A 10.0.1.1
		a.example.org. 10 IN A 10.0.1.2`
	for _, policy := range []string{
		"off", "prefer 10.0.0.0/16", "prefer 10.0.0.0/24", "pick 4", "pick 1", "pick 1; weight 100 10.0.0.0/24; weight 1 10.0.0.2/32",
		"sort rtt", "sort client", "sort client; pick 1", "prefer 10.0.0.0/24; sort client; pick 1; fallback b. nodata",
	} {
		b.Run(policy, func(b *testing.B) {
			source := filterVerdicts(b, "10.0.0.1=up,1ms 10.0.0.2=up,2ms 10.0.1.1=up,3ms 10.0.1.2=up,4ms")
			request, m := filterMessages(b, four)
			properties := policy
			if policy == "off" {
				properties = ""
			}
			q := &Query{Zone: selectPolicy(b, properties), Request: request, Client: room(dns.MaxMsgSize)}
			b.ReportAllocs()
			for b.Loop() {
				source.asked = source.asked[:0]
				Filter(m, q, source)
			}
		})
	}
}
