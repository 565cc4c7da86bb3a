package health

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// fleet is a number of targets on networks of 20 each, some of which can be cut off.
type fleet struct {
	targets []*Target
	cut     atomic.Int64 // so many networks, from the first on
	late    atomic.Int64 // how long after its time an answer comes in
	seen    recorder
	*Monitor
}

const fleetNetwork = 20

// newFleet starts n targets, all up after a while. What is cut off has the result dead.
func newFleet(t *testing.T, n int, format string, dead checker.Result, s Settings) *fleet {
	f := new(fleet)
	f.Monitor = New(Options{Listener: &f.seen})
	network := map[netip.AddrPort]int64{}
	f.SetProber(newNetwork(t, f.Monitor, func(c checker.Check) (checker.Report, time.Duration) {
		switch {
		case network[c.Target] >= f.cut.Load():
			return checker.Report{Result: checker.Answered}, time.Millisecond + time.Duration(f.late.Load())
		case dead == checker.Timeout:
			return checker.Report{Result: dead}, c.Timeout
		default:
			return checker.Report{Result: dead}, time.Millisecond
		}
	}))
	key := unique.Make(s)
	for i := range n {
		addr := netip.MustParseAddrPort(fmt.Sprintf(format, i/fleetNetwork, i%fleetNetwork))
		network[addr] = int64(i / fleetNetwork)
	}
	for i := range n {
		addr := netip.MustParseAddrPort(fmt.Sprintf(format, i/fleetNetwork, i%fleetNetwork))
		f.targets = append(f.targets, f.Target(addr, key, maxDuration))
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	f.wantUp(t, "at first", n)
	return f
}

func (f *fleet) wantUp(t *testing.T, when string, want int) {
	t.Helper()
	up := 0
	for _, target := range f.targets {
		if target.State() == Up {
			up++
		}
	}
	if up != want || f.Counts().Up != want {
		t.Errorf("%s: %d up, counted as %d, want %d", when, up, f.Counts().Up, want)
	}
}

// changes returns how many targets changed since the last call, and how many hosts those that went down are for the
// ballot, where some share a seat.
func (f *fleet) changes() (downs, hosts, ups int) {
	seats := map[*seat]bool{}
	for _, c := range f.seen.reset() {
		if c.To == Down {
			downs++
			seats[c.Target.seat] = true
		} else if c.From == Down {
			ups++
		}
	}
	return downs, len(seats), ups
}

func TestFreeze(t *testing.T) {
	const v4, v6 = "192.0.%d.%d:443", "[2001:db8:0:%x::%x]:443"
	quick := Settings{Interval: 10 * time.Second, Fast: 100 * time.Millisecond, Timeout: 200 * time.Millisecond}
	once := Settings{Fall: 1}
	silent, unreachable, refused := checker.Timeout, checker.Unreachable, checker.Refused
	tests := map[string]struct {
		format       string
		targets, cut int // cut is networks
		dead         checker.Result
		settings     Settings
		percent      int
		freezes      bool
		passing      int // how many hosts were down for a moment, at most
	}{
		"uplink":              {v4, 200, 10, silent, Settings{}, 90, true, 0},
		"uplink, IPv6":        {v6, 200, 10, silent, Settings{}, 90, true, 0},
		"uplink, unreachable": {v4, 200, 10, unreachable, Settings{}, 90, true, 0},
		"uplink, quick":       {v4, 1000, 50, silent, quick, 90, true, 0},
		// The first failure of each target brings it down, as long as too few hosts are silent for a freeze. How many
		// targets these are is chance, since some share a seat: 9 to 13 in 2000 runs.
		"uplink, fall 1": {v4, 200, 10, silent, once, 90, true, frozenFrom - 1},
		// Besides, few hosts may have been heard of within the last half a second, counted in whole slots: so it takes
		// up to 0.6 s, in which the probes of chance bring down 46 hosts of 90, with a standard deviation of 4 (in 130
		// runs). The bound is seven of those above.
		"uplink, fall 1, at once": {v4, 200, 10, unreachable, once, 90, true, 75},
		"all but a local network": {v4, 400, 19, silent, Settings{}, 90, true, 0},
		"twenty-one":              {v4, 21, 2, silent, Settings{}, 90, true, 0},
		"a rack":                  {v4, 200, 1, silent, Settings{}, 90, false, 0},
		"one site of two":         {v4, 200, 5, silent, Settings{}, 90, false, 0},
		"one of two, at 50":       {v4, 200, 5, silent, Settings{}, 50, true, 0},
		"four sites of five":      {v4, 200, 8, silent, Settings{}, 90, false, 0},
		"refused":                 {v4, 200, 10, refused, Settings{}, 90, false, 0},
		"one network":             {v4, 20, 1, silent, Settings{}, 90, false, 0},
		"off":                     {v4, 200, 10, silent, Settings{}, 0, false, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, tt.targets, tt.format, tt.dead, tt.settings)
				defer f.Close()
				f.SetFreeze(tt.percent, 5*time.Minute)
				f.cut.Store(int64(tt.cut))
				time.Sleep(30 * time.Second)
				synctest.Wait()
				left := max(0, tt.targets-tt.cut*fleetNetwork)
				began, frozen := f.Frozen()
				if frozen != tt.freezes || frozen && time.Since(began) < 25*time.Second {
					t.Errorf("frozen %v since %v", frozen, began)
				}
				if tt.freezes {
					left = tt.targets
				}
				f.wantUp(t, "cut off", left)
				downs, hosts, ups := f.changes()
				switch want := tt.targets - left; {
				case downs-ups != want, !tt.freezes && ups != 0:
					t.Errorf("%d went down and %d up, want %d to stay down", downs, ups, want)
				case tt.freezes && hosts > tt.passing:
					t.Errorf("%d targets on %d hosts were down for a moment, want at most %d hosts", downs, hosts, tt.passing)
				}
				f.cut.Store(0)
				time.Sleep(time.Minute)
				synctest.Wait()
				f.wantUp(t, "back", tt.targets)
				if downs, _, ups := f.changes(); downs != 0 || ups != tt.targets-left {
					t.Errorf("once back, %d went down and %d up", downs, ups)
				}
				if _, frozen := f.Frozen(); frozen {
					t.Error("still frozen")
				}
				if !tt.freezes {
					if len(f.seen.freezes) > 0 {
						t.Errorf("froze: %+v", f.seen.freezes)
					}
					return
				}
				if len(f.seen.freezes) != 2 {
					t.Fatalf("%+v, want to freeze and to thaw", f.seen.freezes)
				}
				if on := f.seen.freezes[0]; !on.Frozen || on.Silent < frozenFrom {
					t.Errorf("froze because of %+v", on)
				}
				if off := f.seen.freezes[1]; off.Frozen || off.Expired || off.Took < 25*time.Second || off.Took > 42*time.Second {
					t.Errorf("thawed: %+v", off)
				}
			})
		})
	}
}

