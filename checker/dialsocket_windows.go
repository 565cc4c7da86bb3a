package checker

import "syscall"

// lingerZero has a socket reset its connection when it is closed.
func lingerZero(fd uintptr) {
	syscall.SetsockoptLinger(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}

// isWritable tells nothing here.
func isWritable(uintptr) bool { return false }
