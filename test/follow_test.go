package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The answers follow the backends, whichever plugin below makes them, and with or without a cache between.
func TestFollowsBackends(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4")
	zone := f.zoneFile()
	upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", zone))
	backends := map[string]string{
		"file":    "file " + zone,
		"hosts":   f.hostsBlock(),
		"forward": "forward . " + upstream.addr,
	}
	for backend, directive := range backends {
		for _, cache := range []string{"", "cache 300"} {
			t.Run(strings.TrimSpace(backend+" "+cache), func(t *testing.T) {
				s := start(t, fmt.Sprintf(`example.org:0 {
					bind 127.0.0.1
					shaker {
						port %d
						allow 127.0.0.0/8
						interval 200ms 50ms
						timeout 200ms
						damping off # one address dies in each case
					}
					%s
					%s
				}`, f.port, cache, directive))
				s.until("www.example.org.", dns.TypeA, f.addrs)
				victim := f.addrs[2]
				f.kill(victim)
				left := s.until("www.example.org.", dns.TypeA, f.without(victim))
				f.start(victim)
				back := s.until("www.example.org.", dns.TypeA, f.addrs)
				t.Logf("left after %v, back after %v", left.Round(time.Millisecond), back.Round(time.Millisecond))
				for _, rr := range s.ask("www.example.org.", dns.TypeA).Answer {
					if ttl := rr.Header().Ttl; ttl > 30 {
						t.Errorf("TTL %d of a watched address", ttl)
					}
				}
			})
		}
	}
}

// The first answer ever already lacks an address that refuses.
func TestFirstAnswer(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.2.1", "127.0.2.2")
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
	begin := time.Now()
	m := s.ask("www.example.org.", dns.TypeA)
	t.Logf("first answer after %v", time.Since(begin).Round(time.Microsecond))
	if got := addresses(m); !slices.Equal(got, f.addrs[:1]) {
		t.Errorf("first answer %v, want %v", got, f.addrs[:1])
	}
}

// When every address is down the answer is what `fallback` says, and the client learns why.
func TestFallback(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.3.1", "127.0.3.2", "127.0.3.3", "127.0.3.4")
	for _, addr := range f.addrs {
		f.kill(addr)
	}
	tests := []struct {
		fallback string
		rcode    int
		want     []netip.Addr
	}{
		{"all", dns.RcodeSuccess, f.addrs},
		{"nodata", dns.RcodeSuccess, nil},
		{"servfail", dns.RcodeServerFailure, nil},
		{"192.0.2.80 192.0.2.81 2001:db8::80", dns.RcodeSuccess,
			[]netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("192.0.2.81")}},
	}
	for _, tt := range tests {
		t.Run(tt.fallback, func(t *testing.T) {
			s := start(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %d
					allow 127.0.0.0/8
					hold 3s
					ttl 20s
					fallback %s
				}
				file %s
			}`, f.port, tt.fallback, f.zoneFile()))
			for _, qname := range []string{"www.example.org.", "alias.example.org."} {
				m := s.ask(qname, dns.TypeA, withEDNS)
				if got := addresses(m); m.Rcode != tt.rcode || !slices.Equal(got, tt.want) {
					t.Errorf("%s, want %v in\n%v", qname, tt.want, m)
				}
				if got := extendedError(m); got != "shaker: 4 of 4 addresses of www.example.org. are down" {
					t.Errorf("EDE %q", got)
				}
				if tt.fallback == "nodata" {
					expectNegative(t, m, 20)
				}
				if got := extendedError(s.ask(qname, dns.TypeA)); got != "" {
					t.Errorf("EDE %q for a client without EDNS", got)
				}
			}
		})
	}
}
