package status

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"golang.org/x/net/html"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// prober makes a report of each check at once.
type prober struct {
	monitor *health.Monitor
	report  func(checker.Check) checker.Report
}

// Submit implements health.Prober.
func (p prober) Submit(checks ...checker.Check) error {
	var reports []checker.Report
	for _, c := range checks {
		r := p.report(c)
		r.Tag = c.Tag
		reports = append(reports, r)
	}
	p.monitor.Deliver(reports)
	return nil
}

// newFleet makes n targets, some of them in trouble, and has them checked for five minutes in a synctest bubble.
func newFleet(t *testing.T, n int) *server {
	f := newServer(t, "")
	began := time.Now()
	settings := usual
	settings.Interval = 9 * time.Second
	f.subject.Rules = about(openRules(t, "10.0.0.9 down until 2000-01-01T00:07:00Z # kernel update\n10.0.0.17 up\n"), settings)
	f.Monitor.SetProber(prober{f.Monitor, func(c checker.Check) checker.Report {
		host, minute := c.Target.Addr().As16()[15], int(time.Since(began).Minutes())
		switch {
		case host == 3, host == 12 && minute%2 == 1:
			return checker.Report{Result: checker.Refused, Err: syscall.ECONNREFUSED}
		case host == 9 && minute >= 2:
			return checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}
		case host == 14 && minute == 4:
			return checker.Report{Result: checker.Unreachable, Err: syscall.EHOSTUNREACH}
		case host == 21:
			return checker.Report{Result: checker.Inconclusive, Err: syscall.EMFILE}
		}
		return checker.Report{Result: checker.Answered, RTT: time.Duration(200+37*int(host)) * time.Microsecond}
	}})
	services := []string{"www", "api", "mail", "images", "db"}
	ports := []uint16{443, 443, 587, 443, 5432}
	for i := range n {
		addr, service := netip.AddrFrom4([4]byte{10, byte((i + 1) >> 16), byte((i + 1) >> 8), byte(i + 1)}), i/5%len(services)
		target := f.Monitor.Target(netip.AddrPortFrom(addr, ports[service]), unique.Make(settings), time.Hour)
		target.AddName(services[service] + ".shop.example.")
		if service == 0 {
			target.AddName("shop.example.")
		}
	}
	time.Sleep(health.HistorySlots*health.HistorySlot - time.Second)
	synctest.Wait()
	return f
}

// attacks are names that somebody might make up.
var attacks = []string{
	"<script>alert(1)</script>.example.",
	`"><img/src=x/onerror=alert(1)>.example.`,
	"javascript:alert(1).example.",
	"{{.}}.example.",
	"&lt;b&gt;.example.",
	"\u202egnp.elpmaxe.", // from right to left
	"\u05d0\u05d1\u05d2.example.",
	`a\.b\\\"\000\255.example.`,
	strings.Repeat("a", 250) + ".",
	strings.Repeat(strings.Repeat("a", 60)+".", 4),
}

// document reads a page. Mistakes that a browser would overlook are not found that way.
func documentOf(t *testing.T, w *httptest.ResponseRecorder) *html.Node {
	t.Helper()
	document, err := html.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// elements returns those with the name, in order.
func elements(document *html.Node, name string) (all []*html.Node) {
	for n := range document.Descendants() {
		if n.Type == html.ElementNode && (name == "*" || n.Data == name) {
			all = append(all, n)
		}
	}
	return all
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// words returns the text in a node, each word of it.
func words(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// rows returns the cells of the table as text.
func rows(document *html.Node) (all [][]string) {
	for _, tr := range elements(document, "tr") {
		var cells []string
		for cell := range tr.ChildNodes() {
			if cell.Type == html.ElementNode {
				cells = append(cells, words(cell))
			}
		}
		all = append(all, cells)
	}
	return all
}

// What the page shows of each target, those that need somebody first.
func TestPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFleet(t, 30)
		w := n.do("GET", "/?size=9")
		if w.Header().Get("Refresh") != "10" || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("header %v", w.Header())
		}
		document := documentOf(t, w)
		if title := words(elements(document, "title")[0]); title != "3 down – shaker" {
			t.Errorf("title %q", title)
		}
		got := rows(document)
		want := [][]string{
			{"State", "Target", "Names and notes", "Since", "Last result", "Round trip", "Last 5 minutes"},
			{"down", "10.0.0.3:443", "www.shop.example, shop.example", "4 min", "refused", "", "Slots of 10s: 30 refused"},
			{"down", "10.0.0.9:443", "api.shop.example override: down until " + shortTime(time.Now().Add(2*time.Minute+time.Second), time.Now()) + ", rule 10.0.0.9 (kernel update)", "2 min", "timeout", "0.53 ms", "timeout"},
			{"down", "10.0.0.14:587", "mail.shop.example", " s", "unreachable no route to host", "0.72 ms", "unreachable"},
			{"unknown", "10.0.0.21:5432", "db.shop.example", "4 min", "inconclusive too many open files", "", "Slots of 10s: 30 inconclusive"},
			{"up", "10.0.0.1:443", "www.shop.example, shop.example", "4 min", "answered", "0.24 ms", "Slots of 10s: 30 answered"},
			{"up", "10.0.0.2:443", "www.shop.example, shop.example", "4 min", "answered", "0.27 ms", "Slots of 10s: 30 answered"},
		}
		for i, row := range want {
			for j, cell := range row {
				if got := got[i][j]; !strings.HasSuffix(got, cell) && !(j == 6 && strings.Contains(got, cell)) {
					t.Errorf("row %d: %q, want it to end with %q", i, got, cell)
				}
			}
		}
		if len(got) != 10 {
			t.Errorf("%d rows, want the header and 9", len(got))
		}
		text := words(elements(document, "body")[0])
		for _, want := range []string{"30 targets 3 down 1 unknown 26 up", "1–9 of 30", "Page 1 of 4 Next", "refreshes every 10 s – pause"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
	})
}

