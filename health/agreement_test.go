package health

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// words makes words of letters: d down, u up, c checking, x unable, - nothing.
func words(s string) (all []Word) {
	for _, letter := range s {
		all = append(all, map[rune]Word{'d': SaysDown, 'u': SaysUp, 'c': Checking, 'x': Unable, '-': NoWord}[letter])
	}
	return all
}

func states3(s string) (all []State) {
	for _, letter := range s {
		all = append(all, map[rune]State{'d': Down, 'u': Up, '-': Unknown}[letter])
	}
	return all
}

func TestAgree(t *testing.T) {
	tests := []struct {
		words   string
		inForce State
		want    State
		tally   Tally
	}{
		{"", Down, Unknown, Tally{}},
		{"d", Up, Down, Tally{0, 1, 1}},
		{"u", Down, Up, Tally{1, 0, 1}},
		{"c", Unknown, Unknown, Tally{0, 0, 1}},
		{"c", Up, Up, Tally{0, 0, 1}},
		{"-", Down, Down, Tally{0, 0, 1}},
		{"x", Down, Unknown, Tally{}},
		// Two have to be of one mind.
		{"dd", Up, Down, Tally{0, 2, 2}},
		{"du", Down, Up, Tally{1, 1, 2}},
		{"dc", Up, Up, Tally{0, 1, 2}},
		{"dc", Down, Down, Tally{0, 1, 2}},
		{"dc", Unknown, Unknown, Tally{0, 1, 2}},
		{"d-", Unknown, Unknown, Tally{0, 1, 2}},
		{"uc", Down, Up, Tally{1, 0, 2}},
		{"dx", Up, Down, Tally{0, 1, 1}},
		// Of three, two.
		{"ddu", Up, Down, Tally{1, 2, 3}},
		{"duu", Down, Up, Tally{2, 1, 3}},
		{"dcc", Down, Down, Tally{0, 1, 3}},
		{"dcc", Up, Up, Tally{0, 1, 3}},
		{"ddc", Up, Down, Tally{0, 2, 3}},
		{"duc", Down, Down, Tally{1, 1, 3}},
		{"ucc", Down, Down, Tally{1, 0, 3}},
		{"uuc", Down, Up, Tally{2, 0, 3}},
		{"ccc", Unknown, Unknown, Tally{0, 0, 3}},
		{"ccu", Unknown, Up, Tally{1, 0, 3}},
		{"ddxuu", Up, Up, Tally{2, 2, 4}},
		{"dddu-", Up, Down, Tally{1, 3, 5}},
	}
	for _, tt := range tests {
		if got, tally := Agree(words(tt.words), tt.inForce); got != tt.want || tally != tt.tally {
			t.Errorf("%q, %v in force: %v, %+v, want %v, %+v", tt.words, tt.inForce, got, tally, tt.want, tt.tally)
		}
	}
}

// Nothing depends on the order of voters. Nothing goes down while half of them say that it is up, or that it stays so, and
// everything goes down once more than half say so.
func TestAgreeProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 15))
	for range 100000 {
		all := make([]Word, random.IntN(MostVoters+1))
		for i := range all {
			all[i] = []Word{NoWord, Checking, Unable, SaysUp, SaysDown}[random.IntN(5)]
		}
		inForce := State(random.IntN(int(states)))
		got, tally := Agree(all, inForce)
		shuffled := slices.Clone(all)
		random.Shuffle(len(all), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again, same := Agree(shuffled, inForce); again != got || same != tally {
			t.Fatalf("%v and %v have decided %v and %v", all, shuffled, got, again)
		}
		undecided := tally.Of - tally.Up - tally.Down
		up, down := tally.Up, tally.Down
		switch inForce {
		case Up:
			up += undecided
		case Down:
			down += undecided
		}
		switch {
		case got == Down && 2*up >= tally.Of && tally.Of > 0, 2*tally.Down > tally.Of && got != Down:
			t.Fatalf("%v, %v in force: %v", all, inForce, got)
		case got == Unknown && up > 0, got == Up && up == 0:
			t.Fatalf("%v, %v in force: %v", all, inForce, got)
		case got != inForce && got == Down && 2*down <= tally.Of:
			t.Fatalf("%v, %v in force: %v", all, inForce, got)
		}
	}
}

func TestAgreeSites(t *testing.T) {
	tests := []struct {
		sites string
		want  State
		tally Tally
	}{
		{"", Unknown, Tally{}},
		{"d", Down, Tally{0, 1, 1}},
		{"du", Up, Tally{1, 1, 2}},
		{"d-", Unknown, Tally{0, 1, 2}},
		{"dd", Down, Tally{0, 2, 2}},
		{"ddu", Down, Tally{1, 2, 3}},
		{"d-u", Up, Tally{1, 1, 3}},
		{"---", Unknown, Tally{0, 0, 3}},
	}
	for _, tt := range tests {
		if got, tally := AgreeSites(states3(tt.sites)); got != tt.want || tally != tt.tally {
			t.Errorf("%q: %v, %+v", tt.sites, got, tally)
		}
	}
}

func TestTold(t *testing.T) {
	for others, want := range map[string]State{
		"": Unknown, "-": Unknown, "d": Down, "u": Up, "d-": Down, "du": Up, "ddu": Down, "duu": Up, "---d": Down,
	} {
		if got := Told(states3(others)); got != want {
			t.Errorf("%q: %v, want %v", others, got, want)
		}
	}
}

