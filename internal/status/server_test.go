package status

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/oracle"
	"github.com/coredns-shaker/shaker/internal/override"
)

// server is an oracle with a status page.
type server struct {
	*oracle.Oracle
	subject *Subject
	handler *handler

	panics []string
}

const address = "127.0.0.1:8053"

// usual are the settings of targets.
var usual = health.Settings{
	Interval: 2 * time.Second, Fast: 500 * time.Millisecond, Timeout: time.Second, Tries: 4, Rise: 2, Fall: 3,
	Damping: 30 * time.Second, DampingMax: 5 * time.Minute,
}

func newServer(t testing.TB, results string) *server { return newServerOf(t, oracle.New(t, results)) }

func newServerOf(t testing.TB, o *oracle.Oracle) *server {
	s := &server{Oracle: o}
	s.subject = &Subject{Monitor: s.Monitor, Limit: 65536, Shaker: "(devel)", Events: events.New()}
	s.handler = &handler{address: address, current: func() *Subject { return s.subject }, tell: s.listener(t)}
	return s
}

// listener fails the test where there is something to tell, and notes panics.
func (s *server) listener(t testing.TB) Listener {
	told := func(format string, args ...any) { t.Errorf("told: "+format, args...) }
	return Listener{Infof: told, Errorf: told, Recovered: func(where string, reason any) {
		s.panics = append(s.panics, fmt.Sprint(where, ": ", reason))
	}}
}

// target returns one with the usual settings.
func (s *server) target(endpoint string) *health.Target {
	return s.Monitor.Target(netip.MustParseAddrPort(endpoint), unique.Make(usual), time.Hour)
}

// settleAll waits for verdicts at port 443.
func (s *server) settleAll() {
	for addr := range s.Results {
		s.Await(netip.AddrPortFrom(addr, 443), unique.Make(usual))
	}
}

// about says that a file is about targets with these settings.
func about(file *override.File, settings health.Settings) []Rules {
	return []Rules{{file, unique.Make(settings), true}, {file, unique.Make(settings), false}}
}

func openRules(t testing.TB, rules string) *override.File {
	t.Helper()
	return openRulesAt(t, lab.File(t, "overrides", rules))
}

func openRulesAt(t testing.TB, path string) *override.File {
	t.Helper()
	ignore := func(string, ...any) {}
	file, err := override.Open(path, override.Listener{Infof: ignore, Errorf: ignore, Recovered: func(string, any) { panic("in a test") }})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// do sends a request as it comes in at 127.0.0.1.
func (s *server) do(method, target string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = address
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8053})))
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// get returns the answer of /targets to a query.
func (s *server) get(t testing.TB, query string) *view {
	t.Helper()
	w := s.do("GET", "/targets?"+query)
	v := new(view)
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%q: status %d, %v in\n%s", query, w.Code, err, w.Body)
	}
	return v
}

// endpoints returns the targets of a view.
func (v *view) endpoints() (all []string) {
	for _, target := range v.Targets {
		all = append(all, netip.AddrPortFrom(target.Address, target.Port).String())
	}
	return all
}

