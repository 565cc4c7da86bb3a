package test

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Whether queries for a zone ever get to its stanza shows only when all server blocks are there, and what else is in them.
func TestZonesOutOfReach(t *testing.T) {
	const (
		outside = " is outside of the server block, want what is in "
		longer  = " is of no use, since queries for it go to a server block for a longer zone, and here to none"
		shuffle = "sort is of no use, since loadbalance shuffles the addresses again; leave one of them out"
		reverse = "; to choose addresses, use allow and deny"
		doubt   = "[WARNING] plugin/shaker: Corefile:"
	)
	for _, tt := range []struct {
		name     string
		corefile string // BIND is where to listen
		failure  string // of the start
		warning  string
	}{
		{"the zone itself", "example.org:0 {\nBIND\nshaker example.org\n}", "", ""},
		{"a part", "example.org:0 {\nBIND\nshaker www.example.org\n}", "", ""},
		{"above", "example.org:0 {\nBIND\nshaker org\n}", "", ""},
		{"the root", "example.org:0 {\nBIND\nshaker .\n}", "", ""},
		{"all", ".:0 {\nBIND\nshaker example.org example.net\n}", "", ""},
		{"of the block", "example.org:0 example.net:0 {\nBIND\nshaker\n}", "", ""},
		{"another", "example.org:0 {\nBIND\nshaker example.net\n}", `Corefile:3: zone "example.net."` + outside + "example.org.", ""},
		{"beside a good one", "example.org:0 {\nBIND\nshaker example.org {\nrise 5\n}\nshaker example.net example.com\n}",
			`Corefile:6: zone "example.com."` + outside + "example.org.", ""},
		{"the end of a label", "example.org:0 {\nBIND\nshaker badexample.org\n}", `Corefile:3: zone "badexample.org."` + outside + "example.org.", ""},
		{"in none of the keys", "example.org:0 dns://example.net:0 {\nBIND\nshaker example.com\n}",
			`Corefile:3: zone "example.com."` + outside + "example.net. or example.org.", ""},
		{"each in one of the keys", "example.org:0 example.net:0 {\nBIND\nshaker example.org\nshaker a.example.net\n}", "", ""},
		{"CIDR", "example.org:0 {\nBIND\nshaker 10.0.0.0/8\n}", `Corefile:3: zone "10.in-addr.arpa."` + outside + "example.org." + reverse, ""},
		{"CIDR in another", "20.0.0.0/8:0 {\nBIND\nshaker 10.0.0.0/8\n}", `Corefile:3: zone "10.in-addr.arpa."` + outside + "20.in-addr.arpa." + reverse, ""},
		{"in a view", "example.org:0 {\nBIND\nview all {\nexpr true\n}\nshaker example.net\n}", `Corefile:6: zone "example.net."` + outside + "example.org.", ""},
		{"rewrite leads there", "example.org:0 {\nBIND\nrewrite name suffix .example.org .example.net\nshaker example.net\n}", "", ""},
		{"autopath leads there", "example.org:0 {\nBIND\nautopath resolv.conf\nshaker example.net\n}", "", ""},
		{"rewrite in another block", "example.org:0 {\nBIND\nshaker example.net\n}\nexample.com:0 {\nBIND\nrewrite name a b\n}",
			`Corefile:3: zone "example.net."` + outside + "example.org.", ""},
		{"watch", "example.org:0 {\nBIND\nshaker . {\nwatch example.org www.example.net\n}\n}",
			`Corefile:3: watch: "www.example.net."` + outside + "example.org.", ""},
		{"watch and rewrite", "example.org:0 {\nBIND\nrewrite name suffix .example.org .example.net\nshaker . {\nwatch www.example.net\n}\nerrors\n}", "", ""},

		{"taken by another block", ".:0 {\nBIND\nshaker www.example.org\n}\nexample.org:0 {\nBIND\nerrors\n}", "",
			doubt + `3: zone "www.example.org."` + longer},
		{"taken in part", ".:0 {\nBIND\nshaker example.org\n}\nwww.example.org:0 {\nBIND\nerrors\n}", "", ""},
		{"another address", ".:0 {\nBIND\nshaker example.org\n}\nexample.org:0 {\nbind 127.0.0.9\nerrors\n}", "", ""},
		{"by a view, which may not take all", ".:0 {\nBIND\nshaker example.org\n}\nexample.org:0 {\nBIND\nview some {\nexpr true\n}\nerrors\n}", "", ""},
		{"by the block itself", ".:0 example.org:0 {\nBIND\nshaker example.org\n}", "", ""},
		{"for one key only", ".:0 example.org:0 {\nBIND\nshaker www.example.org\n}\nexample.net:0 {\nBIND\nerrors\n}", "", ""},

		{"fallback in the block", "example.org:0 {\nBIND\nshaker {\nfallback a.example.org\n}\n}", "", ""},
		{"fallback in another", "example.org:0 {\nBIND\nshaker {\nfallback a.example.net\n}\n}\nexample.net:0 {\nBIND\nerrors\n}", "", ""},
		{"fallback in that for all", "example.org:0 {\nBIND\nshaker {\nfallback a.example.net\n}\n}\n.:0 {\nBIND\nerrors\n}", "", ""},
		{"fallback in none", "example.org:0 {\nBIND\nshaker {\nfallback a.example.org a.example.net\n}\n}\nexample.com:0 {\nBIND\nerrors\n}", "",
			doubt + `3: fallback: "a.example.net." is in no server block that listens here, so that it has no addresses; add one for its zone`},
		{"fallback in one that listens elsewhere", "example.org:0 {\nBIND\nshaker {\nfallback a.example.net\n}\n}\nexample.net:0 {\nbind 127.0.0.9\nerrors\n}", "",
			doubt + `3: fallback: "a.example.net." is in no server block that listens here, so that it has no addresses; add one for its zone`},

		{"sort", "example.org:0 {\nBIND\nshaker {\nsort rtt\n}\n}", "", ""},
		{"sort and loadbalance", "example.org:0 example.net:0 {\nBIND\nshaker {\nsort rtt\n}\nloadbalance\n}", "", doubt + "3: " + shuffle},
		{"sort client and loadbalance", "example.org:0 {\nBIND\nshaker {\nsort client 20 48\n}\nloadbalance\n}", "", doubt + "3: " + shuffle},
		{"loadbalance elsewhere", "example.org:0 {\nBIND\nshaker {\nsort rtt\n}\n}\nexample.net:0 {\nBIND\nshaker\nloadbalance\n}", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := lab.CaptureLog(t)
			text := strings.ReplaceAll(tt.corefile, "BIND", "bind 127.0.0.1")
			text = strings.ReplaceAll(text, "resolv.conf", lab.File(t, "resolv.conf", "search example.org example.net\n"))
			if tt.failure != "" {
				if _, err := caddy.Start(corefile(text)); err == nil || err.Error() != "plugin/shaker: "+tt.failure {
					t.Errorf("error\n%v\nwant\n%s", err, tt.failure)
				}
				return
			}
			start(t, text)
			var warnings []string
			for _, line := range log.Take() {
				if strings.HasPrefix(line, doubt) {
					warnings = append(warnings, line)
				}
			}
			if got := strings.Join(warnings, "\n"); got != tt.warning {
				t.Errorf("logged\n%s\nwant\n%s", got, tt.warning)
			}
		})
	}
}
