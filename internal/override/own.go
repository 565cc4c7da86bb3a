package override

import (
	"slices"
	"strconv"
	"time"

	"github.com/gaissmai/bart"
)

// ownLines returns the lines of a file that has no mistake.
func ownLines(content string) (lines []ownLine) {
	for text := range linesOf(content) {
		if about, rule, err := parseLine(text); err == nil && rule != nil {
			rule.Reason = cutOff(rule.Reason, maxSharedText)
			lines = append(lines, ownLine{about: *about, rule: *rule})
		}
	}
	return lines
}

// number gives each line the number that it has in all replicas. Of lines that are the same each has another one.
func number(lines []ownLine) {
	counts := make(map[content]int)
	for i := range lines {
		l := &lines[i]
		counts[l.content()]++
		l.id = numberOf(l.rule.says(), l.rule.Reason, strconv.Itoa(counts[l.content()]))
	}
}

// feed takes in a reading of the file here, which has no mistake. The caller holds mu.
func (f *sharedFile) feed(content string, modified time.Time) {
	lines := ownLines(content)
	number(lines)
	before := f.own
	f.isYoung = f.isYoung || !f.isRead
	f.content, f.isRead = content, true
	from := match(before, lines)
	again := f.date(before, lines, from)
	f.own, f.ownOf = lines, make(map[subject][]int)
	for i, l := range lines {
		f.ownOf[l.about] = append(f.ownOf[l.about], i)
	}
	var fresh, gone []int
	if !f.isYoung {
		fresh, gone = f.compare(before, from, again)
	}
	taken := f.takeBack(before)
	if f.isYoung {
		f.begin(before, from, modified)
	} else {
		f.add(fresh, gone)
	}
	for _, about := range taken { // what is said instead is told with it
		f.tellOthers(about)
	}
	f.changed()
}

// ripen has what comes into the file from now on be new. The caller holds mu.
func (f *sharedFile) ripen() {
	if !f.isYoung {
		return
	}
	f.isYoung = false
	for about := range f.topics {
		f.settle(about)
		f.tellOthers(about)
	}
}

// begin takes in the lines that there are at the start. None of them is younger than the file. The caller holds mu.
func (f *sharedFile) begin(before []ownLine, from []int, modified time.Time) {
	f.written = min(momentOf(modified), momentOf(f.now()))
	for i := range f.own {
		l := &f.own[i]
		if l.said = 0; from[i] >= 0 && before[from[i]].id == l.id && !before[from[i]].alone {
			l.said = before[from[i]].said
			continue
		}
		f.say(i, f.writtenAt(i), false)
	}
	for about := range f.ownOf {
		f.settle(about)
		f.tellOthers(about)
	}
}

// writtenAt returns when a line was written that was there at the start, at the latest. The lines keep their order. The caller holds mu.
func (f *sharedFile) writtenAt(i int) moment {
	return max(f.written, moment(len(f.own))) - moment(len(f.own)-1-i)
}

// say takes in what a line of the file here says. Where there is no room, it holds here only. The caller holds mu.
func (f *sharedFile) say(i int, said moment, seen bool) {
	l := &f.own[i]
	since := min(momentOf(f.now()), said)
	if seen {
		since = momentOf(f.now())
	}
	line := &sharedLine{Rule: l.rule, origin: f.origin}
	line.From, line.Since = f.host, since.time()
	said = min(said, maxMoment)
	l.alone = !f.change(l.about, func(known claims) claims {
		return known.with(claim{id: l.id, said: said, seen: seen, sharedLine: line})
	})
	if l.alone {
		l.said = said
		f.ignore("room", "Overrides of this replica that are not shared: there are more than "+strconv.Itoa(f.most)+
			" of all files and replicas, or "+strconv.Itoa(maxSharedSize>>20)+" MiB. The further ones hold here only")
	}
}

