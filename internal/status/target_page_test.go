package status

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"golang.org/x/net/html"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// facts returns what the page of a target lists.
func facts(document *html.Node) map[string]string {
	all := make(map[string]string)
	what := ""
	for _, n := range elements(document, "*") {
		switch n.Data {
		case "dt":
			what = words(n)
		case "dd":
			all[what] = words(n)
		}
	}
	return all
}

// What the page of a target tells, and that of another one.
func TestTargetPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFleet(t, 30)
		n.find(t, "10.0.0.14:587").AddAlias(netip.MustParseAddrPort("192.0.2.14:587"))
		clock := time.Now().Add(-time.Second).Local().Format(time.TimeOnly)[:5] // hours and minutes
		const checks = "A check every 9 s, up to a fifth sooner; every 500 ms while there is no verdict, and after a result that speaks against it. " +
			"A check waits 1 s for the answer, and sends up to 4 SYNs meanwhile; only one while the target is down. " +
			"Down after 3 failures in a row, and up again after 2 answers in a row. " +
			"From its third fall on it is held down for 30 s although it answers, and twice as long with every further one, up to 5 min."
		for _, tt := range []struct {
			query string
			want  map[string]string // "" where there is no such fact; else what it begins with
			past  string
		}{
			{"address=10.0.0.9&port=443", map[string]string{
				"State": "down since ", "Notes": "override: down", "Overrides in": n.subject.Rules[0].File.Path(), "Last result": "timeout at " + clock,
				"Round trip": "530 µs on average", "Names": "api.shop.example", "Answered as": "", "Checks": checks,
				"Settings": "interval 9s 500ms timeout 1s tries 4 rise 2 fall 3 damping 30s 5m0s", "Events": "what happened to it",
			}, "timeout"},
			{"address=10.0.0.14&port=587&refresh=0", map[string]string{
				"State": "down since ", "Notes": "", "Overrides in": "", "Last result": "unreachable no route to host at ", "Answered as": "192.0.2.14",
			}, "unreachable"},
			{"address=::ffff:10.0.0.3&port=443", map[string]string{
				"State": "down since ", "Last result": "refused at ", "Round trip": "not known yet", "Names": "www.shop.example shop.example",
			}, "30 refused"},
			{"address=10.0.0.1&port=443&settings=interval+9s+500ms+timeout+1s+tries+4+rise+2+fall+3+damping+30s+5m0s", map[string]string{
				"State": "up since ", "Last result": "answered at ", "Round trip": "240 µs on average",
			}, "30 answered"},
		} {
			w := n.do("GET", "/target?"+tt.query)
			document := documentOf(t, w)
			refresh := map[bool]string{true: "", false: "10"}[strings.Contains(tt.query, "refresh=0")]
			if w.Code != http.StatusOK || w.Header().Get("Refresh") != refresh {
				t.Errorf("%s: status %d, refresh %q", tt.query, w.Code, w.Header().Get("Refresh"))
			}
			got := facts(document)
			for what, want := range tt.want {
				if got, is := got[what]; is != (want != "") || !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s: %q, want %q", tt.query, what, got, want)
				}
			}
			if past := words(elements(document, "svg")[1]); !strings.Contains(past, tt.past) {
				t.Errorf("%s: the history is %q, want it to have %q", tt.query, past, tt.past)
			}
			if slots := len(elements(document, "tr")) - 1; slots != health.HistorySlots {
				t.Errorf("%s: a table of %d slots", tt.query, slots)
			}
		}
	})
}

// find returns a target that exists.
func (s *server) find(t *testing.T, endpoint string) *health.Target {
	t.Helper()
	for target := range s.Monitor.All() {
		if target.Addr() == netip.MustParseAddrPort(endpoint) {
			return target
		}
	}
	t.Fatalf("there is no target %s", endpoint)
	return nil
}

