package checker

import (
	"encoding/binary"
	"testing"
)

// The table knows what it was told last, up to its bound, and forgets on demand.
func TestSourceTable(t *testing.T) {
	address := func(i uint32) (a [4]byte) {
		binary.BigEndian.PutUint32(a[:], i)
		return a
	}
	s := newSourceTable()
	const targets = 5000
	for round := range uint32(2) { // the second time the others
		for i := range uint32(targets) {
			s.put(address(i<<8), address(i+round))
		}
	}
	for i := uint32(1); i < targets; i++ {
		if source, ok := s.get(address(i << 8)); !ok || source != address(i+1) {
			t.Fatalf("target %d: source %v, %v", i, source, ok)
		}
		if _, ok := s.get(address(i<<8 + 1)); ok {
			t.Fatalf("target %d: the one beside it has a source", i)
		}
	}
	if _, ok := s.get(address(0)); ok {
		t.Error("0.0.0.0 has a source")
	}
	if s.used != targets-1 {
		t.Errorf("%d in use, want %d", s.used, targets-1)
	}
	for i := range uint32(rememberedRoutes) {
		s.put(address(1<<31+i), address(i))
	}
	if s.used > rememberedRoutes || len(s.entries) > 2*rememberedRoutes {
		t.Errorf("%d in use of %d, want at most %d", s.used, len(s.entries), rememberedRoutes)
	}
	s.forget()
	if _, ok := s.get(address(1<<31 + rememberedRoutes - 1)); ok || s.used != 0 {
		t.Error("it has forgotten nothing")
	}
}
