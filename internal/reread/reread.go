// Package reread looks at a file again and again. That finds every way to change it: writing, renaming, and the symbolic links
// by which Kubernetes replaces what it mounts. Nobody waits for a look: open(2) and read(2) may take for ever where the file
// system is on another machine, or is a program, and nothing ends them.
package reread

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/pprof"
	"syscall"
	"time"
)

// Hangs is how long a look may take until it is said to hang. Nobody waits longer for the first one.
const Hangs = 5 * time.Second

// Reading is what a look has found.
type Reading struct {
	Content  string
	Err      error // why it could not be read, nil where it could
	Modified time.Time
	Mode     fs.FileMode // who may do what with it
}

// Same tells whether two readings have found the same. Who writes a file anew, as it was, has not changed it.
func (r Reading) Same(other Reading) bool {
	return r.Content == other.Content && fmt.Sprint(r.Err) == fmt.Sprint(other.Err)
}

// Read reads a file of up to most octets. It reads regular files only. Opening a pipe that nobody writes to could take forever
// (open(2)), and a look at what is to be opened would not help: it may be something else by then.
func Read(path string, most int) Reading {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Reading{Err: err}
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Reading{Err: err}
	}
	if !info.Mode().IsRegular() {
		return Reading{Err: fmt.Errorf("%s is not a regular file", path)}
	}
	content, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err != nil {
		return Reading{Err: err}
	}
	if len(content) > most {
		return Reading{Err: fmt.Errorf("%s is larger than %d octets", path, most)}
	}
	return Reading{Content: string(content), Modified: info.ModTime(), Mode: info.Mode().Perm()}
}

// Looks are those at one file. While one hangs there is no other, or there would be ever more of them.
type Looks struct {
	Path string
	Read func(path string) Reading // may take for ever
	// Label is what profiles call the goroutines by.
	Label string
	// Recovered is told of a panic in Read, which costs that look only. Where it is nil, a panic ends the process.
	Recovered func(where string, reason any)

	under <-chan Reading // of the look under way, nil between two
	began time.Time
}

// First has a look, and waits for it, but no longer than until it hangs.
func (l *Looks) First() Reading {
	select {
	case r := <-l.look():
		return r
	case <-time.After(Hangs):
		return Reading{Err: l.Hanging()}
	}
}

// Begin begins a look at a time, unless one is under way, and tells whether that hangs.
func (l *Looks) Begin(now time.Time) (hangs bool) {
	if l.under != nil {
		return now.Sub(l.began) >= Hangs
	}
	l.under, l.began = l.look(), now
	return false
}

// Under is where the reading of the look under way will be. Whoever has taken it calls End.
func (l *Looks) Under() <-chan Reading { return l.under }

// End takes note that the look under way has ended.
func (l *Looks) End() { l.under = nil }

// Hanging is the error of a look that hangs.
func (l *Looks) Hanging() error {
	return fmt.Errorf("%s has not been read within %v, so its file system hangs", l.Path, Hangs)
}

// look reads the file in a goroutine of its own, and returns where the reading will be.
func (l *Looks) look() <-chan Reading {
	result := make(chan Reading, 1)
	recovered := l.Recovered
	go pprof.Do(context.Background(), pprof.Labels("shaker", l.Label), func(context.Context) {
		r := Reading{Err: fmt.Errorf("%s could not be read because of a fault in shaker", l.Path)}
		defer func() { result <- r }()
		if recovered != nil {
			defer func() {
				if reason := recover(); reason != nil {
					recovered("while "+l.Path+" was read", reason)
				}
			}()
		}
		r = l.Read(l.Path)
	})
	return result
}