// Where a target has others beside it, the rows of the page of all lead to each of them, and its address and port lead to a
// choice. Whoever follows any link stays below the path that a proxy has the pages at.
func TestTargetLinks(t *testing.T) {
	n := newServer(t, "10.0.0.1=answered 2001:db8::1=refused")
	n.settleAll()
	other := usual
	other.Rise = 7
	n.Monitor.Target(netip.MustParseAddrPort("10.0.0.1:443"), unique.Make(other), time.Hour).AddName(`a&"<b>.example.org.`)
	follow := func(from, link string) (path string, document *html.Node) {
		t.Helper()
		to, err := url.Parse("http://127.0.0.1" + from)
		if err == nil {
			to, err = to.Parse(link)
		}
		if err != nil {
			t.Fatal(err)
		}
		w := n.do("GET", to.RequestURI())
		if w.Code != http.StatusOK {
			t.Errorf("from %s, %s leads to status %d", from, link, w.Code)
		}
		return to.RequestURI(), documentOf(t, w)
	}
	links := func(document *html.Node, within string) (all []string) {
		for _, part := range elements(document, within) {
			for _, a := range elements(part, "a") {
				all = append(all, attribute(a, "href"))
			}
		}
		return all
	}
	for _, query := range []string{"", "?prefix=2001:db8::1"} {
		_, document := follow("/", "/"+query)
		for i, link := range links(document, "tbody") {
			if various := strings.Contains(link, "settings="); various != (query == "") {
				t.Errorf("%q leads to %s", query, link)
			}
			_, its := follow("/", link)
			if got, want := words(elements(its, "h1")[0]), "shaker target "+rows(document)[1+i][1]; got != want || facts(its)["State"] == "" {
				t.Errorf("%s leads to %q, want %q", link, got, want)
			}
		}
	}
	at, choice := follow("/", "target?address=10.0.0.1&port=443")
	all := links(choice, "main")
	if len(all) != 2 {
		t.Fatalf("there is a choice of %q, want two", all)
	}
	_, document := follow(at, all[1])
	if got := facts(document); !strings.Contains(got["Settings"], " rise 7 ") || got["Names"] != `a&"<b>.example.org` {
		t.Errorf("the second is %q", got)
	}
	for _, link := range links(document, "main") {
		if to, is := strings.CutPrefix(link, "./events?"); is {
			if to != "port=443&prefix=10.0.0.1" {
				t.Errorf("events are those of %s", to)
			}
			continue
		}
		if _, page := follow(at, link); len(rows(page)) != 2 {
			t.Errorf("%s leads to %q, want the one target", link, rows(page))
		}
	}
	for _, link := range links(document, "header") {
		follow(at, link)
	}
}

// A target that is not there, and what is no target.
func TestTargetMistakes(t *testing.T) {
	n := newServer(t, "10.0.0.1=answered")
	n.settleAll()
	const gone = ": targets come with answers that have their addresses, and go when there were none for long"
	for query, want := range map[string]string{
		"":                                     "400 address: missing, want one such as 192.0.2.1",
		"address=":                             "400 address: missing, want one such as 192.0.2.1",
		"address=10.0.0.1":                     "400 port: missing, want a number from 1 to 65535",
		"port=443":                             "400 address: missing, want one such as 192.0.2.1",
		"address=10.0.0.0/8&port=443":          `400 address: "10.0.0.0/8" is not an address, want one such as 192.0.2.1`,
		"address=fe80::1%25eth0&port=443":      `400 address: "fe80::1%eth0" is not an address, want one such as 192.0.2.1`,
		"address=<script>&port=443":            `400 address: "<script>" is not an address, want one such as 192.0.2.1`,
		"address=10.0.0.1&port=0":              `400 port: "0" is not possible, want a number from 1 to 65535`,
		"address=10.0.0.1&port=443&state=down": `400 unknown parameter "state", want one of address, port, settings, refresh`,
		"address=10.0.0.2&port=443":            "404 there is no target 10.0.0.2:443" + gone,
		"address=10.0.0.1&port=80":             "404 there is no target 10.0.0.1:80" + gone,
		"address=2001:db8::1&port=443":         "404 there is no target [2001:db8::1]:443" + gone,
		"address=10.0.0.1&port=443&settings=x": `404 there is no target 10.0.0.1:443 with the settings "x"` + gone,
		"address=10.0.0.1&port=443&settings=%3Cscript%3E%22": `404 there is no target 10.0.0.1:443 with the settings "<script>\""` + gone,
	} {
		w := n.do("GET", "/target?"+query)
		document := documentOf(t, w)
		got := strconv.Itoa(w.Code)
		for _, p := range elements(document, "p") {
			if attribute(p, "role") == "alert" {
				got += " " + words(p)
			}
		}
		if got != want || w.Header().Get("Refresh") != "" {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
		if scripts := elements(document, "script"); len(scripts) > 0 {
			t.Errorf("%q: there is a script", query)
		}
	}
}

// Whatever the names, reasons and paths are, they are text.
func TestTargetPageEscapes(t *testing.T) {
	n := newServer(t, "")
	n.subject.Rules = about(openRulesAt(t, lab.File(t, "<b onclick='x'>&amp;", "10.0.0.1 down\n")), usual)
	for chunk := range slices.Chunk(attacks, 4) {
		target := n.Monitor.Target(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1+len(chunk[0]))), unique.Make(usual), time.Hour)
		for _, attack := range chunk {
			target.AddName(attack)
		}
		document := documentOf(t, n.do("GET", "/"+newTarget(target, nil).Link(true)))
		got := facts(document)
		var want []string
		for _, attack := range chunk {
			want = append(want, strings.TrimSuffix(strings.ToLower(attack), "."))
		}
		if got["Names"] != strings.Join(want, " ") || !strings.HasSuffix(got["Overrides in"], "<b onclick='x'>&amp;") {
			t.Errorf("%q became %q", want, got)
		}
		for _, e := range elements(document, "*") {
			if slices.Contains([]string{"script", "img", "b"}, e.Data) {
				t.Errorf("there is a <%s>", e.Data)
			}
			if href := attribute(e, "href"); strings.HasPrefix(href, "javascript:") {
				t.Errorf("a link leads to %s", href)
			}
		}
	}
}

