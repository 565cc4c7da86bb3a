package shaker

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// storm is a prober to which every target seems to die and to come back in turns.
type storm struct{ monitor *health.Monitor }

// Submit implements health.Prober.
func (s storm) Submit(checks ...checker.Check) error {
	reports := make([]checker.Report, len(checks))
	for i, c := range checks {
		result := checker.Answered
		if c.Tag.(*health.Target).State() == health.Up {
			result = checker.Refused
		}
		reports[i] = checker.Report{Tag: c.Tag, Result: result, Tries: 1}
	}
	s.monitor.Deliver(reports)
	return nil
}

// without is a journal that adds no events of changes, as it was before there were any.
type without struct{ *journal }

// Changed implements health.Listener.
func (w without) Changed(c health.Change) {
	changesTo[c.To].Inc()
	w.changes.mayTell(c.To)
}

// BenchmarkStorm is what a change of state costs in a storm of more than 10 000 changes a second, with and without events:
// CPU time of the whole process without that of a prober. An operation is two seconds of it.
func BenchmarkStorm(b *testing.B) {
	lab.CaptureLog(b)
	const targets = 10_000
	for _, name := range []string{"without", "with"} {
		b.Run(name+" events", func(b *testing.B) {
			j := newJournal(events.New())
			defer j.close()
			listener := health.Listener(j)
			if name == "without" {
				listener = without{j}
			}
			m := health.New(health.Options{Listener: listener})
			defer m.Close()
			key := unique.Make(health.Settings{Interval: time.Second, Fast: time.Second, Rise: 1, Fall: 1})
			for i := range targets {
				addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
				m.Target(netip.AddrPortFrom(addr, 443), key, time.Hour).AddName(fmt.Sprintf("host%d.example.org.", i))
			}
			m.SetProber(storm{m})
			time.Sleep(time.Second)
			count := func() (n float64) {
				for _, counter := range changesTo {
					n += testutil.ToFloat64(counter)
				}
				return n
			}
			b.ResetTimer()
			changes, used := count(), processTime(b)
			for range b.N {
				time.Sleep(2 * time.Second)
			}
			changes, used = count()-changes, processTime(b)-used
			b.ReportMetric(changes/b.Elapsed().Seconds(), "changes/s")
			b.ReportMetric(float64(used.Nanoseconds())/changes, "cpu-ns/change")
		})
	}
}
