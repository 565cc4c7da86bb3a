package test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// labFarm is four hosts, each with a web server on port 80 of an IPv4 and an IPv6 address.
type labFarm struct {
	hosts  []*lab.Host
	addrs4 []netip.Addr
	addrs6 []netip.Addr
}

func newLabFarm(l *lab.Lab) *labFarm {
	f := new(labFarm)
	for i := range 4 {
		h := l.Host(fmt.Sprintf("web%d", i+1))
		f.hosts = append(f.hosts, h)
		f.addrs4 = append(f.addrs4, h.Addr4)
		f.addrs6 = append(f.addrs6, h.Addr6)
	}
	return f
}

// zone is the farm as seen by the helpers that write zone files and hosts.
func (f *labFarm) zone(t *testing.T) *farm {
	return &farm{t: t, addrs: slices.Concat(f.addrs4, f.addrs6)}
}

// serve starts a CoreDNS that answers www.example.org with the addresses.
func (f *labFarm) serve(t *testing.T, properties string) *server {
	t.Helper()
	return f.serveFrom(t, properties, "file "+f.zone(t).zoneFile())
}

// serveFrom does so with the directives of the plugins that make the answer.
func (f *labFarm) serveFrom(t *testing.T, properties, backend string) *server {
	t.Helper()
	return start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port 80
			%s
		}
		%s
	}`, properties, backend))
}

// A web server dies and comes back, on both families and whichever plugin makes the answer: its address
// leaves and comes back. The times are logged; that they are short enough is proven where time is under
// control, in package health.
func TestLabFollowsBackends(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		f := newLabFarm(l)
		services := make([]*lab.Listener, len(f.hosts))
		for i, h := range f.hosts {
			services[i] = h.Listen(80)
		}
		zone := f.zone(t)
		file := "file " + zone.zoneFile()
		upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\n%s\n}\n", file))
		refuse := func() { services[1].Close() }
		listen := func() { services[1] = f.hosts[1].Listen(80) }
		swallow := func() { f.hosts[1].Drop(80) }
		answer := func() { f.hosts[1].Clear() }
		for _, tt := range []struct {
			name, backend string
			kill, revive  func()
		}{
			{"file, refuses", file, refuse, listen},
			{"file, swallows", file, swallow, answer},
			{"file and cache", "cache 300\n" + file, refuse, listen},
			{"hosts", zone.hostsBlock(), refuse, listen},
			{"hosts and cache", "cache 300\n" + zone.hostsBlock(), refuse, listen},
			{"forward", "forward . " + upstream.addr, refuse, listen},
			{"forward and cache", "cache 300\nforward . " + upstream.addr, refuse, listen},
		} {
			s := f.serveFrom(t, "interval 400ms 100ms\ntimeout 200ms\nhold 3s\ndamping off", tt.backend)
			s.until("www.example.org.", dns.TypeA, f.addrs4)
			s.until("www.example.org.", dns.TypeAAAA, f.addrs6)
			without := func(addrs []netip.Addr) []netip.Addr { return slices.Delete(slices.Clone(addrs), 1, 2) }
			tt.kill()
			left4 := s.until("www.example.org.", dns.TypeA, without(f.addrs4))
			left6 := left4 + s.until("www.example.org.", dns.TypeAAAA, without(f.addrs6))
			tt.revive()
			back4 := s.until("www.example.org.", dns.TypeA, f.addrs4)
			back6 := back4 + s.until("www.example.org.", dns.TypeAAAA, f.addrs6)
			t.Logf("%s: A and AAAA left after %v and %v, were back after %v and %v", tt.name,
				left4.Round(time.Millisecond), left6.Round(time.Millisecond), back4.Round(time.Millisecond), back6.Round(time.Millisecond))
		}
	})
}

// With a black hole among the addresses the first answer comes when `hold` is over, with all of them.
func TestLabHold(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		f := newLabFarm(l)
		for _, h := range f.hosts {
			h.Listen(80)
		}
		f.hosts[3].Drop(80)
		s := f.serve(t, "hold 100ms")
		begin := time.Now()
		m := s.ask("www.example.org.", dns.TypeA)
		took := time.Since(begin)
		if got := addresses(m); !slices.Equal(got, f.addrs4) || took < 95*time.Millisecond {
			t.Errorf("first answer %v after %v", got, took)
		}
		begin = time.Now()
		s.ask("www.example.org.", dns.TypeA)
		t.Logf("the first answer took %v, the second %v", took.Round(time.Millisecond), time.Since(begin).Round(time.Microsecond))
		s.until("www.example.org.", dns.TypeA, f.addrs4[:3])
	})
}

// Whatever is wrong with this machine, no target goes down for it; it is counted, and the log says so once.
func TestLabOwnFaults(t *testing.T) {
	faults := []struct {
		name, cause string
		begin, end  func(t *testing.T, l *lab.Lab)
	}{
		{"a firewall that rejects", "firewall",
			func(_ *testing.T, l *lab.Lab) { l.FilterOut("tcp dport 80 reject") },
			func(_ *testing.T, l *lab.Lab) { l.Clear() }},
		{"no route", "no_route",
			func(_ *testing.T, l *lab.Lab) {
				l.IP("route add unreachable 198.18.1.2", "route add unreachable 2001:db8:1::2")
			},
			func(_ *testing.T, l *lab.Lab) {
				l.IP("route del unreachable 198.18.1.2", "route del unreachable 2001:db8:1::2")
			}},
	}
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		f := newLabFarm(l)
		for _, h := range f.hosts {
			h.Listen(80)
		}
		log, page := lab.CaptureLog(t), local(t)
		s := f.serve(t, "interval 100ms 20ms\ntimeout 1s\nhold 3s\nstatus "+page)
		s.until("www.example.org.", dns.TypeA, f.addrs4)
		s.until("www.example.org.", dns.TypeAAAA, f.addrs6)
		for _, fault := range faults {
			before := inconclusive(t, fault.cause)
			fault.begin(t, l)
			l.Until(fault.name+" to be counted", func() bool { return inconclusive(t, fault.cause) >= before+100 })
			expectAllUp(t, fault.name, f, s, page)
			fault.end(t, l)
			if n := strings.Count(log.String(), ": "+fault.cause+" ("); n != 1 {
				t.Errorf("%s: told %d times:\n%s", fault.name, n, log)
			}
		}
	})
}

// inconclusive returns how many checks have come to nothing because of this.
func inconclusive(t *testing.T, cause string) float64 {
	t.Helper()
	return counted(t, "coredns_shaker_inconclusive_checks_total", map[string]string{"cause": cause})
}

func expectAllUp(t *testing.T, what string, f *labFarm, s *server, page string) {
	t.Helper()
	if n := countsAt(t, page); n.Up != n.Total || n.Total == 0 {
		t.Errorf("%s: %+v", what, n)
	}
	if got := addresses(s.ask("www.example.org.", dns.TypeA)); !slices.Equal(got, f.addrs4) {
		t.Errorf("%s: answer %v", what, got)
	}
}

// A process that has run out of descriptors knows nothing of its targets.
func TestLabWithoutDescriptors(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		f := newLabFarm(l)
		for _, h := range f.hosts {
			h.Listen(80)
		}
		s := f.serve(t, "interval 100ms 20ms\nidle 1h\nhold 0s")
		lowerDescriptorLimit(t, 64)
		client, err := dns.Dial("udp", s.addr) // while there are descriptors
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var files []*os.File
		for {
			file, err := os.Open(os.DevNull)
			if err != nil {
				break
			}
			files = append(files, file)
		}
		log := lab.CaptureLog(t)
		q := new(dns.Msg)
		q.SetQuestion("www.example.org.", dns.TypeA)
		m, _, err := (&dns.Client{Timeout: patience}).ExchangeWithConn(q, client)
		if err != nil {
			t.Fatal(err)
		}
		if got := addresses(m); !slices.Equal(got, f.addrs4) {
			t.Errorf("answer %v", got)
		}
		l.Until("the lack of descriptors to be counted", func() bool { return inconclusive(t, "no_descriptor") >= 20 })
		targets := func(state string) float64 {
			return counted(t, "coredns_shaker_targets", map[string]string{"state": state})
		}
		if n := targets("down"); n > 0 {
			t.Errorf("%v targets are down", n)
		}
		for _, file := range files {
			file.Close()
		}
		l.Until("the targets to be up", func() bool { return targets("up") == 4 })
		if n := strings.Count(log.String(), "Checks are inconclusive. The first is"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
	})
}
