package shaker

import (
	"net/netip"
	"testing"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// With peers, files are shared, but for those that are kept to this replica. Readiness waits for what others have said.
func TestShareOverrides(t *testing.T) {
	lab.CaptureLog(t)
	path, local := lab.File(t, "shared", "192.0.2.7 down\n"), lab.File(t, "local", "192.0.2.8 down\n")
	address := netip.MustParseAddrPort("192.0.2.53:7946")
	for _, peers := range []bool{false, true} {
		inst := overrideInstance(t, &overrideNews{events: events.New()}, path, local)
		inst.settings.overrideUses = map[string]*namedOverrides{path: {name: "overrides"}, local: {name: "overrides of one"}}
		if err := inst.settings.overrideUses[local].set(overrideUse{local, true}, "here"); err != nil {
			t.Fatal(err)
		}
		s := &sharedState{engine: &engine{journal: newJournal(events.New())}}
		if peers {
			inst.settings.peers.listen.set(listen{address: address}, "here")
			s.beginSharing(address)
			s.beginSharing(address) // once is enough
		}
		s.shareOverrides(inst)
		if inst.settings.overrides[path].IsShared() != peers || inst.settings.overrides[local].IsShared() {
			t.Errorf("peers %v: shared %v, local %v", peers, inst.settings.overrides[path].IsShared(), inst.settings.overrides[local].IsShared())
		}
		if !peers {
			if !inst.sharesOverrides() {
				t.Error("it waits for others without peers")
			}
			continue
		}
		var key string
		var told []byte
		s.sharing.Publish(func(k string, value []byte) { key, told = k, append([]byte(nil), value...) })
		for _, file := range inst.settings.overrides {
			file.Start()
		}
		if key == "" || !inst.sharesOverrides() {
			t.Errorf("the file of one rule is told by %q, in force %v", key, inst.sharesOverrides())
		}
		other := override.NewSharing("other", "192.0.2.54:7946", override.SharingListener{Warningf: t.Errorf})
		other.Take(key, told)
		next := ""
		other.Publish(func(k string, _ []byte) { next = k })
		if next != key {
			t.Errorf("another replica tells it as %q, not %q", next, key)
		}
	}
}
