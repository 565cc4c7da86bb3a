package health

import (
	"net/netip"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// instant is a Prober that has an answer to every check when Submit returns.
type instant struct {
	m       *Monitor
	reports []checker.Report
	sent    int
}

func (p *instant) Submit(checks ...checker.Check) error {
	p.reports = p.reports[:0]
	for i := range checks {
		p.reports = append(p.reports, checker.Report{Tag: checks[i].Tag, Result: checker.Answered, RTT: time.Millisecond})
	}
	p.sent += len(checks)
	p.m.Deliver(p.reports)
	return nil
}

func BenchmarkTarget(b *testing.B) {
	m := newMonitor(Options{Targets: benchTargets})
	for i := range benchTargets {
		m.Target(addr(i), plain, time.Hour)
	}
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		a := addr(1)
		for b.Loop() {
			if m.Target(a, plain, time.Hour).State() != Unknown {
				b.Fatal("not unknown")
			}
		}
	})
	b.Run("hit/spread", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i = (i + 7919) % benchTargets
			if m.Target(addr(i), plain, time.Hour).State() != Unknown {
				b.Fatal("not unknown")
			}
		}
	})
	b.Run("hit/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			a := addr(1)
			for pb.Next() {
				if m.Target(a, plain, time.Hour).State() != Unknown {
					b.Error("not unknown")
				}
			}
		})
	})
	b.Run("full", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			other := netip.AddrPortFrom(addr(i).Addr(), 80)
			if m.Target(other, plain, time.Hour) != nil {
				b.Fatal("not full")
			}
		}
	})
	b.Run("holds", func(b *testing.B) {
		b.ReportAllocs()
		t := m.Target(addr(1), plain, time.Hour)
		for b.Loop() {
			if !t.Holds(time.Hour) {
				b.Fatal("does not hold")
			}
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	b.ReportAllocs()
	m := newMonitor(Options{Targets: 1 << 30})
	a := [4]byte{10}
	for i := range b.N {
		a[1], a[2], a[3] = byte(i>>16), byte(i>>8), byte(i)
		m.Target(netip.AddrPortFrom(netip.AddrFrom4(a), uint16(i>>24)+1), plain, time.Hour)
	}
}

// An operation is one probe, from coming due over the prober and its report to the next place in the
// schedule: all that the monitor's goroutine does for it.
func BenchmarkCycle(b *testing.B) {
	m := newMonitor(Options{Targets: benchTargets})
	p := &instant{m: m}
	m.SetProber(p)
	for i := range benchTargets {
		m.Target(addr(i), plain, time.Hour)
	}
	now := int64(0)
	for p.sent < 3*benchTargets {
		m.turn(now)
		now += int64(tick)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for end := p.sent + b.N; p.sent < end; now += int64(tick) {
		m.turn(now)
	}
}
