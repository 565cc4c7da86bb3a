package status

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/least"
	"github.com/coredns-shaker/shaker/internal/override"
	"github.com/coredns-shaker/shaker/internal/prefix"
)

const (
	// pageSize is how many targets a page has, unless the client wants another number up to maxPageSize.
	pageSize    = 100
	maxPageSize = 1000
	// maxPage is the last page that can be asked for, whether there are that many or not. All before it fit into an
	// int of 32 bits.
	maxPage = 1_000_000
	// restEvery is after how many targets others have their turn on the processor. To look at so many takes less than a
	// millisecond. Without it they wait until the runtime notices, which may take 10.
	restEvery = 1024
)

// query is which targets a client wants to see.
type query struct {
	state  string // empty for any
	prefix netip.Prefix
	zone   string // lower case and fully qualified, empty for any
	port   int    // 0 for any
	// disagreeing has only targets of which this replica says otherwise by its own checks than the state.
	disagreeing bool
	page        int         // from 1
	size        int         // of a page
	kind        events.Kind // of events, empty for any
	last        int         // how many old events a stream begins with
	since       uint64      // number of the event after which a stream begins, if it is given
	// Refresh is how many seconds the page for people stands before it is loaded again, 0 for ever.
	Refresh int

	question    Question     // to be explained, as far as it is given
	explanation *Explanation // nil where nobody has asked

	given url.Values // what is not empty

	address  netip.Addr       // of a single target
	settings string           // in words, empty for any
	found    []*health.Target // by address, port and settings
}

// filters are the names of the parameters that choose targets and what happens to them.
var filters = []string{"state", "prefix", "zone", "port"}

// targetFilters choose targets.
var targetFilters = append(slices.Clone(filters), "disagreeing")

// parameter is one of a query.
type parameter struct {
	name string
	read func(*query, string) error
	// peers has it only where there are peers.
	peers bool
}

var portParameter = parameter{name: "port", read: func(q *query, value string) (err error) {
	q.port, err = number(value, 1, 65535)
	return err
}}

var parameters = []parameter{
	{name: "state", read: func(q *query, value string) error {
		q.state = value
		if !slices.ContainsFunc(statesByNeed, func(s health.State) bool { return s.String() == value }) {
			return fmt.Errorf("%q is not a state, want down, unknown or up", value)
		}
		return nil
	}},
	{name: "prefix", read: func(q *query, value string) (err error) {
		q.prefix, err = prefix.Parse(value)
		return err
	}},
	{name: "zone", read: func(q *query, value string) error {
		if _, ok := dns.IsDomainName(value); !ok {
			return fmt.Errorf("%q is not a domain name", value)
		}
		q.zone = strings.ToLower(dns.Fqdn(value))
		return nil
	}},
	portParameter,
	{name: "page", read: func(q *query, value string) (err error) {
		q.page, err = number(value, 1, maxPage)
		return err
	}},
	{name: "size", read: func(q *query, value string) (err error) {
		q.size, err = number(value, 1, maxPageSize)
		return err
	}},
}

// targetParameters are those that choose targets, and a page of them.
var targetParameters = append(slices.Clone(parameters), parameter{name: "disagreeing", peers: true, read: func(q *query, value string) error {
	n, err := number(value, 0, 1)
	q.disagreeing = n == 1
	return err
}})

var targetsJSON = format{
	contentType: "application/json",
	parameters:  targetParameters,
	write: func(to *bytes.Buffer, _ http.Header, subject *Subject, q *query, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(failure{version, problem.Error()})
		}
		v := subject.view()
		for i, c := range v.list(subject, q, false) {
			v.Targets[i].addObservers(subject, c.Target)
		}
		return json.NewEncoder(to).Encode(v)
	},
}

// readQuery reads the part of a URL behind the question mark. A parameter without value, as forms send it, is none.
// Of a query with a mistake only what is given is of use.
func readQuery(raw string, parameters []parameter) (*query, error) {
	q := &query{page: 1, size: pageSize, Refresh: refreshEvery, given: make(url.Values)}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, fmt.Errorf("query: %v, want NAME=VALUE with & in between", err)
	}
	var names []string
	for _, p := range parameters {
		names = append(names, p.name)
		for _, value := range values[p.name] {
			if value = strings.TrimSpace(value); value != "" {
				q.given.Add(p.name, value)
			}
		}
	}
	for _, p := range parameters {
		switch all := q.given[p.name]; len(all) {
		case 0:
		case 1:
			if err := p.read(q, all[0]); err != nil {
				return q, fmt.Errorf("%s: %w", p.name, err)
			}
		default:
			return q, fmt.Errorf("%s: %q is a second value, want a single one", p.name, all[1])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch {
		case slices.Contains(names, key):
		case len(names) == 0:
			return q, fmt.Errorf("unknown parameter %q, want none", key)
		default:
			return q, fmt.Errorf("unknown parameter %q, want one of %s", key, strings.Join(names, ", "))
		}
	}
	return q, nil
}

