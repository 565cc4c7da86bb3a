package checker

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Where packets are lost, a SYN without an answer is sent again, by the kernel and by MethodRaw alike: after one, two
// and three seconds, where a kernel before 6.5 leaves out that after two. A check is answered if and only if any
// SYN-ACK gets through in time. When that was, the capture tells.
func TestLabLoss(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				web.Listen(80)
				web.Lose(30)
				lossy(t, l, m, slices.Concat(web.Addrs4(100), web.Addrs6(100)))
			})
		})
	}
}

// lossy checks addrs, and again for as long as the machine was too busy for as many SYNs as there can be.
func lossy(t *testing.T, l *lab.Lab, m Method, addrs []netip.Addr) {
	most, least := 4, 3 // SYNs in the time that a check has; least for those that did not get through
	if m != MethodRaw {
		most, least = 3, 2
	}
	for range 5 {
		again, answers, timed, syns := 0, 0, 0, 0
		for _, trip := range checkLossy(t, l, m, addrs) {
			trip.judge(t, least)
			if trip.report.Result == Answered {
				answers++
			}
			if trip.report.RTT > 0 {
				timed++
			}
			if len(trip.syns) > 1 {
				again++
			}
			syns = max(syns, len(trip.syns))
		}
		t.Logf("%d of %d answered, %d needed more than one SYN, and up to %d", answers, len(addrs), again, syns)
		if again < len(addrs)/10 || answers < len(addrs)/2 {
			t.Error("this loss proves little")
		}
		// On a busy machine this process may be away while some answers come.
		if timed < answers/2 {
			t.Errorf("%d of %d answers have a round trip", timed, answers)
		}
		if syns >= most {
			return
		}
	}
	t.Errorf("no check had %d SYNs", most)
}

// lossTimeout leaves most of a second after the fourth SYN.
const lossTimeout = 3900 * time.Millisecond

// trip is what became of one check.
type trip struct {
	target        netip.AddrPort
	begun         time.Time // before it was submitted
	report        Report
	ended         time.Time   // when it was reported
	seq           uint32      // of its SYN
	syns, synACKs []time.Time // when they were on the wire
}

// checkLossy checks all addrs at once.
func checkLossy(t *testing.T, l *lab.Lab, m Method, addrs []netip.Addr) map[netip.AddrPort]*trip {
	t.Helper()
	trips := make(map[netip.AddrPort]*trip, len(addrs))
	checks := make([]Check, 0, len(addrs))
	for _, addr := range addrs {
		target := netip.AddrPortFrom(addr, 80)
		trips[target] = &trip{target: target}
		checks = append(checks, Check{Target: target, Timeout: lossTimeout, Tag: target})
	}
	reported := make(chan struct{}, len(addrs))
	p, err := NewProber(Config{Method: m}, func(reports []Report) {
		now := time.Now()
		for _, r := range reports {
			one := trips[r.Tag.(netip.AddrPort)]
			one.report, one.ended = r, now
			reported <- struct{}{}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	wire := l.Capture()
	begun := time.Now()
	for _, one := range trips {
		one.begun = begun
	}
	if err := p.Submit(checks...); err != nil {
		t.Fatal(err)
	}
	for range addrs {
		<-reported
	}
	wire.Stop()
	for _, packet := range wire.Packets() {
		if one := trips[packet.Dst]; one != nil && packet.Flags == lab.SYN {
			one.seq = packet.Seq
			one.syns = append(one.syns, packet.Time)
		}
		// Where a RST was lost, the host repeats the answer to a check of the round before.
		one := trips[packet.Src]
		if one != nil && packet.Flags&(lab.SYN|lab.ACK) == lab.SYN|lab.ACK && packet.Ack == one.seq+1 {
			one.synACKs = append(one.synACKs, packet.Time)
		}
	}
	return trips
}

// judge compares what was reported with what was on the wire. A check begins at some time between the moment it was
// submitted and its first SYN, and ends at some time between its deadline and its report. What came meanwhile counts. There is
// no round trip where this process was away, see [Report].
func (p *trip) judge(t *testing.T, least int) {
	t.Helper()
	const tick = 20 * time.Millisecond // the kernel's clock may be that coarse, and so late is what is captured
	inTime := func(at time.Time) bool { return at.Before(p.begun.Add(lossTimeout - tick)) }
	r := p.report
	switch {
	case r.Result != Answered && r.Result != Timeout:
		t.Errorf("%v: %v (%v)", p.target, r.Result, r.Err)
	case r.Result == Answered && len(p.synACKs) == 0:
		t.Errorf("%v: answered without a SYN-ACK", p.target)
	case r.Result == Timeout && slices.ContainsFunc(p.synACKs, inTime):
		t.Errorf("%v: timeout in spite of a SYN-ACK after %v", p.target, p.synACKs[0].Sub(p.begun))
	case r.Result == Timeout && len(p.syns) < least:
		t.Errorf("%v: timeout after %d SYN, want %d at least in %v", p.target, len(p.syns), least, lossTimeout)
	case r.Result == Answered && !untimed(r) && (r.RTT < p.synACKs[0].Sub(p.syns[0])-time.Millisecond || r.RTT > p.ended.Sub(p.begun)):
		t.Errorf("%v: a round trip of %v, where the SYN-ACK came %v after the SYN and the report %v after the check",
			p.target, r.RTT, p.synACKs[0].Sub(p.syns[0]), p.ended.Sub(p.begun))
	}
	for n, at := range p.syns {
		if at.Before(p.begun.Add(time.Duration(n)*time.Second - tick)) {
			t.Errorf("%v: SYN %d after %v", p.target, n+1, at.Sub(p.begun))
		}
	}
}
