package health

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

const (
	// HistorySlots is how many slots of time a target's history has.
	HistorySlots = 30
	// HistorySlot is how long each of them is.
	HistorySlot = 10 * time.Second

	// maxNames bounds the names of a target. Who controls a zone can make up any number of them.
	maxNames = 4
	// maxAliases bounds its aliases likewise. Most targets that have any have one for each port.
	maxAliases = 4
)

// Status is what is known of a target at one moment. Its instants are the present time of the wall clock less their
// age. So they are right however often that clock was set, as far as it is right now. They do not wander: the same
// instant looks the same each time. Time in which the machine was suspended is part of no age.
type Status struct {
	// State is the verdict in force.
	State State
	// Since is when the state began. For Unknown that is when the target entered the table.
	Since time.Time
	// Own is what this replica says by its own checks, and OwnSince since when. Without a council that is the verdict in force,
	// or Checking or Unable while that is unknown. Resting tells that only others check the target.
	Own      Word
	OwnSince time.Time
	Resting  bool
	// DampedUntil is when a target may be up again that answers but is damped, the zero time for all others.
	DampedUntil time.Time
	// Falls is how often the target went down without having been up for DampingMax in between.
	Falls int
	// Result is the newest result and Err its reason: the errno where there was one, otherwise an error as
	// in [checker.Report]. It is nil for Answered, and before the first result.
	Result checker.Result
	Err    error
	// Checked is when the newest result came in, the zero time before the first.
	Checked time.Time
	// RTT is as [Target.RTT] returns it.
	RTT time.Duration
	// History has a slot for each HistorySlot of time, the oldest first. The last slot is the present one.
	History [HistorySlots]Slot
}

// Slot is what came in during one HistorySlot of time.
type Slot struct {
	// Checked is false if nothing came in. The other fields then mean nothing.
	Checked bool
	// Result is the newest failure, or Inconclusive if there was none, or else Answered.
	Result checker.Result
	// Mixed tells that there was an answer although Result is another.
	Mixed bool
	// RTT is the longest round trip of the answers, within 4 %, from 1 µs to 63 s. It is known where Result is Answered,
	// unless the prober did not tell it, and 0 otherwise.
	RTT time.Duration
}

// Status returns what is known of the target. It delays the monitor no longer than a copy of that takes.
func (t *Target) Status() Status {
	m := t.monitor
	now, epoch := m.now(), m.clock.At(0)
	m.statusMu.Lock()
	defer m.statusMu.Unlock()
	mark, since, said := t.load(), t.since, t.since
	if s := t.share.Load(); s != nil {
		since, said = s.since, s.said
	}
	s := Status{
		State:    mark.state(),
		Since:    epoch.Add(time.Duration(since)),
		Own:      mark.word(),
		OwnSince: epoch.Add(time.Duration(said)),
		Resting:  mark&rests != 0,
		Result:   mark.result(),
		Err:      t.err,
		RTT:      t.RTT(),
		Falls:    int(t.falls),
		History:  t.history.slots(t.heard, now),
	}
	if mark.isDamped() {
		settings := t.Settings()
		s.DampedUntil = epoch.Add(time.Duration(t.dampedUntil(&settings)))
	}
	if mark&checked != 0 {
		s.Checked = epoch.Add(time.Duration(t.heard))
	}
	return s
}

// record notes a report for Status. The caller holds statusMu.
func (t *Target) record(r *checker.Report, changed bool, now int64) {
	if changed {
		t.since = now
	}
	t.err = reason(r.Err)
	t.history.record(r.Result, r.RTT, t.heard, now)
	t.heard = now
}

