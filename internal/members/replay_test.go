package members

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

func TestWindow(t *testing.T) {
	var w window
	for _, tt := range []struct {
		number uint64
		isNew  bool
	}{
		{0, false}, {1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {3, false},
		{900, true}, {4, true}, {4, false}, {1 << 20, true}, {1 << 20, false}, {900, false}, {5, false},
		{1<<20 - 900, true}, {1<<20 - 900, false}, {1<<20 - late + 1, true}, {1<<20 - late, false}, {1<<20 + 64, true}, {1<<20 - 1, true},
		{math.MaxUint64, true}, {math.MaxUint64, false}, {math.MaxUint64 - 1, true}, {1, false},
	} {
		if got := w.take(tt.number); got != tt.isNew {
			t.Errorf("%d: %v, want %v", tt.number, got, tt.isNew)
		}
	}
}

// Whatever the order, no number is taken twice, and each is that is not far behind.
func TestWindowAgainstSet(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 0))
	var w window
	seen, newest := make(map[uint64]bool), uint64(0)
	for range 100000 {
		number := 1 + newest + r.Uint64N(200)
		if back := r.Uint64N(1500); back < number && r.IntN(3) > 0 {
			number -= back
		}
		got := w.take(number)
		switch near := number+late > newest; {
		case got && seen[number]:
			t.Fatalf("%d is taken twice, the newest is %d", number, newest)
		case !got && !seen[number] && near:
			t.Fatalf("%d is not taken, the newest is %d", number, newest)
		}
		seen[number], newest = true, max(newest, number)
	}
}

func TestCopiesAreBounded(t *testing.T) {
	var c copies
	stamp := func(id, number uint64) (s [stampSize]byte) {
		binary.BigEndian.PutUint64(s[:], id)
		binary.BigEndian.PutUint64(s[8:], number)
		return s
	}
	for id := range uint64(maxNumberings + 100) {
		if !c.isNew(stamp(id, 7)) || c.isNew(stamp(id, 7)) {
			t.Fatalf("the first of %d is not told from its copy", id)
		}
	}
	if len(c.numberings) != maxNumberings {
		t.Errorf("%d are remembered, want %d", len(c.numberings), maxNumberings)
	}
	if c.isNew(stamp(maxNumberings, 7)) {
		t.Error("a late one is forgotten")
	}
}
