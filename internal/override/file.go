package override

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns-shaker/shaker/internal/reread"
)

const (
	// lookEvery is how often files are read. What is new is in force once two readings in a row agree on it: after the
	// first, somebody may still be writing.
	lookEvery = 250 * time.Millisecond
	// patience is how long two readings in a row may differ until the newest is taken as it is.
	patience = 2 * time.Second
	// hangs is how long a look at a file may take until people are told. Nobody waits longer for the first one.
	hangs = reread.Hangs
	// maxSize bounds a file, in octets.
	maxSize = 1 << 20
	// maxLines bounds how many changed rules are told one by one.
	maxLines = 10
)

// File is a file of rules, which is read again and again. That finds every way to change a file: writing, renaming, and
// the symbolic links by which Kubernetes replaces a ConfigMap. The nil pointer is a file without rules.
type File struct {
	path  string
	tell  Listener
	looks reread.Looks
	now   func() time.Time      // by the clock on the wall, which may be set
	rules atomic.Pointer[Rules] // in force, never nil
	group *sharedFile           // what there is in common with other replicas, nil for nothing

	mu         sync.Mutex // protects what follows
	last       reading    // the newest one
	judged     reading    // the newest one that was put into force or rejected
	content    string     // that the rules in force are from
	modified   time.Time  // when that was written
	problem    string     // why what was judged is not in force, "" where it is
	restless   restless
	settled    bool      // a reading came twice
	followed   uint64    // how many changes of the group are in force; it is written with that locked, too
	followedAt time.Time // when that was done last

	end   context.CancelFunc // nil while nothing reads
	ended sync.WaitGroup
}

// Listener is told what happens to a file, one thing at a time. Its functions must not ask the file, which waits for them.
// Infof, Errorf and Recovered may not be nil.
type Listener struct {
	Infof, Errorf func(format string, args ...any)
	// Recovered is told of a panic while the file was read, which cost that reading only. It is called where the panic
	// is recovered, so the stack can still be read.
	Recovered func(where string, reason any)
	// Changed is told of each change that has a line in the log of its own, and that line. Of more than ten at a time
	// the log has only how many.
	Changed func(line string, change Change)
	// InForce is told that a file that was changed, or could not be used, is in force, and Rejected that one is not. Each
	// gets the line in the log.
	InForce, Rejected func(line string)
}

// reading is what a look at the file has found.
type reading = reread.Reading

// restless is a time in which each reading has found something else than the one before.
type restless struct {
	since  time.Time // zero outside of such a time
	usable reading   // the newest without a mistake
	broken reading   // the newest with one
	told   bool      // the log says so
}

// Open reads the file for the first time, when any mistake is an error. It takes no longer than five seconds: whoever
// starts CoreDNS, or has it reload, waits for this.
func Open(path string, tell Listener) (*File, error) { return open(path, tell, read, time.Now) }

func open(path string, tell Listener, read func(path string) reading, now func() time.Time) (*File, error) {
	f := &File{path: path, tell: tell, now: now}
	f.looks = reread.Looks{Path: path, Read: read, Label: "overrides", Recovered: tell.Recovered}
	r := f.looks.First()
	if r.Err != nil {
		return nil, fmt.Errorf("%w, want a file of rules, which may be empty", r.Err)
	}
	rules, err := Parse(r.Content, f.now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.last, f.judged, f.content, f.modified = r, r, r.Content, r.Modified
	f.rules.Store(rules)
	return f, nil
}

// read reads a file of rules.
func read(path string) reading { return reread.Read(path, maxSize) }

// Path returns where the file is, as it was opened.
func (f *File) Path() string { return f.path }

// AbsPath returns the same for those who may be in another directory. Symbolic links are kept.
func (f *File) AbsPath() string {
	if path, err := filepath.Abs(f.path); err == nil {
		return path
	}
	return f.path // the working directory is gone
}

// Rules returns the rules in force.
func (f *File) Rules() *Rules {
	if f == nil {
		return nil
	}
	return f.rules.Load()
}

// Start has the file read again and again, until Stop is called. It tells of lines that had run out before.
func (f *File) Start() {
	f.join()
	if rules := f.rules.Load(); rules.ended > 0 {
		f.tell.Infof("Overrides in %s that had ended before: %d, the last at %s. Their lines may be removed",
			f.path, rules.ended, timeString(rules.since))
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	f.ended.Go(func() { pprof.Do(ctx, pprof.Labels("shaker", "overrides"), f.follow) })
}

// Stop ends what Start has begun and waits for it, but not for the file: a look at it that hangs is given up. Stop may be
// called without Start before, and twice.
func (f *File) Stop() {
	if f.end == nil {
		return
	}
	f.end()
	f.ended.Wait()
	f.end = nil
	f.leave()
}

// follow has one look at the file after the other.
func (f *File) follow(ctx context.Context) {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	var collected <-chan time.Time // when what others say is to be put into force, nil where they are silent
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-f.looks.Under():
			f.looks.End()
			f.takeSafely(r)
		case <-f.wakes():
			collected = time.After(collectFor)
		case <-collected:
			f.glance()
		case now := <-ticks.C:
			f.turnSafely()
			if f.looks.Begin(now) {
				f.hang()
			}
		}
	}
}

