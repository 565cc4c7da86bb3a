package checker

import (
	"syscall"

	"golang.org/x/sys/windows"
)

var (
	refusedErrnos    = []syscall.Errno{windows.WSAECONNREFUSED, windows.WSAECONNRESET}
	timeoutErrnos    = []syscall.Errno{windows.WSAETIMEDOUT}
	hostErrnos       = []syscall.Errno{windows.WSAEHOSTUNREACH, windows.WSAEHOSTDOWN}
	networkErrnos    = []syscall.Errno{windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEAFNOSUPPORT}
	descriptorErrnos = []syscall.Errno{windows.WSAEMFILE}
	bufferErrnos     = []syscall.Errno{windows.WSAENOBUFS}
	addressErrnos    = []syscall.Errno{windows.WSAEADDRNOTAVAIL, windows.WSAEADDRINUSE}
	deniedErrnos     = []syscall.Errno{windows.WSAEACCES}
)