// The JSON has the fields that the README lists, and no others.
func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "10.0.0.1=answered 10.0.0.2=refused")
		file := openRules(t, "10.0.0.0/24 down until 2026-11-26T17:00:00.0005+01:00 # <kernel>\tupdate\n10.0.0.2 auto\n[2001:db8::1]:443 up\n")
		forced, other := file.Path(), usual
		other.Rise = 7 // none of the targets is about this one
		n.subject.Rules = append(about(file, usual), about(file, other)...)
		n.settleAll()
		n.target("10.0.0.1:443").AddName("www.example.org.")
		n.target("[2001:db8::1]:443")
		synctest.Wait()
		time.Sleep(19 * time.Second) // the second slot is almost over
		body := strings.ReplaceAll(n.do("GET", "/targets").Body.String(), forced, "FILE")
		nulls := func(n int) string { return strings.Repeat("null,", n) }
		slots := func(result string) string {
			slot := fmt.Sprintf(`{"result":%q,"mixed":false%s}`, result, map[string]string{"answered": `,"round_trip_seconds":0.001`}[result])
			return fmt.Sprintf("[%s%s,%s]", nulls(28), slot, slot)
		}
		const settings = `"settings":"interval 2s 500ms timeout 1s tries 4 rise 2 fall 3 damping 30s 5m0s"`
		want := `{"version":1,"time":"2000-01-01T00:00:19Z","counts":{"total":3,"down":1,"unknown":1,"up":1,"damped":0},` +
			`"matches":3,"page":1,"pages":1,"size":100,"history_slot_seconds":10,"targets":[` +
			`{"address":"10.0.0.1","port":443,` + settings + `,"state":"up","since":"2000-01-01T00:00:00Z",` +
			`"checked":"CHECKED","result":"answered","round_trip_seconds":0.001,"names":["www.example.org."],` +
			`"overrides":[{"rule":"10.0.0.0/24","says":"down","until":"2026-11-26T16:00:00Z","reason":"\u003ckernel\u003e update","file":"FILE"}],"history":` + slots("answered") + `},` +
			`{"address":"10.0.0.2","port":443,` + settings + `,"state":"down","since":"2000-01-01T00:00:00Z",` +
			`"checked":"CHECKED","result":"refused","names":[],` +
			`"overrides":[{"rule":"10.0.0.2","says":"auto","file":"FILE"}],"history":` + slots("refused") + `},` +
			`{"address":"2001:db8::1","port":443,` + settings + `,"state":"unknown","since":"2000-01-01T00:00:00Z","names":[],` +
			`"overrides":[{"rule":"[2001:db8::1]:443","says":"up","file":"FILE"}],"history":[` + nulls(29) + `null]}]}` + "\n"
		body = regexp.MustCompile(`"checked":"2000-01-01T00:00:1\d[^"]*"`).ReplaceAllString(body, `"checked":"CHECKED"`)
		if body != want {
			t.Errorf("got\n%s\nwant\n%s", body, want)
		}
	})
}

func TestQueries(t *testing.T) {
	n := newServer(t, "10.0.0.1=answered 10.0.0.2=refused 10.1.0.1=answered 2001:db8::1=answered")
	n.settleAll()
	n.Monitor.Await([]*health.Target{n.target("10.0.0.2:80")}, time.Hour)
	names := map[string][]string{
		"10.0.0.1:443":       {"www.example.org."},
		"10.0.0.2:443":       {"www.example.org.", "example.net."},
		"10.0.0.2:80":        {`a\.example.org.`, "notexample.org."},
		"[2001:db8::1]:443":  {"deep.sub.example.org."},
		"10.1.0.1:443":       {"org."},
		"[2001:db8::99]:443": nil,
	}
	for endpoint, all := range names {
		for _, name := range all {
			n.target(endpoint).AddName(name)
		}
	}
	n.target("[2001:db8::99]:443")
	all := []string{"10.0.0.1:443", "10.0.0.2:80", "10.0.0.2:443", "10.1.0.1:443", "[2001:db8::1]:443", "[2001:db8::99]:443"}
	tests := []struct {
		query string
		want  []string
		// What is zero is as with the defaults.
		matches, page, pages, size int
	}{
		{query: "", want: all},
		{query: "state=&prefix=&zone=&port=&page=&size=", want: all},
		{query: "state=down", want: []string{"10.0.0.2:80", "10.0.0.2:443"}},
		{query: "state=unknown", want: []string{"[2001:db8::99]:443"}},
		{query: "state=up", want: []string{"10.0.0.1:443", "10.1.0.1:443", "[2001:db8::1]:443"}},
		{query: "port=80", want: []string{"10.0.0.2:80"}},
		{query: "port=1"},
		{query: "prefix=10.0.0.2", want: []string{"10.0.0.2:80", "10.0.0.2:443"}},
		{query: "prefix=+10.0.0.0%2F24+", want: all[:3]},
		{query: "prefix=::ffff:10.0.0.0/120", want: all[:3]},
		{query: "prefix=2001:db8::/64", want: all[4:]},
		{query: "prefix=::/0", want: all[4:]},
		{query: "zone=example.org", want: []string{"10.0.0.1:443", "10.0.0.2:443", "[2001:db8::1]:443"}},
		{query: "zone=EXAMPLE.org.", want: []string{"10.0.0.1:443", "10.0.0.2:443", "[2001:db8::1]:443"}},
		{query: "zone=example.net", want: []string{"10.0.0.2:443"}},
		{query: "zone=.", want: all[:5]},
		{query: `zone=a%5C.example.org`, want: []string{"10.0.0.2:80"}},
		{query: "zone=example.org&state=up&prefix=10.0.0.0/8&port=443", want: []string{"10.0.0.1:443"}},
		{query: "size=4", want: all[:4], matches: 6, page: 1, pages: 2, size: 4},
		{query: "size=4&page=2", want: all[4:], matches: 6, page: 2, pages: 2, size: 4},
		{query: "size=4&page=3", matches: 6, page: 3, pages: 2, size: 4},
		{query: "size=1000&page=1000000", matches: 6, page: 1000000, pages: 1, size: 1000},
		{query: "size=1&page=2&state=up", want: []string{"10.1.0.1:443"}, matches: 3, page: 2, pages: 3, size: 1},
	}
	for _, tt := range tests {
		if tt.size == 0 {
			tt.matches, tt.page, tt.pages, tt.size = len(tt.want), 1, 1, pageSize
		}
		v := n.get(t, tt.query)
		if got := v.endpoints(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.query, got, tt.want)
		}
		if v.Matches != tt.matches || v.Page != tt.page || v.Pages != tt.pages || v.Size != tt.size || v.Counts.Total != len(all) {
			t.Errorf("%q: %d of %d match, page %d of %d of %d, want %+v", tt.query, v.Matches, v.Counts.Total, v.Page, v.Pages, v.Size, tt)
		}
	}
}