// What is beside the targets: where the links lead and what is said.
func TestPageAround(t *testing.T) {
	n := newServer(t, "10.0.0.1=answered 10.0.0.2=refused 10.0.0.3=answered")
	n.settleAll()
	file := openRules(t, "")
	n.subject.Rules = about(file, usual)
	broken := func() {
		file.Start()
		t.Cleanup(file.Stop)
		lab.FileIn(t, filepath.Dir(file.Path()), filepath.Base(file.Path()), "nonsense\n")
		lab.Until(t, "the file to be found broken", func() bool { _, _, failed := file.Report(); return failed })
	}
	tests := []struct {
		query   string
		change  func()
		links   []string // in the order of the page
		current string   // of the links to the states
		text    []string
	}{
		{
			query:   "",
			current: "?",
			links:   []string{"?refresh=0", "targets?", "?", "?state=down", "?state=unknown", "?state=up"},
			text:    []string{"refreshes every 10 s – pause", "1–3 of 3 Targets"},
		},
		{
			query:   "refresh=0&size=1&page=2&zone=",
			current: "?refresh=0&size=1",
			links: []string{"?page=2&size=1", "targets?size=1", "?refresh=0&size=1", "?refresh=0&size=1&state=down", "?refresh=0&size=1&state=unknown",
				"?refresh=0&size=1&state=up", "?page=1&refresh=0&size=1", "?page=3&refresh=0&size=1"},
			text: []string{"paused – resume", "2–2 of 3 Targets", "Previous Page 2 of 3 Next"},
		},
		{
			query:   "size=1&page=7",
			current: "?size=1",
			links:   []string{"?page=7&refresh=0&size=1", "targets?size=1", "?size=1", "?size=1&state=down", "?size=1&state=unknown", "?size=1&state=up", "?page=3&size=1"},
			text:    []string{"There is no page 7. Go to the last one"},
		},
		{
			query: "state=up&prefix=10.0.0.2/31&port=443",
			links: []string{"?port=443&prefix=10.0.0.2%2F31&refresh=0&state=up", "targets?port=443&prefix=10.0.0.2%2F31&state=up", "?", "?state=down", "?state=unknown", "?state=up"},
			text:  []string{"1–1 of 1 that match"},
		},
		{
			query:   "state=unknown",
			current: "?state=unknown",
			links:   []string{"?refresh=0&state=unknown", "targets?state=unknown", "?", "?state=down", "?state=unknown", "?state=up", "?"},
			text:    []string{"No target matches. Show all"},
		},
		{
			query:   "",
			current: "?",
			change:  func() { n.subject.Limit = 3; broken() },
			links:   []string{"?refresh=0", "targets?", "?", "?state=down", "?state=unknown", "?state=up"},
			text: []string{"The overrides in " + file.Path() + " cannot be used. Those of ",
				"The table is full, with 3 targets: new addresses pass unchecked."},
		},
		{
			query:   "",
			current: "?",
			change:  func() { n.subject = newServer(t, "").subject },
			links:   []string{"?refresh=0", "targets?", "?", "?state=down", "?state=unknown", "?state=up"},
			text:    []string{"No targets yet. They come with the first answers that have addresses."},
		},
	}
	for _, tt := range tests {
		if tt.change != nil {
			tt.change()
		}
		w := n.do("GET", "/?"+tt.query)
		refresh := map[bool]string{true: "", false: "10"}[strings.Contains(tt.query, "refresh=0")]
		if w.Code != http.StatusOK || w.Header().Get("Refresh") != refresh {
			t.Errorf("%q: status %d, refresh %q", tt.query, w.Code, w.Header().Get("Refresh"))
		}
		document := documentOf(t, w)
		var links []string
		current := ""
		for _, a := range elements(document, "a") {
			link := attribute(a, "href")
			if target, err := url.Parse("http://127.0.0.1/"); err != nil {
				t.Fatal(err)
			} else if target, err = target.Parse(link); err != nil || n.do("GET", target.RequestURI()).Code != http.StatusOK {
				t.Errorf("%q: the link to %q is dead (%v)", tt.query, link, err)
			}
			if strings.HasPrefix(link, "./") || strings.HasPrefix(link, "target?") || link == "#main" {
				continue // to another page, or to a place in this one
			}
			links = append(links, link)
			if attribute(a, "aria-current") == "page" {
				current += attribute(a, "href")
			}
		}
		if current != tt.current {
			t.Errorf("%q: current is %q, want %q", tt.query, current, tt.current)
		}
		if !slices.Equal(links, tt.links) {
			t.Errorf("%q: links %q, want %q", tt.query, links, tt.links)
		}
		for _, want := range tt.text {
			if text := words(elements(document, "body")[0]); !strings.Contains(text, want) {
				t.Errorf("%q: no %q in %q", tt.query, want, text)
			}
		}
	}
}

