//go:build unix

package health

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
)

// loopback is a Prober with a goroutine of its own, as the real one has.
type loopback struct {
	m       *Monitor
	mu      sync.Mutex
	checks  []checker.Check
	more    chan struct{}
	stopped sync.WaitGroup
}

func (p *loopback) Submit(checks ...checker.Check) error {
	p.mu.Lock()
	p.checks = append(p.checks, checks...)
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return nil
}

func (p *loopback) run(stop <-chan struct{}) {
	var checks []checker.Check
	var reports []checker.Report
	for {
		select {
		case <-stop:
			return
		case <-p.more:
		}
		p.mu.Lock()
		checks, p.checks = p.checks, checks[:0]
		p.mu.Unlock()
		reports = reports[:0]
		for i := range checks {
			reports = append(reports, checker.Report{Tag: checks[i].Tag, Result: checker.Answered, RTT: time.Millisecond})
		}
		p.m.Deliver(reports)
	}
}

// An operation is five seconds of a running monitor with 100 000 targets, each probed every 2 s.
// Reported are how late probes were sent and the share of a core that the process took.
func BenchmarkLateness(b *testing.B) {
	var late []time.Duration
	var sent atomic.Int64
	m := New(Options{Targets: benchTargets, Late: func(d time.Duration) {
		late = append(late, d)
		sent.Add(1)
	}})
	p := &loopback{m: m, more: make(chan struct{}, 1)}
	stop := make(chan struct{})
	p.stopped.Go(func() { p.run(stop) })
	key := unique.Make(Settings{Interval: 2 * time.Second})
	for i := range benchTargets {
		m.Target(addr(i), key, time.Hour)
	}
	m.SetProber(p)
	time.Sleep(4 * time.Second)
	b.ResetTimer()
	start, cpu, before, first := time.Now(), processTime(b), m.Counts(), sent.Load()
	for range b.N {
		time.Sleep(5 * time.Second)
	}
	elapsed, used, probes := time.Since(start), processTime(b)-cpu, sent.Load()-first
	b.StopTimer()
	m.Close()
	close(stop)
	p.stopped.Wait()
	late = late[benchTargets:] // the first probes all waited for the prober
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds())/1000, "ms-late-p99")
	b.ReportMetric(float64(late[len(late)-1].Microseconds())/1000, "ms-late-max")
	b.ReportMetric(100*used.Seconds()/elapsed.Seconds(), "%core")
	b.ReportMetric(float64(probes)/elapsed.Seconds(), "probes/s")
	if before.Up != benchTargets {
		b.Fatalf("%+v", before)
	}
}

func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
