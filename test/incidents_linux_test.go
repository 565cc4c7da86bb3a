package test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var phaseLength = flag.Duration("phase", 0, "how long each phase of an incident lasts; 0 is until what is expected has come")

// incident is a CoreDNS to which things happen while somebody looks at it all the time. What was seen is logged.
type incident struct {
	t      *testing.T
	p      *process
	names  []string // asked for A
	srv    []string // asked for SRV
	always func(sight) error

	began  time.Time
	broken bool // what always has to hold did not

	table    strings.Builder
	row      string // the last one, which is not in the table yet
	from, to int    // the seconds that it is about
}

// sight is what is seen at one time.
type sight struct {
	at      time.Duration // since the incident began
	answers map[string][]string
	page    *statusView
	ready   bool
}

// begin is called before the process is launched, so that no time that is measured from here is too short.
func begin(t *testing.T, names ...string) *incident {
	i := &incident{t: t, names: names, always: func(sight) error { return nil }, began: time.Now()}
	t.Cleanup(func() {
		i.endRow()
		t.Logf("what was seen:\n%s", i.table.String())
	})
	return i
}

// look looks at everything once.
func (i *incident) look() sight {
	i.t.Helper()
	s := sight{answers: make(map[string][]string)}
	for _, name := range i.names {
		for _, addr := range addresses(i.p.ask(name, dns.TypeA, withLongAnswer)) {
			s.answers[name] = append(s.answers[name], addr.String())
		}
	}
	for _, name := range i.srv {
		for _, rr := range i.p.ask(name, dns.TypeSRV, withLongAnswer).Answer {
			if srv, ok := rr.(*dns.SRV); ok {
				s.answers[name] = append(s.answers[name], srv.Target)
			}
		}
		slices.Sort(s.answers[name])
	}
	// In this order: whoever is ready has verdicts already.
	s.ready, _ = isReady(i.t, processReady)
	s.page = statusOf(i.t, processPage, "size=1")
	s.at = time.Since(i.began)
	return s
}

// all returns every member of the answers, as often as it is in them.
func (s sight) all() (members []string) {
	for _, answer := range s.answers {
		members = append(members, answer...)
	}
	slices.Sort(members)
	return members
}

func (s sight) isFrozen() bool { return !s.page.Frozen.IsZero() }

// phase looks until what is expected has come. What always has to hold is checked with each look.
func (i *incident) phase(what string, expected func(sight) error) {
	i.t.Helper()
	i.endRow()
	fmt.Fprintf(&i.table, "%6.1f s    -- %s\n", time.Since(i.began).Seconds(), what)
	least := *phaseLength
	patience := patience
	if least > 0 {
		patience = least
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		s := i.look()
		i.note(s, false)
		if err := i.always(s); err != nil && !i.broken {
			i.broken = true
			i.t.Errorf("%s, after %.1f s: %v", what, s.at.Seconds(), err)
		}
		err := expected(s)
		switch {
		case time.Since(began) < least:
		case err == nil:
			i.note(s, true)
			return
		case time.Since(began) > patience:
			i.t.Errorf("%s: waited in vain for: %v", what, err)
			return
		}
	}
}

// note adds a row to the table, or makes the last one longer. It takes one look in a second, and the last in a
// phase.
func (i *incident) note(s sight, last bool) {
	ready, frozen := "not ready", ""
	if s.ready {
		ready = "ready"
	}
	if s.isFrozen() {
		frozen = ", frozen"
	}
	members := s.all()
	fallback := 0
	for _, m := range members {
		if m == fallbackPage {
			fallback++
		}
	}
	served := fmt.Sprintf("%d members", len(members)-fallback)
	if len(members) <= 12 {
		served = strings.Join(members, " ")
	} else if fallback > 0 {
		served += fmt.Sprintf(", %d times the fallback", fallback)
	}
	n := s.page.Counts
	row := fmt.Sprintf("%s | %d up, %d unknown, %d down%s | %s", served, n.Up, n.Unknown, n.Down, frozen, ready)
	second := int(s.at.Seconds())
	if i.row != "" && second == i.to && !last {
		return
	}
	if row != i.row {
		i.endRow()
		i.row, i.from = row, second
	}
	i.to = second
}

