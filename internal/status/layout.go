package status

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// refreshEvery is how often the pages load themselves again, in seconds, unless the client wants another pace.
const refreshEvery = 10

// Each page is a template of its own, and begins and ends with those in layout.html.
//
//go:embed *.html
var pageSources embed.FS

// layoutSource is what is around every page, with the style of all of them.
var layoutSource = func() string {
	source, err := pageSources.ReadFile("layout.html")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(source)
}()

// pageTemplates are parsed for the first page: most servers have none.
var pageTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"number":  groupDigits,
		"local":   localTime,
		"many":    many,
		"octets":  octets,
		"several": severalMany,
	}).ParseFS(pageSources, "*.html"))
})

// styleHash lets the browser apply the style of the pages, and none that somebody has slipped in.
var styleHash = func() string {
	_, style, _ := strings.Cut(layoutSource, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// frame is what is around the main part of every page for people.
type frame struct {
	Heading string
	Now     time.Time
	Down    int // targets
	Query   *query
	Problem error // what is wrong with the query
	Notices []string
	Shaker  string // its version
	JSON    string // link to what programs get, empty where they get nothing
	Still   bool   // the page is never loaded again by itself
	here    string // path of the page
	group   *group // nil without peers
}

// frame returns what is around a page, and has the browser load it again where that is wanted.
func (s *Subject) frame(header http.Header, heading, here string, q *query, problem error) frame {
	if problem == nil && q.Refresh > 0 {
		header.Set("Refresh", strconv.Itoa(q.Refresh))
	}
	v, g := s.view(), s.group()
	return frame{
		Heading: heading,
		Now:     v.Time,
		Down:    v.Counts.Down,
		Query:   q,
		Problem: problem,
		Notices: s.notices(v, g),
		Shaker:  s.Shaker,
		here:    here,
		group:   g,
	}
}

// Title is that of the window, after the name.
func (f *frame) Title() string {
	if f.here == "/" {
		return ""
	}
	return f.Heading
}

// room is a page that all others lead to.
type room struct {
	Name, Link string
	Chosen     bool
}

// rooms are the pages that all others lead to. Their links also work behind a proxy that has them below a path.
var rooms = []struct{ name, path string }{
	{"Targets", "/"},
	{"Explain", "/explain"},
	{"Events", "/events"},
	{"Overrides", "/overrides"},
	{"Peers", peersPath},
}

// Rooms returns the pages to go to.
func (f *frame) Rooms() (all []room) {
	for _, r := range rooms {
		if r.path != peersPath || f.HasPeers() {
			all = append(all, room{r.name, "." + r.path, r.path == f.here})
		}
	}
	return all
}

// HasPeers tells whether other replicas decide as well.
func (f *frame) HasPeers() bool { return f.group != nil }

// notices are what somebody should know before he believes the rest. The group is nil without peers.
func (s *Subject) notices(v *view, g *group) (all []string) {
	if !v.Frozen.IsZero() {
		all = append(all, fmt.Sprintf("Verdicts have been frozen since %s: nearly all hosts fell silent together, so it is likely this machine that is cut off.%s",
			localTime(v.Frozen), g.whileFrozen()))
	}
	if g != nil {
		all = append(all, g.notices()...)
	}
	if v.Counts.Total >= s.Limit {
		all = append(all, fmt.Sprintf("The table is full, with %s targets: new addresses pass unchecked.", groupDigits(v.Counts.Total)))
	}
	for _, r := range s.Rules {
		if _, modified, failed := r.File.Report(); failed {
			all = append(all, fmt.Sprintf("The overrides in %s cannot be used. Those of %s are in force.", r.File.AbsPath(), localTime(modified)))
		}
	}
	slices.Sort(all)
	return slices.Compact(all) // a file may be in several stanzas
}

// kept returns those of the parameters that are given.
func (q *query) kept(names ...string) url.Values {
	kept := make(url.Values)
	for _, name := range names {
		if value := q.given.Get(name); value != "" {
			kept.Set(name, value)
		}
	}
	return kept
}

// link returns the query with another value in it, as a link from the page to itself. Such links also work behind a proxy
// that has the page below a path.
func (q *query) link(name, value string) string {
	values := maps.Clone(q.given)
	values.Set(name, value)
	if value == "" {
		values.Del(name)
	}
	return "?" + values.Encode()
}

// turn links from a page to another one, if it exists.
func (q *query) turn(page, pages, by int) string {
	to := min(page+by, pages)
	if to < 1 || to == page {
		return ""
	}
	return q.link("page", strconv.Itoa(to))
}

// refresh is a parameter of all pages.
var refresh = parameter{name: "refresh", read: func(q *query, value string) (err error) {
	q.Refresh, err = number(value, 0, 3600)
	return err
}}

// Value returns what a field of the form has in it.
func (f *frame) Value(name string) string { return f.Query.given.Get(name) }

// Refreshes links to the same page with or without being loaded again and again.
func (f *frame) Refreshes(yes bool) string {
	if yes {
		return f.Query.link("refresh", "")
	}
	return f.Query.link("refresh", "0")
}

// localTime is how the log writes it.
func localTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// shortTime has the date if that is not today.
func shortTime(t, now time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04")
}

// ClockTime is when something was, to the second, with the date if that is not today.
func ClockTime(t, now time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// groupDigits writes a number with a narrow space before every third digit from the right.
func groupDigits(n int) string { return groupsOf(strconv.Itoa(n)) }

func groupsOf(s string) string {
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