// Whatever somebody puts into names, paths and queries is text, and the same text.
func TestPageEscapes(t *testing.T) {
	n := newServer(t, "")
	for i, attack := range attacks {
		n.target(fmt.Sprintf("10.0.0.%d:443", i)).AddName(attack)
	}
	path := lab.File(t, "<b onclick='x'>&amp;\u202e", "192.0.2.0/24 down\n")
	file := openRulesAt(t, path)
	n.subject.Rules = about(file, usual)
	file.Start()
	defer file.Stop()
	lab.FileIn(t, filepath.Dir(path), filepath.Base(path), "nonsense\n")
	lab.Until(t, "the file to be found broken", func() bool { _, _, failed := file.Report(); return failed })
	document := documentOf(t, n.do("GET", "/"))
	got := rows(document)
	for i, attack := range attacks {
		if want := strings.TrimSuffix(strings.ToLower(attack), "."); got[1+i][2] != want {
			t.Errorf("%q became %q", want, got[1+i][2])
		}
	}
	if text := words(elements(document, "body")[0]); !strings.Contains(text, path) {
		t.Errorf("no %q in %q", path, text)
	}
	for _, n := range elements(document, "*") {
		if slices.Contains([]string{"script", "img", "b onclick"}, n.Data) || n.Data == "b" && n.Parent.Data != "a" {
			t.Errorf("there is a <%s>", n.Data)
		}
	}
	plain := len(elements(documentOf(t, n.do("GET", "/?state=plain")), "*"))
	for _, attack := range attacks {
		w := n.do("GET", "/?zone="+url.QueryEscape(attack)+"&port="+url.QueryEscape(attack)+"&state="+url.QueryEscape(attack)+"&prefix="+url.QueryEscape(attack))
		document := documentOf(t, w)
		if w.Code != http.StatusBadRequest || w.Header().Get("Refresh") != "" {
			t.Errorf("%q: status %d, refresh %q", attack, w.Code, w.Header().Get("Refresh"))
		}
		for _, input := range elements(document, "input") {
			if got := attribute(input, "value"); got != attack {
				t.Errorf("%q became %q", attack, got)
			}
		}
		if text := words(elements(document, "body")[0]); !strings.Contains(text, fmt.Sprintf("state: %q is not a state, want down, unknown or up", attack)) {
			t.Errorf("no word of %q in %q", attack, text)
		}
		if all := len(elements(document, "*")); all != plain {
			t.Errorf("%q: %d elements, want %d", attack, all, plain)
		}
	}
}

