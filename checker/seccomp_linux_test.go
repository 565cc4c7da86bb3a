package checker

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Android kills an app that calls epoll_wait(2); epoll_pwait(2) it allows. TestWithoutEpollWait runs other
// tests of this package in a process that the kernel kills for the same reason.

// forbidEpollWait in the environment makes TestMain load the filter.
const forbidEpollWait = "CHECKER_FORBID_EPOLL_WAIT"

// epollWait is the number of epoll_wait(2) where there is such a call, with the architecture's AUDIT_ARCH.
var epollWait = map[string]struct{ call, arch uint32 }{
	"amd64": {232, unix.AUDIT_ARCH_X86_64},
	"386":   {256, unix.AUDIT_ARCH_I386},
}

// killOnEpollWait loads a seccomp(2) filter for all threads of the process.
func killOnEpollWait() error {
	forbidden := epollWait[runtime.GOARCH]
	return loadSeccomp([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompArch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: forbidden.arch},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: seccompNumber},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: forbidden.call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
}

// Offsets in struct seccomp_data; an argument takes 8 bytes.
const seccompNumber, seccompArch, seccompArguments = 0, 4, 16

// loadSeccomp has the filter decide about all system calls of the process from now on.
func loadSeccomp(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func init() {
	if os.Getenv(forbidEpollWait) == "" {
		return
	}
	if err := killOnEpollWait(); err != nil {
		panic(err)
	}
	if os.Getenv(forbidEpollWait) == "and call it" {
		unix.Syscall6(uintptr(epollWait[runtime.GOARCH].call), 0, 0, 0, 0, 0, 0)
	}
}

func TestWithoutEpollWait(t *testing.T) {
	if _, ok := epollWait[runtime.GOARCH]; !ok {
		t.Skipf("%s has no epoll_wait to forbid", runtime.GOARCH)
	}
	run := func(test, how string) (string, *exec.ExitError) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^("+test+")$", "-test.v")
		cmd.Env = append(os.Environ(), forbidEpollWait+"="+how)
		output, err := cmd.CombinedOutput()
		exit, failed := err.(*exec.ExitError)
		if err != nil && !failed {
			t.Fatal(err)
		}
		return string(output), exit
	}
	output, exit := run("TestResults|TestTimeout|TestEveryCheckIsReportedOnce|TestClose", "1")
	if exit != nil || strings.Count("\n"+output, "\n--- PASS: Test") != 4 {
		t.Errorf("%v\n%s", exit, output)
	}
	for _, m := range methods() {
		// MethodRaw is left out only where this process could not use it either.
		p, err := NewProber(Config{Method: m}, func([]Report) {})
		if err != nil {
			t.Logf("without %v: %v", m, err)
			continue
		}
		p.Close()
		if !strings.Contains(output, "\n    --- PASS: TestResults/"+m.String()) {
			t.Errorf("%v was left out\n%s", m, output)
		}
	}
	// The filter does what is asked of it.
	output, exit = run("TestClose", "and call it")
	if exit == nil || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
		t.Errorf("epoll_wait is not deadly: %v\n%s", exit, output)
	}
}
