package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// spoken is a text of an event, or settings.
type spoken string

func (s spoken) String() string { return string(s) }

// happen adds an event of a target.
func (s *server) happen(kind events.Kind, endpoint, answered, names string) {
	t := &events.Target{Endpoint: netip.MustParseAddrPort(endpoint), Names: strings.Fields(names), Settings: spoken("interval 2s"), State: string(kind)}
	for _, addr := range strings.Fields(answered) {
		t.Answered = append(t.Answered, netip.MustParseAddr(addr))
	}
	if kind == events.Down {
		t.Result, t.Reason = "refused", "connection refused"
	}
	s.subject.Events.Add(&events.Event{Kind: kind, Text: spoken(fmt.Sprintf("%s is %s", endpoint, kind)), Target: t})
}

// someEvents has one of most kinds.
func someEvents(t testing.TB) *server {
	n := newServer(t, "")
	n.subject.Events.Addf(events.Start, "started")                                          // 1
	n.happen(events.Up, "10.0.0.1:443", "", "www.example.org.")                             // 2
	n.happen(events.Down, "10.0.0.1:443", "", "www.example.org. example.net.")              // 3
	n.happen(events.Down, "10.0.0.2:80", "192.0.2.2 192.0.2.3", "deep.sub.www.example.org") // 4
	n.subject.Events.Addf(events.Override, "Override: 10.0.0.1 is up, was auto")            // 5
	n.happen(events.Unknown, "[2001:db8::1]:443", "", "")                                   // 6
	n.subject.Events.Addf(events.Trouble, "trouble")                                        // 7
	return n
}

func (s *server) getEvents(t testing.TB, query string) *eventsView {
	t.Helper()
	w := s.do("GET", "/events.json?"+query)
	v := new(eventsView)
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%q: status %d, %v in\n%s", query, w.Code, err, w.Body)
	}
	return v
}

func (v *eventsView) numbers() (all []uint64) {
	for _, e := range v.Events {
		all = append(all, e.Number)
	}
	return all
}

func TestEventsJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.subject.Events.Addf(events.Reload, "Reloaded <b>")
		time.Sleep(time.Second)
		n.happen(events.Down, "10.0.0.1:443", "192.0.2.1", "www.example.org.")
		time.Sleep(1500 * time.Millisecond)
		n.happen(events.Up, "[2001:db8::1]:443", "", "")
		time.Sleep(time.Hour)
		w := n.do("GET", "/events.json")
		want := `{"version":1,"time":"2000-01-01T01:00:02.5Z","matches":3,"page":1,"pages":1,"size":100,"events":[` +
			`{"number":3,"time":"2000-01-01T00:00:02.5Z","kind":"up","text":"[2001:db8::1]:443 is up","state":"up","address":"2001:db8::1","port":443,` +
			`"answered":[],"settings":"interval 2s","names":[]},` +
			`{"number":2,"time":"2000-01-01T00:00:01Z","kind":"down","text":"10.0.0.1:443 is down","state":"down","address":"10.0.0.1","port":443,` +
			`"answered":["192.0.2.1"],"settings":"interval 2s","names":["www.example.org."],"result":"refused","reason":"connection refused"},` +
			`{"number":1,"time":"2000-01-01T00:00:00Z","kind":"reload","text":"Reloaded \u003cb\u003e"}]}` + "\n"
		if got := w.Body.String(); got != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		empty := newServer(t, "")
		if got := empty.do("GET", "/events.json").Body.String(); !strings.HasSuffix(got, `"matches":0,"page":1,"pages":1,"size":100,"events":[]}`+"\n") {
			t.Errorf("without events: %s", got)
		}
	})
}

