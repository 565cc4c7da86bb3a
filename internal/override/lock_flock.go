//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package override

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockless tells that there are no locks.
const lockless = false

// lockEvery is how often to try to get a lock.
const lockEvery = 5 * time.Millisecond

// lock gets the lock on a file (flock(2)), which ends when the file is closed. Where the file system has none, there is no
// need to wait for others.
func lock(file *os.File, deadline time.Time) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var failure error
		if err := raw.Control(func(fd uintptr) { failure = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
			return err
		}
		switch {
		case failure == nil, errors.Is(failure, errors.ErrUnsupported), errors.Is(failure, syscall.ENOLCK):
			return nil
		case failure != syscall.EWOULDBLOCK && failure != syscall.EINTR:
			return os.NewSyscallError("flock", failure)
		case !time.Now().Before(deadline):
			return fmt.Errorf("somebody else has had it for %v, want the program ended that does (see lsof)", lockPatience)
		}
		time.Sleep(lockEvery)
	}
}
