package test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// resources counts what a leak would add to.
type resources struct{ goroutines, descriptors int }

func countResources(t *testing.T) resources {
	t.Helper()
	// How many coroutines there are depends on how many queries came at the same time.
	r := resources{goroutines: runtime.NumGoroutine() - labels(t)["coroutine"]}
	if runtime.GOOS == "linux" {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		r.descriptors = len(files)
	}
	return r
}

// expectResources waits for the resources to come down to what they were: servers end in the background.
func expectResources(t *testing.T, before resources) {
	t.Helper()
	lab.UntilNil(t, func() error {
		now := countResources(t)
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors {
			t.Logf("resources before %+v, after %+v", before, now)
			return nil
		}
		stacks := make([]byte, 1<<20)
		return fmt.Errorf("resources before %+v, after %+v\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
	})
}

// labels returns how many goroutines of shaker's there are by what they do, which is in their label for profiles. Those
// without one are under "".
func labels(t testing.TB) map[string]int {
	t.Helper()
	var profile strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	const module = "github.com/coredns-shaker/shaker"
	head := regexp.MustCompile(`(?m)^(\d+) @`)
	label := regexp.MustCompile(`(?m)^# labels: {"shaker":"(\w+)"}$`)
	frames := regexp.MustCompile(`(?m)^#\s+0x\w+\s+(\S+)\+0x\w+\s+(.*):\d+$`)
	all := make(map[string]int)
	for alike := range strings.SplitSeq(profile.String(), "\n\n") {
		count := head.FindStringSubmatch(alike)
		for _, frame := range slices.Backward(frames.FindAllStringSubmatch(alike, -1)) {
			host, _, path := strings.Cut(frame[1], "/")
			if !path || !strings.Contains(host, ".") {
				continue // the standard library's, such as sync.(*WaitGroup).Go
			}
			function, ours := strings.CutPrefix(frame[1], module)
			if !ours || strings.HasPrefix(function, "/test.") || strings.HasPrefix(function, "/internal/lab.") {
				break
			}
			does := label.FindStringSubmatch(alike)
			if does == nil {
				does = []string{"", ""}
			}
			n, err := strconv.Atoi(count[1])
			if err != nil {
				t.Fatal(err)
			}
			all[does[1]] += n
			break
		}
	}
	return all
}

// expectNothingRuns waits for the end of shaker's goroutines.
func expectNothingRuns(t testing.TB) {
	t.Helper()
	lab.UntilNil(t, func() error {
		if all := labels(t); len(all) > 0 {
			return fmt.Errorf("goroutines that go on: %v", all)
		}
		return nil
	})
}