// reason returns what is worth keeping of an error. The addresses and names of calls around an errno are not:
// they would take more room than all the rest of a target.
func reason(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// history is a ring of slots. Each is 0 where nothing came in. Otherwise it is 1 + Slot.Result, and slotMixed besides for
// Slot.Mixed, or slotTimed and more where all were answered and a round trip is known, see timed.
type history [HistorySlots]byte

const (
	slotMixed = 8
	slotTimed = 16
)

func slotAt(now int64) int64 { return now / int64(HistorySlot) }

// record notes a result that came in now, and its round trip, 0 where that is not known; last is when the one before it did.
func (h *history) record(r checker.Result, rtt time.Duration, last, now int64) {
	slot := slotAt(now)
	for old := max(slotAt(last)+1, slot-HistorySlots+1); old <= slot; old++ {
		h[old%HistorySlots] = 0
	}
	h[slot%HistorySlots] = mix(h[slot%HistorySlots], r, rtt)
}

// mix returns the value of a slot with one more result in it.
func mix(value byte, r checker.Result, rtt time.Duration) byte {
	had := slotOf(value)
	mixed := value & slotMixed
	if had.Result == checker.Answered {
		mixed = slotMixed
	}
	switch answered := r == checker.Answered; {
	case answered && (!had.Checked || had.Result == checker.Answered):
		return max(value, timed(rtt))
	case answered:
		return value | slotMixed
	case r == checker.Inconclusive && had.Checked && had.Result != checker.Answered:
		return value
	case !had.Checked:
		mixed = 0
	}
	return byte(r) + 1 | mixed
}

// slotOf returns what a value means.
func slotOf(value byte) Slot {
	switch {
	case value == 0:
		return Slot{}
	case value >= slotTimed:
		return Slot{Checked: true, Result: checker.Answered, RTT: trips[value-slotTimed]}
	default:
		return Slot{Checked: true, Result: checker.Result(value&^slotMixed) - 1, Mixed: value&slotMixed != 0}
	}
}

// tripsInDecade is how many round trips a history can tell apart between one and the tenfold of it. What lies between two
// is taken for the nearer one by ratio, so it is off by half a step at most: the 60th root of ten, which is 3.9 %.
const tripsInDecade = 30

// trips are the round trips that a history tells apart: from 1 µs to 63 s, which is more than any check may take.
var trips = func() (all [233 + 2]time.Duration) {
	for i := range all {
		all[i] = time.Duration(math.Round(float64(time.Microsecond) * math.Pow(10, float64(i)/tripsInDecade)))
	}
	return all
}()

// timed returns the value of a slot with one answer.
func timed(rtt time.Duration) byte {
	if rtt <= 0 {
		return byte(checker.Answered) + 1
	}
	i := math.Round(tripsInDecade * math.Log10(float64(rtt)/float64(time.Microsecond)))
	return slotTimed + byte(min(max(i, 0), float64(len(trips)-1)))
}

// slots returns the history as it is now; last is when the newest result came in.
func (h *history) slots(last, now int64) (all [HistorySlots]Slot) {
	newest, first := slotAt(last), slotAt(now)-HistorySlots+1
	for i := range all {
		if slot := first + int64(i); slot >= 0 && slot <= newest {
			all[i] = slotOf(h[slot%HistorySlots])
		}
	}
	return all
}

// lead is a name or an alias of a target, in a list.
type lead struct {
	name  string
	alias *netip.AddrPort // nil for a name
	next  *lead
}

// AddName notes a name that led to the target, in lower case. A target keeps the first four. AddName takes no
// lock, and allocates nothing where it adds nothing.
func (t *Target) AddName(s string) {
	for {
		head := t.leads.Load()
		n := 0
		for have := head; have != nil; have = have.next {
			if have.alias != nil {
				continue
			}
			if have.name == s || strings.EqualFold(have.name, s) {
				return
			}
			n++
		}
		if n == maxNames || t.leads.CompareAndSwap(head, &lead{name: strings.Clone(strings.ToLower(s)), next: head}) {
			return
		}
	}
}

// Names returns the names of the target in the order in which they were added.
func (t *Target) Names() []string {
	var names []string
	for l := t.leads.Load(); l != nil; l = l.next {
		if l.alias == nil {
			names = append(names, l.name)
		}
	}
	slices.Reverse(names)
	return names
}

// HasName tells whether one of the names is such. It takes no lock and allocates nothing.
func (t *Target) HasName(isSuch func(string) bool) bool {
	for l := t.leads.Load(); l != nil; l = l.next {
		if l.alias == nil && isSuch(l.name) {
			return true
		}
	}
	return false
}

// AddAlias notes an address and port that the target is probed for. Its own is an alias too, but it is noted only beside
// another one: a target without aliases is probed for itself. A target keeps the first four. AddAlias takes no lock, and
// allocates nothing where it adds nothing.
func (t *Target) AddAlias(a netip.AddrPort) {
	for {
		head := t.leads.Load()
		n := 0
		for have := head; have != nil; have = have.next {
			if have.alias == nil {
				continue
			}
			if *have.alias == a {
				return
			}
			n++
		}
		if n == maxAliases || n == 0 && a == t.Addr() {
			return
		}
		alias := a // a itself would be allocated by every call
		if t.leads.CompareAndSwap(head, &lead{alias: &alias, next: head}) {
			return
		}
	}
}

// Aliases returns the aliases of the target in the order in which they were added.
func (t *Target) Aliases() []netip.AddrPort {
	var aliases []netip.AddrPort
	for l := t.leads.Load(); l != nil; l = l.next {
		if l.alias != nil {
			aliases = append(aliases, *l.alias)
		}
	}
	slices.Reverse(aliases)
	return aliases
}

// AliasAddrs returns the addresses of the aliases, each once. There are none where all are the target's own, with other
// ports.
func (t *Target) AliasAddrs() []netip.Addr {
	var addrs []netip.Addr
	for _, a := range t.Aliases() {
		if !slices.Contains(addrs, a.Addr()) {
			addrs = append(addrs, a.Addr())
		}
	}
	if len(addrs) == 1 && addrs[0] == t.addr {
		return nil
	}
	return addrs
}
