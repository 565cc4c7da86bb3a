package peers

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// real is a group on real sockets.
type real struct {
	*Group
	monitor *health.Monitor

	mu    sync.Mutex
	lines []string
	notes map[string]string
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func keyFile(t testing.TB, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// quiet has the end of the test wait until all that was begun is gone: what memberlist has under way when it is shut down ends
// by itself, within the time of a probe.
func quiet(t testing.TB) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		var err error
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
			if err = goleak.Find(before); err == nil {
				return
			}
		}
		t.Error(err)
	})
}

// openReal opens a group. The end of the test closes it. quiet has to be called before.
func openReal(t testing.TB, c Config, wire func([]byte) bool) *real {
	t.Helper()
	r := &real{monitor: health.New(health.Options{}), notes: make(map[string]string)}
	say := func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lines = append(r.lines, fmt.Sprintf(format, args...))
	}
	if !c.Address.IsValid() {
		c.Address = loopback
	}
	var err error
	r.Group, err = open(c, r.monitor, Listener{
		Infof: say, Warningf: say,
		Disagreed: func(*health.Target, Disagreement) {},
		Noted: func(_, key string, value []byte) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notes[key] = string(value)
		},
		Recovered: func(where string, reason any) { t.Errorf("recovered %s: %v", where, reason) },
	}, wire)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		r.monitor.Close()
	})
	return r
}

func (r *real) at() string { return r.members.Self().String() }

func (r *real) noted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.notes)
}

// alive returns how many others are heard of.
func (r *real) alive() int {
	n := 0
	for _, m := range r.Report().Members {
		if m.Alive && !m.Self {
			n++
		}
	}
	return n
}

func waitFor(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("%s takes longer than %v", what, within)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// openAll opens n groups that know each other.
func openAll(t testing.TB, n int, wire func([]byte) bool) []*real {
	t.Helper()
	quiet(t)
	key := keyFile(t, "a key for the tests of groups")
	var all []*real
	for i := range n {
		c := Config{KeyFile: key, Site: "s", Shaker: "v1", Offers: []health.Key{quick}, MayCheck: mayCheckWith(quick)}
		if i > 0 {
			c.Join = []string{all[0].at()}
		}
		all = append(all, openReal(t, c, wire))
	}
	for _, r := range all {
		waitFor(t, 20*time.Second, "finding each other", func() bool { return r.alive() == n-1 })
	}
	return all
}

func TestGroupsFindEachOther(t *testing.T) {
	all := openAll(t, 3, nil)
	for i, r := range all {
		waitFor(t, 20*time.Second, "being ready", r.Ready)
		r.Note("key", fmt.Appendf(nil, "value %d", i))
		report := r.Report()
		if m := report.Members[0]; !m.Self || m.Address != r.members.Self() || m.Site != "s" || m.Shaker != "v1" {
			t.Errorf("this replica is %+v", m)
		}
		if i > 0 && (len(report.Join) != 1 || report.Join[0].Err != nil || report.Join[0].Place != all[0].at()) {
			t.Errorf("joining: %+v", report.Join)
		}
		if report.Counts.SentMessages == 0 || report.Counts.ReceivedOctets == 0 || len(report.Counts.Rejected) != 6 {
			t.Errorf("counts: %+v", report.Counts)
		}
	}
	waitFor(t, 20*time.Second, "a note", func() bool { return all[0].noted() == 1 && all[1].noted() == 1 && all[2].noted() == 1 })
	// A goodbye is heard at once, and the member is forgotten.
	all[2].Close()
	all[2].Close()
	waitFor(t, 20*time.Second, "a goodbye", func() bool { return len(all[0].Report().Members) == 2 && len(all[1].Report().Members) == 2 })
	if err := all[2].Configure(all[2].config); err == nil {
		t.Error("a closed group can be configured")
	}
}

func TestGroupConfigure(t *testing.T) {
	all := openAll(t, 2, nil)
	a, b := all[0], all[1]
	c := a.config
	c.Site, c.Quorum = "other", true
	c.Join = []string{b.at(), "127.0.0.1:1"}
	if err := a.Configure(c); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, "a new site", func() bool { return b.Report().Members[1].Site == "other" && b.Report().Members[1].Quorum })
	waitFor(t, 20*time.Second, "joining", func() bool {
		j := a.Report().Join
		return len(j) == 2 && j[0].Err == nil && j[1].Err != nil && strings.Contains(j[1].Err.Error(), "refused")
	})
	for _, tt := range []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.Address = netip.MustParseAddrPort("127.0.0.1:1") }, "127.0.0.1:1 is not the address that this group has, want 127.0.0.1:0"},
		{func(c *Config) { c.KeyFile = keyFile(t, "short") }, "key: line 1 is a key of 5 characters, want 16 or more"},
		{func(c *Config) { c.KeyFile = "/nothing" }, "nothing: no such file or directory, want a file with a key"},
	} {
		changed := c
		tt.change(&changed)
		changed.Site = "wrong"
		if err := a.Configure(changed); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
	if got := a.Report().Members[0].Site; got != "other" {
		t.Errorf("an error changes the site to %q", got)
	}
}

