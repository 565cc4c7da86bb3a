package test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
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

func (s *server) load(qname string, want int) *load {
	l := &load{ending: make(chan struct{}), ended: make(chan struct{})}
	addr := s.addr
	go func() {
		defer close(l.ended)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		client := dns.Client{Timeout: patience}
		for {
			q := new(dns.Msg)
			q.SetQuestion(qname, dns.TypeA)
			m, _, err := client.Exchange(q, addr)
			switch {
			case err != nil:
				l.wrong = append(l.wrong, err.Error())
			case m.Rcode != dns.RcodeSuccess || len(addresses(m)) != want:
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
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	enough := l.sent.Load() + n
	lab.Until(t, "answers", func() bool { return l.sent.Load() >= enough })
}

func (l *load) stop() {
	close(l.ending)
	<-l.ended
}

// Reloads, good and bad, lose no query and no verdict, and leave nothing behind.
func TestReload(t *testing.T) {
	f := newFarm(t, "127.0.4.1", "127.0.4.2", "127.0.4.3", "127.0.4.4")
	f.kill(f.addrs[3])
	zone, inTheWay, page := f.zoneFile(), taken(t), local(t)
	corefile := func(port int, more string) string {
		return fmt.Sprintf(`example.org:%d {
			bind 127.0.0.1
			shaker {
				port %d
				allow 127.0.0.0/8
				hold 3s
				interval 24h 20ms
				status %s
				%s
			}
			# file leaks the goroutine of its own reload when a new instance is dropped.
			file %s {
				reload 0
			}
		}`, port, f.port, page, more, zone)
	}
	log := lab.CaptureLog(t)
	s := start(t, corefile(0, ""))
	s.until("www.example.org.", dns.TypeA, f.without(f.addrs[3]))
	before, verdicts := countResources(t), statusOf(t, page, "").Targets
	probers, checks := labels(t)["prober"], counted(t, "coredns_shaker_checks_total", nil)

	queries := s.load("www.example.org.", 3)
	for range reloads(t, 20) {
		if err := s.reload(corefile(0, "")); err != nil {
			t.Fatal(err)
		}
		queries.more(t, 10)
	}
	broken := map[string]string{
		"broken":                     corefile(0, "port zero"),
		"a port that is taken":       corefile(inTheWay.Port, ""),
		"a limit that must not stay": corefile(inTheWay.Port, "limit targets 1\nmethod dial\nmetrics targets"),
	}
	for what, bad := range broken {
		for range reloads(t, 60) / 10 {
			if err := s.reload(bad); err == nil {
				t.Fatalf("the reload to %s works", what)
			}
			queries.more(t, 10)
		}
	}
	queries.stop()
	t.Logf("%d queries, %d of them wrong", queries.sent.Load(), len(queries.wrong))
	if len(queries.wrong) > 0 {
		t.Errorf("%d of %d queries went wrong, the first: %s", len(queries.wrong), queries.sent.Load(), queries.wrong[0])
	}
	// With an interval of a day, only who does not know a target checks it.
	if n := counted(t, "coredns_shaker_checks_total", nil) - checks; n != 0 {
		t.Errorf("%v checks of targets that were known", n)
	}
	if now := statusOf(t, page, "").Targets; !slices.EqualFunc(verdicts, now, func(a, b statusTarget) bool {
		return a.Address == b.Address && a.State == b.State && a.Since.Equal(b.Since)
	}) {
		t.Errorf("targets were\n%+v\nand are\n%+v", verdicts, now)
	}
	if n := labels(t)["prober"]; n != probers {
		t.Errorf("%d goroutines of a prober, and %d before", n, probers) // method dial has none
	}
	if n := series(t, "coredns_shaker_target_up"); n != 0 {
		t.Errorf("%d targets have metrics of their own", n)
	}
	if n := strings.Count(log.String(), "is down"); n != 1 {
		t.Errorf("one target went down once, but the log says so %d times:\n%s", n, log)
	}
	expectResources(t, before)
}

// After the last instance is gone nothing of ours runs, and queries that are still under way are answered
// from the last verdicts.
func TestAfterShutdown(t *testing.T) {
	f := newFarm(t, "127.0.5.1", "127.0.5.2")
	f.kill(f.addrs[1])
	s := start(t, fmt.Sprintf(`example.org:0 {
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
	expectNothingRuns(t)
	s.until("www.example.org.", dns.TypeA, f.addrs[:1])
}
