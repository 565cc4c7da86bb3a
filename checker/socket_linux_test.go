package checker

import (
	"testing"
	"time"
)

// A peak's sockets are closed when they were not needed for a while; those in use since stay.
func TestTrim(t *testing.T) {
	p := &socketProber{pool: 8, idle: make(map[origin]*idleSockets)}
	p.queue.limit = 3
	t.Cleanup(func() {
		for _, s := range p.sockets {
			if s != nil {
				p.discard(s)
			}
		}
	})
	for i := range 5 {
		s, err := openSocket(origin{v6: i == 4 && hasIPv6(t)}, egress{})
		if err != nil {
			t.Fatal(err)
		}
		s.id = int32(i)
		p.sockets = append(p.sockets, s)
		s.idle = p.idleOf(s.origin)
		s.idle.open++
		s.idle.sockets = append(s.idle.sockets, s)
		p.idling++
	}
	now := time.Now()
	expectOpen := func(what string, want int) {
		t.Helper()
		if p.size() != want || p.idling != want {
			t.Fatalf("%s: %d open, %d idle, want %d", what, p.size(), p.idling, want)
		}
	}
	p.tidy(now)
	expectOpen("nothing is known of the time before", 5)
	if p.queue.limit != p.pool {
		t.Errorf("the limit is %d still, want %d", p.queue.limit, p.pool)
	}
	p.tidy(now.Add(trimEvery - 1))
	expectOpen("too early", 5)
	used := p.takeIdle(p.idleOf(origin{}))
	used.idle.sockets = append(used.idle.sockets, used)
	p.idling++
	p.tidy(now.Add(trimEvery))
	expectOpen("one was needed at a time", 1)
	p.tidy(now.Add(2 * trimEvery))
	expectOpen("and none after that", 0)
	if len(p.idle) != 0 || p.latest != nil {
		t.Errorf("%d origins without a socket are left, and %v", len(p.idle), p.latest)
	}
}
