package health

import (
	"cmp"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// Target is an address and port whose verdict is kept. Its methods may be called from any goroutine,
// also after the target was forgotten or the monitor closed: it then keeps its last verdict.
type Target struct {
	// What every query reads is side by side, so that it is in one or two lines of the processor's cache.
	addr     netip.Addr
	settings Key
	// wanted is the longest keep that anybody asked for since the monitor last looked, 0 if nobody
	// did, or gone. It is a duration instead of an instant because that spares readers the clock and,
	// between two probes, all but the first store.
	wanted atomic.Int64
	// mark is what readers see of the verdict; the monitor's goroutine alone stores it.
	mark    atomic.Uint32
	port    uint16
	noPaths uint16 // results in a row that this machine has no path to it, see path.go; the goroutine's alone
	rtt     atomic.Int64
	chained chain                // the next in its bucket, see table.go
	leads   atomic.Pointer[lead] // the newest first
	monitor *Monitor
	born    int64 // when it was created, in the monitor's time

	// share is nil without a council. It is stored by whoever adds the target, and by the monitor's goroutine, with
	// Monitor.mu held.
	share atomic.Pointer[share]

	// until is when the target is not wanted any more, as far as the monitor has looked, in whole seconds. The monitor's
	// goroutine alone stores it.
	until atomic.Uint32

	// What follows belongs to the monitor's goroutine.
	run      int32   // see standing
	next     *Target // in the list that holds the target, if one does
	due      int64   // when the next probe is to be sent. While one is in flight it is when that was sent
	seat     *seat   // where its host votes, nil before it did
	doubted  uint32  // the slot in which the first probe of the row was sent, see freeze.go
	pathless uint32  // the slot in which the first probe of the row was sent that noPaths counts
	place    uint32  // in the table's list, guarded by its lock
	prober   uint16  // the generation of the prober that has the probe in flight
	falls    uint8   // how often it went down, see damping.go
	stage    stage

	// The goroutine changes these with Monitor.statusMu held.
	history history
	since   int64 // when the own standing began
	heard   int64 // when the newest result came in
	err     error // of the newest result
}

// stage is where a target is on its way from one probe to the next.
type stage uint8

const (
	idle     stage = iota // in no list and not in flight: it rests
	listed                // in the wheel, or in a queue
	inFlight              // its probe is
)

// gone is the value of Target.wanted once the target has left the table.
const gone = -1

// key is a target's identity. Targets have its fields one by one, because it has room that is not used.
type key struct {
	addr     netip.Addr
	settings Key
	port     uint16
}

func (t *Target) key() key { return key{t.addr, t.settings, t.port} }

// is tells whether the target has the key. Field by field that takes half the time of ==, which calls the runtime.
func (t *Target) is(k *key) bool {
	return t.addr == k.addr && t.port == k.port && t.settings == k.settings
}

// mark packs the verdict in force (bits 0-7), the newest result (8-15), the state of the own standing (28-31), and more.
// Without a council the own checks decide, and the two states are the same.
type mark uint32

const (
	pointless mark = 1 << 16 // to hold an answer for the verdict has become pointless
	damped    mark = 1 << 17 // it answers, and its own standing is down because it flaps
	silenced  mark = 1 << 18 // its own standing is down, by silence, and it was not heard of since
	checked   mark = 1 << 19 // has had a result
	shared    mark = 1 << 20 // a council decides which verdict is in force
	rests     mark = 1 << 21 // other replicas check it, this one does not
	inherited mark = 1 << 22 // the own standing was taken over from others, and no own result has agreed yet
	unable    mark = 1 << 23 // the own checks lead to no verdict
	borrowed  mark = 1 << 24 // the round trip is what other replicas have told

	ownBits      = 28
	allOwn  mark = 0xf << ownBits
)

// newMark returns that of a target on whose state all agree.
func newMark(s State, r checker.Result) mark { return mark(s) | mark(s)<<ownBits | mark(r)<<8 }

func (m mark) state() State           { return State(m) }
func (m mark) own() State             { return State(m >> ownBits) }
func (m mark) result() checker.Result { return checker.Result(m >> 8) }

// isDamped tells whether the verdict in force is that of a flapping target.
func (m mark) isDamped() bool { return m&damped != 0 && m.state() == Down }

// withState returns the mark with another verdict in force, and withOwn with another state of the own standing.
func (m mark) withState(s State) mark { return m&^0xff | mark(s) }
func (m mark) withOwn(s State) mark   { return m&^allOwn | mark(s)<<ownBits }

func (t *Target) load() mark { return mark(t.mark.Load()) }

// Addr returns the address and port. An IPv4 address is never in its IPv4-mapped form.
func (t *Target) Addr() netip.AddrPort { return netip.AddrPortFrom(t.addr, t.port) }

// CompareAge orders targets by when they came into the table, the oldest first, and those that came together by address
// and port.
func CompareAge(a, b *Target) int {
	if order := cmp.Compare(a.born, b.born); order != 0 {
		return order
	}
	return a.Addr().Compare(b.Addr())
}

// Settings returns the settings that make the verdict, with the defaults filled in.
func (t *Target) Settings() Settings { return settings(t.settings) }

// State returns the verdict in force.
func (t *Target) State() State { return t.load().state() }

// Result returns the newest result, Inconclusive as long as there is none.
func (t *Target) Result() checker.Result { return t.load().result() }

// Damped tells whether the target answers but is kept down because it flaps, see [Settings].Damping.
func (t *Target) Damped() bool { return t.load().isDamped() }

// RTT returns the smoothed time that SYN-ACKs take to come back, 0 before the first. Of a target that rests here it is what
// other replicas of the site have told.
func (t *Target) RTT() time.Duration { return time.Duration(t.rtt.Load()) }

// Holds tells whether [Monitor.Await] would wait for the target: it has no verdict, there is hope for
// one, and it is younger than hold. A target stops holding at its first inconclusive result, since
// this machine's trouble is not over in a moment.
func (t *Target) Holds(hold time.Duration) bool { return t.holds(hold) > 0 }

// holds returns for how long the target will hold at most, 0 or less if it does not.
func (t *Target) holds(hold time.Duration) time.Duration {
	m := t.load()
	if m.state() != Unknown || m&pointless != 0 || t.monitor.closed.Load() {
		return 0
	}
	return hold - time.Duration(t.monitor.now()-t.born)
}

// Within returns how long it takes at most until a target that is unknown has its verdict, if its checks go as planned:
// silence takes the longest, Fall checks of it. They began with the target's creation. When they should be over and are
// not, because they ran late or had to begin anew, it is the time that one more takes. Within is 0 where nobody can tell:
// while verdicts are frozen, once a check was inconclusive, and when the monitor is closed. It is 0 for a target that has
// its verdict, too. It takes no lock and allocates nothing.
func (t *Target) Within() time.Duration {
	m := t.load()
	if m.state() != Unknown || m&pointless != 0 || t.monitor.freezing.isOn() || t.monitor.closed.Load() {
		return 0
	}
	s := settings(t.settings)
	age := time.Duration(t.monitor.now() - t.born)
	if left := s.silence() - age; left > 0 {
		return left
	}
	return s.onceMore()
}

// Wanted tells whether users of this replica want the target, and not only other replicas ([Monitor.Observe]).
func (t *Target) Wanted() bool {
	return t.wanted.Load() > 0 || t.monitor.now()/int64(time.Second) < int64(t.until.Load())
}

// want asks for the target to be kept in the table for another keep. It is false if the target has
// left the table.
func (t *Target) want(keep time.Duration) bool { return want(&t.wanted, keep) }

// want makes wanted a keep if that is longer. It is false if wanted is gone.
func want(wanted *atomic.Int64, keep time.Duration) bool {
	for {
		have := wanted.Load()
		switch {
		case have == gone:
			return false
		case have >= int64(keep), wanted.CompareAndSwap(have, int64(keep)):
			return true
		}
	}
}

// prolong takes what was asked for since it was called last into the time that the target is wanted, and
// tells whether that is not over. A keep counts from now on, and the monitor calls this only when the
// target is due. So a target stays up to two waits and a second longer than it has to.
func (t *Target) prolong(now int64) bool {
	until := prolong(&t.wanted, &t.until, now)
	if s := t.share.Load(); s != nil {
		until = max(until, prolong(&s.wanted, &s.until, now))
	}
	return now/int64(time.Second) < int64(until)
}

// prolong takes the keep that was asked for out of wanted, and returns until when that is, or what until was if that is
// later. At any moment in between, one of the two tells that the target is wanted.
func prolong(wanted *atomic.Int64, until *atomic.Uint32, now int64) uint32 {
	last := until.Load()
	for keep := wanted.Load(); keep > 0; {
		if end := secondAfter(later(now, time.Duration(keep))); end > last {
			last = end
			until.Store(end)
		}
		// Only the monitor's goroutine makes it gone, so it is a keep that is thrown away.
		if wanted.CompareAndSwap(keep, 0) {
			break
		}
		keep = wanted.Load()
	}
	return last
}

// secondAfter returns the first whole second that is not before an instant, or the last one that fits.
func secondAfter(now int64) uint32 {
	return uint32(min((now-1)/int64(time.Second)+1, math.MaxUint32))
}

// later returns the instant d after now, or the last that there is.
func later(now int64, d time.Duration) int64 {
	if sum := now + int64(d); sum >= now {
		return sum
	}
	return 1<<63 - 1
}

// smooth takes a round trip into the average, as RFC 6298, section 2, does for SRTT.
func (t *Target) smooth(rtt time.Duration) {
	srtt := t.rtt.Load()
	if srtt == 0 {
		srtt = int64(rtt)
	} else {
		srtt += (int64(rtt) - srtt) / 8
	}
	t.rtt.Store(max(srtt, 1))
}

// ruling says what a result means, beyond itself.
type ruling uint8

const (
	usual   ruling = iota // what the rule says
	excused               // nothing, since this machine is cut off
	lost                  // that the target is down, since this machine cannot reach it any more
)

// judge takes a result into the own standing. It returns nil if its state is the same as before. Without a council the change
// is one of the verdict in force, too.
func (t *Target) judge(r *checker.Report, s *Settings, now int64, by ruling) *Change {
	old := t.load()
	before := standing{state: old.own(), run: t.run}
	after, row := before.after(r.Result, s.Rise, s.Fall)
	flags := checked | old&(pointless|shared|rests|inherited|borrowed)
	switch by {
	case excused:
		after = before
	case lost:
		after, row = standing{state: Down}, int(t.noPaths)
	}
	switch {
	case r.Result == checker.Inconclusive:
		flags |= pointless | old&(damped|silenced)
	case before.state == Down && after.state == Up && now < t.dampedUntil(s):
		after = standing{state: Down, run: before.run + 1}
		flags |= damped
	case isSilence(r.Result) && after.state == Down:
		flags |= old & silenced
		if before.state != Down {
			flags |= silenced
		}
	}
	if before.state == Up && after.state == Down {
		t.countFall(s, now)
	}
	t.countBlind(r.Result)
	switch {
	case r.Result == checker.Inconclusive && t.isBlind(old, s):
		flags |= unable
		if old&shared != 0 {
			flags |= inherited
		}
	case after.state != before.state, by == usual && r.Result != checker.Inconclusive && !before.state.contradicts(r.Result):
		flags &^= inherited
	}
	m := newMark(after.state, r.Result) | flags
	if m&shared != 0 {
		m = m.withState(old.state())
	}
	if r.Result == checker.Answered && r.RTT > 0 {
		if m&borrowed != 0 {
			t.rtt.Store(int64(r.RTT))
		} else {
			t.smooth(r.RTT)
		}
		m &^= borrowed
	}
	t.run = after.run
	t.mark.Store(uint32(m))
	if after.state == before.state {
		return nil
	}
	c := &Change{Target: t, From: before.state, To: after.state, Own: m.word(), Run: row, Result: r.Result, Err: r.Err}
	if before.state == Up && after.state == Down {
		c.Falls, c.Damping = int(t.falls), s.damping(t.falls)
	}
	return c
}

// countBlind counts the inconclusive results in a row, where others can tell more.
func (t *Target) countBlind(r checker.Result) {
	s := t.share.Load()
	switch {
	case s == nil:
	case r != checker.Inconclusive:
		s.blind = 0
	default:
		s.blind = max(s.blind, s.blind+1) // stays at its maximum
	}
}

// isBlind tells whether an inconclusive result, the newest, leaves this replica without a verdict of its own: it had none before,
// or others can tell more, and it is the last of Fall in a row. What it said before is too old then.
func (t *Target) isBlind(m mark, s *Settings) bool {
	if m.own() == Unknown || m&inherited != 0 {
		return true
	}
	share := t.share.Load()
	return share != nil && int(share.blind) >= min(s.Fall, math.MaxInt32)
}

// check returns the probe to send. Only a target that is down by the own standing has a single try. One whose last probe timed
// out is suspect, but that is when the tries count.
func (t *Target) check(s Settings) checker.Check {
	m := t.load()
	c := checker.Check{
		Target:  t.Addr(),
		Source:  s.Source,
		Timeout: s.Timeout,
		Suspect: m.own() == Down || m.result() == checker.Timeout,
		Tag:     t,
	}
	if m.own() != Down {
		c.Tries, c.Spacing = s.Tries, s.spacing(t.RTT())
	}
	return c
}
