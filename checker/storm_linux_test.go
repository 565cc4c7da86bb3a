package checker

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var stormTime = flag.Duration("storm", 3*time.Second, "how long TestLabStorm lasts for each method")

// kind is a sort of target, with what a check of it may find.
type kind struct {
	name    string
	share   int // how often it is checked
	targets []netip.AddrPort
	timeout func(*rand.Rand) time.Duration
	suspect bool
	want    []Result
	reason  error // of Inconclusive, where that is wanted
}

func (k *kind) allows(r Report) bool {
	switch {
	case r.Result == Inconclusive && (r.Err == ErrClosed || r.Err == ErrBusy || r.Err == ErrPaused):
		return true
	case !slices.Contains(k.want, r.Result):
		return false
	case r.Result == Answered && r.Err != nil, r.Result == Timeout && r.Err != ErrTimeout, r.Result == Inconclusive && !errors.Is(r.Err, k.reason):
		return false
	default:
		return untimed(r) || (r.Result == Answered || r.Result == Refused) == (r.RTT > 0)
	}
}

// stormCheck is the tag of a check.
type stormCheck struct {
	kind     *kind
	prober   *stormProber
	timeout  time.Duration
	began    time.Time
	reported atomic.Bool
}

// stormProber is one of the probers that come and go.
type stormProber struct {
	*Prober
	accepted, reported atomic.Int64
	closed             atomic.Bool
}

type storm struct {
	t      *testing.T
	method Method
	kinds  []*kind
	shares []*kind // each kind as often as it has shares
	places chan struct{}

	current atomic.Pointer[stormProber]
	all     []*stormProber

	mu     sync.Mutex
	counts map[string]int // by kind and result
}

// Mixed results at full speed, by checks of one try and of several, from many goroutines, while probers are closed and started anew: each check is
// reported once, with what its own target does. A late answer, which is that of a target which refuses, say,
// never becomes the result of the next check on the same socket or port.
func TestLabStorm(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				s := &storm{
					t: t, method: m, kinds: stormKinds(l),
					places: make(chan struct{}, 1024),
					counts: make(map[string]int),
				}
				s.rage(*stormTime)
				s.account()
			})
		})
	}
}

// stormKinds makes the hosts. Every kind has targets of both families.
func stormKinds(l *lab.Lab) []*kind {
	web := l.Host("web")
	web.Listen(80)
	web.Reject(lab.Reset, 84)
	late := l.Host("late")
	late.Listen(80)
	late.Delay(10 * time.Millisecond)
	router := l.Host("router")
	gone := router.Host("gone")
	router.Reject(lab.HostUnreachable)
	router.Reject(lab.AddrUnreachable6)
	hole := l.Host("hole")
	hole.Drop()

	const addrs = 64
	at := func(h *lab.Host, port uint16) (targets []netip.AddrPort) {
		for _, addr := range append(h.Addrs4(addrs), h.Addrs6(addrs)...) {
			targets = append(targets, netip.AddrPortFrom(addr, port))
		}
		return targets
	}
	patient := func(*rand.Rand) time.Duration { return time.Minute }
	hasty := func(r *rand.Rand) time.Duration {
		return time.Millisecond + time.Duration(r.Int64N(int64(19*time.Millisecond)))
	}
	// Longer than the first wait before a SYN is sent again.
	long := func(*rand.Rand) time.Duration { return 1200 * time.Millisecond }
	return []*kind{
		{name: "open", share: 30, targets: at(web, 80), timeout: patient, want: []Result{Answered}},
		{name: "closed", share: 15, targets: at(web, 81), timeout: patient, want: []Result{Refused}},
		{name: "reset by a firewall", share: 10, targets: at(web, 84), timeout: patient, want: []Result{Refused}},
		{name: "late", share: 10, targets: at(late, 80), timeout: hasty, want: []Result{Answered, Timeout}},
		{name: "late, closed", share: 10, targets: at(late, 81), timeout: hasty, want: []Result{Refused, Timeout}},
		{name: "ICMP", share: 10, targets: at(gone, 80), timeout: patient, want: []Result{Unreachable}},
		{name: "black hole", share: 10, targets: at(hole, 80), timeout: hasty, want: []Result{Timeout}},
		{name: "black hole, suspect", share: 2, targets: at(hole, 81), timeout: long, suspect: true, want: []Result{Timeout}},
		{name: "no route", share: 2, targets: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:80"), netip.MustParseAddrPort("[2001:db8:ffff::1]:80")},
			timeout: patient, want: []Result{Inconclusive}, reason: unix.ENETUNREACH},
		{name: "no port", share: 1, targets: at(web, 0), timeout: patient, want: []Result{Inconclusive}, reason: ErrTarget},
	}
}

