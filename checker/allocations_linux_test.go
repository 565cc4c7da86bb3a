package checker

import (
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// Checks of several tries allocate nothing but what Submit makes of a batch, once there were as many at a time.
func TestTriesAllocateNothing(t *testing.T) {
	const batch, rounds, tries = 100, 20, 4
	var holes []netip.AddrPort
	for range batch * tries / reservedPorts { // MethodRaw has so many ports for each
		holes = append(holes, blackHole(t))
	}
	for _, m := range []Method{MethodSocket, MethodRaw} {
		t.Run(m.String(), func(t *testing.T) {
			needs(t, m)
			sent := 0
			back := make(chan int, batch)
			p, err := NewProber(Config{Method: m, Pool: 1000}, func(reports []Report) {
				for i := range reports {
					sent += reports[i].Tries
				}
				back <- len(reports)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			checks := make([]Check, batch)
			for i := range checks {
				checks[i] = Check{Target: holes[i%len(holes)], Timeout: 20 * time.Millisecond, Tries: tries}
			}
			round := func() {
				if err := p.Submit(checks...); err != nil {
					t.Fatal(err)
				}
				for n := 0; n < batch; n += <-back {
				}
			}
			for range rounds {
				round()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			sent = 0
			for range rounds {
				round()
			}
			runtime.ReadMemStats(&after)
			made := after.Mallocs - before.Mallocs
			t.Logf("%d allocations, %d checks, %d tries", made, batch*rounds, sent)
			if made > batch*rounds/20 {
				t.Errorf("%d allocations for %d checks of %d tries", made, batch*rounds, sent)
			}
			if sent < 2*batch*rounds {
				t.Errorf("%d tries of %d checks prove little", sent, batch*rounds)
			}
		})
	}
}
