package events

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// add adds events, each with its number as the text, until the log has so many.
func add(l *Log, upTo uint64) {
	for l.newest < upTo {
		l.Add(&Event{Kind: Trouble, Text: line(fmt.Sprint(l.newest + 1))})
	}
}

// expectRow checks that events are those with the numbers from first on, and that each is itself.
func expectRow(t *testing.T, what string, got []*Event, first, n uint64) {
	t.Helper()
	if uint64(len(got)) != n {
		t.Errorf("%s: %d events, want %d", what, len(got), n)
		return
	}
	for i, e := range got {
		if want := first + uint64(i); e.Number() != want || e.Text.String() != fmt.Sprint(want) {
			t.Errorf("%s: event %d is number %d, %q, want %d", what, i, e.Number(), e.Text, want)
			return
		}
	}
}

func TestAll(t *testing.T) {
	for _, tt := range []struct{ added, first, n uint64 }{
		{0, 1, 0}, {1, 1, 1}, {17, 1, 17}, {Known, 1, Known}, {Known + 1, 2, Known}, {2*Known + 7, Known + 8, Known},
	} {
		l := New()
		add(l, tt.added)
		expectRow(t, fmt.Sprint(tt.added, " added"), l.All(), tt.first, tt.n)
	}
}

func TestFollow(t *testing.T) {
	for name, tt := range map[string]struct {
		before, from, after uint64 // how many there are, the one that is followed, and how many there are when it is looked
		missed, first, n    uint64
	}{
		"nothing yet":              {0, 0, 0, 0, 0, 0},
		"the first":                {0, 0, 1, 0, 1, 1},
		"nothing new":              {5, 5, 5, 0, 0, 0},
		"what is new":              {5, 5, 7, 0, 6, 2},
		"what is old":              {5, 2, 5, 0, 3, 3},
		"all of it":                {5, 0, 7, 0, 1, 7},
		"all that is known":        {Known, 0, Known, 0, 1, Known},
		"one is forgotten":         {Known, 0, Known + 1, 1, 2, Known},
		"much is forgotten":        {17, 17, 5 * Known, 4*Known - 17, 4*Known + 1, Known},
		"of an earlier process":    {5, 6, 7, 0, 1, 7},
		"of an earlier full one":   {Known + 5, 77777, Known + 5, 5, 6, Known},
		"the last one that stays":  {Known + 5, 5, Known + 5, 0, 6, Known},
		"the newest of a full one": {Known + 5, Known + 5, Known + 6, 0, Known + 6, 1},
	} {
		l := New()
		add(l, tt.before)
		f := l.Follow(tt.from)
		add(l, tt.after)
		var got []*Event
		missed := uint64(0)
		for {
			next, m, more := f.Next(7)
			if len(next) > 7 || (more == nil) != (len(next) > 0) {
				t.Errorf("%s: %d at once, and something to wait for is %v", name, len(next), more != nil)
			}
			missed += m
			if got = append(got, next...); len(next) == 0 {
				break
			}
		}
		if missed != tt.missed {
			t.Errorf("%s: missed %d, want %d", name, missed, tt.missed)
		}
		expectRow(t, name, got, tt.first, tt.n)
	}
}

// Who waits is woken by the next event, once, and who adds it does not wait.
func TestFollowersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		const followers, events = 16, 300
		var got [followers]atomic.Int64
		var all sync.WaitGroup
		for i := range followers {
			all.Go(func() {
				f := l.Follow(0)
				for last := uint64(0); last < events; {
					next, missed, more := f.Next(16)
					if len(next) == 0 {
						<-more
						continue
					}
					for _, e := range next {
						if e.Number() != last+1 || missed > 0 {
							t.Errorf("number %d follows %d, missed %d", e.Number(), last, missed)
						}
						last = e.Number()
						got[i].Add(1)
					}
				}
			})
		}
		for n := range uint64(events) {
			synctest.Wait()
			for i := range got {
				if have := got[i].Load(); have != int64(n) {
					t.Fatalf("follower %d has %d events of %d", i, have, n)
				}
			}
			add(l, n+1)
		}
		all.Wait()
		if l.more != nil {
			t.Error("somebody waits still")
		}
	})
}

// Numbers have no gaps and are not used twice, times go up with them, and followers miss only what they are told of.
func TestConcurrent(t *testing.T) {
	l := New()
	const writers, each = 4, 3000
	var writing, reading sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				l.Add(&Event{Kind: Trouble, Text: line("")})
			}
		})
	}
	for range 4 {
		reading.Go(func() {
			f, last := l.Follow(0), uint64(0)
			var before time.Time
			for last < writers*each {
				next, missed, more := f.Next(32)
				last += missed
				for _, e := range next {
					if last++; e.Number() != last {
						t.Errorf("number %d, want %d", e.Number(), last)
					}
					if at := l.Time(e); at.Before(before.Add(-time.Second)) {
						t.Errorf("at %v after %v", at, before)
					} else {
						before = at
					}
				}
				if more != nil && last < writers*each {
					<-more
				}
			}
		})
	}
	writing.Wait()
	reading.Wait()
	all := l.All()
	for i, e := range all[1:] {
		if e.at < all[i].at {
			t.Errorf("number %d is older than the one before", e.Number())
		}
	}
}

// However the wall clock is set, people see the times of events as it has them now.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := time.Duration(0)
		l := newLog(func() time.Time { return time.Now().Round(0).Add(step) })
		add(l, 1)
		time.Sleep(time.Hour)
		add(l, 2)
		time.Sleep(time.Minute)
		for _, step = range []time.Duration{0, time.Hour, -3 * time.Hour, 0} {
			now := l.Now()
			if want := time.Now().Add(step); !now.Equal(want) {
				t.Errorf("set by %v: now is %v, want %v", step, now, want)
			}
			for i, want := range []time.Duration{time.Hour + time.Minute, time.Minute} {
				if age := now.Sub(l.Time(l.All()[i])); age != want {
					t.Errorf("set by %v: event %d is %v old, want %v", step, i, age, want)
				}
			}
		}
	})
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		text string
		most int
		want string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "…"}, {"abcd", 4, "abcd"}, {"abcde", 4, "a…"},
		{"aäöü", 7, "aäöü"}, {"aäöü", 6, "aä…"}, {"äöü", 5, "ä…"}, {"\xff\xff\xff\xff", 3, "…"},
	} {
		if got := Clip(tt.text, tt.most); got != tt.want {
			t.Errorf("%q to %d: %q, want %q", tt.text, tt.most, got, tt.want)
		}
	}
	l := New()
	l.Addf(Trouble, "%s", strings.Repeat("ä", 1000))
	long := l.All()[0].Text.String()
	if len(long) > maxText || len(long) < maxText-2 || !utf8.ValidString(long) {
		t.Errorf("%d octets: %q", len(long), long)
	}
}

func TestKinds(t *testing.T) {
	all := Kinds()
	all[0] = "changed"
	if Kinds()[0] != Down {
		t.Error("who asks for the kinds can change them")
	}
}
