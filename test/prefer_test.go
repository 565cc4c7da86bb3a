package test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// failover is a server whose names have their machines at several sites, of which the first that lives is to be served.
// All that clients see of it is judged by what the status page tells before and after.
type failover struct {
	t        *testing.T
	s        *server
	page     string // of its status
	port     uint16
	machines []machine
	views    []failoverView
	// cut has all machines of a site die, and mend has them live again.
	cut, mend func(site int)
	// bound is how long dead machines stay in answers at most, by docs/intervals.md.
	bound time.Duration

	dead  map[int]bool // sites
	began time.Time
	table strings.Builder
	row   string // the last in the table
}

// machine is one of a site. The better sites have the smaller numbers, from 1.
type machine struct {
	name  string // m1-4 is the fourth of site 1
	site  int
	addrs []netip.Addr
}

// failoverView is a way in which clients find machines.
type failoverView struct {
	name  string
	qname string
	qtype uint16
	leads func(netip.Addr) bool // whether it leads to an address
	found func(f *failover, m *dns.Msg) (machines []string)
	// bare means that nothing leads to the machines where all of them are dead.
	bare bool
}

var (
	viewA    = failoverView{"A", "www.example.org.", dns.TypeA, netip.Addr.Is4, (*failover).named, false}
	viewAAAA = failoverView{"AAAA", "www.example.org.", dns.TypeAAAA, netip.Addr.Is6, (*failover).named, false}
	viewSRV  = failoverView{"SRV", "_web._tcp.example.org.", dns.TypeSRV, netip.Addr.IsValid, (*failover).targets, false}
	viewHint = failoverView{"hints", "api.example.org.", dns.TypeHTTPS, netip.Addr.Is4, (*failover).hinted, true}
)

// zoneFile writes the zone that all views are of.
func (f *failover) zoneFile() string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	var hints []string
	for _, m := range f.machines {
		fmt.Fprintf(&b, "_web._tcp 300 IN SRV 0 0 %d %s\n", f.port, m.name)
		for _, addr := range m.addrs {
			rrtype := "AAAA"
			if addr.Is4() {
				rrtype = "A"
				hints = append(hints, addr.String())
			}
			fmt.Fprintf(&b, "%s 300 IN %s %s\nwww 300 IN %s %s\n", m.name, rrtype, addr, rrtype, addr)
		}
	}
	fmt.Fprintf(&b, "api 300 IN HTTPS 1 . port=%d ipv4hint=%s\n", f.port, strings.Join(hints, ","))
	return lab.File(f.t, "db.example.org", b.String())
}

// named returns the machines whose addresses are in the answer.
func (f *failover) named(m *dns.Msg) []string { return f.having(addresses(m)) }

// targets returns the machines that SRV records lead to. No address of another may be beside them.
func (f *failover) targets(m *dns.Msg) (names []string) {
	for _, rr := range m.Answer {
		names = append(names, strings.TrimSuffix(rr.(*dns.SRV).Target, ".example.org."))
	}
	slices.Sort(names)
	for _, name := range f.having(addresses(&dns.Msg{Answer: m.Extra})) {
		if !slices.Contains(names, name) {
			f.t.Errorf("an address of %s is beside\n%v", name, m)
		}
	}
	return names
}

// hinted returns the machines that an HTTPS record has hints of.
func (f *failover) hinted(m *dns.Msg) []string {
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		for _, value := range rr.(*dns.HTTPS).Value {
			if hint, ok := value.(*dns.SVCBIPv4Hint); ok {
				for _, ip := range hint.Hint {
					addrs = append(addrs, netip.MustParseAddr(ip.String()))
				}
			}
		}
	}
	return f.having(addrs)
}

// having returns the names of machines by their addresses, sorted.
func (f *failover) having(addrs []netip.Addr) (names []string) {
	for _, m := range f.machines {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(m.addrs, a) }) {
			names = append(names, m.name)
		}
	}
	return names
}

// at returns the names of the machines of a site, 0 for those of all.
func (f *failover) at(site int) (names []string) {
	for _, m := range f.machines {
		if site == 0 || m.site == site {
			names = append(names, m.name)
		}
	}
	return names
}

// states tells what is known of each target, by its address and port.
func (f *failover) states() map[string]string {
	f.t.Helper()
	return statusOf(f.t, f.page, "").states()
}

// all tells whether everything is in a state that a view leads to on a machine.
func (f *failover) all(v failoverView, m machine, states map[string]string, state string) bool {
	return !slices.ContainsFunc(m.addrs, func(a netip.Addr) bool {
		return v.leads(a) && states[netip.AddrPortFrom(a, f.port).String()] != state
	})
}