func (i *incident) endRow() {
	if i.row != "" {
		fmt.Fprintf(&i.table, "%3d to %3d s: %s\n", i.from, i.to, i.row)
		i.row = ""
	}
}

// fallbackPage is where people are sent when everything is down.
const fallbackPage = "192.0.2.99"

// quick are the properties of the targets of incidents.
const quick = "interval 1s 300ms\ntimeout 500ms"

// sites are two networks with fifteen web servers each, behind the uplink of the resolver. Each of three names has ten of
// them.
type sites struct {
	uplink *lab.Host
	zone   string
	addrs  []string
}

var siteNames = []string{"www0.example.org.", "www1.example.org.", "www2.example.org."}

func newSites(l *lab.Lab) *sites {
	s := &sites{uplink: l.Host("uplink")}
	for _, name := range []string{"west", "east"} {
		h := s.uplink.Host(name)
		h.Listen(443)
		for n, addr := range h.Addrs4(15) {
			s.zone += fmt.Sprintf("%s 60 IN A %v\n", siteNames[n%len(siteNames)], addr)
			s.addrs = append(s.addrs, addr.String())
		}
	}
	slices.Sort(s.addrs)
	return s
}

// lacks tells what answers are without.
func lacks(s sight, want []string) error {
	have := s.all()
	missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(have, w) })
	if len(missing) > 0 || len(have) != len(want) {
		return fmt.Errorf("answers have %d members, want %d; without %v", len(have), len(want), missing)
	}
	return nil
}

// allWell expects a state without any fault.
func allWell(s sight, want []string) error {
	n := s.page.Counts
	if n.Up != n.Total || n.Total == 0 || s.isFrozen() || !s.ready {
		return fmt.Errorf("a state without faults, not %+v, frozen: %v, ready: %v", n, s.isFrozen(), s.ready)
	}
	return lacks(s, want)
}

// A resolver starts while it is cut off, and hears of nobody. That says nothing of the others: it serves all addresses
// and no fallback, is not ready before it gives up waiting, and once the network is back everything is as usual.
func TestLabStartsCutOff(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		net := newSites(l)
		net.uplink.Drop()
		i := begin(t, siteNames...)
		i.p = launchProcess(t, quick+"\nfallback "+fallbackPage+"\nwatch "+strings.Join(siteNames, " "), net.zone)
		i.always = func(s sight) error {
			if slices.Contains(s.all(), fallbackPage) {
				return errors.New("the fallback is served")
			}
			// After 30 seconds it no longer waits for verdicts.
			if s.ready && s.page.Counts.Unknown > 0 && s.at < 30*time.Second {
				return fmt.Errorf("ready, although %d targets have no verdict", s.page.Counts.Unknown)
			}
			return nil
		}
		i.phase("silent since the start", func(s sight) error {
			if n := i.p.counted("coredns_shaker_checks_total", `result="timeout"`); n < 300 {
				return fmt.Errorf("300 silent checks, not %v", n)
			}
			if !s.isFrozen() {
				return errors.New("frozen verdicts")
			}
			return lacks(s, net.addrs)
		})
		net.uplink.Clear()
		i.phase("they answer", func(s sight) error { return allWell(s, net.addrs) })
	})
}