// pageExamples are queries of each page for people. One of each at least is answered.
var pageExamples = map[string][]string{
	"/":          {"size=9&refresh=60", "disagreeing=1", "", "page=2&size=9", "port=1", "state=nonsense"},
	"/events":    {"", "state=down&size=5", "kind=nonsense"},
	"/explain":   {"name=www.example.org", "", "name=a&type=TXT"},
	"/overrides": {"", "refresh=x"},
	"/peers":     {"", "refresh=x"},
	"/target":    {"address=10.0.0.9&port=443", "address=10.0.0.3&port=443", "address=10.0.0.1&port=443", "address=10.0.0.1&port=1", ""},
}

// eachPage looks at every page for people, with each of its examples, without and with peers.
func eachPage(t *testing.T, look func(t *testing.T, path string, hasPeers bool, w *httptest.ResponseRecorder)) {
	type page struct {
		path, query string
		hasPeers    bool
	}
	made := make(map[page]*httptest.ResponseRecorder)
	synctest.Test(t, func(t *testing.T) {
		n := newFleet(t, 30)
		n.target("10.0.0.1:443") // is also there with other settings
		n.subject.Explain = func(context.Context, Question) (*Explanation, error) { return explainHostile(), nil }
		for path, format := range formats {
			if format.contentType != targetsPage.contentType {
				continue
			}
			answered := false
			for _, query := range pageExamples[path] {
				for _, group := range []Peers{nil, newPeers()} {
					n.subject.Peers = group
					w := n.do("GET", path+"?"+query)
					answered = answered || w.Code == http.StatusOK
					if w.Code >= 500 {
						t.Errorf("%s?%s: status %d", path, query, w.Code)
						continue
					}
					made[page{path, query, group != nil}] = w
				}
			}
			if !answered {
				t.Errorf("%s has no example in pageExamples that is answered", path)
			}
		}
	})
	for p, w := range made {
		t.Run(fmt.Sprintf("%s?%s, peers %v", p.path, p.query, p.hasPeers), func(t *testing.T) { look(t, p.path, p.hasPeers, w) })
	}
}

// What a person who cannot see, or a program that reads to one, needs to know: what language this is, where the parts of
// the page are, what heads a cell and what goes into a field. Nothing is styled in a way that the policy forbids.
func TestPageStructure(t *testing.T) {
	eachPage(t, func(t *testing.T, path string, hasPeers bool, w *httptest.ResponseRecorder) {
		document := documentOf(t, w)
		for name, want := range map[string]int{"html": 1, "header": 1, "main": 1, "footer": 1, "h1": 1, "style": 1, "script": 0, "img": 0, "iframe": 0} {
			if got := len(elements(document, name)); got != want {
				t.Errorf("%d of <%s>, want %d", got, name, want)
			}
		}
		if tables, captions := len(elements(document, "table")), len(elements(document, "caption")); tables != captions {
			t.Errorf("%d tables with %d captions", tables, captions)
		}
		if lang := attribute(elements(document, "html")[0], "lang"); lang != "en" {
			t.Errorf("language %q", lang)
		}
		expectChosenRoom(t, path, hasPeers, document)
		text := make(map[string]string) // by id
		for _, n := range elements(document, "*") {
			id := attribute(n, "id")
			if _, other := text[id]; other && id != "" {
				t.Errorf("two elements have id %q", id)
			}
			text[id] = words(n)
		}
		for _, label := range elements(document, "label") {
			text["label of "+attribute(label, "for")] = words(label)
		}
		for _, n := range elements(document, "*") {
			expectTame(t, n)
			if !isTold(n, text) {
				t.Errorf("<%s id=%q> lacks what tells its meaning", n.Data, attribute(n, "id"))
			}
		}
	})
}

// expectChosenRoom checks that the page is marked where all pages are listed, if it is there.
func expectChosenRoom(t *testing.T, path string, hasPeers bool, document *html.Node) {
	t.Helper()
	var got, want []string
	for _, r := range rooms {
		if r.path == path && (hasPeers || path != peersPath) {
			want = append(want, "."+path)
		}
		if formats[r.path] == nil || formats[r.path].contentType != targetsPage.contentType {
			t.Errorf("%s is no page", r.path)
		}
	}
	for _, a := range elements(elements(document, "nav")[0], "a") {
		if attribute(a, "aria-current") == "page" {
			got = append(got, attribute(a, "href"))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q are marked among the pages, want %q", got, want)
	}
}

// expectTame checks that an element has no style or script of its own, and refers to nothing elsewhere.
func expectTame(t *testing.T, n *html.Node) {
	t.Helper()
	for _, a := range n.Attr {
		if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
			t.Errorf("<%s> has %s", n.Data, a.Key)
		}
		if (a.Key == "href" || a.Key == "src" || a.Key == "action") && !regexp.MustCompile(`^(\?|\./|#main$|[a-z]+(\.json)?\?|data:image/)`).MatchString(a.Val) {
			t.Errorf("<%s> refers to %q", n.Data, a.Val)
		}
	}
}

