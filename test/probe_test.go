package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Public addresses are checked at private ones, here of loopback: addresses, hints and services follow what happens there,
// and people are told of both. Nothing is ever sent to the public ones, which are for documentation (RFC 5737).
func TestProbe(t *testing.T) {
	log := lab.CaptureLog(t)
	f := newFarm(t, "127.0.21.7", "127.0.21.8")
	public := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")}
	zone := lab.File(t, "db.example.org", `$ORIGIN example.org.
@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300
@ 300 IN NS ns
ns 300 IN A 192.0.2.53
www 300 IN A 192.0.2.7
www 300 IN A 192.0.2.8
m7 300 IN A 192.0.2.7
m8 300 IN A 192.0.2.8
_web._tcp 300 IN SRV 1 1 443 m7
_web._tcp 300 IN SRV 1 1 8443 m8
shop 300 IN HTTPS 1 . ipv4hint=192.0.2.7,192.0.2.8
`)
	overrides, page := lab.File(t, "overrides", ""), local(t)
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port 80 443
			interval 100ms
			hold 3s
			# Whatever goes wrong, nothing leaves this machine.
			deny 0.0.0.0/0 ::/0
			allow 127.0.0.0/8
			probe 192.0.2.0/24 at 127.0.21.0/24 %d
			overrides %s
			status %s
		}
		file %s
	}`, f.port, overrides, page, zone))
	expect := func(when string, want ...netip.Addr) {
		t.Helper()
		s.until("www.example.org.", dns.TypeA, want)
		var services []netip.Addr
		for _, rr := range s.ask("_web._tcp.example.org.", dns.TypeSRV).Answer {
			services = append(services, netip.MustParseAddr("192.0.2."+rr.(*dns.SRV).Target[1:2]))
		}
		slices.SortFunc(services, netip.Addr.Compare)
		var hints []netip.Addr
		for _, param := range s.ask("shop.example.org.", dns.TypeHTTPS).Answer[0].(*dns.HTTPS).Value {
			for hint := range strings.SplitSeq(param.String(), ",") {
				hints = append(hints, netip.MustParseAddr(hint))
			}
		}
		if !slices.Equal(services, want) || !slices.Equal(hints, want) {
			t.Errorf("%s: services at %v, hints %v, want %v", when, services, hints, want)
		}
	}
	expect("at first", public...)
	v := statusOf(t, page, "")
	if len(v.Targets) != 2 {
		t.Errorf("%d targets, want one for each address", len(v.Targets))
	}
	for i, target := range v.Targets {
		if target.Address != f.addrs[i] || target.Port != f.port || !slices.Equal(target.Answered, public[i:i+1]) {
			t.Errorf("got %+v, want %v at port %d, answered as %v", target, f.addrs[i], f.port, public[i])
		}
	}
	f.kill(f.addrs[0])
	expect("when one is dead", public[1])
	f.start(f.addrs[0])
	expect("when it is back", public...)
	lab.AppendFile(t, overrides, "192.0.2.7 down\n127.0.21.8 down\n") // the second one is about nothing
	expect("when one is drained", public[1])
	if v := statusOf(t, page, "prefix=192.0.2.7"); len(v.Targets) != 1 || len(v.Targets[0].Overrides) != 1 || v.Targets[0].Overrides[0].Rule != "192.0.2.7" {
		t.Errorf("the page has %+v", v.Targets)
	}
	endpoint := netip.AddrPortFrom(f.addrs[0], f.port)
	for _, want := range []string{" is down: ", " is up: "} {
		if want = fmt.Sprintf("%v (answered as 192.0.2.7)%s", endpoint, want); !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %q:\n%s", want, log)
		}
	}
}
