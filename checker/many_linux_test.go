package checker

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// threads returns how many this process has.
func threads(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Any number of Checkers take one thread and the descriptors of one, and give all of it back.
func TestManyCheckers(t *testing.T) {
	const many = 1500
	target, _ := listen(t, "tcp4", "127.0.0.1:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		use := func(meanwhile func()) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var loops, checks sync.WaitGroup
			for i := range many {
				// Source and Pool are each Checker's own, and take nothing either.
				c := NewCheckerConfig(Config{Method: m, Pool: i % 3, Source: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 1, byte(i)})}})
				ready := c.WaitReady()
				ended := make(chan struct{})
				loops.Go(func() {
					defer close(ended)
					if err := c.CheckingLoop(ctx); err != nil {
						t.Error("CheckingLoop:", err)
					}
				})
				checks.Go(func() {
					select {
					case <-ready:
					case <-ended:
					}
					if err := c.CheckAddr(target.String(), time.Minute); err != nil {
						t.Error(err)
					}
				})
			}
			checks.Wait()
			meanwhile()
			cancel()
			loops.Wait()
		}
		use(func() {}) // Go's own poller opens what it keeps
		threadsBefore, descriptors, goroutines := threads(t), openDescriptors(t), runtime.NumGoroutine()
		use(func() {
			// Some, because a thread that the kernel keeps waiting in a call has another one started in its place.
			if more := threads(t) - threadsBefore; more > many/4 {
				t.Errorf("%d Checkers take %d threads", many, more)
			}
			// A goroutine that has said it is done may take a moment to end, here and below.
			lab.UntilNil(t, func() error {
				if now := runtime.NumGoroutine() - goroutines; now > many+100 {
					return fmt.Errorf("%d Checkers take %d goroutines", many, now)
				}
				return nil
			})
		})
		if now := openDescriptors(t); now != descriptors {
			t.Errorf("%d descriptors open, and %d before", now, descriptors)
		}
		lab.UntilNil(t, func() error {
			if now := runtime.NumGoroutine(); now > goroutines {
				return fmt.Errorf("%d goroutines, and %d before", now, goroutines)
			}
			return nil
		})
	})
}
