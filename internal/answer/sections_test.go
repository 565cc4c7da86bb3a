package answer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// sectionsCase is an answer with an authority and an additional section, which "--" begins, and what becomes of it.
type sectionsCase struct {
	name     string
	fallback string
	panics   int
	answer   string
	names    string // what the message lacks, such as "a.example.org.=10.0.0.1,2001:db8::1 b.example.org.=pending"
	verdicts string
	want     string // "same" for the message itself
	removed  int
	outcome  Outcome
}

func (tt *sectionsCase) run(t *testing.T) {
	request, m := sectionsMessage(t, tt.answer)
	source := filterVerdicts(t, tt.verdicts)
	source.names, source.pending = make(map[string][]netip.Addr), make(map[string]bool)
	for _, word := range strings.Fields(tt.names) {
		name, found, _ := strings.Cut(word, "=")
		if source.pending[name] = found == "pending"; source.pending[name] {
			continue
		}
		for _, addr := range strings.Split(found, ",") {
			source.names[name] = append(source.names[name], netip.MustParseAddr(addr))
		}
	}
	before := filterTake(m)
	got, result := filter(m, request, filterPolicy(t, tt.fallback, tt.panics), source)
	before.expectUnchanged(t)
	want := m
	if tt.want != "same" {
		_, want = sectionsMessage(t, tt.want)
	}
	if (got == m) != (want == m) {
		t.Errorf("the very message: %v", got == m)
	}
	if sectionsText(got) != sectionsText(want) {
		t.Errorf("got\n%swant\n%s", sectionsText(got), sectionsText(want))
	}
	if result.Removed != tt.removed || result.Outcome != tt.outcome {
		t.Errorf("%d removed, %v; want %d, %v", result.Removed, result.Outcome, tt.removed, tt.outcome)
	}
}

// sectionsMessage returns a request for the first name in the answer, and the answer to it.
func sectionsMessage(t testing.TB, text string) (request, m *dns.Msg) {
	t.Helper()
	parts := append(strings.Split(text, "--"), "", "")
	request, m = filterMessages(t, parts[0])
	m.Ns, m.Extra = lab.Records(t, parts[1]), lab.Records(t, parts[2])
	return request, m
}

func sectionsText(m *dns.Msg) string {
	return lab.RecordText(m.Answer) + "--\n" + lab.RecordText(m.Ns) + "--\n" + lab.RecordText(m.Extra)
}

func sectionsSig(rrtype uint16) string {
	return " IN RRSIG " + dns.TypeToString[rrtype] + " 13 3 300 20380101000000 20200101000000 1 example.org. c2ln"
}

// A truncated answer is filtered like any other, and stays truncated: what is left is not all that there is.
func TestFilterTruncated(t *testing.T) {
	const answer = `a.example.org. 300 IN A 10.7.0.1
		a.example.org. 300 IN A 10.7.0.2
		a.example.org. 300 IN A 10.7.0.3`
	for _, tt := range []struct{ fallback, verdicts, want string }{
		{"all", "10.7.0.1=down 10.7.0.2=up 10.7.0.3=down", "a.example.org. 30 IN A 10.7.0.2\n"},
		{"nodata", "10.7.0.1=down 10.7.0.2=down 10.7.0.3=down", ""},
		{"192.0.2.7", "10.7.0.1=down 10.7.0.2=down 10.7.0.3=down", "a.example.org. 30 IN A 192.0.2.7\n"},
	} {
		request, m := filterMessages(t, answer)
		m.Truncated = true
		got, _ := filter(m, request, filterPolicy(t, tt.fallback, 0), filterVerdicts(t, tt.verdicts))
		if lab.RecordText(got.Answer) != tt.want || !got.Truncated {
			t.Errorf("%s: TC %v,\n%s", tt.fallback, got.Truncated, lab.RecordText(got.Answer))
		}
	}
}

