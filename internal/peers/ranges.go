package peers

import (
	"math"
	"slices"
)

// maxSpans bounds the memory of what is missing between entries.
const maxSpans = 64

// span is the numbers from first to last.
type span struct{ first, last uint64 }

// spans are the numbers of a ledger that are known, in order. No two of them touch.
type spans []span

// add takes numbers in. Where there would be too many spans, the highest are forgotten: those are asked for again.
func (s *spans) add(x span) {
	from, _ := slices.BinarySearchFunc(*s, x.first, func(y span, first uint64) int {
		if y.last < math.MaxUint64 && y.last+1 < first {
			return -1
		}
		return 1
	})
	to := from
	for to < len(*s) && (x.last == math.MaxUint64 || (*s)[to].first <= x.last+1) {
		x.first, x.last = min(x.first, (*s)[to].first), max(x.last, (*s)[to].last)
		to++
	}
	*s = slices.Replace(*s, from, to, x)
	if len(*s) > maxSpans {
		*s = (*s)[:maxSpans]
	}
}

// has tells whether all numbers of a span are known.
func (s spans) has(x span) bool {
	for _, y := range s {
		if y.first <= x.first && x.last <= y.last {
			return true
		}
	}
	return false
}

// level returns the number up to which all is known.
func (s spans) level() uint64 {
	if len(s) == 0 || s[0].first > 1 {
		return 0
	}
	return s[0].last
}

const (
	// maxGaps is how many gaps are asked for at a time, and nearGaps how many numbers two have between them at least. Nearer ones
	// are asked for together with what is between them.
	maxGaps, nearGaps = 16, 64
)

// gaps returns spans that have all numbers up to newest that are missing.
func (s spans) gaps(newest uint64) (all []span) {
	from := uint64(1)
	add := func(x span) {
		switch last := len(all) - 1; {
		case x.first > x.last:
		case last >= 0 && (x.first-all[last].last <= nearGaps || len(all) == maxGaps):
			all[last].last = x.last
		default:
			all = append(all, x)
		}
	}
	for _, y := range s {
		if y.first > newest {
			break
		}
		add(span{from, y.first - 1})
		if y.last >= newest {
			return all
		}
		from = y.last + 1
	}
	add(span{from, newest})
	return all
}

// missing returns how many numbers up to newest are not known.
func (s spans) missing(newest uint64) uint64 {
	n := newest
	for _, y := range s {
		if y.first > newest {
			break
		}
		n -= min(newest, y.last) - y.first + 1
	}
	return n
}
