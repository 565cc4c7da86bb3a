package health

import (
	"math"
	"time"
)

// burst is how much of its rate a bucket saves up.
const burst = 100 * time.Millisecond

// bucket is a token bucket. It remembers the instant up to which its tokens are spent, as the generic
// cell rate algorithm does (ITU-T I.371). So integers are exact. The zero value is unlimited.
type bucket struct {
	rate  int
	cost  int64 // nanoseconds until the next token comes, 0 if unlimited
	spent int64
}

// limit sets the rate in tokens per second; 0 or less is unlimited.
func (b *bucket) limit(rate int) {
	if rate == b.rate {
		return
	}
	if b.cost == 0 {
		b.spent = math.MinInt64 / 2
	}
	b.rate, b.cost = rate, 0
	if rate > 0 {
		b.cost = max(1, int64(time.Second)/int64(rate))
	}
}

// tokens returns how many may be spent now: those of a burst at most, or one if a burst has none.
func (b *bucket) tokens(now int64) int {
	if b.cost == 0 {
		return math.MaxInt
	}
	b.spent = max(b.spent, now-max(b.cost, int64(burst)))
	return int((now - b.spent) / b.cost)
}

func (b *bucket) spend(n int) { b.spent += int64(n) * b.cost }

// ready returns the instant at which the next token has come.
func (b *bucket) ready() int64 { return b.spent + b.cost }
