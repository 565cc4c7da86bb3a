package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The quick start of the README is the same with all plugins.
func TestCorefileExample(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "Corefile.example"))
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(lab.Port(t))
	corefile := strings.ReplaceAll(string(text), "1053", port)
	for _, fixed := range []string{"127.0.0.1:8053", "127.0.0.1:9153"} {
		corefile = strings.ReplaceAll(corefile, fixed, lab.Local(t))
	}
	dir := t.TempDir()
	lab.FileIn(t, dir, "overrides.example", "")
	cmd := command(t, "-conf", lab.FileIn(t, dir, "Corefile", corefile))
	cmd.Dir = dir
	coredns := lab.Start(t, cmd)

	q := new(dns.Msg)
	q.SetQuestion("www.example.org.", dns.TypeA)
	until := func(want ...netip.Addr) {
		t.Helper()
		coredns.UntilNil(func() error {
			m, err := dns.Exchange(q, "127.0.0.1:"+port)
			if err != nil {
				return err
			}
			if got := addresses(m.Answer); !slices.Equal(got, want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	alive, second := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	until(alive)
	l, err := net.Listen("tcp", net.JoinHostPort(second.String(), port))
	if err != nil {
		t.Fatal(err)
	}
	until(alive, second)
	l.Close()
	until(alive)
	coredns.Signal(syscall.SIGTERM)
	if err := coredns.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