// A target that is answered as others is shown and found with them, and what is overridden are these.
func TestAnswered(t *testing.T) {
	const none = "[]"
	const rules = "192.0.2.7 down\n192.0.2.8:443 up\n10.0.0.7 up\n198.51.100.0/24 auto\n"
	for name, tt := range map[string]struct {
		aliases   string // of 10.0.0.7:8080
		answered  string // in the JSON
		row       string // of the page
		overrides string
		found     string // by a query, if not by its own address
	}{
		"as it is":           {"", none, "10.0.0.7:8080", "[{10.0.0.7 up FILE}]", ""},
		"as another":         {"192.0.2.7:443", "[192.0.2.7]", "10.0.0.7:8080 answered as 192.0.2.7", "[{192.0.2.7 down FILE}]", "prefix=192.0.2.0/24"},
		"at its port":        {"192.0.2.8:443", "[192.0.2.8]", "10.0.0.7:8080 answered as 192.0.2.8", "[{192.0.2.8:443 up FILE}]", "prefix=192.0.2.8"},
		"at another port":    {"192.0.2.8:80", "[192.0.2.8]", "10.0.0.7:8080 answered as 192.0.2.8", none, "prefix=192.0.2.8"},
		"at two ports":       {"192.0.2.7:80 192.0.2.7:443", "[192.0.2.7]", "10.0.0.7:8080 answered as 192.0.2.7", "[{192.0.2.7 down FILE}]", "prefix=192.0.2.7"},
		"only the port":      {"10.0.0.7:443", none, "10.0.0.7:8080", "[{10.0.0.7 up FILE}]", ""},
		"as others":          {"192.0.2.7:443 198.51.100.7:443", "[192.0.2.7 198.51.100.7]", "10.0.0.7:8080 answered as 192.0.2.7, 198.51.100.7", "[{192.0.2.7 down FILE} {198.51.100.0/24 auto FILE}]", "prefix=198.51.100.7&port=8080"},
		"also as it is":      {"192.0.2.7:443 10.0.0.7:8080", "[192.0.2.7 10.0.0.7]", "10.0.0.7:8080 answered as 192.0.2.7, 10.0.0.7", "[{192.0.2.7 down FILE} {10.0.0.7 up FILE}]", "prefix=192.0.2.7"},
		"of what has a rule": {"203.0.113.7:443", "[203.0.113.7]", "10.0.0.7:8080 answered as 203.0.113.7", none, "prefix=203.0.113.7"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newServer(t, "")
			file := openRules(t, rules)
			n.subject.Rules = about(file, usual)
			target := n.target("10.0.0.7:8080")
			for _, alias := range strings.Fields(tt.aliases) {
				target.AddAlias(netip.MustParseAddrPort(alias))
			}
			n.target("10.0.0.8:8080") // is found by nothing but its own address
			for _, query := range []string{"prefix=10.0.0.7", cmp.Or(tt.found, "prefix=10.0.0.7")} {
				v := n.get(t, query)
				if len(v.Targets) != 1 {
					t.Fatalf("%q: found %v", query, v.endpoints())
				}
				if got := fmt.Sprint(v.Targets[0].Answered); got != tt.answered {
					t.Errorf("answered as %s, want %s", got, tt.answered)
				}
				if got := short(v.Targets[0].Overrides, file.Path()); got != tt.overrides {
					t.Errorf("overrides %s, want %s", got, tt.overrides)
				}
				if got := rows(documentOf(t, n.do("GET", "/?"+query)))[1][1]; got != tt.row {
					t.Errorf("the page has %q, want %q", got, tt.row)
				}
			}
			body := n.do("GET", "/targets?prefix=10.0.0.7").Body.String()
			if has := strings.Contains(body, `"answered":`); has != (tt.answered != none) {
				t.Errorf("the field is there: %v, in\n%s", has, body)
			}
			for _, query := range []string{"prefix=192.0.3.0/24", "prefix=2001:db8::/32"} {
				if v := n.get(t, query); len(v.Targets) > 0 {
					t.Errorf("%q: found %v", query, v.endpoints())
				}
			}
		})
	}
}

