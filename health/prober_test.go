package health

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
	"unique"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker/checker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// addr returns the i-th of many addresses.
func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 443)
}

var plain = unique.Make(Settings{})

// network is a Prober for use in a synctest bubble: it delivers what its answer function says.
type network struct {
	t       *testing.T
	deliver func([]checker.Report)
	// answer is called when the check is sent and tells what comes back after how long.
	answer func(c checker.Check) (checker.Report, time.Duration)

	mu       sync.Mutex
	inFlight map[any]bool
	sent     map[netip.AddrPort][]time.Time
	batches  [][]checker.Check
}

func newNetwork(t *testing.T, m *Monitor, answer func(checker.Check) (checker.Report, time.Duration)) *network {
	return &network{t: t, deliver: m.Deliver, answer: answer,
		inFlight: map[any]bool{}, sent: map[netip.AddrPort][]time.Time{}}
}

// always answers every check the same way.
func always(r checker.Result, after time.Duration) func(checker.Check) (checker.Report, time.Duration) {
	return func(checker.Check) (checker.Report, time.Duration) {
		return checker.Report{Result: r, RTT: after}, after
	}
}

func (n *network) Submit(checks ...checker.Check) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.batches = append(n.batches, slices.Clone(checks))
	for _, c := range checks {
		if n.inFlight[c.Tag] {
			n.t.Errorf("%v: two probes in flight", c.Target)
		}
		n.inFlight[c.Tag] = true
		n.sent[c.Target] = append(n.sent[c.Target], time.Now())
		r, after := n.answer(c)
		r.Tag = c.Tag
		time.AfterFunc(after, func() {
			n.mu.Lock()
			delete(n.inFlight, c.Tag)
			n.mu.Unlock()
			n.deliver([]checker.Report{r})
		})
	}
	return nil
}

func (n *network) times(a netip.AddrPort) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sent[a])
}

func (n *network) probes() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	total := 0
	for _, times := range n.sent {
		total += len(times)
	}
	return total
}

// recorder is a Listener that keeps what it is told.
type recorder struct {
	mu      sync.Mutex
	checked []checker.Report
	changes []Change
	at      []time.Time // of changes
	freezes []Freeze
}

func (r *recorder) Checked(_ *Target, report checker.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked = append(r.checked, report)
}

func (r *recorder) Changed(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
	r.at = append(r.at, time.Now())
}

// reset forgets the changes, and returns them.
func (r *recorder) reset() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := r.changes
	r.changes, r.at = nil, nil
	return changes
}

func (r *recorder) Froze(f Freeze) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freezes = append(r.freezes, f)
}

// manual is a Prober for monitors whose turns a test makes by hand: it keeps the checks.
type manual struct{ checks []checker.Check }

func (p *manual) Submit(checks ...checker.Check) error {
	p.checks = append(p.checks, checks...)
	return nil
}

func (p *manual) take() []checker.Check {
	checks := p.checks
	p.checks = nil
	return checks
}
