package checker

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A socket that the kernel gave the very port that it connects to has answered itself. That is no answer: neither alone
// nor among others, nor where the kernel has only just begun to choose that port.
func TestConnectedToItself(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		l.Host("peer") // for a link
		p, c := newTestProber(t, Config{Method: MethodSocket})
		for _, port := range []string{"20000", "30000"} {
			l.Sysctl("net.ipv4.ip_local_port_range", port+" "+port)
			for _, addr := range []string{"127.0.0.1", "127.0.0.1", "::1", linkLocal(t)} {
				target := netip.MustParseAddrPort(net.JoinHostPort(addr, port))
				p.Submit(Check{Target: target, Timeout: 10 * time.Second})
				refusedByItself(t, target.String(), c.take(t, 1)[nil])
			}
		}
		// Of these, most have a reading of the range.
		var checks []Check
		for i := range 4 * fewAnswers {
			target := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}), 40000)
			checks = append(checks, Check{Target: target, Source: target.Addr(), Timeout: 10 * time.Second, Tag: target})
		}
		l.Sysctl("net.ipv4.ip_local_port_range", "40000 40000")
		p.Submit(checks...)
		for target, r := range c.take(t, len(checks)) {
			refusedByItself(t, target.(netip.AddrPort).String(), r)
		}
	})
}

func refusedByItself(t *testing.T, target string, r Report) {
	t.Helper()
	if r.Result != Refused || !errors.Is(r.Err, unix.ECONNREFUSED) {
		t.Errorf("%s: %v (%v)", target, r.Result, r.Err)
	}
}

// The range is read where a turn has more than a few answers, and never becomes narrower.
func TestEphemeral(t *testing.T) {
	const outside = 1
	var e ephemeral
	e.begin()
	defer e.close()
	present := e.known
	e.known = portRange{2000, 3000}
	turn := time.Now()
	for range fewAnswers {
		if !e.mayHaveChosen(outside, turn) {
			t.Fatal("the range was trusted without a reading")
		}
	}
	if e.mayHaveChosen(outside, turn) {
		t.Errorf("port %d may be chosen; known %v", outside, e.known)
	}
	if want := (portRange{2000, 3000}).union(present); e.known != want {
		t.Errorf("known %v, want %v", e.known, want)
	}
	if !e.mayHaveChosen(outside, turn.Add(1)) {
		t.Error("another turn: the range was trusted without a reading")
	}
	if !e.close() || e.close() || e.read() != allPorts {
		t.Error("closed once: want true, then false, and no range")
	}
	if got, want := (portRange{2000, 3000}).union(portRange{1500, 2500}), (portRange{1500, 3000}); got != want {
		t.Errorf("union %v, want %v", got, want)
	}
}

func TestParsePortRange(t *testing.T) {
	for text, want := range map[string]portRange{
		"32768\t60999\n": {32768, 60999},
		"1\t65535":       {1, 65535},
		"20000\t20000\n": {20000, 20000},
		"":               allPorts,
		"32768":          allPorts,
		"3\t2":           allPorts,
		"1\t65536":       allPorts,
		"-1\t5":          allPorts,
		"a\tb":           allPorts,
	} {
		if got := parsePortRange([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestPortRange(t *testing.T) {
	for _, c := range []struct {
		ports portRange
		port  uint16
		want  bool
	}{
		{allPorts, 80, true},
		{portRange{2000, 3000}, 1999, false},
		{portRange{2000, 3000}, 2000, true},
		{portRange{2000, 3000}, 3000, true},
		{portRange{2000, 3000}, 3001, false},
	} {
		if got := c.ports.has(c.port); got != c.want {
			t.Errorf("%v has %d: %v", c.ports, c.port, got)
		}
	}
}
