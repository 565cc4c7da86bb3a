package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

type event struct {
	Number  uint64
	Kind    string
	Text    string
	State   string
	Address netip.Addr
	Port    uint16
	Names   []string
	Result  string
	Missed  int
}

// eventsOf returns the events that the page at an address tells, the newest first.
func eventsOf(t testing.TB, address, query string) []event {
	t.Helper()
	answer, err := statusClient.Get("http://" + address + "/events.json?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var v struct{ Events []event }
	if err := json.NewDecoder(answer.Body).Decode(&v); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	return v.Events
}

// eventStream is a client that follows, as curl -N does.
type eventStream struct {
	t    *testing.T
	body io.ReadCloser
	all  *bufio.Scanner
	last uint64 // number of the newest event that has come
}

func followEvents(t *testing.T, address string, since uint64) *eventStream {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: patience}}
	answer, err := client.Get(fmt.Sprintf("http://%s/events.ndjson?since=%d", address, since))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return &eventStream{t, answer.Body, bufio.NewScanner(answer.Body), since}
}

// next waits for the next event. None is left out, and none comes twice.
func (s *eventStream) next() event {
	s.t.Helper()
	for s.all.Scan() {
		if len(s.all.Bytes()) == 0 {
			continue
		}
		var e event
		if err := json.Unmarshal(s.all.Bytes(), &e); err != nil {
			s.t.Fatalf("%q: %v", s.all.Bytes(), err)
		}
		if s.last++; e.Number != s.last || e.Missed > 0 {
			s.t.Errorf("%s, want number %d", s.all.Bytes(), s.last)
		}
		return e
	}
	s.t.Fatalf("the stream has ended: %v", s.all.Err())
	return event{}
}

// expect waits for events of these kinds whose texts begin like this, in this order and with no others in between.
func (s *eventStream) expect(what string, want ...string) {
	s.t.Helper()
	for _, want := range want {
		e := s.next()
		if got := e.Kind + ": " + e.Text; !strings.HasPrefix(got, want) {
			s.t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
}

// An incident as somebody sees it who follows: a target dies and comes back, a host is drained, the file of overrides gets a
// mistake, and CoreDNS reloads, well and badly. Each is told once.
func TestEvents(t *testing.T) {
	f := newFarm(t, "127.0.61.1", "127.0.61.2", "127.0.61.3")
	zone, dir, inTheWay := f.zoneFile(), t.TempDir(), taken(t)
	overrides := filepath.Join(dir, "overrides")
	write := func(rules string) { lab.FileIn(t, dir, "overrides", rules) }
	write("# nothing yet\n")
	corefile := func(port int, page, more string) string {
		return fmt.Sprintf(`example.org:%d {
			bind 127.0.0.1
			shaker {
				port %d
				interval 100ms
				allow 127.0.0.0/8
				status %s
				overrides %s
				%s
			}
			# file leaks the goroutine of its own reload when a new instance is dropped.
			file %s {
				reload 0
			}
		}`, port, f.port, page, overrides, more, zone)
	}
	first, second := local(t), local(t)
	s := start(t, corefile(0, first, ""))
	started := eventsOf(t, first, "kind=start&size=1")
	if len(started) != 1 {
		t.Fatal("no event tells of the start")
	}
	if w := eventsOf(t, first, "size=1"); w[0].Kind != "overrides" || w[0].Number != started[0].Number+1 {
		t.Errorf("the newest event is %+v", w[0])
	}
	client := followEvents(t, first, started[0].Number)
	inForce := func(rules int) string {
		return fmt.Sprintf("overrides: Overrides in force from %s: %d", overrides, rules)
	}
	client.expect("the start", inForce(0))
	s.until("www.example.org.", dns.TypeA, f.addrs)
	var seen []netip.Addr
	for range f.addrs {
		e := client.next()
		if e.Kind != "up" || e.State != "up" || e.Port != f.port || e.Result != "answered" {
			t.Errorf("at first: %+v", e)
		}
		seen = append(seen, e.Address)
	}
	slices.SortFunc(seen, netip.Addr.Compare)
	if !slices.Equal(seen, f.addrs) {
		t.Errorf("up are %v", seen)
	}

	target := fmt.Sprintf("127.0.61.2:%d", f.port)
	f.kill(f.addrs[1])
	e := client.next()
	if e.Kind != "down" || e.Text != target+" is down: 3 of 3 checks failed: refused" || e.State != "down" || e.Address != f.addrs[1] ||
		!slices.Equal(e.Names, []string{"www.example.org."}) {
		t.Errorf("it dies: %+v", e)
	}
	f.start(f.addrs[1])
	client.expect("it comes back", fmt.Sprintf("up: %s is up: 2 of 2 checks answered", target))
	write("127.0.61.1 down\n")
	client.expect("a drain", "override: Override: 127.0.61.1 is down, was auto", inForce(1))
	write("127.0.61.1 down\nnonsense\n")
	client.expect("a mistake", "overrides: Overrides stay as they were: "+overrides+": line 2: ")

	failed := "reload: The reload has failed, the configuration before stays in force: "
	if s.reload(corefile(0, first, "")) == nil {
		t.Error("a reload with a mistake in the overrides has worked")
	}
	client.expect("a reload with a mistake in the overrides", failed+"plugin/shaker: ")
	write("127.0.61.1 down\n127.0.61.3 down\n")
	client.expect("mended", "override: Override: 127.0.61.3 is down, was auto", inForce(2))
	if s.reload(corefile(inTheWay.Port, first, "")) == nil {
		t.Error("a reload to a port that is taken has worked")
	}
	client.expect("a reload to a port that is taken", failed+"the log has the reason")
	if s.reload(corefile(0, inTheWay.String(), "")) == nil {
		t.Error("a reload to a page that is taken has worked")
	}
	client.expect("a reload to a page that is taken", failed+"status "+inTheWay.String())
	for range 3 {
		if err := s.reload(corefile(0, first, "")); err != nil {
			t.Fatal(err)
		}
		client.expect("a reload", "reload: Reloaded")
	}
	write("")
	client.expect("after reloads", "override: Override: 127.0.61.1 is auto, was down", "override: Override: 127.0.61.3 is auto, was down", inForce(0))

	// The page moves. Who followed at the old address comes back at the new one and has missed nothing.
	if err := s.reload(corefile(0, second, "")); err != nil {
		t.Fatal(err)
	}
	for client.all.Scan() {
		t.Errorf("the old page still tells %q", client.all.Text())
	}
	client = followEvents(t, second, client.last)
	client.expect("the page has moved", "reload: Reloaded")
	s.callBack()
	for client.all.Scan() {
		t.Errorf("after the end comes %q", client.all.Text())
	}
	expectNothingRuns(t)
}
