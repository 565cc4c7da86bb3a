package shaker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// journalTake returns the lines since the last time, without what all of shaker's lines begin with.
func journalTake(l *lab.Log) []string {
	lines := l.Take()
	for i, line := range lines {
		lines[i] = strings.Replace(line, "plugin/shaker: ", "", 1)
	}
	return lines
}

// journalTargets returns targets of a monitor without a prober.
func journalTargets(t *testing.T, addrs ...string) []*health.Target {
	t.Helper()
	m := health.New(health.Options{})
	t.Cleanup(m.Close)
	var targets []*health.Target
	for _, addr := range addrs {
		targets = append(targets, m.Target(netip.MustParseAddrPort(addr), health.Key{}, time.Minute))
	}
	return targets
}

func journalExpect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestJournalLines(t *testing.T) {
	logged := lab.CaptureLog(t)
	targets := journalTargets(t, "10.0.0.1:443", "[2001:db8::1]:80")
	j := newJournal(events.New())
	defer j.close()
	changes := []health.Change{
		{Target: targets[0], From: health.Unknown, To: health.Up, Run: 1, Result: checker.Answered},
		{Target: targets[1], From: health.Unknown, To: health.Down, Run: 1, Result: checker.Refused},
		{Target: targets[0], From: health.Up, To: health.Down, Run: 3, Result: checker.Timeout, Err: checker.ErrTimeout},
		{Target: targets[1], From: health.Down, To: health.Up, Run: 2, Result: checker.Answered},
		{Target: targets[1], From: health.Up, To: health.Down, Run: 4, Result: checker.Unreachable, Falls: 2},
		{Target: targets[0], From: health.Down, To: health.Up, Run: 0, Result: checker.Timeout},
		{Target: targets[1], From: health.Up, To: health.Down, Run: 3, Result: checker.Refused, Falls: 4, Damping: time.Minute},
		{Target: targets[0], From: health.Down, To: health.Unknown, Run: 0, Result: checker.Timeout},
		{Target: targets[0], From: health.Unknown, To: health.Down, Run: 12, Result: checker.Inconclusive, Err: syscall.ENETUNREACH},
		{Target: targets[1], From: health.Down, To: health.Up, Run: 9, Result: checker.Answered},
	}
	ups, downs := testutil.ToFloat64(changesTo[health.Up]), testutil.ToFloat64(changesTo[health.Down])
	for _, c := range changes {
		j.Changed(c)
	}
	lines := journalTake(logged)
	for i, e := range j.events.All() { // the same is in the events
		if _, line, _ := strings.Cut(lines[i], " "); e.Text.String() != line {
			t.Errorf("the event says %q, the log %q", e.Text, line)
		}
	}
	journalExpect(t, lines,
		"[INFO] 10.0.0.1:443 is up: 1 of 1 check answered",
		"[WARNING] [2001:db8::1]:80 is down: 1 of 1 check failed: refused",
		"[WARNING] 10.0.0.1:443 is down: 3 of 3 checks failed: timeout",
		"[INFO] [2001:db8::1]:80 is up: 2 of 2 checks answered",
		"[WARNING] [2001:db8::1]:80 is down: 4 of 4 checks failed: unreachable",
		"[INFO] 10.0.0.1:443 is up: it went down just before verdicts were frozen",
		"[WARNING] [2001:db8::1]:80 is down: 3 of 3 checks failed: refused. It flaps, so it stays down for 1m0s at least",
		"[INFO] 10.0.0.1:443 is unknown: it went down just before verdicts were frozen",
		"[WARNING] 10.0.0.1:443 is down: this machine has no path to it, said 12 checks in a row: no_route",
		"[INFO] [2001:db8::1]:80 is up: 9 of 9 checks answered. It was kept down for so long because it flapped")
	if up, down := testutil.ToFloat64(changesTo[health.Up])-ups, testutil.ToFloat64(changesTo[health.Down])-downs; up != 4 || down != 5 {
		t.Errorf("counted %v up and %v down, want 4 and 5", up, down)
	}
}

