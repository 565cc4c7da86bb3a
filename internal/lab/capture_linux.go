package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tapBuffer is what the kernel may queue for a tap while nobody reads it. A SYN takes about 1 kB of
	// it, skb included: this is six seconds of 40 000 packets a second. It is a bound, not an allocation.
	tapBuffer = 256 << 20
	// tapSnap is how much of a packet is read: an IPv6 and an ICMP header, and the IPv6 and TCP headers
	// that an ICMP error quotes, fit in.
	tapSnap = 256
)

// tap is a packet socket (packet(7)) on all interfaces of a namespace.
type tap struct {
	file *os.File
	only int // index of the only interface to report besides the loopback; 0 for all
	buf  [tapSnap]byte
	oob  [128]byte
}

// newTap makes a tap in the calling thread's namespace.
func newTap(uplinkOnly bool) (*tap, error) {
	tp := &tap{}
	if uplinkOnly {
		ifi, err := net.InterfaceByName(uplink)
		if err != nil {
			return nil, err
		}
		tp.only = ifi.Index
	}
	// Protocol 0 receives nothing before bind says what, so that the options hold for the first packet.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	tp.file = os.NewFile(uintptr(fd), "tap")
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL)})
	}
	if err == nil {
		err = tp.awaitTimestamps(fd)
	}
	if err != nil {
		tp.file.Close()
		return nil, err
	}
	return tp, nil
}

// awaitTimestamps waits until the kernel notes when packets pass. It begins with that in the background,
// when the first socket asks for it; until then a packet bears the time at which it is read.
func (tp *tap) awaitTimestamps(fd int) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	// A frame that is of no protocol, and moves no counter of one (IEEE 802 local experiments).
	to := &unix.SockaddrLinklayer{Protocol: bigEndian16(0x88b5), Ifindex: lo.Index, Halen: 6}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := unix.Sendto(fd, []byte("x"), 0, to); err != nil {
			return os.NewSyscallError("sendto", err)
		}
		sent := time.Now()
		noted := false
		for err == nil {
			var oobn int
			if _, oobn, _, _, err = unix.Recvmsg(fd, tp.buf[:], tp.oob[:], 0); err == nil {
				at, err := timestamp(tp.oob[:oobn])
				if err != nil {
					return err
				}
				noted = noted || at.Before(sent)
			}
		}
		if err != unix.EAGAIN {
			return os.NewSyscallError("recvmsg", err)
		}
		if noted {
			return nil
		}
		err = nil
	}
	return fmt.Errorf("no timestamps of packets in %v", patience)
}

func bigEndian16(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// wait calls ready whenever there may be something to read, until the tap is closed.
func (tp *tap) wait(ready func()) {
	raw, err := tp.file.SyscallConn()
	if err != nil {
		return
	}
	// Returning false makes Read wait for the next packet.
	raw.Read(func(uintptr) bool { ready(); return false })
}

// read passes on every packet that the kernel has queued.
func (tp *tap) read(each func(time.Time, []byte)) error {
	raw, err := tp.file.SyscallConn()
	if err != nil {
		return err
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		for readErr == nil {
			readErr = tp.readOne(int(fd), each)
		}
	})
	if err != nil {
		return err
	}
	if readErr != unix.EAGAIN {
		return os.NewSyscallError("recvmsg", readErr)
	}
	return nil
}

func (tp *tap) readOne(fd int, each func(time.Time, []byte)) error {
	n, oobn, _, from, err := unix.Recvmsg(fd, tp.buf[:], tp.oob[:], 0)
	if err == unix.EINTR || err == unix.ENETDOWN {
		// ENETDOWN: an interface went down, others go on.
		return nil
	}
	if err != nil {
		return err
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok {
		return fmt.Errorf("packet from a %T", from)
	}
	switch {
	case link.Hatype == unix.ARPHRD_LOOPBACK:
		// Each packet comes by twice, on its way out and on its way in.
		if link.Pkttype != unix.PACKET_OUTGOING {
			return nil
		}
	case tp.only != 0 && link.Ifindex != tp.only:
		return nil
	}
	at, err := timestamp(tp.oob[:oobn])
	if err != nil {
		return err
	}
	each(at, tp.buf[:n])
	return nil
}

func timestamp(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range messages {
		// SO_TIMESTAMPNS_NEW comes as two 64-bit integers on every architecture.
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS_NEW && len(m.Data) >= 16 {
			return time.Unix(
				int64(binary.NativeEndian.Uint64(m.Data)),
				int64(binary.NativeEndian.Uint64(m.Data[8:])),
			), nil
		}
	}
	return time.Time{}, fmt.Errorf("packet without a timestamp")
}

// check returns an error unless every packet that came by has been read.
func (tp *tap) check() error {
	raw, err := tp.file.SyscallConn()
	if err != nil {
		return err
	}
	var stats *unix.TpacketStats
	var statsErr error
	if err := raw.Control(func(fd uintptr) {
		stats, statsErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		return err
	}
	if statsErr != nil {
		return os.NewSyscallError("getsockopt", statsErr)
	}
	if stats.Drops > 0 {
		return fmt.Errorf("the kernel dropped %d of %d packets", stats.Drops, stats.Packets)
	}
	return nil
}

func (tp *tap) close() { tp.file.Close() }
