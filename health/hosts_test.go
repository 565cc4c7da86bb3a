package health

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// estate is a monitor with targets whose fates a test decides. What has none answers after a millisecond.
type estate struct {
	*Monitor
	seen recorder
	net  *network

	mu    sync.Mutex
	fates map[netip.AddrPort]checker.Report
	all   []*Target
}

func newEstate(t *testing.T) *estate {
	e := &estate{fates: map[netip.AddrPort]checker.Report{}}
	e.Monitor = New(Options{Listener: &e.seen})
	e.net = newNetwork(t, e.Monitor, func(c checker.Check) (checker.Report, time.Duration) {
		e.mu.Lock()
		defer e.mu.Unlock()
		r, ok := e.fates[c.Target]
		switch {
		case !ok:
			return checker.Report{Result: checker.Answered}, time.Millisecond
		case r.Result == checker.Timeout:
			return r, c.Timeout
		default:
			return r, time.Millisecond
		}
	})
	e.SetProber(e.net)
	return e
}

// want adds targets to the table, and returns them.
func (e *estate) want(s Settings, addrs ...netip.AddrPort) (targets []*Target) {
	for _, a := range addrs {
		targets = append(targets, e.Target(a, unique.Make(s), maxDuration))
	}
	e.all = append(e.all, targets...)
	return targets
}

// befall lets all checks of targets have a result from now on. An answer ends that.
func (e *estate) befall(r checker.Report, addrs ...netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range addrs {
		if r.Result == checker.Answered {
			delete(e.fates, a)
		} else {
			e.fates[a] = r
		}
	}
}

func (e *estate) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantStates checks the states of targets.
func (e *estate) wantStates(t *testing.T, when string, want State, targets []*Target) {
	t.Helper()
	wrong := 0
	for _, target := range targets {
		if target.State() != want {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d are not %v", when, wrong, len(targets), want)
	}
}

func (e *estate) wantFrozen(t *testing.T, when string, want bool) {
	t.Helper()
	if _, frozen := e.Frozen(); frozen != want {
		t.Errorf("%s: frozen is %v, told %+v", when, frozen, e.seen.freezes)
	}
}

// addrPorts returns the addresses from the first to the last, each with ports from 1 up.
func addrPorts(format string, first, last, ports int) (all []netip.AddrPort) {
	for i := first; i <= last; i++ {
		for port := 1; port <= ports; port++ {
			all = append(all, netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(format, i)), uint16(port)))
		}
	}
	return all
}

