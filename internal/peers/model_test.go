package peers

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

var (
	histories = flag.Int("histories", 60, "how many random histories TestModel goes through")
	firstSeed = flag.Uint64("seed", 1, "the seed of the first of them")
)

// illness is what is wrong with a replica.
type illness int

const (
	well         illness = iota
	reachesNone          // nothing comes back
	reachesHalf          // from half of the targets nothing comes back
	losesSome            // one SYN in twenty is lost
	inconclusive         // it cannot check
	illnesses
)

// model is a history of replicas and targets, and what must be true of it.
type model struct {
	*town
	rng     *rand.Rand
	targets int
	dead    []byte // 0, 'r'efuses or 's'ilent
	ill     []illness
	log     []string
	wanting bool
	lossy   int // one check in so many is lost, none where it is 0
}

func (m *model) logf(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%8.3f ", time.Since(m.began()).Seconds())+fmt.Sprintf(format, args...))
}

func (m *model) began() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func (m *model) errorf(format string, args ...any) {
	m.t.Helper()
	m.t.Errorf(format, args...)
}

// answer is what a check comes back with.
func (m *model) answer(h *house, a netip.AddrPort) (checker.Result, time.Duration) {
	octets := a.Addr().As4()
	i := int(octets[2])<<8 | int(octets[3])
	trip := time.Millisecond + time.Duration(m.town.rng.Int64N(int64(time.Millisecond)))
	switch m.ill[h.number] {
	case reachesNone:
		return checker.Timeout, 0
	case reachesHalf:
		if i%2 == 0 {
			return checker.Timeout, 0
		}
	case losesSome:
		if m.town.rng.IntN(20) == 0 {
			return checker.Timeout, 0
		}
	case inconclusive:
		return checker.Inconclusive, trip
	}
	if m.lost() {
		return checker.Timeout, 0
	}
	switch m.dead[i] {
	case 'r':
		return checker.Refused, trip
	case 's':
		return checker.Timeout, 0
	}
	return checker.Answered, trip
}

// truth is what every replica should say of the targets.
func (m *model) truth() string {
	var b strings.Builder
	for _, d := range m.dead {
		b.WriteByte("ud"[boolInt(d != 0)])
	}
	return b.String()
}

func (m *model) running() (all []*house) {
	for _, h := range m.houses {
		if h.core != nil {
			all = append(all, h)
		}
	}
	return all
}

