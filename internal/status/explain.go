package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// Question is what somebody wants to have explained.
type Question struct {
	Name   string // fully qualified, as it was given
	Type   uint16 // one of those whose answers have addresses
	Client netip.Addr
	DNSSEC bool   // the client wants signatures
	Server string // the only server block of interest, as its key or its number from 1; empty for all
}

// Explanation is how a name is answered, by each server block that has a policy for it.
type Explanation struct {
	Version int         `json:"version"`
	Time    time.Time   `json:"time"`
	Name    string      `json:"name"`
	Type    string      `json:"type"`
	Client  netip.Addr  `json:"client"`
	DNSSEC  bool        `json:"dnssec"`
	Blocks  []Explained `json:"blocks"`
}

// Explained is how a server block answers, or how it would.
type Explained struct {
	Server      string         `json:"server"`
	Stanza      string         `json:"stanza"`
	Zone        string         `json:"zone"`
	Asked       string         `json:"asked,omitempty"`
	Chosen      bool           `json:"chosen"`
	Rcode       string         `json:"rcode,omitempty"`
	Error       string         `json:"error,omitempty"`
	Below       []string       `json:"below"`
	Outcome     string         `json:"outcome,omitempty"`
	Passed      string         `json:"passed,omitempty"`
	Sets        []ExplainedSet `json:"sets"`
	Within      []Explained    `json:"within"`
	Answer      []string       `json:"answer"`
	AnswerRcode string         `json:"answer_rcode,omitempty"`
	TTL         *uint32        `json:"ttl,omitempty"`
	LeftOut     int            `json:"left_out,omitempty"`
}

// ExplainedSet is what was decided about an RRset.
type ExplainedSet struct {
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Section  string            `json:"section"`
	Decision string            `json:"decision"`
	Fallback string            `json:"fallback,omitempty"`
	Members  []ExplainedMember `json:"members"`
}

// ExplainedMember is what was decided about a record.
type ExplainedMember struct {
	Record    string             `json:"record"`
	InAnswer  bool               `json:"in_answer"`
	Rank      int                `json:"rank"`
	Why       string             `json:"why"`
	Steps     []string           `json:"steps"`
	Addresses []ExplainedAddress `json:"addresses"`
}

// ExplainedAddress is an address that a record leads to.
type ExplainedAddress struct {
	Address  netip.Addr      `json:"address"`
	Tier     int             `json:"tier,omitempty"`
	Weight   int             `json:"weight"`
	Verdict  string          `json:"verdict"`
	Damped   bool            `json:"damped"`
	Leaves   bool            `json:"leaves"`
	Why      string          `json:"why,omitempty"`
	Override *rule           `json:"override,omitempty"`
	Ports    []ExplainedPort `json:"ports"`
}

