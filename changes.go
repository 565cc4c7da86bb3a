package shaker

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unique"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
)

// maxReason bounds what an event keeps of an error that is no errno, in octets.
const maxReason = 200

// change is a change of a target's state as an event, with what its text takes. That is only made for those who read it: in
// a storm there are thousands of changes a second. It is one piece of memory, and keeps no target.
type change struct {
	events.Event
	target  events.Target
	to      health.State
	own     health.Word
	tally   health.Tally
	bySites bool // of the tally
	run     int
	result  checker.Result
	cause   string        // of an inconclusive result, otherwise empty
	damping time.Duration // for how long it will stay down, 0 without damping
	damped  bool          // it was kept down although it answered
}

// settingsKey tells settings by what stands for them. All events of targets that are checked alike share one.
type settingsKey struct{ health.Key }

// String implements fmt.Stringer.
func (k settingsKey) String() string { return k.Value().String() }

// kindOf returns the kind of a change to a state.
func kindOf(to health.State) events.Kind {
	switch to {
	case health.Down:
		return events.Down
	case health.Up:
		return events.Up
	default:
		return events.Unknown
	}
}

// eventOf returns the event of a change, with what is known of the target at the time. bySites tells that sites are counted,
// where there are several replicas.
func eventOf(c *health.Change, bySites bool) *change {
	settings := c.Target.Settings()
	e := &change{
		target:  targetOf(c.Target, c.To),
		to:      c.To,
		own:     c.Own,
		tally:   c.Tally,
		bySites: bySites,
		run:     c.Run,
		result:  c.Result,
		damping: c.Damping,
		// Without damping a target is up again after rise answers.
		damped: c.From == health.Down && c.To == health.Up && c.Run > settings.Rise,
	}
	if c.Own != health.NoWord || c.Tally.Of == 0 {
		e.target.Result, e.target.Reason = c.Result.String(), reasonOf(c.Err)
	}
	if c.Result == checker.Inconclusive {
		e.cause = checker.Cause(c.Err)
	}
	e.Event = events.Event{Kind: kindOf(c.To), Text: e, Target: &e.target}
	return e
}

// targetOf returns what is known of a target in a state, but for the result that led to that.
func targetOf(t *health.Target, state health.State) events.Target {
	return events.Target{
		Endpoint: t.Addr(),
		Answered: t.AliasAddrs(),
		Names:    t.Names(),
		Settings: settingsKey{unique.Make(t.Settings())},
		State:    state.String(),
	}
}

// reasonOf returns what is worth telling of the error of a check: the errno, if there is one.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return events.Clip(err.Error(), maxReason)
}

// String implements fmt.Stringer. It makes the line that the log has of the change.
func (e *change) String() string {
	target := titleOf(e.target.Endpoint, e.target.Answered)
	switch {
	case e.tally.Of > 1 || e.tally.Of == 1 && (e.run == 0 || e.bySites):
		return fmt.Sprintf("%s is %s: %s%s", target, e.to, countOf(e.tally, e.to, e.bySites), e.here())
	case e.run == 0 && (e.to == health.Down || e.own == health.Checking || e.own == health.Unable):
		return fmt.Sprintf("%s is %s: nobody else observes it any more, so that the own checks decide", target, e.to)
	case e.run == 0:
		return fmt.Sprintf("%s is %s: it went down just before verdicts were frozen", target, e.to)
	default:
		line := fmt.Sprintf("%s is %s: %s", target, e.to, e.row("this machine has"))
		if e.damping > 0 {
			line += fmt.Sprintf(". It flaps, so it stays down for %v at least", e.damping)
		}
		return line
	}
}

// row tells which results led to the own verdict.
func (e *change) row(noPath string) string {
	checks := "checks"
	if e.run == 1 {
		checks = "check"
	}
	switch {
	case e.to == health.Down && e.result == checker.Inconclusive:
		return fmt.Sprintf("%s no path to it, said %d %s in a row: %s", noPath, e.run, checks, e.cause)
	case e.damped:
		return fmt.Sprintf("%d of %d %s answered. It was kept down for so long because it flapped", e.run, e.run, checks)
	case e.to == health.Up:
		return fmt.Sprintf("%d of %d %s answered", e.run, e.run, checks)
	default:
		return fmt.Sprintf("%d of %d %s failed: %s", e.run, e.run, checks, e.result)
	}
}

// here tells what this replica says itself, where several have decided.
func (e *change) here() string {
	switch {
	case e.own == health.NoWord:
		return ""
	case e.own == health.Checking:
		return "; here it is being checked still"
	case e.own == health.Unable:
		return "; here checks lead to no verdict"
	case e.run > 0 && e.damping > 0:
		return fmt.Sprintf("; here %s. It flaps, so this replica says down for %v at least", e.row("there is"), e.damping)
	case e.run > 0:
		return "; here " + e.row("there is")
	case e.own == health.SaysDown:
		return "; here it is down"
	default:
		return "; here it is up"
	}
}

// countOf tells how many of those who are counted say that a target is in a state.
func countOf(t health.Tally, state health.State, bySites bool) string {
	switch state {
	case health.Down:
		return counted(t.Down, t.Of, bySites) + " so"
	case health.Up:
		return counted(t.Up, t.Of, bySites) + " so"
	default:
		return counted(t.Down, t.Of, bySites) + " down, and none says up"
	}
}

// counted says of so many of those who are counted that they say something.
func counted(n, of int, bySites bool) string {
	who, say := "observer", "say"
	if bySites {
		who = "site"
	}
	if n == 1 {
		say = "says"
	}
	if n == 1 && of == 1 {
		return fmt.Sprintf("the only %s %s", who, say)
	}
	if of != 1 {
		who += "s"
	}
	return fmt.Sprintf("%d of %d %s %s", n, of, who, say)
}

// titleOf names a target, and the addresses that are answered instead of its own.
func titleOf(endpoint netip.AddrPort, answered []netip.Addr) string {
	if len(answered) == 0 {
		return endpoint.String()
	}
	others := answered[0].String()
	for _, addr := range answered[1:] {
		others += ", " + addr.String()
	}
	return fmt.Sprintf("%s (answered as %s)", endpoint, others)
}
