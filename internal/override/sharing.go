package override

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

const (
	// maxShared bounds the addresses, ports and prefixes of all files whose rules are shared, and maxSharedSize the octets
	// of their notes. What is beyond holds where it is written.
	maxShared     = 16384
	maxSharedSize = 3 << 20
	// forgetAfter is how long it is remembered that something was said and has ended, or was taken back.
	forgetAfter = 30 * 24 * time.Hour
	// maxLowered bounds how often a line is made older for the order of a file.
	maxLowered = 2
	// maxAhead is how far ahead a moment may be. Clocks that show the time of another zone are less wrong than that.
	maxAhead = 24 * time.Hour
	// passOnAfter is how long, at least, what comes from others is kept until the own note tells it, too: by then all of
	// what belongs to it has come, and is told once. Each replica adds up to as much again.
	passOnAfter = time.Second
	// complainEvery is how often it is told that notes are ignored.
	complainEvery = time.Hour
)

// Sharing is how files have their rules in common with those of other replicas: the rules in force are what one file would say
// that has the lines of all, each in the place of when a replica first saw it. All replicas that know the same decide alike,
// in whichever order they were told. It knows no network: notes of others come by [Sharing.Take], and own ones go out by what
// [Sharing.Publish] is given.
//
// Only what is known of an address, a port or a prefix is told, as a whole: each replica tells all that it knows, of whichever
// replica it comes, so that it outlives them.
type Sharing struct {
	host  string
	place string
	tell  SharingListener
	now   func() time.Time
	most  int // maxShared
	room  int // maxSharedSize

	mu       sync.Mutex // protects what follows, also in what is shared of each file; it is taken while a File has its own
	publish  func(key string, value []byte)
	files    map[pathSum]*sharedFile
	newest   moment // that is known
	count    int    // of topics
	size     int    // octets of their notes
	fullAt   time.Time
	waiting  []passing            // in the order of their time
	told     map[string]time.Time // when it was told that notes and lines are ignored, by reason
	early    map[string]earlyNote // those that were too far ahead, by key
	earlies  int                  // octets of them
	cleaned  time.Time
	complain []string // to be told once mu is free
}

// SharingListener is told what is wrong. Warningf may not be nil.
type SharingListener struct {
	Warningf func(format string, args ...any)
}

// topic is what is known of an address, port or prefix.
type topic struct {
	claims
	size     int    // octets of the note
	told     uint64 // sum of the note that the others have of this replica
	isTold   bool
	isPassed bool // it waits to be passed on
}

// passing is a topic that is to be told to others.
type passing struct {
	file  *sharedFile
	about subject
	at    time.Time
}

// sharedFile is what replicas have in common of files with the same path in their Corefiles.
type sharedFile struct {
	*Sharing
	sum    pathSum
	topics map[subject]*topic
	wake   chan struct{} // gets one when something has changed
	seen   uint64        // how many changes there were

	// What follows is of the file here, if there is one.
	isHere  bool // it was, at least
	origin  uint64
	readers []*File // the newest is last, and is whose readings count
	content string  // of the newest reading that counts
	isRead  bool
	isYoung bool              // what is in the file was there at the start: no reading has come twice yet
	written moment            // of what was in it at the start
	own     []ownLine         // in the order of the file
	ownOf   map[subject][]int // which of own are about something
}

// ownLine is a line of the file here.
type ownLine struct {
	about subject
	rule  Rule
	said  moment // when it was seen here first; 0 where other replicas do not tell, and it was there at the start
	id    uint64
	alone bool // there is no room to share it, so it holds here only
	// lowered is how often the line was made older than those below it. It ends where another replica has them the other way round.
	lowered int
}

// content is what a line says, and of what. Lines that are the same have it in common.
type content struct {
	about subject
	rule  Rule
}

func (l *ownLine) content() content { return content{l.about, l.rule} }

// NewSharing returns a sharing without files, of the replica at a place on a host. No other one has the same of both. Where it
// is still there after a restart, what is no longer in its files is taken back.
func NewSharing(host, place string, tell SharingListener) *Sharing {
	return newSharing(host, place, tell, time.Now)
}

func newSharing(host, place string, tell SharingListener, now func() time.Time) *Sharing {
	return &Sharing{host: cutOff(harmless(host), maxFrom), place: place, tell: tell, now: now, most: maxShared, room: maxSharedSize, files: make(map[pathSum]*sharedFile),
		told: make(map[string]time.Time), early: make(map[string]earlyNote)}
}

