package shaker

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
)

// watchQueries is a backend that notes who was asked for, and may be made to wait.
type watchQueries struct {
	mu    sync.Mutex
	asked map[string]int
	wait  chan struct{}
}

// watchQueriesUse makes the directive of the backend answer with these A records, until the end of the test.
func watchQueriesUse(t *testing.T, addrs ...string) *watchQueries {
	b := &watchQueries{asked: make(map[string]int), wait: make(chan struct{})}
	backendAnswers = func(q dns.Question) (answer []dns.RR) {
		b.mu.Lock()
		b.asked[q.Name]++
		b.mu.Unlock()
		<-b.wait
		if q.Qtype == dns.TypeA {
			for _, addr := range addrs {
				answer = append(answer, filterRecords(t, q.Name+" 1 IN A "+addr)...)
			}
		}
		return answer
	}
	t.Cleanup(func() { backendAnswers = nil })
	return b
}

func (b *watchQueries) count(qname string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[qname]
}

// watchUntil waits for a condition.
func watchUntil(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// watchServe starts a CoreDNS and waits until it serves: one that does not yet cannot be stopped.
func watchServe(t *testing.T, corefile string) *server {
	t.Helper()
	s := serverStart(t, corefile)
	watchExpectServers(t, s.inst)
	return s
}

func watchExpectServers(t *testing.T, inst *caddy.Instance) {
	t.Helper()
	for _, listener := range inst.Servers() {
		readmeExpectServer(t, "tcp", listener.Addr())
		readmeExpectServer(t, "udp", listener.LocalAddr())
	}
}

// watchIsReady asks the ready plugin.
func watchIsReady(t *testing.T, addr string) (ready bool, body string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr + "/ready")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode == http.StatusOK, string(text)
}

