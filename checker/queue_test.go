package checker

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	now := time.Now()
	named := func(name string, suspect bool) job {
		return job{Check: Check{Tag: name, Timeout: time.Second, Suspect: suspect}}
	}
	q := queue{limit: 4}
	for _, name := range []string{"s1", "s2", "s3"} {
		q.push(named(name, true), now)
	}
	for _, name := range []string{"r1", "r2", "r3"} {
		q.push(named(name, false), now)
	}
	pop := func(want string, wantExpired bool) job {
		t.Helper()
		j, expired, ok := q.pop(now)
		if !ok && want == "" {
			return j
		}
		if !ok || j.Tag != want || expired != wantExpired {
			t.Fatalf("popped %v, expired %v, ok %v; want %q, expired %v", j.Tag, expired, ok, want, wantExpired)
		}
		return j
	}
	// Those who are expected to answer go first; suspects take what is left, and no more than half.
	r1 := pop("r1", false)
	pop("r2", false)
	pop("r3", false)
	s1 := pop("s1", false)
	pop("", false)
	q.release(&r1)
	pop("s2", false)
	pop("", false)
	q.push(named("r4", false), now)
	q.release(&s1)
	pop("r4", false)
	// Whoever has waited for too long leaves the line, place or no place.
	if at, ok := q.expiry(); !ok || !at.Equal(now.Add(time.Second)) {
		t.Errorf("next expiry %v, %v", at, ok)
	}
	now = now.Add(time.Second)
	pop("s3", true)
	pop("", false)
	if _, ok := q.expiry(); ok || q.backlog() > 0 {
		t.Error("the empty queue has something to do")
	}
	if q.inFlight != 4 || q.suspects != 1 {
		t.Errorf("%d in flight, %d suspects", q.inFlight, q.suspects)
	}
}

// Timeouts in line have an order of their own, and those who are gone go with them.
func TestQueueExpire(t *testing.T) {
	start := time.Now()
	gone, leave := context.WithCancel(t.Context())
	q := queue{limit: 0}
	for _, w := range []struct {
		tag     string
		timeout time.Duration
		suspect bool
		waiter  *waiter
	}{
		{"50", 50 * time.Millisecond, false, nil},
		{"20", 20 * time.Millisecond, false, nil},
		{"gone", time.Hour, false, &waiter{ctx: gone}},
		{"25", 25 * time.Millisecond, true, nil}, // less than sweepEvery after the one before
		{"hour", time.Hour, true, nil},
	} {
		q.push(job{Check: Check{Tag: w.tag, Timeout: w.timeout, Suspect: w.suspect}, waiter: w.waiter}, start)
	}
	leave()
	for _, step := range []struct {
		at   time.Duration
		want []string
		next time.Duration
	}{
		{19 * time.Millisecond, nil, 20 * time.Millisecond},
		{20 * time.Millisecond, []string{"20", "gone"}, 30 * time.Millisecond},
		{29 * time.Millisecond, nil, 30 * time.Millisecond},
		{30 * time.Millisecond, []string{"25"}, 50 * time.Millisecond},
		{time.Minute, []string{"50"}, time.Hour},
	} {
		var got []string
		q.expire(start.Add(step.at), func(j job) { got = append(got, j.Tag.(string)) })
		if !slices.Equal(got, step.want) {
			t.Errorf("after %v: %v expired, want %v", step.at, got, step.want)
		}
		if next, ok := q.expiry(); !ok || next.Sub(start) != step.next {
			t.Errorf("after %v: next at %v, %v; want %v", step.at, next.Sub(start), ok, step.next)
		}
	}
}

// A pool of one serves suspects too.
func TestQueueOfOne(t *testing.T) {
	q := queue{limit: 1}
	q.push(job{Check: Check{Timeout: time.Second, Suspect: true}}, time.Now())
	if q.backlog() == 0 {
		t.Error("a suspect cannot start in an empty pool of one")
	}
}

func TestFifo(t *testing.T) {
	var f fifo
	next, pushed := 0, 0
	for round := range 500 {
		for range round % 7 {
			f.push(queued{job: job{Check: Check{Tag: pushed}}})
			pushed++
		}
		for range round % 5 {
			if f.head() == nil {
				break
			}
			if got := f.pop().Tag; got != next {
				t.Fatalf("popped %v, want %d", got, next)
			}
			next++
		}
	}
	for ; f.head() != nil; next++ {
		if got := f.pop().Tag; got != next {
			t.Fatalf("popped %v, want %d", got, next)
		}
	}
	if next != pushed {
		t.Errorf("popped %d of %d", next, pushed)
	}
}

// A check's further tries fill no more than suspects do, and leave room to those in line. Suspects have to share with
// them.
func TestWiden(t *testing.T) {
	now := time.Now()
	regular, suspect := job{Check: Check{Timeout: time.Second}}, job{Check: Check{Timeout: time.Second, Suspect: true}}
	for name, tt := range map[string]struct {
		limit                      int
		regular, suspects, further int // in flight
		inLine                     []job
		want                       bool
	}{
		"room":                                {8, 1, 0, 0, nil, true},
		"full":                                {8, 8, 0, 0, nil, false},
		"half of it is others' further tries": {8, 2, 0, 4, nil, false},
		"half of it is suspects":              {8, 1, 4, 0, nil, false},
		"half of it is either":                {8, 1, 1, 3, nil, false},
		"almost half of it":                   {8, 1, 1, 2, nil, true},
		"somebody in line needs it":           {8, 1, 0, 0, []job{regular}, false},
		"a suspect in line":                   {8, 1, 0, 0, []job{suspect}, true},
		"one place":                           {1, 1, 0, 0, nil, false},
		"two places":                          {2, 1, 0, 0, nil, true},
	} {
		q := queue{limit: tt.limit}
		take := func(n int, j job) {
			for range n {
				q.push(j, now)
				if _, _, ok := q.pop(now); !ok {
					t.Fatalf("%s: no room", name)
				}
			}
		}
		take(tt.regular, regular)
		take(tt.suspects, suspect)
		for range tt.further {
			if !q.widen() {
				t.Fatalf("%s: no room for a further try", name)
			}
		}
		for _, j := range tt.inLine {
			q.push(j, now)
		}
		before := q
		if got := q.widen(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		} else if got {
			q.narrow(1)
		}
		if q.inFlight != before.inFlight || q.suspects != before.suspects {
			t.Errorf("%s: %d places and %d suspects, %d and %d before", name, q.inFlight, q.suspects, before.inFlight, before.suspects)
		}
	}
}

// Only those count as a backlog that wait for nothing but their turn.
func TestQueueBacklog(t *testing.T) {
	for _, tt := range []struct{ limit, inFlight, suspectsInFlight, regular, suspects, want int }{
		{10, 0, 0, 0, 0, 0},
		{10, 0, 0, 3, 0, 3},
		{10, 0, 0, 30, 0, 10},
		{10, 8, 0, 30, 0, 2},
		{10, 10, 0, 30, 30, 0},
		{10, 0, 0, 0, 30, 5},
		{10, 4, 4, 0, 30, 1},
		{10, 5, 5, 0, 30, 0},
		{10, 5, 5, 3, 30, 3},
		{10, 2, 0, 4, 30, 8},
		{1, 0, 0, 0, 2, 1},
	} {
		q := queue{limit: tt.limit, inFlight: tt.inFlight, suspects: tt.suspectsInFlight}
		for i := range tt.regular + tt.suspects {
			q.push(job{Check: Check{Timeout: time.Second, Suspect: i >= tt.regular}}, time.Now())
		}
		if got := q.backlog(); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}
