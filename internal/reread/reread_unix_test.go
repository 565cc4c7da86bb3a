//go:build unix

package reread

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Nobody waits for somebody to write to a pipe.
func TestReadPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Skipf("%v; run it where the file system of the temporary directory has pipes", err)
	}
	if r := Read(path, 1); r.Err == nil || !strings.Contains(r.Err.Error(), "is not a regular file") {
		t.Errorf("read %+v, want an error that it is not a regular file", r)
	}
}
