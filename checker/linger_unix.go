//go:build unix

package checker

import "syscall"

// lingerZero has a socket reset its connection when it is closed, see SO_LINGER in socket(7).
func lingerZero(fd uintptr) {
	syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}