// HTTPS and SVCB records: hints and glue at their ports.
func TestFilterBindings(t *testing.T) {
	const glue = `t.example.org. 300 IN A 10.7.0.1
		t.example.org. 300 IN A 10.7.0.2
		t.example.org. 300 IN AAAA 2001:db8::7`
	const cappedGlue = `t.example.org. 30 IN A 10.7.0.2
		t.example.org. 30 IN AAAA 2001:db8::7`
	for _, tt := range []sectionsCase{
		{name: "the port in the name", fallback: "all",
			answer:   `_8443._https.example.org. 300 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.1,10.7.0.2`,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=down 10.7.0.1:8443=up 10.7.0.2:8443=down",
			want:     `_8443._https.example.org. 30 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.1`, removed: 1, outcome: Filtered},
		{name: "the port in the name, without hints", fallback: "all",
			answer:   "_8443._https.example.org. 300 IN HTTPS 1 t.example.org.\n----\n" + glue,
			verdicts: "10.7.0.1:443=up 10.7.0.2:443=down 10.7.0.1:8443=down 10.7.0.2:8443=up [2001:db8::7]:8443=unknown",
			want:     "_8443._https.example.org. 300 IN HTTPS 1 t.example.org.\n----\n" + cappedGlue, removed: 1, outcome: Filtered},
		{name: "DNS over TLS", fallback: "all",
			answer:   "_dns.example.org. 300 IN SVCB 1 t.example.org. alpn=dot ipv4hint=10.7.0.1,10.7.0.2\n----\n" + glue,
			verdicts: "10.7.0.1:443=up 10.7.0.1:853=down 10.7.0.2:853=up [2001:db8::7]:443=down",
			want: "_dns.example.org. 30 IN SVCB 1 t.example.org. alpn=dot ipv4hint=10.7.0.2\n----\n" +
				strings.Replace(cappedGlue, "30 IN AAAA", "300 IN AAAA", 1), removed: 2, outcome: Filtered},
		{name: "one of two ports is enough", fallback: "all",
			answer: `_dns.example.org. 300 IN SVCB 1 . alpn=dot,h2 ipv4hint=10.7.0.1,10.7.0.2,10.7.0.3,10.7.0.4`,
			verdicts: "10.7.0.1:853=down 10.7.0.1:443=up 10.7.0.2:853=down 10.7.0.2:443=down 10.7.0.3:853=down " +
				"10.7.0.4:853=unknown 10.7.0.4:443=down",
			want: `_dns.example.org. 30 IN SVCB 1 . alpn=dot,h2 ipv4hint=10.7.0.1,10.7.0.3,10.7.0.4`, removed: 1, outcome: Filtered},
		{name: "what is spoken by QUIC alone is not checked", fallback: "all",
			answer:   "a.example.org. 300 IN HTTPS 1 t.example.org. alpn=h3 no-default-alpn ipv4hint=10.7.0.1\n----\n" + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=down", want: "same"},
		{name: "all of the glue may go", fallback: "all",
			answer:   "a.example.org. 300 IN HTTPS 1 t.example.org.\n----\n" + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=down [2001:db8::7]:443=down",
			want:     "a.example.org. 300 IN HTTPS 1 t.example.org.", removed: 3, outcome: Filtered},
		{name: "glue of the owner itself", fallback: "all",
			answer:   "t.example.org. 300 IN HTTPS 1 .\n----\n" + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=up [2001:db8::7]:443=up",
			want:     "t.example.org. 300 IN HTTPS 1 .\n----\n" + cappedGlue, removed: 1, outcome: Filtered},
		{name: "an alias to nowhere has no glue", fallback: "all",
			answer:   "t.example.org. 300 IN HTTPS 0 .\n----\n" + glue,
			verdicts: "10.7.0.1:443=down", want: "same"},
		{name: "what another port needs", fallback: "all",
			answer: `a.example.org. 300 IN HTTPS 1 t.example.org.
				a.example.org. 300 IN HTTPS 2 t.example.org. port=8443
				--
				--
				` + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.1:8443=up 10.7.0.2:443=down 10.7.0.2:8443=down",
			want: `a.example.org. 300 IN HTTPS 1 t.example.org.
				a.example.org. 300 IN HTTPS 2 t.example.org. port=8443
				--
				--
				t.example.org. 30 IN A 10.7.0.1
				t.example.org. 300 IN AAAA 2001:db8::7`, removed: 1, outcome: Filtered},
		{name: "behind an alias", fallback: "all",
			answer: `a.example.org. 300 IN HTTPS 0 t.example.org.
				--
				--
				T.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1,10.7.0.2
				t.example.org. 300` + sectionsSig(dns.TypeA) + `
				` + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=up [2001:db8::7]:443=down",
			want: `a.example.org. 300 IN HTTPS 0 t.example.org.
				--
				--
				T.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.2
				t.example.org. 30` + sectionsSig(dns.TypeA) + `
				t.example.org. 30 IN A 10.7.0.1
				t.example.org. 30 IN A 10.7.0.2`, removed: 2, outcome: Filtered},
		{name: "signed behind an alias", fallback: "all",
			answer: `a.example.org. 300 IN HTTPS 0 t.example.org.
				--
				--
				t.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1,10.7.0.2
				t.example.org. 300` + sectionsSig(dns.TypeHTTPS) + `
				` + glue,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=up [2001:db8::7]:443=up",
			want: `a.example.org. 300 IN HTTPS 0 t.example.org.
				--
				--
				t.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1,10.7.0.2
				t.example.org. 300` + sectionsSig(dns.TypeHTTPS) + `
				` + cappedGlue, removed: 1, outcome: Filtered},
		{name: "nothing but an alias is no NODATA", fallback: "nodata",
			answer: `w.example.org. 300 IN CNAME a.example.org.
				--
				example.org. 300 IN NS ns.example.org.
				--
				a.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1,10.7.0.2`,
			verdicts: "10.7.0.1:443=down 10.7.0.2:443=down",
			want: `w.example.org. 300 IN CNAME a.example.org.
				--
				example.org. 300 IN NS ns.example.org.
				--
				a.example.org. 30 IN HTTPS 1 .`, removed: 2, outcome: Filtered},
		{name: "one TTL for all of an RRset", fallback: "all",
			answer: `a.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1
				a.example.org. 300 IN HTTPS 2 . alpn=h3 no-default-alpn
				a.example.org. 300` + sectionsSig(dns.TypeSVCB),
			verdicts: "10.7.0.1:443=up",
			want: `a.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.1
				a.example.org. 30 IN HTTPS 2 . alpn=h3 no-default-alpn
				a.example.org. 300` + sectionsSig(dns.TypeSVCB)},
	} {
		t.Run(tt.name, tt.run)
	}
}

// SRV records: glue, and what the message lacks.
func TestFilterTargets(t *testing.T) {
	const two = `_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.
		_sip._tcp.example.org. 300 IN SRV 0 0 5070 u.example.org.`
	const capped = "_sip._tcp.example.org. 30 IN SRV 0 0 5070 u.example.org."
	for _, tt := range []sectionsCase{
		{name: "without any glue", fallback: "all", answer: two,
			names:    "t.example.org.=10.7.0.1,2001:db8::7 u.example.org.=10.7.0.2",
			verdicts: "10.7.0.1:5070=down [2001:db8::7]:5070=down 10.7.0.2:5070=up",
			want:     capped, removed: 1, outcome: Filtered},
		{name: "the other family lives", fallback: "all", answer: two + "\n----\nt.example.org. 300 IN A 10.7.0.1",
			names:    "t.example.org.=2001:db8::7 u.example.org.=10.7.0.2",
			verdicts: "10.7.0.1:5070=down [2001:db8::7]:5070=up 10.7.0.2:5070=up",
			want:     strings.ReplaceAll(two, " 300 ", " 30 "), removed: 1, outcome: Filtered},
		{name: "the other family is not known", fallback: "all", answer: two + "\n----\nt.example.org. 300 IN AAAA 2001:db8::7",
			names:    "t.example.org.=pending u.example.org.=10.7.0.2",
			verdicts: "[2001:db8::7]:5070=down 10.7.0.2:5070=up",
			want:     strings.ReplaceAll(two, " 300 ", " 30 "), removed: 1, outcome: Filtered},
		{name: "the other family is down, too", fallback: "all", answer: two + "\n----\nt.example.org. 300 IN AAAA 2001:db8::7",
			names:    "t.example.org.=10.7.0.1 u.example.org.=10.7.0.2",
			verdicts: "[2001:db8::7]:5070=down 10.7.0.1:5070=down 10.7.0.2:5070=up",
			want:     capped, removed: 2, outcome: Filtered},
		{name: "nothing is known", fallback: "nodata", answer: two,
			names: "t.example.org.=pending u.example.org.=pending", want: "same"},
		{name: "a name without addresses is not down", fallback: "nodata", answer: two,
			names: "u.example.org.=10.7.0.2", verdicts: "10.7.0.2:5070=down",
			want: "_sip._tcp.example.org. 30 IN SRV 0 0 5070 t.example.org.", removed: 1, outcome: Filtered},
		{name: "alone, without glue", fallback: "all", answer: "_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.",
			names: "t.example.org.=10.7.0.1", verdicts: "10.7.0.1:5070=down", want: "same"},
		{name: "alone, with glue of one family", fallback: "all",
			answer: "_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.\n----\nt.example.org. 300 IN A 10.7.0.1",
			names:  "t.example.org.=2001:db8::7", verdicts: "10.7.0.1:5070=down [2001:db8::7]:5070=up",
			want: "_sip._tcp.example.org. 30 IN SRV 0 0 5070 t.example.org.", removed: 1, outcome: Filtered},
		{name: "alone, with NODATA", fallback: "nodata",
			answer: `w.example.org. 300 IN CNAME _sip._tcp.example.org.
				_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.
				--
				example.org. 20 IN SOA ns.example.org. hostmaster.example.org. 1 2 3 4 20`,
			names: "t.example.org.=10.7.0.1", verdicts: "10.7.0.1:5070=down",
			want: `w.example.org. 300 IN CNAME _sip._tcp.example.org.
				--
				example.org. 20 IN SOA ns.example.org. hostmaster.example.org. 1 2 3 4 20`, removed: 1, outcome: Substituted},
		{name: "in panic nobody loses an address", fallback: "all", panics: 51,
			answer:   strings.ReplaceAll(two, " 300 ", " 30 ") + "\n----\nt.example.org. 30 IN A 10.7.0.1\nt.example.org. 30 IN AAAA 2001:db8::7",
			names:    "u.example.org.=10.7.0.2",
			verdicts: "10.7.0.1:5070=down [2001:db8::7]:5070=up 10.7.0.2:5070=down",
			want:     strings.ReplaceAll(two, " 300 ", " 30 ") + "\n----\nt.example.org. 30 IN A 10.7.0.1\nt.example.org. 30 IN AAAA 2001:db8::7",
			outcome:  Substituted},
		{name: "Consul", fallback: "all",
			answer: `web.service.consul. 300 IN SRV 1 1 8080 t.node.consul.
				web.service.consul. 300 IN SRV 1 1 8080 u.node.consul.
				--
				--
				t.node.consul. 300 IN A 10.7.0.1
				u.node.consul. 300 IN A 10.7.0.2`,
			verdicts: "10.7.0.1:8080=up 10.7.0.2:8080=down",
			want: `web.service.consul. 30 IN SRV 1 1 8080 t.node.consul.
				--
				--
				t.node.consul. 30 IN A 10.7.0.1`, removed: 2, outcome: Filtered},
		{name: "another protocol", fallback: "all", answer: strings.ReplaceAll(two, "_tcp", "_quic"),
			names:    "t.example.org.=10.7.0.1 u.example.org.=10.7.0.2",
			verdicts: "10.7.0.1:5070=down 10.7.0.2:5070=up", want: "same"},
	} {
		t.Run(tt.name, tt.run)
	}
}

// An address in the additional section goes when nobody can use it, or should, and stays where somebody may need it.
func TestFilterGlue(t *testing.T) {
	const answer = `_sip._tcp.example.org. 20 IN SRV 0 0 5070 t.example.org.
		_sip._tcp.example.org. 20 IN SRV 0 0 5070 u.example.org.`
	const glue = `t.example.org. 300 IN A 10.7.0.1
		t.example.org. 300 IN AAAA 2001:db8::7
		u.example.org. 300 IN A 10.7.0.2`
	const verdicts = "10.7.0.1:5070=down [2001:db8::7]:5070=down 10.7.0.2:5070=up"
	const thinned = "_sip._tcp.example.org. 20 IN SRV 0 0 5070 u.example.org."
	const thinnedGlue = "u.example.org. 30 IN A 10.7.0.2"
	const cappedGlue = `t.example.org. 30 IN A 10.7.0.1
		t.example.org. 30 IN AAAA 2001:db8::7
		u.example.org. 30 IN A 10.7.0.2`
	for _, tt := range []sectionsCase{
		{name: "nobody needs it", answer: answer + "\n----\n" + glue, want: thinned + "\n----\n" + thinnedGlue, removed: 3},
		{name: "a name server", answer: answer + "\n--\nexample.org. 300 IN NS T.example.org.\n--\n" + glue,
			want: thinned + "\n--\nexample.org. 300 IN NS T.example.org.\n--\n" + cappedGlue, removed: 1},
		{name: "a mail exchanger", answer: answer + "\nexample.org. 300 IN MX 10 t.example.org.\n----\n" + glue,
			want: thinned + "\nexample.org. 300 IN MX 10 t.example.org.\n----\n" + cappedGlue, removed: 1},
		{name: "a service that is not checked", answer: answer + "\n_sip._udp.example.org. 300 IN SRV 0 0 5070 t.example.org.\n----\n" + glue,
			want: thinned + "\n_sip._udp.example.org. 300 IN SRV 0 0 5070 t.example.org.\n----\n" + cappedGlue, removed: 1},
		{name: "a service that nobody asked for", answer: answer + "\n----\n_x._tcp.example.org. 300 IN SRV 0 0 80 t.example.org.\n" + glue,
			want: thinned + "\n----\n_x._tcp.example.org. 300 IN SRV 0 0 80 t.example.org.\n" + cappedGlue, removed: 1},
		{name: "a binding that is not checked", answer: answer + "\n----\nt.example.org. 300 IN HTTPS 1 . port=0\n" + glue,
			want: thinned + "\n----\nt.example.org. 300 IN HTTPS 1 . port=0\n" + cappedGlue, removed: 1},
		{name: "a binding in the authority section", answer: answer + "\n--\nx.example.org. 300 IN SVCB 1 t.example.org.\n--\n" + glue,
			want: thinned + "\n--\nx.example.org. 300 IN SVCB 1 t.example.org.\n--\n" + cappedGlue, removed: 1},
		{name: "a signature of one family", answer: answer + "\n----\nt.example.org. 300" + sectionsSig(dns.TypeAAAA) + "\n" + glue,
			want: thinned + "\n----\nt.example.org. 30" + sectionsSig(dns.TypeAAAA) + `
				t.example.org. 30 IN AAAA 2001:db8::7
				` + thinnedGlue, removed: 2},
	} {
		tt.fallback, tt.verdicts, tt.outcome = "all", verdicts, Filtered
		t.Run(tt.name, tt.run)
	}
}

// An RRset that stands in the answer and beside it has one set of members, and one TTL.
func TestFilterTwins(t *testing.T) {
	const answer = `t.example.org. 300 IN A 10.7.0.1
		t.example.org. 300 IN A 10.7.0.2`
	const delegation = "example.org. 300 IN NS t.example.org."
	for _, tt := range []sectionsCase{
		{name: "a name server that is in the answer", fallback: "all", answer: answer + "\n--\n" + delegation + "\n--\n" + answer,
			verdicts: "10.7.0.1=down 10.7.0.2=up",
			want:     "t.example.org. 30 IN A 10.7.0.2\n--\n" + delegation + "\n--\nt.example.org. 30 IN A 10.7.0.2",
			removed:  2, outcome: Filtered},
		{name: "another case", fallback: "all", answer: answer + "\n--\n--\n" + strings.ToUpper(answer),
			verdicts: "10.7.0.1=down 10.7.0.2=up",
			want:     "t.example.org. 30 IN A 10.7.0.2\n--\n--\nT.EXAMPLE.ORG. 30 IN A 10.7.0.2", removed: 2, outcome: Filtered},
		{name: "all up", fallback: "all", answer: answer + "\n--\n--\nt.example.org. 60 IN A 10.7.0.1",
			verdicts: "10.7.0.1=up 10.7.0.2=up",
			want:     strings.ReplaceAll(answer, "300", "30") + "\n--\n--\nt.example.org. 30 IN A 10.7.0.1"},
		{name: "all down", fallback: "all", answer: answer + "\n--\n--\n" + answer, verdicts: "10.7.0.1=down 10.7.0.2=down",
			want: strings.ReplaceAll(answer+"\n--\n--\n"+answer, "300", "30"), outcome: Substituted},
		{name: "replaced", fallback: "192.0.2.7", answer: answer + "\n--\n--\n" + answer + "\nt.example.org. 300 IN A 10.7.0.3",
			verdicts: "10.7.0.1=down 10.7.0.2=down",
			want:     "t.example.org. 30 IN A 192.0.2.7\n--\n--\nt.example.org. 30 IN A 10.7.0.3", removed: 4, outcome: Substituted},
		{name: "replaced by one of them", fallback: "10.7.0.2", answer: answer + "\n--\n--\n" + answer,
			verdicts: "10.7.0.1=down 10.7.0.2=down",
			want:     "t.example.org. 30 IN A 10.7.0.2\n--\n--\nt.example.org. 30 IN A 10.7.0.2", removed: 3, outcome: Substituted},
		{name: "failed beside something else", fallback: "servfail", answer: answer + "\nt.example.org. 300 IN TXT x\n--\n--\n" + answer,
			verdicts: "10.7.0.1=down 10.7.0.2=down", want: "t.example.org. 300 IN TXT x", removed: 4, outcome: Substituted},
		{name: "signed beside", fallback: "all", answer: answer + "\n--\n--\n" + answer + "\nt.example.org. 300" + sectionsSig(dns.TypeA),
			verdicts: "10.7.0.1=down 10.7.0.2=up",
			want: "t.example.org. 30 IN A 10.7.0.2\n--\n--\n" + strings.ReplaceAll(answer, "300", "30") +
				"\nt.example.org. 30" + sectionsSig(dns.TypeA), removed: 1, outcome: Filtered},
		{name: "the other family", fallback: "all", answer: answer + "\n--\n--\nt.example.org. 300 IN AAAA 2001:db8::7",
			verdicts: "10.7.0.1=down 10.7.0.2=up 2001:db8::7=down",
			want:     "t.example.org. 30 IN A 10.7.0.2\n--\n--\nt.example.org. 300 IN AAAA 2001:db8::7", removed: 1, outcome: Filtered},
	} {
		t.Run(tt.name, tt.run)
	}
}

// Hints and addresses of one name tell one story, too.
func TestFilterHintsOfWhatLeft(t *testing.T) {
	const addresses = `t.example.org. 30 IN A 10.7.0.1
		t.example.org. 30 IN A 10.7.0.2
		`
	const left = "t.example.org. 30 IN A 10.7.0.2\n"
	for _, tt := range []sectionsCase{
		{name: "of the owner", answer: addresses + "T.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.1,10.7.0.2",
			want: left + "T.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.2", removed: 2},
		{name: "of the target", answer: addresses + "a.example.org. 30 IN SVCB 1 t.example.org. alpn=h2 ipv4hint=10.7.0.1",
			want: left + "a.example.org. 30 IN SVCB 1 t.example.org. alpn=h2", removed: 2},
		{name: "in the additional section", answer: addresses + "\n--\n--\na.example.org. 30 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.1,10.7.0.3",
			want: left + "--\n--\na.example.org. 30 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.3", removed: 2},
		{name: "of another target", answer: addresses + "t.example.org. 30 IN HTTPS 1 u.example.org. ipv4hint=10.7.0.1",
			want: left + "t.example.org. 30 IN HTTPS 1 u.example.org. ipv4hint=10.7.0.1", removed: 1},
		{name: "mandatory", answer: addresses + "t.example.org. 30 IN HTTPS 1 . mandatory=ipv4hint ipv4hint=10.7.0.1,10.7.0.9",
			want: left + "t.example.org. 30 IN HTTPS 1 . mandatory=ipv4hint ipv4hint=10.7.0.1,10.7.0.9", removed: 1},
		{name: "signed", answer: addresses + "t.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.1\nt.example.org. 30" + sectionsSig(dns.TypeHTTPS),
			want: left + "t.example.org. 30 IN HTTPS 1 . ipv4hint=10.7.0.1\nt.example.org. 30" + sectionsSig(dns.TypeHTTPS), removed: 1},
	} {
		tt.fallback, tt.verdicts, tt.outcome = "all", "10.7.0.1=down 10.7.0.2=up 10.7.0.9:443=down", Filtered
		t.Run(tt.name, tt.run)
	}
}

// What is watched has a short TTL in every section, with its signatures, and nothing else has.
func TestFilterTTLs(t *testing.T) {
	for _, tt := range []sectionsCase{
		{name: "SRV and its glue", fallback: "nodata",
			answer: `_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.
				_sip._tcp.example.org. 300` + sectionsSig(dns.TypeSRV) + `
				--
				--
				t.example.org. 300 IN A 10.7.0.1
				t.example.org. 300 IN A 10.7.0.2
				t.example.org. 300` + sectionsSig(dns.TypeA) + `
				t.example.org. 300 IN AAAA 2001:db8::7
				x.example.org. 300 IN A 10.7.0.1`,
			verdicts: "10.7.0.1:5070=up",
			want: `_sip._tcp.example.org. 30 IN SRV 0 0 5070 t.example.org.
				_sip._tcp.example.org. 30` + sectionsSig(dns.TypeSRV) + `
				--
				--
				t.example.org. 30 IN A 10.7.0.1
				t.example.org. 30 IN A 10.7.0.2
				t.example.org. 30` + sectionsSig(dns.TypeA) + `
				t.example.org. 300 IN AAAA 2001:db8::7
				x.example.org. 300 IN A 10.7.0.1`},
		{name: "SRV by what the message lacks", fallback: "nodata",
			answer: "_sip._tcp.example.org. 300 IN SRV 0 0 5070 t.example.org.", names: "t.example.org.=10.7.0.1",
			verdicts: "10.7.0.1:5070=unknown", want: "_sip._tcp.example.org. 30 IN SRV 0 0 5070 t.example.org."},
		{name: "glue of HTTPS, but not HTTPS", fallback: "all",
			answer:   "a.example.org. 300 IN HTTPS 1 t.example.org.\n--\n--\nt.example.org. 300 IN A 10.7.0.1",
			verdicts: "10.7.0.1:443=up",
			want:     "a.example.org. 300 IN HTTPS 1 t.example.org.\n--\n--\nt.example.org. 30 IN A 10.7.0.1"},
		{name: "HTTPS by its hints", fallback: "all",
			answer: `a.example.org. 300 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.1
				a.example.org. 300` + sectionsSig(dns.TypeSVCB) + `
				--
				--
				t.example.org. 300 IN A 10.7.0.2`,
			verdicts: "10.7.0.1:443=up",
			want: `a.example.org. 30 IN HTTPS 1 t.example.org. ipv4hint=10.7.0.1
				a.example.org. 300` + sectionsSig(dns.TypeSVCB) + `
				--
				--
				t.example.org. 300 IN A 10.7.0.2`},
		{name: "signed HTTPS", fallback: "all",
			answer: "a.example.org. 300 IN HTTPS 1 . ipv4hint=10.7.0.1\na.example.org. 300" + sectionsSig(dns.TypeHTTPS), verdicts: "10.7.0.1:443=up",
			want: "same"},
		{name: "a signature in the other section", fallback: "all",
			answer: `t.example.org. 300 IN A 10.7.0.1
				t.example.org. 300 IN A 10.7.0.2
				--
				--
				t.example.org. 300` + sectionsSig(dns.TypeA) + `
				t.example.org. 300` + sectionsSig(dns.TypeHTTPS) + `
				x.example.org. 300 IN A 10.7.0.1`,
			verdicts: "10.7.0.1=up",
			want: `t.example.org. 30 IN A 10.7.0.1
				t.example.org. 30 IN A 10.7.0.2
				--
				--
				t.example.org. 300` + sectionsSig(dns.TypeA) + `
				t.example.org. 300` + sectionsSig(dns.TypeHTTPS) + `
				x.example.org. 300 IN A 10.7.0.1`},
	} {
		t.Run(tt.name, tt.run)
	}
}

// Enough SRV records of one priority are enough: clients use those of the lowest that works.
func TestFilterPriorities(t *testing.T) {
	const answer = `_sip._tcp.example.org. 30 IN SRV 10 0 5070 a.example.org.
		_sip._tcp.example.org. 30 IN SRV 10 0 5070 b.example.org.
		_sip._tcp.example.org. 30 IN SRV 10 0 5070 c.example.org.
		_sip._tcp.example.org. 30 IN SRV 20 0 5070 d.example.org.
		_sip._tcp.example.org. 30 IN SRV 30 0 5070 e.example.org.
		_sip._tcp.example.org. 30 IN SRV 30 0 5070 f.example.org.`
	const names = "a.example.org.=10.7.0.1 b.example.org.=10.7.0.2 c.example.org.=10.7.0.3 d.example.org.=10.7.0.4 " +
		"e.example.org.=10.7.0.5 f.example.org.=10.7.0.6"
	only := func(targets string) string {
		var left []string
		for line := range strings.Lines(answer) {
			if strings.Contains(targets, strings.Fields(line)[7][:1]) {
				left = append(left, strings.TrimSpace(line))
			}
		}
		return strings.Join(left, "\n")
	}
	for _, tt := range []struct {
		name   string
		panics int
		down   string // targets
		want   string // targets, empty where the fallback keeps all of them
	}{
		{"the primaries are dead, a backup lives", 60, "abc", "def"},
		{"one of two last backups lives", 60, "abcde", ""},
		{"one of two last backups is enough", 50, "abcde", "f"},
		{"one of three primaries, and no backup", 34, "bcdef", ""},
		{"one of three primaries is enough", 33, "bcdef", "a"},
		{"a sixth of all, but all of a priority", 100, "abcef", "d"},
		{"a backup is dead", 100, "d", "abcef"},
		{"all are dead", 1, "abcdef", ""},
		{"no panic", 0, "abcde", "f"},
	} {
		var verdicts strings.Builder
		for i, target := range "abcdef" {
			state := "up"
			if strings.ContainsRune(tt.down, target) {
				state = "down"
			}
			fmt.Fprintf(&verdicts, "10.7.0.%d:5070=%s ", i+1, state)
		}
		c := sectionsCase{fallback: "all", panics: tt.panics, answer: answer, names: names, verdicts: verdicts.String(),
			want: only(tt.want), removed: len(tt.down), outcome: Filtered}
		if tt.want == "" {
			c.want, c.removed, c.outcome = answer, 0, Substituted
		}
		t.Run(tt.name, c.run)
	}
}

// An explanation never makes an answer too long: its text goes first, then all of it.
func TestEditExplainsWhereThereIsRoom(t *testing.T) {
	const full, short, none = "shaker: %d of %[1]d addresses of a.example.org. are down", "", "none"
	for n, want := range map[int]string{25: full, 26: short, 27: short, 28: short, 29: short, 30: none} {
		for _, compress := range []bool{false, true} {
			var answer strings.Builder
			var verdicts strings.Builder
			for i := range n {
				fmt.Fprintf(&answer, "a.example.org. 30 IN A 10.7.1.%d\n", i)
				fmt.Fprintf(&verdicts, "10.7.1.%d=down ", i)
			}
			request, m := filterMessages(t, answer.String())
			request.SetEdns0(512, false)
			m.Compress = compress
			q := &Query{Request: request, Client: room(512), Zone: filterPolicy(t, "all", 0)}
			got, _ := Filter(m, q, filterVerdicts(t, verdicts.String()))
			errors, _ := editEDE(got)
			var wantErrors []string
			switch want {
			case full:
				wantErrors = []string{"0 " + fmt.Sprintf(full, n)}
			case short:
				wantErrors = []string{"0 "}
			}
			if !slices.Equal(errors, wantErrors) {
				t.Errorf("%d addresses: %q, want %q", n, errors, wantErrors)
			}
			if got.Truncated || len(got.Answer) != n || got.Compress != compress {
				t.Errorf("%d addresses: TC %v, %d are left, compressed %v", n, got.Truncated, len(got.Answer), got.Compress)
			}
			got.Compress = true
			if packed, err := got.Pack(); err != nil || len(packed) > 512 {
				t.Errorf("%d addresses: %d octets, %v", n, len(packed), err)
			}
		}
	}
}

// Where an answer has two OPT records, the one that servers look at has the explanation.
func TestEditExplainsWhereServersLook(t *testing.T) {
	request, m := filterMessages(t, "a.example.org. 30 IN A 10.7.0.1")
	request.SetEdns0(1232, false)
	m.SetEdns0(1232, false).SetEdns0(1232, false)
	got, _ := filter(m, request, filterPolicy(t, "nodata", 0), filterVerdicts(t, "10.7.0.1=down"))
	if errors, _ := editEDE(got); len(errors) != 1 {
		t.Errorf("%q", errors)
	}
	request, m = filterMessages(t, "a.example.org. 30 IN A 10.7.0.1\na.example.org. 30 IN A 10.7.0.2")
	request.SetEdns0(1232, false)
	m.SetEdns0(1232, false).SetEdns0(1232, false)
	got, _ = filter(m, request, filterPolicy(t, "all", 0), filterVerdicts(t, "10.7.0.1=down 10.7.0.2=down"))
	if opt := got.IsEdns0(); len(opt.Option) != 1 {
		t.Errorf("options %v", opt.Option)
	}
}

// sectionsResolver knows names only once all has been asked for.
type sectionsResolver struct {
	*filterStates
	settled bool
}

func (r *sectionsResolver) Settle() bool {
	first := !r.settled
	r.settled = true
	return first
}

func (r *sectionsResolver) Resolve(name string, rrtype uint16) ([]netip.Addr, bool) {
	if !r.settled {
		return nil, false
	}
	return r.filterStates.Resolve(name, rrtype)
}

// Names that settle are looked at again, even where there was nothing else to ask for.
func TestFilterNamesAfterSettling(t *testing.T) {
	request, m := filterMessages(t, `_sip._tcp.example.org. 30 IN SRV 0 0 5070 t.example.org.
		_sip._tcp.example.org. 30 IN SRV 0 0 5070 u.example.org.`)
	source := &sectionsResolver{filterStates: filterVerdicts(t, "10.7.0.1:5070=down 10.7.0.2:5070=up")}
	source.names = map[string][]netip.Addr{
		"t.example.org.": {netip.MustParseAddr("10.7.0.1")}, "u.example.org.": {netip.MustParseAddr("10.7.0.2")}}
	got, result := filter(m, request, filterPolicy(t, "all", 0), source)
	if want := "_sip._tcp.example.org. 30 IN SRV 0 0 5070 u.example.org.\n"; lab.RecordText(got.Answer) != want || result.Addresses != 2 {
		t.Errorf("%d addresses,\n%s", result.Addresses, lab.RecordText(got.Answer))
	}
}