// Of a name that is watched, the first answer ever lacks the address that is dead, and is not held. CoreDNS was
// not ready before that.
func TestServerWatch(t *testing.T) {
	f := newFarm(t, "127.0.6.1", "127.0.6.2", "127.0.6.3")
	f.kill(f.addrs[1])
	upstream := serverStart(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", f.zoneFile()))
	backends := map[string]string{
		"file":              "file " + f.zoneFile(),
		"hosts":             f.hostsBlock(),
		"forward":           "forward . " + upstream.addr,
		"forward and cache": "cache 300\nforward . " + upstream.addr,
	}
	for backend, directives := range backends {
		t.Run(backend, func(t *testing.T) {
			ready := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			answers, held := counted(t, "coredns_shaker_answers_total", nil), counted(t, "coredns_shaker_held_answers_total", nil)
			begin := time.Now()
			s := serverStart(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				ready %s
				shaker {
					port %d
					allow 127.0.0.0/8
					hold 3s
					interval 24h
					watch www.example.org
				}
				%s
			}`, ready, f.port, directives))
			up := time.Since(begin)
			watchUntil(t, "ready", func() bool { ok, _ := watchIsReady(t, ready); return ok })
			after := time.Since(begin)
			if n := counted(t, "coredns_shaker_answers_total", nil) - answers; n != 0 {
				t.Errorf("%v answers counted before the first query", n)
			}
			asked := time.Now()
			m := s.ask("www.example.org.", dns.TypeA)
			t.Logf("serving after %v, ready after %v, first answer within %v", up.Round(time.Microsecond),
				after.Round(time.Microsecond), time.Since(asked).Round(time.Microsecond))
			if got, want := serverAddresses(m), f.without(f.addrs[1]); !slices.Equal(got, want) {
				t.Errorf("first answer %v, want %v", got, want)
			}
			if n := counted(t, "coredns_shaker_held_answers_total", nil) - held; n != 0 {
				t.Errorf("%v answers held", n)
			}
			if n := counted(t, "coredns_shaker_answers_total", nil) - answers; n != 1 {
				t.Errorf("%v answers counted after the first query", n)
			}
			watchExpectServers(t, s.inst)
		})
	}
}

// Of a TCP service, the SRV records are looked up, with their addresses and ports.
func TestServerWatchService(t *testing.T) {
	f := newFarm(t, "127.0.7.1", "127.0.7.2")
	f.kill(f.addrs[1])
	zone := serverFile(t, "db.example.org", fmt.Sprintf(`$ORIGIN example.org.
@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300
@ 300 IN NS ns
ns 300 IN A 192.0.2.53
_ldap._tcp 300 IN SRV 0 0 %[1]d one
_ldap._tcp 300 IN SRV 0 0 %[1]d two
one 300 IN A 127.0.7.1
two 300 IN A 127.0.7.2
`, f.port))
	ready := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s := watchServe(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		ready %s
		shaker {
			allow 127.0.0.0/8
			interval 24h
			watch _LDAP._tcp.example.org
		}
		file %s
	}`, ready, zone))
	watchUntil(t, "ready", func() bool { ok, _ := watchIsReady(t, ready); return ok })
	m := s.ask("_ldap._tcp.example.org.", dns.TypeSRV)
	if len(m.Answer) != 1 || m.Answer[0].(*dns.SRV).Target != "one.example.org." {
		t.Errorf("first answer:\n%v", m)
	}
	for _, rr := range m.Extra {
		if a, ok := rr.(*dns.A); ok && a.A.String() != "127.0.7.1" {
			t.Errorf("additional address %v", a)
		}
	}
}

// The ready plugin waits, for all server blocks, and says for whom.
func TestServerWatchNotReady(t *testing.T) {
	b := watchQueriesUse(t, "127.0.6.8", "127.0.6.9")
	ready := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	watchServe(t, fmt.Sprintf(`a.test:0 {
		bind 127.0.0.1
		shaker {
			watch www.a.test
		}
		testbackend
	}
	b.test:0 {
		bind 127.0.0.1
		shaker
		testbackend
		ready %s
	}`, ready))
	watchUntil(t, "the look-up", func() bool { return b.count("www.a.test.") > 0 })
	if ok, body := watchIsReady(t, ready); ok || body != "shaker" {
		t.Errorf("ready before the look-up is over: %v, %q", ok, body)
	}
	close(b.wait)
	watchUntil(t, "ready", func() bool { ok, _ := watchIsReady(t, ready); return ok })
}

// A CNAME out of the zone is followed into other server blocks, and there into the view that this machine gets.
func TestServerWatchCNAME(t *testing.T) {
	f := newFarm(t, "127.0.6.11", "127.0.6.12")
	f.kill(f.addrs[0])
	zone := serverFile(t, "db.example.org", "$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n"+
		"@ 300 IN NS ns\nns 300 IN A 192.0.2.53\nwww 300 IN CNAME www.cdn.test.\n")
	watchServe(t, fmt.Sprintf(`cdn.test:0 {
		bind 127.0.0.1
		view elsewhere {
			expr client_ip() == '192.0.2.1'
		}
		hosts {
			127.0.6.13 www.cdn.test
			127.0.6.14 www.cdn.test
		}
	}
	a.test:0 cdn.test:0 {
		bind 127.0.0.1
		hosts {
			127.0.6.11 www.cdn.test
			127.0.6.12 www.cdn.test
		}
	}
	example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			allow 127.0.0.0/8
			watch www.example.org
		}
		file %s
	}`, f.port, zone))
	want := map[string]health.State{
		fmt.Sprintf("127.0.6.11:%d", f.port): health.Down,
		fmt.Sprintf("127.0.6.12:%d", f.port): health.Up,
	}
	watchUntil(t, "the verdicts", func() bool {
		got := states()
		for target, state := range want {
			if got[target] != state {
				return false
			}
		}
		return len(got) == len(want)
	})
}

// A reload that works looks up what is watched now; what is not watched any longer is left alone. One that fails
// changes nothing. In the end nothing is left.
func TestServerWatchReload(t *testing.T) {
	b := watchQueriesUse(t, "127.0.6.8", "127.0.6.9")
	close(b.wait)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := freePort(t)
	corefile := func(port int, properties string) string {
		return fmt.Sprintf("test:%d {\nbind 127.0.0.1\nshaker {\n%s\n}\ntestbackend\n}\n", port, properties)
	}
	s := watchServe(t, corefile(free, ""))
	running := func(n int) func() bool {
		return func() bool {
			stacks := make([]byte, 1<<20)
			return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "shaker.(*watch).run(") == n
		}
	}
	reload := func(corefile string) {
		t.Helper()
		inst, err := s.inst.Restart(serverInput(corefile))
		if err != nil {
			t.Fatal(err)
		}
		s.inst = inst
		watchExpectServers(t, inst)
	}
	known := func(n int) bool {
		resolved := 0
		for _, w := range shared.leases[len(shared.leases)-1].handlers[0].watches {
			w.mu.Lock()
			if w.known {
				resolved++
			}
			w.mu.Unlock()
		}
		return resolved == n
	}
	reload(corefile(free, "watch a.test b.test"))
	watchUntil(t, "both names", func() bool { return known(2) })
	inst, both := shared.leases[0], b.count("a.test.")

	for _, bad := range []string{corefile(free, "watch a.example"), corefile(taken.Addr().(*net.TCPAddr).Port, "watch c.test")} {
		if _, err := s.inst.Restart(serverInput(bad)); err == nil {
			t.Fatal("the reload works")
		}
	}
	if len(shared.leases) != 1 || shared.leases[0] != inst || b.count("c.test.") != 0 {
		t.Errorf("%d leases, asked for %v", len(shared.leases), b.asked)
	}
	if !running(2)() {
		t.Error("the failed reloads have started or ended look-ups")
	}
	watchUntil(t, "another look-up of the instance that goes on", func() bool { return b.count("a.test.") > both })

	reload(corefile(free, "watch b.test"))
	watchUntil(t, "the name that is left", func() bool { return known(1) })
	watchUntil(t, "the end of the other name's goroutine", running(1))
	last, begin := b.count("a.test."), b.count("b.test.")
	watchUntil(t, "more look-ups of the name that is left", func() bool { return b.count("b.test.") > begin })
	if n := b.count("a.test."); n != last {
		t.Errorf("%d look-ups of a name that is not watched any longer", n-last)
	}
	reload(corefile(free, ""))
	watchUntil(t, "the end of all look-ups", running(0))
}
