package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asCommand in the environment makes the test binary the command itself.
const asCommand = "SHAKER_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// noon is when the tests are.
var noon = time.Date(2026, 11, 26, 12, 0, 5, 0, time.UTC)

// answers are what a server says, by path and query. What is not there is an error of ours.
type answers map[string]string

// serve begins to answer, and returns where.
func (a answers) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := a[r.URL.RequestURI()]
		if !ok {
			t.Errorf("unexpected request: %s", r.URL.RequestURI())
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// buffer may be written to and read at the same time.
type buffer struct {
	mu   sync.Mutex // protects text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newProgram returns one that writes to buffers.
func newProgram() (p *program, stdout, stderr *buffer) {
	stdout, stderr = new(buffer), new(buffer)
	return &program{
		stdout: stdout, stderr: stderr,
		env: func(name string) string { // no test finds a CoreDNS that happens to run here
			return map[string]string{"SHAKER_SERVER": "127.0.0.1:1"}[name]
		},
		zone:     time.UTC,
		now:      func() time.Time { return noon },
		files:    files,
		patience: 300 * time.Millisecond,
		gone:     func(ctx context.Context, _ io.Writer) { <-ctx.Done() },
	}, stdout, stderr
}

// output runs a command line and returns all that came of it.
func output(args ...string) (status int, stdout, stderr string) {
	p, out, errs := newProgram()
	status = p.run(context.Background(), args)
	return status, out.String(), errs.String()
}

const (
	targetsBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","counts":{"total":12,"down":2,"unknown":1,"up":9,"damped":1},"matches":3,"page":1,"pages":2,"size":100,
"history_slot_seconds":10,"targets":[
{"address":"192.0.2.7","port":443,"settings":"interval 2s timeout 1s","state":"down","since":"2026-11-26T11:56:45.000Z","damped_until":"2026-11-26T12:05:00.000Z",
 "checked":"2026-11-26T12:00:04.000Z","result":"refused","reason":"connection refused","round_trip_seconds":0.000123,"names":["www.example.org.","api.example.org."],
 "overrides":[{"rule":"192.0.2.7","says":"down","file":"/etc/coredns/overrides","until":"2026-11-26T14:00:00.000Z","reason":"kernel update","from":"ns2","since":"2026-11-26T11:30:00.000Z"}],
 "history":[null,{"result":"answered","mixed":false},{"result":"timeout","mixed":true},{"result":"refused","mixed":false},{"result":"inconclusive","mixed":false}]},
{"address":"192.0.2.8","port":443,"settings":"interval 2s timeout 1s","state":"up","since":"2026-11-24T09:00:00.000Z","checked":"2026-11-26T12:00:04.000Z","result":"answered",
 "round_trip_seconds":0.0315,"names":["www.example.org."],"overrides":[],"history":[]},
{"address":"2001:db8::7","port":80,"settings":"interval 2s timeout 1s","state":"unknown","since":"2026-11-26T12:00:05.000Z","names":[],"overrides":[],"history":[]}]}
`
	targetsText = `TARGET            STATE    FOR    RESULT    RTT       NAMES                NOTE
192.0.2.7:443     down     3m20s  refused   0.123 ms  www.example.org. +1  damped, override: down
192.0.2.8:443     up       2d3h   answered  31.5 ms   www.example.org.
[2001:db8::7]:80  unknown  0s

3 of 12 targets; of all, 2 down, 1 unknown, 9 up
This is part 1 of 2: -page N shows another one, -all shows all.
`
	explainBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","name":"www.example.org.","type":"A","client":"127.0.0.1","blocks":[
{"server":"dns://example.org.:1053","stanza":"Corefile:3","zone":"example.org.","chosen":true,"rcode":"NOERROR","error":"",
"below":["www.example.org. 300 IN A 192.0.2.1","www.example.org. 300 IN A 192.0.2.4"],"outcome":"filtered",
"sets":[{"name":"www.example.org.","type":"A","section":"answer","decision":"one of two is down: 1 stays","fallback":"","members":[
{"record":"www.example.org. 300 IN A 192.0.2.1","in_answer":false,"rank":0,"why":"down since 12:00:01: timeout","steps":["verdict: down since 12:00:01: timeout","tier 1 of 2"],
 "addresses":[{"address":"192.0.2.1","tier":1,"weight":1,"verdict":"down","damped":true,"override":{"rule":"192.0.2.1","says":"down","file":"/o","until":"2026-11-26T14:00:00Z","reason":"kernel"},
 "ports":[{"port":443,"probed":"10.0.0.1:443","state":"down","since":"2026-11-26T12:00:01Z","result":"timeout","round_trip_seconds":0.001}]}]},
{"record":"www.example.org. 300 IN A 192.0.2.4","in_answer":true,"rank":1,"why":"up","steps":[],"addresses":[]}]}],
"answer":["www.example.org. 30 IN A 192.0.2.4"],"ttl":30},
{"server":"dns://.:1053","stanza":"Corefile:9","zone":".","chosen":false,"rcode":"","error":"SERVFAIL","below":[],"outcome":"","sets":[],"answer":[],"ttl":0}]}
`
	explainText = `www.example.org. A, asked by 127.0.0.1, at 12:00:05

Server block dns://example.org.:1053, stanza Corefile:3, zone example.org.
The plugins below answer NOERROR:
  www.example.org. 300 IN A 192.0.2.1
  www.example.org. 300 IN A 192.0.2.4
www.example.org. A, in the section answer: one of two is down: 1 stays
  out    www.example.org. 300 IN A 192.0.2.1
      down since 12:00:01: timeout
        1. verdict: down since 12:00:01: timeout
        2. tier 1 of 2
        192.0.2.1 is down, tier 1, weight 1, damped
          override: 192.0.2.1 down until 14:00:00 (1h59m left): kernel, in /o
          port 443, checked at 10.0.0.1:443: down since 12:00:01, for 4s, timeout, 1 ms
  in #1  www.example.org. 300 IN A 192.0.2.4
      up
A client gets this, outcome filtered, TTL 30:
  www.example.org. 30 IN A 192.0.2.4

Server block dns://.:1053, stanza Corefile:9, zone .
This client's query does not come here.
The plugins below have no answer: SERVFAIL
`
	eventsBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","matches":7,"page":1,"pages":4,"size":2,"events":[
{"number":7,"time":"2026-11-26T12:00:01.000Z","kind":"down","text":"192.0.2.1:443 is down: 3 of 3 checks failed: timeout"},
{"number":6,"time":"2026-11-25T12:00:00.000Z","kind":"start","text":"hello"}]}
`
	overridesBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","files":[
{"path":"/a","modified":"2026-11-26T11:00:00.000Z","failed":false,"rules":[{"rule":"192.0.2.7","says":"down","until":"2026-11-26T14:00:05.000Z","reason":"kernel update"},{"rule":"198.51.100.0/24","says":"up"}]},
{"path":"/b","modified":"2026-11-25T11:00:00.000Z","failed":true,"error":"line 1: x","rules":[]}]}
`
	sharedBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","replicas":3,"files":[
{"path":"/a","modified":"2026-11-26T11:00:00.000Z","failed":false,"shared":true,"rules":[{"rule":"192.0.2.7","says":"down","reason":"kernel update","from":"ns2","since":"2026-11-26T11:30:00.000Z"}]},
{"path":"/b","modified":"2026-11-26T11:00:00.000Z","failed":false,"local":true,"rules":[{"rule":"192.0.2.8","says":"up"}]}]}
`
	peersBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","self":"dns1-c0ffee","ready":true,"observers":3,"quorum":false,"disagreeing":3,"members":[
{"name":"dns1-c0ffee","host":"dns1","address":"192.0.2.1:7946","site":"east","shaker":"v1.2.3","self":true,"heard_seconds":0,"alive":true,"condition":"counts","lag":0,"observed":1200,"finished":98765},
{"name":"dns2-c0ffee","host":"dns2","address":"192.0.2.2:7946","site":"east","shaker":"v1.2.3","self":false,"heard_seconds":1.5,"alive":true,"frozen":true,"condition":"frozen","lag":12,"observed":1200,"finished":5},
{"name":"dns3-c0ffee","host":"dns3","address":"192.0.2.3:7946","site":"east","shaker":"v1.2.2","self":false,"heard_seconds":12.345,"alive":false,"condition":"silent","lag":3,"observed":0,"finished":0}],
"join":[{"place":"192.0.2.2:7946"},{"place":"dns4.example.org:7946","error":"no such host"}],"counts":{}}
`
	peersText = `REPLICA  WORDS   HEARD    LAG  OBSERVES  SITE  VERSION  ADDRESS
dns1     counts  here          1200      east  v1.2.3   192.0.2.1:7946
dns2     frozen  1s ago   12   1200      east  v1.2.3   192.0.2.2:7946
dns3     silent  12s ago  3    0         east  v1.2.2   192.0.2.3:7946

1 of 2 other replicas heard of; this replica says otherwise of 3 targets
Cannot join dns4.example.org:7946: no such host
`
	observedBody = `{"version":1,"time":"2026-11-26T12:00:05.000Z","counts":{"total":2,"down":1,"unknown":0,"up":1},"matches":2,"page":1,"pages":1,"size":100,"history_slot_seconds":10,"targets":[
{"address":"192.0.2.7","port":443,"settings":"interval 2s","state":"down","own":"up","since":"2026-11-26T11:56:45.000Z","checked":"2026-11-26T12:00:04.000Z","result":"answered","names":[],"overrides":[],
 "tally":"2 of 3 observers say so, 1 says up; this replica says up","observers":[
{"member":"dns1-c0ffee","host":"dns1","self":true,"votes":true,"says":"up","since":"2026-11-26T11:00:00.000Z","result":"answered","round_trip_seconds":0.0015},
{"member":"dns2-c0ffee","host":"dns2","votes":true,"says":"down","since":"2026-11-25T11:00:00.000Z","result":"timeout"},
{"member":"dns2-decade","host":"dns2","votes":true,"says":"down","since":"2026-11-26T11:59:00.000Z","result":"refused"},
{"member":"dns3-c0ffee","host":"","votes":false,"says":"checking","since":"2026-11-26T12:00:00.000Z"},
{"member":"dns4-c0ffee","host":"dns4","votes":false,"says":""}],"history":[]},
{"address":"192.0.2.8","port":443,"settings":"interval 2s","state":"up","rests":true,"since":"2026-11-26T11:56:45.000Z","checked":"2026-11-26T11:00:00.000Z","result":"timeout","names":[],"overrides":[],
 "tally":"3 of 3 observers say so; this replica does not check it","observers":[],"history":[]}]}
`
	empty = `{"version":1,"time":"2026-11-26T12:00:05.000Z","counts":{"total":0},"page":1,"pages":1,"targets":[],"events":[],"files":[]}`
)

