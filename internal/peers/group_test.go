package peers

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// town is a simulated network with replicas and targets, for use in a synctest bubble.
type town struct {
	t   testing.TB
	mu  sync.Mutex
	rng *rand.Rand
	// delay is how long a message takes at least, and at most twice that.
	delay      time.Duration
	loss, twin float64         // how likely a packet is lost, or comes twice
	cut        map[[2]int]bool // from one replica to another
	houses     []*house
	// check is what comes back when a replica checks a target, and after how long.
	check  func(h *house, target netip.AddrPort) (checker.Result, time.Duration)
	syns   map[netip.AddrPort]int
	sent   [2]int                               // messages and octets
	drop   func(to *house, message []byte) bool // if not nil, tells which are lost
	record func(message []byte)                 // if not nil, is told what the second replica is sent
}

// house is a place for a replica, which may start anew.
type house struct {
	town   *town
	number int
	starts int
	config Config
	at     netip.AddrPort

	core    *core
	monitor *health.Monitor
	stop    chan struct{}
	done    chan struct{}
	// While it is paused, what arrives waits. The goroutine of the core stops at its next turn.
	paused  bool
	resumed bool // it was paused once
	goOn    chan struct{}
	waiting []func()
	lines   []string
	told    []Disagreement
	notes   map[string]string
	changes []health.Change
	frozen  bool
}

var quick = unique.Make(health.Settings{Interval: time.Second, Fast: 200 * time.Millisecond, Timeout: 300 * time.Millisecond})

// keep is for how long a target is kept that somebody has asked for.
const keep = 30 * time.Second

func mayCheckWith(keys ...health.Key) func(health.Subject) (health.Key, time.Duration, bool) {
	return func(s health.Subject) (health.Key, time.Duration, bool) {
		for _, k := range keys {
			if health.Fingerprint(k) == s.Settings {
				return k, keep, true
			}
		}
		return health.Key{}, 0, false
	}
}

func newTown(t testing.TB, n int, seed uint64) *town {
	w := &town{t: t, rng: rand.New(rand.NewPCG(seed, 1)), delay: 200 * time.Microsecond, cut: make(map[[2]int]bool), syns: make(map[netip.AddrPort]int)}
	w.check = func(*house, netip.AddrPort) (checker.Result, time.Duration) {
		return checker.Answered, time.Millisecond
	}
	for i := range n {
		h := &house{town: w, number: i, at: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 7946), notes: make(map[string]string)}
		h.config = Config{Address: h.at, Site: "s", Offers: []health.Key{quick}, MayCheck: mayCheckWith(quick), Shaker: "v1"}
		w.houses = append(w.houses, h)
	}
	return w
}

// start starts the replica of a house, which others hear of soon.
func (h *house) start() {
	h.starts++
	monitor := health.New(health.Options{Listener: (*ear)(h)})
	monitor.SetFreeze(90, 5*time.Minute)
	listener := Listener{
		Infof:    func(format string, args ...any) { h.note(fmt.Sprintf(format, args...)) },
		Warningf: func(format string, args ...any) { h.note("! " + fmt.Sprintf(format, args...)) },
		Disagreed: func(_ *health.Target, d Disagreement) {
			h.town.mu.Lock()
			defer h.town.mu.Unlock()
			h.told = append(h.told, d)
		},
		Noted: func(from, key string, value []byte) {
			h.town.mu.Lock()
			defer h.town.mu.Unlock()
			h.notes[key] = string(value)
		},
	}
	c := newCore(h.config, fmt.Sprintf("r%d-%d", h.number, h.starts), monitor, listener, &line{h})
	stop, done, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	close(goOn)
	h.town.set(func() { h.core, h.monitor, h.stop, h.done, h.goOn = c, monitor, stop, done, goOn })
	monitor.SetCouncil(c)
	monitor.SetProber(&hand{h, monitor})
	go h.run(c, stop, done)
}

func (h *house) note(line string) {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	h.lines = append(h.lines, line)
}

