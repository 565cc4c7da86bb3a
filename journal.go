package shaker

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/events"
	"github.com/coredns-shaker/shaker/internal/peers"
)

const (
	// linesPerSecond is how many state changes are told one by one. When more happen within a second,
	// a summary tells the rest.
	linesPerSecond = 10
	// linesPerMinute is the same for watched names that cannot be resolved, or can again.
	linesPerMinute = 10
	// quiet is how long a trouble has to be away before it is news again.
	quiet = 10 * time.Minute
)

// journal tells the log, the metrics and the events what happens to the targets. The log sums up what comes in crowds, the
// events do not. It implements health.Listener.
type journal struct {
	events  *events.Log
	changes digest[health.State]
	names   digest[bool] // watched ones: whether they are resolved
	// disputes are those between this replica and the verdicts in force: whether they have ended.
	disputes digest[bool]
	bySites  atomic.Bool // the sites of the replicas are counted rather than the observers of one

	mu       sync.Mutex
	troubles map[string]time.Time // when each cause of inconclusive checks, or "full", was last seen
}

func newJournal(to *events.Log) *journal {
	return &journal{
		events: to,
		changes: digest[health.State]{most: linesPerSecond, within: time.Second, tell: func(rest map[health.State]int) {
			down, up, unknown, more := rest[health.Down], rest[health.Up], rest[health.Unknown], ""
			if unknown > 0 {
				more = fmt.Sprintf(", %d are unknown again", unknown)
			}
			log.Warningf("And %d more targets changed within a second: %d are down, %d are up%s", down+up+unknown, down, up, more)
		}},
		names: digest[bool]{most: linesPerMinute, within: time.Minute, tell: func(rest map[bool]int) {
			log.Warningf("And %d more watched names within a minute: %d could not be resolved, %d are resolved again",
				rest[false]+rest[true], rest[false], rest[true])
		}},
		disputes: digest[bool]{most: linesPerSecond, within: time.Second, tell: func(rest map[bool]int) {
			log.Warningf("And %d more disagreements within a second: %d began, %d ended", rest[false]+rest[true], rest[false], rest[true])
		}},
		troubles: make(map[string]time.Time),
	}
}

// Checked implements health.Listener.
func (j *journal) Checked(t *health.Target, r checker.Report) {
	checksBy[r.Result].Inc()
	tries.Add(float64(r.Tries))
	switch r.Result {
	case checker.Answered:
		if r.RTT > 0 {
			roundTrip.Observe(r.RTT.Seconds())
		}
	case checker.Inconclusive:
		cause := checker.Cause(r.Err)
		inconclusive.WithLabelValues(cause).Inc()
		if j.noteTrouble(cause) {
			j.Warningf(events.Trouble, "Checks are inconclusive. The first is that of %s: %s (%v). Their targets keep their state for now", t.Addr(), cause, r.Err)
		}
	}
	if clog.D.Value() { // log.Debug looks too, but only once there is a line
		log.Debug(describeCheck(t.Addr(), r, t.State()))
	}
}

// Warningf tells the log and the events the same.
func (j *journal) Warningf(kind events.Kind, format string, args ...any) {
	log.Warningf(format, args...)
	j.events.Addf(kind, format, args...)
}

// Infof does so where it is nothing to worry about.
func (j *journal) Infof(kind events.Kind, format string, args ...any) {
	log.Infof(format, args...)
	j.events.Addf(kind, format, args...)
}

// noteTrouble notes a trouble, and tells whether it is news: it was not seen for a while.
func (j *journal) noteTrouble(trouble string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	last, seen := j.troubles[trouble]
	now := time.Now()
	j.troubles[trouble] = now
	return !seen || now.Sub(last) > quiet
}

// Changed implements health.Listener.
func (j *journal) Changed(c health.Change) {
	changesTo[c.To].Inc()
	e := eventOf(&c, j.bySites.Load())
	j.events.Add(&e.Event)
	if !j.changes.mayTell(c.To) {
		return
	}
	line := e.String()
	if c.To == health.Down {
		log.Warning(line)
	} else {
		log.Info(line)
	}
}

// Froze implements health.Listener.
func (j *journal) Froze(f health.Freeze) {
	switch {
	case f.Frozen && f.WithPeers:
		freezes.Inc()
		j.Warningf(events.Freeze, "Verdicts are frozen: all other replicas fell silent together with %d of %d hosts, as if this machine were cut off. Until it is over, none goes down by silence", f.Silent, f.Silent+f.Heard)
	case f.Frozen:
		freezes.Inc()
		j.Warningf(events.Freeze, "Verdicts are frozen: %d hosts fell silent together and %d did not, as if this machine were cut off. Until it is over, none goes down by silence", f.Silent, f.Heard)
	case f.Expired:
		j.Warningf(events.Thaw, "Verdicts are no longer frozen, after %v: no freeze may last longer, although hosts are still silent", f.Took.Round(time.Second))
	case f.WithPeers:
		j.Infof(events.Thaw, "Verdicts are no longer frozen, after %v: other replicas or hosts are heard of again", f.Took.Round(time.Second))
	default:
		j.Infof(events.Thaw, "Verdicts are no longer frozen, after %v: hosts are heard of again", f.Took.Round(time.Second))
	}
}

// disagreed tells that what this replica says of a target is not what is in force, or no longer so.
func (j *journal) disagreed(t *health.Target, d peers.Disagreement) {
	e := disputeOf(t, d, j.bySites.Load())
	j.events.Add(&e.Event)
	if !j.disputes.mayTell(d.Ended) {
		return
	}
	if d.Ended {
		log.Info(e.String())
	} else {
		log.Warning(e.String())
	}
}

// full tells that addresses pass unchecked because the table has no room for more than so many targets. The log has a line
// for the first in a while.
func (j *journal) full(targets int) {
	if j.noteTrouble("full") {
		j.Warningf(events.Trouble, "The table is full, with %d targets: new addresses pass unchecked. The property limit targets is its size", targets)
	}
}

// reportPanic tells of a panic that was recovered from. It is called while that happens.
func reportPanic(where string, reason any) {
	panics.Inc()
	log.Errorf("Recovered from a panic %s: %v\n%s", where, reason, debug.Stack())
}

// describeCheck makes the line of a check for the debug log. The state is the one that the result has led to.
func describeCheck(target netip.AddrPort, r checker.Report, state health.State) string {
	detail := ""
	switch {
	case r.RTT > 0:
		detail = " in " + r.RTT.Round(time.Microsecond).String()
	case r.Err != nil && r.Result != checker.Timeout:
		detail = fmt.Sprintf(" (%v)", r.Err)
	}
	return fmt.Sprintf("Check of %s: %s%s, %s", target, r.Result, detail, state)
}

// unresolved tells that a watched name could not be resolved for so long.
func (j *journal) unresolved(name string, since, again time.Duration, reason error) {
	line := fmt.Sprintf("%s, which is watched, could not be resolved for %v: %v. Nothing waits for it any longer, "+
		"but it is tried again every %v", name, since.Round(time.Second), reason, again)
	j.events.Addf(events.Trouble, "%s", line)
	if j.names.mayTell(false) {
		log.Warning(line)
	}
}

// resolved tells that it is resolved again.
func (j *journal) resolved(name string) {
	line := name + " is resolved again"
	j.events.Addf(events.Trouble, "%s", line)
	if j.names.mayTell(true) {
		log.Info(line)
	}
}

// close tells what is left to tell.
func (j *journal) close() {
	j.changes.close()
	j.names.close()
	j.disputes.close()
}
