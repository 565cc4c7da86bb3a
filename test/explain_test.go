package test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// explained is what /explain.json tells, as far as tests look at it.
type explained struct {
	Error  string
	Blocks []explainedBlock
}

type explainedBlock struct {
	Server, Stanza, Zone, Asked, Rcode, Error, Outcome, Passed string
	Chosen                                                     bool
	Below, Answer                                              []string
	AnswerRcode                                                string `json:"answer_rcode"`
	TTL                                                        int
	Sets                                                       []explainedSet
	Within                                                     []explainedBlock
}

type explainedSet struct {
	Name, Type, Section, Decision, Fallback string
	Members                                 []explainedMember
}

type explainedMember struct {
	Record, Why string
	InAnswer    bool `json:"in_answer"`
	Rank        int
	Steps       []string
	Addresses   []struct {
		Address netip.Addr
		Tier    int
		Verdict string
		Ports   []struct{ State, Note string }
	}
}

// explain asks the status page at an address, and expects a status.
func explain(t testing.TB, page string, status int, parameters ...string) (e explained) {
	t.Helper()
	query := make(url.Values)
	for _, p := range parameters {
		key, value, _ := strings.Cut(p, "=")
		query.Set(key, value)
	}
	answer := askPage(t, page, "explain.json?"+query.Encode())
	for answer.StatusCode == http.StatusTooManyRequests && status != answer.StatusCode { // another test has asked
		time.Sleep(time.Second) // as Retry-After says
		answer.Body.Close()
		answer = askPage(t, page, "explain.json?"+query.Encode())
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&e); err != nil || answer.StatusCode != status {
		t.Fatalf("%v: %s %+v, want the status %d", parameters, answer.Status, e, status)
	}
	if retry := answer.Header.Get("Retry-After"); (retry != "") != (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) {
		t.Errorf("status %d and Retry-After %q", status, retry)
	}
	return e
}

