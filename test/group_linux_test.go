package test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// replica is one of several CoreDNS that answer for the same zone and decide together.
type replica struct {
	*farm
	zone string // path of the zone file
	key  string // that of the key file
	join string // places of all replicas

	peers, page, metrics, ready string
	port                        int
	dir                         string // where it runs
	// plugins has the metrics and ready served.
	plugins string
}

// newReplicas returns replicas that know of one another, before their start.
func newReplicas(t testing.TB, f *farm, n int) (all []*replica) {
	t.Helper()
	key, zone := lab.File(t, "key", "Xq2v0LJY8Wc9QeTz4nBf\n"), f.zoneFile()
	var places []string
	for range n {
		r := &replica{farm: f, zone: zone, key: key, peers: local(t), page: local(t), metrics: local(t), ready: local(t), port: port(t)}
		r.plugins = fmt.Sprintf("ready %s\nprometheus %s", r.ready, r.metrics)
		places = append(places, r.peers)
		all = append(all, r)
	}
	for _, r := range all {
		r.join = strings.Join(places, " ")
	}
	return all
}

// corefile returns that of the replica, with more properties in it.
func (r *replica) corefile(properties string) string {
	return fmt.Sprintf(`example.org:%d {
		bind 127.0.0.1
		%s
		shaker {
			port %d
			allow 127.0.0.0/8
			interval 200ms 50ms
			hold 3s
			status %s
			peers %s %s
			peers key %s
			%s
		}
		# Its own reload leaks a goroutine where a new instance is dropped.
		file %s {
			reload 0
		}
	}`, r.port, r.plugins, r.farm.port, r.page, r.peers, r.join, r.key, properties, r.zone)
}

// start starts the replica in a process of its own.
func (r *replica) start(t testing.TB, properties string) *process {
	t.Helper()
	return startProcessIn(t, r.dir, "", fmt.Sprintf("127.0.0.1:%d", r.port), r.corefile(properties))
}

// startPair starts two replicas, of which one checks each target, and returns when they know each other and have all targets in
// their answers.
func startPair(t *testing.T, f *farm) (replicas []*replica, processes []*process) {
	t.Helper()
	replicas = newReplicas(t, f, 2)
	for _, r := range replicas {
		processes = append(processes, r.start(t, "peers observers 1"))
	}
	for i, r := range replicas {
		r.until(t, `coredns_shaker_peers{state="alive"}`, 1)
		untilReady(t, r.ready)
		processes[i].until("www.example.org.", dns.TypeA, f.addrs)
	}
	return replicas, processes
}

// number returns the value of a series, as a scrape has it. It is -1 where there is none, or nobody who could be asked.
func (r *replica) number(series string) float64 {
	answer, err := statusClient.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		return -1
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(text)
	if err != nil || answer.StatusCode != http.StatusOK || match == nil {
		return -1
	}
	n, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		return -1
	}
	return n
}

// until waits for a series to have a value.
func (r *replica) until(t testing.TB, series string, want float64) {
	t.Helper()
	lab.UntilNil(t, func() error {
		if got := r.number(series); got != want {
			return fmt.Errorf("%s at %s is %v, want %v", series, r.peers, got, want)
		}
		return nil
	})
}

// news returns the events that are about replicas, the oldest first.
func (r *replica) news(t testing.TB) (texts []string) {
	t.Helper()
	for _, e := range eventsOf(t, r.page, "kind=peer") {
		texts = append([]string{e.Text}, texts...)
	}
	return texts
}

