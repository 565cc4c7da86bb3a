package members

import (
	"net/netip"
	"sync"
)

const (
	// maxMembers bounds how many other replicas there are.
	maxMembers = 256
	// maxName bounds a name, in octets.
	maxName = 128
)

// addresses are where the members are that memberlist takes to be alive.
type addresses struct {
	mu      sync.RWMutex
	byName  map[string]place
	members map[netip.Addr]int // how many have it
}

// place is where a member is, and how it is addressed.
type place struct {
	at        netip.AddrPort
	who       receiver
	numbering *numbering // of packets to it
}

func newAddresses() *addresses {
	return &addresses{byName: make(map[string]place), members: make(map[netip.Addr]int)}
}

func (a *addresses) of(name string) (p place, ok bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	p, ok = a.byName[name]
	return p, ok
}

// has tells whether a member has the address.
func (a *addresses) has(addr netip.Addr) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.members[addr] > 0
}

// isAt tells whether a member is there.
func (a *addresses) isAt(at netip.AddrPort) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, p := range a.byName {
		if p.at == at {
			return true
		}
	}
	return false
}

// count returns how many members there are.
func (a *addresses) count() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.byName)
}

func (a *addresses) put(name string, at netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	numbering := newNumbering()
	if before, ok := a.byName[name]; ok {
		numbering = before.numbering
		a.removeLocked(name)
	}
	a.byName[name] = place{at, receiverOf(name), numbering}
	a.members[at.Addr()]++
}

// remove returns where a member was.
func (a *addresses) remove(name string) netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.removeLocked(name)
}

func (a *addresses) removeLocked(name string) netip.AddrPort {
	p, ok := a.byName[name]
	if !ok {
		return netip.AddrPort{}
	}
	delete(a.byName, name)
	if a.members[p.at.Addr()]--; a.members[p.at.Addr()] == 0 {
		delete(a.members, p.at.Addr())
	}
	return p.at
}
