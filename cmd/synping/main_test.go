package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker/checker"
)

// asCommand in the environment makes the test binary the command itself.
const asCommand = "SYNPING_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func TestParse(t *testing.T) {
	defaults := settings{count: 4, concurrency: 64, interval: time.Second, timeout: time.Second, network: "ip"}
	with := func(change func(*settings), targets ...string) settings {
		s := defaults
		s.targets = targets
		change(&s)
		return s
	}
	tests := []struct {
		args string
		want settings
	}{
		{"a:1", with(func(*settings) {}, "a:1")},
		{"-n 0 a:1 b:2", with(func(s *settings) { s.count = 0 }, "a:1", "b:2")},
		{"-n 1000000000 -c 65536 a:1", with(func(s *settings) { s.count, s.concurrency = 1_000_000_000, 65536 }, "a:1")},
		{"-i 0 -t 250ms a:1", with(func(s *settings) { s.interval, s.timeout = 0, 250*time.Millisecond }, "a:1")},
		{"-i 0.2 -t 3 a:1", with(func(s *settings) { s.interval, s.timeout = 200*time.Millisecond, 3*time.Second }, "a:1")},
		{"-i 24h -t 1h a:1", with(func(s *settings) { s.interval, s.timeout = 24*time.Hour, time.Hour }, "a:1")},
		{"-method dial a:1", with(func(s *settings) { s.method = checker.MethodDial }, "a:1")},
		{"-method raw a:1", with(func(s *settings) { s.method = checker.MethodRaw }, "a:1")},
		{"-4 a:1", with(func(s *settings) { s.network = "ip4" }, "a:1")},
		{"-6 a:1", with(func(s *settings) { s.network = "ip6" }, "a:1")},
		{"a:1 -json b:2 -c 1", with(func(s *settings) { s.json, s.concurrency = true, 1 }, "a:1", "b:2")},
	}
	for _, test := range tests {
		got, err := parse(strings.Fields(test.args))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\n%+v, %v, want\n%+v", test.args, got, err, test.want)
		}
	}
}

func TestFailures(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "no target: want HOST:PORT, such as example.org:443"},
		{"-n -1 a:1", `invalid value "-1" for flag -n: want a number up to 1000000000, or 0 to go on until Ctrl-C`},
		{"-n many a:1", `invalid value "many" for flag -n: want a number up to`},
		{"-n 1000000001 a:1", `invalid value "1000000001" for flag -n: want a number up to`},
		{"-c 0 a:1", `invalid value "0" for flag -c: want a number from 1 to 65536`},
		{"-c 65537 a:1", `invalid value "65537" for flag -c: want a number from 1 to 65536`},
		{"-i -1s a:1", `invalid value "-1s" for flag -i: want a time from 0 to 24h, such as 200ms`},
		{"-i 25h a:1", `invalid value "25h" for flag -i: want a time from 0 to 24h`},
		{"-i inf a:1", `invalid value "inf" for flag -i: want a time from 0 to 24h`},
		{"-t 0 a:1", `invalid value "0" for flag -t: want a time above 0, up to 1h, such as 500ms`},
		{"-t 5m3 a:1", `invalid value "5m3" for flag -t: want a time above 0`},
		{"-t 61m a:1", `invalid value "61m" for flag -t: want a time above 0, up to 1h`},
		{"-method syn a:1", `invalid value "syn" for flag -method: checker: unknown method "syn", want `},
		{"-4 -6 a:1", "-4 and -6 exclude each other: leave one out"},
		{"-x a:1", "flag provided but not defined: -x"},
		{"a:1 -n", "flag needs an argument: -n"},
		{"127.0.0.1", `target "127.0.0.1": no port: want HOST:PORT, such as 127.0.0.1:443`},
		{"-6 127.0.0.1:1", `target "127.0.0.1:1": 127.0.0.1 is an IPv4 address: leave -6 out`},
	}
	for _, test := range tests {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
		if status != exitFailed || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "synping: "+test.want) {
			t.Errorf("%s: status %d, wrote %q, and as error %q, want %q", test.args, status, &stdout, &stderr, test.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, flag := range []string{"-h", "-help", "--help"} {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), []string{"-n", "1", flag}, &stdout, &stderr); status != 0 {
			t.Errorf("%s: status %d", flag, status)
		}
		if stdout.String() != usage || stderr.Len() > 0 {
			t.Errorf("%s: wrote %q, and as error %q", flag, &stdout, &stderr)
		}
	}
}

// The fields that the usage text documents are those that the lines have.
func TestUsageNamesJSONFields(t *testing.T) {
	for _, line := range []any{checkLine{}, summaryLine{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(line)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && !regexp.MustCompile(`\b`+name+`\b`).MatchString(usage) {
				t.Errorf("usage does not name %s of %T", name, line)
			}
		}
	}
	for _, line := range strings.Split(usage, "\n") {
		if len(line) > 80 {
			t.Errorf("too long for a terminal: %q", line)
		}
	}
}