func TestEventQueries(t *testing.T) {
	n := someEvents(t)
	for _, tt := range []struct {
		query string
		want  []uint64
		pages int // 0 for 1
	}{
		{"", []uint64{7, 6, 5, 4, 3, 2, 1}, 0},
		{"kind=&state=&prefix=", []uint64{7, 6, 5, 4, 3, 2, 1}, 0},
		{"kind=down", []uint64{4, 3}, 0},
		{"kind=override", []uint64{5}, 0},
		{"kind=freeze", nil, 0},
		{"state=down", []uint64{4, 3}, 0},
		{"state=up", []uint64{2}, 0},
		{"state=unknown", []uint64{6}, 0},
		{"kind=up&state=down", nil, 0},
		{"port=443", []uint64{6, 3, 2}, 0},
		{"prefix=10.0.0.1", []uint64{3, 2}, 0},
		{"prefix=192.0.2.3", []uint64{4}, 0},
		{"prefix=0.0.0.0/0", []uint64{4, 3, 2}, 0},
		{"prefix=::/0&kind=unknown", []uint64{6}, 0},
		{"zone=example.NET", []uint64{3}, 0},
		{"zone=www.example.org", []uint64{3, 2}, 0},
		{"size=3", []uint64{7, 6, 5}, 3},
		{"size=3&page=3", []uint64{1}, 3},
		{"size=3&page=4", nil, 3},
		{"size=1000&page=1000000", nil, 1},
	} {
		v := n.getEvents(t, tt.query)
		if got := v.numbers(); !slices.Equal(got, tt.want) || v.Pages != max(tt.pages, 1) {
			t.Errorf("%q: %v of %d pages, want %v of %d", tt.query, got, v.Pages, tt.want, tt.pages)
		}
	}
}

func TestEventMistakes(t *testing.T) {
	n := someEvents(t)
	const all = "down, up, unknown, freeze, thaw, override, overrides, reload, start, trouble, peer, disagreement"
	for _, tt := range []struct{ target, want string }{
		{"/events.json?kind=dead", `kind: "dead" is not a kind, want one of ` + all},
		{"/events.json?kind=down&kind=up", `kind: "up" is a second value, want a single one`},
		{"/events.json?port=0", `port: "0" is not possible, want a number from 1 to 65535`},
		{"/events.json?last=1", `unknown parameter "last", want one of kind, state, prefix, zone, port, page, size`},
		{"/events.ndjson?last=1001", `last: "1001" is not possible, want a number from 0 to 1000`},
		{"/events.ndjson?since=-1", `since: "-1" is not possible, want the number of an event`},
		{"/events.ndjson?since=18446744073709551616", `since: "18446744073709551616" is not possible, want the number of an event`},
		{"/events.ndjson?since=1&last=1", `last: not possible together with since, want one of them`},
		{"/events.ndjson?page=1", `unknown parameter "page", want one of kind, state, prefix, zone, port, last, since`},
		{"/events.ndjson?kind=%3Cb%3E", `kind: "<b>" is not a kind, want one of ` + all},
	} {
		w := n.do("GET", tt.target)
		want, err := json.Marshal(failure{1, tt.want})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != http.StatusBadRequest || got != string(want) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: status %d\n%s, want\n%s", tt.target, w.Code, got, want)
		}
	}
	if w := n.do("GET", "/events?kind=dead"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "is not a kind") {
		t.Errorf("the page: status %d", w.Code)
	}
}

// Who names another host is turned away, also from the events.
func TestEventsHost(t *testing.T) {
	n := someEvents(t)
	for _, path := range []string{"/events", "/events.json", "/events.ndjson"} {
		w := n.do("GET", path, func(r *http.Request) { r.Host = "attacker.example" })
		if w.Code != http.StatusMisdirectedRequest {
			t.Errorf("%s: status %d", path, w.Code)
		}
		if w := n.do("POST", path); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: status %d", path, w.Code)
		}
		if w := n.do("HEAD", path); w.Code != http.StatusOK {
			t.Errorf("HEAD %s: status %d", path, w.Code)
		}
	}
}