// Where several replicas decide, the lines tell how many say so, and then what this one says.
func TestJournalOfReplicas(t *testing.T) {
	target := journalTargets(t, "10.0.0.1:443")[0]
	three := func(up, down int) health.Tally { return health.Tally{Up: up, Down: down, Of: 3} }
	for _, tt := range []struct {
		change health.Change
		sites  bool
		want   string
		result string // in the event
	}{
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Tally: three(1, 2), Run: 3, Result: checker.Timeout, Err: checker.ErrTimeout}, false,
			"is down: 2 of 3 observers say so; here 3 of 3 checks failed: timeout", "timeout"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Tally: three(0, 3), Run: 1, Result: checker.Refused, Falls: 4, Damping: time.Minute}, false,
			"is down: 3 of 3 observers say so; here 1 of 1 check failed: refused. It flaps, so this replica says down for 1m0s at least", "refused"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Tally: three(1, 2), Run: 12, Result: checker.Inconclusive, Err: syscall.ENETUNREACH}, false,
			"is down: 2 of 3 observers say so; here there is no path to it, said 12 checks in a row: no_route", "inconclusive"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysUp, Tally: three(1, 2), Result: checker.Answered}, false,
			"is down: 2 of 3 observers say so; here it is up", "answered"},
		{health.Change{From: health.Up, To: health.Down, Own: health.NoWord, Tally: three(0, 2)}, false, "is down: 2 of 3 observers say so", ""},
		{health.Change{From: health.Up, To: health.Down, Own: health.Checking, Tally: three(0, 2)}, false,
			"is down: 2 of 3 observers say so; here it is being checked still", "inconclusive"},
		{health.Change{From: health.Down, To: health.Up, Own: health.Unable, Tally: three(2, 1)}, false,
			"is up: 2 of 3 observers say so; here checks lead to no verdict", "inconclusive"},
		{health.Change{From: health.Down, To: health.Up, Own: health.SaysUp, Tally: health.Tally{Up: 1, Down: 1, Of: 2}, Run: 2, Result: checker.Answered}, false,
			"is up: 1 of 2 observers says so; here 2 of 2 checks answered", "answered"},
		{health.Change{From: health.Down, To: health.Up, Own: health.SaysDown, Tally: three(2, 1), Result: checker.Timeout}, true,
			"is up: 2 of 3 sites say so; here it is down", "timeout"},
		{health.Change{From: health.Down, To: health.Unknown, Own: health.SaysDown, Tally: health.Tally{Down: 1, Of: 2}, Result: checker.Timeout}, false,
			"is unknown: 1 of 2 observers says down, and none says up; here it is down", "timeout"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysUp, Tally: health.Tally{Down: 1, Of: 1}, Result: checker.Answered}, false,
			"is down: the only observer says so; here it is up", "answered"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Tally: health.Tally{Down: 1, Of: 1}, Run: 3, Result: checker.Timeout}, false,
			"is down: 3 of 3 checks failed: timeout", "timeout"},
		// Nobody else observes it.
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Run: 3, Result: checker.Timeout}, true, "is down: 3 of 3 checks failed: timeout", "timeout"},
		{health.Change{From: health.Up, To: health.Down, Own: health.SaysDown, Result: checker.Timeout}, false,
			"is down: nobody else observes it any more, so that the own checks decide", "timeout"},
		{health.Change{From: health.Down, To: health.Up, Own: health.Checking, Result: checker.Timeout}, false,
			"is up: nobody else observes it any more, so that the own checks decide", "timeout"},
	} {
		logged := lab.CaptureLog(t)
		j := newJournal(events.New())
		j.bySites.Store(tt.sites)
		tt.change.Target = target
		j.Changed(tt.change)
		level := "[INFO]"
		if tt.change.To == health.Down {
			level = "[WARNING]"
		}
		journalExpect(t, journalTake(logged), level+" 10.0.0.1:443 "+tt.want)
		if e := j.events.All()[0]; e.Text.String() != "10.0.0.1:443 "+tt.want || e.Target.Result != tt.result {
			t.Errorf("the event says %q with the result %q, want %q", e.Text, e.Target.Result, tt.result)
		}
		j.close()
	}
}

