//go:build unix

package shaker

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Reading from a pipe that nobody writes to would take forever.
func TestOverridesFilePipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("no named pipes here: ", err)
	}
	if _, err := openOverrides(pipe); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("error %v", err)
	}
}
