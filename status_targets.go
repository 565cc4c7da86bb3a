package shaker

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

const (
	// statusSize is how many targets a page has, unless the client wants another number up to mostStatusSize.
	statusSize     = 100
	mostStatusSize = 1000
	// mostStatusPage is the last page that can be asked for, whether there are that many or not. All before it fit into an
	// int of 32 bits.
	mostStatusPage = 1_000_000
)

// statusQuery is which targets a client wants to see.
type statusQuery struct {
	state  string // empty for any
	prefix netip.Prefix
	zone   string // lower case and fully qualified, empty for any
	port   int    // 0 for any
	page   int    // from 1
	size   int    // of a page
	// Refresh is how many seconds the page for people stands before it is loaded again, 0 for ever.
	Refresh int

	given url.Values // what is not empty
}

// statusParameter is one of a query.
type statusParameter struct {
	name string
	read func(*statusQuery, string) error
}

var statusParameters = []statusParameter{
	{"state", func(q *statusQuery, value string) error {
		q.state = value
		if !slices.ContainsFunc(statesByNeed, func(s health.State) bool { return s.String() == value }) {
			return fmt.Errorf("%q is not a state, want down, unknown or up", value)
		}
		return nil
	}},
	{"prefix", func(q *statusQuery, value string) error {
		var ok bool
		if q.prefix, ok = parsePrefix(value); !ok {
			return fmt.Errorf("%q is neither a CIDR such as 10.0.0.0/8 nor an address", value)
		}
		return nil
	}},
	{"zone", func(q *statusQuery, value string) error {
		if _, ok := dns.IsDomainName(value); !ok {
			return fmt.Errorf("%q is not a domain name", value)
		}
		q.zone = strings.ToLower(dns.Fqdn(value))
		return nil
	}},
	{"port", func(q *statusQuery, value string) (err error) {
		q.port, err = count([]string{value}, 1, 65535)
		return err
	}},
	{"page", func(q *statusQuery, value string) (err error) {
		q.page, err = count([]string{value}, 1, mostStatusPage)
		return err
	}},
	{"size", func(q *statusQuery, value string) (err error) {
		q.size, err = count([]string{value}, 1, mostStatusSize)
		return err
	}},
}

// readStatusQuery reads the part of a URL behind the question mark. A parameter without value, as forms send it, is none.
// Of a query with a mistake only what is given is of use.
func readStatusQuery(raw string, parameters []statusParameter) (*statusQuery, error) {
	q := &statusQuery{page: 1, size: statusSize, Refresh: statusRefresh, given: make(url.Values)}
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
		if !slices.Contains(names, key) {
			return q, fmt.Errorf("unknown parameter %q, want one of %s", key, strings.Join(names, ", "))
		}
	}
	return q, nil
}

func (q *statusQuery) matches(t *health.Target, state health.State) bool {
	addr := t.Addr()
	return (q.state == "" || q.state == state.String()) &&
		(q.port == 0 || q.port == int(addr.Port())) &&
		(!q.prefix.IsValid() || q.prefix.Contains(addr.Addr())) &&
		(q.zone == "" || slices.ContainsFunc(t.Names(), q.inZone))
}

// inZone first compares octets, which leaves little to a comparison label by label.
func (q *statusQuery) inZone(qname string) bool {
	return strings.HasSuffix(qname, q.zone) && dns.IsSubDomain(q.zone, qname)
}

// statesByNeed are the states, that which needs somebody's attention first.
var statesByNeed = []health.State{health.Down, health.Unknown, health.Up}

// find returns the targets that match, by address and port, and before that by need if that is wanted.
func (q *statusQuery) find(m *health.Monitor, byNeed bool) []*health.Target {
	groups := make([][]*health.Target, len(statesByNeed))
	for t := range m.All() {
		// The state is asked for once, since it may change meanwhile.
		if state := t.State(); q.matches(t, state) {
			group := 0
			if byNeed {
				group = slices.Index(statesByNeed, state)
			}
			groups[group] = append(groups[group], t)
		}
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b *health.Target) int {
			if order := a.Addr().Compare(b.Addr()); order != 0 {
				return order
			}
			return cmp.Compare(describeSettings(a.Settings()), describeSettings(b.Settings()))
		})
	}
	return slices.Concat(groups...)
}

// statusView is what there is to tell, in the form that programs get.
type statusView struct {
	Version int            `json:"version"`
	Time    time.Time      `json:"time"`
	Frozen  time.Time      `json:"frozen_since,omitzero"`
	Counts  statusCounts   `json:"counts"`
	Matches int            `json:"matches"`
	Page    int            `json:"page"`
	Pages   int            `json:"pages"`
	Size    int            `json:"size"`
	Slot    float64        `json:"history_slot_seconds"`
	Targets []statusTarget `json:"targets"`
}

