package lab

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A capture that lost packets says so.
func TestCaptureLoss(t *testing.T) {
	Run(t, func(t *testing.T, l *Lab) {
		tp, err := newTap(false)
		if err != nil {
			t.Fatal(err)
		}
		defer tp.close()
		// The smallest there is: a few packets.
		if err := unix.SetsockoptInt(int(tp.file.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 0); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := tp.check(); err != nil {
			t.Errorf("before there was a packet: %v", err)
		}
		for range 100 {
			// Refused by every other one, as nobody listens.
			_, _ = c.Write([]byte("x"))
		}
		if err := tp.check(); err == nil {
			t.Error("no error, although most packets found no room")
		}
	})
}
