package lab

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a host's uplink without its kernel: what comes in is heard even if a rule drops it, and what goes out
// needs no socket, route or own address.
type wire struct {
	tap     *tap
	out     int // packet socket
	link    unix.SockaddrLinklayer
	running sync.WaitGroup
}

func newWire(h *Host) (*wire, error) {
	w := &wire{out: -1}
	var err error
	h.Do(func() {
		if w.link, err = uplinkOf(h); err != nil {
			return
		}
		if w.tap, err = newTap(true); err != nil {
			return
		}
		w.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		err = os.NewSyscallError("socket", err)
	})
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// listen calls each for every packet, until the wire is closed.
func (w *wire) listen(each func(Packet)) {
	w.running.Go(func() {
		w.tap.wait(func() {
			// What cannot be read is as good as lost.
			_ = w.tap.read(func(at time.Time, b []byte) {
				if p, ok := parse(b); ok {
					p.Time = at
					each(p)
				}
			})
		})
	})
}

func (w *wire) send(packet []byte) error {
	return sendOver(w.out, w.link, packet)
}

func (w *wire) close() {
	if w.tap != nil {
		w.tap.close()
	}
	w.running.Wait()
	if w.out >= 0 {
		unix.Close(w.out)
	}
}