func TestOpenErrors(t *testing.T) {
	quiet(t)
	m := health.New(health.Options{})
	defer m.Close()
	key := keyFile(t, "a key for the tests of groups")
	here := openReal(t, Config{KeyFile: key}, nil)
	for at, want := range map[string]string{
		"0.0.0.0:7946":        "0.0.0.0:7946 is not the address of one machine, want one at which the others reach this replica",
		"[::]:7946":           "[::]:7946 is not the address of one machine, want",
		"[fe80::1%eth0]:7946": "[fe80::1%eth0]:7946 means nothing on other machines, want an address at which they reach this replica",
		"224.0.0.1:7946":      "224.0.0.1:7946 means nothing on other machines",
		here.at():             "listen on " + here.at() + " by TCP: ",
	} {
		g, err := Open(Config{Address: netip.MustParseAddrPort(at), KeyFile: key}, m, Listener{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", at, g, err, want)
		}
	}
}

// A group can be opened at an address right after the one before was closed, again and again, and nothing is left of them.
func TestOpenAndClose(t *testing.T) {
	quiet(t)
	key := keyFile(t, "a key for the tests of groups")
	other := openReal(t, Config{KeyFile: key}, nil)
	m := health.New(health.Options{})
	defer m.Close()
	at := loopback
	silent := func(string, ...any) {}
	for range 50 {
		g, err := Open(Config{Address: at, KeyFile: key, Join: []string{other.at()}}, m,
			Listener{Infof: silent, Warningf: silent, Noted: func(string, string, []byte) {}, Recovered: func(where string, reason any) { t.Error(where, reason) }})
		if err != nil {
			t.Fatal(err)
		}
		at = g.members.Self()
		g.Close()
	}
	waitFor(t, time.Minute, "hearing that they are gone", func() bool { return other.alive() == 0 && len(other.Report().Members) <= 2 })
}

// Who is to join somebody that cannot be reached is ready after 30 seconds, and others at once.
func TestGroupReady(t *testing.T) {
	quiet(t)
	key := keyFile(t, "a key for the tests of groups")
	alone := openReal(t, Config{KeyFile: key}, nil)
	if !alone.Ready() {
		t.Error("who has nobody to join is not ready")
	}
	c := Config{KeyFile: key, Address: netip.MustParseAddrPort(alone.at()), Join: []string{alone.at()}}
	alone.Close()
	self := openReal(t, c, nil)
	waitFor(t, 20*time.Second, "finding out that a place is this replica itself", self.Ready)
	lost := openReal(t, Config{KeyFile: key, Join: []string{"127.0.0.1:1"}}, nil)
	waitFor(t, 20*time.Second, "joining", func() bool { return lost.Report().Join[0].Err != nil })
	if lost.Ready() {
		t.Error("who could not join anybody is ready at once")
	}
	lost.opened = lost.opened.Add(-readyWithin)
	if !lost.Ready() || !lost.Report().Ready {
		t.Error("it is not ready after 30 s")
	}
}

// What is lost on the way is asked for again: all of a burst arrives.
func TestBurst(t *testing.T) {
	all := openAll(t, 2, losing(1./3))
	const burst = 10000
	for i := range burst {
		all[0].Note(fmt.Sprint(i), []byte("x"))
		all[1].Note(fmt.Sprint(i), []byte("y"))
	}
	took := waitFor(t, 20*time.Second, "a burst", func() bool { return all[0].noted() == burst && all[1].noted() == burst })
	t.Logf("2 × %d notes, a third of the packets lost: %v", burst, took)
}

// flip has a replica say something about targets from one number to another, as if its checks had found that.
func (r *real) flip(from, to int, word health.Word) (number uint64) {
	c := r.core
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := from; i < to; i++ {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 198<<24|18<<16+uint32(i))
		c.ledger.say(keyOf(health.Subject{Addr: netip.AddrPortFrom(netip.AddrFrom4(a), 443), Settings: 1}), opinion{word: word, result: checker.Timeout}, c.now())
	}
	c.wakeUp()
	return c.ledger.newest
}

// knows tells whether a replica has all that another has said, up to a number.
func (r *real) knows(name string, number uint64) bool {
	r.core.mu.Lock()
	defer r.core.mu.Unlock()
	m := r.core.byName[name]
	return m != nil && m.have.level() >= number
}

