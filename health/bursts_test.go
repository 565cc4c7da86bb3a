package health

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// Bursts of loss, after Gilbert ("Capacity of a Burst-Noise Channel", 1960) and Elliott: a path is good or bad, for a
// random time of exponential distribution each. While it is bad, everything is lost. While it is good nothing is, and
// nothing happens either, so that most of that time need not be simulated.

// calm is how much good time between two bursts is enough: whatever the one before has done is over.
const calm = 10 * time.Second

// burstsIn30Days is how many bursts there are where one begins each hour.
const burstsIn30Days = 30 * 24

// downByBurst returns the probability that one burst takes a target down, by the rule and the schedule alone. Only bursts
// that are long enough to be noticed are tried, which are the rarer the shorter their mean. What is left of them has the
// same distribution again.
func downByBurst(s Settings, mean time.Duration) float64 {
	const bursts = 20000
	random := rand.New(rand.NewPCG(uint64(mean), 6))
	least, downs := ignoredSilence(s), 0
	for range bursts {
		end := calm + least + time.Duration(random.ExpFloat64()*float64(mean))
		downs += len(live(s, random, end, func(sent time.Duration) (checker.Result, time.Duration) {
			for _, at := range synsOf(s) {
				if sent+at < calm || sent+at >= end {
					return checker.Answered, at
				}
			}
			return checker.Timeout, s.Timeout
		}))
	}
	return math.Exp(-float64(least)/float64(mean)) * float64(downs) / bursts
}

// burstsColumn computes how many of 1000 targets go down in 30 days with a burst in each hour.
func burstsColumn(mean time.Duration) func(Settings, intervalsRow) string {
	return func(s Settings, _ intervalsRow) string {
		return rounded(1000 * burstsIn30Days * downByBurst(s, mean))
	}
}

// channel is a path with bursts. It is good until bad, and bad until good.
type channel struct {
	mean      time.Duration // of a burst
	random    *rand.Rand
	bad, good time.Time
	bursts    int // that are over
}

// passes tells whether a packet that leaves at that time arrives. It has to be asked in the order of time.
func (c *channel) passes(at time.Time) bool {
	for !at.Before(c.good) {
		c.bursts++
		c.bad = c.good.Add(calm + time.Duration(c.random.Int64N(int64(2*time.Second))))
		c.good = c.bad.Add(time.Duration(c.random.ExpFloat64() * float64(c.mean)))
	}
	return at.Before(c.bad)
}

// The monitor with its defaults, its own schedule and a path of its own to each of 1000 targets does what the table in
// docs/intervals.md says, which is computed by the rule alone. SHAKER_DAYS=30 simulates as long as the table is about.
func TestBursts(t *testing.T) {
	const targets = 1000
	days := 1
	if of := os.Getenv("SHAKER_DAYS"); of != "" {
		var err error
		if days, err = strconv.Atoi(of); err != nil {
			t.Fatal(err)
		}
	}
	bursts := days * 24
	if testing.Short() || lab.RaceEnabled {
		bursts = 4
	}
	const roundTrip = time.Millisecond
	for _, mean := range []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := settings(plain)
			seen := new(recorder)
			m := New(Options{Listener: seen})
			defer m.Close()
			channels := map[netip.AddrPort]*channel{}
			random := rand.New(rand.NewPCG(uint64(mean), 7))
			net := newNetwork(t, m, func(c checker.Check) (checker.Report, time.Duration) {
				now, path := time.Now(), channels[c.Target]
				for try := range max(1, c.Tries) {
					at := time.Duration(try) * c.Spacing
					if at < c.Timeout && path.passes(now.Add(at)) && path.passes(now.Add(at+roundTrip)) {
						return checker.Report{Result: checker.Answered, RTT: roundTrip}, at + roundTrip
					}
				}
				return checker.Report{Result: checker.Timeout, Err: checker.ErrTimeout}, c.Timeout
			})
			for i := range targets {
				channels[addr(i)] = &channel{mean: mean, random: random, good: time.Now(), bursts: -1}
			}
			m.SetProber(net)
			for i := range targets {
				m.Target(addr(i), unique.Make(Settings{}), 1000*time.Hour)
			}
			time.Sleep(time.Duration(bursts) * (calm + time.Second + mean)) // the mean of a cycle
			m.Close()
			downs, happened := 0, 0
			for _, c := range channels {
				happened += c.bursts
			}
			for _, c := range seen.reset() {
				if c.To == Down {
					downs++
				}
			}
			want := float64(happened) * downByBurst(s, mean)
			t.Logf("bursts of %v: %d downs by %d bursts, want %.1f", mean, downs, happened, want)
			if off := math.Abs(float64(downs) - want); off > 5*math.Sqrt(want)+0.02*want+1 {
				t.Errorf("bursts of %v: %d downs, want %.1f", mean, downs, want)
			}
		})
	}
}
