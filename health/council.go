package health

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// Council is the other replicas of the service. Together with them a monitor decides whether a target is down, and shares the
// work: of each target only a few replicas are observers, which check it. Without a council the own checks decide.
type Council interface {
	// Enter is called when a target is about to come into the table, by whoever asked for it, and while the table is
	// locked. It returns what is known of the target, so that the first answer with it is right. It must not ask the monitor.
	// For targets that were in the table before SetCouncil it is called likewise, and what it returns does not matter: Decide
	// follows.
	Enter(t *Target) Decision
	// Decide notes what this replica says of a target, and returns what is decided. It is called from the monitor's
	// goroutine, and only from there: after Enter, when the own word or the verdict in force here has changed, or the round
	// trip by a factor of 2 (then once a minute at most), and when somebody has called [Monitor.Reconsider]. It may be called
	// again at once, because what it has decided changed what there is to note.
	Decide(t *Target, own Opinion) Decision
	// Leave is called when a target has left the table, and while that is locked. So if the same address enters again, it does
	// so later. It must not ask the monitor.
	Leave(t *Target)
	// Froze is called from the monitor's goroutine when verdicts freeze or thaw here.
	Froze(frozen bool)
}

// Word is what a replica says of a target. The zero value is nothing.
type Word uint8

const (
	// NoWord is that of a replica that does not have the target in its table, or does not check it.
	NoWord Word = iota
	// Checking is that of an observer that has no verdict by its own checks yet. It counts like the verdict in force.
	Checking
	// Unable is that of an observer whose checks lead to no verdict: it may not check the target, has no room for it, or
	// its checks are inconclusive. Another replica takes its place.
	Unable
	// SaysUp and SaysDown are verdicts by own checks.
	SaysUp
	SaysDown
)

// String returns the word in lower case: "down", "up", "checking", "unable", and nothing for NoWord.
func (w Word) String() string {
	switch w {
	case Checking:
		return "checking"
	case Unable:
		return "unable"
	case SaysUp:
		return "up"
	case SaysDown:
		return "down"
	default:
		return ""
	}
}

// Opinion is what a replica says of a target, and why.
type Opinion struct {
	Word Word
	// InForce is the verdict in force at that replica.
	InForce State
	// Age is how long ago the word was said first.
	Age time.Duration
	// Result is the newest result, and RTT the smoothed round trip, 0 where there is none.
	Result checker.Result
	RTT    time.Duration
}

// Decision is what a council has decided of a target.
type Decision struct {
	// State is the verdict in force.
	State State
	// Observes tells whether this replica has to check the target.
	Observes bool
	// Alone tells that the own checks decide. The State is of no meaning then.
	Alone bool
	// Tally is what led to the State.
	Tally Tally
	// RTT is the shortest that an observer of the own site has told, for a target that this replica does not check.
	RTT time.Duration
}

// Tally is how many of the Of observers of a target say that it is up, and down. Of several sites it counts the sites.
type Tally struct{ Up, Down, Of int }

// Subject is what replicas call a target by: its address and port, and a number that stands for the settings, see
// [Fingerprint].
type Subject struct {
	Addr     netip.AddrPort
	Settings uint64
}

// Fingerprint returns a number that stands for settings in all replicas. The source is no part of it: that is another one on
// each machine.
func Fingerprint(k Key) uint64 {
	s := settings(k)
	s.Source = netip.Addr{}
	sum := sha256.Sum256([]byte(s.String()))
	return binary.BigEndian.Uint64(sum[:])
}

// SetCouncil has verdicts decided by a council from now on, and by the own checks alone where it is nil. All targets in the
// table Enter, soon. Verdicts stay as they are until a council decides otherwise. Without one, targets that rested are checked
// again, and keep their verdicts until that says otherwise. A council that is replaced is told nothing, and may be called for
// a moment after SetCouncil has returned.
func (m *Monitor) SetCouncil(c Council) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setCouncil(c)
}

// setCouncil is SetCouncil. The caller holds mu.
func (m *Monitor) setCouncil(c Council) {
	m.council = c
	m.convened.Add(1)
	m.signal()
}

// Council returns the one that was set last, nil without.
func (m *Monitor) Council() Council {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.council
}

// UnsetCouncil has verdicts decided by the own checks from now on, as SetCouncil does with nil, unless another council has
// taken the place of this one.
func (m *Monitor) UnsetCouncil(c Council) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.council == c {
		m.setCouncil(nil)
	}
}

// Reconsider has the council asked again about targets, soon. It may be called from any goroutine, with the locks of the
// council held, and does not wait for anybody. A target that is about to be asked about is asked about once.
func (m *Monitor) Reconsider(targets ...*Target) {
	m.inboxMu.Lock()
	if !m.closed.Load() {
		for _, t := range targets {
			if s := t.share.Load(); s != nil && s.queued.CompareAndSwap(false, true) {
				m.pending = append(m.pending, t)
			}
		}
	}
	m.inboxMu.Unlock()
	m.signal()
}

// Observe is [Monitor.Target] on behalf of another replica, whose users want the target. It takes a lock. That a target is in
// the table for others only is what [Target.Wanted] tells. Without a council it is Target.
func (m *Monitor) Observe(addr netip.AddrPort, s Key, keep time.Duration) *Target {
	k := key{addr: addr.Addr().Unmap(), port: addr.Port(), settings: s}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.table.get(&k); t != nil {
		t.wantForOthers(keep)
		return t
	}
	return m.insert(k, keep, true)
}

// overdue is how long the monitor's goroutine may be behind its time until something holds it up.
const overdue = time.Second

// Checks returns how many probes have come back since the monitor was made, and how many have not, or wait although they are
// due. Where the latter is not 0, and the former does not grow, this machine does not check any more.
func (m *Monitor) Checks() (finished uint64, pending int) {
	pending = int(m.flying.Load())
	if planned := m.planned.Load(); m.now()-planned > int64(overdue) {
		pending++
	}
	return m.finished.Load(), pending
}

// Own returns what this replica says of the target by its own checks.
func (t *Target) Own() Opinion {
	t.monitor.statusMu.Lock()
	defer t.monitor.statusMu.Unlock()
	return t.opinion(t.monitor.now())
}