// A process that is starved of CPU may take failures and answers in together. Answers to what was sent before the cut do
// not prove that this machine still reaches anybody.
func TestFreezeWhileStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 200, "192.0.%d.%d:443", checker.Unreachable, Settings{Interval: time.Second, Fast: 100 * time.Millisecond})
		defer f.Close()
		f.SetFreeze(90, 5*time.Minute)
		f.late.Store(int64(500 * time.Millisecond))
		time.Sleep(10 * time.Second)
		f.cut.Store(10)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, frozen := f.Frozen(); !frozen {
			t.Error("not frozen")
		}
		if downs, _, _ := f.changes(); downs != 0 {
			t.Errorf("%d targets were down for a moment", downs)
		}
	})
}

// A freeze ends after its time even if nobody answers. It does not come again before somebody did.
func TestFreezeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 100, "192.0.%d.%d:443", checker.Timeout, Settings{})
		defer f.Close()
		f.SetFreeze(90, 20*time.Second)
		f.cut.Store(5)
		for _, step := range []struct {
			when string
			wait time.Duration
			up   int
		}{{"frozen", 20 * time.Second, 100}, {"thawed", 10 * time.Second, 0}, {"for good", time.Hour, 0}} {
			time.Sleep(step.wait)
			synctest.Wait()
			f.wantUp(t, step.when, step.up)
		}
		if n := len(f.seen.freezes); n != 2 || !f.seen.freezes[1].Expired || f.seen.freezes[1].Took < 20*time.Second {
			t.Fatalf("%+v, want one freeze that took its time", f.seen.freezes)
		}
		f.cut.Store(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		f.wantUp(t, "back", 100)
		f.cut.Store(5)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		f.wantUp(t, "cut off again", 100)
		f.SetFreeze(0, 0)
		synctest.Wait()
		if _, frozen := f.Frozen(); frozen || len(f.seen.freezes) != 4 || f.seen.freezes[3].Expired {
			t.Errorf("frozen %v although nobody wants that, told %+v", frozen, f.seen.freezes)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		f.wantUp(t, "off", 0)
	})
}

// What really died while this machine was cut off is noticed when it is not any more, and what refuses even before.
func TestFreezeEndsInTruth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 200, "192.0.%d.%d:443", checker.Timeout, Settings{})
		defer f.Close()
		f.SetFreeze(90, 5*time.Minute)
		f.cut.Store(10)
		time.Sleep(10 * time.Second)
		fresh := f.Target(netip.MustParseAddrPort("192.0.0.200:443"), plain, maxDuration)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if fresh.State() != Unknown {
			t.Errorf("a new target is %v although verdicts are frozen", fresh.State())
		}
		f.cut.Store(1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i, target := range f.targets {
			if want := map[bool]State{true: Down, false: Up}[i < fleetNetwork]; target.State() != want {
				t.Errorf("target %d is %v, want %v", i, target.State(), want)
			}
		}
		if fresh.State() != Down {
			t.Errorf("the new target is %v, want down", fresh.State())
		}
		if len(f.seen.freezes) != 2 {
			t.Errorf("%+v", f.seen.freezes)
		}
	})
}

// The README has the numbers that decide.
func TestFreezeInReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("at least %d hosts, on more than one network (/%d or /%d)", frozenFrom, networkBits4, networkBits6)
	if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
		t.Errorf("the README does not say %q", want)
	}
}
