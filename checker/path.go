package checker

import (
	"errors"
	"os"
	"syscall"
)

// NoPath tells whether an inconclusive check failed because this machine has no path to its target: there is no route
// (or one that forbids it, see route(8)), or a firewall on this machine rejects the SYN. It is false for the faults of
// this machine that may hit any check: those of descriptors, ports, memory, permissions, and the prober itself.
func NoPath(err error) bool {
	if errors.Is(err, ErrFiltered) || Cause(err) == "no_route" {
		return true
	}
	call, ok := errors.AsType[*os.SyscallError](err)
	if !ok {
		return false
	}
	switch call.Syscall {
	case "sendmmsg":
		// What a firewall says of one packet. Of connect, it would be what a security module says of this process.
		return isErrno(call.Err, deniedErrnos) || call.Err == syscall.EINVAL
	case "connect":
		return call.Err == syscall.EINVAL // a black hole route
	}
	return false
}