// What people see, for what the server says.
func TestOutput(t *testing.T) {
	for _, tt := range []struct{ args, request, body, want string }{
		{"targets", "/targets.json?page=1&size=100", targetsBody, targetsText},
		{"-down targets --prefix=192.0.2.0/24 -zone example.org -port 443 -page 2 -size 7", "/targets.json?page=2&port=443&prefix=192.0.2.0%2F24&size=7&state=down&zone=example.org", empty, "0 of 0 targets\n"},
		{"targets --json", "/targets.json?page=1&size=100", targetsBody, targetsBody},
		{"targets -disagreeing", "/targets.json?disagreeing=1&page=1&size=100", observedBody, `TARGET         STATE  FOR    RESULT     NOTE
192.0.2.7:443  down   3m20s  answered   here: up
192.0.2.8:443  up     3m20s  elsewhere

2 of 2 targets; of all, 1 down, 0 unknown, 1 up
`},
		{"target 192.0.2.7:443", "/targets.json?port=443&prefix=192.0.2.7&size=1000", observedBody, `192.0.2.7:443 is down
  since        11:56:45, for 3m20s
  decided by   2 of 3 observers say so, 1 says up; this replica says up
  result       answered, 1s ago
  replicas     dns1: up since 11:00:00, answered, 1.5 ms, which is here
               dns2-c0ffee: down since 2026-11-25 11:00:00, timeout
               dns2-decade: down since 11:59:00, refused
               dns3-c0ffee: checking since 12:00:00, does not count
  history        0s, . answered, ! failed, ~ both, ? inconclusive, _ none
  settings     interval 2s

192.0.2.8:443 is up
  since        11:56:45, for 3m20s
  decided by   3 of 3 observers say so; this replica does not check it
  result       not here: others check it
  history        0s, . answered, ! failed, ~ both, ? inconclusive, _ none
  settings     interval 2s
`},
		{"target 192.0.2.7:443", "/targets.json?port=443&prefix=192.0.2.7&size=1000", strings.Replace(targetsBody, "192.0.2.8", "192.0.2.7", 1), `192.0.2.7:443 is down
  since        11:56:45, for 3m20s
  damped       until 12:05:00: it is kept down although it answers
  result       refused, 1s ago: connection refused
  round trip   0.123 ms
  override     192.0.2.7 down until 14:00:00 (1h59m left), by ns2 since 11:30:00: kernel update, in /etc/coredns/overrides
  names        www.example.org.
               api.example.org.
  history      _.~!?  50s, . answered, ! failed, ~ both, ? inconclusive, _ none
  settings     interval 2s timeout 1s

192.0.2.7:443 is up
  since        2026-11-24 09:00:00, for 2d3h
  result       answered, 1s ago
  round trip   31.5 ms
  names        www.example.org.
  history        0s, . answered, ! failed, ~ both, ? inconclusive, _ none
  settings     interval 2s timeout 1s

[2001:db8::7]:80 is unknown
  since        12:00:05, for 0s
  result       none yet
  history        0s, . answered, ! failed, ~ both, ? inconclusive, _ none
  settings     interval 2s timeout 1s
`},
		{"explain www.example.org", "/explain.json?name=www.example.org", explainBody, explainText},
		{"explain www.example.org aaaa -client 192.0.2.99 -block 1 -json", "/explain.json?client=192.0.2.99&name=www.example.org&server=1&type=AAAA", explainBody, explainBody},
		{"events -n 2", "/events.json?size=2", eventsBody, `2026-11-25 12:00:00  start      hello
2026-11-26 12:00:01  down       192.0.2.1:443 is down: 3 of 3 checks failed: timeout
`},
		{"events -kind down -up", "/events.json?kind=down&size=20&state=up", empty, "Nothing has happened that matches.\n"},
		{"events -json", "/events.json?size=20", eventsBody, eventsBody},
		{"overrides", "/overrides.json", overridesBody, `/a, written 11:00:00: 2 rules in force
RULE             SAYS  UNTIL     LEFT  REASON
192.0.2.7        down  14:00:05  2h    kernel update
198.51.100.0/24  up

/b, written 2026-11-25 11:00:00: 0 rules in force
They are older than the file, which cannot be used: line 1: x
`},
		{"overrides", "/overrides.json", sharedBody, `/a, written 11:00:00, shared by 3 replicas: 1 rule in force
RULE       SAYS  REASON         BY   SINCE
192.0.2.7  down  kernel update  ns2  11:30:00

/b, written 11:00:00, of this replica alone: 1 rule in force
RULE       SAYS
192.0.2.8  up
`},
		{"overrides", "/overrides.json", empty, "No stanza of the Corefile has the property overrides.\n"},
		{"overrides -json", "/overrides.json", overridesBody, overridesBody},
	} {
		args := append([]string{"-server", answers{tt.request: tt.body}.serve(t)}, strings.Fields(tt.args)...)
		status, stdout, stderr := output(args...)
		if status != exitDone || stdout != tt.want {
			t.Errorf("%s: status %d, %s\n%s\nwant\n%s", tt.args, status, stderr, stdout, tt.want)
		}
	}
}

