//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package override

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever has the lock keeps others waiting for a while, until it is closed.
func TestLock(t *testing.T) {
	path := writeFile(t, "overrides", "")
	first, err := openLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := lock(second, time.Now()); err == nil || !strings.HasPrefix(err.Error(), "somebody else has had it for 5s, want") {
		t.Errorf("error %v", err)
	}
	got := make(chan error)
	go func() { got <- lock(second, time.Now().Add(time.Minute)) }()
	first.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := syscall.Flock(int(second.Fd()), syscall.LOCK_UN); err != nil {
		t.Error(err)
	}
}
