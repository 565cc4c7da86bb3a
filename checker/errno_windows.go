package checker

import (
	"syscall"

	"golang.org/x/sys/windows"
)

var (
	// A RST in answer to a SYN is WSAECONNREFUSED. This is one that comes later.
	answeredErrnos   = []syscall.Errno{windows.WSAECONNRESET}
	refusedErrnos    = []syscall.Errno{windows.WSAECONNREFUSED}
	timeoutErrnos    = []syscall.Errno{windows.WSAETIMEDOUT}
	hostErrnos       = []syscall.Errno{windows.WSAEHOSTUNREACH, windows.WSAEHOSTDOWN}
	networkErrnos    = []syscall.Errno{windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEAFNOSUPPORT}
	descriptorErrnos = []syscall.Errno{windows.WSAEMFILE}
	bufferErrnos     = []syscall.Errno{windows.WSAENOBUFS}
	addressErrnos    = []syscall.Errno{windows.WSAEADDRNOTAVAIL, windows.WSAEADDRINUSE}
	deniedErrnos     = []syscall.Errno{windows.WSAEACCES}
)