// All parts come as one table, whose columns stay.
func TestAllParts(t *testing.T) {
	second := strings.Replace(strings.Replace(targetsBody, `"page":1`, `"page":2`, 1), "192.0.2.8", "192.0.2.9", 1)
	server := answers{"/targets.json?page=1&size=1000": targetsBody, "/targets.json?page=2&size=1000": second}.serve(t)
	status, stdout, _ := output("targets", "-all", "-server", server)
	lines := strings.Split(stdout, "\n")
	if status != exitDone || len(lines) != 10 || lines[7-3] != lines[1] || !strings.HasPrefix(lines[5], "192.0.2.9:443     up ") || strings.Contains(stdout, "part") {
		t.Errorf("status %d\n%s", status, stdout)
	}
	status, stdout, _ = output("targets", "-all", "-json", "-server", server)
	if status != exitDone || stdout != targetsBody+second {
		t.Errorf("status %d\n%s", status, stdout)
	}
}

// A part behind the last one says so, and is not taken for all there is.
func TestPartBehindTheLast(t *testing.T) {
	server := answers{"/targets.json?page=9&size=100": `{"version":1,"counts":{"total":5,"up":5},"matches":5,"page":9,"pages":1,"targets":[]}`}.serve(t)
	if status, stdout, _ := output("targets", "-page", "9", "-server", server); status != exitDone || !strings.Contains(stdout, "This is part 9 of 1: ") {
		t.Errorf("status %d\n%s", status, stdout)
	}
}

