package answer

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Where HTTPS and SVCB records have their services: at one port, at one of two, or nowhere that can be checked.
func TestPortsOf(t *testing.T) {
	const none, dotOrDoH = "0 0", "853 443"
	for _, tt := range []struct{ qname, record, want string }{
		// HTTPS.
		{"", "a.example.org. HTTPS 1 .", "443 0"},
		{"", "a.example.org. HTTPS 0 b.example.org.", none},
		{"", "a.example.org. HTTPS 1 . port=9443", "9443 0"},
		{"", "a.example.org. HTTPS 1 . port=0", none},
		{"", "_8443._https.example.org. HTTPS 1 .", "8443 0"},
		{"", "_8443._HTTPS.example.org. HTTPS 1 . port=9443", "9443 0"},
		{"_8443._https.a.example.org.", "svc.example.net. HTTPS 1 .", "8443 0"},
		{"_8443._https.a.example.org.", "_https.example.net. HTTPS 1 .", "8443 0"},
		{"_8443._https.a.example.org.", "_9443._https.example.net. HTTPS 1 .", "9443 0"},
		{"_853._dns.a.example.org.", "svc.example.net. HTTPS 1 .", "443 0"},
		{"", "_8443.example.org. HTTPS 1 .", "443 0"},
		{"", "_65536._https.example.org. HTTPS 1 .", "443 0"},
		{"", "_0._https.example.org. HTTPS 1 .", "443 0"},
		// What is spoken by QUIC alone. The default of HTTPS is not.
		{"", "a.example.org. HTTPS 1 . alpn=h3", "443 0"},
		{"", "a.example.org. HTTPS 1 . alpn=h3 no-default-alpn", none},
		{"", "a.example.org. HTTPS 1 . alpn=h3,h3-29,doq no-default-alpn port=8443", none},
		{"", "a.example.org. HTTPS 1 . alpn=h3,h2 no-default-alpn", "443 0"},
		{"", "_8443._wss.example.org. SVCB 1 . alpn=h3", "8443 0"},
		{"", "_8443._wss.example.org. SVCB 1 . alpn=h3 no-default-alpn", none},
		{"", "_dns.example.org. SVCB 1 . alpn=doq", none},
		{"", "_dns.example.org. SVCB 1 . alpn=h3-29 port=8443", none},
		// DNS, and what has no scheme.
		{"", "_dns.example.org. SVCB 1 . alpn=dot", "853 0"},
		{"", "a.example.org. SVCB 1 . alpn=dot", "853 0"},
		{"", "_dns.example.org. SVCB 1 . alpn=h2", "443 0"},
		{"", "_dns.example.org. SVCB 1 . alpn=http/1.1,doq", "443 0"},
		{"", "_dns.example.org. SVCB 1 . alpn=h2,dot", dotOrDoH},
		{"", "_dns.example.org. SVCB 1 . alpn=h2,dot port=8530", "8530 0"},
		{"", "_8530._dns.example.org. SVCB 1 . alpn=dot", "853 0"},
		{"", "_dns.example.org. SVCB 1 .", none},
		{"", "_dns.example.org. SVCB 1 . alpn=x", none},
		{"", "_dns.example.org. SVCB 1 . port=853", "853 0"},
		{"", "_dns.example.org. SVCB 0 a.example.org.", none},
		// Other schemes.
		{"", "_https.example.org. SVCB 1 .", "443 0"},
		{"", "_WSS.example.org. SVCB 1 .", "443 0"},
		{"", "_http.example.org. SVCB 1 .", "80 0"},
		{"", "_ws.example.org. SVCB 1 . alpn=http/1.1", "80 0"},
		{"", "_8080._http.example.org. SVCB 1 .", "8080 0"},
		{"", "_1883._mqtt.example.org. SVCB 1 .", "1883 0"},
		{"", "_mqtt.example.org. SVCB 1 . alpn=h2", none},
		{"_1883._mqtt.a.example.org.", "svc.example.net. SVCB 1 .", "1883 0"},
		{"_1883._mqtt.a.example.org.", "_amqp.example.net. SVCB 1 .", none},
	} {
		rr := lab.Records(t, tt.record)[0]
		svcb, ok := rr.(*dns.SVCB)
		if !ok {
			svcb = &rr.(*dns.HTTPS).SVCB
		}
		if port, other := portsOf(svcb, tt.qname); fmt.Sprint(port, other) != tt.want {
			t.Errorf("%q, %s: %d %d, want %s", tt.qname, tt.record, port, other, tt.want)
		}
	}
}

// SRV records are of TCP unless their names say something else.
func TestIsChecked(t *testing.T) {
	for record, want := range map[string]bool{
		"_sip._tcp.example.org. SRV 0 0 5060 a.":       true,
		"_sip._TCP.example.org. SRV 0 0 5060 a.":       true,
		"web.service.consul. SRV 1 1 8080 a.":          true,
		"v2.web.service.consul. SRV 1 1 8080 a.":       true,
		"_web._v2.service.consul. SRV 1 1 8080 a.":     true,
		"web. SRV 1 1 8080 a.":                         true,
		". SRV 1 1 8080 a.":                            true,
		"_sip._udp.example.org. SRV 0 0 5060 a.":       false,
		"_sip._UDP. SRV 0 0 5060 a.":                   false,
		"_sip._sctp.example.org. SRV 0 0 5060 a.":      false,
		"_sip._dccp.example.org. SRV 0 0 5060 a.":      false,
		"_sip._udplite.example.org. SRV 0 0 5060 a.":   false,
		"_dns._quic.example.org. SRV 0 0 5060 a.":      false,
		"_udp._tcp.example.org. SRV 0 0 5060 a.":       true,
		"_sip._tcp._udp.example.org. SRV 0 0 5060 a.":  true,
		"_sip._tcp.example.org. SRV 0 0 0 a.":          false,
		"_sip._tcp.example.org. SRV 0 0 5060 .":        false,
		"_sip._tcp.example.org. 10 CH SRV 0 0 5060 a.": false,
	} {
		if srv := lab.Records(t, record)[0].(*dns.SRV); isChecked(srv) != want {
			t.Errorf("%s: %v", record, !want)
		}
	}
}
