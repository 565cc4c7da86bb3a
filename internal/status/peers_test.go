package status

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// fakePeers are replicas that are only told of.
type fakePeers struct {
	report peers.Report
	said   []peers.Said // of every target
	asked  int          // how often what was said was asked for
}

func (f *fakePeers) Report() peers.Report { return f.report }

func (f *fakePeers) Said(*health.Target) []peers.Said {
	f.asked++
	return f.said
}

// newPeers returns four replicas: this one, one like it, one that is frozen, and one that has fallen silent.
func newPeers() *fakePeers {
	at := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 7946)
	}
	said := func(host string, w health.Word, r checker.Result) peers.Said {
		return peers.Said{Member: host + "-c0ffee", Host: host, Site: "east", Self: host == "dns1", Observer: w == health.SaysUp || w == health.SaysDown,
			Opinion: health.Opinion{Word: w, InForce: health.Down, Age: 90 * time.Second, Result: r, RTT: 1500 * time.Microsecond}}
	}
	return &fakePeers{
		report: peers.Report{
			Members: []peers.Member{
				{Name: "dns1-c0ffee", Host: "dns1", Address: at(1), Site: "east", Shaker: "v1.2.3", Self: true, Since: time.Hour, Alive: true, Observed: 1200, Finished: 98765},
				{Name: "dns2-c0ffee", Host: "dns2", Address: at(2), Site: "east", Shaker: "v1.2.3", Since: 59 * time.Minute, Heard: 400 * time.Millisecond, Alive: true, Observed: 1, Finished: 1},
				{Name: "dns3-c0ffee", Host: "dns3", Address: at(3), Site: "east", Shaker: "v1.2.2", Since: 50 * time.Minute, Heard: 1500 * time.Millisecond, Alive: true, Frozen: true, Lag: 12, Observed: 1200, Finished: 5},
				{Name: "dns4-c0ffee", Host: "dns4", Address: at(4), Site: "east", Shaker: "v1.2.3", Since: 40 * time.Minute, Heard: 12345678 * time.Microsecond},
			},
			Observers: 3, Disagreeing: 2, Ready: true,
			Join: []peers.Joined{{Place: "192.0.2.2:7946"}, {Place: "dns4.example.org:7946", Err: errors.New("dns4.example.org: no such host")}},
			Counts: peers.Counts{SentMessages: 1000, SentOctets: 123456, ReceivedMessages: 1, ReceivedOctets: 999,
				Rejected: map[string]uint64{"key": 3, "flood": 0, "source": 20000}},
		},
		said: []peers.Said{
			said("dns1", health.NoWord, checker.Inconclusive), said("dns2", health.SaysDown, checker.Timeout),
			said("dns3", health.SaysUp, checker.Answered), said("dns4", health.Checking, checker.Inconclusive),
		},
	}
}

