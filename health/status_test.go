package health

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/coredns-shaker/shaker/checker"
)

// Each slot against what its definition says, for every sequence of up to four results, each answer with a longer round
// trip than the one before it, or with a shorter one, or without.
func TestSlot(t *testing.T) {
	for _, rtts := range [][]time.Duration{{1, 1000, 10000, 100000}, {100000, 1000, 10000, 1}, {0, 0, 0, 0}, {0, 1000, 0, 1}} {
		for i := range rtts {
			rtts[i] *= time.Microsecond
		}
		expectSlots(t, rtts, nil)
	}
}

// expectSlots checks the slot of these results, and of all that begin with them.
func expectSlots(t *testing.T, rtts []time.Duration, results []checker.Result) {
	var h history
	want := Slot{Checked: len(results) > 0}
	answered := slices.Contains(results, checker.Answered)
	failed := false
	for i, r := range results {
		h.record(r, rtts[i], int64(max(0, i-1)), int64(i))
		if r != checker.Answered && r != checker.Inconclusive {
			want.Result, failed = r, true
		}
	}
	if !failed && answered && !slices.Contains(results, checker.Inconclusive) {
		want.Result = checker.Answered
		want.RTT = slices.Max(rtts[:len(results)])
	}
	want.Mixed = answered && want.Result != checker.Answered
	got := h.slots(0, int64(len(results)))
	if got[HistorySlots-1] != want {
		t.Errorf("%v, %v became %+v, want %+v", results, rtts, got[HistorySlots-1], want)
	}
	if len(results) < len(rtts) {
		for _, r := range checker.Results() {
			expectSlots(t, rtts, append(slices.Clip(results), r))
		}
	}
}

// Every round trip that a check may have is remembered as well as Slot.RTT says, and longer ones as longer.
func TestRoundTrips(t *testing.T) {
	remembered := func(rtt time.Duration) time.Duration {
		value := mix(0, checker.Answered, rtt)
		s := slotOf(value)
		if want := (Slot{Checked: true, Result: checker.Answered, RTT: s.RTT}); s != want {
			t.Fatalf("%v became %+v", rtt, s)
		}
		return s.RTT
	}
	var before time.Duration
	values := make(map[time.Duration]bool)
	for rtt := time.Microsecond; rtt <= time.Minute; rtt += 1 + rtt/2000 {
		got := remembered(rtt)
		if off := math.Abs(float64(got-rtt)) / float64(rtt); off > 0.04 || got < before {
			t.Fatalf("%v became %v, after %v", rtt, got, before)
		}
		before, values[got] = got, true
	}
	if len(values) != 234 {
		t.Errorf("%d are told apart", len(values))
	}
	for rtt, want := range map[time.Duration]time.Duration{
		0: 0, -1: 0, 1: time.Microsecond, 999: time.Microsecond, time.Microsecond: time.Microsecond,
		10 * time.Microsecond: 10 * time.Microsecond, time.Millisecond: time.Millisecond, time.Second: time.Second,
		63 * time.Second: trips[234], time.Hour: trips[234], math.MaxInt64: trips[234],
	} {
		if got := remembered(rtt); got != want {
			t.Errorf("%v became %v, want %v", rtt, got, want)
		}
	}
}

