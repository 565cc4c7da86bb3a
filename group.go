package shaker

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// group is the replicas that this one agrees with, and the instance whose settings are in force in it.
type group struct {
	*peers.Group
	of *instance
}

// useGroup has an instance be in the group of replicas that it names, if it names one. The group of another address goes on, and
// decides until it is closed: so nothing is lost if the reload fails. The caller holds mu.
func (s *sharedState) useGroup(inst *instance) error {
	settings := &inst.settings.peers
	if !settings.listen.isSet() {
		return nil
	}
	address := settings.listen.value.address
	g, err := s.groups[address], error(nil)
	switch {
	case g == nil:
		g, err = s.openGroup(inst)
	case g.of != inst:
		err = g.Configure(settings.config(grantsOf(inst)))
	}
	if err != nil {
		return fmt.Errorf("peers %v: %w", address, err)
	}
	g.of = inst
	s.engine.journal.bySites.Store(settings.site.value.quorum)
	inst.peers.Store(g.Group)
	return nil
}

// openGroup begins to look for the replicas that an instance names. The caller holds mu.
func (s *sharedState) openGroup(inst *instance) (*group, error) {
	settings := &inst.settings.peers
	journal := s.engine.journal
	s.beginSharing(settings.listen.value.address)
	sharing := s.sharing
	opened, err := peers.Open(settings.config(grantsOf(inst)), s.engine.monitor, peers.Listener{
		Infof:     func(format string, args ...any) { journal.Infof(events.Peer, format, args...) },
		Warningf:  func(format string, args ...any) { journal.Warningf(events.Peer, format, args...) },
		Disagreed: journal.disagreed,
		Noted:     func(_, key string, value []byte) { sharing.Take(key, value) },
		Recovered: reportPanic,
	})
	if err != nil {
		return nil, err
	}
	g := &group{Group: opened}
	if s.groups == nil {
		s.groups = make(map[netip.AddrPort]*group)
	}
	s.groups[settings.listen.value.address] = g
	s.publishOverrides()
	return g, nil
}

// closeGroups leaves the groups that nobody with a lease wants. If one is left, it decides. The caller holds mu.
func (s *sharedState) closeGroups() {
	var unwanted []*group
	for address, g := range s.groups {
		wanted := func(inst *instance) bool { return inst.settings.peers.listen.value.address == address }
		if !slices.ContainsFunc(s.leases, wanted) {
			unwanted = append(unwanted, g)
			delete(s.groups, address)
		}
	}
	if len(s.groups) == 1 {
		for _, g := range s.groups {
			g.Convene()
		}
	}
	if len(unwanted) > 0 {
		s.publishOverrides()
	}
	for _, g := range unwanted {
		g.Close()
	}
}

// knowsPeers tells whether the verdicts of all other replicas are known and their overrides are in force, as far as there are
// any.
func (inst *instance) knowsPeers() bool {
	if !inst.settings.peers.listen.isSet() {
		return true
	}
	g := inst.peers.Load()
	return g != nil && g.Ready() && inst.sharesOverrides()
}
