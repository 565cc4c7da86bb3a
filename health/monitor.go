package health

import (
	"iter"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/clock"
)

// defaultTargets is the bound of the table where none is given.
const defaultTargets = 65536

// Prober sends probes. [checker.Prober] is one. One that has a method Behind as well, as that has, gets no probes while it
// returns true.
type Prober interface {
	// Submit takes checks and returns without waiting for them. It must not keep the slice. Every
	// check has to come back exactly once through [Monitor.Deliver], its Tag unchanged; with an
	// error none does, and they are sent again later.
	Submit(checks ...checker.Check) error
}

// Listener is told what happens. Its methods are called from the monitor's goroutine, one at a time,
// and hold up all probing until they return. They must not call [Monitor.Close] nor [Monitor.Await].
type Listener interface {
	// Checked is called for every result, also an inconclusive one, when the target's state and
	// round trip are up to date already. A probe that came back because its prober was closed
	// ([checker.ErrClosed]) has no result.
	Checked(t *Target, r checker.Report)
	// Changed is called when the verdict in force has changed: by a result, after Checked, or by what a council decided
	// (see [Council]). A change of the own standing that a council did not go along with is none.
	Changed(c Change)
	// Froze is called when verdicts freeze or thaw, see [Monitor.SetFreeze].
	Froze(f Freeze)
}

// Change is a change of a target's verdict in force.
type Change struct {
	Target   *Target
	From, To State
	// Own is what this replica says by its own checks. Without a council that is To.
	Own Word
	// Tally is what the observers say. It is zero without a council, and where the own checks decide because there is no
	// observer.
	Tally Tally
	// Run is how many results in a row led to the change, of which Result and Err are the last: answers
	// where To is Up, failures of any kind where it is Down. Inconclusive results between them are not
	// counted, except where Result is Inconclusive: then Run is how many of them said in a row that this
	// machine has no path to the target. Run is 0 where a freeze brings the target back, because what
	// brought it down was this machine's fault: To is Up then, or Unknown if it was never up. Where a council has decided,
	// these three are about the own checks: if they led to the same verdict, how they did, even if that was a while ago. If
	// not, Run is 0, and Result and Err are the newest, or the zero values if there was none.
	Run    int
	Result checker.Result
	Err    error // as in [checker.Report]
	// Falls is how often the target went down without having been up for DampingMax in between, this time
	// included, by the own checks. Damping is how long it stays down at least. Both are 0 unless From is Up and To and Own
	// are down.
	Falls   int
	Damping time.Duration
}

// Options configure a Monitor. The zero value is usable.
type Options struct {
	// Targets bounds the table. 0 or less: 65536.
	Targets int
	// Rate bounds the SYNs sent per second, with bursts of a tenth of it: probes, and further tries of probes as far as
	// the prober asks [Monitor.Pace] for them. 0 or less: no bound.
	Rate int
	// Listener may be nil.
	Listener Listener
	// Late, if not nil, is told for every probe how long after the time it was due it was sent. It
	// is called like a Listener's methods.
	Late func(time.Duration)
	// Clock, if not nil, is asked for the wall clock's time instead of time.Now. Only what people see of
	// instants depends on it, see [Status].
	Clock func() time.Time
	// Panic, if not nil, is told the reason of a panic in Listener, Late or Prober. The monitor then goes
	// on with the next report or probe. Panic is called while the panic is being recovered from, so it can
	// still read the stack. Without it a panic ends the process, as it does in any goroutine.
	Panic func(reason any)
}

// Counts are the numbers of targets in the table. They are read one after the other, so they may be
// off by the few targets that change meanwhile.
type Counts struct {
	Total, Unknown, Up, Down int
	// Damped is how many targets answer but are kept down because they flap, see [Target.Damped]. They
	// are among those of Down.
	Damped int
	// Resting is how many targets other replicas check, and not this one.
	Resting int
	// Rejected is how often somebody asked for a target that was new when the table was full.
	Rejected uint64
}

