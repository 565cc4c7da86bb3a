package shaker

import (
	"fmt"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// dispute is that this replica says otherwise of a target than the verdict in force, or does so no longer, as an event. Its
// text is made for those who read it.
type dispute struct {
	events.Event
	target  events.Target
	what    peers.Disagreement
	bySites bool // of the tally
}

// disputeOf returns the event of a disagreement, with what is known of the target at the time.
func disputeOf(t *health.Target, d peers.Disagreement, bySites bool) *dispute {
	e := &dispute{target: targetOf(t, d.InForce), what: d, bySites: bySites}
	e.Event = events.Event{Kind: events.Disagreement, Text: e, Target: &e.target}
	return e
}

// String implements fmt.Stringer. It makes the line that the log has of it.
func (e *dispute) String() string {
	target, d := titleOf(e.target.Endpoint, e.target.Answered), &e.what
	if d.Ended {
		return fmt.Sprintf("This replica no longer disagrees about %s, which is %s", target, d.InForce)
	}
	own := health.Up
	if d.Own == health.SaysDown {
		own = health.Down
	}
	return fmt.Sprintf("This replica disagrees about %s: by its own checks it is %s, but in force is %s, since %s down", target, own, d.InForce,
		counted(d.Tally.Down, d.Tally.Of, e.bySites))
}