// anyUp tells whether any target is up.
func (f *failover) anyUp(states map[string]string) bool {
	return slices.Contains(slices.Collect(maps.Values(states)), "up")
}

// judge says what is wrong with the machines that were found between two looks at the page.
func (f *failover) judge(v failoverView, found []string, before, after map[string]string) error {
	everyDown := func(states map[string]string) bool {
		return !slices.ContainsFunc(f.machines, func(m machine) bool { return !f.all(v, m, states, "down") })
	}
	if everyDown(before) || everyDown(after) {
		// A family has no addresses where it is dead and the other is not.
		alone := f.anyUp(before) || f.anyUp(after)
		if (v.bare || alone) && len(found) == 0 || !v.bare && slices.Equal(found, f.at(0)) {
			return nil
		}
	}
	if len(found) == 0 {
		return errors.New("nothing was found")
	}
	served := 0
	for _, m := range f.machines {
		if !slices.Contains(found, m.name) {
			continue
		}
		if served == 0 {
			served = m.site
		}
		switch {
		case m.site != served:
			return fmt.Errorf("two sites at once in %v", found)
		case f.all(v, m, before, "down") && f.all(v, m, after, "down"):
			return fmt.Errorf("%s is down, and in %v", m.name, found)
		}
	}
	for _, m := range f.machines {
		up := f.all(v, m, before, "up") && f.all(v, m, after, "up")
		if up && m.site <= served && !slices.Contains(found, m.name) {
			return fmt.Errorf("%s is up, and not in %v", m.name, found)
		}
	}
	return nil
}

// settled tells whether the page says of every machine what is true.
func (f *failover) settled(states map[string]string) bool {
	for _, m := range f.machines {
		for _, addr := range m.addrs {
			want := "up"
			if f.dead[m.site] {
				want = "down"
			}
			if states[netip.AddrPortFrom(addr, f.port).String()] != want {
				return false
			}
		}
	}
	return true
}

// until looks at everything again and again, until all is known and every view is of this site: 0 is all of them.
func (f *failover) until(what string, site int) {
	f.t.Helper()
	changed := time.Now()
	if f.began.IsZero() {
		f.began = changed
	}
	fmt.Fprintf(&f.table, "%7.3f s  -- %s\n", changed.Sub(f.began).Seconds(), what)
	running := measurePauses()
	defer running.stop()
	var late time.Duration // when an answer with dead machines was asked for that should not have any
	for end := changed.Add(patience); ; time.Sleep(20 * time.Millisecond) {
		before := f.states()
		asked := time.Now()
		found := make([][]string, len(f.views))
		for i, v := range f.views {
			found[i] = v.found(f, f.s.ask(v.qname, v.qtype, withLongAnswer))
		}
		after := f.states()
		f.note(asked, found)
		done := f.settled(before)
		for i, v := range f.views {
			if err := f.judge(v, found[i], before, after); err != nil {
				f.t.Errorf("%s, %v later, %s: %v", what, asked.Sub(changed), v.name, err)
			}
			if !slices.Equal(found[i], f.at(0)) && slices.ContainsFunc(f.machines, func(m machine) bool {
				return f.dead[m.site] && slices.Contains(found[i], m.name)
			}) {
				late = asked.Sub(changed)
			}
			want := f.at(site)
			if site == 0 && v.bare {
				want = nil
			}
			done = done && slices.Equal(found[i], want)
		}
		if done {
			break
		}
		if asked.After(end) {
			f.t.Fatalf("%s: waited %v in vain for site %d", what, patience, site)
		}
	}
	// Where this process does not run, its checks are late or say nothing, and the bound does not hold.
	pause := running.longest()
	switch most := f.bound + 100*time.Millisecond + 4*pause; {
	case late <= most:
	case pause > 50*time.Millisecond:
		f.t.Logf("%s: dead machines were in an answer %v later; but this machine is so busy that we did not run for %v", what, late, pause)
	default:
		f.t.Errorf("%s: dead machines were in an answer %v later, want no more than %v", what, late, most)
	}
}

// note adds a row to the table where something else is seen than in the last.
func (f *failover) note(at time.Time, found [][]string) {
	var row strings.Builder
	for i, v := range f.views {
		fmt.Fprintf(&row, "  %s: %s", v.name, strings.Join(found[i], " "))
	}
	if row.String() != f.row {
		f.row = row.String()
		fmt.Fprintf(&f.table, "%7.3f s%s\n", at.Sub(f.began).Seconds(), f.row)
	}
}

