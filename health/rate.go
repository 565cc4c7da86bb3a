package health

import (
	"math"
	"sync"
	"time"
)

// burst is how much of its rate a bucket saves up.
const burst = 100 * time.Millisecond

// bucket is a token bucket. It remembers the instant up to which its tokens are spent, as the generic
// cell rate algorithm does (ITU-T I.371). So integers are exact. The zero value is unlimited. It is safe for concurrent use.
type bucket struct {
	mu    sync.Mutex
	rate  int
	cost  int64 // nanoseconds until the next token comes, 0 if unlimited
	spent int64
}

// limit sets the rate in tokens per second; 0 or less is unlimited.
func (b *bucket) limit(rate int) {
	b.mu.Lock()
	defer b.mu.Unlock()
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
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cost == 0 {
		return math.MaxInt
	}
	b.refill(now)
	return int(max(0, now-b.spent) / b.cost)
}

// refill takes in the tokens that have come by now. The caller holds mu.
func (b *bucket) refill(now int64) { b.spent = max(b.spent, now-max(b.cost, int64(burst))) }

func (b *bucket) spend(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent += int64(n) * b.cost
}

// reserve spends a token that may not have come yet, and returns how long it takes to come.
func (b *bucket) reserve(now int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cost == 0 {
		return 0
	}
	b.refill(now)
	b.spent += b.cost
	return time.Duration(max(0, b.spent-now))
}

// ready returns the instant at which the next token has come.
func (b *bucket) ready() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spent + b.cost
}
