package lab

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// delayLine sends what a host sends, later. A rule routes the host's own packets into a TUN device, and
// the line puts them on the uplink.
type delayLine struct {
	wait    atomic.Int64 // nanoseconds
	tun     *os.File
	out     int // packet socket
	link    unix.SockaddrLinklayer
	running sync.WaitGroup
}

type delayed struct {
	due    time.Time
	packet []byte
}

const (
	delayDevice = "delay0"
	delayMTU    = 1500
	// delayQueue is how many packets may wait: 100 ms of 40 000 packets a second, four times over.
	delayQueue = 1 << 14
)

func newDelayLine(h *Host) (*delayLine, error) {
	d := &delayLine{out: -1}
	var err error
	h.Do(func() { err = d.open(h) })
	if err != nil {
		d.close()
		return nil, err
	}
	h.IP(
		fmt.Sprintf("link set dev %s mtu %d txqueuelen %d up", delayDevice, delayMTU, delayQueue),
		"route add 0.0.0.0/0 dev "+delayDevice+" table 100",
		"route add ::/0 dev "+delayDevice+" table 100",
	)
	queue := make(chan delayed, delayQueue)
	d.running.Go(func() { d.receive(queue) })
	d.running.Go(func() { d.send(queue) })
	return d, nil
}

// open makes the TUN device and the socket, in the namespace of the calling thread.
func (d *delayLine) open(h *Host) error {
	var err error
	if d.link, err = uplinkOf(h); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	ifr, err := unix.NewIfreq(delayDevice)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = os.NewSyscallError("ioctl TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	}
	// Only now: a device that is not attached yet cannot be polled.
	d.tun = os.NewFile(uintptr(fd), delayDevice)
	if err != nil {
		return err
	}
	d.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return os.NewSyscallError("socket", err)
}

func (d *delayLine) receive(queue chan<- delayed) {
	defer close(queue)
	var buf [delayMTU]byte
	for {
		n, err := d.tun.Read(buf[:])
		if err != nil {
			return // closed
		}
		due := time.Now().Add(time.Duration(d.wait.Load()))
		queue <- delayed{due, append([]byte(nil), buf[:n]...)}
	}
}

func (d *delayLine) send(queue <-chan delayed) {
	for p := range queue {
		time.Sleep(time.Until(p.due))
		// A full queue or a link that is down loses the packet, as any link does.
		_ = sendOver(d.out, d.link, p.packet)
	}
}

// uplinkOf returns where packets from the host to its parent go. The calling thread is in the host's namespace.
func uplinkOf(h *Host) (unix.SockaddrLinklayer, error) {
	ifi, err := net.InterfaceByName(uplink)
	if err != nil {
		return unix.SockaddrLinklayer{}, err
	}
	link := unix.SockaddrLinklayer{Ifindex: ifi.Index, Halen: 6}
	copy(link.Addr[:], h.mac(1))
	return link, nil
}

// sendOver puts an IP packet on a link, with the help of a packet socket.
func sendOver(fd int, link unix.SockaddrLinklayer, packet []byte) error {
	link.Protocol = bigEndian16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		link.Protocol = bigEndian16(unix.ETH_P_IPV6)
	}
	return os.NewSyscallError("sendto", unix.Sendto(fd, packet, 0, &link))
}

func (d *delayLine) close() {
	if d.tun != nil {
		d.tun.Close()
	}
	d.running.Wait()
	if d.out >= 0 {
		unix.Close(d.out)
	}
}