// Hosts have a vote each, and networks a bounded say: who is silent, and what that means.
func TestFreezeCountsHosts(t *testing.T) {
	type group struct {
		format string // of addresses
		hosts  int
		ports  int
		dead   int // ports of each host
	}
	rest := func(networks, hosts int) (groups []group) {
		for i := range networks {
			groups = append(groups, group{fmt.Sprintf("203.0.%d.%%d", i), hosts, 1, 0})
		}
		return groups
	}
	dying := func(networks, hosts, ports int) (groups []group) {
		for i := range networks {
			groups = append(groups, group{fmt.Sprintf("192.0.%d.%%d", i), hosts, ports, ports})
		}
		return groups
	}
	tests := map[string]struct {
		groups  []group
		freezes bool
	}{
		"two hosts of six, twenty ports": {[]group{
			{"192.0.2.%d", 1, 20, 20}, {"192.0.3.%d", 1, 20, 20}, {"192.0.2.1%d", 2, 20, 0}, {"192.0.3.1%d", 2, 20, 0}}, false},
		"two hosts of six, the others with a port": {[]group{
			{"192.0.2.%d", 1, 20, 20}, {"192.0.3.%d", 1, 20, 20}, {"192.0.2.1%d", 2, 1, 0}, {"192.0.3.1%d", 2, 1, 0}}, false},
		"nine hosts of nine, twenty ports":  {dying(9, 1, 20), false},
		"ten hosts of ten, on ten networks": {dying(10, 1, 1), true},
		"ten hosts of ten, on two":          {append(dying(1, 9, 2), group{"198.51.100.%d", 1, 1, 1}), true},
		"all hosts of one network":          {dying(1, 100, 2), false},
		"one port of many, everywhere":      {[]group{{"192.0.2.%d", 20, 10, 9}, {"192.0.3.%d", 20, 10, 9}}, false},
		"five machines with two families": {[]group{
			{"192.0.2.%d", 3, 1, 1}, {"192.0.3.%d", 2, 1, 1}, {"2001:db8:2::%d", 3, 1, 1}, {"2001:db8:3::%d", 2, 1, 1}}, true},
		"a crowd on one network, others live": {append(rest(6, 2), group{"192.0.2.%d", 100, 2, 2}, group{"192.0.3.%d", 1, 1, 1}), false},
		"a crowd in one /64, others live":     {append(rest(6, 2), group{"2001:db8::%x", 200, 1, 1}, group{"192.0.3.%d", 1, 1, 1}), false},
		"a crowd lives, the others do not":    {append(dying(10, 10, 1), group{"2001:db8::%x", 300, 1, 0}), true},
		"one site of two":                     {append(dying(5, 20, 3), rest(5, 20)...), false},
		"one site of two, the larger":         {append(dying(1, 250, 1), rest(1, 5)...), false},
		"three sites of four":                 {append(dying(6, 15, 1), rest(2, 15)...), false},
		"half of every network": {[]group{
			{"192.0.2.%d", 50, 1, 1}, {"192.0.2.1%02d", 50, 1, 0}, {"192.0.3.%d", 50, 1, 1}, {"192.0.3.1%02d", 50, 1, 0}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstate(t)
				defer e.Close()
				e.SetFreeze(90, 5*time.Minute)
				var dead []netip.AddrPort
				var live, dying []*Target
				for _, g := range tt.groups {
					for _, a := range addrPorts(g.format, 1, g.hosts, g.ports) {
						if int(a.Port()) <= g.dead {
							dead = append(dead, a)
							dying = append(dying, e.want(Settings{}, a)...)
							dying = append(dying, e.want(Settings{Rise: 5}, a)...) // of another stanza
						} else {
							live = append(live, e.want(Settings{}, a)...)
						}
					}
				}
				e.pass(10 * time.Second)
				e.wantStates(t, "at first", Up, e.all)
				e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, dead...)
				e.pass(10 * time.Second)
				e.wantFrozen(t, "silent", tt.freezes)
				state := Down
				if tt.freezes {
					state = Up
				}
				e.wantStates(t, "silent", state, dying)
				e.wantStates(t, "alive", Up, live)
				if !tt.freezes && len(e.seen.freezes) > 0 {
					t.Errorf("froze in between: %+v", e.seen.freezes)
				}
				e.befall(checker.Report{Result: checker.Answered}, dead...)
				e.pass(20 * time.Second)
				e.wantFrozen(t, "back", false)
				e.wantStates(t, "back", Up, e.all)
			})
		})
	}
}

