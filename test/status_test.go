package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/pkg/reuseport"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// statusView is what the status page tells, as far as tests look at it.
type statusView struct {
	Frozen  time.Time `json:"frozen_since"`
	Counts  statusCounts
	Targets []statusTarget
}

type statusCounts struct{ Total, Down, Unknown, Up, Damped int }

type statusTarget struct {
	Address   netip.Addr
	Port      uint16
	Answered  []netip.Addr
	Settings  string
	State     string
	Since     time.Time
	Names     []string
	Overrides []struct{ Rule, Says, File string }
}

var statusClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// statusOf returns what the page at an address tells, of the targets that match a query only. It is nil where nobody
// listens.
func statusOf(t testing.TB, address, query string) *statusView {
	t.Helper()
	answer, err := statusClient.Get("http://" + address + "/targets?" + query)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	v := new(statusView)
	if err := json.NewDecoder(answer.Body).Decode(v); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	return v
}

// countsAt returns how many targets the process has.
func countsAt(t testing.TB, address string) statusCounts {
	t.Helper()
	return statusOf(t, address, "size=1").Counts
}

// states returns the state of each target, up to a thousand.
func (v *statusView) states() map[string]string {
	all := make(map[string]string)
	for _, target := range v.Targets {
		all[netip.AddrPortFrom(target.Address, target.Port).String()] = target.State
	}
	return all
}

// The status page of a whole CoreDNS has its targets with their names, also those of watched names, and the overrides.
func TestStatus(t *testing.T) {
	f := newFarm(t, "127.0.9.1", "127.0.9.2", "127.0.9.3")
	f.kill(f.addrs[2])
	page := local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			allow 127.0.0.0/8
			hold 3s
			overrides %s
			status %s
			watch www.example.org
		}
		file %s
	}`, f.port, lab.File(t, "overrides", "127.0.9.2 down\n"), page, f.zoneFile()))
	s.until("alias.example.org.", dns.TypeA, f.addrs[:1])
	lab.Until(t, "the watched name to be there, too", func() bool {
		return !slices.ContainsFunc(statusOf(t, page, "").Targets, func(target statusTarget) bool { return len(target.Names) != 2 })
	})
	v := statusOf(t, page, "")
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
	if statusOf(t, page, "") != nil {
		t.Error("the status page outlives the last instance")
	}
}

// A reload leaves the page where it is or moves it, and one that fails leaves everything as it was.
func TestStatusReload(t *testing.T) {
	f := newFarm(t, "127.0.10.1", "127.0.10.2")
	zone := f.zoneFile()
	inTheWay, first, second := taken(t), local(t), local(t)
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
	s := start(t, corefile(0, first))
	s.until("www.example.org.", dns.TypeA, f.addrs)
	before := countResources(t)
	inUse := fmt.Sprintf("listen tcp %s: ", inTheWay)
	for _, step := range []struct {
		port   int
		status string
		want   string // the address at which the page is afterwards
		err    string
	}{
		{0, first, first, ""},
		{inTheWay.Port, first, first, inUse},
		{inTheWay.Port, second, first, inUse},
		{0, inTheWay.String(), first, fmt.Sprintf("status %s: %s", inTheWay, inUse)},
		{0, second, second, ""},
		{0, "", "", ""},
		{inTheWay.Port, first, "", inUse},
		{0, first, first, ""},
	} {
		err := s.reload(corefile(step.port, step.status))
		if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%+v: error %v", step, err)
		}
		for _, address := range []string{first, second} {
			v := statusOf(t, address, "")
			if served := v != nil; served != (address == step.want) || served && v.Counts.Total != 2 {
				t.Errorf("%+v: on %s is %+v", step, address, v)
			}
		}
	}
	expectResources(t, before)
}

// An address that is taken is an error at the start, also if whoever has it would share it, as CoreDNS does.
func TestStatusTaken(t *testing.T) {
	inTheWay, err := reuseport.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inTheWay.Close()
	inst, err := caddy.Start(corefile(fmt.Sprintf(".:0 {\nbind 127.0.0.1\nshaker {\nstatus %s\n}\n}\n", inTheWay.Addr())))
	if err == nil {
		inst.Stop()
	}
	if want := fmt.Sprintf("status %s: listen tcp ", inTheWay.Addr()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	expectNothingRuns(t)
}
