package members

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// What memberlist has begun when it is shut down ends by itself, within the time of a probe: up to nine seconds where others
// did not answer.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for deadline := time.Now().Add(15 * time.Second); code == 0 && time.Now().Before(deadline); {
		if leak = goleak.Find(); leak == nil {
			break
		}
	}
	if leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// listener tells it all.
func (l *told) listener() Listener {
	return Listener{
		Joined:    func(string, netip.AddrPort, []byte) {},
		Left:      func(string) {},
		Take:      func([]byte) {},
		Meta:      func() []byte { return nil },
		Infof:     func(format string, args ...any) { l.add(fmt.Sprintf(format, args...)) },
		Warningf:  func(format string, args ...any) { l.add("Warning: " + fmt.Sprintf(format, args...)) },
		Recovered: func(where string, reason any) { l.add(fmt.Sprintf("Recovered: %s: %v", where, reason)) },
	}
}