// A process that is cut off when it starts never heard of anybody.
func TestFreezeAtStart(t *testing.T) {
	silence := checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}
	unreachable := checker.Report{Result: checker.Unreachable}
	two := func(a, b int) []netip.AddrPort {
		return append(addrPorts("192.0.2.%d", 1, a, 1), addrPorts("192.0.3.%d", 1, b, 1)...)
	}
	tests := map[string]struct {
		dead, live []netip.AddrPort
		fate       checker.Report
		settings   Settings
		freezes    bool
		passing    int // so many were down for a moment, at most
	}{
		"thirty on two networks":     {two(15, 15), nil, silence, Settings{}, true, 0},
		"most on one of two":         {two(29, 1), nil, silence, Settings{}, true, 0},
		"unreachable":                {two(15, 15), nil, unreachable, Settings{}, true, 0},
		"fall 1":                     {two(15, 15), nil, silence, Settings{Fall: 1}, true, 15},
		"slow":                       {two(15, 15), nil, silence, Settings{Interval: time.Minute, Fast: 2 * time.Second}, true, 0},
		"one neighbour lives":        {two(15, 15), addrPorts("198.51.100.%d", 1, 1, 1), silence, Settings{}, true, 0},
		"a port of a neighbour each": {two(15, 15), addrPorts("198.51.100.%d", 1, 1, 40), silence, Settings{}, true, 0},
		"a third lives":              {two(10, 10), addrPorts("198.51.100.%d", 1, 10, 1), silence, Settings{}, false, 0},
		"nine hosts":                 {two(4, 5), nil, silence, Settings{}, false, 0},
		"nine hosts, many ports":     {addrPorts("192.0.%d.1", 1, 9, 20), nil, silence, Settings{}, false, 0},
		"one network":                {two(30, 0), nil, silence, Settings{}, false, 0},
		"refused":                    {two(15, 15), nil, checker.Report{Result: checker.Refused}, Settings{}, false, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstate(t)
				defer e.Close()
				e.SetFreeze(90, 5*time.Minute)
				e.befall(tt.fate, tt.dead...)
				live := e.want(tt.settings, tt.live...)
				dead := e.want(tt.settings, tt.dead...)
				e.pass(30 * time.Second)
				e.wantFrozen(t, "cut off", tt.freezes)
				e.wantStates(t, "alive", Up, live)
				downs := 0
				for _, c := range e.seen.reset() {
					if c.To == Down {
						downs++
					}
				}
				if !tt.freezes {
					e.wantStates(t, "dead", Down, dead)
					return
				}
				e.wantStates(t, "cut off", Unknown, dead)
				if downs > tt.passing {
					t.Errorf("%d went down before verdicts were frozen, want %d at most", downs, tt.passing)
				}
				for _, target := range dead {
					if s := target.Status(); time.Since(s.Since) != 30*time.Second || s.Falls != 0 {
						t.Fatalf("%v: %+v", target.Addr(), s)
					}
				}
				e.befall(checker.Report{Result: checker.Answered}, tt.dead[1:]...)
				e.pass(max(10*time.Second, 2*settings(dead[0].settings).Interval))
				e.wantFrozen(t, "back", false)
				e.wantStates(t, "back", Up, dead[1:])
				e.wantStates(t, "really dead", Down, dead[:1])
				if n := len(e.seen.freezes); n != 2 || e.seen.freezes[1].Expired {
					t.Errorf("told %+v", e.seen.freezes)
				}
			})
		})
	}
}

// A process that is cut off when it starts may be asked for one address after the other. It counts them all as long as
// it has heard of nobody.
func TestFreezeAtStartSlowly(t *testing.T) {
	for _, interval := range []time.Duration{2 * time.Second, 10 * time.Second} {
		for _, live := range []int{0, 1} {
			synctest.Test(t, func(t *testing.T) {
				e := newEstate(t)
				defer e.Close()
				e.SetFreeze(90, 5*time.Minute)
				e.want(Settings{}, addrPorts("198.51.100.%d", 1, live, 1)...)
				addrs := append(addrPorts("192.0.2.%d", 1, 6, 2), addrPorts("192.0.3.%d", 1, 6, 2)...)
				e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, addrs...)
				var silent []*Target
				for i, a := range addrs {
					silent = append(silent, e.want(Settings{Interval: interval}, a)...)
					e.pass(5 * time.Second)
					if i < 9 || live > 0 {
						e.wantStates(t, "one by one", Down, silent)
					}
				}
				e.wantFrozen(t, "all silent", live == 0)
				if live == 0 {
					e.wantStates(t, "all silent", Unknown, silent)
				}
				reset := netip.MustParseAddrPort("192.0.2.1:9")
				e.befall(checker.Report{Result: checker.Refused}, reset)
				refused := e.want(Settings{}, reset)
				e.pass(time.Second)
				e.wantFrozen(t, "one is heard of", live == 0)
				e.wantStates(t, "refused", Down, refused)
				e.befall(checker.Report{Result: checker.Answered}, addrs...)
				e.pass(5*time.Second + 2*interval)
				e.wantFrozen(t, "back", false)
				e.wantStates(t, "back", Up, silent)
			})
		}
	}
}

