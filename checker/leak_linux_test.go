package checker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A prober that was closed leaves no descriptor and no goroutine.
func TestNothingIsLeft(t *testing.T) {
	open, _ := listen(t, "tcp4", "127.0.0.1:0")
	closed := refusing(t, "tcp4", "127.0.0.2:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		use := func() {
			c := newCollector()
			p, err := NewProber(Config{Method: m}, c.deliver)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				p.Submit(Check{Target: open, Timeout: time.Minute, Tag: 2 * i}, Check{Target: closed, Timeout: time.Minute, Tag: 2*i + 1})
			}
			c.take(t, 8)
			p.Submit(Check{Target: open, Timeout: time.Minute}) // may be cut short
			p.Close()
		}
		use() // Go's own poller opens what it keeps
		descriptors, goroutines := openDescriptors(t), runtime.NumGoroutine()
		for range 200 {
			use()
		}
		if now := openDescriptors(t); now != descriptors {
			t.Errorf("%d descriptors open, and %d before", now, descriptors)
		}
		// A goroutine that has said it is done may take a moment to end.
		lab.UntilNil(t, func() error {
			if now := runtime.NumGoroutine(); now > goroutines {
				return fmt.Errorf("%d goroutines, and %d before", now, goroutines)
			}
			return nil
		})
	})
}

// fewDescriptors in the environment makes the test binary start probers of that method with too few
// descriptors, and nothing else.
const fewDescriptors = "CHECKER_FEW_DESCRIPTORS"

func init() {
	name := os.Getenv(fewDescriptors)
	if name == "" {
		return
	}
	if err := startWithFew(name); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startWithFew starts probers with one descriptor to spare, with two, and so on until one does start. All
// others have to fail for want of a descriptor, and to leave none open.
func startWithFew(name string) error {
	m, err := ParseMethod(name)
	if err != nil {
		return err
	}
	config := Config{Method: m, Pool: 1}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	time.Sleep(time.Nanosecond) // Go's own poller opens what it keeps; without it the process would end
	used := lowestDescriptor()
	for spare := range 100 {
		limit.Cur = uint64(used + spare)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		p, err := NewProber(config, func([]Report) {})
		if err == nil {
			p.Close()
			fmt.Printf("%d failures\n", spare)
		} else if !errors.Is(err, unix.EMFILE) {
			return fmt.Errorf("with %d descriptors to spare: %w", spare, err)
		}
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		if now := lowestDescriptor(); now != used {
			return fmt.Errorf("with %d descriptors to spare, some stayed open: the next is %d, not %d", spare, now, used)
		}
		if err == nil {
			return nil
		}
	}
	return errors.New("no number of descriptors is enough")
}

// lowestDescriptor returns the lowest that is free, as open(2) gives it.
func lowestDescriptor() int {
	fd, err := unix.Dup(0)
	if err != nil {
		return -1
	}
	unix.Close(fd)
	return fd
}

// NewProber fails as a whole wherever it runs out of descriptors.
func TestStartWithoutDescriptors(t *testing.T) {
	for m, least := range map[Method]int{
		MethodSocket: 2,                         // epoll, eventfd
		MethodRaw:    reservedPorts + 2 + 2 + 2, // ports, routes, raw sockets, epoll and eventfd
	} {
		t.Run(m.String(), func(t *testing.T) {
			needs(t, m)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fewDescriptors+"="+m.String())
			out, err := cmd.CombinedOutput()
			var failures int
			if _, scanErr := fmt.Sscanf(string(out), "%d failures", &failures); err != nil || scanErr != nil || failures < least {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Without the capability MethodRaw says at once what it lacks and how to get it.
func TestRawWithoutCapability(t *testing.T) {
	failed := make(chan error)
	go func() {
		// Capabilities are a thread's; this one ends with its goroutine, because it stays locked.
		runtime.LockOSThread()
		if err := dropCapability(unix.CAP_NET_RAW); err != nil {
			failed <- err
			return
		}
		time.Sleep(time.Nanosecond) // Go's own poller opens what it keeps
		before := lowestDescriptor()
		p, err := NewProber(Config{Method: MethodRaw}, func([]Report) {})
		if err == nil {
			p.Close()
		} else if now := lowestDescriptor(); now != before {
			err = fmt.Errorf("descriptors stayed open: the next is %d, not %d", now, before)
		}
		failed <- err
	}()
	err := <-failed
	if !errors.Is(err, unix.EPERM) {
		t.Fatalf("error %v", err)
	}
	for _, part := range []string{"CAP_NET_RAW", "root", "setcap cap_net_raw+ep", "AmbientCapabilities=CAP_NET_RAW", "NET_RAW among"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %q in: %v", part, err)
		}
	}
}

// dropCapability takes the capability from the calling thread's effective set.
func dropCapability(number uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[number/32].Effective &^= 1 << (number % 32)
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
