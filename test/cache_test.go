package test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// cacheAboveDirective is cache under another name, with a place right above shaker. It is for those who build CoreDNS
// with a wrong order.
const cacheAboveDirective = "testcacheabove"

func init() {
	action, err := caddy.DirectiveAction("dns", "cache")
	if err != nil {
		panic(err)
	}
	plugin.Register(cacheAboveDirective, action)
}

// What comes out of a cache after its time, because the upstream is gone, is filtered with the verdicts of now.
func TestServeStale(t *testing.T) {
	t.Parallel()
	tests := []struct {
		serveStale string
		ttl        uint32 // of a stale answer
	}{
		{"serve_stale 1h", 0},
		{"serve_stale 1h immediate 15s", 15},
		{"serve_stale 1h immediate 30s", 20}, // lowered to the stanza's
		{"serve_stale 1h verify", 0},
		{"serve_stale 1h verify 100ms 15s", 15},
	}
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	upstream := start(t, "example.org:0 {\nbind 127.0.0.1\nfile "+zone+"\n}\n")
	var servers []*server
	for _, tt := range tests {
		s := start(t, f.neighbourCorefile("interval 200ms 50ms\n", fmt.Sprintf(`cache {
			success 1024 1 1
			servfail 0
			%s
		}
		forward . %s {
			max_fails 0
		}`, tt.serveStale, upstream.addr)))
		s.until("www.example.org.", dns.TypeA, f.without(f.addrs[2]))
		servers = append(servers, s)
	}
	upstream.stop()
	stale := func(i int) (m *dns.Msg) {
		lab.UntilNil(t, func() error {
			m = servers[i].ask("www.example.org.", dns.TypeA)
			if len(m.Answer) == 0 {
				t.Fatalf("%s: answer\n%v", tests[i].serveStale, m)
			}
			if ttl := m.Answer[0].Header().Ttl; ttl != tests[i].ttl {
				return fmt.Errorf("%s: TTL %d, want %d", tests[i].serveStale, ttl, tests[i].ttl)
			}
			return nil
		})
		return m
	}
	for i, tt := range tests {
		if got := addresses(stale(i)); !slices.Equal(got, f.without(f.addrs[2])) {
			t.Errorf("%s: stale answer %v", tt.serveStale, got)
		}
	}
	f.start(f.addrs[2])
	f.kill(f.addrs[0])
	for _, s := range servers {
		s.until("www.example.org.", dns.TypeA, f.addrs[1:])
	}
}

// What cache fetches on its own account is filtered when it is asked for, and no client ever sees a dead address.
func TestPrefetch(t *testing.T) {
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", neighbourZone)
	upstream := start(t, "example.org:0 {\nbind 127.0.0.1\nfile "+zone+"\n}\n")
	s := start(t, f.neighbourCorefile("", `prometheus 127.0.0.1:0
		cache {
			success 1024 2 2
			prefetch 1 1m 90%
		}
		forward . `+upstream.addr))
	s.until("www.example.org.", dns.TypeA, f.without(f.addrs[2]))
	before := counted(t, "coredns_cache_prefetch_total", nil)
	lab.Until(t, "something to be prefetched twice", func() bool {
		if got := addresses(s.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, f.without(f.addrs[2])) {
			t.Fatalf("answer %v", got)
		}
		return counted(t, "coredns_cache_prefetch_total", nil) >= before+2
	})
}

// A cache above shaker keeps filtered answers: it goes on to serve an address that has died, for the TTL that shaker has
// bounded.
func TestCacheAbove(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	file := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	below := start(t, f.neighbourCorefile("interval 200ms 50ms", "cache\n"+file))
	above := start(t, f.neighbourCorefile("interval 200ms 50ms", cacheAboveDirective+"\n"+file))
	living := f.without(f.addrs[2])
	for _, s := range []*server{below, above} {
		s.until("www.example.org.", dns.TypeA, living)
	}
	f.kill(f.addrs[0])
	below.until("www.example.org.", dns.TypeA, living[1:])
	m := above.ask("www.example.org.", dns.TypeA)
	if got := addresses(m); !slices.Equal(got, living) {
		t.Errorf("a cache above shaker answers %v, although it has nothing else than\n%v", got, m)
	}
	for _, rr := range m.Answer {
		if ttl := rr.Header().Ttl; ttl > 20 {
			t.Errorf("TTL %d", ttl)
		}
	}
}
