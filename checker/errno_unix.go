//go:build unix

package checker

import "syscall"

var (
	refusedErrnos    = []syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET}
	timeoutErrnos    = []syscall.Errno{syscall.ETIMEDOUT}
	hostErrnos       = []syscall.Errno{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
	networkErrnos    = []syscall.Errno{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EAFNOSUPPORT}
	descriptorErrnos = []syscall.Errno{syscall.EMFILE, syscall.ENFILE}
	bufferErrnos     = []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM}
	addressErrnos    = []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE}
	deniedErrnos     = []syscall.Errno{syscall.EPERM, syscall.EACCES}
)
