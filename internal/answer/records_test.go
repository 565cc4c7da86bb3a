package answer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What happens to records other than addresses, and to their additional addresses. "--" begins the additional
// section.
func TestFilterRecords(t *testing.T) {
	const same = "same" // the message itself, not a copy
	const services = `_sip._tcp.example.org. 10 IN SRV 0 0 5060 a.example.org.
		_sip._tcp.example.org. 10 IN SRV 0 0 5061 b.example.org.`
	const glue = `a.example.org. 10 IN A 10.0.0.1
		a.example.org. 10 IN AAAA 2001:db8::1
		b.example.org. 10 IN A 10.0.0.2`
	const signature = ` IN RRSIG SRV 8 3 10 20380101000000 20200101000000 1 example.org. c2ln`
	for _, tt := range []struct {
		name     string
		fallback string
		answer   string
		verdicts string
		want     string
		removed  int
		outcome  Outcome
	}{
		{"all up", "nodata", services + "\n--\n" + glue, "10.0.0.1:5060=up [2001:db8::1]:5060=up 10.0.0.2:5061=up", same, 0, Untouched},
		{"the port of the record counts", "all", services + "\n--\n" + glue,
			"10.0.0.1=down 10.0.0.2=down 10.0.0.1:5061=down 10.0.0.2:5060=down", same, 0, Untouched},
		{"a target goes with its addresses", "all", services + "\n--\n" + glue, "10.0.0.2:5061=down",
			`_sip._tcp.example.org. 10 IN SRV 0 0 5060 a.example.org.
			--
			a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN AAAA 2001:db8::1`, 2, Filtered},
		{"one address of a target goes", "all", services + "\n--\n" + glue, "10.0.0.1:5060=down",
			services + "\n--\na.example.org. 10 IN AAAA 2001:db8::1\nb.example.org. 10 IN A 10.0.0.2", 1, Filtered},
		{"an address that another port needs stays", "all", `_sip._tcp.example.org. 10 IN SRV 0 0 5060 a.example.org.
			_sip._tcp.example.org. 10 IN SRV 0 0 5061 a.example.org.
			--
			a.example.org. 10 IN A 10.0.0.1`, "10.0.0.1:5060=down 10.0.0.1:5061=up",
			`_sip._tcp.example.org. 10 IN SRV 0 0 5061 a.example.org.
			--
			a.example.org. 10 IN A 10.0.0.1`, 1, Filtered},
		{"a target without addresses stays", "all", services + "\n--\na.example.org. 10 IN A 10.0.0.1", "10.0.0.1:5060=down",
			"_sip._tcp.example.org. 10 IN SRV 0 0 5061 b.example.org.\n--\n", 2, Filtered},
		{"all down", "all", services + "\n--\n" + glue, "10.0.0.1:5060=down [2001:db8::1]:5060=down 10.0.0.2:5061=down",
			services + "\n--\n" + glue, 0, Substituted},
		{"addresses cannot stand in", "192.0.2.80", services + "\n--\n" + glue,
			"10.0.0.1:5060=down [2001:db8::1]:5060=down 10.0.0.2:5061=down", services + "\n--\n" + glue, 0, Substituted},
		{"signed", "all", services + "\n_sip._tcp.example.org. 10" + signature + "\n--\n" + glue,
			"10.0.0.1:5060=down [2001:db8::1]:5060=down 10.0.0.2:5061=up",
			`_sip._tcp.example.org. 10 IN SRV 0 0 5061 b.example.org.
			_sip._tcp.example.org. 10 IN SRV 0 0 5060 a.example.org.
			_sip._tcp.example.org. 10` + signature + "\n--\n" + glue, 0, Reordered},
		{"mixed case", "all", `_SIP._TCP.Example.org. 10 IN SRV 0 0 5060 A.example.ORG.
			_sip._tcp.example.org. 10 IN SRV 0 0 5061 b.example.org.
			--
			` + glue, "10.0.0.1:5060=down [2001:db8::1]:5060=down",
			"_sip._tcp.example.org. 10 IN SRV 0 0 5061 b.example.org.\n--\nb.example.org. 10 IN A 10.0.0.2", 3, Filtered},
		{"not over TCP", "all", `_sip._udp.example.org. 10 IN SRV 0 0 5060 a.example.org.
			_sip._udp.example.org. 10 IN SRV 0 0 5061 b.example.org.
			--
			` + glue, "10.0.0.1:5060=down [2001:db8::1]:5060=down 10.0.0.2:5061=up", same, 0, Untouched},
		{"another class", "all", `_sip._tcp.example.org. 10 CH SRV 0 0 5060 a.example.org.
			_sip._tcp.example.org. 10 CH SRV 0 0 5061 b.example.org.
			--
			` + glue, "10.0.0.1:5060=down [2001:db8::1]:5060=down", same, 0, Untouched},
		{"mail exchangers", "all", `example.org. 10 IN MX 10 a.example.org.
			example.org. 10 IN MX 20 b.example.org.
			--
			` + glue, "10.0.0.1=down [2001:db8::1]:443=down 10.0.0.2=down", same, 0, Untouched},

		{"hints are thinned", "all", `a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1,10.0.0.2" ipv6hint="2001:db8::1"`,
			"10.0.0.1:443=down 10.0.0.2:443=up [2001:db8::1]:443=up",
			`a.example.org. 10 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.2" ipv6hint="2001:db8::1"`, 1, Filtered},
		{"on the port of the record", "all", `a.example.org. 10 IN HTTPS 1 . port="8443" ipv4hint="10.0.0.1,10.0.0.2"`,
			"10.0.0.1:443=down 10.0.0.2:8443=down", `a.example.org. 10 IN HTTPS 1 . port="8443" ipv4hint="10.0.0.1"`, 1, Filtered},
		{"an empty hint goes", "all", `a.example.org. 10 IN HTTPS 1 b. ipv4hint="10.0.0.1" ipv6hint="2001:db8::1"`,
			"10.0.0.1:443=down [2001:db8::1]:443=up", `a.example.org. 10 IN HTTPS 1 b. ipv6hint="2001:db8::1"`, 1, Filtered},
		{"unless it is mandatory", "all", `a.example.org. 10 IN HTTPS 1 . mandatory="ipv4hint" ipv4hint="10.0.0.1,10.0.0.2"`,
			"10.0.0.1:443=down 10.0.0.2:443=down", same, 0, Untouched},
		{"the fallback is not for hints", "servfail", `a.example.org. 10 IN HTTPS 1 . ipv4hint="10.0.0.1"`, "10.0.0.1:443=down",
			"a.example.org. 10 IN HTTPS 1 .", 1, Filtered},
		{"an alias has no hints", "all", "a.example.org. 10 IN HTTPS 0 b.example.org.", "", same, 0, Untouched},
		{"signed hints", "all", `a.example.org. 10 IN HTTPS 1 . ipv4hint="10.0.0.1,10.0.0.2"
			a.example.org. 10` + strings.Replace(signature, "SRV", "HTTPS", 1), "10.0.0.1:443=down 10.0.0.2:443=up", same, 0, Untouched},

		{"everything of a name", "all", `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN AAAA 2001:db8::1
			a.example.org. 10 IN MX 10 a.example.org.
			a.example.org. 10 IN HTTPS 1 . ipv4hint="10.0.0.1,10.0.0.2"
			a.example.org. 10 IN TXT "x"`, "10.0.0.1=down 10.0.0.2=up 10.0.0.1:443=down 10.0.0.2:443=up",
			`a.example.org. 10 IN A 10.0.0.2
			a.example.org. 10 IN AAAA 2001:db8::1
			a.example.org. 10 IN MX 10 a.example.org.
			a.example.org. 10 IN HTTPS 1 . ipv4hint="10.0.0.2"
			a.example.org. 10 IN TXT "x"`, 2, Filtered},
		{"the rest of a name stays", "nodata", `a.example.org. 10 IN A 10.0.0.1
			a.example.org. 10 IN TXT "x"`, "10.0.0.1=down", `a.example.org. 10 IN TXT "x"`, 1, Substituted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request, m := filterSections(t, tt.answer)
			before := filterTake(m)
			got, result := filter(m, request, filterPolicy(t, tt.fallback, 0), filterVerdicts(t, tt.verdicts))
			before.expectUnchanged(t)
			want := m
			if tt.want == same {
				if got != m {
					t.Error("the message was copied")
				}
			} else {
				_, want = filterSections(t, tt.want)
			}
			if lab.RecordText(got.Answer) != lab.RecordText(want.Answer) || lab.RecordText(got.Extra) != lab.RecordText(want.Extra) {
				t.Errorf("got\n%s--\n%swant\n%s--\n%s",
					lab.RecordText(got.Answer), lab.RecordText(got.Extra), lab.RecordText(want.Answer), lab.RecordText(want.Extra))
			}
			if result.Removed != tt.removed || result.Outcome != tt.outcome {
				t.Errorf("%d removed, %v; want %d, %v", result.Removed, result.Outcome, tt.removed, tt.outcome)
			}
		})
	}
}

