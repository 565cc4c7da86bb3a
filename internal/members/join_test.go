package members

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// village is what a joiner sees of the world.
type village struct {
	mu     sync.Mutex
	names  map[string][]string // addresses
	there  map[string]bool     // who listens
	joined []string
}

func (v *village) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	v.mu.Lock()
	addrs, ok := v.names[host]
	v.mu.Unlock()
	if host == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if !ok {
		return nil, errors.New("no such host")
	}
	var all []netip.Addr
	for _, a := range addrs {
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

func (v *village) join(at netip.AddrPort) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.joined = append(v.joined, at.String())
	if !v.there[at.String()] {
		return fmt.Errorf("dial %v: refused", at)
	}
	return nil
}

func (v *village) drain() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	slices.Sort(v.joined)
	all := strings.Join(v.joined, " ")
	v.joined = nil
	return all
}

func newVillage(places ...string) (*village, *joiner, *told) {
	v := &village{names: make(map[string][]string), there: make(map[string]bool)}
	lines := new(told)
	m := &Members{tell: lines.listener(), transport: &transport{self: netip.MustParseAddrPort("192.0.2.1:7946"), members: newAddresses()}}
	j := newJoiner(m, places)
	j.resolve, j.join = v.resolve, v.join
	return v, j, lines
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, j, lines := newVillage("192.0.2.1:7946", "[2001:db8::1]:7946", "peers.example:7946", "late.example:7946", "::ffff:192.0.2.1:7946", "slow:7946")
		j.places[4] = "[::ffff:192.0.2.1]:7946"
		v.names["peers.example"] = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
		v.there["192.0.2.2:7946"] = true
		j.start()
		defer j.stop()
		time.Sleep(5500 * time.Millisecond) // a name may take 5 s
		synctest.Wait()
		if got, want := v.drain(), "192.0.2.2:7946 192.0.2.3:7946 [2001:db8::1]:7946"; got != want {
			t.Errorf("joined %q, want %q", got, want)
		}
		want := map[string]string{
			"192.0.2.1:7946": "", "[::ffff:192.0.2.1]:7946": "", "peers.example:7946": "",
			"[2001:db8::1]:7946": "dial [2001:db8::1]:7946: refused", "late.example:7946": "no such host", "slow:7946": "context deadline exceeded",
		}
		for _, r := range j.report() {
			if got := fmt.Sprint(r.Err); got != want[r.Place] && !(r.Err == nil && want[r.Place] == "") {
				t.Errorf("%s: %v, want %q", r.Place, r.Err, want[r.Place])
			}
		}
		if lines.drain() != "" {
			t.Error("what fails once is told")
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := lines.drain(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "Warning: Peers: late.example:7946 cannot be joined, which is tried again every 15s: no such host") {
			t.Errorf("told %q", got)
		}
		// Who has joined this replica meanwhile is no failure any more, also before the next time.
		j.members.transport.members.put("six", netip.MustParseAddrPort("[2001:db8::1]:7946"))
		if r := j.report()[1]; r.Err != nil {
			t.Errorf("%s has %v, where a member is", r.Place, r.Err)
		}
		j.members.transport.members.remove("six")
		// A name that has failed at first is there by now. Where a member is, nobody is joined again.
		v.mu.Lock()
		v.names["late.example"], v.there["192.0.2.9:7946"] = []string{"192.0.2.9"}, true
		v.mu.Unlock()
		j.members.transport.members.put("two", netip.MustParseAddrPort("192.0.2.2:7946"))
		v.drain()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := v.drain(); !strings.Contains(got, "192.0.2.9:7946") || strings.Contains(got, "192.0.2.2:7946") {
			t.Errorf("joined %q", got)
		}
		if got := lines.drain(); got != "Peers: late.example:7946 can be joined by now" {
			t.Errorf("told %q", got)
		}
	})
}

// Places that are this replica itself leave nobody to wait for.
func TestSettled(t *testing.T) {
	for _, tt := range []struct {
		places []string
		at     bool // before the first round
		then   bool
	}{
		{nil, true, true},
		{[]string{"192.0.2.1:7946"}, false, true},
		{[]string{"self.example:7946"}, false, true},
		{[]string{"192.0.2.1:7946", "nobody.example:7946"}, false, false},
		{[]string{"192.0.2.2:7946"}, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			v, j, _ := newVillage(tt.places...)
			v.names["self.example"] = []string{"192.0.2.1"}
			at := j.isSettled()
			j.start()
			synctest.Wait()
			if then := j.isSettled(); at != tt.at || then != tt.then {
				t.Errorf("%q: %v, then %v, want %v, then %v", tt.places, at, then, tt.at, tt.then)
			}
			j.members.transport.members.put("two", netip.MustParseAddrPort("192.0.2.9:7946"))
			if !j.isSettled() {
				t.Error("it is not settled with a member")
			}
			j.stop()
		})
	}
}

// Where a member was is tried for an hour, and other places from the next moment on.
func TestRejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, j, _ := newVillage()
		j.start()
		defer j.stop()
		gone := netip.MustParseAddrPort("192.0.2.7:7946")
		j.lost(gone)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if v.drain() == "" {
			t.Error("where a member was is not tried")
		}
		j.set([]string{"192.0.2.8:7946"})
		synctest.Wait()
		if got := v.drain(); got != "192.0.2.7:7946 192.0.2.8:7946" {
			t.Errorf("a new place: joined %q", got)
		}
		time.Sleep(lostFor + time.Minute)
		synctest.Wait()
		v.drain()
		time.Sleep(time.Minute)
		if got := v.drain(); strings.Contains(got, "192.0.2.7") {
			t.Errorf("after an hour: joined %q", got)
		}
		// Many that are gone do not keep places from being joined.
		for i := range 250 {
			j.lost(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 7946))
		}
		n := 0
		for n == 0 {
			time.Sleep(time.Second)
			synctest.Wait()
			n = strings.Count(v.drain(), ":")
		}
		if n != lostAtATime+1 {
			t.Errorf("%d addresses are joined at a time, want %d", n, lostAtATime+1)
		}
		clear(j.gone)
		j.lost(gone)
		j.found(gone)
		if len(j.gone) != 0 {
			t.Error("who is found is still gone")
		}
	})
}

// An error tells where and why, once each.
func TestJoinErrors(t *testing.T) {
	for _, tt := range []struct {
		place, want string
	}{
		{"127.0.0.1:1", "connection refused"},
		{"closed.example:1", "127.0.0.1:1: connection refused"},
		{"both.example:1", "none of 2 addresses, the first because of: 127.0.0.1:1: connection refused"},
	} {
		r := begin(t, Config{Name: "r", Join: []string{tt.place}}, func(r *replica) {
			r.joiner.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
				all := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
				if host == "both.example" {
					return all, nil
				}
				return all[:1], nil
			}
		})
		until(t, 20*time.Second, func() bool { return r.Joins()[0].Err != nil })
		if got := fmt.Sprint(r.Joins()[0].Err); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.place, got, tt.want)
		}
	}
}

// Who could not be joined and has joined us meanwhile is no problem any more, before the next time that it is tried.
func TestJoinedMeanwhile(t *testing.T) {
	_, j, _ := newVillage("192.0.2.2:7946", "192.0.2.3:7946")
	j.round(t.Context())
	j.members.transport.members.byName["b"] = place{at: netip.MustParseAddrPort("192.0.2.2:7946")}
	for i, r := range j.report() {
		if isThere := i == 0; (r.Err == nil) != isThere {
			t.Errorf("%s: %v", r.Place, r.Err)
		}
	}
}