// Two replicas share the work, agree on verdicts, and one goes on alone when the other is killed.
func TestGroupOfTwo(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.32.1", "127.0.32.2", "127.0.32.3", "127.0.32.4", "127.0.32.5", "127.0.32.6", "127.0.32.7", "127.0.32.8")
	replicas, processes := startPair(t, f)
	// Each target has one observer, whichever that is.
	lab.UntilNil(t, func() error {
		const observed = "coredns_shaker_peers_observed_targets"
		if a, b := replicas[0].number(observed), replicas[1].number(observed); a+b != 8 || a < 0 || b < 0 {
			return fmt.Errorf("the two check %v and %v of 8 targets", a, b)
		}
		return nil
	})
	f.kill(f.addrs[7])
	f.kill(f.addrs[6])
	for _, p := range processes {
		p.until("www.example.org.", dns.TypeA, f.addrs[:6])
	}

	processes[1].Signal(os.Kill)
	replicas[0].until(t, `coredns_shaker_peers{state="lost"}`, 1)
	replicas[0].until(t, "coredns_shaker_peers_observed_targets", 8)
	f.kill(f.addrs[5])
	f.kill(f.addrs[4])
	processes[0].until("www.example.org.", dns.TypeA, f.addrs[:4])
	t.Log(strings.Join(replicas[0].news(t), "\n"))
}

// A drain on one replica is one on both, outlives the replica where it was written, and is ended by the other for good: what is
// started again has it right with its first answer, whatever its own file says.
func TestGroupSharesOverrides(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.38.1", "127.0.38.2", "127.0.38.3")
	replicas, processes, files := newReplicas(t, f, 2), make([]*process, 2), make([]string, 2)
	for i, r := range replicas {
		r.dir = t.TempDir() // so the file has the same path in both Corefiles
		files[i] = lab.FileIn(t, r.dir, "overrides", "")
	}
	start := func(i int) { processes[i] = replicas[i].start(t, "overrides overrides") }
	again := func(i int) {
		processes[i].Signal(os.Kill)
		start(i)
		untilReady(t, replicas[i].ready)
	}
	start(0)
	start(1)
	for _, r := range replicas {
		untilReady(t, r.ready)
		r.until(t, `coredns_shaker_peers{state="alive"}`, 1)
	}
	drained := f.addrs[:2]
	for _, step := range []struct {
		name string
		do   func()
		want []netip.Addr
	}{
		{"a drain", func() { lab.AppendFile(t, files[0], "127.0.38.3 down # kernel\n") }, drained},
		{"the other one starts again", func() { again(1) }, drained},
		{"the one who said it starts again", func() { again(0) }, drained},
		{"the other one ends it", func() { lab.AppendFile(t, files[1], "127.0.38.3 auto\n") }, f.addrs},
		{"whose file has the drain starts again", func() { again(0) }, f.addrs},
		{"the same drain once more", func() { lab.AppendFile(t, files[0], "127.0.38.3 down # kernel\n") }, drained},
		{"whose file has the end of the first starts again", func() { again(1) }, drained},
		{"its lines are removed", func() { lab.FileIn(t, replicas[0].dir, "overrides", "") }, f.addrs},
	} {
		step.do()
		for i, p := range processes {
			if strings.HasSuffix(step.name, "again") {
				if got := addresses(p.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, step.want) {
					t.Errorf("%s: replica %d answers with %v at first, want %v", step.name, i+1, got, step.want)
				}
			}
			p.until("www.example.org.", dns.TypeA, step.want)
		}
	}
}

// The other replicas do not notice reloads, whether those work or fail, as long as the address stays. One that comes back
// after a goodbye is another.
func TestGroupAndReloads(t *testing.T) { lab.Apart(t, testGroupAndReloads) }