// Monitor is the table of targets and the goroutine that probes them. Its methods may be called from
// any goroutine.
type Monitor struct {
	listener Listener
	late     func(time.Duration)
	panicked func(any)
	clock    clock.Clock

	table    table
	size     atomic.Int64 // of table, changed with mu held
	states   [states]atomic.Int64
	damped   atomic.Int64
	resting  atomic.Int64
	freezing freezing
	limit    atomic.Int64 // of size
	rejected atomic.Uint64
	bucket   bucket // of SYNs
	waiters  waiters
	closed   atomic.Bool // set with mu held
	closing  chan struct{}
	done     chan struct{} // closed when the goroutine has ended
	wake     chan struct{} // holds a token while there is something new for the goroutine

	// mu is held while a target is added to the table or taken out of it.
	mu       sync.Mutex
	added    list // targets that the goroutine has not seen
	council  Council
	convened atomic.Uint32 // counts SetCouncil, changed with mu held

	// statusMu is held while anything that Target.Status returns is changed or read.
	statusMu sync.Mutex

	inboxMu sync.Mutex
	inbox   []checker.Report
	pending []*Target // to be reconsidered
	peers   contact   // what was last told of the peers

	// What the goroutine has done, for Checks.
	finished atomic.Uint64
	flying   atomic.Int64
	planned  atomic.Int64 // when its next turn is due

	// proberMu is held while the prober is in use. So SetProber waits until the old one is not any more.
	// The other locks may be taken while it is held. None is taken while one of them is, but for the table's own, and those
	// of a council while mu is held.
	proberMu   sync.Mutex
	prober     Prober
	generation uint16 // counts SetProber

	loop loop
}

// New returns a monitor that has no targets and no prober yet, and starts its goroutine. It has to be
// closed.
func New(o Options) *Monitor {
	m := newMonitor(o)
	go m.run()
	return m
}

// newMonitor returns a monitor whose goroutine was not started.
func newMonitor(o Options) *Monitor {
	m := &Monitor{
		listener: o.Listener,
		late:     o.Late,
		panicked: o.Panic,
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
		wake:     make(chan struct{}, 1),
	}
	m.clock.Start(o.Clock)
	m.loop.freezer.ballot = newBallot()
	m.SetLimits(o.Targets, o.Rate)
	return m
}

// now returns the present instant in the monitor's time.
func (m *Monitor) now() int64 { return m.clock.Now() }

// signal makes the goroutine take a turn soon.
func (m *Monitor) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Target returns the target with this address and these settings and keeps it in the table for at
// least keep from now on, or longer where somebody asked for that. An IPv4-mapped IPv6 address is
// taken as IPv4. A target that is not in the table is added, and its first probe is sent at once.
// Where a new target cannot be added, because the table is full or the monitor closed ([Monitor.Closed]
// tells which), Target returns nil. It takes no lock and allocates nothing unless it adds a target.
func (m *Monitor) Target(addr netip.AddrPort, s Key, keep time.Duration) *Target {
	host, port := addr.Addr().Unmap(), addr.Port()
	if t := m.table.getNear(host, port, s); t != nil && t.want(keep) {
		return t
	}
	return m.find(host, port, s, keep)
}

// find is Target where the target is not near. It is apart because of the room that the key takes on the stack.
//
//go:noinline
func (m *Monitor) find(addr netip.Addr, port uint16, s Key, keep time.Duration) *Target {
	k := key{addr: addr, port: port, settings: s}
	if t := m.table.get(&k); t != nil && t.want(keep) {
		m.table.bring(t)
		return t
	}
	return m.add(k, keep)
}

// Find returns the target that [Monitor.Target] would return, and changes nothing. Where that is not in the table, it is one
// that is nowhere and that nobody checks, and inTable is false. It is nil where there is no room for a new one.
func (m *Monitor) Find(addr netip.AddrPort, s Key) (t *Target, inTable bool) {
	k := key{addr: addr.Addr().Unmap(), port: addr.Port(), settings: s}
	if t := m.table.get(&k); t != nil && t.wanted.Load() != gone {
		return t, true
	}
	if m.closed.Load() || m.size.Load() >= m.limit.Load() {
		return nil, false
	}
	return m.newTarget(k), false
}

func (m *Monitor) newTarget(k key) *Target {
	now := m.now()
	return &Target{addr: k.addr, settings: k.settings, port: k.port, monitor: m, stage: listed,
		born: now, due: now, since: now, heard: now}
}

func (m *Monitor) add(k key, keep time.Duration) *Target {
	// A look before the lock keeps a flood of new addresses cheap.
	if !m.room() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.table.get(&k); t != nil {
		// With mu held no target in the table is gone.
		t.want(keep)
		return t
	}
	return m.insert(k, keep, false)
}

