package checker

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
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
	sent := time.Now()
	now := sent.Add(time.Second)
	l.flights.epoch = sent
	const flights = 3*startBatch + 1
	for range flights {
		f := &flight{schedule: schedule{last: time.Minute, steps: 1}}
		f.link(&try{repeat: sent.Add(time.Millisecond)})
		l.depart(f.tries, sent)
	}
	for turn := 1; turn <= 5; turn++ {
		l.lapse(now)
		if want := min(flights, turn*startBatch); c.again != want {
			t.Fatalf("turn %d: %d flights looked after, want %d", turn, c.again, want)
		}
	}
}

// A prober that cannot keep up says so until it has caught up. All checks are reported.
func TestProberBehind(t *testing.T) {
	target, _ := listen(t, "tcp4", "127.0.0.1:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		const many = maxBehind + 1
		stuck, reported := make(chan struct{}), make(chan int, 2*many)
		p, err := NewProber(Config{Method: m, Pool: 2 * many}, func(reports []Report) {
			<-stuck
			for _, r := range reports {
				reported <- r.Tag.(int)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		checks := []Check{{Tag: 0}} // has no target, so its report is what the prober gets stuck with
		for i := range many {
			checks = append(checks, Check{Target: target, Timeout: time.Minute, Tag: 1 + i})
		}
		if err := p.Submit(checks...); err != nil {
			t.Fatal(err)
		}
		if m.actual() != MethodDial {
			lab.Until(t, "the prober to be behind", p.Behind)
		}
		close(stuck)
		lab.Until(t, "the prober to have caught up", func() bool { return !p.Behind() })
		for range checks {
			<-reported
		}
	})
}
