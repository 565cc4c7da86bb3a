package test

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Without the capability, CoreDNS does not start with method raw, and says what is missing and how to get it.
func TestRawWithoutCapability(t *testing.T) {
	answers := backend(func(dns.Question) []dns.RR { return nil }).directive(t)
	failed := make(chan error)
	go func() {
		// Capabilities are a thread's; this one ends with its goroutine, because it stays locked.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			failed <- os.NewSyscallError("capset", err)
			return
		}
		inst, err := caddy.Start(corefile("example.org:0 {\nbind 127.0.0.1\nshaker {\nmethod raw\n}\n" + answers + "\n}\n"))
		if err == nil {
			inst.Stop()
		}
		failed <- err
	}()
	err := <-failed
	if err == nil {
		t.Fatal("CoreDNS has started")
	}
	for _, part := range []string{"method raw", "CAP_NET_RAW", "setcap cap_net_raw+ep", "AmbientCapabilities=CAP_NET_RAW", "NET_RAW among"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %q in: %v", part, err)
		}
	}
}
