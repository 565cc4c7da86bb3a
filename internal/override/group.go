package override

import (
	"slices"
	"time"
)

// What others say is put into force together with what follows within collectFor, and no more often than followEvery. So an edit
// takes effect as a whole, and what many say, or many lines, is few changes to tell.
const (
	collectFor  = lookEvery / 5
	followEvery = 2 * lookEvery
)

// Share has the file share its rules with those of other replicas that have the same name, which is its path as the Corefile has
// it. It is to be called before Start, and not for a file that is kept to itself.
func (f *File) Share(s *Sharing, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.group = s.file(sumOf(name))
	f.group.isHere = true
	f.group.origin = numberOf(s.host, s.place, f.AbsPath())
}

// IsShared tells whether others may say what its rules are, too.
func (f *File) IsShared() bool { return f.group != nil }

// join makes the file the one whose readings count. At the first time its lines are taken in; otherwise one before it has read
// the same file, and what is different now counts when it was read twice.
func (f *File) join() {
	if f.group == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.group
	g.mu.Lock()
	defer g.unlock()
	g.readers = append(g.readers, f)
	if !g.isRead {
		g.feed(f.content, f.modified)
	}
	f.rules.Store(g.rules(f.now()))
	f.followed = g.seen
}

// leave has the readings of the file before this one count again, if there is one.
func (f *File) leave() {
	if f.group == nil {
		return
	}
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	f.group.readers = slices.DeleteFunc(f.group.readers, func(reader *File) bool { return reader == f })
}

// counts tells whether the readings of the file are those that count. The caller holds mu, and that of the group.
func (f *File) counts() bool {
	readers := f.group.readers
	return len(readers) > 0 && readers[len(readers)-1] == f
}

// inForce returns the rules that hold with this content of the file. The caller holds mu.
func (f *File) inForce(content string, now time.Time) (*Rules, error) {
	if f.group == nil {
		return Parse(content, now)
	}
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	f.followed = f.group.seen
	return f.group.rules(now), nil
}

// putIn takes in a reading of the file, and returns the rules that hold with it. The caller holds mu.
func (f *File) putIn(r reading, now time.Time) (*Rules, error) {
	rules, err := Parse(r.Content, now)
	if err != nil || f.group == nil {
		return rules, err
	}
	f.group.mu.Lock()
	if f.counts() {
		f.group.feed(r.Content, r.Modified)
	}
	f.group.unlock()
	return f.inForce(r.Content, now)
}

// settle notes that a reading has come twice. What comes into the file from now on is new. The caller holds mu.
func (f *File) settle() {
	f.settled = true
	if f.group == nil {
		return
	}
	f.group.mu.Lock()
	defer f.group.unlock()
	if f.counts() {
		f.group.ripen()
	}
}

// wakes returns what gets something when others have said something, nil where nobody can.
func (f *File) wakes() <-chan struct{} {
	if f.group == nil {
		return nil
	}
	return f.group.wake
}

// glance puts into force what others have said.
func (f *File) glance() {
	defer f.recover()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followGroup()
}

// turnGroup does what is due about what is shared. The caller holds mu.
func (f *File) turnGroup() {
	if f.group == nil {
		return
	}
	f.group.turn()
	f.group.mu.Lock()
	if f.counts() && f.settled && f.group.content != f.content {
		// The one whose readings counted is stopped, and has not seen this.
		f.group.feed(f.content, f.modified)
	}
	f.group.unlock()
	f.followGroup()
}

// followGroup puts into force what others have said, unless that was done just before, and tells it. The caller holds mu.
func (f *File) followGroup() {
	if f.group == nil {
		return
	}
	f.group.mu.Lock()
	isNew := f.group.seen != f.followed
	f.group.mu.Unlock()
	if !isNew || f.now().Sub(f.followedAt).Abs() < followEvery {
		return
	}
	f.followedAt = f.now()
	now := f.turn() // what has run out is told as such
	rules, _ := f.inForce(f.content, now)
	if before := f.rules.Swap(rules); !rules.equal(before) {
		f.tellInForce(before, now)
	}
}
