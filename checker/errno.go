package checker

import (
	"errors"
	"syscall"
)

// Errnos that mean the same thing are in one list. The lists are in errno_*.go, by system.

func isErrno(err error, list []syscall.Errno) bool {
	for _, errno := range list {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Cause names in one or two words why a check was inconclusive, from a fixed and small set: a label for
// metrics and logs. It returns "other" for what it does not know.
func Cause(err error) string {
	switch {
	case errors.Is(err, ErrClosed):
		return "closed"
	case errors.Is(err, ErrTarget):
		return "invalid"
	case errors.Is(err, ErrBusy):
		return "busy"
	case errors.Is(err, ErrPaused):
		return "paused"
	case errors.Is(err, ErrFiltered), isErrno(err, deniedErrnos):
		return "firewall"
	case isErrno(err, networkErrnos), isErrno(err, hostErrnos):
		return "no_route"
	case isErrno(err, descriptorErrnos):
		return "no_descriptor"
	case errors.Is(err, ErrOverflow), isErrno(err, bufferErrnos):
		return "no_buffer"
	case isErrno(err, addressErrnos):
		return "no_address"
	default:
		return "other"
	}
}

// Causes returns every value of Cause.
func Causes() []string {
	return []string{"busy", "closed", "firewall", "invalid", "no_address", "no_buffer", "no_descriptor", "no_route", "other", "paused"}
}