// short writes rules that are all in one file, which is FILE.
func short(rules []rule, file string) string {
	words := []string{}
	for _, r := range rules {
		words = append(words, fmt.Sprintf("{%s %s %s}", r.Rule, r.Says, strings.ReplaceAll(r.File, file, "FILE")))
	}
	return "[" + strings.Join(words, " ") + "]"
}

// A target that flaps is marked, and so is everything while verdicts are frozen.
func TestDampedAndFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		n.Monitor.SetFreeze(90, time.Hour)
		began := time.Now()
		cutOff := began.Add(150 * time.Second)
		n.Monitor.SetProber(prober{n.Monitor, func(c checker.Check) checker.Report {
			flaps := c.Target.Addr() == netip.MustParseAddr("10.0.0.1")
			switch {
			case !time.Now().Before(cutOff):
				return checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}
			case flaps && int(time.Since(began).Seconds())/10%2 == 1:
				return checker.Report{Result: checker.Refused}
			}
			return checker.Report{Result: checker.Answered}
		}})
		for i := range 20 {
			n.target(fmt.Sprintf("10.0.%d.1:443", i))
		}
		time.Sleep(cutOff.Sub(began) - time.Second)
		v := n.get(t, "")
		if v.Counts.Damped != 1 || !v.Frozen.IsZero() || !v.Targets[1].Damped.IsZero() || v.Targets[0].Damped.Before(v.Time) {
			t.Errorf("while one flaps: %+v", v)
		}
		if got, want := rows(documentOf(t, n.do("GET", "/")))[1][2], "flaps, held down until "+shortTime(v.Targets[0].Damped, v.Time); got != want {
			t.Errorf("the note is %q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		v = n.get(t, "")
		if v.Frozen.Before(cutOff) || v.Frozen.After(v.Time) || v.Counts.Up != 19 {
			t.Errorf("while nobody answers: %+v", v)
		}
		notice := words(elements(documentOf(t, n.do("GET", "/")), "main")[0])
		if want := "Verdicts have been frozen since " + localTime(v.Frozen) + ": "; !strings.HasPrefix(notice, want) {
			t.Errorf("the page begins with %.100q, want %q", notice, want)
		}
	})
}

