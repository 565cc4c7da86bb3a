package shaker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// An event has of its target what is known at the time, and of the error what is worth telling.
func TestEventOf(t *testing.T) {
	target := journalTargets(t, "10.0.0.1:443")[0]
	target.AddName("www.example.org.")
	target.AddAlias(netip.MustParseAddrPort("192.0.2.7:443"))
	long := errors.New(strings.Repeat("x", 1000))
	for _, tt := range []struct {
		change         health.Change
		kind           events.Kind
		result, reason string
	}{
		{health.Change{To: health.Down, Run: 3, Result: checker.Refused, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, events.Down, "refused", syscall.ECONNREFUSED.Error()},
		{health.Change{To: health.Down, Run: 3, Result: checker.Timeout, Err: checker.ErrTimeout}, events.Down, "timeout", checker.ErrTimeout.Error()},
		{health.Change{To: health.Up, Run: 2, Result: checker.Answered}, events.Up, "answered", ""},
		{health.Change{To: health.Unknown, Result: checker.Timeout, Err: long}, events.Unknown, "timeout", events.Clip(long.Error(), maxReason)},
	} {
		tt.change.Target = target
		e := eventOf(&tt.change, false)
		of := e.Target
		if e.Kind != tt.kind || of.State != tt.change.To.String() || of.Result != tt.result || of.Reason != tt.reason {
			t.Errorf("%+v: %s, %+v", tt.change, e.Kind, of)
		}
		if of.Endpoint != target.Addr() || fmt.Sprint(of.Answered, of.Names) != "[192.0.2.7] [www.example.org.]" || of.Settings.String() != target.Settings().String() {
			t.Errorf("%+v", of)
		}
		target.AddName("later.example.org.")
		if len(of.Names) != 1 {
			t.Error("a name that came later is in the event")
		}
		target = journalTargets(t, "10.0.0.1:443")[0]
		target.AddName("www.example.org.")
		target.AddAlias(netip.MustParseAddrPort("192.0.2.7:443"))
	}
}

// A target that flaps: each of its changes is an event, of which those that damping has a part in say so.
func TestEventsOfDamping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab.CaptureLog(t)
		j := newJournal(events.New())
		m := health.New(health.Options{Listener: j})
		defer j.close()
		defer m.Close()
		var alive atomic.Bool
		m.SetProber(proberFunc(func(c checker.Check) {
			result := checker.Refused
			if alive.Load() {
				result = checker.Answered
			}
			m.Deliver([]checker.Report{{Tag: c.Tag, Result: result}})
		}))
		key := unique.Make(health.Settings{Interval: time.Second, Fast: time.Second, Rise: 2, Fall: 1, Damping: time.Minute, DampingMax: time.Hour})
		m.Target(netip.MustParseAddrPort("10.0.0.1:443"), key, time.Hour)
		for range 3 {
			for _, is := range []bool{true, false} {
				alive.Store(is)
				time.Sleep(10 * time.Second)
				synctest.Wait()
			}
		}
		alive.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		var got []string
		for _, e := range j.events.All() {
			_, text, _ := strings.Cut(e.Text.String(), " is ")
			got = append(got, text)
		}
		const up, down = "up: 2 of 2 checks answered", "down: 1 of 1 check failed: refused"
		want := []string{"up: 1 of 1 check answered", down, up, down, up, down + ". It flaps, so it stays down for 1m0s at least", "up: N of N checks answered. It was kept down for so long because it flapped"}
		if len(got) == len(want) {
			got[6] = regexp.MustCompile(`\d\d of \d\d`).ReplaceAllString(got[6], "N of N")
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// proberFunc is a health.Prober that is asked for one check after the other.
type proberFunc func(checker.Check)

func (f proberFunc) Submit(checks ...checker.Check) error {
	for _, c := range checks {
		f(c)
	}
	return nil
}

// The log sums up in a storm, the events have each change.
func TestEventsOfStorm(t *testing.T) {
	lab.CaptureLog(t)
	target := journalTargets(t, "10.0.0.1:443")[0]
	j := newJournal(events.New())
	defer j.close()
	journalChange(j, target, health.Down, 10*linesPerSecond)
	for range 2 * linesPerMinute {
		j.unresolved("www.example.org.", time.Minute, time.Minute, errors.New("SERVFAIL"))
		j.resolved("www.example.org.")
	}
	if n := len(j.events.All()); n != 10*linesPerSecond+4*linesPerMinute {
		t.Errorf("%d events", n)
	}
}

// What is no change of a state is an event with the line that the log has, and no more often than the log says it.
func TestEventsOfTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		target := journalTargets(t, "10.0.0.1:443")[0]
		j := newJournal(events.New())
		defer j.close()
		j.Froze(health.Freeze{Frozen: true, Silent: 20, Heard: 1})
		j.Froze(health.Freeze{Took: time.Second})
		j.Froze(health.Freeze{Took: time.Minute, Expired: true})
		for range 3 {
			j.full(65536)
			j.Checked(target, checker.Report{Err: checker.ErrBusy})
		}
		j.unresolved("www.example.org.", time.Minute, time.Minute, errors.New("SERVFAIL"))
		j.resolved("www.example.org.")
		var kinds []events.Kind
		lines := journalTake(logged)
		for i, e := range j.events.All() {
			kinds = append(kinds, e.Kind)
			if _, line, _ := strings.Cut(lines[i], " "); e.Text.String() != line || e.Target != nil {
				t.Errorf("the event says %q, the log %q", e.Text, line)
			}
		}
		want := []events.Kind{events.Freeze, events.Thaw, events.Thaw, events.Trouble, events.Trouble, events.Trouble, events.Trouble}
		if !slices.Equal(kinds, want) || len(lines) != len(want) {
			t.Errorf("%v, and the log has\n%s", kinds, strings.Join(lines, "\n"))
		}
	})
}

