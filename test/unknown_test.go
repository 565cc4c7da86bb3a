package test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// unknownView is a name that leads to an address that lives and to one that is silent, as seen by people who begin to ask
// before there is a verdict on either.
type unknownView struct {
	s     *server
	what  string
	bound time.Duration // until the verdict on silence, by docs/intervals.md
	qname string
	qtype uint16
	leads func(*dns.Msg) bool // to the silent one
	addr  netip.Addr          // of the silent one
	begun *time.Time          // when it was asked for first, shared by the views of one target

	told []unknownTold // while it was in answers
	over bool          // it is not any longer
}

// unknownTold is an answer: when it was asked for, how long that took, and for how long it may be kept.
type unknownTold struct {
	asked time.Time
	took  time.Duration
	ttl   uint32
}

// Whoever is told of a silent address, because they ask before its verdict is in, may not keep it for longer than until
// then. Once everything is known, the TTL is that of the stanza.
func TestLabUnknownTTL(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		living, silent := l.Host("living"), l.Host("silent")
		living.Listen(443)
		silent.Drop()
		zone := lab.File(t, "db.example.org", fmt.Sprintf(`$ORIGIN example.org.
@        300 IN SOA ns hostmaster 1 7200 1800 86400 300
@        300 IN NS ns
ns       300 IN A 192.0.2.53
www      300 IN A %[1]v
www      300 IN A %[2]v
www      300 IN AAAA %[3]v
www      300 IN AAAA %[4]v
_web._tcp 300 IN SRV 0 0 443 living
_web._tcp 300 IN SRV 0 0 443 silent
living   300 IN A %[1]v
silent   300 IN A %[2]v
api      300 IN HTTPS 1 . ipv4hint=%[1]v,%[2]v
`, living.Addr4, silent.Addr4, living.Addr6, silent.Addr6))
		var views []*unknownView
		// Each server has settings of its own, so that it knows nothing from another. No check begins before the one
		// before it is over, so that the bound is exact.
		for _, tt := range []struct {
			settings string
			bound    time.Duration
		}{
			{"interval 10s 1s\ntimeout 1s\nfall 3\nhold 0s", 3 * time.Second},
			{"interval 10s 1s\ntimeout 1500ms\nfall 2\nhold 1s", 3 * time.Second},
			{"interval 10s 1s\ntimeout 2500ms\nfall 1\nhold 0s", 2500 * time.Millisecond},
			{"interval 1s 100ms\ntimeout 300ms\nfall 3\nhold 0s", 900 * time.Millisecond},
		} {
			s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nttl 200s\ndamping off\nfreeze off\n%s\n}\nfile %s\n}\n", tt.settings, zone))
			var begun4, begun6 time.Time
			for _, v := range []unknownView{
				{qname: "www.example.org.", qtype: dns.TypeA, addr: silent.Addr4, begun: &begun4,
					leads: func(m *dns.Msg) bool { return slices.Contains(addresses(m), silent.Addr4) }},
				{qname: "www.example.org.", qtype: dns.TypeAAAA, addr: silent.Addr6, begun: &begun6,
					leads: func(m *dns.Msg) bool { return slices.Contains(addresses(m), silent.Addr6) }},
				{qname: "_web._tcp.example.org.", qtype: dns.TypeSRV, addr: silent.Addr4, begun: &begun4,
					leads: func(m *dns.Msg) bool { return len(m.Answer) == 2 }},
				{qname: "api.example.org.", qtype: dns.TypeHTTPS, addr: silent.Addr4, begun: &begun4,
					leads: func(m *dns.Msg) bool {
						return slices.ContainsFunc(m.Answer[0].(*dns.HTTPS).Value, func(v dns.SVCBKeyValue) bool {
							hint, ok := v.(*dns.SVCBIPv4Hint)
							return ok && len(hint.Hint) == 2
						})
					}},
			} {
				v.s, v.bound = s, tt.bound
				v.what = fmt.Sprintf("%q, %s %s", tt.settings, v.qname, dns.TypeToString[v.qtype])
				views = append(views, &v)
			}
		}
		lab.Until(t, "all verdicts", func() bool {
			over := true
			for _, v := range views {
				if !v.over {
					v.look(t)
				}
				over = over && v.over
			}
			return over
		})
	})
}

// look asks once.
func (v *unknownView) look(t *testing.T) {
	t.Helper()
	asked := time.Now()
	if v.begun.IsZero() {
		*v.begun = asked
	}
	m := v.s.ask(v.qname, v.qtype, withLongAnswer)
	took := time.Since(asked)
	ttl := m.Answer[0].Header().Ttl
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		h := rr.Header()
		a, isA := rr.(*dns.A)
		// The address that is beside a service has the TTL that it has on its own, when it is asked for at the same time.
		silent := isA && a.A.Equal(v.addr.AsSlice())
		if h.Rrtype == v.qtype && h.Ttl != ttl || silent && h.Ttl != ttl {
			t.Fatalf("%s: more than one TTL in\n%v", v.what, m)
		}
	}
	// Nobody has asked for the address before; those who ask for the service and the hints come later.
	first := v.told == nil && (v.qtype == dns.TypeA || v.qtype == dns.TypeAAAA)
	if v.leads(m) {
		if least := (v.bound - took - time.Second).Seconds(); first && float64(ttl) < least {
			t.Errorf("%s: asked for at once, and the TTL is below %.1f in\n%v", v.what, least, m)
		}
		v.told = append(v.told, unknownTold{asked, took, ttl})
		return
	}
	v.over = true
	if ttl != 200 {
		t.Errorf("%s: all is known, and the TTL is not 200 in\n%v", v.what, m)
	}
	if first {
		t.Errorf("%s: the first answer was without what is silent", v.what)
	}
	gone := time.Now()
	for _, told := range v.told {
		// When checks are late, nobody knows for how long.
		if told.asked.Add(told.took).After(v.begun.Add(v.bound)) {
			continue
		}
		if left := gone.Sub(told.asked); time.Duration(told.ttl)*time.Second > left {
			t.Errorf("%s: asked for %v before it was gone, the answer may be kept for %ds", v.what, left, told.ttl)
			return
		}
	}
}