// The JSON has the fields that docs/status.md lists, and no others.
func TestPeersJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.subject.Peers = newPeers()
		row := func(host, address, shaker, rest string) string {
			return `{"name":"` + host + `-c0ffee","host":"` + host + `","address":"` + address + `:7946","site":"east","quorum":false,"shaker":"` + shaker + `",` + rest + `}`
		}
		want := `{"version":1,"time":"2000-01-01T00:00:00Z","self":"dns1-c0ffee","ready":true,"observers":3,"quorum":false,"disagreeing":2,"members":[` +
			row("dns1", "192.0.2.1", "v1.2.3", `"self":true,"known_seconds":3600,"heard_seconds":0,"alive":true,"frozen":false,"in_doubt":false,"behind":false,"stuck":false,"strange":false,"newer":false,"condition":"counts","lag":0,"observed":1200,"finished":98765`) + "," +
			row("dns2", "192.0.2.2", "v1.2.3", `"self":false,"known_seconds":3540,"heard_seconds":0.4,"alive":true,"frozen":false,"in_doubt":false,"behind":false,"stuck":false,"strange":false,"newer":false,"condition":"counts","lag":0,"observed":1,"finished":1`) + "," +
			row("dns3", "192.0.2.3", "v1.2.2", `"self":false,"known_seconds":3000,"heard_seconds":1.5,"alive":true,"frozen":true,"in_doubt":false,"behind":false,"stuck":false,"strange":false,"newer":false,"condition":"frozen","lag":12,"observed":1200,"finished":5`) + "," +
			row("dns4", "192.0.2.4", "v1.2.3", `"self":false,"known_seconds":2400,"heard_seconds":12.345,"alive":false,"frozen":false,"in_doubt":false,"behind":false,"stuck":false,"strange":false,"newer":false,"condition":"silent","lag":0,"observed":0,"finished":0`) +
			`],"join":[{"place":"192.0.2.2:7946"},{"place":"dns4.example.org:7946","error":"dns4.example.org: no such host"}],` +
			`"counts":{"sent_messages":1000,"sent_octets":123456,"received_messages":1,"received_octets":999,"rejected":{"flood":0,"key":3,"source":20000}}}` + "\n"
		w := n.do("GET", "/peers.json")
		if got := w.Body.String(); got != want || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("status %d, got\n%s\nwant\n%s", w.Code, got, want)
		}
		n.subject.Peers = new(fakePeers)
		if got := n.do("GET", "/peers.json").Body.String(); !strings.HasSuffix(got, `"members":[],"join":[],"counts":{"sent_messages":0,"sent_octets":0,"received_messages":0,"received_octets":0,"rejected":{}}}`+"\n") {
			t.Errorf("of nobody: %s", got)
		}
		if w := n.do("GET", "/peers.json?refresh=0"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `unknown parameter \"refresh\", want none`) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}

// Without peers nothing tells of any, and who asks for them learns why there is nothing.
func TestAlone(t *testing.T) {
	word := regexp.MustCompile(`(?i)peer|replica|observer|disagree`)
	eachPage(t, func(t *testing.T, path string, hasPeers bool, w *httptest.ResponseRecorder) {
		if found := word.FindString(w.Body.String()); found != "" && !hasPeers && w.Code == http.StatusOK {
			t.Errorf("has %q", found)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := newFleet(t, 3)
		for _, path := range []string{"/targets", "/events.json", "/overrides.json"} {
			if found := word.FindString(n.do("GET", path).Body.String()); found != "" {
				t.Errorf("%s has %q", path, found)
			}
		}
		const why = "there are no peers: no stanza has the property peers, so this replica decides alone"
		w := n.do("GET", "/peers.json")
		if want := `{"version":1,"error":"` + why + `"}` + "\n"; w.Code != http.StatusNotFound || w.Body.String() != want {
			t.Errorf("status %d, got %s want %s", w.Code, w.Body, want)
		}
		w = n.do("GET", "/peers")
		if text := words(elements(documentOf(t, w), "main")[0]); w.Code != http.StatusNotFound || !strings.Contains(text, why) {
			t.Errorf("status %d: %s", w.Code, text)
		}
		for _, path := range []string{"/", "/targets"} {
			if w := n.do("GET", path+"?disagreeing=1"); w.Code != http.StatusBadRequest {
				t.Errorf("%s with a filter for disagreement: status %d", path, w.Code)
			}
		}
	})
}

func TestPeersPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.subject.Peers = newPeers()
		document := documentOf(t, n.do("GET", "/peers"))
		const space = " " // a narrow one
		want := [][]string{
			{"Its words", "Replica", "Site and version", "Heard of", "Lag", "Work"},
			{"counts", "dns1 this replica 192.0.2.1:7946, called dns1-c0ffee", "site east, shaker v1.2.3", "known for 1 h 0 min", "", "observes 1" + space + "200 targets 98" + space + "765 checks done"},
			{"counts", "dns2 192.0.2.2:7946, called dns2-c0ffee", "site east, shaker v1.2.3", "just now known for 59 min", "level", "observes 1 target 1 check done"},
			{"frozen", "dns3 192.0.2.3:7946, called dns3-c0ffee", "site east, shaker v1.2.2", "1 s ago known for 50 min", "12 changes behind", "observes 1" + space + "200 targets 5 checks done"},
			{"silent", "dns4 192.0.2.4:7946, called dns4-c0ffee", "site east, shaker v1.2.3", "12 s ago known for 40 min", "level", "observes 0 targets 0 checks done"},
		}
		if got := rows(document); !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
		var facts []string
		for _, list := range elements(document, "dl") {
			facts = append(facts, words(list))
		}
		wantFacts := []string{
			"Others 2 of 3 other replicas heard of Ready yes: what the others say is known " +
				"Rule A target is down if more than half of up to 3 observers of it say so, all of the site of this replica. " +
				"Disagrees on 2 targets : this replica says otherwise than was decided " +
				"To join 192.0.2.2:7946: worked dns4.example.org:7946: dns4.example.org: no such host " +
				"Sent 1" + space + "000 messages, 123" + space + "kB Received 1 message, 999 octets " +
				"Rejected 3 encrypted with none of the keys, or not at all 20" + space + "000 not from an address that peers allow has",
			"counts What it says of the targets that it observes counts. " +
				"frozen Nearly all of its targets fell silent together, so it may be cut off. Its words do not count until they are heard of again. " +
				"silent Nothing has been heard of it for more than 3 seconds, and it did not say goodbye. Others observe in its place.",
		}
		if !reflect.DeepEqual(facts, wantFacts) {
			t.Errorf("got\n%q, want\n%q", facts, wantFacts)
		}
	})
}

