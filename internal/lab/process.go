package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Process is a program that runs until the end of the test at the latest. What it printed is logged where the test fails.
type Process struct {
	Log Log // what it has printed

	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // with which it has ended
}

// Start starts a program. On Linux it also ends when the process of the test does, however that comes.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	return begin(t, cmd, cmd.Start)
}

// Start starts a program on the host, as [Start] does.
func (h *Host) Start(cmd *exec.Cmd) *Process {
	h.t.Helper()
	if h.ns == nil {
		return Start(h.t, cmd)
	}
	return begin(h.t, cmd, func() error { return h.ns.start(cmd) })
}

// begin has a program started by the function.
func begin(t testing.TB, cmd *exec.Cmd, start func() error) *Process {
	t.Helper()
	p := &Process{t: t, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.Log, &p.Log
	endWithParent(cmd)
	started := make(chan error)
	go func() {
		// The parent is the thread that starts the process (prctl(2), PR_SET_PDEATHSIG), so that has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(os.Kill)
		p.Wait()
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name(), p.Log.String())
		}
	})
	return p
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process. One that has ended gets none.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
}

// Wait waits until the process has ended, and returns what [exec.Cmd.Wait] says of that.
func (p *Process) Wait() error {
	<-p.ended
	return p.err
}

// UntilNil is [UntilNil] for what only comes while the process runs: its end ends the test.
func (p *Process) UntilNil(try func() error) {
	p.t.Helper()
	UntilNil(p.t, func() error {
		p.t.Helper()
		select {
		case <-p.ended:
			p.t.Fatalf("%s has ended: %v", p.name(), p.err)
		default:
		}
		return try()
	})
}

func (p *Process) name() string { return filepath.Base(p.cmd.Path) }