func listen(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// refusing returns an address where nothing listens, and nothing will for as long as the test runs: a connection of the
// test has its port. The address is not the one that checks come from, or a check might take the same port and reach itself.
func refusing(t *testing.T) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := d.Dial("tcp", listen(t, "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

var (
	milliseconds3 = regexp.MustCompile(`\d+\.\d{3}( ms|/)`)
	wholeTime     = regexp.MustCompile(`time \d+ ms`)
)

// timeless replaces the times in text.
func timeless(text string) string {
	return wholeTime.ReplaceAllString(milliseconds3.ReplaceAllString(text, "T$1"), "time T ms")
}

func TestText(t *testing.T) {
	open, closed := listen(t, "127.0.0.1:0"), refusing(t)
	tests := []struct {
		name   string
		args   []string
		want   string
		status int
	}{
		{"answered", []string{"-n", "2", open}, `
OPEN answered in T ms
OPEN answered in T ms

--- OPEN ---
2 sent, 2 answered, 0% loss, time T ms
rtt min/avg/max/mdev = T/T/T/T ms
results: 2 answered, 0 refused, 0 timeout, 0 unreachable, 0 inconclusive
`, 0},
		{"refused", []string{"-n", "1", closed}, `
CLOSED refused in T ms

--- CLOSED ---
1 sent, 0 answered, 100% loss, time T ms
results: 0 answered, 1 refused, 0 timeout, 0 unreachable, 0 inconclusive
`, 1},
		{"one after the other", []string{"-n", "2", "-c", "1", open, closed}, `
OPEN answered in T ms
CLOSED refused in T ms
OPEN answered in T ms
CLOSED refused in T ms

--- OPEN ---
2 sent, 2 answered, 0% loss, time T ms
rtt min/avg/max/mdev = T/T/T/T ms
results: 2 answered, 0 refused, 0 timeout, 0 unreachable, 0 inconclusive

--- CLOSED ---
2 sent, 0 answered, 100% loss, time T ms
results: 0 answered, 2 refused, 0 timeout, 0 unreachable, 0 inconclusive

--- all 2 targets ---
4 sent, 2 answered, 50% loss, time T ms
rtt min/avg/max/mdev = T/T/T/T ms
results: 2 answered, 2 refused, 0 timeout, 0 unreachable, 0 inconclusive
`, 1},
		{"dial", []string{"-n", "1", "-method", "dial", open}, `
OPEN answered in T ms

--- OPEN ---
1 sent, 1 answered, 0% loss, time T ms
rtt min/avg/max/mdev = T/T/T/T ms
results: 1 answered, 0 refused, 0 timeout, 0 unreachable, 0 inconclusive
`, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), append([]string{"-i", "1ms", "-t", "1m"}, test.args...), &stdout, &stderr)
			got := timeless(strings.NewReplacer(open, "OPEN", closed, "CLOSED").Replace(stdout.String()))
			if got != test.want[1:] || status != test.status {
				t.Errorf("status %d, want %d, and wrote\n%s\nwant\n%s", status, test.status, got, test.want[1:])
			}
			if stderr.Len() > 0 {
				t.Errorf("error output: %s", &stderr)
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6 loopback address: ", err)
	}
	defer l.Close()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-6", "-n", "1", "-t", "1m", l.Addr().String()}, &stdout, &stderr); status != 0 {
		t.Errorf("status %d, wrote %s, and as error %s", status, &stdout, &stderr)
	}
	if !strings.HasPrefix(stdout.String(), l.Addr().String()+" answered in ") {
		t.Errorf("wrote %s", &stdout)
	}
}

func TestName(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	name := strings.Replace(open, "127.0.0.1", "localhost", 1)
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-4", "-n", "1", "-t", "1m", name}, &stdout, &stderr); status != 0 {
		t.Errorf("status %d, wrote %s, and as error %s", status, &stdout, &stderr)
	}
	for _, want := range []string{name + " is " + open, "\n" + open + " answered in ", "\n--- " + name + " (" + open + ") ---\n"} {
		if !strings.Contains("\n"+stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, &stdout)
		}
	}
}

func TestManyAtFullSpeed(t *testing.T) {
	open := listen(t, "127.0.0.1:0")
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-n", "2000", "-i", "0", "-t", "1m", "-c", "16", open}, &stdout, &stderr)
	if n := strings.Count(stdout.String(), open+" answered in "); n != 2000 || status != 0 {
		t.Errorf("%d lines, status %d, error output %q", n, status, &stderr)
	}
	if !strings.Contains(stdout.String(), "2000 sent, 2000 answered, 0% loss") {
		t.Errorf("the summary does not tell of 2000 checks:\n%s", stdout.String()[max(0, stdout.Len()-500):])
	}
}