// The marks on an axis are round, have all values between them, and are neither too many nor only one.
func TestTripAxis(t *testing.T) {
	for _, tt := range []struct{ least, most, want string }{
		{"240us", "300us", "200 µs 500 µs"},
		{"200us", "500us", "200 µs 500 µs"},
		{"199us", "501us", "100 µs 200 µs 500 µs 1 ms"},
		{"1ms", "1ms", "500 µs 1 ms 2 ms"},
		{"1us", "1us", "1 µs 2 µs"},
		{"1us", "63s", "1 µs 10 µs 100 µs 1 ms 10 ms 100 ms 1 s 10 s 100 s"},
		{"100us", "10ms", "100 µs 200 µs 500 µs 1 ms 2 ms 5 ms 10 ms"},
		{"99us", "10ms", "10 µs 100 µs 1 ms 10 ms"},
		{"63s", "63s", "50 s 100 s"},
	} {
		least, most := duration(t, tt.least), duration(t, tt.most)
		var got []string
		for _, trip := range tripAxis(least, most) {
			got = append(got, spell(trip))
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%v to %v: %s, want %s", least, most, got, tt.want)
		}
	}
	for i := range 234 {
		for j := range 234 - i {
			least, most := tripOf(i), tripOf(i+j)
			axis := tripAxis(least, most)
			if n := len(axis); n < 2 || n > 9 || axis[0] > least || axis[n-1] < most {
				t.Fatalf("%v to %v: %v", least, most, axis)
			}
		}
	}
}

// tripOf is one of the round trips that a history tells apart.
func tripOf(i int) time.Duration { return time.Duration(1000 * math.Pow(10, float64(i)/30)) }

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTripWords(t *testing.T) {
	for text, want := range map[string]string{
		"1us": "1.0 µs", "1166ns": "1.2 µs", "9.96us": "10 µs", "158us": "160 µs", "994us": "990 µs", "996us": "1.0 ms",
		"1ms": "1.0 ms", "12.4ms": "12 ms", "999ms": "1.0 s", "63.1s": "63 s",
	} {
		if got := tripWords(duration(t, text)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"1s": "1 s", "90s": "90 s", "10m": "10 min", "24h": "24 h", "500ms": "500 ms", "1500ms": "1500 ms", "4200us": "4200 µs", "1234567us": "1.234567s", "1000us": "1 ms",
	} {
		if got := spell(duration(t, text)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// A history, and where each of its slots is drawn.
func TestPlot(t *testing.T) {
	var quiet target
	if quiet.Plot() != nil {
		t.Error("there is a plot of nothing")
	}
	var target target
	answered := func(trip float64) *slot { return &slot{Result: checker.Answered.String(), RoundTrip: trip} }
	target.History = [health.HistorySlots]*slot{
		0: answered(0.001), 1: answered(0.01), 2: {Result: "timeout", Mixed: true}, 3: {Result: "inconclusive"}, 4: answered(0), 5: answered(0.0001), 29: answered(0.001),
	}
	p := target.Plot()
	var got []string
	for _, at := range p.Points {
		got = append(got, fmt.Sprintf("%v %v %s", at.X, at.Y, at.Words))
	}
	// The axis is from 100 µs to 10 ms.
	want := []string{"15.40% 44.50% 290 s ago: 1.0 ms", "18.20% 5.00% 280 s ago: 10 ms", "29.40% 84.00% 240 s ago: 100 µs", "96.60% 44.50% now: 1.0 ms"}
	if !slices.Equal(got, want) {
		t.Errorf("points %q, want %q", got, want)
	}
	if len(p.Lines) != 1 || p.Lines[0] != (plotLine{p.Points[0], p.Points[1]}) {
		t.Errorf("lines %v, want one between those that are side by side", p.Lines)
	}
	if got, want := fmt.Sprint(p.Bands), "[{down 19.60% 2.80%} {unknown 22.40% 2.80%}]"; got != want {
		t.Errorf("bands %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(p.Ages), "[{14.00% −5 min} {30.80% −4 min} {47.60% −3 min} {64.40% −2 min} {81.20% −1 min} {98.00% now}]"; got != want {
		t.Errorf("ages %s, want %s", got, want)
	}
	if got, want := target.PlotWords(), "The longest round trip in each of 4 slots of 10 s: from 100 µs to 10 ms, the newest 1.0 ms. In 2 others, which are shaded, not all checks were answered."; got != want {
		t.Errorf("in words %q, want %q", got, want)
	}
	slots := target.Slots()
	for row, want := range map[int]pastSlot{
		0: {"now", "answered", "1.0 ms"}, 1: {"10 s ago", "no check", ""}, 25: {"250 s ago", "answered", ""},
		26: {"260 s ago", "inconclusive", ""}, 27: {"270 s ago", "timeout and answered", ""}, 29: {"290 s ago", "answered", "1.0 ms"},
	} {
		if slots[row] != want {
			t.Errorf("row %d: %q, want %q", row, slots[row], want)
		}
	}
}
