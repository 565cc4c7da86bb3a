package shaker

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/peers"
)

// A disagreement is a line and an event, with the verdict in force as the state of the target.
func TestDisputes(t *testing.T) {
	logged := lab.CaptureLog(t)
	target := journalTargets(t, "10.0.0.1:443")[0]
	target.AddAlias(netip.MustParseAddrPort("192.0.2.7:443"))
	j := newJournal(events.New())
	defer j.close()
	for _, d := range []peers.Disagreement{
		{Own: health.SaysDown, InForce: health.Up, Tally: health.Tally{Up: 2, Down: 1, Of: 3}},
		{Own: health.SaysDown, InForce: health.Up, Tally: health.Tally{Up: 3, Of: 3}, Ended: true},
		{Own: health.SaysUp, InForce: health.Down, Tally: health.Tally{Up: 1, Down: 2, Of: 3}},
		{Own: health.SaysDown, InForce: health.Unknown, Tally: health.Tally{Down: 1, Of: 2}},
		{Own: health.Checking, InForce: health.Down, Tally: health.Tally{Down: 2, Of: 2}, Ended: true},
	} {
		j.disagreed(target, d)
	}
	const disagrees = "This replica disagrees about 10.0.0.1:443 (answered as 192.0.2.7): by its own checks it is "
	const agrees = "This replica no longer disagrees about 10.0.0.1:443 (answered as 192.0.2.7), which is "
	lines := journalTake(logged)
	journalExpect(t, lines,
		"[WARNING] "+disagrees+"down, but in force is up, since 1 of 3 observers says down",
		"[INFO] "+agrees+"up",
		"[WARNING] "+disagrees+"up, but in force is down, since 2 of 3 observers say down",
		"[WARNING] "+disagrees+"down, but in force is unknown, since 1 of 2 observers says down",
		"[INFO] "+agrees+"down")
	for i, state := range []string{"up", "up", "down", "unknown", "down"} {
		e := j.events.All()[i]
		if _, line, _ := strings.Cut(lines[i], " "); e.Text.String() != line || e.Kind != events.Disagreement {
			t.Errorf("the %s event says %q, the log %q", e.Kind, e.Text, line)
		}
		if e.Target == nil || e.Target.State != state || e.Target.Endpoint != target.Addr() {
			t.Errorf("%s is about %+v", e.Text, e.Target)
		}
	}
}

// A replica that is sick disagrees about all targets at once. The log sums that up, the events have each.
func TestDisputesOfMany(t *testing.T) {
	target := journalTargets(t, "10.0.0.1:443")[0]
	synctest.Test(t, func(t *testing.T) {
		logged := lab.CaptureLog(t)
		j := newJournal(events.New())
		defer j.close()
		for i := range 100 {
			j.disagreed(target, peers.Disagreement{Own: health.SaysDown, InForce: health.Up, Ended: i >= 70})
		}
		time.Sleep(2 * time.Second)
		lines := journalTake(logged)
		want := fmt.Sprintf("[WARNING] And %d more disagreements within a second: %d began, 30 ended", 100-linesPerSecond, 70-linesPerSecond)
		if len(lines) != linesPerSecond+1 || lines[linesPerSecond] != want || len(j.events.All()) != 100 {
			t.Errorf("%d events, logged\n%s\nwant at last\n%s", len(j.events.All()), strings.Join(lines, "\n"), want)
		}
	})
}