func TestEventsPage(t *testing.T) {
	n := someEvents(t)
	w := n.do("GET", "/events?size=5")
	document := documentOf(t, w)
	var got [][]string
	for _, row := range rows(document) {
		got = append(got, row[1:])
	}
	want := [][]string{
		{"Kind", "Event", "Target and names"},
		{"trouble", "trouble", ""},
		{"unknown", "[2001:db8::1]:443 is unknown", "[2001:db8::1]:443"},
		{"override", "Override: 10.0.0.1 is up, was auto", ""},
		{"down", "10.0.0.2:80 is down", "10.0.0.2:80 deep.sub.www.example.org"},
		{"down", "10.0.0.1:443 is down", "10.0.0.1:443 www.example.org, example.net"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if w.Header().Get("Refresh") != "10" {
		t.Errorf("refresh %q", w.Header().Get("Refresh"))
	}
	var links []string
	for _, a := range elements(document, "a") {
		if link := attribute(a, "href"); !strings.HasPrefix(link, "./") || strings.Contains(link, "json") {
			links = append(links, link)
		}
	}
	wantLinks := []string{
		"#main", "?refresh=0&size=5", "./events.json?size=5", "target?address=2001%3Adb8%3A%3A1&port=443", "target?address=10.0.0.2&port=80",
		"target?address=10.0.0.1&port=443", "?page=2&size=5",
	}
	if !slices.Equal(links, wantLinks) {
		t.Errorf("links %q\nwant %q", links, wantLinks)
	}
	for query, want := range map[string]string{
		"size=5":             "1–5 of 7",
		"kind=down":          "1–2 of 2 that match",
		"kind=freeze":        "No event matches. Show all",
		"page=3":             "There is no page 3. Go to the last one",
		"size=5&page=2":      "Previous Page 2 of 2",
		"kind=down&port=abc": `port: "abc" is not possible`,
	} {
		if text := words(elements(documentOf(t, n.do("GET", "/events?"+query)), "body")[0]); !strings.Contains(text, want) {
			t.Errorf("%q: no %q in %q", query, want, text)
		}
	}
	empty := newServer(t, "")
	if text := words(elements(documentOf(t, empty.do("GET", "/events")), "main")[0]); !strings.Contains(text, "No events yet.") {
		t.Errorf("without events: %q", text)
	}
}

// The time of an event has its date, unless that is today's.
func TestEventsPageTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.subject.Events.Addf(events.Start, "started")
		at := time.Now().Local()
		for _, age := range []time.Duration{0, 30 * 24 * time.Hour} {
			time.Sleep(age)
			want := at.Format("15:04:05")
			if age > 0 {
				want = at.Format("2006-01-02 15:04:05")
			}
			if got := rows(documentOf(t, n.do("GET", "/events")))[1][0]; got != want {
				t.Errorf("after %v: %q, want %q", age, got, want)
			}
		}
	})
}

// Whatever somebody puts into names and texts is text, and the same text.
func TestEventsPageEscapes(t *testing.T) {
	n := newServer(t, "")
	for _, attack := range attacks {
		n.subject.Events.Add(&events.Event{Kind: events.Down, Text: spoken(attack), Target: &events.Target{
			Endpoint: netip.MustParseAddrPort("10.0.0.1:443"), Names: []string{attack}, Settings: spoken(attack), Reason: attack,
		}})
	}
	got := rows(documentOf(t, n.do("GET", "/events")))[1:]
	slices.Reverse(got)
	v := n.getEvents(t, "")
	slices.Reverse(v.Events)
	for i, attack := range attacks {
		if name := "10.0.0.1:443 " + strings.TrimSuffix(attack, "."); got[i][2] != attack || got[i][3] != name {
			t.Errorf("%q became %q and %q", attack, got[i][2], got[i][3])
		}
		if e := v.Events[i]; e.Text != attack || e.Names[0] != attack || e.Reason != attack {
			t.Errorf("%q became %+v", attack, e)
		}
	}
	for _, attack := range attacks {
		query := url.Values{"kind": {attack}, "zone": {attack}}.Encode()
		if w := n.do("GET", "/events?"+query); w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "<script") || strings.Contains(w.Body.String(), "<img") {
			t.Errorf("%q: status %d\n%s", attack, w.Code, w.Body)
		}
	}
}

// When the wall clock is set, events are told as the new time has them, in one log for all.
func TestEventsKeepTheirAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := someEvents(t)
		before := n.getEvents(t, "")
		time.Sleep(time.Minute)
		after := n.getEvents(t, "")
		if age := after.Time.Sub(after.Events[0].Time); age != time.Minute || !before.Events[0].Time.Equal(after.Events[0].Time) {
			t.Errorf("%v old, at %v and then at %v", age, before.Events[0].Time, after.Events[0].Time)
		}
	})
}

// docs/events.md lists the fields of the JSON and the parameters, in their order, and its kinds and numbers are those of the
// code.
func TestDocumentedEvents(t *testing.T) {
	const page = "../../docs/events.md"
	var all []parameter
	all = append(append(all, eventsPage.parameters...), streamParameters[len(streamParameters)-2:]...)
	expectTables(t, page, []reflect.Type{reflect.TypeFor[eventsView](), reflect.TypeFor[event]()}, all)
	for _, kind := range events.Kinds() {
		lab.ExpectWords(t, page, fmt.Sprintf("| %s |", kind))
	}
	lab.ExpectWords(t, page,
		fmt.Sprintf("the last %d events", events.Known),
		fmt.Sprintf("%d clients at most", maxStreams),
		fmt.Sprintf("every %.0f seconds", beatEvery.Seconds()),
		fmt.Sprintf("takes nothing for %.0f seconds", writeTimeout.Seconds()),
		fmt.Sprintf("from 0, the default, to %d", events.Known),
	)
}