// The keys of each line, and what is in them, as a program that reads them would see it.
func TestJSON(t *testing.T) {
	open, closed := listen(t, "127.0.0.1:0"), refusing(t)
	before := time.Now()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-json", "-n", "2", "-c", "1", "-i", "1ms", "-t", "1m", open, closed}, &stdout, &stderr)
	if status != 1 || stderr.Len() > 0 {
		t.Errorf("status %d, error output %q", status, &stderr)
	}
	method := checker.MethodDefault.String()
	results := func(answered, refused float64) map[string]any {
		return map[string]any{"answered": answered, "refused": refused, "timeout": 0.0, "unreachable": 0.0, "inconclusive": 0.0}
	}
	answered := func(seq float64) map[string]any {
		return map[string]any{"type": "check", "target": open, "address": open, "method": method, "seq": seq,
			"time": nil, "result": "answered", "rtt_ms": nil}
	}
	refused := func(seq float64) map[string]any {
		return map[string]any{"type": "check", "target": closed, "address": closed, "method": method, "seq": seq,
			"time": nil, "result": "refused", "rtt_ms": nil, "error": nil}
	}
	want := []map[string]any{answered(1), refused(1), answered(2), refused(2),
		{"type": "summary", "target": open, "address": open, "method": method, "sent": 2.0, "answered": 2.0,
			"loss_percent": 0.0, "time_ms": nil, "results": results(2, 0),
			"rtt_min_ms": nil, "rtt_avg_ms": nil, "rtt_max_ms": nil, "rtt_mdev_ms": nil},
		{"type": "summary", "target": closed, "address": closed, "method": method, "sent": 2.0, "answered": 0.0,
			"loss_percent": 100.0, "time_ms": nil, "results": results(0, 2)},
	}
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), &stdout)
	}
	for i, line := range lines {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for key, value := range got {
			switch {
			case key == "time":
				at, err := time.Parse(time.RFC3339Nano, value.(string))
				if err != nil || at.Before(before.Truncate(0)) || at.After(time.Now()) || at.Location() != time.UTC {
					t.Errorf("line %d: time %v, %v", i, value, err)
				}
			case key == "rtt_mdev_ms":
				if ms := value.(float64); ms < 0 || ms > 60_000 {
					t.Errorf("line %d: %s is %v", i, key, value)
				}
			case key == "error":
				if !strings.Contains(value.(string), "refused") {
					t.Errorf("line %d: error %q", i, value)
				}
			case strings.HasSuffix(key, "_ms"):
				if ms := value.(float64); ms <= 0 || ms > 60_000 {
					t.Errorf("line %d: %s is %v", i, key, value)
				}
			default:
				continue
			}
			got[key] = nil
		}
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("line %d:\n%v, want\n%v", i, got, want[i])
		}
	}
}

// watched calls a function when something is first written to it.
type watched struct {
	bytes.Buffer
	once  sync.Once
	first func()
}

func (w *watched) Write(b []byte) (int, error) {
	defer w.once.Do(w.first)
	return w.Buffer.Write(b)
}

func TestCancel(t *testing.T) {
	tests := []struct {
		name, addr string
		status     int
	}{
		{"answered", listen(t, "127.0.0.1:0"), exitAnswered},
		{"refused", refusing(t), exitUnanswered},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stdout, stderr := watched{first: cancel}, bytes.Buffer{}
			if status := run(ctx, []string{"-n", "0", "-i", "1h", "-t", "1m", test.addr}, &stdout, &stderr); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			if !strings.Contains(stdout.String(), "\n1 sent, ") || stderr.Len() > 0 {
				t.Errorf("wrote %s, and as error %s", &stdout, &stderr)
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows a process cannot send Ctrl-C to another one alone")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	open := listen(t, "127.0.0.1:0")
	command := exec.CommandContext(t.Context(), self, "-n", "0", "-i", "10ms", "-t", "1m", open)
	command.Env = append(os.Environ(), asCommand+"=1")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	checks := 0
	var rest []string
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), open+" answered in ") {
			if checks++; checks == 3 {
				if err := command.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		rest = append(rest, timeless(lines.Text()))
	}
	if err := command.Wait(); err != nil {
		t.Error("exit status: ", err)
	}
	n := strconv.Itoa(checks)
	want := []string{"", "--- " + open + " ---", n + " sent, " + n + " answered, 0% loss, time T ms",
		"rtt min/avg/max/mdev = T/T/T/T ms",
		"results: " + n + " answered, 0 refused, 0 timeout, 0 unreachable, 0 inconclusive"}
	if checks < 3 || !slices.Equal(rest, want) {
		t.Errorf("after %d checks:\n%q, want\n%q", checks, rest, want)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputFails(t *testing.T) {
	for _, format := range []string{"-json", "-json=false"} {
		var stderr bytes.Buffer
		status := run(t.Context(), []string{format, "-n", "0", "-i", "1ms", listen(t, "127.0.0.1:0")}, fullDisk{}, &stderr)
		want := "synping: cannot write results: no space left on device\n"
		if status != exitFailed || stderr.String() != want {
			t.Errorf("%s: status %d, error output %q, want %q", format, status, &stderr, want)
		}
	}
}