// The lines also tell as what a target is answered, if that is another address.
func TestJournalAliases(t *testing.T) {
	for _, tt := range []struct{ aliases, want string }{
		{"", "10.0.0.1:443"},
		{"10.0.0.1:80", "10.0.0.1:443"},
		{"192.0.2.7:443", "10.0.0.1:443 (answered as 192.0.2.7)"},
		{"192.0.2.7:443 192.0.2.7:80 192.0.2.9:443", "10.0.0.1:443 (answered as 192.0.2.7, 192.0.2.9)"},
	} {
		logged := lab.CaptureLog(t)
		j := newJournal(events.New())
		target := journalTargets(t, "10.0.0.1:443")[0]
		for _, alias := range strings.Fields(tt.aliases) {
			target.AddAlias(netip.MustParseAddrPort(alias))
		}
		j.Changed(health.Change{Target: target, From: health.Up, To: health.Down, Run: 1, Result: checker.Refused})
		journalExpect(t, journalTake(logged), "[WARNING] "+tt.want+" is down: 1 of 1 check failed: refused")
		j.close()
	}
}

func TestJournalFreezes(t *testing.T) {
	logged := lab.CaptureLog(t)
	j := newJournal(events.New())
	defer j.close()
	before := testutil.ToFloat64(freezes)
	for _, f := range []health.Freeze{
		{Frozen: true, Silent: 190, Heard: 10},
		{Took: 30500 * time.Millisecond},
		{Took: 5 * time.Minute, Expired: true},
		{Frozen: true, Silent: 1, WithPeers: true},
		{Took: 7 * time.Second, WithPeers: true},
	} {
		j.Froze(f)
	}
	journalExpect(t, journalTake(logged),
		"[WARNING] Verdicts are frozen: 190 hosts fell silent together and 10 did not, as if this machine were cut off. Until it is over, none goes down by silence",
		"[INFO] Verdicts are no longer frozen, after 31s: hosts are heard of again",
		"[WARNING] Verdicts are no longer frozen, after 5m0s: no freeze may last longer, although hosts are still silent",
		"[WARNING] Verdicts are frozen: all other replicas fell silent together with 1 of 1 hosts, as if this machine were cut off. Until it is over, none goes down by silence",
		"[INFO] Verdicts are no longer frozen, after 7s: other replicas or hosts are heard of again")
	if n := testutil.ToFloat64(freezes) - before; n != 2 {
		t.Errorf("%v freezes counted, want 2", n)
	}
}

// journalChange makes n targets go up or down.
func journalChange(j *journal, target *health.Target, to health.State, n int) {
	for range n {
		j.Changed(health.Change{Target: target, To: to, Run: 1, Result: checker.Refused})
	}
}

// Of many watched names that cannot be resolved, some are told one by one, and how many the others are in a line of its
// own; and so when they can be again.
func TestJournalWatchedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		j := newJournal(events.New())
		defer j.close()
		reason := errors.New("A: SERVFAIL, AAAA: SERVFAIL")
		for i := range 500 {
			j.unresolved(fmt.Sprintf("host%d.example.org.", i), 30*time.Second, 30*time.Second, reason)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		lines := journalTake(logged)
		if len(lines) != linesPerMinute+1 {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), linesPerMinute+1, strings.Join(lines, "\n"))
		}
		journalExpect(t, []string{lines[0], lines[linesPerMinute]},
			"[WARNING] host0.example.org., which is watched, could not be resolved for 30s: A: SERVFAIL, AAAA: SERVFAIL. "+
				"Nothing waits for it any longer, but it is tried again every 30s",
			"[WARNING] And 490 more watched names within a minute: 490 could not be resolved, 0 are resolved again")
		for i := range 500 {
			j.resolved(fmt.Sprintf("host%d.example.org.", i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		lines = journalTake(logged)
		if len(lines) != linesPerMinute+1 || lines[0] != "[INFO] host0.example.org. is resolved again" ||
			lines[linesPerMinute] != "[WARNING] And 490 more watched names within a minute: 0 could not be resolved, 490 are resolved again" {
			t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
		}
	})
}

