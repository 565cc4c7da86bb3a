package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// newOverridden is a server with two files, of which the second is no longer the one in force. The first is in two stanzas.
func newOverridden(t *testing.T, first, second string) (s *server, dir string) {
	s, dir = newServer(t, ""), t.TempDir()
	a, b := openRulesAt(t, lab.FileIn(t, dir, "a", first)), openRulesAt(t, lab.FileIn(t, dir, "b", second))
	other := usual
	other.Rise = 7
	s.subject.Rules = slices.Concat(about(b, usual), about(a, usual), about(a, other))
	b.Start()
	t.Cleanup(b.Stop)
	lab.FileIn(t, dir, "b", "nonsense\n")
	time.Sleep(time.Second)
	synctest.Wait()
	return s, dir
}

// The JSON has the fields that docs/overrides.md lists, and no others.
func TestOverridesJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newOverridden(t, "192.0.2.7 down until 2000-01-01T03:00:00.5+01:00 # kernel update\n192.0.2.7:443 up\n192.0.2.0/24 auto # all\n"+
			"192.0.2.9 down until 1999-12-31T23:00:00Z\n", "2001:db8::7 down\n")
		modified := func(name string) string {
			for _, f := range n.subject.files() {
				if filepath.Base(f.Path()) == name {
					return instant(f.Snapshot().Modified).Format(time.RFC3339Nano)
				}
			}
			return ""
		}
		want := `{"version":1,"time":"2000-01-01T00:00:01Z","matches":4,"page":1,"pages":1,"size":1000,"files":[` +
			`{"path":"DIR/a","modified":"` + modified("a") + `","failed":false,"rules":[` +
			`{"rule":"192.0.2.0/24","says":"auto","reason":"all"},` +
			`{"rule":"192.0.2.7","says":"down","until":"2000-01-01T02:00:00.5Z","reason":"kernel update"},` +
			`{"rule":"192.0.2.7:443","says":"up"}]},` +
			`{"path":"DIR/b","modified":"` + modified("b") + `","failed":true,"error":"DIR/b: line 1: \"nonsense\" is not possible, ...`
		w := n.do("GET", "/overrides.json")
		body := strings.ReplaceAll(w.Body.String(), dir, "DIR")
		if head, end := strings.TrimSuffix(want, "..."), `"rules":[{"rule":"2001:db8::7","says":"down"}]}]}`+"\n"; !strings.HasPrefix(body, head) ||
			!strings.HasSuffix(body, end) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("got\n%s\nwant\n%s%s", body, want, end)
		}
		n.subject.Rules = nil
		if body := n.do("GET", "/overrides.json").Body.String(); !strings.HasSuffix(body, `"matches":0,"page":1,"pages":1,"size":1000,"files":[]}`+"\n") {
			t.Errorf("without files: %s", body)
		}
	})
}

// Each rule is on one page.
func TestOverridesPaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := newOverridden(t, "192.0.2.1 up\n192.0.2.2 up\n192.0.2.3 up\n", "192.0.2.4 up\n192.0.2.5 up\n")
		for _, tt := range []struct {
			query string
			a, b  string // last numbers of the addresses
			pages int
		}{
			{"", "123", "45", 1},
			{"size=5", "123", "45", 1},
			{"size=2", "12", "", 3},
			{"size=2&page=2", "3", "4", 3},
			{"size=2&page=3", "", "5", 3},
			{"size=2&page=4", "", "", 3},
			{"size=3&page=2", "", "45", 2},
			{"size=1000&page=1000000", "", "", 1},
		} {
			var o overrides
			if err := json.Unmarshal(n.do("GET", "/overrides.json?"+tt.query).Body.Bytes(), &o); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range o.Files {
				numbers := ""
				for _, r := range f.Rules {
					numbers += r.Rule[len(r.Rule)-1:]
				}
				got = append(got, numbers)
			}
			if want := []string{tt.a, tt.b}; !slices.Equal(got, want) || o.Pages != tt.pages || o.Matches != 5 {
				t.Errorf("%q: %q of %d pages and %d rules, want %q of %d and 5", tt.query, got, o.Pages, o.Matches, want, tt.pages)
			}
			text := words(elements(documentOf(t, n.do("GET", "/overrides?"+tt.query)), "main")[0])
			if got := strings.Contains(text, fmt.Sprintf(" of %d", tt.pages)); got != (tt.pages > 1) {
				t.Errorf("%q: the page has pages: %v, in %q", tt.query, got, text)
			}
		}
	})
}

func TestOverridesPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newOverridden(t, "192.0.2.7 down until 2000-01-01T01:50:01.5Z # kernel update\n192.0.2.7:443 up\n", "")
		w := n.do("GET", "/overrides?size=2&refresh=60")
		if w.Code != http.StatusOK || w.Header().Get("Refresh") != "60" || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("status %d, header %v", w.Code, w.Header())
		}
		document := documentOf(t, w)
		want := [][]string{
			{"Says", "Rule", "Reason", "Until"},
			{"down", "192.0.2.7", "kernel update", shortTime(time.Date(2000, 1, 1, 1, 50, 1, 0, time.UTC), time.Now()) + " in 1 h 50 min"},
			{"up", "192.0.2.7:443", "", "for ever"},
		}
		if got := rows(document); !reflect.DeepEqual(got, want) {
			t.Errorf("rows\n%q, want\n%q", got, want)
		}
		text := words(elements(document, "body")[0])
		for _, want := range []string{"shaker overrides", "Targets Explain Events Overrides", "refreshes every 60 s",
			filepath.Join(dir, "a") + " written ", filepath.Join(dir, "b") + " written ",
			"The file cannot be used, so rules of before are in force: " + filepath.Join(dir, "b") + `: line 1: "nonsense" is not possible`, "No rules are in force."} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
		for _, a := range elements(document, "a") {
			link, err := url.Parse(attribute(a, "href"))
			if err != nil {
				t.Fatal(err)
			}
			if target := (&url.URL{Path: "/overrides"}).ResolveReference(link); n.do("GET", target.RequestURI()).Code != http.StatusOK {
				t.Errorf("the link to %q is dead", link)
			}
		}
		for _, heading := range append(elements(document, "section"), elements(document, "th")...) {
			if attribute(heading, "aria-labelledby") == "" && attribute(heading, "scope") == "" {
				t.Errorf("<%s> lacks what tells its meaning", heading.Data)
			}
		}
		n.subject.Rules = nil
		if text := words(elements(documentOf(t, n.do("GET", "/overrides")), "main")[0]); text != "There are no overrides: no stanza names a file with them." {
			t.Errorf("without files: %q", text)
		}
	})
}

