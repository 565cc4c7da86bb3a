package health

import "time"

// Where all peers fall silent together, this machine may be cut off, or the only other one is being repaired. Targets tell which:
// where they fell silent in about the same time, all of them but for the few percent of SetFreeze, verdicts freeze. Two faults
// at once are less likely than one, so one host is enough for that, and one network. But a host that was heard of after the
// peers had fallen silent proves that the path still works.

// contact is what is known of the contact to the peers.
type contact struct {
	news bool // the monitor's goroutine has not seen it
	lost bool
	// They fell silent between these instants, if they did.
	from, to int64
}

// LostPeers tells that all peers, of which there was one at least, have fallen silent together, without a goodbye: the last word
// came in within about the time before now, and half of that later all of them were silent. Where the targets fell silent in
// that time, too, or have done so when they are checked next, this machine is cut off, and verdicts freeze (see
// [Monitor.SetFreeze]). Verdicts of targets that just fell are taken back. They thaw as ever, and when [Monitor.FoundPeers] is
// called.
func (m *Monitor) LostPeers(within time.Duration) {
	now := m.now()
	m.hear(contact{news: true, lost: true, from: now - int64(within), to: now - int64(within/2)})
}

// FoundPeers tells that a peer is heard of again.
func (m *Monitor) FoundPeers() { m.hear(contact{news: true}) }

func (m *Monitor) hear(c contact) {
	m.inboxMu.Lock()
	m.peers = c
	m.inboxMu.Unlock()
	m.signal()
}

// hearOfPeers takes what was told of the peers. It freezes verdicts or thaws them, where that follows.
func (m *Monitor) hearOfPeers(now int64) {
	m.inboxMu.Lock()
	c := m.peers
	m.peers.news = false
	m.inboxMu.Unlock()
	if !c.news {
		return
	}
	f := &m.loop.freezer
	f.peers = c
	if !c.lost {
		if m.freezing.isOn() && f.withPeers {
			m.thaw(now, false)
		}
		return
	}
	percent := m.freezing.percent.Load()
	if percent <= 0 || m.freezing.isOn() || f.spent {
		return
	}
	if slot, count := f.countLost(percent); slot > 0 {
		f.withPeers = true
		m.freeze(slot, count, now)
	}
}

// countLost returns since when nearly all hosts are silent that were asked, and how many these are, if that is when the peers
// fell silent. If not, slot is 0.
func (f *freezer) countLost(percent int64) (slot int64, c count) {
	if !f.peers.lost {
		return 0, c
	}
	for slot = max(1, voteSlotAt(f.peers.from)); slot <= voteSlotAt(f.peers.to); slot++ {
		if c = f.count(slot); c.silent > 0 && c.isSilent(percent) {
			return slot, c
		}
	}
	return 0, count{}
}

// fellWithPeers tells whether a target that is about to go down has not been heard of since the peers were.
func (f *freezer) fellWithPeers(t *Target) bool {
	return f.peers.lost && (t.seat == nil || int64(t.seat.stamps[stampHeard]) <= voteSlotAt(f.peers.to))
}
