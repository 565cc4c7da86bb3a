package checker

import (
	"math/rand/v2"
	"testing"
)

// The table does what a map does, also where many hashes are the same, and where entries wrap around its end.
func TestPaths(t *testing.T) {
	for _, hashes := range []uint64{3, 40, 1 << 20} {
		random := rand.New(rand.NewPCG(1, hashes))
		var p paths
		want := make(map[int32]uint64)
		for step := range 20000 {
			id := random.Int32N(500)
			hash, there := want[id]
			if !there {
				hash = (random.Uint64N(hashes) - hashes/2) << 40 // around zero: at both ends of the table
			}
			is := func(other int32) bool { return other == id }
			switch got, ok := p.find(hash, is); {
			case ok != there || ok && got != id:
				t.Fatalf("step %d: found %d, %v; want %d, %v", step, got, ok, id, there)
			case there:
				p.remove(hash, id)
				delete(want, id)
			default:
				p.add(hash, id)
				want[id] = hash
			}
			if p.len() != len(want) {
				t.Fatalf("step %d: %d paths, want %d", step, p.len(), len(want))
			}
		}
	}
}

// An id on two paths at a time keeps the one that is not removed, wherever the two entries are.
func TestPathsChange(t *testing.T) {
	const first, second, third = 1 << 32, 2 << 32, 3 << 32 // of one place, in a small table
	for _, removed := range []uint64{first, second} {
		var p paths
		p.add(first, 7)
		p.add(third, 8)
		p.add(second, 7)
		p.remove(removed, 7)
		for _, hash := range []uint64{first, second, third} {
			if _, ok := p.find(hash, func(int32) bool { return true }); ok != (hash != removed) {
				t.Errorf("without %#x: %#x is there: %v", removed, hash, ok)
			}
		}
	}
}