// A resolver is cut off from everybody, for longer than it takes a single target to leave. No answer changes, however
// the cut shows.
func TestLabCutOff(t *testing.T) {
	t.Parallel()
	for _, cut := range []struct {
		name     string
		down, up func(*lab.Host)
		least    time.Duration
		result   string
	}{
		{"Silence", func(h *lab.Host) { h.Drop() }, (*lab.Host).Clear, 0, "timeout"},
		{"NoPath", (*lab.Host).Unroute, (*lab.Host).Route, noPathFor + 4*time.Second, "inconclusive"},
	} {
		t.Run(cut.name, func(t *testing.T) {
			t.Parallel()
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				net := newSites(l)
				i := begin(t, siteNames...)
				i.p = launchProcess(t, quick+"\nfallback "+fallbackPage, net.zone)
				i.phase("all is well", func(s sight) error { return allWell(s, net.addrs) })
				i.always = func(s sight) error { return lacks(s, net.addrs) }
				cut.down(net.uplink)
				began := time.Now()
				i.phase("cut off", func(s sight) error {
					n := i.p.counted("coredns_shaker_checks_total", `result="`+cut.result+`"`)
					if took := time.Since(began); took < cut.least || n < 300 {
						return fmt.Errorf("a cut of %v and 300 checks, not %v and %v", cut.least, took, n)
					}
					return nil
				})
				cut.up(net.uplink)
				i.phase("they answer", func(s sight) error { return allWell(s, net.addrs) })
			})
		})
	}
}

// noPathFor is how long this machine has no path to a target before that leaves, as docs/checks.md says.
const noPathFor = 20 * time.Second

// Two of six hosts die. They have twenty services each beside the one that all have, but no more to say for that: they
// leave all answers.
func TestLabManyPorts(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		i := begin(t, "www.example.org.")
		var hosts []*lab.Host
		var addrs []netip.Addr
		for n := range 3 {
			h := l.Host(fmt.Sprintf("net%d", n+1))
			h.Listen(443)
			hosts = append(hosts, h)
			addrs = append(addrs, h.Addrs4(2)...)
		}
		dying, living := []netip.Addr{addrs[0], addrs[2]}, []netip.Addr{addrs[1], addrs[3], addrs[4], addrs[5]}
		var zone strings.Builder
		for _, addr := range addrs {
			fmt.Fprintf(&zone, "www 60 IN A %v\n%s 60 IN A %v\n", addr, hostName(addr), addr)
		}
		for n := range 20 {
			port := uint16(8001 + n)
			name := fmt.Sprintf("_s%d._tcp.example.org.", n+1)
			i.srv = append(i.srv, name)
			for _, addr := range dying {
				fmt.Fprintf(&zone, "%s 60 IN SRV 0 0 %d %s\n", name, port, hostName(addr))
			}
			// A backup, so that there is somebody left.
			fmt.Fprintf(&zone, "%s 60 IN SRV 1 0 443 %s\n", name, hostName(living[0]))
			hosts[0].Listen(port)
			hosts[1].Listen(port)
		}
		members := func(addrs ...netip.Addr) (all []string) {
			for _, addr := range addrs {
				all = append(all, addr.String())
			}
			for range i.srv {
				for _, addr := range addrs {
					if addr == living[0] || slices.Contains(dying, addr) {
						all = append(all, hostName(addr))
					}
				}
			}
			return all
		}
		i.p = launchProcess(t, quick, zone.String())
		i.phase("all is well", func(s sight) error {
			if s.page.Counts.Total != 6+2*20 {
				return fmt.Errorf("46 targets, not %+v", s.page.Counts)
			}
			return allWell(s, members(addrs...))
		})
		i.always = func(s sight) error {
			if s.isFrozen() {
				return errors.New("two hosts are taken for all")
			}
			for _, addr := range living {
				if !slices.Contains(s.answers["www.example.org."], addr.String()) {
					return fmt.Errorf("%v, which lives, is not in answers", addr)
				}
			}
			return nil
		}
		hosts[0].FilterIn(fmt.Sprintf("ip daddr %v drop", dying[0]))
		hosts[1].FilterIn(fmt.Sprintf("ip daddr %v drop", dying[1]))
		i.phase("two hosts swallow everything", func(s sight) error { return lacks(s, members(living...)) })
		hosts[0].Clear()
		hosts[1].Clear()
		i.phase("they answer", func(s sight) error { return allWell(s, members(addrs...)) })
	})
}

// hostName names a host by the second and the last octet of its address.
func hostName(addr netip.Addr) string {
	octets := addr.As4()
	return fmt.Sprintf("h%d-%d.example.org.", octets[1], octets[3])
}

