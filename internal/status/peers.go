package status

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// Peers are the replicas that decide together with this one. [peers.Group] is such.
type Peers interface {
	// Report returns what there is to tell of all of them.
	Report() peers.Report
	// Said returns what each that observes a target says of it, and this one.
	Said(t *health.Target) []peers.Said
}

var peersJSON = format{
	contentType: "application/json",
	ask:         needPeers,
	write: func(to *bytes.Buffer, _ http.Header, subject *Subject, _ *query, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(failure{version, problem.Error()})
		}
		return json.NewEncoder(to).Encode(subject.group())
	},
}

// needPeers returns an error where there are none.
func needPeers(_ context.Context, subject *Subject, _ *query) error {
	if subject.Peers == nil {
		return &Refusal{Status: http.StatusNotFound, Reason: "there are no peers: no stanza has the property peers, so this replica decides alone"}
	}
	return nil
}

// group is what there is to tell of replicas, in the form that programs get.
type group struct {
	Version     int       `json:"version"`
	Time        time.Time `json:"time"`
	Self        string    `json:"self"`
	Ready       bool      `json:"ready"`
	Observers   int       `json:"observers"`
	Quorum      bool      `json:"quorum"`
	Disagreeing int       `json:"disagreeing"`
	Members     []member  `json:"members"`
	Join        []join    `json:"join"`
	Counts      traffic   `json:"counts"`
}

type member struct {
	Name    string         `json:"name"`
	Host    string         `json:"host"`
	Address netip.AddrPort `json:"address"`
	Site    string         `json:"site"`
	Quorum  bool           `json:"quorum"`
	Shaker  string         `json:"shaker"`
	Self    bool           `json:"self"`
	Known   float64        `json:"known_seconds"`
	Heard   float64        `json:"heard_seconds"`
	Alive   bool           `json:"alive"`
	Frozen  bool           `json:"frozen"`
	InDoubt bool           `json:"in_doubt"`
	Behind  bool           `json:"behind"`
	Stuck   bool           `json:"stuck"`
	Strange bool           `json:"strange"`
	Newer   bool           `json:"newer"`
	// Condition is one of the meanings.
	Condition string `json:"condition"`
	Lag       uint64 `json:"lag"`
	Observed  uint64 `json:"observed"`
	Finished  uint64 `json:"finished"`
}

type join struct {
	Place string `json:"place"`
	Error string `json:"error,omitempty"`
}

type traffic struct {
	SentMessages     uint64            `json:"sent_messages"`
	SentOctets       uint64            `json:"sent_octets"`
	ReceivedMessages uint64            `json:"received_messages"`
	ReceivedOctets   uint64            `json:"received_octets"`
	Rejected         map[string]uint64 `json:"rejected"`
}

// group returns what there is to tell of the replicas, nil without peers.
func (s *Subject) group() *group {
	if s.Peers == nil {
		return nil
	}
	return newGroup(s.Peers.Report(), s.Monitor.Now())
}

// newGroup returns what a report tells.
func newGroup(r peers.Report, now time.Time) *group {
	g := &group{
		Version: version, Time: instant(now),
		Ready: r.Ready, Observers: r.Observers, Disagreeing: r.Disagreeing,
		Members: []member{}, Join: []join{}, Counts: newTraffic(r.Counts),
	}
	for _, m := range r.Members {
		if m.Self {
			g.Self, g.Quorum = m.Name, m.Quorum
		}
		g.Members = append(g.Members, newMember(m))
	}
	for i := range g.Members {
		g.Members[i].Condition = g.condition(&g.Members[i])
	}
	for _, j := range r.Join {
		row := join{Place: j.Place}
		if j.Err != nil {
			row.Error = j.Err.Error()
		}
		g.Join = append(g.Join, row)
	}
	return g
}

func newMember(m peers.Member) member {
	return member{
		Name: m.Name, Host: m.Host, Address: m.Address, Site: m.Site, Quorum: m.Quorum, Shaker: m.Shaker, Self: m.Self,
		Known: seconds(m.Since), Heard: seconds(m.Heard), Alive: m.Alive,
		Frozen: m.Frozen, InDoubt: m.InDoubt, Behind: m.Behind, Stuck: m.Stuck, Strange: m.Strange, Newer: m.Newer,
		Lag: m.Lag, Observed: m.Observed, Finished: m.Finished,
	}
}

func newTraffic(c peers.Counts) traffic {
	t := traffic{c.SentMessages, c.SentOctets, c.ReceivedMessages, c.ReceivedOctets, c.Rejected}
	if t.Rejected == nil {
		t.Rejected = make(map[string]uint64)
	}
	return t
}

// seconds leaves out what is of no use.
func seconds(d time.Duration) float64 { return d.Truncate(time.Millisecond).Seconds() }

// heardOf counts the other replicas, and those of them that are heard of.
func (g *group) heardOf() (heard, others int) {
	for _, m := range g.Members {
		if m.Self {
			continue
		}
		others++
		if m.Alive {
			heard++
		}
	}
	return heard, others
}

// self returns this replica.
func (g *group) self() (self member) {
	for _, m := range g.Members {
		if m.Self {
			return m
		}
	}
	return member{}
}

// notices are what somebody should know of the group before he believes the rest.
func (g *group) notices() (all []string) {
	switch heard, others := g.heardOf(); {
	case others == 0:
		all = append(all, "No other replica is known: this one decides alone.")
	case heard == 0:
		all = append(all, fmt.Sprintf("None of %s is heard of: this one decides alone.", several(others, "other replica")))
	}
	if g.self().InDoubt {
		all = append(all, "This replica is in doubt: others say up to most of what it says is down. Until that ends, its downs do not count.")
	}
	return all
}

// whileFrozen tells who decides while the verdicts of this replica are frozen. The group is nil without peers.
func (g *group) whileFrozen() string {
	if g == nil {
		return ""
	}
	if heard, _ := g.heardOf(); heard == 0 {
		return ""
	}
	return " The other replicas decide meanwhile."
}
