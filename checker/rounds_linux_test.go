package checker

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	// maxRounds and roundsTime bound how often something is tried, and for how long there is yet another round.
	maxRounds  = 8
	roundsTime = 40 * time.Second
	// failedRounds is how many rounds have to fail that prove something.
	failedRounds = 3
	// starving is the part of the time in which a thread wants a CPU and has to wait for it. A round proves nothing
	// beyond that. Threads of this process alone have each other wait for less.
	starving = 0.5
)

// untilClean carries out rounds of something that goes wrong where this process gets no CPU for a while, until one has
// nothing to complain about. It fails the test after three rounds that went wrong although the process got its CPUs. If
// it gives up before that, it did not: the rounds prove nothing, and the test skips.
//
// A thread that looks whether it is late could not tell the two apart: Go's own scheduler may be what makes it late,
// and that is what such a test looks for. So it is the kernel that is asked.
func untilClean(t *testing.T, round func() error) {
	t.Helper()
	failed := 0
	first := time.Now()
	for n := 0; n < maxRounds && time.Since(first) < roundsTime; n++ {
		before := readCPUUse(t)
		err := round()
		if err == nil {
			return
		}
		share := readCPUUse(t).waitedSince(before)
		t.Logf("round %d: %v; this process had to wait for a CPU in %.0f %% of the time in which it wanted one", n+1, err, 100*share)
		if share > starving {
			continue
		}
		if failed++; failed == failedRounds {
			t.Fatalf("%d rounds failed although this process had its CPUs; the last: %v", failed, err)
		}
	}
	// Not lab.Skip: there is no remedy, and nothing is wrong with the lab.
	t.Skip("the rounds prove nothing: this process had to wait for a CPU for too long")
}

// cpuUse is for how long the threads of this process have had a CPU, and have waited for one.
type cpuUse struct {
	threads map[string]threadUse
	stolen  time.Duration // from the whole machine, by others on the same host
}

type threadUse struct{ had, waited time.Duration }

// readCPUUse reads what proc_pid_schedstat and proc_stat(5) tell.
func readCPUUse(t *testing.T) cpuUse {
	t.Helper()
	const tasks = "/proc/self/task"
	all, err := os.ReadDir(tasks)
	if err != nil {
		t.Fatal(err)
	}
	use := cpuUse{threads: make(map[string]threadUse)}
	for _, task := range all {
		text, err := os.ReadFile(tasks + "/" + task.Name() + "/schedstat")
		var one threadUse
		if err == nil {
			_, err = fmt.Sscan(string(text), &one.had, &one.waited) // in nanoseconds
		}
		if err == nil { // the thread is still there
			use.threads[task.Name()] = one
		}
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var label string
	var ticks [8]int64 // user, nice, system, idle, iowait, irq, softirq, steal; 100 of them are a second
	if _, err := fmt.Sscan(strings.SplitN(string(text), "\n", 2)[0], &label, &ticks[0], &ticks[1], &ticks[2], &ticks[3],
		&ticks[4], &ticks[5], &ticks[6], &ticks[7]); err != nil {
		t.Fatalf("/proc/stat: %v", err)
	}
	use.stolen = time.Duration(ticks[7]) * 10 * time.Millisecond
	return use
}

// waitedSince returns the part of the time since before, in which threads that were there all along wanted a CPU, that
// they waited for it. Where the kernel does not tell, that is all of it.
func (u cpuUse) waitedSince(before cpuUse) float64 {
	had, waited := time.Duration(0), u.stolen-before.stolen
	for name, now := range u.threads {
		if then, ok := before.threads[name]; ok {
			had += now.had - then.had
			waited += now.waited - then.waited
		}
	}
	if had == 0 {
		return 1
	}
	return float64(waited) / float64(waited+had)
}

func TestWaitedSince(t *testing.T) {
	threads := func(uses ...threadUse) map[string]threadUse {
		named := make(map[string]threadUse)
		for i, use := range uses {
			named[fmt.Sprint(i)] = use
		}
		return named
	}
	for _, tt := range []struct {
		name          string
		before, after cpuUse
		want          float64
	}{
		{"nothing is known", cpuUse{}, cpuUse{}, 1},
		{"no wait", cpuUse{threads: threads(threadUse{1, 5})}, cpuUse{threads: threads(threadUse{9, 5})}, 0},
		{"a new thread", cpuUse{threads: threads(threadUse{1, 1})}, cpuUse{threads: threads(threadUse{2, 1}, threadUse{0, 99})}, 0},
		{"two threads", cpuUse{threads: threads(threadUse{}, threadUse{})}, cpuUse{threads: threads(threadUse{3, 0}, threadUse{3, 2})}, 0.25},
		{"stolen", cpuUse{threads: threads(threadUse{}), stolen: 1}, cpuUse{threads: threads(threadUse{1, 0}), stolen: 4}, 0.75},
	} {
		if got := tt.after.waitedSince(tt.before); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	// The real thing: who counts has had a CPU.
	before := readCPUUse(t)
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
	}
	if got := readCPUUse(t).waitedSince(before); got < 0 || got > 1 {
		t.Errorf("waited for %v of the time", got)
	}
}
