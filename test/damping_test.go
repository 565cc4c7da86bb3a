package test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A service that keeps dying stays away after the third time although it is back, unless there is no other.
func TestDamps(t *testing.T) {
	f := newFarm(t, "127.0.20.1", "127.0.20.2")
	steady, shaky := f.addrs[0], f.addrs[1]
	log := lab.CaptureLog(t)
	page := local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			interval 20ms
			fall 1
			rise 1
			damping 1h
			allow 127.0.0.0/8
			fallback servfail
			status %s
		}
		file %s
	}`, f.port, page, f.zoneFile()))
	s.until("www.example.org.", dns.TypeA, f.addrs)
	for range 2 {
		f.kill(shaky)
		s.until("www.example.org.", dns.TypeA, []netip.Addr{steady})
		f.start(shaky)
		s.until("www.example.org.", dns.TypeA, f.addrs)
	}
	f.kill(shaky)
	s.until("www.example.org.", dns.TypeA, []netip.Addr{steady})
	f.start(shaky)
	lab.Until(t, "the target to be damped", func() bool { return countsAt(t, page).Damped == 1 })
	if got := addresses(s.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, []netip.Addr{steady}) {
		t.Errorf("%v with a damped target, want %v", got, steady)
	}
	log.Expect(t, regexp.MustCompile(`127\.0\.20\.2:\d+ is down: 1 of 1 check failed: refused\. It flaps, so it stays down for 1h0m0s at least\n`))
	f.kill(steady)
	s.until("www.example.org.", dns.TypeA, []netip.Addr{shaky})
	f.kill(shaky)
	lab.Until(t, "the fallback", func() bool { return s.ask("www.example.org.", dns.TypeA).Rcode == dns.RcodeServerFailure })
}