// A full ring takes what docs/events.md says, with names as usual and with the longest that there are, also when all targets
// are gone.
func TestEventsTakeLittleMemory(t *testing.T) {
	if lab.RaceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4)
	for _, tt := range []struct {
		what           string
		names, aliases int
		name           string
		longText       bool
		most           int // octets
	}{
		{"usual", 1, 0, "www.example.org.", false, 450_000},
		{"hostile", 4, 4, long, false, 2_000_000},
		{"long texts", 0, 0, "", true, 1_300_000},
	} {
		before := lab.HeapInUse()
		l := events.New()
		func() {
			m := health.New(health.Options{})
			defer m.Close()
			for i := range 3 * events.Known {
				target := m.Target(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 443), health.Key{}, time.Hour)
				for n := range tt.names {
					target.AddName(fmt.Sprintf("%d%d%s", i%10, n, tt.name)[:len(tt.name)])
				}
				for n := range tt.aliases {
					target.AddAlias(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 443))
				}
				if tt.longText {
					l.Addf(events.Trouble, "%s", strings.Repeat("x", 100_000))
					continue
				}
				l.Add(&eventOf(&health.Change{Target: target, From: health.Up, To: health.Down, Run: 3, Result: checker.Timeout, Err: checker.ErrTimeout}, false).Event)
			}
		}()
		took := lab.HeapInUse() - before
		t.Logf("%s: %d octets", tt.what, took)
		if took > tt.most {
			t.Errorf("%s: %d octets, want %d at most", tt.what, took, tt.most)
		}
		runtime.KeepAlive(l)
	}
}

// BenchmarkChange is what the journal costs for a change of state in a storm, when the log sums up: the event, the counter
// and the digest. It takes no longer than the change itself takes the monitor.
func BenchmarkChange(b *testing.B) {
	for _, names := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			m := health.New(health.Options{})
			b.Cleanup(m.Close)
			target := m.Target(netip.MustParseAddrPort("10.0.0.1:443"), health.Key{}, 1<<40)
			for i := range names {
				target.AddName(fmt.Sprintf("host%d.example.org.", i))
				target.AddAlias(netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:443", i)))
			}
			to := events.New()
			c := health.Change{Target: target, From: health.Up, To: health.Down, Run: 3, Result: checker.Timeout, Err: checker.ErrTimeout}
			b.ReportAllocs()
			for b.Loop() {
				to.Add(&eventOf(&c, false).Event)
			}
		})
	}
}
