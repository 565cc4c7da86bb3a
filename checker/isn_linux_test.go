package checker

import (
	"net/netip"
	"testing"
	"time"
)

// Of two SYNs on the same path, the second is as many sequence numbers further as nanoseconds have passed: out
// of the target's window soon. The secret, and each part of the path, make others of them.
func TestSequenceNumbers(t *testing.T) {
	begun := time.Now()
	isn := func(secret sipKey, target string, port uint16, after time.Duration) uint32 {
		at := newPath(netip.MustParseAddrPort(target), port)
		p := &rawProber{begun: begun, secret: secret}
		return p.isn(p.secret.hash(&at), begun.Add(after))
	}
	first := isn(sipKey{}, "192.0.2.1:80", 40000, 0)
	for _, after := range []time.Duration{1, 66 * time.Microsecond, time.Hour} {
		if got := isn(sipKey{}, "192.0.2.1:80", 40000, after); got != first+uint32(after) {
			t.Errorf("%v later: %d further", after, got-first)
		}
	}
	for name, other := range map[string]uint32{
		"secret":         isn(sipKey{0, 1}, "192.0.2.1:80", 40000, 0),
		"target":         isn(sipKey{}, "192.0.2.2:80", 40000, 0),
		"target's port":  isn(sipKey{}, "192.0.2.1:81", 40000, 0),
		"source port":    isn(sipKey{}, "192.0.2.1:80", 40001, 0),
		"target, family": isn(sipKey{}, "[2001:db8::1]:80", 40000, 0),
	} {
		if other == first {
			t.Errorf("another %s makes no difference", name)
		}
	}
}