// Publish has notes told to others from now on, or not where it is nil: first all that there are. A key has up to 400 octets,
// and a value 700. One without a value is to be forgotten. It must not call back.
func (s *Sharing) Publish(publish func(key string, value []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish = publish
	for _, f := range s.files {
		for about, t := range f.topics {
			t.isTold = false
			f.tellOthers(about)
		}
	}
}

// Take takes in a note of another replica, whose value it does not keep. What it cannot use is told.
func (s *Sharing) Take(key string, value []byte) {
	s.mu.Lock()
	s.take(key, value)
	s.unlock()
}

// unlock frees mu, and tells what there is to complain about.
func (s *Sharing) unlock() {
	complaints := s.complain
	s.complain = nil
	s.mu.Unlock()
	for _, line := range complaints {
		s.tell.Warningf("%s", line)
	}
}

// ignore has it told, now and then, that something cannot be used: its "format", "version", "clock" or "room". The caller holds mu.
func (s *Sharing) ignore(reason, sentence string) {
	now := s.now()
	if last, told := s.told[reason]; told && now.Sub(last).Abs() < complainEvery {
		return
	}
	s.told[reason] = now
	s.complain = append(s.complain, sentence)
}

// IsInForce tells whether all that was taken is in force in the files that are there.
func (s *Sharing) IsInForce() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if n := len(f.readers); n > 0 && f.readers[n-1].followed != f.seen {
			return false
		}
	}
	return true
}

func (s *Sharing) take(key string, value []byte) {
	s.dropEarly(key)
	path, about, err := decodeKey(key)
	all, valueErr := decodeNote(value)
	switch {
	case errors.Is(valueErr, errNewer):
		s.ignore("version", "Overrides of a replica with another version of shaker are not taken over. They count here once the versions agree")
		return
	case errors.Join(err, valueErr) != nil:
		s.ignore("format", fmt.Sprintf("Overrides of another replica cannot be read: %v", errors.Join(err, valueErr)))
		return
	}
	if latest := momentOf(s.now().Add(maxAhead)); all.last() > latest {
		s.ignore("clock", fmt.Sprintf("An override of another replica for %s is from %s, more than %v ahead, and is not taken over: want its clock "+
			"or that of this machine set right", about, timeString(all.last().time()), maxAhead))
		s.keepEarly(key, value, all.last())
		return
	}
	if len(all) == 0 {
		return
	}
	f := s.file(path)
	if !f.change(about, func(known claims) claims { return known.with(all...) }) {
		f.dropEmpty()
		s.ignore("room", fmt.Sprintf("Overrides of other replicas are not taken over: there are more than %d, or %d MiB", s.most, maxSharedSize>>20))
		return
	}
	f.settle(about)
	f.passOn(about)
}

// file returns what is shared of files with a path. The caller holds mu.
func (s *Sharing) file(path pathSum) *sharedFile {
	f := s.files[path]
	if f == nil {
		f = &sharedFile{Sharing: s, sum: path, topics: make(map[subject]*topic), wake: make(chan struct{}, 1)}
		s.files[path] = f
	}
	return f
}

// earlyNote is one that is not taken in because of its time.
type earlyNote struct {
	value []byte
	last  moment
}

// keepEarly keeps a note, as far as there is room, until a clock is set right or there is another one with its key. The caller holds mu.
func (s *Sharing) keepEarly(key string, value []byte, last moment) {
	if size := len(key) + len(value); s.earlies+size <= s.room/2 {
		s.early[key] = earlyNote{slices.Clone(value), last}
		s.earlies += size
	}
}

func (s *Sharing) dropEarly(key string) {
	if n, kept := s.early[key]; kept {
		delete(s.early, key)
		s.earlies -= len(key) + len(n.value)
	}
}

// minds has what is not too far ahead any more taken in, and, once the clock was set back, what is too far ahead forgotten: the lines
// of the files here are as new then as if it were a start. The caller holds mu.
func (s *Sharing) minds(now time.Time) {
	latest := momentOf(now.Add(maxAhead))
	for key, n := range s.early {
		if n.last <= latest {
			s.take(key, n.value)
		}
	}
	if s.newest <= momentOf(now.Add(maxAhead+time.Minute)) {
		return
	}
	s.newest = 0
	for _, f := range s.files {
		for about, t := range f.topics {
			if t.last() > latest {
				f.forget(about)
			}
			s.newest = max(s.newest, min(t.last(), latest))
		}
		if f.isRead {
			f.own, f.isRead = nil, false
			f.feed(f.content, now)
		}
	}
}

// moment returns one that is later than all others. The caller holds mu.
func (s *Sharing) moment() moment {
	s.newest = max(momentOf(s.now()), s.newest+1)
	return s.newest
}

// change changes what is known of something, and tells whether there was room for that. The caller holds mu.
func (f *sharedFile) change(about subject, how func(claims) claims) bool {
	t, known := f.topics[about]
	if !known {
		t = new(topic)
	}
	after := how(t.claims).trimmed(f.now())
	value := after.encode()
	note := len(encodeKey(f.sum, about)) + len(value)
	if known = known || f.hasRoom(1, note); !known || note > t.size && !f.hasRoom(0, note-t.size) {
		return false
	}
	if f.topics[about] == nil {
		f.topics[about] = t
		f.count++
	}
	isChanged := !bytes.Equal(t.encode(), value)
	f.size += note - t.size
	t.claims, t.size = after, note
	if isChanged {
		f.newest = max(f.newest, t.last())
		f.changed()
	}
	return true
}

