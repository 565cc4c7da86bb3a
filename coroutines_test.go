package shaker

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// coroutinesCall is one whose plugin returns what f does.
func coroutinesCall(f func() int) call {
	return call{next: plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return f(), nil })}
}

// Coroutines are used again, the last one first, and all that are idle end with their owner. Those at work end after it.
func TestCoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCoroutines()
	for want := range 5 {
		k := c.take()
		if rcode, err := k.serve(coroutinesCall(func() int { return want })); rcode != want || err != nil {
			t.Errorf("%d, %v, want %d", rcode, err, want)
		}
		if k.call != (call{}) {
			t.Error("what is served is kept in memory")
		}
	}
	// One within the other.
	depth := 0
	var nest func() int
	nest = func() int {
		if depth++; depth == 10 {
			c.close()
			if c.take() != nil {
				t.Error("a coroutine after the end")
			}
			return 0
		}
		rcode, _ := c.take().serve(coroutinesCall(nest))
		return rcode + 1
	}
	if rcode, _ := c.take().serve(coroutinesCall(nest)); rcode != 9 {
		t.Errorf("%d calls within one another, want 9", rcode)
	}
	if n := c.made.Load(); n != 0 {
		t.Errorf("%d coroutines are left", n)
	}
	// They have ended when close and serve return: no scheduler has a part in it.
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// There are only so many. A call that ends its goroutine, as t.FailNow does, ends the coroutine as well.
func TestCoroutinesBound(t *testing.T) {
	c := newCoroutines()
	defer c.close()
	var taken []*coroutine
	for range maxCoroutines {
		taken = append(taken, c.take())
	}
	if taken[maxCoroutines-1] == nil || c.take() != nil {
		t.Error("another bound")
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		taken[0].serve(coroutinesCall(func() int { runtime.Goexit(); return 0 }))
		t.Error("returned from Goexit")
	})
	ended.Wait()
	if k := c.take(); k == nil {
		t.Error("no coroutine in the place of one that has ended")
	} else {
		taken[0] = k
	}
	for _, k := range taken {
		k.home.give(k)
	}
	if n := c.made.Load(); n != maxCoroutines {
		t.Errorf("%d coroutines", n)
	}
}

// Nobody answers for another. The race detector looks, too.
func TestCoroutinesConcurrently(t *testing.T) {
	c := newCoroutines()
	var wg sync.WaitGroup
	for want := range 8 {
		wg.Go(func() {
			for range 1000 {
				k := c.take()
				if k == nil {
					return // closed
				}
				if rcode, _ := k.serve(coroutinesCall(func() int { runtime.Gosched(); return want })); rcode != want {
					t.Errorf("%d, want %d", rcode, want)
				}
			}
		})
	}
	runtime.Gosched()
	c.close()
	wg.Wait()
	if n := c.made.Load(); n != 0 {
		t.Errorf("%d coroutines are left", n)
	}
}

// Whoever wants to see the stack of a panic sees all of it: nobody uses coroutines then, in no server block.
func TestCoroutinesAreNotForDebugging(t *testing.T) {
	some := newCoroutines()
	for _, tt := range []struct {
		name string
		with func(*dnsserver.Config)
		want *coroutines
	}{
		{"neither", func(*dnsserver.Config) {}, some},
		{"debug", func(c *dnsserver.Config) { c.Debug = true }, nil},
		{"stacktrace", func(c *dnsserver.Config) { c.Stacktrace = true }, nil},
	} {
		s := &Shaker{controller: caddy.NewTestController("dns", "")}
		for i, zone := range []string{"example.org.", "example.net."} {
			at := *s.controller
			at.ServerBlockIndex = i
			dnsserver.GetConfig(&at).Zone = zone
			if i == 1 {
				tt.with(dnsserver.GetConfig(&at))
			}
		}
		if s.useCoroutines(some); s.coroutines != tt.want {
			t.Errorf("%s: %v", tt.name, s.coroutines)
		}
	}
}
