package health

import (
	"math/rand/v2"
	"testing"

	"github.com/coredns-shaker/shaker/checker"
)

// results maps the letters used in tables.
var results = map[rune]checker.Result{
	'a': checker.Answered, 'r': checker.Refused, 't': checker.Timeout,
	'u': checker.Unreachable, '-': checker.Inconclusive,
}

func TestRule(t *testing.T) {
	const rise, fall = 2, 3
	tests := []struct {
		results string
		want    State
		row     int // of the last result
	}{
		{"", Unknown, 0},
		{"-", Unknown, 0},
		{"----", Unknown, 0},
		{"a", Up, 1},
		{"r", Down, 1},
		{"t", Unknown, 1},
		{"u", Unknown, 1},
		{"tu", Unknown, 2},
		{"tut", Down, 3},
		{"uuu", Down, 3},
		{"t-t--u", Down, 3},
		{"tr", Down, 2},
		{"tta", Up, 1},
		{"-a", Up, 1},
		{"-r", Down, 1},
		{"aa", Up, 0},
		{"ar", Up, 1},
		{"arr", Up, 2},
		{"arrr", Down, 3},
		{"artu", Down, 3},
		{"arrarr", Up, 2},
		{"arr-r", Down, 3},
		{"arr-", Up, 2},
		{"r-a-a", Up, 2},
		{"ra", Down, 1},
		{"raa", Up, 2},
		{"rara", Down, 1},
		{"rr", Down, 0},
		{"raarr", Up, 2},
		{"raarrr", Down, 3},
		{"raarrraa", Up, 2},
	}
	for _, tt := range tests {
		var s standing
		row := 0
		for _, letter := range tt.results {
			s, row = s.after(results[letter], rise, fall)
		}
		if s.state != tt.want || row != tt.row {
			t.Errorf("%q: %v with a row of %d, want %v with %d", tt.results, s.state, row, tt.want, tt.row)
		}
	}
}

func TestRuleOfOne(t *testing.T) {
	for letters, want := range map[string]State{"t": Down, "at": Down, "ra": Up, "ara": Up} {
		var s standing
		for _, letter := range letters {
			s, _ = s.after(results[letter], 1, 1)
		}
		if s.state != want {
			t.Errorf("%q: %v, want %v", letters, s.state, want)
		}
	}
}

// naive says what the history of results means, by looking at all of it each time.
func naive(history []checker.Result, rise, fall int) State {
	var conclusive []checker.Result
	state := Unknown
	for _, r := range history {
		if r == checker.Inconclusive {
			continue
		}
		conclusive = append(conclusive, r)
		n := len(conclusive)
		lastAre := func(count int, answered bool) bool {
			if n < count {
				return false
			}
			for _, r := range conclusive[n-count:] {
				if (r == checker.Answered) != answered {
					return false
				}
			}
			return true
		}
		switch {
		case state == Unknown && r == checker.Answered:
			state = Up
		case state == Unknown && r == checker.Refused:
			state = Down
		case state != Down && lastAre(fall, false):
			state = Down
		case state == Down && lastAre(rise, true):
			state = Up
		}
	}
	return state
}

func TestRuleAgainstNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := checker.Results()
	for range 3000 {
		rise, fall := 1+random.IntN(4), 1+random.IntN(4)
		answers := random.Float64()
		var s standing
		var history []checker.Result
		for range 40 {
			r := all[random.IntN(len(all))]
			if random.Float64() < answers {
				r = checker.Answered
			}
			history = append(history, r)
			s, _ = s.after(r, rise, fall)
			if want := naive(history, rise, fall); s.state != want {
				t.Fatalf("rise %d, fall %d, %v: %v, want %v", rise, fall, history, s.state, want)
			}
		}
	}
}

func TestStateString(t *testing.T) {
	for state, want := range map[State]string{Unknown: "unknown", Up: "up", Down: "down", State(9): "unknown"} {
		if got := state.String(); got != want {
			t.Errorf("State(%d) = %q, want %q", state, got, want)
		}
	}
}
