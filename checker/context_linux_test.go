package checker

import (
	"context"
	"sync"
	"testing"
	"time"
)

// With MethodRaw, checks of one target wait for one of the reserved ports too.
func TestCheckCancelledInLineForPort(t *testing.T) {
	needs(t, MethodRaw)
	c := startChecker(t, Config{Method: MethodRaw})
	hole := blackHole(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 3 * reservedPorts {
		all.Go(func() { c.Check(ctx, hole) })
	}
	soon, cancelSoon := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancelSoon()
	c.Check(soon, hole)
	cancel()
	all.Wait()
	living, _ := listen(t, "tcp4", "127.0.0.1:0")
	if r := c.Check(t.Context(), living); r.Result != Answered {
		t.Errorf("after all gave up: %v, %v", r.Result, r.Err)
	}
	shared := c.session.prober
	shared.Close()
	prober := shared.backend.(*rawProber)
	flights, lines, ports := prober.flights.len(), len(prober.lines), prober.byPath.len()
	if flights+lines+ports != 0 {
		t.Errorf("%d in flight, %d lines, %d ports in use after all gave up", flights, lines, ports)
	}
}