func hashes(names ...string) (all []uint64) {
	for _, name := range names {
		all = append(all, HashMember(name))
	}
	return all
}

func members(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("replica%d-%x", i, i*7919))
	}
	return names
}

// subject returns the i-th of many subjects, of both families.
func subject(i int) Subject {
	if i%3 == 0 {
		return Subject{netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%x]:443", i&0xffff)), uint64(i % 2)}
	}
	return Subject{addr(i), uint64(i % 2)}
}

// The numbers by which replicas choose are the same everywhere, so they must never change.
func TestHashesStayTheSame(t *testing.T) {
	for _, tt := range []struct {
		s    Subject
		want uint64
	}{
		{Subject{netip.MustParseAddrPort("192.0.2.1:443"), 1}, 0xb9b6a2fb7e12c25d},
		{Subject{netip.MustParseAddrPort("[::ffff:192.0.2.1]:443"), 1}, 0xb9b6a2fb7e12c25d},
		{Subject{netip.MustParseAddrPort("[2001:db8::1]:443"), 1 << 63}, 0xbb9dc71d8e095af4},
	} {
		if got := tt.s.Hash(); got != tt.want {
			t.Errorf("%v: %#x, want %#x", tt.s, got, tt.want)
		}
	}
	if got, want := HashMember("ns1-5f3a"), uint64(0x3ad6ee317bb1f0c0); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
	if got, want := Weight(1, 0x3ad6ee317bb1f0c0), uint64(0xec3527906fda1ebf); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// Each member is as often the first as the others.
func TestWeightIsFair(t *testing.T) {
	const targets = 30000
	for _, n := range []int{2, 4, 10, 30} {
		first, shares := make([]int, n), make([]float64, n)
		all := hashes(members(n)...)
		for i := range shares {
			shares[i] = 1 / float64(n)
		}
		for i := range targets {
			target, best := subject(i).Hash(), 0
			for j := range all {
				if Weight(target, all[j]) > Weight(target, all[best]) {
					best = j
				}
			}
			first[best]++
		}
		if p := lab.ChiSquared(first, shares); p < lab.Significance {
			t.Errorf("%d members: %v, which chance does with a likelihood of %v", n, first, p)
		}
	}
}

func TestContradicted(t *testing.T) {
	const notices = 5 * time.Second
	says := func(s string, age time.Duration) (all []Opinion) {
		for _, w := range words(s) {
			all = append(all, Opinion{Word: w, Age: age})
		}
		return all
	}
	tests := []struct {
		age    time.Duration
		others []Opinion
		want   bool
	}{
		{time.Minute, nil, false},
		{time.Minute, says("uu", time.Minute), true},
		{time.Minute, says("u", time.Minute), true},
		{time.Minute, says("ud", time.Minute), false},
		{time.Minute, says("uc-x", time.Minute), true},
		{time.Minute, says("c-x", time.Minute), false},
		{notices, says("uu", time.Minute), false},
		{notices + 1, says("uu", time.Minute), true},
		{time.Minute, says("uu", notices), false},
		{time.Minute, append(says("u", time.Minute), says("u", 0)...), false},
		{time.Minute, append(says("u", time.Minute), says("c", 0)...), true},
	}
	for i, tt := range tests {
		if got := Contradicted(tt.age, tt.others, notices); got != tt.want {
			t.Errorf("case %d: %v", i, got)
		}
	}
}

func TestInDoubt(t *testing.T) {
	for _, tt := range []struct {
		contradicted, down int
		want               bool
	}{
		{0, 0, false}, {9, 9, false}, {10, 10, true}, {10, 19, true}, {10, 20, false}, {100, 199, true}, {100, 200, false},
	} {
		if got := InDoubt(tt.contradicted, tt.down); got != tt.want {
			t.Errorf("%d of %d: %v", tt.contradicted, tt.down, got)
		}
	}
}

func TestIsStuck(t *testing.T) {
	for _, tt := range []struct {
		pending            int
		unchanged, longest time.Duration
		want               bool
	}{
		{0, time.Hour, time.Second, false},
		{1, 4 * time.Second, time.Second, false},
		{1, 4*time.Second + 1, time.Second, true},
		{1000, time.Hour, 1<<63 - 1, false},
	} {
		if got := IsStuck(tt.pending, tt.unchanged, tt.longest); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestNotices(t *testing.T) {
	for _, tt := range []struct {
		s    Settings
		want time.Duration
	}{
		{Settings{}, 5 * time.Second},
		{Settings{Rise: 5}, 7 * time.Second},
		{Settings{Interval: 10 * time.Second, Fast: 2 * time.Second, Fall: 1, Rise: 1}, 12 * time.Second},
		{Settings{Fall: math.MaxInt}, maxDuration},
		{Settings{Timeout: 1<<63 - 1, Fall: 1, Rise: 1}, 2*time.Second + maxDuration},
	} {
		s := settings(unique.Make(tt.s))
		if got := s.Notices(); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.s, got, tt.want)
		}
	}
}

func TestWordString(t *testing.T) {
	var all []string
	for _, w := range words("-cxud") {
		all = append(all, w.String())
	}
	if got := strings.Join(all, " "); got != " checking unable up down" {
		t.Error(got)
	}
}
