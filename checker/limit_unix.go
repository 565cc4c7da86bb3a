//go:build unix

package checker

import "golang.org/x/sys/unix"

// descriptorLimit returns how many files the process may have open, see getrlimit(2). Go has raised
// the soft limit to the hard one by the time this runs.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what POSIX systems start with
	}
	return int(min(uint64(limit.Cur), 1<<20))
}
