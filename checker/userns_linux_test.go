package checker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// ownNamespace in the environment makes the test binary, in a user's own network namespace, check addresses of
// its loopback interface by MethodRaw, and nothing else.
const ownNamespace = "CHECKER_OWN_NAMESPACE"

// noCapabilities is the exit status of that process where a user namespace is worth nothing.
const noCapabilities = 77

func init() {
	if os.Getenv(ownNamespace) == "" {
		return
	}
	switch err := checkInOwnNamespace(); {
	case errors.Is(err, errLoopback):
		fmt.Println(err)
		os.Exit(noCapabilities)
	case err != nil:
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

var errLoopback = errors.New("cannot set up the loopback interface")

func checkInOwnNamespace() error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("%w: %w", errLoopback, err)
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	var targets []netip.AddrPort
	for i := range byte(64) {
		targets = append(targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, i, 1}), port))
	}
	const n = 1000
	counts, oddities, err := atFullSpeed(Config{Method: MethodRaw}, targets, n)
	if err == nil && counts[Answered] != n {
		err = fmt.Errorf("living targets: %v %v", counts, oddities)
	}
	if err != nil {
		return err
	}
	l.Close()
	counts, oddities, err = atFullSpeed(Config{Method: MethodRaw}, targets, n)
	if err == nil && counts[Refused] != n {
		err = fmt.Errorf("closed ports: %v %v", counts, oddities)
	}
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// MethodRaw needs no privilege on the machine where the network namespace is the user's own, as in a rootless
// container.
func TestRawInOwnNamespace(t *testing.T) {
	var out strings.Builder
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownNamespace+"=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// The process dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG), so that has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	switch failed := errors.As(err, &exit); {
	case err == nil:
		t.Logf("%v", time.Since(begin))
	case !failed, exit.ExitCode() == noCapabilities:
		// Not %w: root could not do better.
		lab.Skip(t, fmt.Errorf("no user namespace (%v %s); allow them: sysctl -w user.max_user_namespaces=10000, on "+
			"Debian kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a "+
			"container, its seccomp profile has to allow them", err, strings.TrimSpace(out.String())))
	default:
		t.Errorf("%v: %s", err, out.String())
	}
}
