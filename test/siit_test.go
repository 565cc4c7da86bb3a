package test

import (
	"testing"

	_ "github.com/coredns/coredns/plugin/siit"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// siit is as new as CoreDNS v1.15.0, so its tests stand in a file that can be left out.
func TestSIIT(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	const authority = "example.org. 300 NS ns.example.org."
	file := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	f.expectViews(t, []neighbourCase{
		{"siit", "", "siit {\neam 192.0.2.6 ::1\n}\n" + file, "six.example.org.", dns.TypeA,
			[]string{"NOERROR", "six.example.org. 20 A 127.0.4.1", authority}},
		{"siit where the only IPv4 address is dead", "", "siit\n" + file, "four.example.org.",
			dns.TypeA, []string{"NOERROR", "four.example.org. 20 A 127.0.4.3", authority}},
		{"siit and nodata", "fallback nodata", "siit\n" + file, "four.example.org.",
			dns.TypeA, []string{"NOERROR", "four.example.org. 20 A 192.0.2.4", authority}},
	})
}
