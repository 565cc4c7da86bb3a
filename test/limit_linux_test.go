package test

import (
	"syscall"
	"testing"
)

// lowerDescriptorLimit does what ulimit -n does.
func lowerDescriptorLimit(t *testing.T, n uint64) {
	t.Helper()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		t.Fatal(err)
	}
}
