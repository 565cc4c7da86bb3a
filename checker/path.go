package checker

import (
	"errors"
	"os"
	"syscall"
)

// NoPath tells whether an inconclusive check failed because this machine has no path to its target: there is no route,
// or one that leads nowhere (unreachable and blackhole in ip-route(8)), or a firewall of this machine rejects the SYN.
// It is false for faults that may hit any check: those of descriptors, ports, memory, permissions and the prober
// itself. A route of the type prohibit looks like a lack of permission.
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
		// EPERM is about this one packet here. From connect, it would be about this process.
		return call.Err == syscall.EINVAL || call.Err == syscall.EPERM
	case "connect":
		return call.Err == syscall.EINVAL
	}
	return false
}
