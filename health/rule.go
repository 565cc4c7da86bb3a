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

// contradicts tells whether a result speaks against the state. Inconclusive results speak neither
// for nor against any, and nothing speaks for Unknown.
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

// verdict is a state and how many results in a row have contradicted it. For Unknown only failures
// make a row, because the first answer ends it.
type verdict struct {
	state State
	run   int32
}

// after returns the verdict once result r is in, and the length of the row that r belongs to: how
// many results in a row contradict v.state, r being the newest. The row is what the log tells when
// the state changed.
func (v verdict) after(r checker.Result, rise, fall int) (next verdict, row int) {
	switch {
	case r == checker.Inconclusive:
		return v, int(v.run)
	case !v.state.contradicts(r):
		return verdict{state: v.state}, 0
	}
	to, need, run := Down, fall, v.run+1
	if r == checker.Answered {
		to, need = Up, rise
	}
	if v.state == Unknown {
		switch r {
		case checker.Answered:
			// The failures before it were no answers.
			need, run = 1, 1
		case checker.Refused:
			// The host itself says that nothing listens, there is no doubt to wait for.
			need = 1
		}
	}
	if int(run) >= need {
		return verdict{state: to}, int(run)
	}
	return verdict{state: v.state, run: run}, int(run)
}
