package test

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var cutFor = flag.Duration("cut", 4*time.Second, "how long TestLabFreezes cuts the uplink")

// racks are ten hosts with twenty addresses each, behind one uplink. Each of twenty names has an address in every
// rack.
type racks struct {
	uplink *lab.Host
	hosts  []*lab.Host
	names  []string
	addrs  [][]netip.Addr // of each name
}

func newRacks(l *lab.Lab) *racks {
	r := &racks{uplink: l.Host("uplink"), addrs: make([][]netip.Addr, 20)}
	for i := range r.addrs {
		r.names = append(r.names, fmt.Sprintf("www%d.example.org.", i))
	}
	for i := range 10 {
		h := r.uplink.Host(fmt.Sprintf("rack%d", i))
		h.Listen(80)
		r.hosts = append(r.hosts, h)
		for n, addr := range h.Addrs4(len(r.addrs)) {
			r.addrs[n] = append(r.addrs[n], addr)
		}
	}
	return r
}

func (r *racks) zoneFile(t *testing.T) string {
	var zone strings.Builder
	zone.WriteString("@ IN SOA ns hostmaster 1 2 3 4 5\n")
	for n, addrs := range r.addrs {
		for _, addr := range addrs {
			fmt.Fprintf(&zone, "%s 60 IN A %s\n", r.names[n], addr)
		}
	}
	return lab.File(t, "racks", zone.String())
}

// answers asks for every name, and returns how many answers lack addresses.
func (r *racks) answers(s *server) (lacking int) {
	for n, qname := range r.names {
		if !slices.Equal(addresses(s.ask(qname, dns.TypeA)), r.addrs[n]) {
			lacking++
		}
	}
	return lacking
}

// The uplink of the resolver is cut: no answer changes. A rack is cut: its addresses leave, and no others.
func TestLabFreezes(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		r := newRacks(l)
		log, page := lab.CaptureLog(t), local(t)
		s := start(t, fmt.Sprintf(`example.org:0 {
			bind 127.0.0.1
			shaker {
				port 80
				interval 400ms 100ms
				timeout 200ms
				hold 4s
				status %s
			}
			file %s
		}`, page, r.zoneFile(t)))
		r.answers(s)
		frozen := func() bool { return !statusOf(t, page, "size=1").Frozen.IsZero() }
		allUp := func() bool { return countsAt(t, page) == statusCounts{Total: 200, Up: 200} }
		wentDown := func() float64 {
			return counted(t, "coredns_shaker_state_changes_total", map[string]string{"state": "down"})
		}
		l.Until("all targets to be up", allUp)
		for _, cut := range []struct {
			how     string
			down    func()
			up      func()
			lacking int // at most
		}{
			{"swallows", func() { r.uplink.Drop() }, r.uplink.Clear, 0},
			// The first target is down so soon that the other failures may only be coming in.
			{"rejects", func() { r.uplink.Reject(lab.HostUnreachable) }, r.uplink.Clear, len(r.names)},
			{"has no power", r.uplink.Down, r.uplink.Up, 0},
		} {
			before, downs := counted(t, "coredns_shaker_freezes_total", nil), wentDown()
			cut.down()
			queries, lacking := 0, 0
			began := time.Now()
			l.Until(cut.how+" to freeze", func() bool {
				lacking += r.answers(s)
				queries += len(r.names)
				return time.Since(began) >= *cutFor && frozen()
			})
			cut.up()
			l.Until("verdicts to thaw", func() bool { return !frozen() })
			l.Until("all targets to be up", allUp)
			if lacking > cut.lacking || r.answers(s) > 0 {
				t.Errorf("%s: %d of %d answers lack addresses", cut.how, lacking, queries)
			}
			if n := counted(t, "coredns_shaker_freezes_total", nil) - before; n != 1 {
				t.Errorf("%s: %v freezes", cut.how, n)
			}
			t.Logf("%s: %d answers while the uplink was cut, %d of them lacked addresses; %v targets went down for a moment",
				cut.how, queries, lacking, wentDown()-downs)
		}
		for _, line := range []string{"Verdicts are frozen: ", "Verdicts are no longer frozen, after "} {
			if n := strings.Count(log.String(), line); n != 3 {
				t.Errorf("%q is in the log %d times, want 3:\n%s", line, n, log)
			}
		}

		r.hosts[3].Drop()
		l.Until("the rack to be down", func() bool { return countsAt(t, page).Down >= 20 })
		if n := countsAt(t, page); n.Down != 20 || n.Up != 180 {
			t.Errorf("a rack was cut off: %+v", n)
		}
		for n, qname := range r.names {
			want := slices.Delete(slices.Clone(r.addrs[n]), 3, 4)
			if got := addresses(s.ask(qname, dns.TypeA)); !slices.Equal(got, want) {
				t.Errorf("%s without the rack: %v, want %v", qname, got, want)
			}
		}
		if frozen() {
			t.Error("a rack was taken for the uplink")
		}
	})
}