// ExplainedPort is a port that decides about an address, and what is known of it.
type ExplainedPort struct {
	Port      uint16         `json:"port"`
	Probed    netip.AddrPort `json:"probed"`
	State     string         `json:"state"`
	Since     time.Time      `json:"since,omitzero"`
	Checked   time.Time      `json:"checked,omitzero"`
	Result    string         `json:"result,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	RoundTrip float64        `json:"round_trip_seconds,omitempty"`
	Settings  string         `json:"settings"`
	Note      string         `json:"note,omitempty"`
	Observers []Observer     `json:"observers,omitempty"`
	Tally     string         `json:"tally,omitempty"`
}

// SetObservers notes what replicas say of the target now.
func (e *ExplainedPort) SetObservers(said []peers.Said, state health.State, now time.Time) {
	e.Observers, e.Tally = Observers(said, now), Tally(state, said)
}

// SetOverride notes the rule of a file that decides about an address at a port, if there is one, and tells whether there
// is.
func (e *ExplainedAddress) SetOverride(file *override.File, at netip.AddrPort) bool {
	r, found := file.Rules().Find(at.Addr().Unmap(), at.Port())
	if !found || r.Says == override.Auto {
		return false
	}
	told := newRule(r, file.AbsPath())
	e.Override = &told
	return true
}

// String names the rule, the file that it is in, until when it holds and why.
func (r *rule) String() string {
	s := fmt.Sprintf("rule %s in %s", r.Rule, r.File)
	if !r.Until.IsZero() {
		s += " until " + r.Until.Format(time.RFC3339)
	}
	if r.From != "" {
		s += " by " + r.From + " since " + r.Since.Format(time.RFC3339)
	}
	if r.Reason != "" {
		s += ": " + r.Reason
	}
	return s
}

// Instant is how JSON has it: in UTC, without what is of no use.
func Instant(t time.Time) time.Time { return instant(t) }

// explainTypes are those whose answers have addresses.
var explainTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSVCB, dns.TypeHTTPS, dns.TypeANY}

func explainTypeNames() (names []string) {
	for _, t := range explainTypes {
		names = append(names, dns.TypeToString[t])
	}
	return names
}

var explainParameters = []parameter{
	{name: "name", read: func(q *query, value string) error {
		if strings.ContainsFunc(value, func(r rune) bool { return r >= utf8.RuneSelf }) {
			return fmt.Errorf("%q is not ASCII, want the form that queries have, which begins with xn--", value)
		}
		// As queries spell it.
		wire := make([]byte, 255)
		end, err := dns.PackDomainName(dns.Fqdn(value), wire, 0, nil, false)
		if err != nil {
			return fmt.Errorf("%q is not a domain name", value)
		}
		q.question.Name, _, err = dns.UnpackDomainName(wire[:end], 0)
		return err
	}},
	{name: "type", read: func(q *query, value string) error {
		for _, t := range explainTypes {
			if strings.EqualFold(value, dns.TypeToString[t]) {
				q.question.Type = t
				return nil
			}
		}
		return fmt.Errorf("%q has no addresses in its answers, want one of %s", value, strings.Join(explainTypeNames(), ", "))
	}},
	{name: "client", read: func(q *query, value string) (err error) {
		if q.question.Client, err = netip.ParseAddr(value); err != nil || q.question.Client.Zone() != "" {
			return fmt.Errorf("%q is not an IP address, want one such as 192.0.2.1 or 2001:db8::1", value)
		}
		q.question.Client = q.question.Client.Unmap()
		return nil
	}},
	{name: "dnssec", read: func(q *query, value string) error {
		n, err := number(value, 0, 1)
		q.question.DNSSEC = n == 1
		return err
	}},
	{name: "server", read: func(q *query, value string) error {
		q.question.Server = value
		return nil
	}},
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// askExplain has the question of the query explained, and does nothing where there is none.
func askExplain(ctx context.Context, subject *Subject, q *query) error {
	question := q.question
	if question.Name == "" {
		return nil
	}
	if question.Type == 0 {
		question.Type = dns.TypeA
	}
	if !question.Client.IsValid() {
		question.Client = loopback
	}
	e, err := subject.Explain(ctx, question)
	if err != nil {
		return err
	}
	e.Version, e.Time = version, instant(subject.Monitor.Now())
	e.Name, e.Type, e.Client, e.DNSSEC = question.Name, dns.TypeToString[question.Type], question.Client, question.DNSSEC
	q.explanation = e
	return nil
}

var explainJSON = format{
	contentType: "application/json",
	parameters:  explainParameters,
	ask: func(ctx context.Context, subject *Subject, q *query) error {
		if q.question.Name == "" {
			return errors.New("name: it is missing, want the name to be explained, such as name=www.example.org")
		}
		return askExplain(ctx, subject, q)
	},
	write: func(to *bytes.Buffer, _ http.Header, _ *Subject, q *query, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(failure{version, problem.Error()})
		}
		return json.NewEncoder(to).Encode(q.explanation)
	},
}