// Changes past the tenth of a second are told together when the second is over.
func TestJournalSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		target := journalTargets(t, "10.0.0.1:443")[0]
		j := newJournal(events.New())
		begin := time.Now()

		journalChange(j, target, health.Down, 7)
		time.Sleep(900 * time.Millisecond)
		journalChange(j, target, health.Down, 12)
		journalChange(j, target, health.Up, 6)
		if got := journalTake(logged); len(got) != linesPerSecond || !strings.HasPrefix(got[linesPerSecond-1], "[WARNING] 10.0.0.1:443 is down") {
			t.Errorf("%d lines at once:\n%s", len(got), strings.Join(got, "\n"))
		}
		time.Sleep(100*time.Millisecond - 1)
		synctest.Wait()
		journalExpect(t, journalTake(logged))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		journalExpect(t, journalTake(logged), "[WARNING] And 15 more targets changed within a second: 9 are down, 6 are up")
		if past := time.Since(begin); past != time.Second {
			t.Errorf("after %v", past)
		}

		// The next second begins anew, with nothing left of the last.
		journalChange(j, target, health.Up, linesPerSecond)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := journalTake(logged); len(got) != linesPerSecond {
			t.Errorf("%d lines:\n%s", len(got), strings.Join(got, "\n"))
		}
		journalChange(j, target, health.Up, linesPerSecond+1)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := journalTake(logged); len(got) != linesPerSecond+1 ||
			got[linesPerSecond] != "[WARNING] And 1 more targets changed within a second: 0 are down, 1 are up" {
			t.Errorf("%d lines:\n%s", len(got), strings.Join(got, "\n"))
		}
		j.close()
		journalExpect(t, journalTake(logged))
	})
}

// A steady flood makes eleven lines a second, and every change is in one of them.
func TestJournalFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		target := journalTargets(t, "10.0.0.1:443")[0]
		j := newJournal(events.New())
		const seconds, pace = 5, 20 * time.Millisecond
		changes := 0
		for range int(seconds * time.Second / pace) {
			journalChange(j, target, health.Down, 3)
			changes += 3
			time.Sleep(pace)
		}
		j.close()
		told, summaries := 0, 0
		for _, line := range journalTake(logged) {
			more := 0
			if _, err := fmt.Sscanf(line, "[WARNING] And %d more", &more); err == nil {
				summaries++
				told += more
				continue
			}
			told++
		}
		if told != changes || summaries != seconds {
			t.Errorf("told of %d changes, want %d, in %d summaries, want %d", told, changes, summaries, seconds)
		}
	})
}

// What is left is told at the end, and nothing after it.
func TestJournalClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		target := journalTargets(t, "10.0.0.1:443")[0]
		j := newJournal(events.New())
		journalChange(j, target, health.Down, linesPerSecond+5)
		journalTake(logged)
		j.close()
		journalExpect(t, journalTake(logged), "[WARNING] And 5 more targets changed within a second: 5 are down, 0 are up")
		journalChange(j, target, health.Down, 3)
		time.Sleep(time.Minute)
		synctest.Wait()
		journalExpect(t, journalTake(logged))
	})
}