// Targets that differ in nothing but their settings are in an order of their own, so that none is on two pages.
func TestOrderOfSettings(t *testing.T) {
	n := newServer(t, "")
	for rise := range 9 {
		n.Monitor.Target(netip.MustParseAddrPort("10.0.0.1:443"), unique.Make(health.Settings{Rise: rise + 1}), time.Hour)
	}
	for page := range 9 {
		v := n.get(t, fmt.Sprintf("size=1&page=%d", page+1))
		if want := fmt.Sprintf(" rise %d ", page+1); !strings.Contains(v.Targets[0].Settings, want) {
			t.Errorf("page %d: %q, want %q", page+1, v.Targets[0].Settings, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	n := newServer(t, "")
	tests := []struct{ query, want string }{
		{"state=dead", `state: "dead" is not a state, want down, unknown or up`},
		{"state=UP", `state: "UP" is not a state, want down, unknown or up`},
		{"prefix=10.0.0.0/33", `prefix: "10.0.0.0/33" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"prefix=fe80::1%25eth0", `prefix: "fe80::1%eth0" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"prefix=::ffff:10.0.0.0/8", `prefix: "::ffff:10.0.0.0/8" holds IPv4-mapped addresses, which are IPv4, and more, want a CIDR such as ` +
			`10.0.0.0/8 or ::ffff:10.0.0.0/104 for IPv4, and ::/0 or a CIDR beside ::ffff:0.0.0.0/96 for IPv6`},
		{"zone=a..b", `zone: "a..b" is not a domain name`},
		{"zone=" + strings.Repeat("a", 64), `zone: "` + strings.Repeat("a", 64) + `" is not a domain name`},
		{"port=0", `port: "0" is not possible, want a number from 1 to 65535`},
		{"port=65536", `port: "65536" is not possible, want a number from 1 to 65535`},
		{"port=http", `port: "http" is not possible, want a number from 1 to 65535`},
		{"page=0", `page: "0" is not possible, want a number from 1 to 1000000`},
		{"page=-1", `page: "-1" is not possible, want a number from 1 to 1000000`},
		{"page=99999999999999999999", `page: "99999999999999999999" is not possible, want a number from 1 to 1000000`},
		{"size=1001", `size: "1001" is not possible, want a number from 1 to 1000`},
		{"size=1&size=2", `size: "2" is a second value, want a single one`},
		{"refresh=0", `unknown parameter "refresh", want one of state, prefix, zone, port, page, size`}, // is for people
		{"sort=state", `unknown parameter "sort", want one of state, prefix, zone, port, page, size`},
		{"Port=80", `unknown parameter "Port", want one of state, prefix, zone, port, page, size`},
		{"<script>=", `unknown parameter "<script>", want one of state, prefix, zone, port, page, size`},
		{"zone=%zz", `query: invalid URL escape "%zz", want NAME=VALUE with & in between`},
		{"zone=a;port=1", `query: invalid semicolon separator in query, want NAME=VALUE with & in between`},
	}
	for _, tt := range tests {
		w := n.do("GET", "/", func(r *http.Request) { r.URL = &url.URL{Path: "/targets", RawQuery: tt.query} })
		want, err := json.Marshal(failure{1, tt.want})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != http.StatusBadRequest || got != string(want) {
			t.Errorf("%q: status %d\n%s, want\n%s", tt.query, w.Code, got, want)
		}
	}
}

// Only who names this machine or localhost is answered.
func TestHost(t *testing.T) {
	tests := []struct {
		address, local, host string
		want                 bool
	}{
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.1:8053", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.1", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.1:9000", true}, // through a tunnel
		{"127.0.0.1:8053", "127.0.0.1:8053", "localhost:8053", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "LocalHost.", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "[::ffff:127.0.0.1]:8053", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.2:8053", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "attacker.example:8053", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.1.attacker.example", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "localhost.attacker.example", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", ":8053", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "2130706433", false}, // 127.0.0.1 as a number
		{"127.0.0.1:8053", "127.0.0.1:8053", "0x7f.1", false},
		{"[::1]:8053", "[::1]:8053", "[::1]:8053", true},
		{"[::1]:8053", "[::1]:8053", "[::1]", true},
		{"[::1]:8053", "[::1]:8053", "[::2]:8053", false},
		{"[fe80::1%eth0]:8053", "[fe80::1%eth0]:8053", "[fe80::1]:8053", true},
		{"0.0.0.0:8053", "192.0.2.1:8053", "192.0.2.1:8053", true},
		{"0.0.0.0:8053", "192.0.2.1:8053", "0.0.0.0:8053", false},
		{"[::]:8053", "[::ffff:192.0.2.1]:8053", "192.0.2.1:8053", true},
		{"ns1.example.net:8053", "192.0.2.1:8053", "NS1.example.net.:8053", true},
		{"ns1.example.net:8053", "192.0.2.1:8053", "192.0.2.1", true},
		{"ns1.example.net:8053", "192.0.2.1:8053", "ns2.example.net:8053", false},
	}
	n := newServer(t, "")
	for _, tt := range tests {
		n.handler.address = tt.address
		local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.local))
		w := n.do("GET", "/targets", func(r *http.Request) {
			*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(local)))
			r.Host = tt.host
		})
		if got := w.Code == http.StatusOK; got != tt.want || !got && w.Code != http.StatusMisdirectedRequest {
			t.Errorf("status %d on %s as %s for %q, want it %v", w.Code, tt.address, tt.local, tt.host, tt.want)
		}
	}
}

