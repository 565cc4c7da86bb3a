package health

import "github.com/coredns-shaker/shaker/checker"

// State is the verdict on a target. The zero value is Unknown.
type State uint8

const (
	// Unknown means that there is no verdict yet.
	Unknown State = iota
	// Up means that the target answers.
	Up
	// Down means that it does not.
	Down

	states // number of states
)

// String returns the state in lower case, as used in logs and metric labels.
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unknown"
	}
}

// contradicts tells whether a result speaks against the state. An inconclusive result contradicts no
// state, every other result contradicts Unknown.
func (s State) contradicts(r checker.Result) bool {
	switch r {
	case checker.Answered:
		return s != Up
	case checker.Refused, checker.Timeout, checker.Unreachable:
		return s != Down
	default:
		return false
	}
}

// standing is a state and how many results in a row have contradicted it. For Unknown only failures
// make a row, because the first answer ends it.
type standing struct {
	state State
	run   int32
}

// after returns the standing once result r is in, and the length of the row that r ends: how many
// results in a row have contradicted s.state. The log tells that length when the state changes.
func (s standing) after(r checker.Result, rise, fall int) (next standing, row int) {
	switch {
	case r == checker.Inconclusive:
		return s, int(s.run)
	case !s.state.contradicts(r):
		return standing{state: s.state}, 0
	}
	to, need, run := Down, fall, s.run+1
	if r == checker.Answered {
		to, need = Up, rise
	}
	if s.state == Unknown {
		switch r {
		case checker.Answered:
			// The row before it was one of failures.
			need, run = 1, 1
		case checker.Refused:
			// The host itself says that nothing listens. That leaves no doubt.
			need = 1
		}
	}
	if int(run) >= need {
		return standing{state: to}, int(run)
	}
	return standing{state: s.state, run: run}, int(run)
}