// This machine has no path to some targets any more. They stay for a while, since routes that change are back soon, and
// then they leave: others answer. They come back with the path.
func TestLabNoPath(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		// Four that stay, two behind a tunnel, and one that a firewall of this machine's own rejects, as kube-proxy
		// does for a service without endpoints.
		var well, lost []string
		for n := range 2 {
			h := l.Host(fmt.Sprintf("net%d", n+1))
			h.Listen(443)
			for _, addr := range h.Addrs4(2) {
				well = append(well, addr.String())
			}
		}
		tunnel, service := l.Host("tunnel"), l.Host("service")
		tunnel.Listen(443)
		service.Listen(443)
		for _, addr := range append(tunnel.Addrs4(2), service.Addrs4(1)...) {
			lost = append(lost, addr.String())
		}
		all := slices.Concat(well, lost)
		i := begin(t, "www.example.org.")
		var zone strings.Builder
		for _, addr := range all {
			fmt.Fprintf(&zone, "www 60 IN A %s\n", addr)
		}
		i.p = launchProcess(t, quick, zone.String())
		i.phase("all is well", func(s sight) error { return allWell(s, all) })

		began := time.Now()
		tunnel.Unroute()
		l.FilterOut(fmt.Sprintf("ip daddr %s reject with icmp type port-unreachable", lost[2]))
		i.always = func(s sight) error {
			if err := lacks(s, all); err != nil && time.Since(began) < noPathFor-time.Second {
				return fmt.Errorf("so soon: %w", err)
			}
			for _, addr := range well {
				if !slices.Contains(s.all(), addr) {
					return fmt.Errorf("%s, which answers, is gone", addr)
				}
			}
			return nil
		}
		i.phase("no path to three of seven", func(s sight) error { return lacks(s, well) })
		tunnel.Route()
		l.Clear()
		i.always = func(sight) error { return nil }
		i.phase("the paths are back", func(s sight) error { return allWell(s, all) })
	})
}

// CoreDNS gets so little of the CPU that the kernel completes handshakes behind its back, and the hosts reset them. They
// have answered nevertheless.
func TestLabStarved(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		const trip = 80 * time.Millisecond
		var zone strings.Builder
		var all []string
		var completed atomic.Int64
		for n := range 3 {
			h := l.Host(fmt.Sprintf("net%d", n+1))
			serveResets(t, h, 443, &completed)
			h.Delay(trip)
			for _, addr := range h.Addrs4(2) {
				fmt.Fprintf(&zone, "www 60 IN A %v\n", addr)
				all = append(all, addr.String())
			}
		}
		i := begin(t, "www.example.org.")
		i.p = launchProcess(t, "interval 300ms 100ms\ntimeout 2s", zone.String())
		i.phase("all is well", func(s sight) error { return allWell(s, all) })
		feed := i.p.starve(350*time.Millisecond, 50*time.Millisecond)
		i.always = func(s sight) error { return lacks(s, all) }
		i.phase("starved", func(sight) error {
			if n := completed.Load(); n < 40 {
				return fmt.Errorf("40 handshakes that were completed and reset, not %d", n)
			}
			return nil
		})
		feed()
		results := ""
		for _, r := range []string{"answered", "refused", "timeout", "unreachable", "inconclusive"} {
			results += fmt.Sprintf(" %v %s", i.p.counted("coredns_shaker_checks_total", `result="`+r+`"`), r)
		}
		downs := i.p.counted("coredns_shaker_state_changes_total", `state="down"`)
		t.Logf("checks:%s; %d handshakes completed and reset; %v times a living target went down", results, completed.Load(), downs)
		if downs > 0 || i.p.counted("coredns_shaker_checks_total", `result="refused"`) > 0 {
			t.Errorf("checks:%s; %v times a living target went down", results, downs)
		}
	})
}

// serveResets accepts connections and resets each at once.
func serveResets(t *testing.T, h *lab.Host, port uint16, count *atomic.Int64) {
	var ln net.Listener
	var err error
	h.Do(func() { ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				count.Add(1)
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
}