// What went down by a RST, or by silence long before, is no matter of a freeze.
func TestFreezeRestores(t *testing.T) {
	silence, refused := checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, checker.Report{Result: checker.Refused}
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, 5*time.Minute)
		s := Settings{Interval: 20 * time.Second, Fall: 2}
		one := func(network int) []netip.AddrPort { return addrPorts(fmt.Sprintf("10.0.%d.%%d", network), 1, 1, 1) }
		long, reset, lately := e.want(s, one(1)...), e.want(s, one(2)...), e.want(s, one(3)...)
		rest := e.want(Settings{}, addrPorts("192.0.%d.1", 1, 100, 1)...)
		e.pass(time.Minute)
		fall := func(target *Target, r checker.Report) {
			e.befall(r, target.Addr())
			for target.State() != Down {
				e.pass(100 * time.Millisecond)
			}
		}
		fall(long[0], silence)
		e.pass(21 * time.Second)
		fall(reset[0], refused)
		e.befall(silence, one(2)...)
		fall(lately[0], silence)
		e.befall(silence, addrPorts("192.0.%d.1", 1, 100, 1)...)
		e.pass(5 * time.Second)
		e.wantFrozen(t, "cut", true)
		e.wantStates(t, "silent for long", Down, long)
		e.wantStates(t, "reset", Down, reset)
		e.wantStates(t, "silent just before", Up, lately)
		e.wantStates(t, "cut", Up, rest)
	})
}

// silenced tells who is down by silence alone.
func TestSilenced(t *testing.T) {
	for letters, want := range map[string]bool{
		"": false, "t": false, "ttt": true, "uut": true, "r": false, "attt": true, "attr": false, "arrt": true,
		"tttt": true, "ttt-": true, "ttt-t": true, "tttr": false, "tttrt": false, "ttta": false, "tttat": false, "tttaa": false, "arrrttt": false,
	} {
		m := newMonitor(Options{})
		target := m.Target(addr(1), plain, time.Hour)
		s := settings(plain)
		for _, letter := range letters {
			target.judge(&checker.Report{Result: results[letter]}, &s, 0, usual)
		}
		if got := target.load()&silenced != 0; got != want {
			t.Errorf("%q: %v, want %v", letters, got, want)
		}
	}
}

// Of all freezes, that at the start is bounded most strictly: anybody can make up addresses that are dead.
func TestFreezeAtStartIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, time.Minute)
		silence := checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}
		flood := func(network int) []*Target {
			var addrs []netip.AddrPort
			for i := range 20 {
				addrs = append(addrs, addrPorts(fmt.Sprintf("10.%d.%d.%%d", network, i), 1, 20, 1)...)
			}
			e.befall(silence, addrs...)
			return e.want(Settings{}, addrs...)
		}
		live := e.want(Settings{}, addrPorts("192.0.2.%d", 1, 5, 1)...)
		first := flood(1)
		e.pass(30 * time.Second)
		e.wantFrozen(t, "first flood", true)
		e.pass(40 * time.Second)
		e.wantFrozen(t, "after MAX", false)
		e.wantStates(t, "after MAX", Down, first)
		e.pass(time.Minute) // so that those who answer are the majority
		second := flood(2)
		e.pass(10 * time.Second)
		e.wantFrozen(t, "second flood", false)
		e.wantStates(t, "second flood", Down, second)
		e.wantStates(t, "alive", Up, live)
		if n := len(e.seen.freezes); n != 2 || !e.seen.freezes[1].Expired {
			t.Errorf("told %+v", e.seen.freezes)
		}
	})
}

// Once some hosts were heard of, dead addresses that are new mean nothing.
func TestFreezeAfterStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t)
		defer e.Close()
		e.SetFreeze(90, time.Minute)
		live := e.want(Settings{}, addrPorts("192.0.2.%d", 1, 20, 1)...)
		e.pass(10 * time.Second)
		dead := addrPorts("10.0.%d.1", 1, 250, 2)
		e.befall(checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, dead...)
		gone := e.want(Settings{}, dead...)
		e.pass(10 * time.Second)
		e.wantStates(t, "dead", Down, gone)
		e.wantStates(t, "alive", Up, live)
		if len(e.seen.freezes) > 0 {
			t.Errorf("told %+v", e.seen.freezes)
		}
	})
}
