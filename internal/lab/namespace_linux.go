package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace, held by a thread that runs nothing but calls of do. It vanishes with
// that thread and the last socket and process in it.
type namespace struct {
	tid    int
	calls  chan func()
	closed chan struct{}
	gone   chan struct{}
}

// newNamespace makes a network namespace. The error is fs.ErrPermission where that takes more privileges.
func newNamespace() (*namespace, error) {
	ns := &namespace{calls: make(chan func()), closed: make(chan struct{}), gone: make(chan struct{})}
	ready := make(chan error)
	go ns.serve(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return ns, nil
}

func (ns *namespace) serve(ready chan<- error) {
	// Never unlocked once it is in the namespace: the runtime ends the thread with the goroutine, and
	// starts no thread from it.
	runtime.LockOSThread()
	if ns.tid = unix.Gettid(); ns.tid == os.Getpid() {
		// The main thread cannot end, and /proc/self/net is what it sees. While it is locked, another
		// goroutine gets another thread.
		elsewhere := make(chan error)
		go ns.serve(elsewhere)
		err := <-elsewhere
		runtime.UnlockOSThread()
		ready <- err
		return
	}
	defer close(ns.gone)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("no new network namespace: %w", os.NewSyscallError("unshare", err))
		return
	}
	ready <- nil
	for {
		select {
		case f := <-ns.calls:
			f()
		case <-ns.closed:
			return
		}
	}
}

// do calls f in the namespace and reports whether it returned.
func (ns *namespace) do(f func()) bool {
	done := make(chan struct{})
	select {
	case ns.calls <- func() { f(); close(done) }:
	case <-ns.gone:
		return false
	}
	select {
	case <-done:
		return true
	case <-ns.gone:
		return false
	}
}

func (ns *namespace) close() {
	close(ns.closed)
	<-ns.gone
}

// setUp readies a new namespace for its first interface.
func (ns *namespace) setUp() (err error) {
	ns.do(func() {
		for _, s := range [][2]string{
			{"ipv6/conf/all/disable_ipv6", "0"},
			{"ipv6/conf/default/disable_ipv6", "0"},
			// Addresses work from the start (duplicate address detection).
			{"ipv6/conf/all/accept_dad", "0"},
			{"ipv6/conf/default/accept_dad", "0"},
			// Nobody here advertises routes.
			{"ipv6/conf/default/router_solicitations", "0"},
			// Every ICMP error goes out: no type is subject to the limits. An empty set cannot be
			// written for IPv6; no message is of type 255 (RFC 4443, section 2.1).
			{"ipv4/icmp_ratemask", "0"},
			{"ipv6/icmp/ratemask", "255"},
			{"ipv6/icmp/ratelimit", "0"},
		} {
			if err = os.WriteFile("/proc/sys/net/"+s[0], []byte(s[1]), 0); err != nil {
				return
			}
		}
		var out []byte
		if out, err = exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			err = fmt.Errorf("ip link set lo up: %w: %s", err, out)
		}
	})
	return err
}

// start starts the process in the namespace, to be killed when the namespace is closed or this process ends.
func (ns *namespace) start(cmd *exec.Cmd) (err error) {
	endWithParent(cmd) // which is a thread of ours alone
	ns.do(func() { err = cmd.Start() })
	return err
}

func relisten(ln net.Listener, backlog int) error {
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = unix.Listen(int(fd), backlog) }); err != nil {
		return err
	}
	return os.NewSyscallError("listen", listenErr)
}