// What is wrong with the group is told on every page.
func TestPeersNotices(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(r *peers.Report)
		want   []string
	}{
		{"all is well", func(*peers.Report) {}, nil},
		{"nobody is known", func(r *peers.Report) { r.Members = r.Members[:1] }, []string{"No other replica is known: this one decides alone."}},
		{"all are lost", func(r *peers.Report) {
			for i := range r.Members[1:] {
				r.Members[1+i].Alive = false
			}
		}, []string{"None of 3 other replicas is heard of: this one decides alone."}},
		{"doubt", func(r *peers.Report) { r.Members[0].InDoubt = true },
			[]string{"This replica is in doubt: others say up to most of what it says is down. Until that ends, its downs do not count."}},
		{"another is in doubt", func(r *peers.Report) { r.Members[1].InDoubt = true }, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			n, f := newServer(t, ""), newPeers()
			tt.change(&f.report)
			n.subject.Peers = f
			for _, path := range []string{"/", "/peers", "/overrides"} {
				var got []string
				for _, p := range elements(documentOf(t, n.do("GET", path)), "p") {
					if attribute(p, "class") == "notice" {
						got = append(got, words(p))
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s, %s: %q, want %q", tt.name, path, got, tt.want)
				}
			}
		})
	}
}

func TestConditions(t *testing.T) {
	for _, tt := range []struct {
		self, other member
		want, class string
	}{
		{member{}, member{Alive: true}, "counts", "up"},
		{member{}, member{Alive: true, Lag: 5}, "counts", "up"},
		{member{}, member{}, "silent", "down"},
		{member{}, member{Frozen: true}, "silent", "down"},
		{member{}, member{Alive: true, Frozen: true, InDoubt: true, Stuck: true}, "frozen", "unknown"},
		{member{}, member{Alive: true, InDoubt: true, Stuck: true}, "in doubt", "unknown"},
		{member{}, member{Alive: true, Behind: true, Stuck: true}, "behind", "unknown"},
		{member{}, member{Alive: true, Stuck: true, Strange: true}, "stuck", "unknown"},
		{member{}, member{Alive: true, Strange: true}, "other settings", "unknown"},
		{member{}, member{Alive: true, Strange: true, Newer: true}, "newer", "unknown"},
		{member{Site: "a"}, member{Alive: true, Site: "b"}, "other site", ""},
		{member{Site: "a", Quorum: true}, member{Alive: true, Site: "b"}, "counts", "up"},
	} {
		tt.self.Self = true
		g := &group{Members: []member{tt.self, tt.other}, Quorum: tt.self.Quorum}
		other := &g.Members[1]
		other.Condition = g.condition(other)
		if got := [2]string{other.Condition, other.Class()}; got != [2]string{tt.want, tt.class} {
			t.Errorf("%+v: %q, want %q", tt.other, got, tt.want)
		}
		if all := g.Meanings(); !slices.ContainsFunc(all, func(m struct{ Words, Means string }) bool { return m.Words == tt.want }) {
			t.Errorf("%q is not explained", tt.want)
		}
	}
}

