package watch

import (
	"hash/fnv"
	"time"
)

// Names are looked up one after the other, and not all in the same moment: neither the plugins below nor an upstream
// must be flooded at a start, at a reload, or whenever a TTL runs out.
const (
	// perSecond is how many names are looked up for the first time in a second.
	perSecond = 100
	// allWithin is when all names have been, however many they are. It leaves time to be ready within patience.
	allWithin = 10 * time.Second
	// spread is the largest part that is taken off a wait for the next look-up.
	spread = 0.1
)

// Group is all that an instance watches. The zero value watches nothing. Names must not be added while it is in use.
type Group struct {
	watches []*Watch
}

// Add adds a name. Somebody has to call its Run.
func (g *Group) Add(wanted Wanted, ask Ask, tell Listener) *Watch {
	w := &Watch{Wanted: wanted, ask: ask, tell: tell, group: g, index: len(g.watches), early: spread * fraction(wanted.Name)}
	g.watches = append(g.watches, w)
	return w
}

// Ready tells whether every name was resolved and its targets have verdicts, or nobody should wait for that any longer.
func (g *Group) Ready() bool {
	for _, w := range g.watches {
		if !w.isReady() {
			return false
		}
	}
	return true
}

// TakeOver has the group know of its names what another one knows, which it is to replace. So who was ready stays it.
func (g *Group) TakeOver(old *Group) {
	type key struct{ name, settings string }
	known := make(map[key]*Watch, len(old.watches))
	for _, w := range old.watches {
		known[key{w.Name, w.Settings}] = w
	}
	for _, w := range g.watches {
		if before := known[key{w.Name, w.Settings}]; before != nil {
			before.mu.Lock()
			s := before.state
			s.pending = append([]Target(nil), s.pending...)
			before.mu.Unlock()
			w.mu.Lock()
			w.state = s
			w.mu.Unlock()
		}
	}
}

// delay returns when, after the start, a name is looked up for the first time.
func (g *Group) delay(index int) time.Duration {
	gap := min(time.Second/perSecond, allWithin/time.Duration(len(g.watches)))
	return time.Duration(index) * gap
}

// fraction returns a number from 0 to 1 that is always the same for a name, and seems to be drawn at random.
func fraction(name string) float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	// The upper bits of the hash differ little between names that do so in their first letters only. Fibonacci hashing
	// (Knuth, The Art of Computer Programming, 6.4) has all bits matter in them.
	return float64(h.Sum64()*0x9E3779B97F4A7C15>>11) / (1 << 53)
}