// filterSections is filterMessages for text with an additional section.
func filterSections(t testing.TB, text string) (request, m *dns.Msg) {
	t.Helper()
	answer, extra, _ := strings.Cut(text, "--")
	request, m = filterMessages(t, answer)
	m.Extra = lab.Records(t, extra)
	return request, m
}

// Nearest first, by whole milliseconds; what is down is last, and equals keep their order.
func TestFilterSort(t *testing.T) {
	const four = `a.example.org. 10 IN A 10.0.0.1
		a.example.org. 10 IN A 10.0.0.2
		a.example.org. 10 IN A 10.0.0.3
		a.example.org. 10 IN A 10.0.0.4`
	for _, tt := range []struct {
		name, answer, verdicts string
		want                   []byte // last octets
		outcome                Outcome
	}{
		{"by round trip", four, "10.0.0.1=up,4ms 10.0.0.2=up,3ms 10.0.0.3=up,2ms 10.0.0.4=up,1ms", []byte{4, 3, 2, 1}, Reordered},
		{"ties", four, "10.0.0.1=up,2100us 10.0.0.2=up,1900us 10.0.0.3=up,2000us 10.0.0.4=up,1100us", []byte{2, 4, 1, 3}, Reordered},
		{"in order already", four, "10.0.0.1=up,900us 10.0.0.2=up,100us 10.0.0.3=up,1ms 10.0.0.4=up,9s", []byte{1, 2, 3, 4}, Untouched},
		{"not known", four, "10.0.0.1=unknown 10.0.0.2=up,9s 10.0.0.4=up,1ms", []byte{4, 2, 1, 3}, Reordered},
		{"some down", four, "10.0.0.1=up,4ms 10.0.0.2=down,1ms 10.0.0.3=up,2ms 10.0.0.4=up,3ms", []byte{3, 4, 1}, Filtered},
		{"signed, some down", four + "\na.example.org. 10" + filterSig,
			"10.0.0.1=up,4ms 10.0.0.2=down,1ms 10.0.0.3=up,2ms 10.0.0.4=up,3ms", []byte{3, 4, 1, 2}, Reordered},
		{"all down", four, "10.0.0.1=down,4ms 10.0.0.2=down,3ms 10.0.0.3=down,2ms 10.0.0.4=down,1ms", []byte{1, 2, 3, 4}, Substituted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request, m := filterMessages(t, tt.answer)
			zone := filterPolicy(t, "all", 0)
			zone.Sort = SortRTT
			before := filterTake(m)
			got, result := filter(m, request, zone, filterVerdicts(t, tt.verdicts))
			before.expectUnchanged(t)
			var order []byte
			for _, rr := range got.Answer {
				if a, ok := rr.(*dns.A); ok {
					order = append(order, a.A.To4()[3])
				}
			}
			if !slices.Equal(order, tt.want) || result.Outcome != tt.outcome {
				t.Errorf("%v, %v; want %v, %v", order, result.Outcome, tt.want, tt.outcome)
			}
		})
	}
}

// Who can make up answers cannot have us compare millions of addresses.
func TestFilterManyPairs(t *testing.T) {
	for _, records := range []int{63, 64} {
		var text strings.Builder
		for i := range records {
			fmt.Fprintf(&text, "_x._tcp.example.org. 10 IN SRV 0 0 %d a.example.org.\n", 1000+i)
		}
		text.WriteString("--\n")
		for i := range 64 {
			fmt.Fprintf(&text, "a.example.org. 10 IN A 10.0.0.%d\n", i)
		}
		request, m := filterSections(t, text.String())
		states := filterVerdicts(t, "")
		if got, _ := filter(m, request, filterPolicy(t, "nodata", 0), states); got != m {
			t.Error("the message was copied")
		}
		// Each of them asks for the IPv6 addresses of its target too.
		if want := map[int]int{63: 63 * 64, 64: 0}[records]; len(states.asked) != want {
			t.Errorf("%d records with 64 addresses: asked for %d verdicts, want %d", records, len(states.asked), want)
		}
	}
}
