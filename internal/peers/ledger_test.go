package peers

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/coredns-shaker/shaker/health"
)

// Spans are the set of numbers that they were given, whatever the order.
func TestSpans(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s spans
		known := make([]bool, 400)
		for range 40 {
			first := 1 + rng.Uint64N(380)
			x := span{first, first + rng.Uint64N(20)}
			for n := x.first; n <= x.last; n++ {
				known[n] = true
			}
			s.add(x)
			checkSpans(t, s, known)
		}
	}
	var s spans
	for i := range uint64(3 * maxSpans) {
		s.add(span{3*i + 2, 3*i + 3})
	}
	if len(s) > maxSpans {
		t.Errorf("%d spans", len(s))
	}
	s.add(span{1, ^uint64(0)})
	if len(s) != 1 || len(s.gaps(^uint64(0))) > 0 {
		t.Errorf("%v", s)
	}
}

func checkSpans(t *testing.T, s spans, known []bool) {
	t.Helper()
	newest, missing, level := uint64(len(known)-1), uint64(0), uint64(0)
	asked := make([]bool, len(known))
	gaps := s.gaps(newest)
	for _, x := range gaps {
		for n := x.first; n <= x.last; n++ {
			asked[n] = true
		}
	}
	for n := uint64(1); n <= newest; n++ {
		if s.has(span{n, n}) != known[n] {
			t.Fatalf("%v: number %d is known: %v", s, n, known[n])
		}
		if !known[n] {
			missing++
			if !asked[n] {
				t.Fatalf("%v: number %d is in none of the gaps %v", s, n, gaps)
			}
		} else if missing == 0 {
			level = n
		}
	}
	if s.missing(newest) != missing || s.level() != level || len(gaps) > maxGaps {
		t.Fatalf("%v: %d missing, level %d, %d gaps", s, s.missing(newest), s.level(), len(gaps))
	}
	if missing == 0 && len(gaps) > 0 {
		t.Fatalf("%v: gaps %v", s, gaps)
	}
}

// What a ledger has said can be told to anybody: from the beginning, or since any number, through losses, twice and out of order.
// In the end he knows the same.
func TestLedgersAreLearned(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		from := newCore(Config{}, "b", nil, Listener{}, new(wire))
		from.ledger.graves = 16
		to := newCore(Config{}, "a", nil, Listener{Noted: func(string, string, []byte) {}}, new(wire))
		to.joined("b", from.config.Address, from.meta())
		subjects := 10 + rng.IntN(3000)
		for range 20 {
			for range rng.IntN(subjects) {
				sayAtRandom(from, rng, subjects)
			}
			exchange(from, to, rng)
		}
		for range 5 {
			exchange(from, to, nil)
		}
		to.checkInvariants(t)
		if got, want := knownOf(to, "b"), said(from); got != want {
			t.Fatalf("seed %d: \n got %.300s\nwant %.300s", seed, got, want)
		}
		if from.ledger.dead > max(from.ledger.living, leastGraves) || len(from.ledger.log) > 2*(from.ledger.living+from.ledger.dead)+leastGraves {
			t.Errorf("seed %d: the ledger keeps %d removed beside %d, in %d", seed, from.ledger.dead, from.ledger.living, len(from.ledger.log))
		}
	}
}

func sayAtRandom(c *core, rng *rand.Rand, subjects int) {
	switch rng.IntN(20) {
	case 0:
		c.ledger.offer(rng.Uint64N(5)+1, rng.IntN(2) == 0)
	case 1:
		c.ledger.write(note{[]byte(fmt.Sprint(rng.IntN(10))), []byte(fmt.Sprint(rng.IntN(100)))})
	default:
		o := opinion{word: health.Word(rng.IntN(5)), inForce: health.State(rng.IntN(3)), rtt: uint32(rng.IntN(3))}
		if rng.IntN(3) == 0 {
			o = opinion{}
		}
		c.ledger.say(subject(target(rng.IntN(subjects)).String(), 7), o, 0)
	}
}

