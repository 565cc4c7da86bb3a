package health

import "time"

// dampedFrom is how often a target has to go down to be damped. A flap costs a route 1000 points with the usual
// figures of RFC 2439, which decay, and it is suppressed at 2000: at the third, too. The first two stay without
// consequence so that a restart, and one more for good measure, is nobody's business.
const dampedFrom = 3

// damping returns how long a target stays down at least that has gone down so many times: Damping, which doubles
// every time up to DampingMax.
func (s Settings) damping(falls uint8) time.Duration {
	if s.Damping <= 0 || falls < dampedFrom {
		return 0
	}
	doubled := falls - dampedFrom
	if s.Damping > s.DampingMax>>doubled {
		return s.DampingMax
	}
	return s.Damping << doubled
}

// fell counts that the target goes down. Having been up for DampingMax before makes up for all times before it.
func (t *Target) fell(s Settings, now int64) {
	if now-t.since >= int64(s.DampingMax) {
		t.falls = 0
	}
	t.falls = max(t.falls, t.falls+1) // up to 255
}

// dampedUntil returns when a target that is down may be up again.
func (t *Target) dampedUntil(s Settings) int64 { return later(t.since, s.damping(t.falls)) }
