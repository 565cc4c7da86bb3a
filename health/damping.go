package health

import "time"

// dampedFrom is how often a target has to go down to be damped. With the usual figures of RFC 2439 a route is
// suppressed at the third flap, too: each costs it 1000 points, which decay, and more than 2000 are too many. So a
// restart has no consequence, nor has a second one.
const dampedFrom = 3

// damping returns how long a target stays down at least that has gone down so many times: Damping, doubled with
// every further fall, up to DampingMax.
func (s *Settings) damping(falls uint8) time.Duration {
	if s.Damping <= 0 || falls < dampedFrom {
		return 0
	}
	doubled := falls - dampedFrom
	if s.Damping > s.DampingMax>>doubled {
		return s.DampingMax
	}
	return s.Damping << doubled
}

// countFall counts that the target goes down. If it was up for DampingMax before, nothing earlier counts any more.
func (t *Target) countFall(s *Settings, now int64) {
	if now-t.since >= int64(s.DampingMax) {
		t.falls = 0
	}
	t.falls = max(t.falls, t.falls+1) // stays at 255
}

// dampedUntil returns when a target that is down may be up again.
func (t *Target) dampedUntil(s *Settings) int64 { return later(t.since, s.damping(t.falls)) }
