package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// LimitCPU gives a process so many hundredths of a CPU, by a control group of its own (cgroups(7)), until lift is called or
// the test ends. It skips the test where there can be none, as in many containers. There is no remedy within the test's
// reach.
func LimitCPU(t testing.TB, pid, percent int) (lift func()) {
	t.Helper()
	const period = 100_000 // microseconds, as by default
	own, unified, err := ownGroup()
	if err != nil {
		t.Skip(err)
	}
	group := filepath.Join(own, fmt.Sprintf("shaker-test-%d", pid))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		// Where the process has not ended yet, it goes back to where it came from.
		_ = tellGroup(own, "cgroup.procs", fmt.Sprint(pid))
		UntilNil(t, func() error { return os.Remove(group) }) // it may take a moment to leave
	})
	name, limited, free := "cpu.cfs_quota_us", fmt.Sprint(period*percent/100), "-1"
	if unified {
		name, limited, free = "cpu.max", fmt.Sprintf("%d %d", period*percent/100, period), "max"
	}
	if err := errors.Join(tellGroup(group, name, limited), tellGroup(group, "cgroup.procs", fmt.Sprint(pid))); err != nil {
		t.Skip(err)
	}
	return func() {
		if err := tellGroup(group, name, free); err != nil {
			t.Error(err)
		}
	}
}

// ownGroup returns the directory of this process's group that bounds CPU, and whether it is one of the unified hierarchy.
func ownGroup() (directory string, unified bool, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch controllers := strings.Split(fields[1], ","); {
		case slices.Contains(controllers, "cpu"):
			directory, unified = "/sys/fs/cgroup/cpu"+fields[2], false
		case fields[1] == "" && directory == "":
			directory, unified = "/sys/fs/cgroup"+fields[2], true
		}
	}
	return directory, unified, err
}

// tellGroup writes to a file that the kernel has made.
func tellGroup(group, name, value string) error {
	f, err := os.OpenFile(filepath.Join(group, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
