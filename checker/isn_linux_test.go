package checker

import (
	"net/netip"
	"testing"
	"time"
)

// Of two SYNs on the same path, the second is as many sequence numbers further as nanoseconds have passed: out
// of the target's window soon. The secret, and each part of the path, make others of them.
func TestSequenceNumbers(t *testing.T) {
	p := &rawProber{begun: time.Now()}
	// offset is what isn adds to the clock, within the time that the call took.
	offset := func(p *rawProber, at path) (least, most uint32) {
		most = 1<<32 - 1
		for range 100 { // the shortest call says most
			early := time.Since(p.begun)
			isn := p.isn(at)
			l, m := isn-uint32(time.Since(p.begun)), isn-uint32(early)
			if m-l < most-least {
				least, most = l, m
			}
		}
		return least, most
	}
	target := netip.MustParseAddrPort("192.0.2.1:80")
	least, most := offset(p, newPath(target, 40000))
	same := func(p *rawProber, at path) bool {
		l, m := offset(p, at)
		return m-least <= (m-l)+(most-least) // the two ranges overlap
	}
	for range 10 {
		if !same(p, newPath(target, 40000)) {
			t.Fatal("the clock is not all that differs")
		}
	}
	other := &rawProber{begun: p.begun, secret: [32]byte{31: 1}}
	if same(other, newPath(target, 40000)) {
		t.Error("the secret does not matter")
	}
	for _, at := range []path{
		newPath(netip.MustParseAddrPort("192.0.2.2:80"), 40000),
		newPath(netip.MustParseAddrPort("192.0.2.1:81"), 40000),
		newPath(target, 40001),
	} {
		if same(p, at) {
			t.Errorf("%v makes no difference", at)
		}
	}
}