// rage has checks submitted for that long, and replaces the prober now and then.
func (s *storm) rage(duration time.Duration) {
	for _, k := range s.kinds {
		s.shares = append(s.shares, slices.Repeat([]*kind{k}, k.share)...)
	}
	seed := rand.Uint64()
	s.t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s.replace(random)
	var stop atomic.Bool
	var submitters sync.WaitGroup
	for i := range uint64(16) {
		random := rand.New(rand.NewPCG(seed, i+1))
		submitters.Go(func() {
			for !stop.Load() {
				s.submit(random)
			}
		})
	}
	for end := time.Now().Add(duration); time.Now().Before(end); {
		// Not a wait for anything: most probers live past the second SYN to a black hole, some die young.
		time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
		s.replace(random)
	}
	stop.Store(true)
	submitters.Wait()
	s.close()
}

// replace starts a prober and closes the one before it, to which checks are submitted meanwhile.
func (s *storm) replace(random *rand.Rand) {
	next := new(stormProber)
	p, err := NewProber(Config{Method: s.method, Pool: 64 << random.IntN(6)}, func(reports []Report) {
		if next.closed.Load() {
			s.t.Error("reports after Close had returned")
		}
		for _, r := range reports {
			s.take(next, r)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	next.Prober = p
	s.all = append(s.all, next)
	if random.IntN(2) == 0 {
		s.close()
	}
	if before := s.current.Swap(next); before != nil {
		before.Close()
		before.closed.Store(true)
	}
}

func (s *storm) close() {
	if p := s.current.Load(); p != nil {
		p.Close()
		p.closed.Store(true)
		if err := p.Err(); err != nil {
			s.t.Error(err)
		}
	}
}

// submit hands in a batch of random size.
func (s *storm) submit(random *rand.Rand) {
	p := s.current.Load()
	batch := make([]Check, 1+random.IntN(64))
	for i := range batch {
		s.places <- struct{}{}
		k := s.shares[random.IntN(len(s.shares))]
		tag := &stormCheck{kind: k, prober: p, timeout: k.timeout(random), began: time.Now()}
		batch[i] = Check{Target: k.targets[random.IntN(len(k.targets))], Timeout: tag.timeout, Suspect: k.suspect, Tag: tag}
		if !k.suspect && random.IntN(2) == 0 {
			batch[i].Tries = 2 + random.IntN(4)
			batch[i].Spacing = time.Duration(random.Int64N(int64(4 * time.Millisecond)))
		}
	}
	p.accepted.Add(int64(len(batch)))
	switch err := p.Submit(batch...); err {
	case nil:
	case ErrClosed: // and none is reported
		p.accepted.Add(-int64(len(batch)))
		for range batch {
			<-s.places
		}
	default:
		s.t.Error(err)
	}
}

// take accounts for a report. It runs in the prober's loop.
func (s *storm) take(p *stormProber, r Report) {
	p.reported.Add(1)
	<-s.places
	c := r.Tag.(*stormCheck)
	if c.reported.Swap(true) {
		s.t.Errorf("%s: reported twice", c.kind.name)
	}
	if c.prober != p {
		s.t.Errorf("%s: reported by another prober", c.kind.name)
	}
	if !c.kind.allows(r) {
		s.t.Errorf("%s: %v (%v) after %v", c.kind.name, r.Result, r.Err, r.RTT)
	}
	if took := time.Since(c.began); r.Result == Timeout && took < c.timeout {
		s.t.Errorf("%s: timeout after %v instead of %v", c.kind.name, took, c.timeout)
	}
	result := r.Result.String()
	if r.Result == Inconclusive {
		result += fmt.Sprintf(" (%v)", r.Err)
	}
	s.mu.Lock()
	s.counts[c.kind.name+": "+result]++
	s.mu.Unlock()
}

// account compares what was submitted with what was reported.
func (s *storm) account() {
	var accepted int64
	for i, p := range s.all {
		accepted += p.accepted.Load()
		if in, out := p.accepted.Load(), p.reported.Load(); in != out {
			s.t.Errorf("prober %d has accepted %d checks and reported %d", i, in, out)
		}
	}
	var table strings.Builder
	byResult := make(map[string]int)
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		fmt.Fprintf(&table, "\n%9d %s", s.counts[name], name)
		_, result, _ := strings.Cut(name, ": ")
		result, _, _ = strings.Cut(result, " ")
		byResult[result] += s.counts[name]
	}
	s.t.Logf("%d checks by %d probers: %v%s", accepted, len(s.all), byResult, table.String())
	for _, r := range Results() {
		if byResult[r.String()] == 0 {
			s.t.Errorf("no check was %v", r)
		}
	}
}
