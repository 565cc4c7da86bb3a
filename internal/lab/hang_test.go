package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHangingDir(t *testing.T) {
	dir, release := HangingDir(t)
	opened := make(chan error, 1)
	go func() {
		_, err := os.Open(filepath.Join(dir, "file"))
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened, error %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if err := <-opened; err == nil {
		t.Error("opened a file that is not there")
	}
}
