//go:build unix

package override

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Opening a pipe that nobody writes to could take forever, and reading from a device too.
func TestFileIrregular(t *testing.T) {
	for _, path := range []string{newPipe(t), os.DevNull, "/dev/zero", t.TempDir()} {
		if _, err := Open(path, new(record).listener()); err == nil || !strings.HasPrefix(err.Error(), path+" is not a regular file, want") {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func newPipe(t *testing.T) string {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("no named pipes here: ", err)
	}
	return pipe
}

// What the path leads to may change at any moment, also while it is being opened.
func TestFileBecomesPipe(t *testing.T) {
	pipe, file := newPipe(t), writeFile(t, "overrides", "192.0.2.1 down\n")
	path := filepath.Join(filepath.Dir(file), "link")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		found := make(map[string]int)
		for found["192.0.2.1 down\n"] < 200 || found[path+" is not a regular file"] < 200 {
			r := read(path)
			if r.Err != nil {
				found[r.Err.Error()]++
			} else {
				found[r.Content]++
			}
		}
	}()
	timeout := time.After(time.Minute)
	for i := 0; ; i++ {
		select {
		case <-ended:
			return
		case <-timeout:
			t.Error("a reading takes forever")
			writer, err := os.OpenFile(pipe, os.O_RDWR, 0) // which ends it
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			os.Remove(path)
			return
		default:
		}
		if err := os.Symlink([]string{pipe, file}[i%2], path+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}