type statusCounts struct {
	Total   int `json:"total"`
	Down    int `json:"down"`
	Unknown int `json:"unknown"`
	Up      int `json:"up"`
	Damped  int `json:"damped"`
}

type statusTarget struct {
	Address   netip.Addr                       `json:"address"`
	Port      uint16                           `json:"port"`
	Settings  string                           `json:"settings"`
	State     string                           `json:"state"`
	Since     time.Time                        `json:"since"`
	Damped    time.Time                        `json:"damped_until,omitzero"`
	Checked   time.Time                        `json:"checked,omitzero"`
	Result    string                           `json:"result,omitempty"`
	Reason    string                           `json:"reason,omitempty"`
	RoundTrip float64                          `json:"round_trip_seconds,omitempty"`
	Names     []string                         `json:"names"`
	Overrides []statusOverride                 `json:"overrides"`
	History   [health.HistorySlots]*statusSlot `json:"history"`
}

type statusOverride struct {
	Rule string `json:"rule"`
	Says string `json:"says"`
	File string `json:"file"`
}

type statusSlot struct {
	Result string `json:"result"`
	Mixed  bool   `json:"mixed"`
}

// statusVersion is that of the JSON. It changes when a field changes its meaning or goes, not when one is added.
const statusVersion = 1

// statusProblem is the answer to a query with a mistake.
type statusProblem struct {
	Version int    `json:"version"`
	Error   string `json:"error"`
}

// status returns a view without targets.
func (inst *instance) status() *statusView {
	n := inst.monitor.Counts()
	frozen, _ := inst.monitor.Frozen()
	return &statusView{
		Version: statusVersion,
		Time:    statusTime(time.Now()),
		Frozen:  statusTime(frozen),
		Counts:  statusCounts{Total: n.Total, Down: n.Down, Unknown: n.Unknown, Up: n.Up, Damped: n.Damped},
		Slot:    health.HistorySlot.Seconds(),
		Targets: []statusTarget{},
	}
}

// list adds the page of targets that the query asks for.
func (v *statusView) list(inst *instance, q *statusQuery, byNeed bool) {
	all := q.find(inst.monitor, byNeed)
	v.Matches = len(all)
	v.Page, v.Pages, v.Size = q.page, max(1, (len(all)+q.size-1)/q.size), q.size
	first := min((q.page-1)*q.size, len(all))
	rules := inst.statusRules()
	for _, t := range all[first:min(first+q.size, len(all))] {
		v.Targets = append(v.Targets, newStatusTarget(t, rules))
	}
}

// statusTime leaves out what is of no use.
func statusTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func newStatusTarget(t *health.Target, rules []statusRules) statusTarget {
	addr, s := t.Addr(), t.Status()
	row := statusTarget{
		Address:   addr.Addr(),
		Port:      addr.Port(),
		Settings:  describeSettings(t.Settings()),
		State:     s.State.String(),
		Since:     statusTime(s.Since),
		Damped:    statusTime(s.DampedUntil),
		RoundTrip: s.RTT.Seconds(),
		Names:     append([]string{}, t.Names()...),
		Overrides: []statusOverride{},
	}
	if !s.Checked.IsZero() {
		row.Checked, row.Result = statusTime(s.Checked), s.Result.String()
	}
	if s.Err != nil {
		row.Reason = s.Err.Error()
	}
	for i, slot := range s.History {
		if slot.Checked {
			row.History[i] = &statusSlot{slot.Result.String(), slot.Mixed}
		}
	}
	for _, r := range rules {
		if !r.isAbout(t) {
			continue
		}
		if rule, says := r.file.current().rule(addr.Addr(), addr.Port()); rule != "" {
			row.Overrides = append(row.Overrides, statusOverride{rule, says.String(), r.file.path})
		}
	}
	return row
}

// statusRules is a file of overrides, and settings of a stanza that names it.
type statusRules struct {
	file *overridesFile
	key  health.Key
	is4  bool // the settings are those for IPv4
}

// isAbout tells whether the target is one of such a stanza.
func (r *statusRules) isAbout(t *health.Target) bool {
	return r.is4 == t.Addr().Addr().Is4() && r.key.Value() == t.Settings()
}

// statusRules returns those of all stanzas, each once.
func (inst *instance) statusRules() []statusRules {
	rules := make(map[statusRules]bool)
	for _, s := range inst.handlers {
		for _, p := range s.policies {
			if p.forced != nil {
				rules[statusRules{p.forced, p.key4, true}] = true
				rules[statusRules{p.forced, p.key6, false}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(rules), func(a, b statusRules) int { return cmp.Compare(a.file.path, b.file.path) })
}