// run is core.run, but that it can be stopped for a while.
func (h *house) run(c *core, stop, done chan struct{}) {
	defer close(done)
	c.begin()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.town.mu.Lock()
		goOn := h.goOn
		h.town.mu.Unlock()
		select {
		case <-stop:
			return
		case <-goOn:
		}
		at := c.turn()
		timer.Reset(time.Duration(max(at-c.now(), 0)))
		select {
		case <-stop:
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// isFrozen tells whether its verdicts are frozen.
func (h *house) isFrozen() bool {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	return h.frozen
}

// takeChanges returns the changes of verdicts since it was called last.
func (h *house) takeChanges() []health.Change {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	changes := h.changes
	h.changes = nil
	return changes
}

// crash ends the replica of a house without a word. goodbye lets it say goodbye before.
func (h *house) crash() {
	close(h.stop)
	h.proceed()
	<-h.done
	h.monitor.Close()
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	h.core, h.waiting, h.changes, h.frozen = nil, nil, nil, false
}

func (h *house) goodbye() {
	h.core.goodbye()
	h.crash()
}

func (h *house) pause() {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	h.paused, h.goOn = true, make(chan struct{})
}

func (h *house) proceed() {
	h.town.mu.Lock()
	if !h.paused {
		h.town.mu.Unlock()
		return
	}
	h.paused, h.resumed = false, true
	waiting := h.waiting
	h.waiting = nil
	close(h.goOn)
	h.town.mu.Unlock()
	for _, f := range waiting {
		f()
	}
}

// later has something done for a replica after a while, or when it goes on. It is not done when it has crashed meanwhile.
func (h *house) later(after time.Duration, f func(c *core)) {
	c := h.core
	time.AfterFunc(after, func() {
		h.town.mu.Lock()
		if h.core != c || c == nil {
			h.town.mu.Unlock()
			return
		}
		if h.paused {
			h.waiting = append(h.waiting, func() { f(c) })
			h.town.mu.Unlock()
			return
		}
		h.town.mu.Unlock()
		f(c)
	})
}

// ear is a listener of a monitor.
type ear house

func (e *ear) Checked(*health.Target, checker.Report) {}
func (e *ear) Changed(c health.Change) {
	e.town.mu.Lock()
	defer e.town.mu.Unlock()
	e.changes = append(e.changes, c)
}
func (e *ear) Froze(f health.Freeze) {
	e.town.mu.Lock()
	defer e.town.mu.Unlock()
	e.frozen = f.Frozen
}

// line is the network of a replica.
type line struct {
	house *house
}

func (l *line) send(to string, message []byte, reliable bool) {
	w := l.house.town
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.houses {
		if h.core != nil && h.core.name == to {
			w.carry(l.house, h, message, reliable)
		}
	}
}

func (l *line) sendTo(_ string, to netip.AddrPort, message []byte) {
	w := l.house.town
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.houses {
		if h.core != nil && h.at == to {
			w.carry(l.house, h, message, false)
		}
	}
}

// carry takes a message from a house to another. The caller holds mu.
func (w *town) carry(from, to *house, message []byte, reliable bool) {
	if len(message) > packetSize && !reliable {
		w.t.Errorf("a packet of %d octets", len(message))
	}
	if w.record != nil && to.number == 1 {
		w.record(message)
	}
	w.sent[0]++
	w.sent[1] += len(message)
	if w.drop != nil && w.drop(to, message) || w.cut[[2]int{from.number, to.number}] || !reliable && w.rng.Float64() < w.loss {
		return
	}
	message = bytes.Clone(message)
	for range 1 + boolInt(!reliable && w.rng.Float64() < w.twin) {
		to.later(w.delay+time.Duration(w.rng.Int64N(int64(w.delay)+1)), func(c *core) { c.take(message) })
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hand is a prober.
type hand struct {
	house   *house
	monitor *health.Monitor
}

func (p *hand) Submit(checks ...checker.Check) error {
	w := p.house.town
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range checks {
		w.syns[c.Target]++
		result, after := w.check(p.house, c.Target)
		if result == checker.Timeout || result == checker.Inconclusive && after == 0 {
			after = c.Timeout
		}
		r := checker.Report{Tag: c.Tag, Result: result, RTT: after}
		if result != checker.Answered {
			r.RTT = 0
		}
		m := p.monitor
		p.house.later(after, func(*core) { m.Deliver([]checker.Report{r}) })
	}
	return nil
}

// meet has the replicas hear of each other as by gossip, until stop is closed: who reaches whom both ways.
func (w *town) meet(stop chan struct{}) {
	known := make(map[[2]string]time.Time) // until when somebody was reached
	for {
		w.mu.Lock()
		var joins, leaves []func()
		for _, a := range w.houses {
			for _, b := range w.houses {
				if a == b || a.core == nil || b.core == nil || a.paused {
					continue
				}
				key := [2]string{a.core.name, b.core.name}
				reached := !b.paused && !w.cut[[2]int{a.number, b.number}] && !w.cut[[2]int{b.number, a.number}]
				_, was := known[key]
				switch {
				case reached && !was:
					ca, cb, address := a.core, b.core, b.at
					joins = append(joins, func() { ca.joined(cb.name, address, cb.meta()) })
					known[key] = time.Now()
				case reached:
					known[key] = time.Now()
				}
			}
			for key, at := range known {
				if a.core != nil && !a.paused && key[0] == a.core.name && time.Since(at) > 6*time.Second {
					c := a.core
					leaves = append(leaves, func() { c.left(key[1], false) })
					delete(known, key)
				}
			}
		}
		w.mu.Unlock()
		for _, f := range slices.Concat(joins, leaves) {
			f()
		}
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// simulate runs f in a bubble, with n replicas that are started and meet each other.
func simulate(t *testing.T, n int, seed uint64, f func(w *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, n, seed)
		stop, done := make(chan struct{}), make(chan struct{})
		for _, h := range w.houses {
			h.start()
		}
		go func() {
			defer close(done)
			w.meet(stop)
		}()
		f(w)
		close(stop)
		<-done
		for _, h := range w.houses {
			if h.core != nil {
				h.core.checkInvariants(t)
				h.crash()
			}
		}
		time.Sleep(5 * time.Second) // what is on its way arrives
	})
}

func target(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 443)
}

// want has users of all replicas that run ask for the targets.
func (w *town) want(targets int, houses ...*house) {
	if len(houses) == 0 {
		houses = w.houses
	}
	for _, h := range houses {
		for i := range targets {
			if h.core != nil {
				h.monitor.Target(target(i), quick, keep)
			}
		}
	}
}

// states returns the verdicts of a replica, "." for a target that is not in its table.
func (h *house) states(targets int) string {
	var b []byte
	for i := range targets {
		t, ok := h.monitor.Find(target(i), quick)
		letter := byte('.')
		if ok {
			letter = "?ud"[t.State()]
		}
		b = append(b, letter)
	}
	return string(b)
}

// checkers returns how many replicas check each target.
func (w *town) checkers(targets int) (n []int) {
	n = make([]int, targets)
	for i := range targets {
		for _, h := range w.houses {
			if h.core == nil {
				continue
			}
			if t, ok := h.monitor.Find(target(i), quick); ok {
				h.core.mu.Lock()
				if x := h.core.byTarget[t]; x != nil && x.observes {
					n[i]++
				}
				h.core.mu.Unlock()
			}
		}
	}
	return n
}

func TestReplicasShareTheChecks(t *testing.T) {
	simulate(t, 5, 1, func(w *town) {
		time.Sleep(time.Second)
		w.want(100)
		time.Sleep(3 * time.Second)
		for i, n := range w.checkers(100) {
			if n != 3 {
				t.Errorf("target %d is checked by %d", i, n)
			}
		}
		for _, h := range w.houses {
			if got := h.states(100); got != string(bytes.Repeat([]byte("u"), 100)) {
				t.Errorf("%d: %s", h.number, got)
			}
		}
		for _, h := range w.houses {
			for _, m := range h.core.report().Members {
				if !m.Alive || m.Lag > 0 || m.Strange || m.Stuck || m.InDoubt {
					t.Errorf("%d: %+v", h.number, m)
				}
			}
			t.Log(h.lines)
		}
		w.mu.Lock()
		w.check = func(_ *house, a netip.AddrPort) (checker.Result, time.Duration) {
			if a.Addr().As4()[3] < 50 {
				return checker.Refused, time.Millisecond
			}
			return checker.Answered, time.Millisecond
		}
		w.mu.Unlock()
		time.Sleep(2 * time.Second)
		for _, h := range w.houses {
			if got, want := h.states(100), string(append(bytes.Repeat([]byte("d"), 50), bytes.Repeat([]byte("u"), 50)...)); got != want {
				t.Errorf("%d: %s", h.number, got)
			}
		}
	})
}