// play cuts three sites and brings them back, one after the other.
func (f *failover) play() {
	f.t.Helper()
	defer func() { f.t.Logf("what clients saw:\n%s", f.table.String()) }()
	f.dead = make(map[int]bool)
	f.until("all is well", 1)
	for _, step := range []struct {
		site  int
		dies  bool
		serve int // the site, 0 for all
	}{
		{1, true, 2}, {2, true, 3}, {3, true, 0},
		{1, false, 1}, {2, false, 1}, {3, false, 1},
		// One that is not served is checked nevertheless, so it is never served while it is dead.
		{2, true, 1}, {1, true, 3}, {2, false, 2}, {3, true, 2}, {1, false, 1},
	} {
		what := fmt.Sprintf("site %d lives", step.site)
		if step.dies {
			what = fmt.Sprintf("site %d dies", step.site)
			f.cut(step.site)
		} else {
			f.mend(step.site)
		}
		f.dead[step.site] = step.dies
		f.until(what, step.serve)
	}
}

// pauses measures for how long this process was kept from running.
type pauses struct {
	most          atomic.Int64
	ending, ended chan struct{}
}

func measurePauses() *pauses {
	p := &pauses{ending: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		for last := time.Now(); ; {
			select {
			case <-p.ending:
				return
			case <-time.After(time.Millisecond):
			}
			now := time.Now()
			p.most.Store(max(p.most.Load(), int64(now.Sub(last))))
			last = now
		}
	}()
	return p
}

func (p *pauses) longest() time.Duration { return time.Duration(p.most.Load()) }

func (p *pauses) stop() {
	close(p.ending)
	<-p.ended
}

// Three sites of four machines die, whose ports refuse, and live again.
func TestPreferSites(t *testing.T) {
	farm := newFarm(t)
	f := &failover{
		t: t, page: local(t), port: farm.port,
		views: []failoverView{viewA, viewSRV, viewHint},
		bound: 100*time.Millisecond + 2*20*time.Millisecond,
	}
	f.mend = func(site int) {
		for _, m := range f.machines {
			if m.site == site {
				farm.start(m.addrs[0])
			}
		}
	}
	f.cut = func(site int) {
		for _, m := range f.machines {
			if m.site == site {
				farm.kill(m.addrs[0])
			}
		}
	}
	for site := 1; site <= 3; site++ {
		for n := 1; n <= 4; n++ {
			addr := netip.AddrFrom4([4]byte{127, 1, byte(site), byte(n)})
			f.machines = append(f.machines, machine{fmt.Sprintf("m%d-%d", site, n), site, []netip.Addr{addr}})
		}
		f.mend(site)
	}
	f.s = start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			interval 100ms 20ms
			damping off
			hold 4s
			prefer 127.1.1.0/24
			prefer 127.1.2.0/24
			allow 127.0.0.0/8
			status %s
		}
		file %s
	}`, f.port, f.page, f.zoneFile()))
	f.play()
}

// So do three that fall silent, with machines on both families.
func TestLabPreferSites(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		f := &failover{
			t: t, page: local(t), port: 443,
			views: []failoverView{viewA, viewAAAA, viewSRV, viewHint},
			bound: 200*time.Millisecond + 2*200*time.Millisecond + 200*time.Millisecond,
		}
		var hosts []*lab.Host
		var prefixes []string
		for site := 1; site <= 3; site++ {
			h := l.Host(fmt.Sprintf("site%d", site))
			h.Listen(443)
			hosts = append(hosts, h)
			four, six := h.Addrs4(4), h.Addrs6(4)
			for n := range four {
				f.machines = append(f.machines, machine{fmt.Sprintf("m%d-%d", site, n+1), site, []netip.Addr{four[n], six[n]}})
			}
			prefixes = append(prefixes, netip.PrefixFrom(four[0], 16).Masked().String()+" "+netip.PrefixFrom(six[0], 64).Masked().String())
		}
		f.cut = func(site int) { hosts[site-1].Drop() }
		f.mend = func(site int) { hosts[site-1].Clear() }
		f.s = start(t, fmt.Sprintf(`example.org:0 {
			bind 127.0.0.1
			shaker {
				interval 200ms 50ms
				timeout 200ms
				damping off
				hold 4s
				prefer %s
				prefer %s
				freeze off
				status %s
			}
			file %s
		}`, prefixes[0], prefixes[1], f.page, f.zoneFile()))
		f.play()
	})
}

// With panic, a site is served only while enough of it lives; where that is true of none, fallback applies.
func TestPreferPanic(t *testing.T) {
	t.Parallel()
	for fallback, last := range map[string]func(*farm) []netip.Addr{
		"all":        func(f *farm) []netip.Addr { return f.addrs },
		"nodata":     func(*farm) []netip.Addr { return nil },
		"192.0.2.80": func(*farm) []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.80")} },
	} {
		t.Run(fallback, func(t *testing.T) {
			f := newFarm(t, "127.1.4.1", "127.1.4.2", "127.1.4.3", "127.1.4.4", "127.1.5.1", "127.1.5.2", "127.1.5.3")
			first, rest := f.addrs[:4], f.addrs[4:]
			s := start(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %d
					interval 100ms 20ms
					damping off
					hold 4s
					fallback %s
					panic 50
					prefer 127.1.4.0/24
					allow 127.0.0.0/8
				}
				file %s
			}`, f.port, fallback, f.zoneFile()))
			s.until("www.example.org.", dns.TypeA, first)
			f.kill(first[0])
			s.until("www.example.org.", dns.TypeA, first[1:])
			f.kill(first[1])
			s.until("www.example.org.", dns.TypeA, first[2:])
			f.kill(first[2])
			s.until("www.example.org.", dns.TypeA, rest)
			f.kill(rest[0])
			s.until("www.example.org.", dns.TypeA, rest[1:])
			f.kill(rest[1])
			s.until("www.example.org.", dns.TypeA, last(f))
			f.start(first[0])
			s.until("www.example.org.", dns.TypeA, []netip.Addr{first[0], first[3]})
		})
	}
}

