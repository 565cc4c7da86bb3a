package shaker

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/pkg/reuseport"

	"github.com/miekg/dns"
)

// statusServed returns the URL of the only status page of the process.
func statusServed(t *testing.T) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if len(shared.status) != 1 {
		t.Fatalf("%d status pages", len(shared.status))
	}
	for _, server := range shared.status {
		return "http://" + server.listener.Addr().String()
	}
	return ""
}

var statusClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// statusFrom returns what a status page tells, and nil where none listens.
func statusFrom(t *testing.T, url string) *statusView {
	t.Helper()
	answer, err := statusClient.Get(url + "/targets")
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	v := new(statusView)
	if err := json.NewDecoder(answer.Body).Decode(v); err != nil {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	return v
}

// The status page of a whole CoreDNS has its targets with their names, also those of watched names, and the overrides.
func TestServerStatus(t *testing.T) {
	f := newFarm(t, "127.0.9.1", "127.0.9.2", "127.0.9.3")
	f.kill(f.addrs[2])
	s := serverStart(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			allow 127.0.0.0/8
			hold 3s
			overrides %s
			status 127.0.0.1:0
			watch www.example.org
		}
		file %s
	}`, f.port, serverFile(t, "overrides", "127.0.9.2 down\n"), f.zoneFile()))
	url := statusServed(t)
	s.until("alias.example.org.", dns.TypeA, f.addrs[:1])
	watchUntil(t, "the watched name to be there, too", func() bool {
		return !slices.ContainsFunc(statusFrom(t, url).Targets, func(target statusTarget) bool { return len(target.Names) != 2 })
	})
	v := statusFrom(t, url)
	if v.Counts != (statusCounts{Total: 3, Down: 1, Up: 2}) || len(v.Targets) != 3 {
		t.Fatalf("got %+v", v)
	}
	for i, state := range []string{"up", "up", "down"} {
		target := v.Targets[i]
		slices.Sort(target.Names)
		if target.Address != f.addrs[i] || target.Port != f.port || target.State != state ||
			!slices.Equal(target.Names, []string{"alias.example.org.", "www.example.org."}) || (len(target.Overrides) == 1) != (i == 1) {
			t.Errorf("got %+v", target)
		}
	}
	s.callBack()
	if statusFrom(t, url) != nil {
		t.Error("the status page outlives the last instance")
	}
}

// A reload leaves the page where it is or moves it, and one that fails leaves everything as it was.
func TestServerStatusReload(t *testing.T) {
	f := newFarm(t, "127.0.10.1", "127.0.10.2")
	zone := f.zoneFile()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port, takenPort := freePort(t), taken.Addr().(*net.TCPAddr).Port
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	first, second := address(), address()
	corefile := func(port int, status string) string {
		if status != "" {
			status = "status " + status
		}
		return fmt.Sprintf(`example.org:%d {
			bind 127.0.0.1
			shaker {
				port %d
				allow 127.0.0.0/8
				hold 3s
				%s
			}
			# file leaks the goroutine of its own reload when a new instance is dropped.
			file %s {
				reload 0
			}
		}`, port, f.port, status, zone)
	}
	s := serverStart(t, corefile(port, first))
	s.until("www.example.org.", dns.TypeA, f.addrs)
	before := countResources(t)
	inUse := fmt.Sprintf("listen tcp %s: ", taken.Addr())
	for _, step := range []struct {
		port   int
		status string
		want   string // the address at which the page is afterwards
		err    string
	}{
		{port, first, first, ""},
		{takenPort, first, first, inUse},
		{takenPort, second, first, inUse},
		{port, taken.Addr().String(), first, fmt.Sprintf("status %s: %s", taken.Addr(), inUse)},
		{port, second, second, ""},
		{port, "", "", ""},
		{takenPort, first, "", inUse},
		{port, first, first, ""},
	} {
		inst, err := s.inst.Restart(serverInput(corefile(step.port, step.status)))
		if err == nil {
			s.inst = inst
		}
		if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%+v: error %v", step, err)
		}
		for _, address := range []string{first, second} {
			v := statusFrom(t, "http://"+address)
			if served := v != nil; served != (address == step.want) || served && v.Counts.Total != 2 {
				t.Errorf("%+v: on %s is %+v", step, address, v)
			}
		}
	}
	expectResources(t, before)
}

// An address that is taken is an error at the start, also if whoever has it would share it, as CoreDNS does.
func TestServerStatusTaken(t *testing.T) {
	serverSetUp()
	taken, err := reuseport.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inst, err := caddy.Start(serverInput(fmt.Sprintf(".:0 {\nbind 127.0.0.1\nshaker {\nstatus %s\n}\n}\n", taken.Addr())))
	if err == nil {
		inst.Stop()
	}
	if want := fmt.Sprintf("status %s: listen tcp ", taken.Addr()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if live.Load() != nil || len(shared.status) > 0 {
		t.Error("something is still there")
	}
}
