package test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Transfers are the same, octet by octet, with and without shaker, although half of the addresses in the zone are dead and
// known to be. Every name has records of one type only: in which order those of several types come is left to chance by
// CoreDNS.
func TestTransfer(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := lab.File(t, "db.example.org", transferZone(4000))
	directives := "transfer {\nto *\n}\nfile " + zone + " example.org\n"
	without := start(t, ".:0 {\nbind 127.0.0.1\n"+directives+"}\n")
	with := start(t, f.neighbourCorefile("", directives))
	with.until("host1.example.org.", dns.TypeA, f.addrs[:1])

	axfr := new(dns.Msg)
	axfr.SetAxfr("example.org.")
	current, old := new(dns.Msg), new(dns.Msg)
	current.SetIxfr("example.org.", 1, "ns.example.org.", "hostmaster.example.org.")
	old.SetIxfr("example.org.", 0, "ns.example.org.", "hostmaster.example.org.")
	for _, tt := range []struct {
		name    string
		query   *dns.Msg
		network string
		records int
	}{
		{"AXFR", axfr, "tcp", 8004},
		{"IXFR from the serial that is current", current, "tcp", 1},
		{"IXFR from one that is not", old, "tcp", 8004},
		{"IXFR over UDP, which transfer refuses", current, "udp", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, records := transfer(t, with, tt.network, tt.query)
			want, _ := transfer(t, without, tt.network, tt.query)
			t.Logf("%d octets, %d records", len(got), records)
			if !bytes.Equal(got, want) {
				t.Errorf("%d octets with shaker, %d without", len(got), len(want))
			}
			if records != tt.records {
				t.Errorf("%d records, want %d", records, tt.records)
			}
		})
	}
}

// transferZone has n names with a living and a dead address each.
func transferZone(n int) string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	for i := range n {
		fmt.Fprintf(&b, "host%d 300 IN A 127.0.4.1\nhost%[1]d 300 IN A 127.0.4.3\n", i)
	}
	return b.String()
}

// transfer sends a query and returns the messages of the answer as they come, and the number of records in them. The end
// is the zone's SOA record again, or a message without records.
func transfer(t *testing.T, s *server, network string, query *dns.Msg) (octets []byte, records int) {
	t.Helper()
	c := s.dial(network)
	defer c.Close()
	query.Id = 4711
	if err := c.WriteMsg(query); err != nil {
		t.Fatal(err)
	}
	for {
		packed, err := c.ReadMsgHeader(nil)
		if err != nil {
			t.Fatal(err)
		}
		octets = append(octets, packed...)
		m := new(dns.Msg)
		if err := m.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		records += len(m.Answer)
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
			return octets, records
		}
		if _, ends := m.Answer[len(m.Answer)-1].(*dns.SOA); ends {
			return octets, records
		}
	}
}