// allKnow returns how long it takes until all others know what the first one has said.
func allKnow(t testing.TB, all []*real, number uint64) time.Duration {
	t.Helper()
	began := time.Now()
	for _, r := range all[1:] {
		for !r.knows(all[0].core.name, number) {
			if time.Since(began) > 60*time.Second {
				t.Fatalf("number %d is not known after %v", number, time.Since(began))
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
	return time.Since(began)
}

// trickle has targets flip over a second, as checks find it, and returns how long after that all know.
func trickle(t testing.TB, all []*real, n int, word health.Word) time.Duration {
	t.Helper()
	const steps = 500
	ticks := time.NewTicker(time.Second / steps)
	defer ticks.Stop()
	var number uint64
	for i := range steps {
		<-ticks.C
		number = all[0].flip(n*i/steps, n*(i+1)/steps, word)
	}
	return allKnow(t, all, number)
}

// losing has a part of all packets be lost.
func losing(part float64) func([]byte) bool {
	if part == 0 {
		return nil
	}
	return func([]byte) bool { return rand.Float64() >= part }
}

func TestSpread(t *testing.T) {
	all := openAll(t, 3, losing(0.05))
	for _, n := range []int{1, 1000, 10000} {
		number := all[0].flip(0, n, health.SaysDown)
		took := allKnow(t, all, number)
		slowly := trickle(t, all, n, health.SaysUp)
		t.Logf("%d flips: %v at once, %v after a second of them, 5 %% of the packets lost", n, took, slowly)
		if max(took, slowly) > 5*time.Second {
			t.Errorf("%d flips are known after %v, and after %v", n, took, slowly)
		}
	}
}

var measured = flag.Bool("measured", false, "measure groups of 3, 10 and 30 replicas")

// The table of docs/peers.md: go test ./internal/peers -run Measured -measured -v
func TestMeasured(t *testing.T) {
	if !*measured {
		t.Skip("want -measured")
	}
	for _, n := range []int{3, 10, 30} {
		for _, loss := range []float64{0, 0.05} {
			t.Run(fmt.Sprintf("%d,%v", n, loss), func(t *testing.T) { measure(t, n, loss) })
		}
	}
}

func measure(t *testing.T, n int, loss float64) {
	all := openAll(t, n, losing(loss))
	var ones []time.Duration
	for i := range 100 {
		number := all[0].flip(0, 1, health.SaysDown-health.Word(i%2))
		ones = append(ones, allKnow(t, all, number))
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(ones)
	t.Logf("one flip: p50 %v, p99 %v", ones[50], ones[99])
	for _, flips := range []int{1000, 10000} {
		atOnce := allKnow(t, all, all[0].flip(0, flips, health.SaysDown))
		t.Logf("%d flips: %v at once, %v after a second of them", flips, atOnce, trickle(t, all, flips, health.SaysUp))
	}
	measureIdle(t, all)
	number := all[0].flip(0, 100000, health.SaysDown)
	t.Logf("100 000 flips: %v", allKnow(t, all, number))
	time.Sleep(3 * time.Second)
	before, began := all[0].members.Counts().SentOctets, time.Now()
	late := openReal(t, Config{KeyFile: all[0].config.KeyFile, Join: []string{all[0].at()}}, losing(loss))
	for !late.knows(all[0].core.name, number) {
		time.Sleep(time.Millisecond)
	}
	t.Logf("a joiner knows 100 000 after %v, %d octets", time.Since(began), all[0].members.Counts().SentOctets-before)
}

// measureIdle measures what a replica sends, and what it costs, when nothing happens.
func measureIdle(t *testing.T, all []*real) {
	const idle = 10 * time.Second
	octets := func() (n uint64) {
		for _, r := range all {
			n += r.members.Counts().SentOctets
		}
		return n
	}
	time.Sleep(time.Second)
	before, cpu := octets(), usedCPU()
	time.Sleep(idle)
	per := float64(len(all)) * idle.Seconds()
	t.Logf("idle: %.0f octets a second and %.2f thousandths of a core for each", float64(octets()-before)/per, 1000*(usedCPU()-cpu).Seconds()/per)
}

// A panic costs no more than what was being done: neither the process, nor what was to be told besides, nor the lock that queries
// for new targets wait for.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told, recovered []string
		listener := Listener{
			Infof:     func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) },
			Noted:     func(_, key string, _ []byte) { panic(key) },
			Recovered: func(_ string, reason any) { recovered = append(recovered, fmt.Sprint(reason)) },
		}
		c := newCore(Config{Offers: []health.Key{quick}}, "self", health.New(health.Options{}), listener, new(wire))
		defer c.monitor.Close()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); c.run(ctx) }()
		c.locked(func() {
			c.tell(func() { c.listener.Noted("b", "first", nil) })
			c.tell(func() { c.listener.Infof("after it") })
		})
		time.Sleep(time.Second)
		// A record that is nowhere: a mistake of ours, with the lock held.
		c.locked(func() { c.topics, c.unwalked = []*topic{nil}, 1 })
		c.wakeUp()
		time.Sleep(time.Second)
		c.locked(func() { c.topics = nil })
		cancel()
		<-done
		if !slices.Equal(told, []string{"after it"}) || len(recovered) != 2 || recovered[0] != "first" {
			t.Errorf("told %q, recovered %q", told, recovered)
		}
	})
}
