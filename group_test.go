package shaker

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// groupAddress returns an address of loopback that is free, for UDP and for TCP.
func groupAddress(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		at := l.Addr().(*net.TCPAddr).AddrPort()
		if c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err == nil {
			c.Close()
			return at
		}
	}
	t.Fatal("no address is free")
	return netip.AddrPort{}
}

// groupOpen returns a group that has no other replicas. It ends with the test.
func groupOpen(t *testing.T, m *health.Monitor) *peers.Group {
	t.Helper()
	settings := groupInstance(groupAddress(t), lab.File(t, "key", peersKey)).settings.peers
	ignore := func(string, ...any) {}
	g, err := peers.Open(settings.config(new(grants)), m, peers.Listener{
		Infof: ignore, Warningf: ignore, Disagreed: func(*health.Target, peers.Disagreement) {},
		Noted: func(string, string, []byte) {}, Recovered: func(string, any) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// groupInstance returns an instance that names other replicas.
func groupInstance(at netip.AddrPort, key string) *instance {
	inst := new(instance)
	inst.settings.peers.listen = setting[listen]{listen{address: at}, "Corefile:1"}
	inst.settings.peers.key = setting[string]{key, "Corefile:2"}
	return inst
}

// groupCouncils remembers which group has which council, by its address.
type groupCouncils map[netip.AddrPort]health.Council

// expect checks which groups there are, that of which of them the council decides, and which of them an instance is in.
func (known groupCouncils) expect(t *testing.T, when string, inst *instance, decides netip.AddrPort, addresses ...netip.AddrPort) {
	t.Helper()
	compare := func(a, b netip.AddrPort) int { return a.Compare(b) }
	if got := slices.SortedFunc(maps.Keys(shared.groups), compare); !slices.Equal(got, slices.SortedFunc(slices.Values(addresses), compare)) {
		t.Errorf("%s: groups at %v, want %v", when, got, addresses)
	}
	council := shared.engine.monitor.Council()
	if known[decides] == nil {
		known[decides] = council
	}
	if council != known[decides] || (council == nil) == decides.IsValid() {
		t.Errorf("%s: %p decides, want %p of %v", when, council, known[decides], decides)
	}
	for at, other := range known {
		if at != decides && other == council {
			t.Errorf("%s: the council of %v decides, want that of %v", when, at, decides)
		}
	}
	g := shared.groups[inst.settings.peers.listen.value.address]
	switch in := inst.peers.Load(); {
	case g == nil && (in != nil || shared.peersReport() != nil):
		t.Errorf("%s: the instance is in the group %p and has a report, want none", when, in)
	case g != nil && (in != g.Group || shared.peers() != in || g.of != inst):
		t.Errorf("%s: the instance is in the group %p, want %p", when, in, g.Group)
	}
}

// A reload that keeps the address keeps the group. Another address is another group, next to which the old one goes on, and
// decides, until the reload is known to have worked.
func TestSharedGroups(t *testing.T) {
	lab.CaptureLog(t)
	one, two, nobody := groupAddress(t), groupAddress(t), netip.AddrPort{}
	key, councils := lab.File(t, "key", peersKey), make(groupCouncils)
	take := func(old, next *instance) *peers.Group {
		t.Helper()
		shared.restarting(old)
		if err := shared.lease(next); err != nil {
			t.Fatal(err)
		}
		return next.peers.Load()
	}
	none := new(instance)
	if err := shared.lease(none); err != nil {
		t.Fatal(err)
	}
	councils.expect(t, "without", none, nobody)

	first := groupInstance(one, key)
	group := take(none, first)
	councils.expect(t, "named by a reload", first, one, one)
	shared.restarted(none)
	councils.expect(t, "alone", first, one, one)

	same := groupInstance(one, key)
	if take(first, same) != group {
		t.Error("a reload opens another group at the same address")
	}
	shared.restarted(first)
	councils.expect(t, "kept", same, one, one)

	failing := groupInstance(one, key)
	take(same, failing)
	councils.expect(t, "kept by a reload that fails", failing, one, one)
	shared.restartFailed(same)
	councils.expect(t, "after one that failed", same, one, one)

	failing = groupInstance(two, key)
	take(same, failing)
	councils.expect(t, "moved by a reload that fails", failing, one, one, two)
	shared.restartFailed(same)
	councils.expect(t, "not moved", same, one, one)
	if same.peers.Load() != group {
		t.Error("the group is not the one before the reload that failed")
	}

	moved := groupInstance(two, key)
	take(same, moved)
	councils.expect(t, "moving", moved, one, one, two)
	shared.restarted(same)
	councils.expect(t, "moved", moved, two, two)

	failing = new(instance)
	take(moved, failing)
	councils.expect(t, "named no longer by a reload that fails", failing, two, two)
	shared.restartFailed(moved)
	councils.expect(t, "named again", moved, two, two)

	last := new(instance)
	take(moved, last)
	shared.restarted(moved)
	councils.expect(t, "named no longer", last, nobody)
	final := groupInstance(two, key)
	take(last, final)
	shared.restarted(last)
	shared.giveBack(final)
	if len(shared.groups) > 0 || shared.peers() != nil {
		t.Errorf("%d groups after the last lease", len(shared.groups))
	}
}

// Where no stanza names others, nobody else decides, and nothing runs for it.
func TestSharedWithoutPeers(t *testing.T) {
	lab.CaptureLog(t)
	inst := new(instance)
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	defer shared.giveBack(inst)
	if len(shared.groups) > 0 || shared.engine.monitor.Council() != nil || shared.peersReport() != nil {
		t.Errorf("%d groups, the council is %v", len(shared.groups), shared.engine.monitor.Council())
	}
	lab.UntilNil(t, func() error { // what tests before have left ends soon
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, room := range []string{"shaker/internal/peers.", "shaker/internal/members.", "hashicorp/memberlist."} {
			if strings.Contains(string(stacks), room) {
				return fmt.Errorf("no goroutine of %s, among\n%s", room, stacks)
			}
		}
		return nil
	})
}

// Whatever a group needs of an instance, it keeps none that is gone.
func TestSharedGroupForgetsInstances(t *testing.T) {
	lab.CaptureLog(t)
	at, key := groupAddress(t), lab.File(t, "key", peersKey)
	sharedForgets(t, func() *instance { return groupInstance(at, key) })
}

// What keeps a group from opening is an error that names the address, and leaves nothing behind.
func TestSharedGroupFails(t *testing.T) {
	lab.CaptureLog(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	key := lab.File(t, "key", peersKey)
	running := groupInstance(groupAddress(t), key)
	if err := shared.lease(running); err != nil {
		t.Fatal(err)
	}
	defer func() { shared.giveBack(running) }()
	free := groupAddress(t)
	for what, bad := range map[string]*instance{
		"a port that is taken":       groupInstance(taken.Addr().(*net.TCPAddr).AddrPort(), key),
		"no key file":                groupInstance(free, key+"s"),
		"no key file, where it runs": groupInstance(running.settings.peers.listen.value.address, key+"s"),
	} {
		shared.restarting(running)
		err := shared.lease(bad)
		want := fmt.Sprintf("peers %v: ", bad.settings.peers.listen.value.address)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want an error that begins with %s", what, err, want)
		}
		if at := running.settings.peers.listen.value.address; len(shared.groups) != 1 || shared.groups[at] == nil || shared.groups[at].of != running {
			t.Errorf("%s: the groups are %v, want that at %v as it was", what, shared.groups, at)
		}
		shared.restartFailed(running)
	}
}

// CoreDNS is ready when the group is, where there is one.
func TestReadyWaitsForPeers(t *testing.T) {
	lab.CaptureLog(t)
	inst := groupInstance(groupAddress(t), lab.File(t, "key", peersKey))
	if inst.knowsPeers() {
		t.Error("before the lease")
	}
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	defer shared.giveBack(inst)
	lab.Until(t, "one that has nobody to join to be ready", inst.knowsPeers)
	if !new(instance).knowsPeers() {
		t.Error("without other replicas")
	}
}
