package shaker

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// eventsSince returns the kinds and texts of what comes after the event with that number.
func eventsSince(l *events.Log, number uint64) (all []string) {
	for _, e := range l.All() {
		if e.Number() > number {
			all = append(all, fmt.Sprintf("%s: %s", e.Kind, e.Text))
		}
	}
	return all
}

// eventsNewest returns the number of the newest event.
func eventsNewest(l *events.Log) uint64 {
	all := l.All()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Number()
}

// overrideInstance is an instance that has opened these files.
func overrideInstance(t *testing.T, n *overrideNews, paths ...string) *instance {
	t.Helper()
	inst := new(instance)
	inst.settings.overrides = make(map[string]*override.File)
	for _, path := range paths {
		file, err := n.open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(file.Stop)
		inst.settings.overrides[path] = file
	}
	return inst
}

// Each change of a rule is an event once, however many instances read the file, and whichever of them sees it.
func TestOverrideNews(t *testing.T) {
	lab.CaptureLog(t)
	dir := t.TempDir()
	write := func(name, rules string) string {
		lab.FileIn(t, dir, name, rules)
		return filepath.Join(dir, name)
	}
	first, second := write("first", "192.0.2.1 down\n"), write("second", "")
	n := &overrideNews{events: events.New()}
	var old, next *instance
	reads := func(inst *instance, path string) {
		inst.settings.overrides[path].Start()
	}
	readBy := func(inst *instance, path string, rules int) {
		t.Helper()
		lab.Until(t, "the file to be read", func() bool {
			n, _, failed := inst.settings.overrides[path].Report()
			return !failed && n == rules
		})
	}
	failedIn := func(inst *instance, path string) {
		t.Helper()
		lab.Until(t, "the file to be found broken", func() bool {
			_, _, failed := inst.settings.overrides[path].Report()
			return failed
		})
	}
	inForce := func(path string, rules int) string {
		return fmt.Sprintf("overrides: Overrides in force from %s: %d", path, rules)
	}
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"the start", func() {
			old = overrideInstance(t, n, first)
			n.follow(old)
		}, []string{inForce(first, 1)}},
		{"a change", func() {
			reads(old, first)
			write("first", "192.0.2.1 up\n192.0.2.2 down\n")
			readBy(old, first, 2)
		}, []string{"override: Override: 192.0.2.1 is up, was down", "override: Override: 192.0.2.2 is down, was auto", inForce(first, 2)}},
		{"a mistake that both instances see", func() {
			next = overrideInstance(t, n, first)
			reads(next, first)
			write("first", "nonsense\n")
			failedIn(old, first)
			failedIn(next, first)
		}, []string{`overrides: Overrides stay as they were: ` + first + `: line 1: `}},
		{"mended, which both see", func() {
			write("first", "192.0.2.2 down\n")
			readBy(old, first, 1)
			readBy(next, first, 1)
		}, []string{"override: Override: 192.0.2.1 is auto, was up", inForce(first, 1)}},
		{"a change that only the new instance has seen", func() {
			old.settings.overrides[first].Stop()
			write("first", "192.0.2.2 up\n")
			lab.Until(t, "the new instance to see it", func() bool {
				return next.settings.overrides[first].Rules().Of(netip.MustParseAddr("192.0.2.2"), 443) == override.Up
			})
		}, nil},
		{"the new one takes over", func() { n.follow(next) }, []string{"override: Override: 192.0.2.2 is up, was down", inForce(first, 1)}},
		{"and once more", func() { n.follow(next) }, nil},
		{"one with another file", func() {
			next.settings.overrides[first].Stop()
			write("second", "192.0.2.9 down\n")
			next = overrideInstance(t, n, second)
			n.follow(next)
		}, []string{
			"override: Override: 192.0.2.2 is auto, was up",
			"overrides: No overrides come from " + first + " any more: the configuration does not name it",
			"override: Override: 192.0.2.9 is down, was auto", inForce(second, 1),
		}},
		{"more changes than are told one by one", func() {
			var rules strings.Builder
			for i := range 2*maxOverrideEvents + 7 {
				fmt.Fprintf(&rules, "10.0.%d.%d down\n", i/100, i%100)
			}
			write("second", "192.0.2.9 down\n"+rules.String())
			reads(next, second)
			readBy(next, second, 2*maxOverrideEvents+8)
		}, []string{fmt.Sprintf("%s, %d more changed", inForce(second, 2*maxOverrideEvents+8), maxOverrideEvents+7)}},
		{"the end", func() {
			n.follow(nil)
			write("second", "")
			readBy(next, second, 0)
		}, nil},
	} {
		before := eventsNewest(n.events)
		step.do()
		got := eventsSince(n.events, before)
		if step.name == "more changes than are told one by one" {
			if len(got) != maxOverrideEvents+1 || got[0] != "override: Override: 10.0.0.0 is down, was auto" {
				t.Errorf("%s: %d events, the first %q", step.name, len(got), got[0])
			}
			got = got[len(got)-1:]
		}
		if !slices.EqualFunc(got, step.want, func(got, want string) bool {
			return got == want || strings.HasSuffix(want, ": line 1: ") && strings.HasPrefix(got, want)
		}) {
			t.Errorf("%s: got\n%s\nwant\n%s", step.name, strings.Join(got, "\n"), strings.Join(step.want, "\n"))
		}
	}
}