func TestOctets(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 octets", 1: "1 octet", 999: "999 octets", 1000: "1 kB", 1234: "1.23 kB", 99_949: "99.9 kB",
		999_499: "999 kB", 999_500: "1 MB", 12_345_678_901: "12.3 GB", 1<<64 - 1: "18.4 EB"} {
		if got := strings.ReplaceAll(octets(n), "\u202f", " "); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// What other machines say of themselves is text wherever it is shown.
func TestPeersEscape(t *testing.T) {
	for _, attack := range attacks {
		synctest.Test(t, func(t *testing.T) {
			n, f := newFleet(t, 3), newPeers()
			plain := make(map[string]int)
			pages := []string{"/peers?", "/target?address=10.0.0.1&port=443"}
			n.subject.Peers = f
			for _, page := range pages {
				plain[page] = len(elements(documentOf(t, n.do("GET", page)), "*"))
			}
			for i := range f.report.Members {
				m := &f.report.Members[i]
				m.Name, m.Host, m.Site, m.Shaker = attack, attack, attack, attack
			}
			f.report.Join[0].Place, f.report.Join[1].Err = attack, errors.New(attack)
			f.said[1].Member, f.said[1].Host, f.said[1].Site = attack, attack, attack
			f.report.Counts.Rejected = map[string]uint64{attack: 1, "key": 1}
			for _, page := range pages {
				document := documentOf(t, n.do("GET", page))
				if all := len(elements(document, "*")); all != plain[page] {
					t.Errorf("%s, %q: %d elements, want %d", page, attack, all, plain[page])
				}
				if text := words(elements(document, "main")[0]); !strings.Contains(text, strings.Join(strings.Fields(attack), " ")) {
					t.Errorf("%s: no %q in %q", page, attack, text)
				}
			}
			g := new(group)
			if err := json.Unmarshal(n.do("GET", "/peers.json").Body.Bytes(), g); err != nil || g.Members[1].Host != attack {
				t.Errorf("%q: %v, %+v", attack, err, g)
			}
		})
	}
}

// firmCouncil has decided about all targets before.
type firmCouncil map[string]health.Decision // by address

func (c firmCouncil) Enter(t *health.Target) health.Decision { return c[t.Addr().Addr().String()] }
func (c firmCouncil) Decide(t *health.Target, _ health.Opinion) health.Decision {
	return c[t.Addr().Addr().String()]
}
func (firmCouncil) Leave(*health.Target) {}
func (firmCouncil) Froze(bool)           {}

// newReplica is a server where a council has decided otherwise of two targets than the checks here, and of one without them.
func newReplica(t *testing.T) (*server, *fakePeers) {
	n, f := newServer(t, "10.0.0.1=answered 10.0.0.2=refused 10.0.0.4=refused"), newPeers()
	n.subject.Peers = f
	n.Monitor.SetCouncil(firmCouncil{
		"10.0.0.1": {State: health.Down, Observes: true},
		"10.0.0.2": {State: health.Down, Observes: true},
		"10.0.0.3": {State: health.Up, RTT: time.Millisecond},
		"10.0.0.4": {State: health.Up, Observes: true},
	})
	for _, endpoint := range []string{"10.0.0.1:443", "10.0.0.2:443", "10.0.0.3:443", "10.0.0.4:443"} {
		n.target(endpoint)
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	return n, f
}

// Of each target the JSON tells what was decided, and what this replica says.
func TestOwnAgainstAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, f := newReplica(t)
		type row struct {
			state, own string
			rests      bool
			observers  int
			tally      string
		}
		const says = "1 of 2 observers says so, 1 says up; this replica does not check it"
		for query, want := range map[string]map[string]row{
			"": {
				"10.0.0.1:443": {"down", "up", false, 4, says},
				"10.0.0.2:443": {"down", "", false, 4, says},
				"10.0.0.3:443": {"up", "", true, 4, strings.Replace(says, "says up", "says down", 1)},
				"10.0.0.4:443": {"up", "down", false, 4, strings.Replace(says, "says up", "says down", 1)},
			},
			"disagreeing=1": {
				"10.0.0.1:443": {"down", "up", false, 4, says},
				"10.0.0.4:443": {"up", "down", false, 4, strings.Replace(says, "says up", "says down", 1)},
			},
			"disagreeing=1&state=up": {"10.0.0.4:443": {"up", "down", false, 4, strings.Replace(says, "says up", "says down", 1)}},
			"disagreeing=0&state=up&prefix=10.0.0.3": {
				"10.0.0.3:443": {"up", "", true, 4, strings.Replace(says, "says up", "says down", 1)},
			},
		} {
			v, got := n.get(t, query), make(map[string]row)
			for _, target := range v.Targets {
				got[target.Endpoint()] = row{target.State, target.Own, target.Rests, len(target.Observers), target.Tally}
			}
			if !reflect.DeepEqual(got, want) || v.Matches != len(want) {
				t.Errorf("%q: %d match,\n%+v, want\n%+v", query, v.Matches, got, want)
			}
		}
		// The page of many does not ask for what each replica says.
		f.asked = 0
		document := documentOf(t, n.do("GET", "/?disagreeing=1"))
		if text := words(elements(document, "tbody")[0]); f.asked > 0 || !strings.Contains(text, "this replica says up") || !strings.Contains(text, "this replica says down") {
			t.Errorf("asked %d times for what replicas say, and shows %q", f.asked, text)
		}
		if text := words(elements(documentOf(t, n.do("GET", "/?prefix=10.0.0.3")), "tbody")[0]); !strings.Contains(text, "others check it") {
			t.Errorf("a target that rests: %q", text)
		}
		if w := n.do("GET", "/targets?disagreeing=2"); w.Code != http.StatusBadRequest {
			t.Errorf("disagreeing=2: status %d", w.Code)
		}
	})
}