// Colours are for terminals only.
func TestColours(t *testing.T) {
	p, stdout, _ := newProgram()
	p.colour = true
	p.run(t.Context(), []string{"targets", "-server", answers{"/targets.json?page=1&size=100": targetsBody}.serve(t)})
	for _, want := range []string{"\x1b[31mdown\x1b[0m     3m20s", "\x1b[32mup\x1b[0m       2d3h", "\x1b[33munknown\x1b[0m  0s"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q lacks %q", stdout, want)
		}
	}
	if plain := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(stdout.String(), ""); plain != targetsText {
		t.Errorf("without colours\n%s", plain)
	}
}

// Whatever names, reasons and records hold, a terminal gets text.
func TestHostileContent(t *testing.T) {
	const evil = "\\u001b]0;x\\u0007\\u009b31m\\u202e\\r\\n\\u007f\u009b\u202e\xff"
	replace := func(body string) string {
		return regexp.MustCompile(`"(www\.[^"]*|kernel[^"]*|connection[^"]*|192\.0\.2\.1:443 is[^"]*|down since[^"]*|line 1[^"]*|dns\d|counts|east|v1[^"]*|no such[^"]*|2 of 3[^"]*|timeout|up|/a|refused|down|interval[^"]*|dns:[^"]*|2001[^"]*)"`).ReplaceAllString(body, `"$1 `+evil+`"`)
	}
	for _, tt := range []struct{ args, request, body string }{
		{"targets", "/targets.json?page=1&size=100", targetsBody},
		{"target 192.0.2.7:443", "/targets.json?port=443&prefix=192.0.2.7&size=1000", targetsBody},
		{"explain a", "/explain.json?name=a", explainBody},
		{"events", "/events.json?size=20", eventsBody},
		{"overrides", "/overrides.json", overridesBody},
		{"peers", "/peers.json", strings.Replace(peersBody, `"lag":12`, `"lag":0`, 1)},
		{"target 192.0.2.7:443", "/targets.json?port=443&prefix=192.0.2.7&size=1000", observedBody},
	} {
		server := answers{tt.request: replace(tt.body)}.serve(t)
		for _, more := range []string{"", " -json"} {
			status, stdout, stderr := output(strings.Fields(tt.args + more + " -server " + server)...)
			bad := slices.IndexFunc([]rune(stdout), func(r rune) bool {
				return (r < ' ' && r != '\n' || r > '~') && r != '\ufffd'
			})
			if status != exitDone || bad >= 0 || !strings.Contains(stdout, "202e") {
				t.Errorf("%s: status %d, %s, character %d of\n%q", tt.args+more, status, stderr, bad, stdout)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""}, {"käse 木 \U0001F600", "käse 木 \U0001F600"}, {"a\tb\r\n", `a\tb\r\n`}, {"\x1b[31m\x00\x7f", `\x1b[31m\x00\x7f`},
		{"\u009b\u202e\u2028\ufeff", `\u009b\u202e\u2028\ufeff`}, {"a\xffb\ufffd", "a\\xffb\ufffd"}, {`\x1b`, `\x1b`},
		{strings.Repeat("ä", maxShown+1), strings.Repeat("ä", maxShown) + "..."},
	} {
		if got := clean(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{`{"a":"ä\n"}` + "\n", `{"a":"ä\n"}` + "\n"}, {"\"\u202e\u009b\x7f\U000E0001\"", `"\u202e\u009b\u007f\udb40\udc01"`}, {"\"\xff\"", `"\ufffd"`},
	} {
		if got := string(cleanJSON([]byte(tt.text))); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m1s", time.Hour: "1h",
		3*time.Hour + 5*time.Second: "3h", 26 * time.Hour: "1d2h", 48 * time.Hour: "2d"} {
		if got := span(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

// The page for people has every command, flag and exit status, and the outputs that these tests have.
func TestReadme(t *testing.T) {
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	var want []string
	for _, c := range commands {
		want = append(want, "shaker "+strings.TrimSuffix(c.usage, ` ["REASON"]`))
	}
	for _, o := range options {
		want = append(want, "`"+strings.TrimRight("-"+o.name+" "+o.value, " ")+"`")
	}
	want = append(want, kinds...)
	want = append(want, "SHAKER_SERVER", "NO_COLOR", "* 0 ", "* 1 ", "* 2 ", "* 130 ", "* 141 ", defaultServer, targetsText, peersText)
	for _, w := range want {
		if !strings.Contains(page, w) {
			t.Errorf("README.md lacks %q", w)
		}
	}
}
