package shaker

import (
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/override"
)

// overrideUse is how stanzas use a file of overrides.
type overrideUse struct {
	path  string
	local bool // it is kept to this replica
}

// String returns it as stanzas have it.
func (u overrideUse) String() string {
	if u.local {
		return u.path + " local"
	}
	return u.path
}

// namedOverrides is how a file of overrides is used, and its path as the first stanza has it. Files that have the same one in all
// replicas are shared.
type namedOverrides struct {
	setting[overrideUse]
	name string
}

// keepsToItself tells whether a file of overrides is not shared with other replicas, although there may be some.
func (s *processSettings) keepsToItself(path string) bool {
	use := s.overrideUses[path]
	return use != nil && use.value.local
}

// beginSharing has overrides be shared by a replica at that address, if they are not already. The caller holds mu.
func (s *sharedState) beginSharing(address netip.AddrPort) {
	if s.sharing != nil {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		host = address.String()
	}
	journal := s.engine.journal
	s.sharing = override.NewSharing(host, address.String(), override.SharingListener{
		Warningf: func(format string, args ...any) { journal.Warningf(events.Overrides, format, args...) },
	})
}

// publishOverrides has all groups be told the overrides that are shared. The caller holds mu.
func (s *sharedState) publishOverrides() {
	if len(s.groups) == 0 {
		s.sharing.Publish(nil)
		return
	}
	var all []*group
	for _, g := range s.groups {
		all = append(all, g)
	}
	s.sharing.Publish(func(key string, value []byte) {
		for _, g := range all {
			g.Note(key, value)
		}
	})
}

// shareOverrides has the files of an instance that is in a group be shared, but for those that it keeps to itself. The caller holds
// mu.
func (s *sharedState) shareOverrides(inst *instance) {
	if !inst.settings.peers.listen.isSet() {
		return
	}
	inst.sharing.Store(s.sharing)
	for path, file := range inst.settings.overrides {
		if !inst.settings.keepsToItself(path) {
			file.Share(s.sharing, inst.settings.overrideUses[path].name)
		}
	}
}

// sharingOf is what an instance has in common with other replicas.
type sharingOf struct {
	atomic.Pointer[override.Sharing]
	was atomic.Bool // what others had said was in force once
}

// sharesOverrides tells whether the overrides that other replicas had at the start are in force. It stays true.
func (inst *instance) sharesOverrides() bool {
	s := inst.sharing.Load()
	if s != nil && !inst.sharing.was.Load() && s.IsInForce() {
		inst.sharing.was.Store(true)
	}
	return s == nil || inst.sharing.was.Load()
}
