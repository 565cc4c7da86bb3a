//go:build unix

package checker

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lingerZero has a socket reset its connection when it is closed, see SO_LINGER in socket(7).
func lingerZero(fd uintptr) {
	syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}

// isWritable tells whether a socket is connected, or has failed to, see poll(2). One that has not called connect yet is
// writable, too.
func isWritable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
	return err == nil && n > 0
}
