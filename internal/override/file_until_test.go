package override

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wallClock is one that can be set.
type wallClock struct{ set atomic.Int64 } // nanoseconds that it was set forward

func (c *wallClock) now() time.Time { return time.Now().Round(0).Add(time.Duration(c.set.Load())) }

// setFromNow sets the clock forward, or back.
func (c *wallClock) setFromNow(by time.Duration) { c.set.Add(int64(by)) }

// Rules end by themselves, whatever becomes of the file, and that is told once.
func TestFileEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, clock := new(record), new(wallClock)
		began := clock.now()
		in := func(d time.Duration) string { return timeString(began.Add(d)) }
		// What ends is on other hours than the steps are.
		rules := fmt.Sprintf("192.0.2.1 down until %s # ended long ago\n192.0.2.2 down until %s # kernel update\n192.0.2.3 up\n"+
			"192.0.2.0/24 down until %s # move\n192.0.2.9 auto until %s # spare\n",
			in(-time.Hour), in(90*time.Minute), in(150*time.Minute), in(210*time.Minute))
		many := rules
		for i := range maxLines + 5 {
			many += fmt.Sprintf("198.51.100.%d up until %s\n", i, in(270*time.Minute))
		}
		h := newHangingFile(rules)
		var texts []string
		tell := log.listener()
		note := func(line string) { texts = append(texts, line) }
		tell.Changed, tell.InForce, tell.Rejected = func(line string, c Change) { note(line) }, note, note
		f, err := open("/net/overrides", tell, h.read, clock.now)
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		defer f.Stop()
		write := func(content string) { h.mu.Lock(); h.content = content; h.mu.Unlock() }
		for _, step := range []struct {
			name   string
			do     func()
			after  time.Duration
			rules  int
			logged []string
		}{
			{"at the start", func() {}, time.Second, 4,
				[]string{"Overrides in /net/overrides that had ended before: 1, the last at " + in(-time.Hour) + ". Their lines may be removed"}},
			{"before the first ends", func() {}, 90*time.Minute - time.Second - time.Millisecond, 4, nil},
			{"a quarter of a second later", func() {}, lookEvery, 3,
				[]string{"Override: 192.0.2.2 is down until " + in(150*time.Minute) + ", was down: it ended at " + in(90*time.Minute) + " (kernel update)"}},
			{"the file is written anew", func() { write("# once more\n" + rules) }, time.Minute, 3, nil},
			{"the clock is set back", func() { clock.setFromNow(-time.Hour) }, time.Minute, 4,
				[]string{"Override: 192.0.2.2 is down until " + in(90*time.Minute) + ", was down until " + in(150*time.Minute) + " (kernel update)"}},
			{"it is set right", func() { clock.setFromNow(time.Hour) }, time.Minute, 3,
				[]string{"Override: 192.0.2.2 is down until " + in(150*time.Minute) + ", was down: it ended at " + in(90*time.Minute) + " (kernel update)"}},
			{"the file has a mistake", func() { write(rules + "nonsense\n") }, time.Minute, 3,
				[]string{`Overrides stay as they were: /net/overrides: line 6: "nonsense" is not possible, want ADDRESS`}},
			{"one ends although the file has a mistake", func() {}, time.Hour, 2,
				[]string{"Override: 192.0.2.0/24 is auto, was down, except 192.0.2.3, which is up: it ended at " + in(150*time.Minute) + " (move)"}},
			{"the file is mended", func() { write(many) }, time.Minute, 2 + maxLines + 5, append(manyAre("up until "+in(270*time.Minute), "auto", ""),
				fmt.Sprintf("Overrides in force from /net/overrides: %d, 5 more changed", 2+maxLines+5))},
			{"one ends while the file hangs", h.hang, time.Hour, 1 + maxLines + 5,
				[]string{"Overrides stay as they were: /net/overrides has not been read within 5s, so its file system hangs",
					"Override: 192.0.2.9 is auto, was auto: it ended at " + in(210*time.Minute) + " (spare)"}},
			{"many end at once", func() {}, time.Hour, 1,
				append(manyAre("auto", "up", ": it ended at "+in(270*time.Minute)), "And 5 more overrides changed because rules end by themselves")},
			{"it can be read again", func() { h.release(rules) }, time.Second, 1, []string{"Overrides in force from /net/overrides: 1"}},
		} {
			step.do()
			time.Sleep(step.after)
			synctest.Wait()
			if rules, _, _ := f.Report(); rules != step.rules {
				t.Errorf("%s: %d rules, want %d", step.name, rules, step.rules)
			}
			if logged := log.take(); !slices.EqualFunc(logged, step.logged, strings.HasPrefix) {
				t.Errorf("%s: logged\n%s\nwant\n%s", step.name, strings.Join(logged, "\n"), strings.Join(step.logged, "\n"))
			}
		}
		told := slices.DeleteFunc(slices.Clone(log.lines), func(line string) bool {
			return strings.HasPrefix(line, "And ") || strings.Contains(line, "had ended before")
		})
		if !slices.Equal(texts, told) {
			t.Errorf("listeners were told\n%s\nwant\n%s", strings.Join(texts, "\n"), strings.Join(told, "\n"))
		}
	})
}

// What has run out is told as that although the file changes at the same time.
func TestFileEndsAsItChanges(t *testing.T) {
	log, now := new(record), noon
	path := writeFile(t, "overrides", "192.0.2.1 down until "+timeString(at("13:00"))+" # kernel update\n192.0.2.2 down until "+timeString(at("13:00")))
	f, err := open(path, log.listener(), read, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	now = at("13:00")
	for range 2 {
		f.take(reading{Content: "192.0.2.2 down"})
	}
	want := []string{
		"Override: 192.0.2.1 is auto, was down: it ended at 2026-11-26T13:00:00Z (kernel update)",
		"Override: 192.0.2.2 is auto, was down: it ended at 2026-11-26T13:00:00Z",
		"Override: 192.0.2.2 is down, was auto",
		"Overrides in force from " + path + ": 1",
	}
	if got := log.take(); !slices.Equal(got, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// manyAre returns the lines for the first of many rules.
func manyAre(is, was, end string) (lines []string) {
	for i := range maxLines {
		lines = append(lines, fmt.Sprintf("Override: 198.51.100.%d is %s, was %s%s", i, is, was, end))
	}
	return lines
}

func BenchmarkOf(b *testing.B) {
	rules, err := Parse("192.0.2.0/24 down until 2026-11-26T16:00:00Z # move\n192.0.2.7:443 up\n2001:db8::/32 down", noon)
	if err != nil {
		b.Fatal(err)
	}
	targets := everyTarget()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		target := targets[i%len(targets)]
		rules.Of(target.Addr(), target.Port())
	}
}