// The page of a target has what each replica says.
func TestObserversOnPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := newReplica(t)
		document := documentOf(t, n.do("GET", "/target?address=10.0.0.3&port=443"))
		tables := elements(document, "table")
		want := [][]string{
			{"nothing", "dns1 this replica site east, called dns1-c0ffee", "does not check it there it is down", "", "", ""},
			{"down", "dns2 site east, called dns2-c0ffee", "counts there it is down", "1999-12-31 23:58 1 min", "timeout", "1.50 ms"},
			{"up", "dns3 site east, called dns3-c0ffee", "counts there it is down", "1999-12-31 23:58 1 min", "answered", "1.50 ms"},
			{"checking", "dns4 site east, called dns4-c0ffee", "does not count there it is down", "1999-12-31 23:58 1 min", "", "1.50 ms"},
		}
		if got := rows(tables[len(tables)-1])[1:]; !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
		text := words(elements(document, "main")[0])
		for _, want := range []string{
			"Decided by 1 of 2 observers says so, 1 says down; this replica does not check it",
			"Last result not here: others check it",
			"Round trip 1.0 ms on average",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in %q", want, text)
			}
		}
	})
}

// The form of the events offers those of peers where there are some. Whoever asks for them elsewhere gets what there was.
func TestEventsOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.subject.Events.Addf(events.Peer, "dns2 has joined")
		for _, group := range []Peers{nil, newPeers()} {
			n.subject.Peers = group
			document := documentOf(t, n.do("GET", "/events?kind=peer"))
			offered := make(map[string]bool)
			for _, option := range elements(elements(document, "select")[0], "option") {
				offered[words(option)] = true
			}
			if offered["peer"] != (group != nil) || offered["disagreement"] != (group != nil) || !offered["trouble"] {
				t.Errorf("peers %v: offers %v", group != nil, offered)
			}
			if got := rows(document); len(got) != 2 || got[1][1] != "peer" || got[1][2] != "dns2 has joined" {
				t.Errorf("peers %v: %q", group != nil, got)
			}
		}
	})
}

// While verdicts are frozen here, others decide if there are any.
func TestWhileFrozen(t *testing.T) {
	const others = " The other replicas decide meanwhile."
	self := member{Self: true, Alive: true}
	for _, tt := range []struct {
		group *group
		want  string
	}{
		{nil, ""},
		{&group{Members: []member{self}}, ""},
		{&group{Members: []member{self, {}}}, ""},
		{&group{Members: []member{self, {}, {Alive: true}}}, others},
	} {
		if got := tt.group.whileFrozen(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.group, got, tt.want)
		}
	}
}