// changed has the file here look at what is in force. The caller holds mu.
func (f *sharedFile) changed() {
	f.seen++
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// hasRoom makes room for more topics and octets, as far as that goes. The caller holds mu.
func (s *Sharing) hasRoom(topics, octets int) bool {
	room := s.room
	if topics == 0 {
		room += room / 8 // so that a drain can be taken back when there is no room for more of them
	}
	fits := func() bool { return s.count+topics <= s.most && s.size+octets <= room }
	if fits() {
		return true
	}
	if now := s.now(); now.Sub(s.fullAt).Abs() >= time.Second {
		s.fullAt = now
		s.makeRoom(now)
	}
	return fits()
}

// makeRoom forgets the oldest of what is left to its checks here, a sixteenth of all there may be. The caller holds mu.
func (s *Sharing) makeRoom(now time.Time) {
	var resting []passing
	for _, f := range s.files {
		for about, t := range f.topics {
			if !f.isOwn(about) && t.rests(now) {
				resting = append(resting, passing{f, about, t.last().time()})
			}
		}
	}
	slices.SortFunc(resting, func(a, b passing) int {
		// What has ended goes before any auto.
		spentA, spentB := a.topic().isSpent(now), b.topic().isSpent(now)
		if spentA != spentB {
			return btoi(spentB) - btoi(spentA)
		}
		return a.at.Compare(b.at)
	})
	for _, p := range resting[:min(len(resting), s.most/16)] {
		p.file.forget(p.about)
	}
}

func (p passing) topic() *topic { return p.file.topics[p.about] }

// forget forgets a topic. The caller holds mu.
func (f *sharedFile) forget(about subject) {
	t := f.topics[about]
	f.count--
	f.size -= t.size
	delete(f.topics, about)
	if f.publish != nil && t.isTold {
		f.publish(encodeKey(f.sum, about), nil)
	}
	f.changed()
}

// clean forgets what has ended long ago. The caller holds mu.
func (s *Sharing) clean(now time.Time) {
	if now.Sub(s.cleaned).Abs() < time.Hour {
		return
	}
	s.cleaned = now
	old := momentOf(now.Add(-forgetAfter))
	for _, f := range s.files {
		for about, t := range f.topics {
			if !f.isOwn(about) && t.isSpent(now) && t.end() < old {
				f.forget(about)
			}
		}
		f.dropEmpty()
	}
}

// dropEmpty drops what is shared of a file that is not here, where that is nothing. The caller holds mu.
func (f *sharedFile) dropEmpty() {
	if len(f.topics) == 0 && !f.isHere {
		delete(f.files, f.sum)
	}
}

// end returns when the last of it has ended, or was said or taken back.
func (t *topic) end() moment {
	end := t.last()
	for _, c := range t.claims {
		if c.sharedLine != nil && !c.Until.IsZero() {
			end = max(end, momentOf(c.Until))
		}
	}
	return end
}

// isOwn tells whether the file here has lines about something. The caller holds mu.
func (f *sharedFile) isOwn(about subject) bool { return len(f.ownOf[about]) > 0 }

// tellOthers tells the others what is known of something, unless they have been told. The caller holds mu.
func (f *sharedFile) tellOthers(about subject) {
	t := f.topics[about]
	if t == nil || f.publish == nil {
		return
	}
	note := t.encode()
	sum := fnv.New64a()
	sum.Write(note)
	if t.isTold && t.told == sum.Sum64() {
		return
	}
	t.told, t.isTold = sum.Sum64(), true
	f.publish(encodeKey(f.sum, about), note)
}

// passOn tells the others later what has come from one of them. The caller holds mu.
func (f *sharedFile) passOn(about subject) {
	if t := f.topics[about]; t != nil && !t.isPassed {
		t.isPassed = true
		extra := time.Duration(numberOf(f.host, f.place) % uint64(passOnAfter))
		f.waiting = append(f.waiting, passing{f, about, f.now().Add(passOnAfter + extra)})
	}
}

// turn does what is due.
func (s *Sharing) turn() {
	s.mu.Lock()
	defer s.unlock()
	now := s.now()
	due := 0
	for due < len(s.waiting) && now.Sub(s.waiting[due].at) >= 0 {
		p := s.waiting[due]
		due++
		if t := p.topic(); t != nil {
			t.isPassed = false
			p.file.tellOthers(p.about)
		}
	}
	if s.waiting = s.waiting[due:]; len(s.waiting) == 0 {
		s.waiting = nil
	}
	s.minds(now)
	s.clean(now)
}

// sumOf stands for the path of a file.
func sumOf(path string) (sum pathSum) {
	whole := sha256.Sum256([]byte(path))
	copy(sum[:], whole[:])
	return sum
}

// numberOf returns a number for texts.
func numberOf(texts ...string) uint64 {
	sum := sha256.New()
	for _, text := range texts {
		binary.Write(sum, binary.BigEndian, uint64(len(text)))
		sum.Write([]byte(text))
	}
	return binary.BigEndian.Uint64(sum.Sum(nil))
}
