package override

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// moment is when something was said or taken back, in microseconds since 1970. It is there to be compared. It may be later
// than the clock says: what is said in knowledge of something else is later than that, however wrong the clocks are.
type moment int64

func momentOf(t time.Time) moment { return moment(t.UnixMicro()) }

func (m moment) time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// claim is what replicas know of a line, which has the same number in all of them. Two of the same line can be joined in any
// order, and more than once.
type claim struct {
	id uint64
	// said is when a replica has seen the line come into its file, the newest if it was several times. Of a line that all
	// have read when they started, it is the oldest time when one of their files was written, and seen is not set.
	said        moment
	seen        bool
	gone        moment // when it was taken back last, 0 for never
	by          uint64 // for which file that was
	*sharedLine        // nil where it is gone
}

// sharedLine is what the line says. It does not have What.
type sharedLine struct {
	Rule
	origin uint64 // which file of which replica it is in
}

// isGone tells whether the line was taken back, and not said again since.
func (c *claim) isGone() bool { return c.gone != 0 && (!c.seen || c.gone >= c.said) }

// last returns when the newest change was.
func (c *claim) last() moment { return max(c.said, c.gone) }

// join takes in what another replica knows of the same line.
func (c *claim) join(other claim) {
	if other.outranks(c) {
		c.said, c.seen, c.sharedLine = other.said, other.seen, other.sharedLine
	}
	if other.gone > c.gone || other.gone == c.gone && other.by > c.by {
		c.gone, c.by = other.gone, other.by
	}
	if c.isGone() {
		c.sharedLine = nil
	}
}

// outranks tells which of two knows better when a line was said.
func (c *claim) outranks(other *claim) bool {
	switch {
	case c.seen != other.seen:
		return c.seen
	case c.said != other.said:
		return c.seen == (c.said > other.said)
	default:
		return c.sharedLine.compare(other.sharedLine) > 0
	}
}

// compare orders what is the same but for hostile replicas and clocks, so that all decide alike.
func (l *sharedLine) compare(other *sharedLine) int {
	if l == nil || other == nil {
		return cmp.Compare(btoi(l != nil), btoi(other != nil))
	}
	return cmp.Or(strings.Compare(l.From, other.From), cmp.Compare(l.origin, other.origin), l.Since.Compare(other.Since),
		cmp.Compare(l.Says, other.Says), l.Until.Compare(other.Until), strings.Compare(l.Reason, other.Reason))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// order compares claims by age, the oldest first. Of the same age it is the name of the replica that decides.
func (c *claim) order(other *claim) int {
	from := 0
	if c.sharedLine != nil && other.sharedLine != nil {
		from = strings.Compare(c.From, other.From)
	}
	return cmp.Or(cmp.Compare(c.said, other.said), from, cmp.Compare(c.id, other.id))
}

// claims are those about the same address, port or prefix, each line once, in no order.
type claims []claim

// find returns the claim of a line, or nil.
func (all claims) find(id uint64) *claim {
	for i := range all {
		if all[i].id == id {
			return &all[i]
		}
	}
	return nil
}

// with returns the claims with others joined, which may make them too many, see trimmed.
func (all claims) with(others ...claim) claims {
	joined := slices.Clone(all)
	for _, other := range others {
		if known := joined.find(other.id); known != nil {
			known.join(other)
			continue
		}
		if other.isGone() {
			other.sharedLine = nil
		}
		joined = append(joined, other)
	}
	return joined
}

// last returns when the newest change was.
func (all claims) last() (newest moment) {
	for i := range all {
		newest = max(newest, all[i].last())
	}
	return newest
}

// isRestated tells whether, after it was said at one moment, a line was said again at a later one because of something that
// was said or taken back in between.
func (all claims) isRestated(id uint64, first moment) bool {
	line := all.find(id)
	if line.said <= first {
		return false
	}
	between := func(m moment) bool { return m > first && m < line.said }
	return slices.ContainsFunc(all, func(c claim) bool {
		return c.id != id && (between(c.said) || between(c.gone)) || c.id == id && c.gone >= first && c.gone < line.said
	})
}

// without returns the claims after a file that gave a line, which was said there at one moment, has it no longer.
func (all claims) without(id uint64, first, now moment, file uint64) claims {
	line := all.find(id)
	if line == nil || line.isGone() || all.isRestated(id, first) {
		return all
	}
	gone := *line
	gone.gone, gone.by = now, file
	return all.with(gone)
}

const (
	// maxClaims bounds the lines that are known of the same address, port or prefix.
	maxClaims = 16
	// forgetEnded is how long what has ended is still worth as much as what has not. A clock may be set back.
	forgetEnded = time.Hour
)

// trimmed returns the claims that are worth most, in the order of their worth, no more than fit into a note.
func (all claims) trimmed(now time.Time) claims {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b claim) int { return b.order(&a) })
	ranks := make(map[uint64]int, len(sorted))
	var longest time.Time // that a newer line holds
	for i := range sorted {
		c := &sorted[i]
		switch {
		case c.sharedLine == nil:
			ranks[c.id] = 3
			continue
		case c.endedAt(now.Add(-forgetEnded)):
			ranks[c.id] = 2
		case !longest.IsZero() && !c.end().After(longest):
			ranks[c.id] = 1
		}
		if c.end().After(longest) {
			longest = c.end()
		}
	}
	slices.SortStableFunc(sorted, func(a, b claim) int { return cmp.Compare(ranks[a.id], ranks[b.id]) })
	kept, size := claims(nil), noteHead
	for i := range sorted {
		if n := len(sorted[i].encode(nil)); len(kept) < maxClaims && size+n <= maxNote {
			kept, size = append(kept, sorted[i]), size+n
		}
	}
	return kept
}

// isSpent tells whether nothing of it holds at that time.
func (all claims) isSpent(now time.Time) bool {
	return !slices.ContainsFunc(all, func(c claim) bool { return c.sharedLine != nil && !c.endedAt(now) })
}

// rests tells whether nothing newer than an auto is said, if anything. That is what is forgotten first.
func (all claims) rests(now time.Time) bool {
	var newest *claim
	for i := range all {
		if c := &all[i]; c.sharedLine != nil && !c.endedAt(now) && (newest == nil || newest.order(c) < 0) {
			newest = c
		}
	}
	return newest == nil || newest.Says == Auto
}