// users have all targets asked for again and again.
func (m *model) users(stop chan struct{}) {
	for {
		m.mu.Lock()
		var monitors []*health.Monitor
		if m.wanting {
			for _, h := range m.houses {
				if h.core != nil && !h.paused {
					monitors = append(monitors, h.monitor)
				}
			}
		}
		m.mu.Unlock()
		for _, monitor := range monitors {
			for i := range m.targets {
				monitor.Target(target(i), quick, keep)
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// disturb does one thing at random.
func (m *model) disturb() {
	h := m.houses[m.rng.IntN(len(m.houses))]
	other := m.houses[m.rng.IntN(len(m.houses))]
	switch what := m.rng.IntN(12); {
	case h.core == nil:
		m.logf("start %d", h.number)
		h.start()
	case what == 0 && len(m.running()) > 1:
		m.logf("crash %d", h.number)
		h.crash()
	case what == 1 && len(m.running()) > 1:
		m.logf("goodbye %d", h.number)
		h.goodbye()
	case what == 2 && !h.paused:
		m.logf("pause %d", h.number)
		h.pause()
	case what <= 3 && h.paused:
		m.logf("go on %d", h.number)
		h.proceed()
	case what == 4 && h != other:
		both := m.rng.IntN(2) == 0
		m.logf("cut %d -> %d, both ways %v", h.number, other.number, both)
		m.mu.Lock()
		m.cut[[2]int{h.number, other.number}] = true
		if both {
			m.cut[[2]int{other.number, h.number}] = true
		}
		m.mu.Unlock()
	case what == 5:
		side := m.rng.IntN(1 << len(m.houses))
		m.logf("split %b", side)
		m.mu.Lock()
		for a := range m.houses {
			for b := range m.houses {
				m.cut[[2]int{a, b}] = side>>a&1 != side>>b&1
			}
		}
		m.mu.Unlock()
	case what == 6:
		m.logf("heal")
		m.mu.Lock()
		clear(m.cut)
		m.mu.Unlock()
	case what == 7:
		m.mu.Lock()
		m.ill[h.number] = illness(m.rng.IntN(int(illnesses)))
		m.logf("%d has illness %d", h.number, m.ill[h.number])
		m.mu.Unlock()
	case what == 8:
		m.mu.Lock()
		m.loss, m.twin = []float64{0, 0.05, 0.3}[m.rng.IntN(3)], []float64{0, 0.1}[m.rng.IntN(2)]
		m.delay = []time.Duration{200 * time.Microsecond, 20 * time.Millisecond, 100 * time.Millisecond}[m.rng.IntN(3)]
		m.logf("loss %v, delay %v", m.loss, m.delay)
		m.mu.Unlock()
	case what == 9:
		c := h.config
		c.Offers, c.MayCheck = nil, nil
		if m.rng.IntN(2) == 0 {
			c.Offers, c.MayCheck = []health.Key{slow}, mayCheckWith(slow)
		}
		m.logf("%d has other settings", h.number)
		h.core.configure(c)
	case what == 10:
		m.logf("%d has its settings", h.number)
		h.core.configure(h.config)
	default:
		m.mu.Lock()
		i := m.rng.IntN(m.targets)
		for range 1 + m.rng.IntN(5) {
			m.dead[i] = []byte{0, 'r', 's'}[m.rng.IntN(3)]
			m.logf("target %d is %q", i, m.dead[i])
			i = (i + 1) % m.targets
		}
		m.mu.Unlock()
	}
}

var slow = unique.Make(health.Settings{Interval: 2 * time.Second, Fast: 200 * time.Millisecond, Timeout: 300 * time.Millisecond})

// heal ends all disturbances.
func (m *model) heal() {
	m.logf("all is well")
	m.mu.Lock()
	clear(m.cut)
	clear(m.ill)
	m.loss, m.twin, m.delay = 0, 0, 200*time.Microsecond
	m.mu.Unlock()
	for _, h := range m.houses {
		h.proceed()
		if h.core == nil {
			h.start()
		}
		h.core.configure(h.config)
	}
}

// agree checks that all say what is true.
func (m *model) agree(when string) {
	m.t.Helper()
	want := m.truth()
	for _, h := range m.running() {
		if got := h.states(m.targets); got != want {
			m.errorf("%s: %d says\n     %s, not\n     %s", when, h.number, got, want)
			for i := range want {
				if got[i] != want[i] {
					m.explain(h, i)
					break
				}
			}
		}
	}
}

// explain tells all about a target that is not as it should be.
func (m *model) explain(h *house, i int) {
	for _, h := range m.running() {
		t, ok := h.monitor.Find(target(i), quick)
		if !ok {
			m.t.Logf("  %d does not have it", h.number)
			continue
		}
		m.t.Logf("  at %d target %d is %v, own %+v", h.number, i, t.State(), t.Own())
		for _, s := range h.core.said(t) {
			m.t.Logf("     %s observer %v: %+v", s.Member, s.Observer, s.Opinion)
		}
	}
	for _, x := range h.core.report().Members {
		m.t.Logf("  %d sees %+v", h.number, x)
	}
}

// rightChanges checks that nothing left an answer unless more than half of those who decide said so. Who was stopped may go
// along with the verdict that is in force elsewhere, until it has checked, as has who says nothing yet.
func (m *model) rightChanges() {
	for _, h := range m.houses {
		for _, c := range h.takeChanges() {
			if goesAlong := h.resumed && 2*(c.Tally.Of-c.Tally.Up) > c.Tally.Of; goesAlong {
				continue
			}
			if c.From == health.Up && c.To == health.Down && c.Tally.Of > 0 && 2*c.Tally.Down <= c.Tally.Of {
				m.errorf("%d: %v is down by %+v", h.number, c.Target.Addr(), c.Tally)
			}
		}
	}
}

// bound is how long a death is not noticed at most, on a network without troubles.
const bound = time.Second + 3*300*time.Millisecond + 300*time.Millisecond

func TestModel(t *testing.T) {
	n := *histories
	if testing.Short() {
		n /= 10
	}
	for i := range n {
		seed := *firstSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { goThrough(t, seed) })
		})
		if t.Failed() {
			t.Fatalf("go test -run TestModel -histories 1 -seed %d", seed)
		}
	}
}

func goThrough(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	n := 3 + rng.IntN(5)
	m := &model{town: newTown(t, n, seed), rng: rng, targets: 10 + rng.IntN(20), ill: make([]illness, n), wanting: true}
	m.dead = make([]byte, m.targets)
	m.check = m.answer
	sites := 1
	if rng.IntN(3) == 0 {
		sites = 2 + rng.IntN(2)
	}
	quorum, observers := sites > 1 && rng.IntN(2) == 0, 1+rng.IntN(3)
	for i, h := range m.houses {
		h.config.Site, h.config.Quorum, h.config.Observers = fmt.Sprint("s", i%sites), quorum, observers
	}
	m.logf("%d replicas at %d sites, quorum %v, %d observers, %d targets", n, sites, quorum, observers, m.targets)
	stop := make(chan struct{})
	done := make(chan struct{}, 2)
	for _, h := range m.houses {
		h.start()
	}
	go func() { m.meet(stop); done <- struct{}{} }()
	go func() { m.users(stop); done <- struct{}{} }()
	time.Sleep(time.Second)
	for range 5 + rng.IntN(20) {
		m.disturb()
		time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
	}
	m.rightChanges()
	m.heal()
	time.Sleep(20 * time.Second)
	m.agree("20 s after healing")
	m.shareWell(sites, observers)
	m.noticeDeaths(bound + 300*time.Millisecond)
	if m.rng.IntN(2) == 0 {
		m.oneSick()
	}
	m.loseOne(observers)
	m.startAnew()
	m.rightChanges()
	m.vanish()
	close(stop)
	<-done
	<-done
	for _, h := range m.running() {
		h.core.checkInvariants(t)
		h.crash()
	}
	time.Sleep(5 * time.Second)
	if t.Failed() {
		t.Logf("seed %d:\n%s", seed, strings.Join(m.log, "\n"))
	}
}

// shareWell checks that as many check each target as should, and that this costs as much as so many machines.
func (m *model) shareWell(sites, observers int) {
	m.t.Helper()
	want := 0
	for s := range sites {
		want += min(observers, (len(m.houses)+sites-1-s)/sites)
	}
	for i, n := range m.checkers(m.targets) {
		if n != want {
			m.errorf("target %d is checked by %d, not %d", i, n, want)
			m.explain(m.houses[0], i)
			break
		}
	}
	m.mu.Lock()
	clear(m.syns)
	m.mu.Unlock()
	const window = 10 * time.Second
	time.Sleep(window)
	m.mu.Lock()
	defer m.mu.Unlock()
	for a, n := range m.syns {
		// One machine sends a SYN each second, less a tenth.
		if most := 1.15 * float64(want) * window.Seconds() * 1.1; float64(n) > most {
			m.errorf("%v was checked %d times in %v", a, n, window)
			break
		}
	}
}

// oneSick has one replica of a site with three or more be at fault, with what may come on top: that removes nothing.
func (m *model) oneSick() {
	m.t.Helper()
	h := m.houses[m.rng.IntN(len(m.houses))]
	if m.sites()[h.config.Site] < 3 || h.config.Observers < 3 {
		return
	}
	m.mu.Lock()
	clear(m.dead)
	m.mu.Unlock()
	time.Sleep(5 * time.Second)
	m.agree("before one is sick")
	m.mu.Lock()
	m.ill[h.number] = illness(1 + m.rng.IntN(int(illnesses)-1))
	m.logf("only %d has illness %d", h.number, m.ill[h.number])
	m.mu.Unlock()
	for _, h := range m.houses {
		h.takeChanges()
	}
	time.Sleep(15 * time.Second)
	for _, h := range m.houses {
		for _, c := range h.takeChanges() {
			m.errorf("one replica is sick, and %d has %v %v by %+v", h.number, c.Target.Addr(), c.To, c.Tally)
		}
	}
	m.set(func() { clear(m.ill) })
	time.Sleep(10 * time.Second)
	m.agree("after one was sick")
}

// loseOne has a replica stop while targets die: the others check in its place and know in time.
func (m *model) loseOne(observers int) {
	m.t.Helper()
	h := m.houses[m.rng.IntN(len(m.houses))]
	m.logf("%d is lost", h.number)
	h.crash()
	time.Sleep(time.Duration(m.rng.Int64N(int64(2 * time.Second))))
	m.noticeDeaths(bound + 4*time.Second)
	for i, n := range m.checkers(m.targets) {
		want := 0
		for _, site := range m.sites() {
			want += min(observers, site)
		}
		if n != want {
			m.errorf("one is lost, and target %d is checked by %d, not %d", i, n, want)
			break
		}
	}
	h.start()
	time.Sleep(5 * time.Second)
	m.agree("after one was lost")
}

// sites returns how many replicas run at each.
func (m *model) sites() map[string]int {
	n := make(map[string]int)
	for _, h := range m.running() {
		n[h.config.Site]++
	}
	return n
}

// noticeDeaths has some targets die, and checks that all replicas know in time.
func (m *model) noticeDeaths(within time.Duration) {
	m.t.Helper()
	m.mu.Lock()
	for i := range m.dead {
		m.dead[i] = []byte{0, 'r', 's'}[m.rng.IntN(3)]
	}
	m.logf("new deaths %q", m.dead)
	m.mu.Unlock()
	time.Sleep(within)
	m.agree("after deaths")
}

// startAnew has a replica start anew, which must know what is dead when it is ready.
func (m *model) startAnew() {
	m.t.Helper()
	h := m.houses[m.rng.IntN(len(m.houses))]
	same := m.sites()[h.config.Site]
	crash := m.rng.IntN(2) == 0
	m.logf("%d starts anew, crash %v", h.number, crash)
	m.mu.Lock()
	m.wanting = false
	m.mu.Unlock()
	if crash {
		h.crash()
		time.Sleep(time.Duration(m.rng.Int64N(int64(5 * time.Second))))
	} else {
		h.goodbye()
	}
	h.start()
	for len(h.core.report().Members) < len(m.houses) || !h.core.ready() {
		time.Sleep(10 * time.Millisecond)
	}
	for i := range m.targets {
		if got := h.monitor.Target(target(i), quick, keep).State(); (got == health.Down) != (m.dead[i] != 0) && same > 1 {
			m.errorf("%d is ready, and target %d is %v", h.number, i, got)
			m.explain(h, i)
			break
		}
	}
	m.mu.Lock()
	m.wanting = true
	m.mu.Unlock()
	time.Sleep(5 * time.Second)
	m.agree("after a start")
}

// vanish checks that targets leave all tables that no user wants.
func (m *model) vanish() {
	m.t.Helper()
	m.mu.Lock()
	m.wanting = false
	m.mu.Unlock()
	time.Sleep(3*keep + 10*time.Second)
	for _, h := range m.running() {
		if n := h.monitor.Len(); n > 0 {
			m.errorf("%d has %d targets that nobody wants", h.number, n)
		}
		h.core.mu.Lock()
		if n := len(h.core.records.all); n > 0 {
			m.errorf("%d knows of %d subjects that nobody wants", h.number, n)
		}
		h.core.mu.Unlock()
	}
}
