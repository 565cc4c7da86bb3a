package members

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

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
