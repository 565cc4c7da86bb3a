package status

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// explainHostile is an explanation in which all text is made up by somebody.
func explainHostile() *Explanation {
	const text = `<script>alert(1)</script>{{.}}"'&`
	ttl := uint32(0)
	e := Explained{
		Server: text, Stanza: text, Zone: text, Chosen: true, Rcode: text, Error: text, Below: []string{text}, Outcome: text, Passed: text,
		Answer: []string{text}, AnswerRcode: text, TTL: &ttl, LeftOut: 7,
		Sets: []ExplainedSet{{Name: text, Type: text, Section: "additional", Decision: text, Members: []ExplainedMember{
			{Record: text, Why: text, Steps: []string{text}, Addresses: []ExplainedAddress{{
				Address: netip.MustParseAddr("2001:db8::1"), Tier: 1, Weight: 3, Verdict: "down", Override: &rule{Rule: text, Says: "down", Reason: text, File: text},
				Ports: []ExplainedPort{{Port: 443, State: "up", Result: text}},
			}}},
			{Record: text, InAnswer: true, Rank: 1, Why: text, Steps: []string{text}},
		}}},
	}
	within := e
	within.Asked = text
	e.Within = []Explained{within}
	return &Explanation{Blocks: []Explained{e}}
}

// What is asked gets to whoever explains, with its defaults, and what he says of it gets to the client.
func TestExplain(t *testing.T) {
	tests := []struct {
		query  string
		err    error
		want   Question // zero where nobody is to be asked
		status int
		retry  string
		page   string // what the page has
	}{
		{query: "", status: 200, page: "Nothing that is asked here is counted"},
		{query: "?name=www.Example.org", want: Question{Name: "www.Example.org.", Type: dns.TypeA, Client: loopback}, status: 200, page: "7 more records or addresses are not shown"},
		{query: "?name=a.&type=https&client=::ffff:192.0.2.1&dnssec=1&server=dns://a.:53", status: 200, page: "Steps, in their order",
			want: Question{"a.", dns.TypeHTTPS, netip.MustParseAddr("192.0.2.1"), true, "dns://a.:53"}},
		{query: "?name=a&type=TXT", status: 400, page: "want one of A, AAAA, SRV, SVCB, HTTPS, ANY"},
		{query: "?name=%C3%A4.example", status: 400, page: "which begins with xn--"},
		{query: "?name=a&client=fe80::1%25eth0", status: 400, page: "is not an IP address"},
		{query: "?name=a&refresh=1", status: 400, page: "unknown parameter"},
		{query: "?name=a", err: &Refusal{Status: 404, Reason: "none of the ZONES"}, want: Question{Name: "a.", Type: dns.TypeA, Client: loopback},
			status: 404, page: "none of the ZONES"},
		{query: "?name=a", err: &Refusal{Status: 429, RetryAfter: 1500 * time.Millisecond, Reason: "too many"}, want: Question{Name: "a.", Type: dns.TypeA, Client: loopback},
			status: 429, retry: "2", page: "too many"},
		{query: "?name=a", err: errors.New("anything else"), want: Question{Name: "a.", Type: dns.TypeA, Client: loopback}, status: 400, page: "anything else"},
	}
	for _, tt := range tests {
		for _, path := range []string{"/explain", "/explain.json"} {
			s := newServer(t, "")
			var asked Question
			s.subject.Explain = func(_ context.Context, q Question) (*Explanation, error) {
				asked = q
				if tt.err != nil {
					return nil, tt.err
				}
				return explainHostile(), nil
			}
			status := tt.status
			if path == "/explain.json" && tt.query == "" {
				status = 400 // a program does not fill in a form
			}
			w := s.do("GET", path+tt.query)
			if w.Code != status || asked != tt.want || w.Header().Get("Retry-After") != tt.retry || w.Header().Get("Refresh") != "" {
				t.Errorf("%s%s: status %d, header %v, asked %+v, want %d, %+v", path, tt.query, w.Code, w.Header(), asked, status, tt.want)
			}
			body := w.Body.String()
			switch {
			case path == "/explain":
				if !strings.Contains(body, tt.page) || strings.Contains(body, "<script>") || strings.Contains(body, "explain.json?") != (tt.want.Name != "" && tt.err == nil) {
					t.Errorf("%s: want %q in\n%s", tt.query, tt.page, body)
				}
			case !json.Valid([]byte(body)) || !strings.HasPrefix(body, `{"version":1,`) || strings.Contains(body, `"error":"`) != (status != 200) && status != 200:
				t.Errorf("%s: %s", tt.query, body)
			}
			s.Monitor.Close()
		}
	}
}

// Others get their pages while somebody waits for an explanation.
func TestExplainWaitsForItself(t *testing.T) {
	s := newServer(t, "")
	defer s.Monitor.Close()
	entered, release, ended := make(chan bool), make(chan bool), make(chan int)
	s.subject.Explain = func(context.Context, Question) (*Explanation, error) {
		entered <- true
		<-release
		return new(Explanation), nil
	}
	go func() { ended <- s.do("GET", "/explain?name=a").Code }()
	<-entered
	if w := s.do("GET", "/"); w.Code != 200 {
		t.Errorf("status %d", w.Code)
	}
	close(release)
	if status := <-ended; status != 200 {
		t.Errorf("status %d", status)
	}
}

// Each field of the form has a label, and what was asked for is still in it.
func TestExplainForm(t *testing.T) {
	s := newServer(t, "")
	defer s.Monitor.Close()
	s.subject.Explain = func(context.Context, Question) (*Explanation, error) { return explainHostile(), nil }
	document := documentOf(t, s.do("GET", "/explain?name=%3Cb%3E&type=aaaa&client=192.0.2.1&dnssec=1&server=1"))
	labels, values := make(map[string]bool), make(map[string]string)
	for _, label := range elements(document, "label") {
		labels[attribute(label, "for")] = words(label) != ""
	}
	for _, n := range elements(document, "*") {
		switch n.Data {
		case "input":
			values[attribute(n, "name")] = attribute(n, "value")
		case "option":
			for _, a := range n.Attr {
				if a.Key == "selected" {
					values[attribute(n.Parent, "name")] = words(n)
				}
			}
		default:
			continue
		}
		if n.Data == "input" && attribute(n, "type") != "hidden" && !labels[attribute(n, "id")] {
			t.Errorf("no label for %q", attribute(n, "name"))
		}
	}
	for name, want := range map[string]string{"name": "<b>", "type": "AAAA", "client": "192.0.2.1", "dnssec": "wanted (DO)"} {
		if values[name] != want {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
}