// The ring against a list of everything that happened.
func TestHistory(t *testing.T) {
	type event struct {
		at     int64
		result checker.Result
		rtt    time.Duration
	}
	var h history
	var events []event
	var last, now int64
	for range 5000 {
		// Mostly within a slot or two, now and then longer than the history.
		now += rand.Int64N(int64(2 * HistorySlot))
		if rand.IntN(50) == 0 {
			now += rand.Int64N(int64(3 * HistorySlots * HistorySlot))
		}
		e := event{now, checker.Results()[rand.IntN(5)], rand.N(time.Second)}
		h.record(e.result, e.rtt, last, now)
		last = now
		events = append(events, e)
		look := now + rand.Int64N(int64(2*HistorySlots*HistorySlot))
		var want [HistorySlots]byte
		for _, e := range events[max(0, len(events)-500):] {
			if i := slotAt(e.at) - slotAt(look) + HistorySlots - 1; i >= 0 {
				want[i] = mix(want[i], e.result, e.rtt)
			}
		}
		for i, slot := range h.slots(last, look) {
			if slot != slotOf(want[i]) {
				t.Fatalf("slot %d is %+v, want %04b", i, slot, want[i])
			}
		}
	}
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{})
		defer m.Close()
		time.Sleep(time.Hour)
		born := time.Now()
		var report atomic.Pointer[checker.Report]
		answer := func(checker.Check) (checker.Report, time.Duration) { return *report.Load(), time.Millisecond }
		report.Store(&checker.Report{Result: checker.Answered, RTT: time.Millisecond})
		target := m.Target(addr(1), plain, time.Hour)
		want := Status{Since: born.Round(0), Own: Checking, OwnSince: born.Round(0)}
		if got := target.Status(); got != want {
			t.Errorf("new: %+v", got)
		}
		time.Sleep(time.Minute)
		m.SetProber(newNetwork(t, m, answer))
		time.Sleep(time.Second)
		synctest.Wait()
		got := target.Status()
		up := born.Add(time.Minute + time.Millisecond)
		if got.State != Up || !got.Since.Equal(up) || got.Result != checker.Answered || got.Err != nil || got.RTT != time.Millisecond {
			t.Errorf("up: %+v", got)
		}
		if first := (Slot{Checked: true, Result: checker.Answered, RTT: time.Millisecond}); got.History[HistorySlots-1] != first || got.History[HistorySlots-2] != (Slot{}) {
			t.Errorf("up: %+v", got.History)
		}

		noRoute := os.NewSyscallError("connect", syscall.EHOSTUNREACH)
		report.Store(&checker.Report{Result: checker.Unreachable, Err: noRoute})
		fails := time.Now()
		time.Sleep(65 * time.Second)
		synctest.Wait()
		got = target.Status()
		if got.State != Down || got.Since.Before(fails) || got.Since.Sub(fails) > 4*time.Second || got.Err != syscall.EHOSTUNREACH {
			t.Errorf("down: %+v", got)
		}
		if age := time.Since(got.Checked); age < 0 || age > 2*time.Second {
			t.Errorf("down: the newest result is %v old", age)
		}
		var rest []string
		for _, slot := range got.History[HistorySlots-7:] {
			rest = append(rest, fmt.Sprint(slot.Result, slot.Mixed))
		}
		failed := "unreachable false"
		if !slices.Equal(rest, []string{"unreachable true", failed, failed, failed, failed, failed, failed}) {
			t.Errorf("down: %q", rest)
		}

		since := got.Since
		report.Store(&checker.Report{Result: checker.Inconclusive, Err: checker.ErrBusy})
		time.Sleep(time.Minute)
		synctest.Wait()
		got = target.Status()
		if got.State != Down || got.Since != since || got.Result != checker.Inconclusive || got.Err != checker.ErrBusy {
			t.Errorf("inconclusive: %+v", got)
		}
	})
}