// Whatever is asked for, the answer has the headers that keep browsers from anything foolish.
func TestRequests(t *testing.T) {
	n := newServer(t, "")
	tests := []struct {
		method, target string
		want           int
	}{
		{"GET", "/", 200},
		{"HEAD", "/", 200},
		{"GET", "/?page=0", 400},
		{"GET", "/target", 400},
		{"GET", "/target?address=10.0.0.1&port=443", 404},
		{"HEAD", "/target?address=10.0.0.1&port=443", 404},
		{"POST", "/target?address=10.0.0.1&port=443", 405},
		{"GET", "/index.html", 404},
		{"GET", "/targets", 200},
		{"HEAD", "/targets", 200},
		{"POST", "/targets", 405},
		{"PUT", "/targets", 405},
		{"DELETE", "/targets", 405},
		{"OPTIONS", "/targets", 405},
		{"TRACE", "/targets", 405},
		{"BREW", "/targets", 405},
		{"GET", "/targets/", 404},
		{"GET", "/Targets", 404},
		{"GET", "//targets", 404},
		{"GET", "/../../etc/passwd", 404},
		{"GET", "/%2e%2e/%2e%2e/etc/passwd", 404},
		{"GET", "/targets%00", 404},
		{"GET", "/targets/../targets", 404},
		{"GET", "/<script>alert(1)</script>", 404},
		{"GET", "/favicon.ico", 404},
		{"GET", "/targets?zone=" + strings.Repeat("a", maxQuery-5), 400},
		{"GET", "/targets?zone=" + strings.Repeat("a", maxQuery-4), 414},
	}
	for _, tt := range tests {
		w := n.do(tt.method, "/", func(r *http.Request) {
			target, err := url.ParseRequestURI(tt.target)
			if err != nil {
				t.Fatal(err)
			}
			r.URL = target
		})
		if w.Code != tt.want {
			t.Errorf("%s %.80s: status %d, want %d", tt.method, tt.target, w.Code, tt.want)
		}
		if allow := w.Header().Get("Allow"); (allow == "GET, HEAD") != (tt.want == 405) {
			t.Errorf("%s %.80s: Allow %q", tt.method, tt.target, allow)
		}
		if kind := w.Header().Get("Content-Type"); kind != "text/html; charset=utf-8" && kind != "application/json" && kind != "text/plain; charset=utf-8" {
			t.Errorf("%s %.80s: Content-Type %q", tt.method, tt.target, kind)
		}
		for key := range headers {
			if w.Header().Get(key) == "" {
				t.Errorf("%s %.80s: no %s", tt.method, tt.target, key)
			}
		}
	}
}

// A panic is told like any other of ours, and the server goes on.
func TestPanic(t *testing.T) {
	n := newServer(t, "")
	n.subject.Monitor = nil
	if w := n.do("GET", "/targets"); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if len(n.panics) != 1 || !strings.HasPrefix(n.panics[0], "on the status page: ") {
		t.Errorf("panics %q", n.panics)
	}
	n.subject.Monitor = n.Monitor
	n.get(t, "")
	n.subject = nil
	if w := n.do("GET", "/targets"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without a subject: status %d", w.Code)
	}
}

