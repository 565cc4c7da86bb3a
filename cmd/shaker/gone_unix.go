//go:build unix

package main

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readerGone returns when what is written there is a pipe that nobody reads any more, or when ctx ends. Without it, a
// program that waits for events would notice when the next one comes.
func readerGone(ctx context.Context, to io.Writer) {
	file, ok := to.(*os.File)
	if !ok {
		<-ctx.Done()
		return
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		<-ctx.Done()
		return
	}
	ticks := time.NewTicker(250 * time.Millisecond)
	defer ticks.Stop()
	for {
		// Without any event that is asked for, poll(2) tells of errors only. POLLERR is that of a pipe without readers.
		fds := []unix.PollFd{{Fd: int32(file.Fd())}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}
