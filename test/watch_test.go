package test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// watchQueries is a backend that notes who was asked for, and may be made to wait.
type watchQueries struct {
	backend

	mu    sync.Mutex
	asked map[string]int
	wait  chan struct{}
}

// newWatchQueries returns one that answers with these A records, once wait is closed.
func newWatchQueries(t *testing.T, addrs ...string) *watchQueries {
	b := &watchQueries{asked: make(map[string]int), wait: make(chan struct{})}
	b.backend = func(q dns.Question) (answer []dns.RR) {
		b.mu.Lock()
		b.asked[q.Name]++
		b.mu.Unlock()
		<-b.wait
		if q.Qtype == dns.TypeA {
			for _, addr := range addrs {
				header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}
				answer = append(answer, &dns.A{Hdr: header, A: net.ParseIP(addr)})
			}
		}
		return answer
	}
	return b
}

func (b *watchQueries) count(qname string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[qname]
}

// isReady asks the ready plugin.
func isReady(t *testing.T, addr string) (ready bool, body string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
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

func untilReady(t *testing.T, addr string) {
	t.Helper()
	lab.Until(t, "ready", func() bool { ok, _ := isReady(t, addr); return ok })
}

// Of a name that is watched, the first answer ever lacks the address that is dead, and is not held. CoreDNS was
// not ready before that.
func TestWatch(t *testing.T) {
	f := newFarm(t, "127.0.6.1", "127.0.6.2", "127.0.6.3")
	f.kill(f.addrs[1])
	upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", f.zoneFile()))
	backends := map[string]string{
		"file":              "file " + f.zoneFile(),
		"hosts":             f.hostsBlock(),
		"forward":           "forward . " + upstream.addr,
		"forward and cache": "cache 300\nforward . " + upstream.addr,
	}
	for backend, directives := range backends {
		t.Run(backend, func(t *testing.T) {
			ready := local(t)
			answers, held := counted(t, "coredns_shaker_answers_total", nil), counted(t, "coredns_shaker_held_answers_total", nil)
			begin := time.Now()
			s := start(t, fmt.Sprintf(`example.org:0 {
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
			untilReady(t, ready)
			after := time.Since(begin)
			if n := counted(t, "coredns_shaker_answers_total", nil) - answers; n != 0 {
				t.Errorf("%v answers counted before the first query", n)
			}
			asked := time.Now()
			m := s.ask("www.example.org.", dns.TypeA)
			t.Logf("serving after %v, ready after %v, first answer within %v", up.Round(time.Microsecond),
				after.Round(time.Microsecond), time.Since(asked).Round(time.Microsecond))
			if got, want := addresses(m), f.without(f.addrs[1]); !slices.Equal(got, want) {
				t.Errorf("first answer %v, want %v", got, want)
			}
			if n := counted(t, "coredns_shaker_held_answers_total", nil) - held; n != 0 {
				t.Errorf("%v answers held", n)
			}
			if n := counted(t, "coredns_shaker_answers_total", nil) - answers; n != 1 {
				t.Errorf("%v answers counted after the first query", n)
			}
		})
	}
}

// Of a TCP service, the SRV records are looked up, with their addresses and ports.
func TestWatchService(t *testing.T) {
	f := newFarm(t, "127.0.7.1", "127.0.7.2")
	f.kill(f.addrs[1])
	zone := lab.File(t, "db.example.org", fmt.Sprintf(`$ORIGIN example.org.
@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300
@ 300 IN NS ns
ns 300 IN A 192.0.2.53
_ldap._tcp 300 IN SRV 0 0 %[1]d one
_ldap._tcp 300 IN SRV 0 0 %[1]d two
one 300 IN A 127.0.7.1
two 300 IN A 127.0.7.2
`, f.port))
	ready := local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		ready %s
		shaker {
			allow 127.0.0.0/8
			interval 24h
			watch _LDAP._tcp.example.org
		}
		file %s
	}`, ready, zone))
	untilReady(t, ready)
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
func TestWatchNotReady(t *testing.T) { lab.Apart(t, testWatchNotReady) }

func testWatchNotReady(t *testing.T) {
	b := newWatchQueries(t, "127.0.6.8", "127.0.6.9")
	ready := local(t)
	start(t, fmt.Sprintf(`a.test:0 {
		bind 127.0.0.1
		shaker {
			watch www.a.test
		}
		%[1]s
	}
	b.test:0 {
		bind 127.0.0.1
		shaker
		%[1]s
		ready %[2]s
	}`, b.directive(t), ready))
	lab.Until(t, "the look-up", func() bool { return b.count("www.a.test.") > 0 })
	if ok, body := isReady(t, ready); ok || body != "shaker" {
		t.Errorf("ready before the look-up is over: %v, %q", ok, body)
	}
	close(b.wait)
	untilReady(t, ready)
}

// A CNAME out of the zone is followed into other server blocks, and there into the view that this machine gets.
func TestWatchCNAME(t *testing.T) {
	f, page := newFarm(t, "127.0.6.11", "127.0.6.12"), local(t)
	f.kill(f.addrs[0])
	zone := lab.File(t, "db.example.org", "$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n"+
		"@ 300 IN NS ns\nns 300 IN A 192.0.2.53\nwww 300 IN CNAME www.cdn.test.\n")
	start(t, fmt.Sprintf(`cdn.test:0 {
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
			status %s
		}
		file %s
	}`, f.port, page, zone))
	want := map[string]string{
		fmt.Sprintf("127.0.6.11:%d", f.port): "down",
		fmt.Sprintf("127.0.6.12:%d", f.port): "up",
	}
	lab.UntilNil(t, func() error {
		if got := statusOf(t, page, "").states(); !maps.Equal(got, want) {
			return fmt.Errorf("targets %v, want %v", got, want)
		}
		return nil
	})
}

// A reload that works looks up what is watched now; what is not watched any longer is left alone. One that fails
// changes nothing. In the end nothing is left.
func TestWatchReload(t *testing.T) {
	b := newWatchQueries(t, "127.0.6.8", "127.0.6.9")
	close(b.wait)
	inTheWay, directive := taken(t), b.directive(t)
	corefile := func(port int, properties string) string {
		return fmt.Sprintf("test:%d {\nbind 127.0.0.1\nshaker {\n%s\n}\n%s\n}\n", port, properties, directive)
	}
	s := start(t, corefile(0, ""))
	reload := func(properties string) {
		t.Helper()
		if err := s.reload(corefile(0, properties)); err != nil {
			t.Fatal(err)
		}
	}
	untilWatching := func(names int) {
		t.Helper()
		lab.UntilNil(t, func() error {
			if got := labels(t)["watch"]; got != names {
				return fmt.Errorf("%d names are looked up, want %d", got, names)
			}
			return nil
		})
	}
	reload("watch a.test b.test")
	untilWatching(2)
	lab.Until(t, "both names", func() bool { return b.count("a.test.") > 0 && b.count("b.test.") > 0 })

	for _, bad := range []string{corefile(0, "watch a.example"), corefile(inTheWay.Port, "watch c.test")} {
		if s.reload(bad) == nil {
			t.Fatal("the reload works")
		}
	}
	if n := b.count("c.test."); n != 0 {
		t.Errorf("%d queries for a name of an instance that never was", n)
	}
	if n := labels(t)["watch"]; n != 2 {
		t.Errorf("the failed reloads have started or ended look-ups: there are %d", n)
	}
	asked := b.count("a.test.")
	lab.Until(t, "another look-up of the instance that goes on", func() bool { return b.count("a.test.") > asked })

	before := b.count("b.test.")
	reload("watch b.test")
	untilWatching(1)
	last := b.count("a.test.")
	lab.Until(t, "two more look-ups of the name that is left", func() bool { return b.count("b.test.") >= before+4 }) // A and AAAA
	if n := b.count("a.test."); n != last {
		t.Errorf("%d look-ups of a name that is not watched any longer", n-last)
	}
	reload("")
	untilWatching(0)
}