func testGroupAndReloads(t *testing.T) {
	f := newFarm(t, "127.0.33.1", "127.0.33.2", "127.0.33.3")
	f.kill(f.addrs[2])
	replicas := newReplicas(t, f, 2)
	here, other := replicas[0], replicas[1]
	here.plugins = "" // they leave something behind after a reload that fails
	other.start(t, "")
	s := start(t, here.corefile(""))
	other.until(t, `coredns_shaker_peers{state="alive"}`, 1)
	hears := func(n float64) {
		t.Helper()
		lab.UntilNil(t, func() error {
			if got := counted(t, "coredns_shaker_peers", map[string]string{"state": "alive"}); got != n {
				return fmt.Errorf("%v others are alive, want %v", got, n)
			}
			return nil
		})
	}
	hears(1)
	s.until("www.example.org.", dns.TypeA, f.addrs[:2])
	if n := labels(t)["peers"]; n == 0 {
		t.Error("no goroutine has the label of peers")
	}
	before, news := countResources(t), len(other.news(t))
	// Connections between replicas come and go. What reloads leave behind is there more often.
	before.descriptors, before.goroutines = before.descriptors+5, before.goroutines+10

	for i := range reloads(t, 50) {
		if err := s.reload(here.corefile(fmt.Sprintf("peers observers %d", 1+i%3))); err != nil {
			t.Fatal(err)
		}
	}
	inTheWay := taken(t)
	for what, bad := range map[string]string{
		"a mistake":            here.corefile("peers observers 16"),
		"no key":               strings.Replace(here.corefile(""), here.key, here.key+"s", 1),
		"a page that is taken": strings.Replace(here.corefile("peers observers 5"), here.page, inTheWay.String(), 1),
		"a taken address":      strings.Replace(here.corefile(""), "peers "+here.peers, "peers "+inTheWay.String(), 1),
	} {
		err := s.reload(bad)
		if err == nil {
			t.Fatalf("the reload to %s works", what)
		}
		if what == "a taken address" && !strings.Contains(err.Error(), "peers "+inTheWay.String()+": ") {
			t.Errorf("the reload to %s says %v", what, err)
		}
	}
	if now := other.news(t); len(now) != news {
		t.Errorf("the other replica has noticed reloads:\n%s", strings.Join(now[news:], "\n"))
	}
	expectResources(t, before)
	f.start(f.addrs[2])
	s.until("www.example.org.", dns.TypeA, f.addrs)

	// Another address is another replica, and the old one says goodbye.
	moved := *here
	moved.peers = local(t)
	if err := s.reload(moved.corefile("")); err != nil {
		t.Fatal(err)
	}
	hears(1)
	other.until(t, `coredns_shaker_peers{state="alive"}`, 1)
	other.until(t, `coredns_shaker_peers{state="lost"}`, 0)
	f.kill(f.addrs[1])
	f.kill(f.addrs[2])
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
	expectResources(t, before)

	// Nobody else any more.
	if err := s.reload(regexp.MustCompile(`(?m)^\s*peers.*$`).ReplaceAllString(here.corefile(""), "")); err != nil {
		t.Fatal(err)
	}
	other.until(t, `coredns_shaker_peers{state="alive"}`, 0)
	if n := labels(t)["peers"]; n > 0 || series(t, "coredns_shaker_peers") > 0 {
		t.Errorf("%d goroutines and %d series of peers where there are none", n, series(t, "coredns_shaker_peers"))
	}
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
	t.Log(strings.Join(other.news(t), "\n"))
	// It takes two seconds to tell the others.
	lab.Until(t, "the group to be left", func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "hashicorp/memberlist")
	})
}

// Until nobody can be answered any more, a replica is one like the others. Then it says goodbye.
func TestGroupAndLameduck(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.34.1", "127.0.34.2")
	replicas := newReplicas(t, f, 2)
	a, b := replicas[0], replicas[1]
	a.start(t, "")
	leaving := startProcess(t, "", fmt.Sprintf("127.0.0.1:%d", b.port), strings.Replace(b.corefile(""), "ready",
		"health "+local(t)+" {\nlameduck 3s\n}\nready", 1))
	a.until(t, `coredns_shaker_peers{state="alive"}`, 1)
	leaving.until("www.example.org.", dns.TypeA, f.addrs)
	leaving.Signal(syscall.SIGTERM)
	lab.Until(t, "the lameduck", func() bool { return strings.Contains(leaving.Log.String(), "Going into lameduck mode") })
	f.kill(f.addrs[1])
	leaving.until("www.example.org.", dns.TypeA, f.addrs[:1])
	if n := a.number(`coredns_shaker_peers{state="alive"}`); n != 1 {
		t.Errorf("%v replicas are alive during the lameduck", n)
	}
	if err := leaving.Wait(); err != nil {
		t.Error(err)
	}
	a.until(t, `coredns_shaker_peers{state="alive"}`, 0)
	if n := a.number(`coredns_shaker_peers{state="lost"}`); n != 0 {
		t.Errorf("%v are lost that have said goodbye", n)
	}
}
