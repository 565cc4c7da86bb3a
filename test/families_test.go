package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Where one family of a name lives, that the other is all dead is no mistake of the checks: there is no answer with it.
// Where nothing lives, and where a stanza says what to answer, everything is as ever.
func TestLabOneFamilyDead(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		living, dead, changing := l.Host("living"), l.Host("dead"), l.Host("changing")
		living.Listen(443)
		service := changing.Listen(443)
		livingA, livingAAAA := living.Addrs4(2), living.Addrs6(2)
		deadA, deadAAAA := dead.Addrs4(2), dead.Addrs6(2)
		changingA, changingAAAA := changing.Addrs4(2), changing.Addrs6(2)
		names := map[string][]netip.Addr{
			"four":        slices.Concat(livingA, deadAAAA),
			"six":         slices.Concat(deadA, livingAAAA),
			"both":        slices.Concat(livingA, livingAAAA),
			"none":        slices.Concat(deadA, deadAAAA),
			"only4":       deadA,
			"only6":       deadAAAA,
			"one":         {livingA[0], deadAAAA[0]},
			"part":        {livingA[0], deadA[0], livingAAAA[0], deadAAAA[0]},
			"changing":    slices.Concat(changingA, deadAAAA),
			"comes":       slices.Concat(livingA, changingAAAA),
			"www.address": slices.Concat(livingA, deadAAAA),
			"www.nodata":  slices.Concat(livingA, deadAAAA),
			"www.fail":    slices.Concat(livingA, deadAAAA),
			"www.name":    slices.Concat(livingA, deadAAAA),
			"standby":     slices.Concat(livingA[1:], livingAAAA[1:]),
		}
		var lines []string
		for name, addrs := range names {
			line := name + " 300"
			for _, addr := range addrs {
				line += " " + addr.String()
			}
			lines = append(lines, line)
		}
		zone := standbyZone(t, "example.org.", append(lines, "alias 300 four")...)
		stanza := func(zone, fallback string) string {
			return fmt.Sprintf("shaker %s {\ninterval 100ms 20ms\ndamping off\nhold 4s\nttl 20s\nfallback %s\n}\n", zone, fallback)
		}
		backends := map[string]string{"file": "file " + zone, "cache": "cache 300\nfile " + zone}
		upstream := start(t, "example.org:0 {\nbind 127.0.0.1\nfile "+zone+"\n}\n")
		backends["forward"] = "cache 300\nforward . " + upstream.addr
		for backend, directives := range backends {
			s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+stanza("", "all")+
				stanza("address.example.org", "192.0.2.80 2001:db8::80")+
				stanza("nodata.example.org", "nodata")+
				stanza("fail.example.org", "servfail")+
				stanza("name.example.org", "standby.example.org")+
				directives+"\n}\n")
			expect := func(name string, four, six []netip.Addr) {
				t.Helper()
				for qtype, want := range map[uint16][]netip.Addr{dns.TypeA: four, dns.TypeAAAA: six} {
					s.until(name+".example.org.", qtype, want)
					m := s.ask(name+".example.org.", qtype)
					switch {
					case m.Rcode != dns.RcodeSuccess:
						t.Errorf("%s: %v", backend, m)
					case len(want) == 0:
						expectNegative(t, m, 20)
					}
				}
			}
			expect("four", livingA, nil)
			expect("six", nil, livingAAAA)
			expect("both", livingA, livingAAAA)
			expect("none", deadA, deadAAAA)
			expect("one", livingA[:1], nil)
			expect("part", livingA[:1], livingAAAA[:1])
			s.until("only4.example.org.", dns.TypeA, deadA)
			s.until("only6.example.org.", dns.TypeAAAA, deadAAAA)

			expect("www.address", livingA, []netip.Addr{netip.MustParseAddr("2001:db8::80")})
			expect("www.nodata", livingA, nil)
			expect("www.name", livingA, livingAAAA[1:])
			lab.Until(t, "a failure", func() bool { return s.ask("www.fail.example.org.", dns.TypeAAAA).Rcode == dns.RcodeServerFailure })
			s.until("www.fail.example.org.", dns.TypeA, livingA)

			// The alias stays, and there is nothing behind it.
			lab.UntilNil(t, func() error {
				got := clientView(s.ask("alias.example.org.", dns.TypeAAAA))
				if len(got) != 3 || !strings.HasPrefix(got[1], "alias.example.org. ") || !strings.Contains(got[2], " SOA ") {
					return fmt.Errorf("%s: an alias of what is dead:\n%s", backend, strings.Join(got, "\n"))
				}
				return nil
			})

			expect("changing", changingA, nil)
			expect("comes", livingA, changingAAAA)
			service.Close()
			expect("changing", changingA, deadAAAA)
			expect("comes", livingA, nil)
			service = changing.Listen(443)
			expect("changing", changingA, nil)
			expect("comes", livingA, changingAAAA)
		}
	})
}