// The answers of a cache are chosen from anew, and a name that an alias leads to has the sites of the alias' stanza.
func TestPreferBelow(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.1.6.1", "127.1.6.2", "127.1.7.1", "127.1.7.2")
	upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", f.zoneFile()))
	for backend, directives := range map[string]string{
		"file and cache":    "cache 300\nfile " + f.zoneFile(),
		"hosts":             f.hostsBlock(),
		"forward and cache": "cache 300\nforward . " + upstream.addr,
	} {
		t.Run(backend, func(t *testing.T) {
			s := start(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %[1]d
					interval 100ms 20ms
					damping off
					hold 4s
					prefer 127.1.6.0/24
					allow 127.0.0.0/8
				}
				shaker alias.example.org {
					port %[1]d
					interval 100ms 20ms
					damping off
					hold 4s
					prefer 127.1.7.0/24
					allow 127.0.0.0/8
				}
				%[2]s
			}`, f.port, directives))
			expect := func(www, alias []netip.Addr) {
				t.Helper()
				s.until("www.example.org.", dns.TypeA, www)
				if backend != "hosts" { // which has no aliases
					s.until("alias.example.org.", dns.TypeA, alias)
				}
			}
			expect(f.addrs[:2], f.addrs[2:])
			f.kill(f.addrs[0])
			f.kill(f.addrs[1])
			expect(f.addrs[2:], f.addrs[2:])
			f.kill(f.addrs[2])
			f.start(f.addrs[1])
			expect(f.addrs[1:2], f.addrs[3:])
			f.start(f.addrs[0])
			f.start(f.addrs[2])
			expect(f.addrs[:2], f.addrs[2:])
		})
	}
}

// A machine that a service leads to may have addresses at several sites: those beside the service are of one.
func TestPreferBeside(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.1.8.1", "127.1.8.2", "127.1.9.1")
	zone := standbyZone(t, "example.org.", "m 300 127.1.9.1 127.1.8.1 127.1.8.2")
	lab.AppendFile(t, zone, fmt.Sprintf("_web._tcp 300 IN SRV 0 0 %d m\n", f.port))
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "prefer 127.1.8.0/24")+"file "+zone+"\n}\n")
	expect := func(want []netip.Addr) {
		t.Helper()
		lab.UntilNil(t, func() error {
			m := s.ask("_web._tcp.example.org.", dns.TypeSRV)
			if got := addresses(&dns.Msg{Answer: m.Extra}); len(m.Answer) != 1 || !slices.Equal(got, want) {
				return fmt.Errorf("want a service and %v beside it in\n%v", want, m)
			}
			return nil
		})
	}
	expect(f.addrs[:2])
	f.kill(f.addrs[0])
	expect(f.addrs[1:2])
	f.kill(f.addrs[1])
	expect(f.addrs[2:])
	f.kill(f.addrs[2])
	expect(f.addrs)
	f.start(f.addrs[2])
	expect(f.addrs[2:])
	f.start(f.addrs[0])
	expect(f.addrs[:1])
}
