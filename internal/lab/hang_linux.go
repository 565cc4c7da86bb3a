package lab

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// mountHanging mounts a file system that a program is to serve, fuse(4), without such a program. The kernel waits for its
// first word, until nobody has the device open any longer.
func mountHanging(dir string) (release func(), err error) {
	const device = "/dev/fuse"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w; to have it: modprobe fuse", &os.PathError{Op: "open", Path: device, Err: err})
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, unix.S_IFDIR, os.Getuid(), os.Getgid())
	if err := unix.Mount("hanging", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return sync.OnceFunc(func() {
		unix.Close(fd)
		unix.Unmount(dir, unix.MNT_DETACH)
	}), nil
}