// A cause of inconclusive checks is told once, and again when it comes back after a while.
func TestJournalInconclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		targets := journalTargets(t, "10.0.0.1:443", "10.0.0.2:443")
		j := newJournal(events.New())
		defer j.close()
		noRoute := checker.Report{Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
		busy := checker.Report{Err: checker.ErrBusy}
		counted := testutil.ToFloat64(inconclusive.WithLabelValues("no_route"))
		results := testutil.ToFloat64(checksBy[checker.Inconclusive])

		line := func(addr, what string) string {
			return "[WARNING] Checks are inconclusive. The first is that of " + addr + ": " + what + ". Their targets keep their state for now"
		}
		noRouteOf := func(addr string) string { return line(addr, fmt.Sprintf("no_route (%v)", noRoute.Err)) }
		j.Checked(targets[0], noRoute)
		j.Checked(targets[1], noRoute)
		j.Checked(targets[1], busy)
		j.Checked(targets[0], busy)
		journalExpect(t, journalTake(logged), noRouteOf("10.0.0.1:443"), line("10.0.0.2:443", fmt.Sprintf("busy (%v)", checker.ErrBusy)))

		// While it goes on it is no news, however long.
		for range 5 {
			time.Sleep(quiet)
			j.Checked(targets[0], noRoute)
		}
		journalExpect(t, journalTake(logged))
		time.Sleep(quiet + 1)
		j.Checked(targets[1], noRoute)
		journalExpect(t, journalTake(logged), noRouteOf("10.0.0.2:443"))

		if n := testutil.ToFloat64(inconclusive.WithLabelValues("no_route")) - counted; n != 8 {
			t.Errorf("counted %v for want of a route, want 8", n)
		}
		if n := testutil.ToFloat64(checksBy[checker.Inconclusive]) - results; n != 10 {
			t.Errorf("counted %v inconclusive, want 10", n)
		}
	})
}

// Conclusive checks say nothing and are counted, the round trip only of those that were answered.
func TestJournalChecked(t *testing.T) {
	logged := lab.CaptureLog(t)
	target := journalTargets(t, "10.0.0.1:443")[0]
	j := newJournal(events.New())
	defer j.close()
	const trip = time.Millisecond
	for _, report := range []checker.Report{
		{Result: checker.Answered, RTT: trip, Tries: 1},
		{Result: checker.Answered, Tries: 2}, // nobody knows how long that took
		{Result: checker.Refused, RTT: trip, Tries: 4},
		{Result: checker.Timeout, Tries: 4},
		{Result: checker.Unreachable, Tries: 3},
	} {
		r := report.Result
		results, trips := testutil.ToFloat64(checksBy[r]), metricsCount(t, "coredns_shaker_round_trip_duration_seconds")
		before := testutil.ToFloat64(tries)
		j.Checked(target, report)
		if n := testutil.ToFloat64(tries) - before; n != float64(report.Tries) {
			t.Errorf("%v: %v tries, want %d", r, n, report.Tries)
		}
		if n := testutil.ToFloat64(checksBy[r]) - results; n != 1 {
			t.Errorf("%v: counted %v, want 1", r, n)
		}
		want := uint64(0)
		if r == checker.Answered && report.RTT > 0 {
			want = 1
		}
		if n := metricsCount(t, "coredns_shaker_round_trip_duration_seconds") - trips; n != want {
			t.Errorf("%v: %d round trips, want %d", r, n, want)
		}
	}
	journalExpect(t, journalTake(logged))
}

// With the debug log, each check is a line. Without, an answer costs no memory.
func TestJournalDebug(t *testing.T) {
	logged := lab.CaptureLog(t)
	targets := journalTargets(t, "10.0.0.1:443", "[2001:db8::1]:80")
	j := newJournal(events.New())
	defer j.close()
	answered := checker.Report{Result: checker.Answered, RTT: 222_333}
	if n := testing.AllocsPerRun(100, func() { j.Checked(targets[0], answered) }); n != 0 {
		t.Errorf("%v allocations without the debug log", n)
	}
	journalExpect(t, journalTake(logged))

	clog.D.Set()
	t.Cleanup(clog.D.Clear)
	j.Checked(targets[0], answered)
	j.Checked(targets[1], checker.Report{Result: checker.Refused, RTT: time.Millisecond, Err: syscall.ECONNREFUSED})
	j.Checked(targets[1], checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout})
	j.Checked(targets[1], checker.Report{Result: checker.Unreachable, Err: syscall.EHOSTUNREACH})
	journalExpect(t, journalTake(logged),
		"[DEBUG] Check of 10.0.0.1:443: answered in 222µs, unknown",
		"[DEBUG] Check of [2001:db8::1]:80: refused in 1ms, unknown",
		"[DEBUG] Check of [2001:db8::1]:80: timeout, unknown",
		fmt.Sprintf("[DEBUG] Check of [2001:db8::1]:80: unreachable (%v), unknown", syscall.EHOSTUNREACH))
}