// number reads one of a range.
func number(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not possible, want a number from %d to %d", value, least, most)
	}
	return n, nil
}

func (q *query) matches(t *health.Target, state health.State) bool {
	addr := t.Addr()
	return (q.state == "" || q.state == state.String()) &&
		(q.port == 0 || q.port == int(addr.Port())) &&
		(!q.prefix.IsValid() || q.prefix.Contains(addr.Addr()) || slices.ContainsFunc(t.AliasAddrs(), q.prefix.Contains)) &&
		(q.zone == "" || t.HasName(q.inZone)) &&
		(!q.disagreeing || differing(t.Own().Word, state.String()) != "")
}

// inZone tells whether a name in lower case is in the zone. It takes names apart, which costs memory, only where a dot
// before the zone belongs to a label.
func (q *query) inZone(qname string) bool {
	above, found := strings.CutSuffix(qname, q.zone)
	switch {
	case !found:
		return false
	case above == "", q.zone == ".":
		return true
	case strings.HasSuffix(above, `\.`):
		return dns.IsSubDomain(q.zone, qname)
	default:
		return strings.HasSuffix(above, ".")
	}
}

// statesByNeed are the states, that which needs somebody's attention first.
var statesByNeed = []health.State{health.Down, health.Unknown, health.Up}

// stateNamed returns the state that is told by a name.
func stateNamed(name string) health.State {
	i := slices.IndexFunc(statesByNeed, func(s health.State) bool { return s.String() == name })
	return statesByNeed[i]
}

// candidate is a target that may be on the page.
type candidate struct {
	*health.Target
	group int // those of the least come first
}

// compare orders by group, then by address and port. What is left are targets that differ in their settings.
func (c candidate) compare(other candidate) int {
	if order := cmp.Compare(c.group, other.group); order != 0 {
		return order
	}
	if order := c.Addr().Compare(other.Addr()); order != 0 {
		return order
	}
	return cmp.Compare(c.Settings().String(), other.Settings().String())
}

// find returns those of the targets that match which are on the page, and how many match. They are in the order of their
// addresses and ports, and before that by need if that is wanted. It looks at each target once, and needs room for twice
// as many as there are up to the end of the page.
func (q *query) find(m *health.Monitor, byNeed bool) (onPage []candidate, matches int) {
	first := (q.page - 1) * q.size
	least := least.New(first+q.size, m.Len(), candidate.compare)
	for t := range m.All() {
		// The state is asked for once, since it may change meanwhile.
		state := t.State()
		if !q.matches(t, state) {
			continue
		}
		group := 0
		if byNeed {
			group = slices.Index(statesByNeed, state)
		}
		least.Add(candidate{t, group})
		if matches++; matches%restEvery == 0 {
			runtime.Gosched()
		}
	}
	return least.From(first), matches
}

// view is what there is to tell, in the form that programs get.
type view struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Frozen  time.Time `json:"frozen_since,omitzero"`
	Counts  counts    `json:"counts"`
	Matches int       `json:"matches"`
	Page    int       `json:"page"`
	Pages   int       `json:"pages"`
	Size    int       `json:"size"`
	Slot    float64   `json:"history_slot_seconds"`
	Targets []target  `json:"targets"`
}

type counts struct {
	Total   int `json:"total"`
	Down    int `json:"down"`
	Unknown int `json:"unknown"`
	Up      int `json:"up"`
	Damped  int `json:"damped"`
}

type target struct {
	Address   netip.Addr                 `json:"address"`
	Port      uint16                     `json:"port"`
	Answered  []netip.Addr               `json:"answered,omitempty"`
	Settings  string                     `json:"settings"`
	State     string                     `json:"state"`
	Own       string                     `json:"own,omitempty"`
	Rests     bool                       `json:"rests,omitempty"`
	Since     time.Time                  `json:"since"`
	Damped    time.Time                  `json:"damped_until,omitzero"`
	Checked   time.Time                  `json:"checked,omitzero"`
	Result    string                     `json:"result,omitempty"`
	Reason    string                     `json:"reason,omitempty"`
	RoundTrip float64                    `json:"round_trip_seconds,omitempty"`
	Names     []string                   `json:"names"`
	Overrides []rule                     `json:"overrides"`
	Observers []Observer                 `json:"observers,omitempty"`
	Tally     string                     `json:"tally,omitempty"`
	History   [health.HistorySlots]*slot `json:"history"`
}