// Whatever somebody puts into a reason, a path or a mistake is text.
func TestOverridesEscapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		var text strings.Builder
		for i, attack := range attacks {
			fmt.Fprintf(&text, "192.0.2.%d down #%s\n", i, attack)
		}
		path := lab.File(t, "<b onclick='x'>&amp;\u202e", text.String())
		file := openRulesAt(t, path)
		n.subject.Rules = about(file, usual)
		file.Start()
		defer file.Stop()
		lab.FileIn(t, filepath.Dir(path), filepath.Base(path), "<script>alert(1)</script> down\n")
		time.Sleep(time.Second)
		synctest.Wait()
		document := documentOf(t, n.do("GET", "/overrides"))
		got := rows(document)
		for i, r := range file.Rules().Sorted() {
			if want := strings.TrimSpace(r.Reason); got[1+i][2] != want || want == "" {
				t.Errorf("%q became %q", want, got[1+i][2])
			}
		}
		if text := words(elements(document, "main")[0]); !strings.Contains(text, path) || !strings.Contains(text, `"<script>alert(1)</script>" is neither`) {
			t.Errorf("no %q and mistake in %q", path, text)
		}
		for _, n := range elements(document, "*") {
			if slices.Contains([]string{"script", "img", "b", "b onclick"}, n.Data) {
				t.Errorf("there is a <%s>", n.Data)
			}
		}
	})
}

func TestOverridesMistakes(t *testing.T) {
	n := newServer(t, "")
	for _, tt := range []struct{ path, query, want string }{
		{"/overrides.json", "size=0", `size: "0" is not possible, want a number from 1 to 1000`},
		{"/overrides.json", "refresh=0", `unknown parameter "refresh", want one of page, size`},
		{"/overrides.json", "state=down", `unknown parameter "state", want one of page, size`},
		{"/overrides", "page=x", `page: "x" is not possible, want a number from 1 to 1000000`},
		{"/overrides", "<b>=", `unknown parameter "<b>", want one of page, size, refresh`},
	} {
		w := n.do("GET", tt.path+"?"+tt.query)
		got := ""
		if tt.path == "/overrides" {
			got = words(elements(documentOf(t, w), "main")[0])
		} else {
			var f failure
			if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
				t.Fatal(err)
			}
			got = f.Error
		}
		if w.Code != http.StatusBadRequest || got != tt.want {
			t.Errorf("%s?%s: status %d, %q, want %q", tt.path, tt.query, w.Code, got, tt.want)
		}
	}
}

// Where replicas share a file, it is told who has said each rule, and since when. One that is kept to itself is marked.
func TestOverridesShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newServer(t, ""), t.TempDir()
		a, b := openRulesAt(t, lab.FileIn(t, dir, "a", "192.0.2.7 down # kernel update\n")), openRulesAt(t, lab.FileIn(t, dir, "b", "192.0.2.8 up\n"))
		host := `<b onclick="x">&amp;`
		a.Share(override.NewSharing(host, "192.0.2.53:7946", override.SharingListener{}), "a")
		for _, file := range []*override.File{a, b} {
			file.Start()
			defer file.Stop()
		}
		n.subject.Rules = slices.Concat(about(a, usual), about(b, usual))
		ask := func() (o overrides) {
			if err := json.Unmarshal(n.do("GET", "/overrides.json").Body.Bytes(), &o); err != nil {
				t.Fatal(err)
			}
			return o
		}
		if o := ask(); o.Replicas != 0 || o.Files[0].Shared || o.Files[0].Local || o.Files[1].Local {
			t.Errorf("without peers: %+v", o)
		}
		n.subject.Peers = newPeers()
		o := ask()
		if o.Replicas != 3 || !o.Files[0].Shared || o.Files[0].Local || o.Files[1].Shared || !o.Files[1].Local {
			t.Errorf("with peers: %+v", o)
		}
		since := a.Rules().Sorted()[0].Since
		if r := o.Files[0].Rules[0]; r.From != host || !r.Since.Equal(instant(since)) {
			t.Errorf("%+v, want it since %v", r, since)
		}
		if r := o.Files[1].Rules[0]; r.From != "" || !r.Since.IsZero() {
			t.Errorf("the file that is not shared: %+v", r)
		}
		document := documentOf(t, n.do("GET", "/overrides"))
		want := [][]string{
			{"Says", "Rule", "Reason", "Until", "By"}, {"down", "192.0.2.7", "kernel update", "for ever", host + " since " + shortTime(since, time.Now())},
			{"Says", "Rule", "Reason", "Until"}, {"up", "192.0.2.8", "", "for ever"},
		}
		if got := rows(document); !reflect.DeepEqual(got, want) {
			t.Errorf("rows\n%q, want\n%q", got, want)
		}
		text := words(elements(document, "body")[0])
		for _, want := range []string{", shared by 3 replicas", ", of this replica alone"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
	})
}
