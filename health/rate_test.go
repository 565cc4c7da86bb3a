package health

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	type step struct {
		at    time.Duration
		want  int // tokens
		spend int
	}
	tests := map[string]struct {
		rate  int
		steps []step
	}{
		"unlimited":     {0, []step{{0, math.MaxInt, 1 << 30}, {0, math.MaxInt, 0}}},
		"negative":      {-1, []step{{0, math.MaxInt, 0}}},
		"starts full":   {1000, []step{{0, 100, 100}, {0, 0, 0}, {time.Millisecond, 1, 1}, {time.Second, 100, 0}}},
		"keeps what is": {1000, []step{{0, 100, 60}, {0, 40, 0}, {10 * time.Millisecond, 50, 50}, {10 * time.Millisecond, 0, 0}}},
		"at least one":  {2, []step{{0, 1, 1}, {499 * time.Millisecond, 0, 0}, {500 * time.Millisecond, 1, 1}, {time.Hour, 1, 1}}},
		"very fast":     {math.MaxInt, []step{{0, int(burst), 1}}},
	}
	for name, tt := range tests {
		var b bucket
		b.limit(tt.rate)
		for i, s := range tt.steps {
			if got := b.tokens(int64(s.at)); got != s.want {
				t.Errorf("%s: step %d: %d tokens, want %d", name, i, got, s.want)
			}
			b.spend(s.spend)
		}
	}
}

func TestBucketReady(t *testing.T) {
	var b bucket
	b.limit(10)
	b.spend(b.tokens(0))
	if got := time.Duration(b.ready()); got != 100*time.Millisecond {
		t.Errorf("next token after %v, want 100ms", got)
	}
	b.limit(1000)
	if got := b.tokens(int64(50 * time.Millisecond)); got != 50 {
		t.Errorf("%d tokens 50 ms after the rate was raised to 1000, want 50", got)
	}
	b.limit(0)
	b.limit(5)
	if got := b.tokens(int64(time.Second)); got != 1 {
		t.Errorf("%d tokens when limited again, want 1", got)
	}
}

// Over any stretch of time no more may be spent than its rate and one burst.
func TestBucketBound(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, rate := range []int{1, 7, 100, 3333, 100000} {
		var b bucket
		b.limit(rate)
		now, spent := int64(0), 0
		for range 5000 {
			now += random.Int64N(int64(20 * time.Millisecond))
			n := min(b.tokens(now), random.IntN(rate/20+2))
			b.spend(n)
			spent += n
		}
		bound := float64(rate)*time.Duration(now).Seconds()*1.001 + float64(max(1, rate/10))
		if float64(spent) > bound {
			t.Errorf("rate %d: %d spent in %v, bound %.0f", rate, spent, time.Duration(now), bound)
		}
		if float64(spent) < bound/4 {
			t.Errorf("rate %d: only %d spent in %v, the test tests nothing", rate, spent, time.Duration(now))
		}
	}
}
