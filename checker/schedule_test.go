package checker

import (
	"math"
	"slices"
	"testing"
	"time"
)

// walk returns when a check sends its SYNs and when it ends, where nothing answers and this process was away for so long
// during each of its steps.
func walk(c *Check, away func(step int) time.Duration) (syns []time.Duration, end time.Duration, err error) {
	s := newSchedule(c)
	for n, more := 0, true; more; n++ {
		syns = append(syns, end)
		end += s.length()
		more, err = s.advance(away(n))
	}
	return syns, end, err
}

func TestSchedule(t *testing.T) {
	const s = time.Second
	for name, tt := range map[string]struct {
		tries            int
		timeout, spacing time.Duration
		want             []time.Duration
	}{
		"one":                             {tries: 1, timeout: 4 * s, want: []time.Duration{0}},
		"none is one":                     {tries: 0, timeout: 4 * s, want: []time.Duration{0}},
		"fewer than none is one":          {tries: -1, timeout: 4 * s, want: []time.Duration{0}},
		"one, with a spacing":             {tries: 1, timeout: 4 * s, spacing: s, want: []time.Duration{0}},
		"quarters":                        {tries: 4, timeout: 4 * s, want: []time.Duration{0, s, 2 * s, 3 * s}},
		"quarters, by a spacing":          {tries: 4, timeout: 4 * s, spacing: s, want: []time.Duration{0, s, 2 * s, 3 * s}},
		"a negative spacing is none":      {tries: 2, timeout: 4 * s, spacing: -s, want: []time.Duration{0, 2 * s}},
		"thirds that leave a remainder":   {tries: 3, timeout: 11, want: []time.Duration{0, 3, 6}},
		"close together":                  {tries: 3, timeout: 4 * s, spacing: s / 10, want: []time.Duration{0, s / 10, 2 * s / 10}},
		"no time for the last":            {tries: 4, timeout: 4 * s, spacing: 3 * s / 2, want: []time.Duration{0, 3 * s / 2, 3 * s}},
		"the last would leave at the end": {tries: 3, timeout: 4 * s, spacing: 2 * s, want: []time.Duration{0, 2 * s}},
		"time for the first only":         {tries: 4, timeout: 4 * s, spacing: 5 * s, want: []time.Duration{0}},
		"shorter than its tries":          {tries: 4, timeout: 2, want: []time.Duration{0, 1}},
		"the shortest":                    {tries: 4, timeout: 1, want: []time.Duration{0}},
	} {
		c := &Check{Tries: tt.tries, Timeout: tt.timeout, Spacing: tt.spacing}
		syns, end, err := walk(c, func(int) time.Duration { return 0 })
		if !slices.Equal(syns, tt.want) || end != tt.timeout || err != nil {
			t.Errorf("%s: SYNs at %v, the end at %v (%v); want %v and %v", name, syns, end, err, tt.want, tt.timeout)
		}
	}
	for _, tries := range []int{MaxTries, MaxTries + 1, math.MaxInt} {
		if s := newSchedule(&Check{Tries: tries, Timeout: time.Second}); s.steps != MaxTries {
			t.Errorf("%d tries are %d", tries, s.steps)
		}
	}
}

// Void steps are repeated, within a bound.
func TestVoidSteps(t *testing.T) {
	const (
		ms      = time.Millisecond
		long    = time.Hour
		timeout = 400 * ms
	)
	times := func(ms ...int) (at []time.Duration) {
		for _, n := range ms {
			at = append(at, time.Duration(n)*time.Millisecond)
		}
		return at
	}
	for name, tt := range map[string]struct {
		tries   int
		spacing time.Duration
		away    []time.Duration // during each step
		want    []time.Duration
		end     time.Duration
		err     error
	}{
		"away for less than half of the wait":  {1, 0, times(199), times(0), timeout, nil},
		"away for half of the wait":            {1, 0, times(200), times(0), timeout, ErrPaused},
		"away for much longer":                 {1, 0, []time.Duration{long}, times(0), timeout, ErrPaused},
		"away for less than half of a step":    {4, 0, times(49, 49, 49, 49), times(0, 100, 200, 300), timeout, nil},
		"away in the first step":               {4, 0, times(50), times(0, 100, 200, 300, 400), 500 * ms, nil},
		"away in the last step":                {4, 0, times(0, 0, 0, 50), times(0, 100, 200, 300, 400), 500 * ms, nil},
		"away in three steps":                  {4, 0, times(50, 0, 50, 0, 50), times(0, 100, 200, 300, 400, 500, 600), 700 * ms, nil},
		"away for ever":                        {4, 0, times(50, 50, 50, 50, 50, 50, 50), times(0, 100, 200, 300, 400, 500, 600), 700 * ms, ErrPaused},
		"away in two of two":                   {2, 0, []time.Duration{long, long}, times(0, 200, 400), 600 * ms, ErrPaused},
		"the last is long":                     {4, 10 * ms, times(0, 0, 0, 185), times(0, 10, 20, 30, 400), 770 * ms, nil},
		"the last is long, and void twice":     {4, 10 * ms, times(0, 0, 0, 185, 185), times(0, 10, 20, 30, 400), 770 * ms, ErrPaused},
		"steps that were to be short are void": {4, 10 * ms, times(5, 5, 5), times(0, 10, 20, 30, 40, 50, 60), 430 * ms, nil},
	} {
		c := &Check{Tries: tt.tries, Timeout: timeout, Spacing: tt.spacing}
		syns, end, err := walk(c, func(n int) time.Duration {
			if n < len(tt.away) {
				return tt.away[n]
			}
			return 0
		})
		if !slices.Equal(syns, tt.want) || end != tt.end || err != tt.err {
			t.Errorf("%s: SYNs at %v, the end at %v (%v); want %v, %v (%v)", name, syns, end, err, tt.want, tt.end, tt.err)
		}
	}
}

// However the steps are, and whichever of them are void, a check sends fewer SYNs than twice its tries and lasts no longer
// than twice its timeout. Without a void step it ends on time.
func FuzzSchedule(f *testing.F) {
	f.Add(4, int64(time.Second), int64(0), uint32(0b1011))
	f.Add(16, int64(1), int64(1), ^uint32(0))
	f.Add(3, int64(10*time.Second), int64(time.Second), uint32(0b1100))
	f.Fuzz(func(t *testing.T, tries int, timeout, spacing int64, void uint32) {
		if timeout <= 0 || timeout > int64(1<<61) {
			t.Skip()
		}
		c := &Check{Tries: tries, Timeout: time.Duration(timeout), Spacing: time.Duration(spacing)}
		syns, end, err := walk(c, func(n int) time.Duration {
			if void>>(n%32)&1 == 1 {
				return c.Timeout
			}
			return 0
		})
		most := min(max(tries, 1), MaxTries)
		if len(syns) >= 2*most || end > 2*c.Timeout || err == nil && end < c.Timeout {
			t.Errorf("%d SYNs in %v (%v), of %d tries in %v", len(syns), end, err, tries, c.Timeout)
		}
		if void == 0 && (end != c.Timeout || err != nil || len(syns) > most) {
			t.Errorf("%d SYNs in %v (%v), of %d tries in %v, without a void step", len(syns), end, err, tries, c.Timeout)
		}
	})
}
