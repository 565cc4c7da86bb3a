package shaker

import (
	"context"
	"runtime/pprof"
)

// profileAs gives the goroutine that calls it the label by which profiles tell it from others.
func profileAs(part string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("shaker", part)))
}