// recover ends a panic, which costs one look only. It is to be deferred.
func (f *File) recover() {
	if reason := recover(); reason != nil {
		f.tell.Recovered("while "+f.path+" was read", reason)
	}
}

func (f *File) turnSafely() {
	defer f.recover()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	f.turnGroup()
}

// turn has those of the rules in force end that have run out, whether the file can be read or not. Where the clock was set
// back, they hold again. It returns the time. The caller holds mu.
func (f *File) turn() (now time.Time) {
	now = f.now()
	if f.rules.Load().holdAt(now) {
		return now
	}
	rules, err := f.inForce(f.content, now)
	if err != nil {
		panic(err) // it was in force
	}
	if more := f.tellChanges(f.rules.Swap(rules), now); more > 0 {
		f.tell.Infof("And %d more overrides changed because rules end by themselves", more)
	}
	return now
}

// tellChanges tells what the rules in force have changed, and returns how many changes are left untold.
func (f *File) tellChanges(before *Rules, now time.Time) (more int) {
	changes, more := f.rules.Load().Difference(before, now, maxLines)
	for _, change := range changes {
		line := "Override: " + change.String()
		f.tell.Infof("%s", line)
		if f.tell.Changed != nil {
			f.tell.Changed(line, change)
		}
	}
	return more
}

func (f *File) takeSafely(r reading) {
	defer f.recover()
	f.take(r)
}

// hang rejects the file, for as long as a look at it has not ended.
func (f *File) hang() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judge(reading{Err: f.looks.Hanging()})
}

// take puts a reading into force, if it is the second in a row that has found this, and without a mistake.
func (f *File) take(r reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !r.Same(f.last) {
		f.last = r
		f.takeRestless(r)
		return
	}
	f.restless = restless{}
	f.judge(r)
	if r.Err == nil {
		f.settle()
	}
}

// takeRestless does what it can about a file that is never read twice with the same content: each time that patience has
// passed, it puts the newest reading into force. Most have no mistake, and are complete. An empty one is not taken, since
// that is what many writers make of a file first. The caller holds mu.
func (f *File) takeRestless(r reading) {
	now := time.Now()
	if f.restless.since.IsZero() {
		f.restless.since = now
	}
	switch _, err := Parse(r.Content, f.now()); {
	case r.Err != nil || err != nil:
		f.restless.broken = r
	case r.Content != "":
		f.restless.usable = r
	}
	if now.Sub(f.restless.since) < patience {
		return
	}
	was := f.restless
	f.restless = restless{since: now, told: true}
	if !was.told {
		f.tell.Errorf("Overrides in %s change faster than they are read, want them to stay for %v. Until then the newest that "+
			"have no mistake are taken every %v", f.path, 2*lookEvery, patience)
	}
	switch {
	case was.usable.Content != "":
		f.judge(was.usable)
	case f.problem == "": // or each mistake would be told
		f.judge(was.broken)
	}
}

// judge puts a reading into force, or rejects it. The caller holds mu.
func (f *File) judge(r reading) {
	if r.Same(f.judged) {
		if f.problem == "" {
			f.modified = r.Modified
		}
		return
	}
	f.judged = r
	if r.Err != nil {
		f.reject(r.Err.Error())
		return
	}
	now := f.turn() // what has run out is told as such
	f.followGroup() // so is what others have said
	rules, err := f.putIn(r, now)
	if err != nil {
		f.reject(f.path + ": " + err.Error())
		return
	}
	before, problem := f.rules.Swap(rules), f.problem
	f.content, f.modified, f.problem = r.Content, r.Modified, ""
	if rules.equal(before) && problem == "" {
		return
	}
	f.tellInForce(before, now)
}

// tellInForce tells what the rules in force have changed, and that they are. The caller holds mu.
func (f *File) tellInForce(before *Rules, now time.Time) {
	rules, rest := f.rules.Load(), ""
	if more := f.tellChanges(before, now); more > 0 {
		rest = fmt.Sprintf(", %d more changed", more)
	}
	line := fmt.Sprintf("Overrides in force from %s: %d%s", f.path, rules.Size(), rest)
	f.tell.Infof("%s", line)
	if f.tell.InForce != nil {
		f.tell.InForce(line)
	}
}

// reject leaves the rules as they are. The caller holds mu.
func (f *File) reject(reason string) {
	f.problem = reason
	line := "Overrides stay as they were: " + reason
	f.tell.Errorf("%s", line)
	if f.tell.Rejected != nil {
		f.tell.Rejected(line)
	}
}

// Report returns how many rules are in force, when they were written, and whether they are older than the file because
// that cannot be used.
func (f *File) Report() (rules int, modified time.Time, failed bool) {
	s := f.Snapshot()
	return s.Rules.Size(), s.Modified, s.Problem != ""
}

// Snapshot is a file at one moment.
type Snapshot struct {
	Rules    *Rules    // in force, never nil
	Modified time.Time // when they were written, without those that have run out since
	Problem  string    // why the file cannot be used, so that the rules are older, "" where it can
}

// Snapshot returns what is known of the file.
func (f *File) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Snapshot{f.rules.Load(), f.modified, f.problem}
}