// isTold tells whether an element has what it needs for those who cannot see it; text is what elements say, by id.
func isTold(n *html.Node, text map[string]string) bool {
	labelled := attribute(n, "aria-label") != ""
	for id := range strings.FieldsSeq(attribute(n, "aria-labelledby")) {
		labelled = text[id] != ""
	}
	switch n.Data {
	case "nav", "form", "section":
		return labelled
	case "input", "select", "textarea":
		return attribute(n, "type") == "hidden" || text["label of "+attribute(n, "id")] != ""
	case "th":
		want := "col"
		if n.Parent.Parent.Data == "tbody" {
			want = "row"
		}
		return attribute(n, "scope") == want && words(n) != ""
	case "a", "button", "h1", "h2", "h3", "caption", "title", "summary", "dt", "dd":
		return words(n) != ""
	case "svg":
		return attribute(n, "aria-hidden") == "true" || attribute(n, "role") == "img" && (labelled || words(n) != "")
	}
	return true
}

// The state is a word too, and its sign has a shape for each.
func TestSigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signs := make(map[string]string)
		for _, n := range elements(documentOf(t, newFleet(t, 30).do("GET", "/?size=9")), "td") {
			if state, is := strings.CutPrefix(attribute(n, "class"), "state "); is {
				signs[attribute(elements(n, "path")[0], "d")] = state
				if words(n) != state {
					t.Errorf("the state %s is written %q", state, words(n))
				}
			}
		}
		if len(signs) != 3 {
			t.Errorf("signs %v", signs)
		}
	})
}