// insert adds a target that is not in the table, on behalf of the users of this replica or of others. The caller holds mu.
func (m *Monitor) insert(k key, keep time.Duration, forOthers bool) *Target {
	if !m.room() {
		return nil
	}
	t := m.newTarget(k)
	if m.council != nil {
		t.share.Store(&share{convened: m.convened.Load(), since: t.since, said: t.since})
	}
	if forOthers {
		t.wantForOthers(keep)
	} else {
		t.want(keep)
	}
	if m.council != nil {
		t.begin(m.council.Enter(t))
	}
	m.table.put(t)
	m.size.Add(1)
	mark := t.load()
	m.states[mark.state()].Add(1)
	if mark&rests != 0 {
		m.resting.Add(1)
	}
	m.added.push(t)
	m.signal()
	return t
}

// room tells whether a target may be added, and counts it as rejected where the table is full.
func (m *Monitor) room() bool {
	if m.closed.Load() {
		return false
	}
	if m.size.Load() >= m.limit.Load() {
		m.rejected.Add(1)
		return false
	}
	return true
}

// forget takes a target that nobody wants any more out of the table. It is false where somebody asked
// for the target at the last moment. The goroutine calls it, for a target that is in no list.
func (m *Monitor) forget(t *Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := t.share.Load()
	if s != nil && s.wanted.Load() != 0 || !t.wanted.CompareAndSwap(0, gone) {
		return false
	}
	m.table.remove(t)
	m.size.Add(-1)
	mark := t.load()
	m.states[mark.state()].Add(-1)
	if mark.isDamped() {
		m.damped.Add(-1)
	}
	if mark&rests != 0 {
		m.resting.Add(-1)
	}
	if m.council != nil && s != nil && s.convened == m.convened.Load() {
		m.council.Leave(t)
	}
	return true
}

// SetProber makes p send the probes from now on. When it returns, the prober before p is not called
// any more and may be closed. What that has in flight may still be delivered: a probe that was cut
// short ([checker.ErrClosed]) is sent again through p at once. A nil p stops probing, and targets that
// come due wait for the next prober.
func (m *Monitor) SetProber(p Prober) {
	m.proberMu.Lock()
	m.prober = p
	m.generation++
	m.proberMu.Unlock()
	m.signal()
}

// Pace takes account of a SYN that a prober is about to send besides the first of a probe, and returns for how long it has
// to wait, so that no more of them leave per second than [Options].Rate. It is what [checker.Config].Pace asks for.
func (m *Monitor) Pace() time.Duration { return m.bucket.reserve(m.now()) }

// SetLimits sets the bound of the table and of the SYNs per second, as in [Options]. A bound below
// the present size takes no target out.
func (m *Monitor) SetLimits(targets, rate int) {
	m.limit.Store(int64(positive(targets, defaultTargets)))
	m.bucket.limit(rate)
	m.signal()
}

// Deliver takes the reports of this monitor's probes. It copies them and never blocks for long, so
// the loop of a prober may call it.
func (m *Monitor) Deliver(reports []checker.Report) {
	if len(reports) == 0 {
		return
	}
	m.inboxMu.Lock()
	if !m.closed.Load() {
		m.inbox = append(m.inbox, reports...)
	}
	m.inboxMu.Unlock()
	m.signal()
}

// Now returns the wall clock's present time, by which instants are told, see [Status].
func (m *Monitor) Now() time.Time { return m.clock.At(m.clock.Now()) }

// Closed tells whether [Monitor.Close] was called.
func (m *Monitor) Closed() bool { return m.closed.Load() }

// Len returns the number of targets in the table.
func (m *Monitor) Len() int { return int(m.size.Load()) }

// Counts returns the numbers of targets.
func (m *Monitor) Counts() Counts {
	return Counts{
		Total:    m.Len(),
		Unknown:  int(m.states[Unknown].Load()),
		Up:       int(m.states[Up].Load()),
		Down:     int(m.states[Down].Load()),
		Damped:   int(m.damped.Load()),
		Resting:  int(m.resting.Load()),
		Rejected: m.rejected.Load(),
	}
}

// All yields the targets in the table in no certain order, each at most once. Targets that come or go
// meanwhile may be missing. To be looked at does not keep a target in the table.
func (m *Monitor) All() iter.Seq[*Target] {
	return m.table.all()
}

// Close ends the probing and all waits, and returns when the goroutine has ended: no Listener and no
// Prober is called after that. Targets keep their last verdicts, and Target still finds them. Close
// may be called more than once.
func (m *Monitor) Close() {
	m.mu.Lock()
	if !m.closed.Swap(true) {
		close(m.closing)
	}
	m.mu.Unlock()
	<-m.done
	m.inboxMu.Lock()
	m.inbox, m.pending = nil, nil
	m.inboxMu.Unlock()
	m.proberMu.Lock()
	m.prober = nil
	m.proberMu.Unlock()
}
