//go:build unix

package checker

import "syscall"

var (
	// A RST in answer to a SYN is ECONNREFUSED. These two are of a RST that comes later, when the handshake was
	// complete: EPIPE on Linux, if a FIN came before it (tcp_reset in net/ipv4/tcp_input.c).
	answeredErrnos   = []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE}
	refusedErrnos    = []syscall.Errno{syscall.ECONNREFUSED}
	timeoutErrnos    = []syscall.Errno{syscall.ETIMEDOUT}
	hostErrnos       = []syscall.Errno{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
	networkErrnos    = []syscall.Errno{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EAFNOSUPPORT}
	descriptorErrnos = []syscall.Errno{syscall.EMFILE, syscall.ENFILE}
	bufferErrnos     = []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM}
	addressErrnos    = []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE}
	deniedErrnos     = []syscall.Errno{syscall.EPERM, syscall.EACCES}
)
