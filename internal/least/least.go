// Package least finds the least of many values in one pass, with room for twice as many as are wanted.
package least

import (
	"math/rand/v2"
	"slices"
)

// Of are the least of the values that were added.
type Of[T any] struct {
	n       int
	compare func(a, b T) int
	kept    []T
	full    bool // at least n values were added, and bound is no less than any of those that belong to the least
	bound   T
}

// New returns room for the n least values, n being positive, of about so many. compare orders them as that of
// [slices.SortFunc] does.
func New[T any](n, of int, compare func(a, b T) int) *Of[T] {
	if n < of/2 {
		of = 2 * n
	}
	return &Of[T]{n: n, compare: compare, kept: make([]T, 0, of)}
}

// Add adds a value. It takes a constant time on average, whatever n is.
func (l *Of[T]) Add(value T) {
	if l.full && l.compare(value, l.bound) >= 0 {
		return
	}
	l.kept = append(l.kept, value)
	if len(l.kept)-l.n >= l.n {
		l.trim()
	}
}

// trim leaves the n least.
func (l *Of[T]) trim() {
	place(l.kept, l.n-1, l.compare)
	clear(l.kept[l.n:])
	l.kept = l.kept[:l.n]
	l.full, l.bound = true, l.kept[l.n-1]
}

// From returns the least in their order, without the first ones. Only what is returned is sorted. Nothing may be added
// afterwards.
func (l *Of[T]) From(first int) []T {
	if len(l.kept) > l.n {
		l.trim()
	}
	if first >= len(l.kept) {
		return nil
	}
	place(l.kept, first, l.compare)
	rest := l.kept[first:]
	slices.SortFunc(rest, l.compare)
	return rest
}

// place puts the value that belongs at an index there. Those before it are not greater, and those behind it not less. This
// is Hoare's "Find" (Communications of the ACM 4:7, 1961). Since its pivots are random, nobody can make it slow.
func place[T any](values []T, index int, compare func(a, b T) int) {
	for low, high := 0, len(values)-1; low < high; {
		pivot := values[low+rand.IntN(high-low+1)]
		i, j := low, high
		for i <= j {
			for compare(values[i], pivot) < 0 {
				i++
			}
			for compare(pivot, values[j]) < 0 {
				j--
			}
			if i <= j {
				values[i], values[j] = values[j], values[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case index <= j:
			high = j
		case index >= i:
			low = i
		default:
			return
		}
	}
}