func askPage(t testing.TB, page, query string) *http.Response {
	t.Helper()
	answer, err := statusClient.Get("http://" + page + "/" + query)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// text returns what people read of the decisions.
func (b *explainedBlock) text() string {
	var s strings.Builder
	for _, set := range b.Sets {
		fmt.Fprintf(&s, "%s %s: %s\n", set.Name, set.Type, set.Decision)
		for _, m := range set.Members {
			fmt.Fprintf(&s, "%d %s: %s\n", m.Rank, m.Record, m.Why)
			for _, step := range m.Steps {
				fmt.Fprintf(&s, "    %s\n", step)
			}
		}
	}
	return s.String()
}

// explainMetrics are all that answers, targets and look-ups of ours are counted by.
func explainMetrics(t testing.TB) map[string]string {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, family := range families {
		if regexp.MustCompile(`^coredns_(shaker_(answers|held|hold|removed|watch|unfiltered|panics|targets)|dns_)`).MatchString(family.GetName()) {
			all[family.GetName()] = family.String()
		}
	}
	return all
}

// A name has lost two of four addresses for different reasons: one is down, and one is of a tier that waits. Nothing of
// the question is counted or has an effect. docs/explain.md has the same example.
func TestExplain(t *testing.T) {
	f := newFarm(t, "127.0.60.1", "127.0.60.2", "127.0.60.3", "127.0.61.1")
	f.kill(f.addrs[1])
	page := local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		prometheus %s
		shaker {
			port %d
			allow 127.0.0.0/8
			hold 3s
			prefer 127.0.60.0/24
			status %s
		}
		file %s
	}`, local(t), f.port, page, f.zoneFile()))
	before := explainMetrics(t)

	e := explain(t, page, http.StatusOK, "name=www.example.org")
	for _, m := range e.Blocks[0].Sets[0].Members {
		if a := m.Addresses[0]; !m.InAnswer && a.Tier == 1 || a.Verdict != "unknown" || a.Ports[0].Note != "no answer has led to it yet, so it is not checked" {
			t.Errorf("before anybody has asked: %+v", m)
		}
	}
	explain(t, page, http.StatusOK, "name=alias.example.org", "client=2001:db8::1")
	if after := explainMetrics(t); !maps.Equal(before, after) {
		t.Errorf("metrics were\n%v\nand are\n%v", before, after)
	}
	if n := countsAt(t, page); n.Total != 0 {
		t.Errorf("it led to %d targets", n.Total)
	}

	s.until("www.example.org.", dns.TypeA, []netip.Addr{f.addrs[0], f.addrs[2]})
	lab.Until(t, "all to be checked", func() bool { return countsAt(t, page).Unknown == 0 })
	before, names := explainMetrics(t), statusOf(t, page, "").Targets
	e = explain(t, page, http.StatusOK, "name=WWW.example.org")
	if after := explainMetrics(t); !maps.Equal(before, after) {
		t.Errorf("metrics were\n%v\nand are\n%v", before, after)
	}
	for i, target := range statusOf(t, page, "").Targets {
		if !slices.Equal(target.Names, names[i].Names) {
			t.Errorf("the names of %v became %v", target.Address, target.Names)
		}
	}
	b := e.Blocks[0]
	if len(e.Blocks) != 1 || !b.Chosen || b.Zone != "example.org." || b.Rcode != "NOERROR" || b.Outcome != "filtered" || b.TTL != 30 || b.AnswerRcode != "NOERROR" {
		t.Errorf("got %+v", e)
	}
	if got := s.ask("www.example.org.", dns.TypeA); len(b.Answer) != 2 || len(b.Below) != 4 || !strings.HasSuffix(b.Answer[1], got.Answer[1].(*dns.A).A.String()) {
		t.Errorf("answer %q of %q, and a client got\n%v", b.Answer, b.Below, got)
	}
	told := regexp.MustCompile(`since \d\d:\d\d:\d\d`).ReplaceAllString(b.text(), "since 12:00:01")
	for i, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"} {
		told = strings.ReplaceAll(told, f.addrs[i].String(), addr)
	}
	if docs := readFile(t, "docs/explain.md"); !strings.Contains(docs, "\n```text\n"+told+"```\n") {
		t.Errorf("docs/explain.md does not have\n%s", told)
	}
}

// What cannot be explained is refused with the status that says why.
func TestExplainRefuses(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	hangs := backend(func(dns.Question) []dns.RR { entered <- struct{}{}; <-release; return nil })
	panics := backend(func(dns.Question) []dns.RR { panic("in the test") })
	lab.CaptureLog(t)
	page := local(t)
	corefile := fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			status %s
		}
		%s
	}
	example.net:0 {
		bind 127.0.0.1
		shaker
		%s
	}
	example.com:0 {
		bind 127.0.0.1
		shaker
	}`, page, hangs.directive(t), panics.directive(t))
	start(t, corefile)
	for _, tt := range []struct{ query, want string }{
		{"", "name: it is missing"},
		{"name=a..b", `name: "a..b" is not a domain name`},
		{"name=a&type=TXT", `type: "TXT" has no addresses in its answers, want one of A, AAAA, SRV, SVCB, HTTPS, ANY`},
		{"name=a&client=localhost", `client: "localhost" is not an IP address`},
		{"name=a&dnssec=yes", `dnssec: "yes" is not possible, want a number from 0 to 1`},
		{"name=a&state=up", `unknown parameter "state"`},
	} {
		if e := explain(t, page, http.StatusBadRequest, strings.Split(tt.query, "&")...); tt.query != "" && !strings.HasPrefix(e.Error, tt.want) {
			t.Errorf("%s: %q, want %q", tt.query, e.Error, tt.want)
		}
	}
	if e := explain(t, page, http.StatusNotFound, "name=www.example.edu"); e.Error != "www.example.edu. is in none of the ZONES, which are example.com., example.net., example.org." {
		t.Errorf("outside: %q", e.Error)
	}
	if e := explain(t, page, http.StatusNotFound, "name=www.example.net", "server=7"); !strings.Contains(e.Error, `server: "7" is no server block for www.example.net., want a number from 1 to 1 or one of dns://example.net`) {
		t.Errorf("no such server: %q", e.Error)
	}
	for name, want := range map[string]string{
		"www.example.net": "the plugins below have not answered: panic: in the test",
		"www.example.com": "the plugins below have not answered: ",
	} {
		if e := explain(t, page, http.StatusOK, "name="+name, "server=1"); !strings.HasPrefix(e.Blocks[0].Error, want) {
			t.Errorf("%s: %+v, want %q", name, e, want)
		}
	}
	hung := make(chan string)
	for range 4 {
		go func() {
			answer, err := statusClient.Get("http://" + page + "/explain.json?name=www.example.org")
			if err != nil {
				hung <- err.Error()
				return
			}
			defer answer.Body.Close()
			body, _ := io.ReadAll(answer.Body)
			hung <- string(body)
		}()
	}
	for range 4 {
		<-entered
	}
	explain(t, page, http.StatusServiceUnavailable, "name=www.example.net")
	for range 4 {
		if got := <-hung; !strings.Contains(got, "the plugins below have not answered within 5s") {
			t.Errorf("got %s", got)
		}
	}
	explain(t, page, http.StatusServiceUnavailable, "name=www.example.net") // they hang on
	close(release)
	lab.Until(t, "one to have a place", func() bool {
		answer := askPage(t, page, "explain?name=www.example.net")
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// There are no more than ten explanations in a second, and there are some again after a reload.
func TestExplainRate(t *testing.T) {
	page := local(t)
	corefile := fmt.Sprintf("example.org:0 {\n bind 127.0.0.1\n shaker {\n status %s\n }\n %s\n}", page,
		backend(func(dns.Question) []dns.RR { return nil }).directive(t))
	s := start(t, corefile)
	begin, explained := time.Now(), 0
	for refused := false; !refused; {
		answer := askPage(t, page, "explain?name=www.example.org")
		answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get("Retry-After") == "1":
			refused = explained > 0
		case answer.StatusCode == http.StatusOK:
			explained++
		default:
			t.Fatal(answer.Status)
		}
	}
	if most := 11 + int(10*time.Since(begin).Seconds()); explained > most {
		t.Errorf("%d were explained in %v, want at most %d", explained, time.Since(begin), most)
	}
	if err := s.reload(strings.Replace(corefile, "example.org", "example.com", 1)); err != nil {
		t.Fatal(err)
	}
	explain(t, page, http.StatusOK, "name=www.example.com")
	explain(t, page, http.StatusNotFound, "name=www.example.org")
}

// The server block that CoreDNS would choose for the client is told, and how each of them answers.
func TestExplainViews(t *testing.T) {
	f := newFarm(t, "127.0.62.1", "127.0.62.2")
	page := local(t)
	block := func(keys, view, properties string) string {
		return fmt.Sprintf("%s {\n bind 127.0.0.1\n %s\n shaker {\n port %d\n allow 127.0.0.0/8\n %s\n }\n file %s example.org\n}\n",
			keys, view, f.port, properties, f.zoneFile())
	}
	s := start(t, block("example.org:0", "metadata\n view inside {\n expr incidr(client_ip(), '10.0.0.0/8') && metadata('view/name') == 'inside'\n }", "status "+page)+
		block("example.org:0", "", "pick 1\n sort client 32 128")+
		block("example.org:"+fmt.Sprint(port(t)), "", "")+
		block("org:0", "", "")+
		block("www.example.org:0", "view never {\n expr false\n }", ""))
	for client, want := range map[string]string{"10.1.2.3": "true false true false false", "192.0.2.1": "false true true false false", "2001:db8::1": "false true true false false"} {
		e := explain(t, page, http.StatusOK, "name=www.example.org", "client="+client)
		var chosen []string
		for _, b := range e.Blocks {
			chosen = append(chosen, fmt.Sprint(b.Chosen))
			if len(b.Below) != 2 && b.Error == "" {
				t.Errorf("%s: %+v", client, b)
			}
		}
		if got := strings.Join(chosen, " "); got != want {
			t.Errorf("%s: chosen %s, want %s", client, got, want)
		}
	}
	// What a client gets is what is explained.
	s.until("www.example.org.", dns.TypeA, addresses(s.ask("www.example.org.", dns.TypeA)))
	got := addresses(s.ask("www.example.org.", dns.TypeA))
	e := explain(t, page, http.StatusOK, "name=www.example.org", "server=2")
	if b := e.Blocks[0]; len(e.Blocks) != 1 || len(b.Answer) != 1 || !strings.HasSuffix(b.Answer[0], " A "+got[0].String()) ||
		!strings.Contains(b.text(), "place 2 of 2 in the order of the network 127.0.0.1/32, with weight 1 of 2; pick takes 1") {
		t.Errorf("a client gets %v, and explained is %q by\n%s", got, b.Answer, b.text())
	}
}

// Services, names that stand in, signatures and names on the way are explained as well.
func TestExplainKinds(t *testing.T) {
	f := newFarm(t, "127.0.63.1", "127.0.63.2", "127.0.63.3")
	f.kill(f.addrs[0])
	key, page := newZoneKey(t), local(t)
	zone := lab.File(t, "db.example.org", fmt.Sprintf(`$ORIGIN example.org.
@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300
www 300 IN A 127.0.63.1
www 300 IN A 127.0.63.2
dead 300 IN A 127.0.63.1
good 300 IN A 127.0.63.3
away 300 IN CNAME www.example.net.
far 300 IN CNAME hop.example.net.
_x._tcp 300 IN SRV 0 0 %[1]d dead
_x._tcp 300 IN SRV 0 0 %[1]d good
_y._tcp 300 IN SRV 0 0 %[1]d dead.example.net.
_y._tcp 300 IN SRV 0 0 %[1]d good
`, f.port))
	other := lab.File(t, "db.example.net", "$ORIGIN example.net.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n"+
		"www 300 IN A 127.0.63.1\nwww 300 IN A 127.0.63.2\nhop 300 IN CNAME www.example.org.\ndead 300 IN A 127.0.63.1\n")
	const stanza = "interval 100ms\n allow 127.0.0.0/8\n hold 3s\n"
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		metadata
		shaker {
			port %[1]d
			fallback good.example.org nodata
			%[2]s
			status %[3]s
		}
		dnssec {
			key file %[4]s
		}
		file %[5]s
	}
	example.net:0 {
		bind 127.0.0.1
		metadata
		shaker {
			port %[1]d
			%[2]s
		}
		file %[6]s
	}`, f.port, stanza, page, key.base, zone, other))
	for _, name := range []string{"www", "dead", "good", "away", "far", "_x._tcp", "_y._tcp"} {
		s.ask(name+".example.org.", dns.TypeA)
		s.ask(name+".example.org.", dns.TypeSRV)
	}
	s.ask("dead.example.net.", dns.TypeA)
	lab.Until(t, "all to be checked", func() bool { return countsAt(t, page).Unknown == 0 })
	before := explainMetrics(t)
	for _, tt := range []struct {
		question string
		outcome  string
		want     []string // of the text
	}{
		{"name=_x._tcp.example.org&type=SRV", "filtered", []string{
			"_x._tcp.example.org. SRV: 1 of 2 is down: 1 stays", "dead.example.org. A: 1 of 1 leaves"}},
		{"name=_y._tcp.example.org&type=SRV", "filtered", []string{
			"_y._tcp.example.org. SRV: 1 of 2 is down: 1 stays", fmt.Sprintf("it leaves: 127.0.63.1:%d is down since", f.port)}},
		{"name=dead.example.org", "fallback", []string{"1 of 1 is down: good.example.org. takes its place, with 127.0.63.3"}},
		{"name=www.example.org&dnssec=1", "filtered", []string{"1 of 2 is down: 1 stays, signed again"}},
		{"name=far.example.org", "untouched", []string{"within: hop.example.net. A: ", "within: www.example.org. A: www.example.org. A: 1 of 2 is down: 1 stays"}},
		{"name=away.example.org", "untouched", []string{"www.example.net. A: 0 of 1 are down: 1 stays"}},
	} {
		b := explain(t, page, http.StatusOK, strings.Split(tt.question, "&")...).Blocks[0]
		text := b.text()
		for _, within := range b.Within {
			text += "within: " + within.Asked + ": " + within.text()
		}
		for _, want := range tt.want {
			if !strings.Contains(text, want) || b.Outcome != tt.outcome {
				t.Errorf("%s: %s %s\n%s\nwant %s, %s", tt.question, b.Outcome, b.Error, text, tt.outcome, want)
			}
		}
		if strings.Contains(tt.question, "away") && (len(b.Within) == 0 || b.Within[0].Asked != "www.example.net. A" || b.Within[0].Outcome != "filtered") {
			t.Errorf("%s: within %+v", tt.question, b.Within)
		}
	}
	if after := explainMetrics(t); !maps.Equal(before, after) {
		t.Errorf("metrics were\n%v\nand are\n%v", before, after)
	}
}