// pipeListener hands out connections in memory, so that a server can be in a synctest bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8053} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// Clients that are slow, want too much or come in crowds are cut off, and nobody hears of it in the log.
func TestBounds(t *testing.T) {
	const request = "GET /targets HTTP/1.1\r\nHost: localhost\r\n"
	tests := []struct {
		name, sent string
		stays      bool // the client says nothing more and leaves it to the server to end the connection
		want       string
		after      time.Duration
	}{
		{"an ordinary one", request + "\r\n", false, "HTTP/1.1 200 OK", 0},
		{"HTTP/1.0 without a host", "GET /targets HTTP/1.0\r\n\r\n", false, "HTTP/1.0 421 Misdirected Request", 0},
		{"an absolute target beats the host", "GET http://attacker.example/targets HTTP/1.1\r\nHost: localhost\r\n\r\n", false, "HTTP/1.1 421 Misdirected Request", 0},
		{"two hosts", request + "Host: attacker.example\r\n\r\n", false, "HTTP/1.1 400 Bad Request", 0},
		{"a header that is too large", request + "X: " + strings.Repeat("x", maxHeader+4096) + "\r\n\r\n", false, "HTTP/1.1 431 Request Header Fields Too Large", 0},
		{"a target that is too large", "GET /" + strings.Repeat("x", maxHeader+4096) + " HTTP/1.1\r\n\r\n", false, "HTTP/1.1 431 Request Header Fields Too Large", 0},
		{"what is not HTTP", "\x16\x03\x01\x02\x00\r\n\r\n", false, "HTTP/1.1 400 Bad Request", 0},
		{"one who says nothing", "", true, "", readTimeout},
		{"one who stops in the header", request, true, "", readTimeout},
		{"one who announces a body", request + "Content-Length: 5\r\n\r\n", true, "HTTP/1.1 200 OK", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newServer(t, "")
				l := &pipeListener{make(chan net.Conn), make(chan struct{})}
				s := serve(l, address, n.handler.current, n.handler.tell)
				defer time.Sleep(time.Minute) // package net/http takes its time before it closes a connection
				defer s.Close()
				client := l.dial()
				defer client.Close()
				begin := time.Now()
				go client.Write([]byte(tt.sent))
				line, _ := bufio.NewReader(client).ReadString('\n')
				if line = strings.TrimSuffix(line, "\r\n"); line != tt.want {
					t.Errorf("answer %q, want %q", line, tt.want)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
			})
		})
	}
}

// One who does not read what he asked for is cut off, and meanwhile others are answered.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newServer(t, "")
		l := &pipeListener{make(chan net.Conn), make(chan struct{})}
		s := serve(l, address, n.handler.current, n.handler.tell)
		defer s.Close()
		var slow []net.Conn
		for range maxConnections - 1 {
			client := l.dial()
			defer client.Close()
			fmt.Fprint(client, "GET /targets HTTP/1.1\r\nHost: localhost\r\n\r\n")
			slow = append(slow, client)
		}
		ask := func() time.Duration {
			begin := time.Now()
			client := l.dial()
			defer client.Close()
			fmt.Fprint(client, "GET /targets HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if body, err := io.ReadAll(client); err != nil || !strings.Contains(string(body), `"version":1`) {
				t.Fatalf("%q, %v", body, err)
			}
			return time.Since(begin)
		}
		if took := ask(); took != 0 {
			t.Errorf("beside slow readers an answer takes %v", took)
		}
		last := l.dial() // takes the place that was left
		defer last.Close()
		if took := ask(); took != readTimeout {
			t.Errorf("with all connections taken an answer takes %v, want that of one who says nothing, %v", took, readTimeout)
		}
		time.Sleep(writeTimeout)
		for _, client := range slow {
			if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
				t.Fatalf("the slow reader still gets %d octets (%v)", len(rest), err)
			}
		}
	})
}

// When the wall clock is set, instants are told as the new time has them, and ages stay.
func TestClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := time.Duration(0)
		n := newServerOf(t, oracle.NewWithClock(t, "10.0.0.1=answered", func() time.Time { return time.Now().Add(step) }))
		n.settleAll()
		time.Sleep(10 * time.Minute)
		for _, step = range []time.Duration{0, time.Hour, -3 * time.Hour, 0} {
			v := n.get(t, "")
			target := v.Targets[0]
			if want := instant(time.Now().Add(step)); v.Time != want {
				t.Errorf("set by %v: the time is %v, want %v", step, v.Time, want)
			}
			if age := v.Time.Sub(target.Since); age != 10*time.Minute {
				t.Errorf("set by %v: up since %v, which is %v", step, target.Since, age)
			}
			if age := v.Time.Sub(target.Checked); age < 0 || age > 3*time.Second {
				t.Errorf("set by %v: checked at %v, which is %v ago", step, target.Checked, age)
			}
			row := rows(documentOf(t, n.do("GET", "/")))[1]
			if want := shortTime(v.Time.Add(-10*time.Minute), v.Time) + " 10 min"; row[3] != want {
				t.Errorf("set by %v: the page says %q, want %q", step, row[3], want)
			}
		}
	})
}