// exchange has one replica ask another for what is missing, and be told some of it.
func exchange(from, to *core, rng *rand.Rand) {
	network := from.network.(*wire)
	network.sent = nil
	from.told = from.ledger.newest
	m := to.byName["b"]
	to.receive(appendBeat(appendEnvelope(nil, kindBeat, "b"), &beat{newest: from.ledger.newest}))
	gaps := m.have.gaps(m.newest)
	if len(gaps) == 0 {
		return
	}
	from.strangersLeft = 1000
	message := appendAsk(appendEnvelope(nil, kindAsk, "a"), &ask{gaps, m.base, to.config.Address})
	if rng == nil || rng.IntN(2) == 0 {
		for _, x := range gaps {
			whole := m.base < from.ledger.forgotten && gaps[0].first <= from.ledger.forgotten
			if whole {
				x = span{1, from.ledger.newest}
			}
			from.sendSpan(x, whole, func(b []byte, reliable bool) { network.send("a", b, reliable) })
			if whole {
				break
			}
		}
	} else {
		from.receive(message)
	}
	sent := network.sent
	if rng != nil {
		rng.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
		sent = append(sent, sent[:len(sent)/2]...)
	}
	for _, x := range sent {
		if rng == nil || rng.IntN(4) > 0 {
			to.receive(bytes.Clone(x.message))
		}
	}
}

// said is what a ledger says, in words.
func said(c *core) string {
	var b bytes.Buffer
	for i := range 3010 {
		if f := c.ledger.words[subject(target(i).String(), 7)]; f != nil && !f.removed {
			fmt.Fprintf(&b, "%d %v %v %v\n", i, f.opinion.word, f.opinion.inForce, f.opinion.rtt)
		}
	}
	for i := range uint64(10) {
		if f := c.ledger.offers[i]; f != nil && !f.removed {
			fmt.Fprintf(&b, "offers %d\n", i)
		}
	}
	return b.String()
}

// knownOf is what is known of a member, likewise.
func knownOf(c *core, name string) string {
	m := c.byName[name]
	var b bytes.Buffer
	for i := range 3010 {
		if r := c.records.get(subject(target(i).String(), 7), false); r != nil {
			if o := r.opinionOf(m); !o.isNothing() {
				fmt.Fprintf(&b, "%d %v %v %v\n", i, o.word, o.inForce, o.rtt)
			}
		}
	}
	for i := range uint64(10) {
		if m.offers[i].offered {
			fmt.Fprintf(&b, "offers %d\n", i)
		}
	}
	return b.String()
}

// What is known of others is bounded, however much they say.
func TestLedgersAreBounded(t *testing.T) {
	l := newLedger()
	for i := range maxNotes + 10 {
		if _, fits := l.write(note{[]byte(fmt.Sprint(i)), []byte{1}}); fits != (i < maxNotes) {
			t.Fatalf("note %d fits: %v", i, fits)
		}
	}
	l = newLedger()
	value := bytes.Repeat([]byte{1}, maxNoteValue)
	for i := range maxNotes {
		if _, fits := l.write(note{fmt.Appendf(nil, "%07d", i), value}); !fits {
			break
		}
	}
	if l.noteOctets > maxNoteOctets || l.noteOctets < maxNoteOctets-1000 {
		t.Errorf("%d octets of notes", l.noteOctets)
	}
	for i := range uint64(maxOffers + 10) {
		l.offer(i, true)
	}
	if len(l.offers) != maxOffers {
		t.Errorf("%d offers", len(l.offers))
	}
}

// Notes without a value are removed, and make room: as many as may be come and go for as long as one likes.
func TestNotesRemoved(t *testing.T) {
	l := newLedger()
	key := func(i int) []byte { return []byte(fmt.Sprint("rule ", i)) }
	for i := range 5 * maxNotes {
		if changed, fits := l.write(note{key(i), []byte("down")}); !changed || !fits {
			t.Fatalf("note %d: changed %v, fits %v", i, changed, fits)
		}
		if changed, fits := l.write(note{key(i - maxNotes/2), nil}); changed != (i >= maxNotes/2) || !fits {
			t.Fatalf("note %d removed: changed %v, fits %v", i-maxNotes/2, changed, fits)
		}
	}
	if living := len(l.notes) - l.lostNotes; living != maxNotes/2 || l.lostNotes > maxNotes || l.lostNotes != l.dead || l.noteOctets > len(l.notes)*20 {
		t.Errorf("%d notes and %d removed ones, %d dead, of %d octets", living, l.lostNotes, l.dead, l.noteOctets)
	}
	// One that is written again is no longer removed.
	if changed, _ := l.write(note{key(5*maxNotes - maxNotes/2 - 1), []byte("up")}); !changed || l.lostNotes != l.dead {
		t.Errorf("written again: changed %v, %d removed, %d dead", changed, l.lostNotes, l.dead)
	}
}
