package checker

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

// slowCarrier postpones what is due, as one that sends SYNs again does, and counts.
type slowCarrier struct {
	carrier
	loop  *loop
	again int
}

func (c *slowCarrier) repeat(f *flight, now time.Time) {
	c.again++
	f.tries.repeat = now.Add(time.Second)
}

// Not even what goes wrong at the very end ends the process.
func TestPanicInShutDown(t *testing.T) {
	var l loop // which has no carrier
	l.shutDown(nil, nil)
	var fault runtime.Error
	if err := l.err(); !errors.As(err, &fault) {
		t.Errorf("failure %v", err)
	}
}

// However many flights are due at once, the loop looks at the answers in between.
func TestLapseInBatches(t *testing.T) {
	var l loop
	c := &slowCarrier{loop: &l}
	l.carrier = c
	now := time.Now()
	const flights = 3*startBatch + 1
	for range flights {
		f := &flight{position: notFlying, schedule: schedule{last: time.Minute, steps: 1}}
		f.link(&try{repeat: now})
		l.depart(f.tries, now)
	}
	for turn := 1; turn <= 5; turn++ {
		l.lapse(now)
		if want := min(flights, turn*startBatch); c.again != want {
			t.Fatalf("turn %d: %d flights looked after, want %d", turn, c.again, want)
		}
	}
}