func TestReason(t *testing.T) {
	other := errors.New("other")
	tests := []struct{ err, want error }{
		{nil, nil},
		{other, other},
		{checker.ErrTimeout, checker.ErrTimeout},
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{&fs.PathError{Op: "x", Path: "y", Err: os.NewSyscallError("z", syscall.EPERM)}, syscall.EPERM},
	}
	for _, tt := range tests {
		if got := reason(tt.err); got != tt.want {
			t.Errorf("of %v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), plain, time.Hour)
	if got := target.Names(); got != nil {
		t.Errorf("no name was added, but there is %q", got)
	}
	for _, name := range []string{"b.", "B.", "A.example.", "b.", "a.Example.", "c.", "d.", "e.", "b."} {
		target.AddName(name)
	}
	if got, want := target.Names(), []string{"b.", "a.example.", "c.", "d."}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, name := range []string{"b.", "A.example.", "full."} {
		if n := testing.AllocsPerRun(100, func() { target.AddName(name) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestNamesConcurrently(t *testing.T) {
	m := newMonitor(Options{})
	for i := range 200 {
		target := m.Target(addr(i), plain, time.Hour)
		var users sync.WaitGroup
		for n := range 8 {
			users.Go(func() {
				target.AddName(fmt.Sprint(n % 6))
				target.AddAlias(addr(1000 + n%6))
				target.Names()
				target.Aliases()
			})
		}
		users.Wait()
		got := target.Names()
		slices.Sort(got)
		if len(got) != maxNames || len(slices.Compact(got)) != maxNames {
			t.Fatalf("%q, want %d different ones", got, maxNames)
		}
		aliases := target.Aliases()
		slices.SortFunc(aliases, netip.AddrPort.Compare)
		if len(aliases) != maxAliases || len(slices.Compact(aliases)) != maxAliases {
			t.Fatalf("%v, want %d different ones", aliases, maxAliases)
		}
	}
}

func TestNameKeepsNothingElse(t *testing.T) {
	m := newMonitor(Options{})
	target := m.Target(addr(1), plain, time.Hour)
	message := []byte("www.example.org. and all the rest")
	long := string(message)
	target.AddName(long[:16])
	if got := target.Names()[0]; got != long[:16] || unsafe.StringData(got) == unsafe.StringData(long) {
		t.Errorf("%q keeps the string it was cut from in memory", got)
	}
}

func TestAliases(t *testing.T) {
	endpoints := func(text string) (all []netip.AddrPort) {
		for _, word := range strings.Fields(text) {
			all = append(all, netip.MustParseAddrPort(word))
		}
		return all
	}
	for _, tt := range []struct{ added, aliases, addrs string }{
		{"", "", ""},
		{"10.0.0.1:443", "", ""}, // its own
		{"192.0.2.1:443", "192.0.2.1:443", "192.0.2.1"},
		{"192.0.2.1:443 192.0.2.1:443", "192.0.2.1:443", "192.0.2.1"},
		{"192.0.2.1:80 192.0.2.1:443", "192.0.2.1:80 192.0.2.1:443", "192.0.2.1"},
		{"192.0.2.2:443 10.0.0.1:443 192.0.2.1:443", "192.0.2.2:443 10.0.0.1:443 192.0.2.1:443", "192.0.2.2 10.0.0.1 192.0.2.1"},
		{"10.0.0.1:443 192.0.2.1:443", "192.0.2.1:443", "192.0.2.1"},
		{"10.0.0.1:80", "10.0.0.1:80", ""},
		{"10.0.0.1:80 10.0.0.1:443", "10.0.0.1:80 10.0.0.1:443", ""},
		{"192.0.2.1:1 192.0.2.1:2 192.0.2.1:1 192.0.2.3:1 192.0.2.4:1 192.0.2.5:1", "192.0.2.1:1 192.0.2.1:2 192.0.2.3:1 192.0.2.4:1", "192.0.2.1 192.0.2.3 192.0.2.4"},
	} {
		m := newMonitor(Options{})
		target := m.Target(netip.MustParseAddrPort("10.0.0.1:443"), plain, time.Hour)
		for i, alias := range endpoints(tt.added) {
			target.AddAlias(alias)
			target.AddName(fmt.Sprint(i % maxNames)) // has room of its own
		}
		if got, want := target.Aliases(), endpoints(tt.aliases); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", tt.added, got, want)
		}
		if got, want := fmt.Sprint(target.AliasAddrs()), "["+tt.addrs+"]"; got != want {
			t.Errorf("%q: addresses %v, want %v", tt.added, got, want)
		}
		if got, want := len(target.Names()), min(len(endpoints(tt.added)), maxNames); got != want {
			t.Errorf("%q: %d names, want %d", tt.added, got, want)
		}
		for _, alias := range endpoints(tt.added + " 10.0.0.1:443") {
			target.AddAlias(alias)
			if n := testing.AllocsPerRun(100, func() { target.AddAlias(alias) }); n != 0 {
				t.Errorf("%q, once more %v: %v allocations", tt.added, alias, n)
			}
		}
	}
}