// During a reload the new instance may see first that a mistake is gone. What is in force then is what was before it.
func TestOverrideNewsMended(t *testing.T) {
	lab.CaptureLog(t)
	path := lab.File(t, "rules", "192.0.2.1 down\n192.0.2.2 down\n")
	n := &overrideNews{events: events.New()}
	old := overrideInstance(t, n, path)
	n.follow(old)
	next := overrideInstance(t, n, path).settings.overrides[path]
	next.Start()
	before := eventsNewest(n.events)
	for _, step := range []struct {
		content string
		rules   int // that the new instance has in force at last
		failed  bool
	}{{"nonsense\n", 2, true}, {"192.0.2.2 down\n", 1, false}} {
		lab.FileIn(t, filepath.Dir(path), "rules", step.content)
		lab.Until(t, "the new instance to see it", func() bool {
			rules, _, failed := next.Report()
			return failed == step.failed && rules == step.rules
		})
	}
	next.Stop() // nothing is told any more
	got := eventsSince(n.events, before)
	if len(got) != 1 || !strings.Contains(got[0], "Overrides stay as they were") {
		t.Errorf("got %q, want that the file has a mistake, and nothing of what the old instance has in force", got)
	}
	old.settings.overrides[path].Start()
	lab.Until(t, "the old instance to see it", func() bool { return eventsNewest(n.events) > before+2 })
	want := []string{"override: Override: 192.0.2.1 is auto, was down", "overrides: Overrides in force from " + path + ": 1"}
	if got := eventsSince(n.events, before+1); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Rules that end by themselves are told when they do. No event of their file follows, neither then nor with the next reload.
func TestOverrideNewsEnd(t *testing.T) {
	lab.CaptureLog(t)
	for _, count := range []int{1, maxOverrideEvents + 7} {
		var rules strings.Builder
		end := time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339)
		for i := range count {
			fmt.Fprintf(&rules, "10.0.%d.%d down until %s\n", i/100, i%100, end)
		}
		path := lab.File(t, "rules", rules.String())
		n := &overrideNews{events: events.New()}
		n.follow(overrideInstance(t, n, path))
		before := eventsNewest(n.events)
		n.of.settings.overrides[path].Start()
		lab.Until(t, "the rules to end", func() bool { return eventsNewest(n.events) > before })
		n.of.settings.overrides[path].Stop()
		n.follow(overrideInstance(t, n, path))
		got := eventsSince(n.events, before)
		if count > maxOverrideEvents {
			if want := fmt.Sprintf("override: And %d more overrides changed because rules end by themselves", count-maxOverrideEvents); got[len(got)-1] != want {
				t.Errorf("got %q, want %q", got[len(got)-1], want)
			}
			got = got[:len(got)-1]
		}
		for i, got := range got {
			if want := fmt.Sprintf("override: Override: 10.0.%d.%d is auto, was down: it ended at ", i/100, i%100); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if len(got) != min(count, maxOverrideEvents) {
			t.Errorf("%d events of %d rules", len(got), count)
		}
	}
}