// Text has a contrast of 4.5 to 1 to what is behind it, and what is drawn one of 3 to 1, by day and by night: Web Content
// Accessibility Guidelines 2.2, 1.4.3 and 1.4.11.
func TestPageContrast(t *testing.T) {
	schemes := strings.Split(layoutSource, "prefers-color-scheme: dark")
	if len(schemes) != 2 {
		t.Fatal("no two schemes of colours")
	}
	for i, scheme := range schemes {
		colours := make(map[string]float64)
		for _, match := range regexp.MustCompile(`--(\w+): #(\w{6});`).FindAllStringSubmatch(scheme, -1) {
			n, err := strconv.ParseUint(match[2], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			colours[match[1]] = luminance(uint32(n))
		}
		for _, pair := range []struct {
			front, behind string
			least         float64
		}{
			{"text", "back", 4.5}, {"text", "raised", 4.5}, {"text", "warn", 4.5},
			{"muted", "back", 4.5}, {"muted", "raised", 4.5},
			{"link", "back", 4.5}, {"link", "raised", 4.5},
			{"down", "back", 4.5}, {"down", "raised", 4.5},
			{"unknown", "back", 4.5}, {"unknown", "raised", 4.5},
			{"up", "back", 4.5}, {"up", "raised", 4.5},
			{"field", "back", 3}, {"field", "raised", 3},
		} {
			front, behind := colours[pair.front], colours[pair.behind]
			if front == 0 || behind == 0 {
				t.Fatalf("colour %s or %s is missing", pair.front, pair.behind)
			}
			if got := (max(front, behind) + 0.05) / (min(front, behind) + 0.05); got < pair.least {
				t.Errorf("scheme %d: %s on %s has a contrast of %.2f, want %.1f", i, pair.front, pair.behind, got, pair.least)
			}
		}
	}
}

// luminance is the relative one of a colour in sRGB, as WCAG defines it.
func luminance(rgb uint32) float64 {
	channel := func(shift int) float64 {
		c := float64(rgb>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
}

func TestBars(t *testing.T) {
	tests := []struct {
		slot *slot
		want []bar
		past string
	}{
		{nil, []bar{{"nothing", "M5 14h4v1h-4z"}}, "1 without a check"},
		{&slot{Result: "answered"}, []bar{{"up", "M5 8h4v8h-4z"}}, "1 answered"},
		{&slot{Result: "refused"}, []bar{{"down", "M5 0h4v16h-4z"}}, "1 refused"},
		{&slot{Result: "timeout", Mixed: true}, []bar{{"up", "M5 11h4v5h-4z"}, {"down", "M5 0h4v10h-4z"}}, "1 timeout and answered"},
		{&slot{Result: "unreachable"}, []bar{{"down", "M5 0h4v16h-4z"}}, "1 unreachable"},
		{&slot{Result: "inconclusive"}, []bar{{"unknown", "M5 4h4v8h-4z"}}, "1 inconclusive"},
		{&slot{Result: "inconclusive", Mixed: true}, []bar{{"up", "M5 11h4v5h-4z"}, {"unknown", "M5 4h4v2h-4z"}}, "1 inconclusive and answered"},
	}
	for _, tt := range tests {
		var target target
		target.History[1] = tt.slot
		var got []bar
		for _, b := range target.Bars() {
			for path := range strings.SplitAfterSeq(b.Path, "z") {
				if strings.HasPrefix(path, "M5 ") {
					got = append(got, bar{b.Class, path})
				}
			}
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.slot, got, tt.want)
		}
		past := "Slots of 10s: " + tt.past + ", 29 without a check"
		if tt.slot == nil {
			past = "Slots of 10s: 30 without a check"
		}
		if got := target.Past(); got != past {
			t.Errorf("%+v: %q, want %q", tt.slot, got, past)
		}
	}
}

func TestWords(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for d, want := range map[time.Duration][2]string{
		0:                                     {"12:00:00", "0 s"},
		-time.Millisecond:                     {"12:00:00", "0 s"},
		59*time.Second + 999*time.Millisecond: {"11:59:00", "59 s"},
		time.Minute:                           {"11:59:00", "1 min"},
		time.Hour - 1:                         {"11:00:00", "59 min"},
		time.Hour:                             {"11:00:00", "1 h 0 min"},
		12*time.Hour + 1:                      {"2026-02-28 23:59", "12 h 0 min"},
		48 * time.Hour:                        {"2026-02-27 12:00", "2 days"},
	} {
		target := target{Since: now.Add(-d)}
		if got := [2]string{target.Begin(now), target.For(now)}; got != want {
			t.Errorf("%v ago: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1 000", 100000: "100 000", 1234567: "1 234 567"} {
		if got := strings.ReplaceAll(groupDigits(n), "\u202f", " "); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// To find a page takes memory for those up to its end, and not for all.
func TestPagesTakeLittleMemory(t *testing.T) {
	const targets = 30_000
	most := uint64(64 << 10) // octets
	if lab.RaceEnabled {
		most *= 2 // its build allocates as much more
	}
	n := newServer(t, "")
	fill(n, targets)
	for _, query := range []string{"", "zone=www.example.org", "prefix=10.0.0.0/8&port=443&state=unknown", "page=1000000&zone=org."} {
		q, err := readQuery(query, parameters)
		if err != nil {
			t.Fatal(err)
		}
		took := uint64(math.MaxUint64)
		for range 5 { // other goroutines may allocate something meanwhile, but not each time
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, matches := q.find(n.Monitor, true)
			runtime.ReadMemStats(&after)
			if matches != targets {
				t.Errorf("%q: %d match, want %d", query, matches, targets)
			}
			took = min(took, after.TotalAlloc-before.TotalAlloc)
		}
		if took > most && q.page == 1 {
			t.Errorf("%q: %d octets are allocated, want %d at most", query, took, most)
		}
	}
}

// fill adds so many targets with a name, which are not probed.
func fill(n *server, targets int) {
	n.Monitor.SetProber(nil)
	n.Monitor.SetLimits(targets, 0)
	for i := range targets {
		i *= 7919 // so that they do not come in their order
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		n.Monitor.Target(netip.AddrPortFrom(addr, 443), unique.Make(usual), 24*time.Hour).AddName("www.example.org.")
	}
}

// BenchmarkPages is what a look at the page costs: with 100 targets on it, whatever there are in all.
func BenchmarkPages(b *testing.B) {
	for _, targets := range []int{100, 10_000, 100_000, 1_000_000} {
		n := newServer(b, "")
		fill(n, targets)
		n.subject.Peers = newPeers()
		for _, target := range []string{"/", "/targets", "/targets?zone=example.org&size=1000", "/targets?prefix=10.0.0.0/8&page=5000", "/?disagreeing=1"} {
			b.Run(fmt.Sprintf("%d targets%s", targets, strings.ReplaceAll(target, "/", " /")), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if w := n.do("GET", target); w.Code != http.StatusOK {
						b.Fatal(w.Code)
					}
				}
			})
		}
	}
}
