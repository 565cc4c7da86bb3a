package shaker

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// reloads is how often a test reloads; the environment variable SHAKER_RELOADS asks for more.
func reloads(t *testing.T, otherwise int) int {
	value := os.Getenv("SHAKER_RELOADS")
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("SHAKER_RELOADS=%s: %v", value, err)
	}
	return n
}

// load asks a thousand times a second until it is stopped. It repeats no query.
type load struct {
	sent          atomic.Int64
	wrong         []string
	ending, ended chan struct{}
}

func (s *server) load(qname string, addresses int) *load {
	l := &load{ending: make(chan struct{}), ended: make(chan struct{})}
	addr := s.addr
	go func() {
		defer close(l.ended)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		client := dns.Client{Timeout: 2 * time.Second}
		for {
			q := new(dns.Msg)
			q.SetQuestion(qname, dns.TypeA)
			m, _, err := client.Exchange(q, addr)
			switch {
			case err != nil:
				l.wrong = append(l.wrong, err.Error())
			case m.Rcode != dns.RcodeSuccess || len(serverAddresses(m)) != addresses:
				l.wrong = append(l.wrong, m.String())
			}
			l.sent.Add(1)
			select {
			case <-l.ending:
				return
			case <-pace.C:
			}
		}
	}()
	return l
}

// more waits until n more queries have been answered.
func (l *load) more(n int64) {
	for until := l.sent.Load() + n; l.sent.Load() < until; {
		time.Sleep(time.Millisecond)
	}
}

func (l *load) stop() {
	close(l.ending)
	<-l.ended
}

// resources counts what a leak would add to.
type resources struct{ goroutines, descriptors int }

func countResources(t *testing.T) resources {
	t.Helper()
	r := resources{goroutines: runtime.NumGoroutine()}
	if runtime.GOOS == "linux" {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		r.descriptors = len(files)
	}
	return r
}

// expectResources waits for the resources to come down to what they were: servers end in the background.
func expectResources(t *testing.T, before resources) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		now := countResources(t)
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors {
			t.Logf("resources before %+v, after %+v", before, now)
			return
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("resources before %+v, after %+v\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// states returns the states of all targets of the process.
func states() map[string]health.State {
	all := make(map[string]health.State)
	for target := range live.Load().All() {
		all[target.Addr().String()] = target.State()
	}
	return all
}

// Reloads, good and bad, lose no query and no verdict, and leave nothing behind.
func TestServerReload(t *testing.T) {
	f := newFarm(t, "127.0.4.1", "127.0.4.2", "127.0.4.3", "127.0.4.4")
	f.kill(f.addrs[3])
	zone := f.zoneFile()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := freePort(t)
	corefile := func(port int, more string) string {
		return fmt.Sprintf(`example.org:%d {
			bind 127.0.0.1
			shaker {
				port %d
				allow 127.0.0.0/8
				hold 3s
				interval 24h 20ms
				%s
			}
			# file leaks the goroutine of its own reload when a new instance is dropped.
			file %s {
				reload 0
			}
		}`, port, f.port, more, zone)
	}
	log := serverLog(t)
	s := serverStart(t, corefile(free, ""))
	s.until("www.example.org.", dns.TypeA, f.without(f.addrs[3]))
	before, verdicts := countResources(t), states()
	monitor := live.Load()

	queries := s.load("www.example.org.", 3)
	for range reloads(t, 20) {
		inst, err := s.inst.Restart(serverInput(corefile(free, "")))
		if err != nil {
			t.Fatal(err)
		}
		s.inst = inst
		queries.more(10)
	}
	if shared.leases[0].replaces != nil {
		t.Error("the newest instance keeps the one before it in memory")
	}
	takenPort := taken.Addr().(*net.TCPAddr).Port
	broken := map[string]string{
		"broken":                     corefile(free, "port zero"),
		"a port that is taken":       corefile(takenPort, ""),
		"a limit that must not stay": corefile(takenPort, "limit targets 1\nmethod dial\nmetrics targets"),
	}
	for what, bad := range broken {
		for range reloads(t, 60) / 10 {
			if _, err := s.inst.Restart(serverInput(bad)); err == nil {
				t.Fatalf("the reload to %s works", what)
			}
			queries.more(10)
		}
	}
	if method, n := shared.method.String(), len(shared.leases); n != 1 || method == "dial" || targetMetrics.Load() {
		t.Errorf("after the failed reloads: %d leases, method %s, metrics of targets %v", n, method, targetMetrics.Load())
	}
	queries.stop()
	t.Logf("%d queries, %d of them wrong", queries.sent.Load(), len(queries.wrong))
	if len(queries.wrong) > 0 {
		t.Errorf("%d of %d queries went wrong, the first: %s", len(queries.wrong), queries.sent.Load(), queries.wrong[0])
	}
	if live.Load() != monitor {
		t.Error("a new monitor has taken over")
	}
	for target, state := range states() {
		if verdicts[target] != state {
			t.Errorf("%s was %v and is %v", target, verdicts[target], state)
		}
	}
	if n := strings.Count(log.String(), "is down"); n != 1 {
		t.Errorf("one target went down once, but the log says so %d times:\n%s", n, log)
	}
	expectResources(t, before)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// After the last instance is gone nothing of ours runs, and queries that are still under way are answered
// from the last verdicts.
func TestServerAfterShutdown(t *testing.T) {
	f := newFarm(t, "127.0.5.1", "127.0.5.2")
	f.kill(f.addrs[1])
	s := serverStart(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			allow 127.0.0.0/8
			hold 3s
		}
		%s
	}`, f.port, f.hostsBlock()))
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
	s.callBack()
	if live.Load() != nil {
		t.Error("the monitor is still there")
	}
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
}
