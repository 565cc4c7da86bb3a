package peers

import (
	"cmp"
	"slices"
	"time"
)

const (
	// leastGraves is how many removed entries a ledger keeps at least. It keeps as many as it has others.
	leastGraves = 1024
	// maxNotes and maxNoteOctets bound the notes of a replica.
	maxNotes, maxNoteOctets = 20_000, 4 << 20
	// maxWords is of how many subjects a replica may have something to say, and maxSubjects of how many all together.
	maxWords, maxSubjects = 1 << 18, 1 << 19
	// maxOffers bounds the settings of a replica.
	maxOffers = 1024
)

// ledger is what a replica tells the others. Each change gets the next number, and takes the place of what was said of the
// same thing before. So there is one writer, nothing can conflict, and whoever has some of the numbers can ask for the others.
type ledger struct {
	newest uint64
	log    []logged // by number; what was said anew since has a fact with another number
	words  map[key]*fact
	offers map[uint64]*fact
	notes  map[string]*fact

	graves     int // how many removed facts are kept at least
	noteOctets int
	lostNotes  int // of notes, those that are removed, and not forgotten
	living     int // facts that are not removed
	dead       int // that are, and not forgotten
	forgotten  uint64
}

type logged struct {
	number uint64
	fact   *fact
}

// fact is the newest entry about one thing.
type fact struct {
	number  uint64
	said    int64 // when the opinion's word was said first
	key     key
	offer   uint64
	note    *note
	opinion opinion
	sort    sort
	removed bool
}

func newLedger() ledger {
	return ledger{graves: leastGraves, words: make(map[key]*fact), offers: make(map[uint64]*fact), notes: make(map[string]*fact)}
}

// say notes an opinion. It is false where that is the same as before, or there is no room for it.
func (l *ledger) say(k key, o opinion, now int64) bool {
	f := l.words[k]
	switch {
	case f == nil && o.isNothing():
		return false
	case f == nil && len(l.words)-l.dead >= maxWords:
		return false
	case f == nil:
		f = &fact{key: k, sort: sortWord4}
		if !k.is4() {
			f.sort = sortWord6
		}
		l.words[k] = f
	case f.opinion == o:
		return false
	}
	if f.opinion.word != o.word || f.number == 0 {
		f.said = now
	}
	f.opinion = o
	l.enter(f, o.isNothing())
	return true
}

// offer notes whether settings are offered.
func (l *ledger) offer(settings uint64, offered bool) bool {
	f := l.offers[settings]
	switch {
	case f == nil && (!offered || len(l.offers) >= maxOffers):
		return false
	case f == nil:
		f = &fact{offer: settings}
		l.offers[settings] = f
	case offered == (f.sort == sortOffer):
		return false
	}
	if f.sort = sortNoOffer; offered {
		f.sort = sortOffer
	}
	l.enter(f, !offered)
	return true
}

// write notes a note. One without a value is removed. It reports whether that is another one than before, and whether there is
// room for it.
func (l *ledger) write(n note) (changed, fits bool) {
	f, size := l.notes[string(n.key)], len(n.key)+len(n.value)
	if f != nil {
		if string(f.note.value) == string(n.value) {
			return false, true
		}
		size -= len(f.note.key) + len(f.note.value)
	}
	removed := len(n.value) == 0
	if f == nil && removed {
		return false, true
	}
	if f == nil && (len(l.notes)-l.lostNotes >= maxNotes || l.lostNotes >= maxNotes) || l.noteOctets+size > maxNoteOctets {
		return false, false
	}
	l.noteOctets += size
	if f == nil {
		f = &fact{sort: sortNote}
		l.notes[string(n.key)] = f
	}
	f.note = &note{slices.Clone(n.key), slices.Clone(n.value)}
	switch {
	case removed && !f.removed:
		l.lostNotes++
	case !removed && f.removed:
		l.lostNotes--
	}
	l.enter(f, removed)
	return true, true
}

// enter gives a fact the next number.
func (l *ledger) enter(f *fact, removed bool) {
	switch {
	case f.number == 0 && removed:
		l.dead++
	case f.number == 0:
		l.living++
	case removed && !f.removed:
		l.living, l.dead = l.living-1, l.dead+1
	case !removed && f.removed:
		l.living, l.dead = l.living+1, l.dead-1
	}
	l.newest++
	f.number, f.removed = l.newest, removed
	l.log = append(l.log, logged{f.number, f})
	for l.dead > max(l.living, l.graves) {
		l.forget()
	}
	if len(l.log) > 2*(l.living+l.dead)+leastGraves {
		l.log = slices.DeleteFunc(l.log, func(x logged) bool { return x.number != x.fact.number })
	}
}

// forget forgets the removed fact with the lowest number.
func (l *ledger) forget() {
	for i := l.find(l.forgotten + 1); i < len(l.log); i++ {
		x := l.log[i]
		l.forgotten = x.number
		if x.number != x.fact.number || !x.fact.removed {
			continue
		}
		l.dead--
		switch x.fact.sort {
		case sortNoOffer:
			delete(l.offers, x.fact.offer)
		case sortNote:
			l.noteOctets -= len(x.fact.note.key)
			l.lostNotes--
			delete(l.notes, string(x.fact.note.key))
		default:
			delete(l.words, x.fact.key)
		}
		x.fact.number = 0 // so that it leaves the log
		return
	}
}

// find returns where in the log a number is, or the next that is there.
func (l *ledger) find(number uint64) int {
	i, _ := slices.BinarySearchFunc(l.log, number, func(x logged, number uint64) int { return cmp.Compare(x.number, number) })
	return i
}

// append appends a message with all entries from c.first on to c.last, or as far as size octets last, and returns how far it
// came. An entry is appended in any case.
func (l *ledger) append(b []byte, name string, c changes, size int, now int64) (message []byte, last uint64) {
	start := len(b)
	b = appendChanges(appendEnvelope(b, kindChanges, name), &c)
	begin := len(b)
	empty := true
	for i := l.find(c.first); i < len(l.log) && l.log[i].number <= c.last; i++ {
		x := l.log[i]
		if x.number != x.fact.number {
			continue
		}
		before, was := len(b), c
		e := x.fact.entry(now)
		b = c.append(b, &e)
		if len(b)-start > size && !empty {
			b, c = b[:before], was
			c.last = x.number - 1
			break
		}
		empty = false
	}
	closeChanges(b, begin, &c)
	return b, c.last
}

func (f *fact) entry(now int64) entry {
	e := entry{number: f.number, sort: f.sort, key: f.key, opinion: f.opinion, offer: f.offer}
	if f.note != nil {
		e.note = *f.note
	}
	if f.sort <= sortWord6 {
		e.age = time.Duration(now - f.said)
	}
	return e
}
