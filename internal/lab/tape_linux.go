package lab

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// recorder is a packet socket (packet(7)) on a host's uplink that gets packets whole.
type recorder struct {
	file *os.File
	buf  [65536]byte
}

// newRecorder makes a recorder in the calling thread's namespace.
func newRecorder() (*recorder, error) {
	ifi, err := net.InterfaceByName(uplink)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing before bind says what, so that the options hold for the first packet.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r := &recorder{file: os.NewFile(uintptr(fd), "tape")}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: ifi.Index})
	}
	if err != nil {
		r.file.Close()
		return nil, err
	}
	return r, nil
}

// run passes on every packet until the recorder is closed.
func (r *recorder) run(each func(time.Time, []byte)) {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), r.buf[:], 0)
			switch err {
			case nil:
				each(time.Now(), r.buf[:n])
			case unix.EINTR, unix.ENETDOWN:
			default:
				return false // waits for the next packet
			}
		}
	})
}

func (r *recorder) close() { r.file.Close() }

// player sends packets to a host over the interface that leads to it.
type player struct {
	fd   int
	link unix.SockaddrLinklayer
}

func newPlayer(h *Host) (p *player, err error) {
	p = &player{fd: -1}
	h.parent.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(h.Name); err != nil {
			return
		}
		p.link = unix.SockaddrLinklayer{Ifindex: ifi.Index, Halen: 6}
		copy(p.link.Addr[:], h.mac(2))
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		err = os.NewSyscallError("socket", err)
	})
	return p, err
}

func (p *player) send(packet []byte) error { return sendOver(p.fd, p.link, packet) }

func (p *player) close() { unix.Close(p.fd) }