// match tells which of the lines before each line is, -1 for one that is new. Of lines that are the same, those stay that are in
// their places between the others, and then the last ones.
func match(before, lines []ownLine) (from []int) {
	same := func(i, j int) bool { return before[i].content() == lines[j].content() }
	from = make([]int, len(lines))
	head, tail := 0, 0
	shorter := min(len(before), len(lines))
	atEnd := func() {
		for tail < shorter-head && same(len(before)-1-tail, len(lines)-1-tail) {
			tail++
			from[len(lines)-tail] = len(before) - tail
		}
	}
	if len(lines) < len(before) {
		atEnd() // who shortens a file takes away what does not matter any more
	}
	for head < shorter-tail && same(head, head) {
		from[head] = head
		head++
	}
	atEnd()
	rest := make(map[content][]int)
	for i := head; i < len(before)-tail; i++ {
		key := before[i].content()
		rest[key] = append(rest[key], i)
	}
	for j := len(lines) - tail - 1; j >= head; j-- {
		key := lines[j].content()
		from[j] = -1
		if left := rest[key]; len(left) > 0 {
			from[j], rest[key] = left[len(left)-1], left[:len(left)-1]
		}
	}
	return from
}

// date sets when each line was said. What is new is said now, but not after those below it that are about the same, nor, if it is
// an auto, after those for something wider. It returns the lines that are older but have to be said again: each auto below a new
// line for something wider, from which it is an exception. The caller holds mu.
func (f *sharedFile) date(before, lines []ownLine, from []int) (again []int) {
	same := make(map[subject]moment) // of older lines below
	var wide bart.Table[moment]
	var autos bart.Table[[]int]
	fresh := 0
	for i, l := range slices.Backward(lines) {
		if from[i] < 0 {
			fresh++
			limit, isLimited := same[l.about]
			if l.rule.Says == Auto {
				for _, said := range wide.Supernets(l.about.prefix) {
					limit, isLimited = lower(limit, isLimited, said), true
				}
			}
			if lines[i].said = 0; isLimited {
				lines[i].said = max(limit-1, 1)
			}
			if l.about.port == 0 {
				for _, inner := range autos.Subnets(l.about.prefix) {
					again = append(again, inner...)
				}
			}
			continue
		}
		lines[i].said = before[from[i]].said
		said := f.saidAt(&before[from[i]])
		same[l.about] = lower(same[l.about], same[l.about] != 0, said)
		if l.about.port == 0 {
			known, isKnown := wide.Get(l.about.prefix)
			wide.Insert(l.about.prefix, lower(known, isKnown, said))
		}
		if l.rule.Says == Auto {
			known, _ := autos.Get(l.about.prefix)
			autos.Insert(l.about.prefix, append(known, i))
		}
	}
	slices.Sort(again)
	return slices.Compact(again)
}

// lower returns the lower of two moments, of which the first may be missing.
func lower(a moment, isThere bool, b moment) moment {
	if isThere {
		return min(a, b)
	}
	return b
}

// saidAt returns when a line of the file here was said. The caller holds mu.
func (f *sharedFile) saidAt(l *ownLine) moment {
	if l.said != 0 {
		return l.said
	}
	if t := f.topics[l.about]; t != nil {
		if c := t.find(l.id); c != nil {
			return c.said
		}
	}
	return 1
}

// takeBack takes back those of the lines before that the file has no longer, and returns what they were about. The caller holds mu.
func (f *sharedFile) takeBack(before []ownLine) (taken []subject) {
	now := moment(0)
	for i := range before {
		l := &before[i]
		t := f.topics[l.about]
		if t == nil || f.has(l.about, l.id) {
			continue
		}
		if now == 0 {
			now = f.moment()
		}
		said := f.saidAt(l)
		f.change(l.about, func(known claims) claims { return known.without(l.id, said, now, f.origin) })
		taken = append(taken, l.about)
	}
	return taken
}

// has tells whether the file here has a line. The caller holds mu.
func (f *sharedFile) has(about subject, id uint64) bool {
	return slices.ContainsFunc(f.ownOf[about], func(i int) bool { return f.own[i].id == id })
}