type rule struct {
	Rule   string    `json:"rule"`
	Says   string    `json:"says"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	From   string    `json:"from,omitempty"` // this and the next only where replicas share the file
	Since  time.Time `json:"since,omitzero"`
	File   string    `json:"file,omitempty"` // left out where it is told beside the rules
}

func newRule(r override.Rule, file string) rule {
	return rule{r.What, r.Says.String(), instant(r.Until), r.Reason, r.From, instant(r.Since), file}
}

type slot struct {
	Result    string  `json:"result"`
	Mixed     bool    `json:"mixed"`
	RoundTrip float64 `json:"round_trip_seconds,omitempty"`
}

// version is that of the JSON. It changes when a field changes its meaning or goes, not when one is added.
const version = 1

// failure is the answer to a query with a mistake.
type failure struct {
	Version int    `json:"version"`
	Error   string `json:"error"`
}

// view returns a view without targets.
func (s *Subject) view() *view {
	n := s.Monitor.Counts()
	frozen, _ := s.Monitor.Frozen()
	return &view{
		Version: version,
		Time:    instant(s.Monitor.Now()),
		Frozen:  instant(frozen),
		Counts:  counts{Total: n.Total, Down: n.Down, Unknown: n.Unknown, Up: n.Up, Damped: n.Damped},
		Slot:    health.HistorySlot.Seconds(),
		Targets: []target{},
	}
}

// list adds the page of targets that the query asks for. It returns them.
func (v *view) list(s *Subject, q *query, byNeed bool) []candidate {
	onPage, matches := q.find(s.Monitor, byNeed)
	v.Matches = matches
	v.Page, v.Pages, v.Size = q.page, max(1, (matches+q.size-1)/q.size), q.size
	for _, c := range onPage {
		v.Targets = append(v.Targets, s.newTarget(c.Target))
	}
	return onPage
}

// instant leaves out what is of no use.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// newTarget returns what there is to tell of a target, but for its observers.
func (s *Subject) newTarget(t *health.Target) target {
	row := newTarget(t, s.Rules)
	if s.Peers != nil {
		own := t.Own()
		row.Own, row.Rests = differing(own.Word, row.State), own.Word == health.NoWord
	}
	return row
}

// addObservers adds what each replica says of the target, if there are peers.
func (t *target) addObservers(s *Subject, of *health.Target) {
	if s.Peers != nil {
		said := s.Peers.Said(of)
		t.Observers, t.Tally = Observers(said, s.Monitor.Now()), Tally(stateNamed(t.State), said)
	}
}

func newTarget(t *health.Target, rules []Rules) target {
	addr, s := t.Addr(), t.Status()
	row := target{
		Address:   addr.Addr(),
		Port:      addr.Port(),
		Answered:  t.AliasAddrs(),
		Settings:  t.Settings().String(),
		State:     s.State.String(),
		Since:     instant(s.Since),
		Damped:    instant(s.DampedUntil),
		RoundTrip: s.RTT.Seconds(),
		Names:     append([]string{}, t.Names()...),
		Overrides: []rule{},
	}
	if !s.Checked.IsZero() {
		row.Checked, row.Result = instant(s.Checked), s.Result.String()
	}
	if s.Err != nil {
		row.Reason = s.Err.Error()
	}
	for i, past := range s.History {
		if past.Checked {
			row.History[i] = &slot{Result: past.Result.String(), Mixed: past.Mixed, RoundTrip: past.RTT.Seconds()}
		}
	}
	answered := t.Aliases()
	if len(answered) == 0 {
		answered = append(answered, addr)
	}
	for _, r := range rules {
		if !r.isAbout(t) {
			continue
		}
		for _, a := range answered {
			row.addRule(&r, a)
		}
	}
	return row
}

// addRule adds what a file decides about an address and port, unless it is there already.
func (t *target) addRule(r *Rules, about netip.AddrPort) {
	found, ok := r.File.Rules().Find(about.Addr(), about.Port())
	if row := newRule(found, r.File.AbsPath()); ok && !slices.Contains(t.Overrides, row) {
		t.Overrides = append(t.Overrides, row)
	}
}

// isAbout tells whether the target is one that the file is about.
func (r *Rules) isAbout(t *health.Target) bool {
	return r.IsIPv4 == t.Addr().Addr().Is4() && r.Settings.Value() == t.Settings()
}
