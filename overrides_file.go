package shaker

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// overridesEvery is how often files of overrides are read. What is new is in force once two readings in a
	// row agree on it: after the first, somebody may still be writing.
	overridesEvery = 250 * time.Millisecond
	// overridesSize bounds a file of overrides, in octets.
	overridesSize = 1 << 20
	// overridesLines bounds how many changed rules the log tells one by one.
	overridesLines = 10
)

// overridesFile is a file of overrides, which is read again and again. That finds every way to change a file:
// writing, renaming, and the symbolic links by which Kubernetes replaces a ConfigMap.
type overridesFile struct {
	path  string
	rules atomic.Pointer[overrides] // in force, never nil

	mu       sync.Mutex // protects what follows
	last     reading    // the newest one
	judged   reading    // the newest one of which there were two in a row
	modified time.Time  // when the rules in force were written
	failed   bool       // what was judged is not in force

	end   chan struct{}
	ended sync.WaitGroup
}

// reading is what a look at the file has found.
type reading struct {
	content  string
	failure  string // "" where it could be read
	modified time.Time
}

// openOverrides reads the file for the first time, when any mistake is an error.
func openOverrides(path string) (*overridesFile, error) {
	r := readOverrides(path)
	if r.failure != "" {
		return nil, fmt.Errorf("%s, want a file of rules, which may be empty", r.failure)
	}
	rules, err := parseOverrides([]byte(r.content))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &overridesFile{path: path, last: r, judged: r, modified: r.modified}
	f.rules.Store(rules)
	return f, nil
}

// readOverrides reads regular files only. Opening a pipe that nobody writes to could take forever (open(2)), and a look
// at what is to be opened would not help: it may be something else by then.
func readOverrides(path string) reading {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return reading{failure: err.Error()}
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return reading{failure: err.Error()}
	}
	if !info.Mode().IsRegular() {
		return reading{failure: path + " is not a regular file"}
	}
	content, err := io.ReadAll(io.LimitReader(file, overridesSize+1))
	if err != nil {
		return reading{failure: err.Error()}
	}
	if len(content) > overridesSize {
		return reading{failure: fmt.Sprintf("%s is larger than %d octets", path, overridesSize)}
	}
	return reading{content: string(content), modified: info.ModTime()}
}

// current returns the rules in force. Without a file there are none.
func (f *overridesFile) current() *overrides {
	if f == nil {
		return nil
	}
	return f.rules.Load()
}

// start reads the file until stop is called.
func (f *overridesFile) start() {
	f.end = make(chan struct{})
	f.ended.Go(func() {
		profileAs("overrides")
		ticks := time.NewTicker(overridesEvery)
		defer ticks.Stop()
		for {
			select {
			case <-f.end:
				return
			case <-ticks.C:
				f.read()
			}
		}
	})
}

// read has a look at the file. A panic costs this look only.
func (f *overridesFile) read() {
	defer func() {
		if reason := recover(); reason != nil {
			reportPanic("while "+f.path+" was read", reason)
		}
	}()
	f.take(readOverrides(f.path))
}

// stop can be called without start before, and twice.
func (f *overridesFile) stop() {
	if f.end == nil {
		return
	}
	close(f.end)
	f.ended.Wait()
	f.end = nil
}

// take puts a reading into force, if it is the second in a row and without a mistake.
func (f *overridesFile) take(r reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r != f.last {
		f.last = r
		return
	}
	if r == f.judged {
		return
	}
	f.judged = r
	if r.failure != "" {
		f.reject(r.failure)
		return
	}
	rules, err := parseOverrides([]byte(r.content))
	if err != nil {
		f.reject(f.path + ": " + err.Error())
		return
	}
	before := f.rules.Swap(rules)
	f.modified, f.failed = r.modified, false
	changes := rules.difference(before)
	for _, change := range changes[:min(len(changes), overridesLines)] {
		log.Infof("Override: %s", change)
	}
	more := ""
	if n := len(changes) - overridesLines; n > 0 {
		more = fmt.Sprintf(", %d more changed", n)
	}
	log.Infof("Overrides in force from %s: %d%s", f.path, rules.size(), more)
}

// reject leaves the rules as they are. The caller holds mu.
func (f *overridesFile) reject(reason string) {
	f.failed = true
	log.Errorf("Overrides stay as they were: %s", reason)
}

// report returns what there is to know about the file, for metrics.
func (f *overridesFile) report() (rules int, modified time.Time, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules.Load().size(), f.modified, f.failed
}