// compare tells which lines of the file here are new, are to be said again, or have the number of another one now; their time is 0
// where it is now. Of the latter, some were taken back elsewhere. The caller holds mu.
func (f *sharedFile) compare(before []ownLine, from, again []int) (fresh, gone []int) {
	for i := range f.own {
		l := &f.own[i]
		_, isAgain := slices.BinarySearch(again, i)
		switch {
		case isAgain:
			l.said = 0
		case from[i] < 0:
		case !before[from[i]].alone && before[from[i]].id == l.id:
			continue
		case f.isTakenBack(&before[from[i]]):
			gone = append(gone, i)
			continue
		default: // there was no room, or others that were the same are gone, and this one counts as one of them
			l.said = f.saidAt(&before[from[i]])
		}
		fresh = append(fresh, i)
	}
	return fresh, gone
}

// add takes in what compare has found. The caller holds mu.
func (f *sharedFile) add(fresh, gone []int) {
	for _, i := range gone {
		l, now := &f.own[i], f.moment()
		f.change(l.about, func(known claims) claims { return known.with(claim{id: l.id, gone: now, by: f.origin}) })
		f.tellOthers(l.about)
	}
	for _, i := range fresh {
		if f.own[i].said == 0 {
			f.own[i].said = f.moment()
		}
		f.say(i, f.own[i].said, true)
	}
	for _, i := range fresh {
		f.tellOthers(f.own[i].about)
	}
}

// isTakenBack tells whether a line of the file here was taken back elsewhere. The caller holds mu.
func (f *sharedFile) isTakenBack(l *ownLine) bool {
	t := f.topics[l.about]
	if t == nil {
		return false
	}
	c := t.find(l.id)
	return c != nil && c.isGone()
}

// settle does what the file here says of something that others have told of: what it has no longer is taken back, also where
// that was before a restart, and its lines stay in their order. The caller holds mu.
func (f *sharedFile) settle(about subject) {
	if !f.isRead || f.topics[about] == nil {
		return
	}
	for _, c := range slices.Clone(f.topics[about].claims) {
		if !f.isYoung && c.sharedLine != nil && c.origin == f.origin && !f.has(about, c.id) {
			now := f.moment()
			f.change(about, func(known claims) claims { return known.without(c.id, c.said, now, f.origin) })
		}
	}
	below := moment(0)
	for _, i := range slices.Backward(f.ownOf[about]) {
		l := &f.own[i]
		c := f.topics[about].find(l.id)
		l.alone = l.alone && c == nil
		switch {
		case c != nil && l.said == 0 && c.isGone() && c.by == f.origin:
			// It was not in the file then, so it was written since.
			l.said = max(f.writtenAt(i), c.gone+1)
			f.say(i, l.said, true)
			c = f.topics[about].find(l.id)
		case c == nil || c.isGone():
			continue
		case c.seen && l.said == 0:
			l.said = c.said
		case !c.seen && below != 0 && c.said >= below && l.lowered < maxLowered:
			l.lowered++
			older := *c
			older.said = max(below-1, 1)
			f.change(about, func(known claims) claims { return known.with(older) })
		}
		if c != nil {
			below = lower(below, below != 0, c.said)
		}
	}
}

// rules returns those in force at a time, of all replicas. The caller holds mu.
func (f *sharedFile) rules(now time.Time) *Rules {
	type spoken struct {
		about subject
		*claim
	}
	var all []spoken
	for about, t := range f.topics {
		for i := range t.claims {
			if c := &t.claims[i]; c.sharedLine != nil {
				all = append(all, spoken{about, c})
			}
		}
	}
	for i := range f.own {
		if l := &f.own[i]; l.alone {
			line := &sharedLine{Rule: l.rule}
			line.From, line.Since = f.host, l.said.time()
			all = append(all, spoken{l.about, &claim{id: uint64(i), said: l.said, sharedLine: line}})
		}
	}
	slices.SortFunc(all, func(a, b spoken) int { return a.order(b.claim) })
	l := newLines()
	for i, s := range all {
		if rule := &s.Rule; l.isAlive(rule, now) {
			l.add(i+1, s.about, rule)
		}
	}
	l.dropOvertaken()
	return l.Rules
}
