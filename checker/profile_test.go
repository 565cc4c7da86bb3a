package checker

import (
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// profiler sends the profile of the moment at which it gets a report.
type profiler chan string

func (p profiler) deliver([]Report) {
	var b strings.Builder
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	p <- b.String()
}

// Profiles tell a prober's goroutine from that which gave it work.
func TestProfileLabel(t *testing.T) {
	open, _ := listen(t, "tcp4", "127.0.0.1:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		profile := make(profiler, 1)
		p, err := NewProber(Config{Method: m}, profile.deliver)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		pprof.Do(t.Context(), pprof.Labels("shaker", "test"), func(context.Context) {
			p.Submit(Check{Target: open, Timeout: 10 * time.Second})
		})
		all := <-profile
		labelled := 0
		for goroutine := range strings.SplitSeq(all, "\n\n") {
			if strings.Contains(goroutine, "profiler.deliver") && strings.Contains(goroutine, `labels: {"shaker":"prober"}`) {
				labelled++
			}
		}
		if labelled != 1 {
			t.Errorf("%d goroutines have the label, want 1:\n%s", labelled, all)
		}
	})
}
