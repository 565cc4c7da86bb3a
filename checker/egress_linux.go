package checker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// apply sets the options of socket(7) by which fd's packets leave in this way.
func (e egress) apply(fd int) error {
	if e.device != "" {
		if err := unix.BindToDevice(fd, e.device); err != nil {
			return fmt.Errorf("interface %q: %w", e.device, os.NewSyscallError("setsockopt", err))
		}
	}
	if e.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(e.mark)); err != nil {
			return fmt.Errorf("mark %#x: %w", e.mark, os.NewSyscallError("setsockopt", err))
		}
	}
	return nil
}

// verify returns an error if e cannot be applied, so that NewProber fails rather than every check.
func (e egress) verify() error {
	if e == (egress{}) {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return e.apply(fd)
}
