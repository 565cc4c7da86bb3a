package checker

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkBaselineBareRaw is what the system calls of MethodRaw cost by themselves: packets that were made
// beforehand, sent and received in batches, with nothing kept of what is in flight.
func BenchmarkBaselineBareRaw(b *testing.B) {
	needs(b, MethodRaw)
	benchBareRaw(b, overLoopback(b))
}

func benchBareRaw(b *testing.B, w wire) {
	reserve, err := reservePorts()
	if err != nil {
		b.Fatal(err)
	}
	defer reserve.close()
	conn, err := openRaw(false, reserve.ports, egress{})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(epoll)
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, conn.fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		b.Fatal(err)
	}
	packets := barePackets(w, reserve.ports)
	events := make([]unix.EpollEvent, 1)
	measureCPU(b, func() {
		for sent, received := 0, 0; received < b.N; {
			for room := min(inFlight-(sent-received), b.N-sent); room > 0; {
				at := sent % len(packets)
				n, err := conn.sendMessages(packets[at:min(at+min(room, startBatch), len(packets))])
				if err != nil {
					b.Fatal(err)
				}
				sent, room = sent+n, room-n
			}
			if _, err := unix.EpollWait(epoll, events, -1); err != nil && err != unix.EINTR {
				b.Fatal(err)
			}
			for n := receiveBatch; n == receiveBatch; received += n {
				if n, err = conn.receive(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// barePackets returns a SYN to each target, ready to be sent any number of times.
func barePackets(w wire, ports []uint16) []mmsghdr {
	type packet struct {
		segment [synLength]byte
		vector  unix.Iovec
		to      unix.RawSockaddrInet4
	}
	packets, headers := make([]packet, len(w.targets)), make([]mmsghdr, len(w.targets))
	for i, target := range w.targets {
		p, h := &packets[i], &headers[i]
		putSYN(&p.segment, ports[i%reservedPorts], target.Port(), uint32(i), mss4)
		putChecksum4(p.segment[:], w.source.As4(), target.Addr().As4())
		p.vector.Base = &p.segment[0]
		p.vector.SetLen(synLength)
		p.to = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: target.Addr().As4()}
		h.Iov = &p.vector
		h.SetIovlen(1)
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.to)), unix.SizeofSockaddrInet4
	}
	return headers
}
