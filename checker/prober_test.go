package checker

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// methods are those that this system has.
func methods() []Method {
	if runtime.GOOS == "linux" {
		return []Method{MethodSocket, MethodRaw, MethodDial}
	}
	return []Method{MethodDial}
}

func forEachMethod(t *testing.T, test func(t *testing.T, m Method)) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			needs(t, m)
			test(t, m)
		})
	}
}

// needs skips the test if the method takes more privileges than there are.
func needs(t testing.TB, m Method) {
	t.Helper()
	if m != MethodRaw {
		return
	}
	p, err := NewProber(Config{Method: m}, func([]Report) {})
	if err != nil {
		lab.Skip(t, err)
	}
	p.Close()
}

// collector gathers reports and lets a test wait for a number of them.
type collector struct {
	mu      sync.Mutex
	arrived *sync.Cond
	reports []Report
}

func newCollector() *collector {
	c := new(collector)
	c.arrived = sync.NewCond(&c.mu)
	return c
}

func (c *collector) deliver(reports []Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, reports...)
	c.arrived.Broadcast()
}

// take waits for n reports and returns them by their tag.
func (c *collector) take(t *testing.T, n int) map[any]Report {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.reports) < n {
		c.arrived.Wait()
	}
	byTag := make(map[any]Report)
	for _, r := range c.reports {
		if _, twice := byTag[r.Tag]; twice {
			t.Errorf("check %v was reported twice", r.Tag)
		}
		byTag[r.Tag] = r
	}
	if len(c.reports) != n {
		t.Errorf("%d reports, want %d", len(c.reports), n)
	}
	c.reports = nil
	return byTag
}

// waiting returns how many reports nobody has taken yet.
func (c *collector) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.reports)
}

// inPlace carries out a check, and does so again for as long as the machine is too busy for it: its time is up before it
// gets a place, which may happen to the only one, or this process is away while it waits for an answer.
func inPlace(t *testing.T, check func() Report) (r Report) {
	t.Helper()
	lab.Until(t, "a check that gets a place", func() bool {
		r = check()
		return r.Err != ErrBusy && r.Err != ErrPaused && !untimed(r)
	})
	return r
}

// untimed tells whether a report is about an answer that came while this process was away.
func untimed(r Report) bool { return (r.Result == Answered || r.Result == Refused) && r.RTT == 0 }

func newTestProber(t *testing.T, o Config) (*Prober, *collector) {
	t.Helper()
	c := newCollector()
	p, err := NewProber(o, c.deliver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, c
}

// listen opens a listener that accepts nothing by itself; the kernel answers SYNs all the same.
func listen(t testing.TB, network, addr string) (netip.AddrPort, *net.TCPListener) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort(), l.(*net.TCPListener)
}

// refusing returns a port of a loopback address on which nobody listens, and nobody will for as long as the test runs: a
// connection of the test has it. Nor does the kernel choose it for a check, which would reach itself.
func refusing(t testing.TB, network, addr string) netip.AddrPort {
	t.Helper()
	to, _ := listen(t, network, addr)
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), 0))
	conn, err := net.DialTCP(network, from, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().(*net.TCPAddr).AddrPort()
}

func hasIPv6(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func TestResults(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		p, c := newTestProber(t, Config{Method: m})
		open4, _ := listen(t, "tcp4", "127.0.0.1:0")
		mapped := netip.AddrPortFrom(netip.AddrFrom16(open4.Addr().As16()), open4.Port())
		tests := []struct {
			name   string
			check  Check
			result Result
			err    error
		}{
			{"open", Check{Target: open4}, Answered, nil},
			{"open, mapped address", Check{Target: mapped}, Answered, nil},
			{"open, from a source", Check{Target: open4, Source: netip.MustParseAddr("127.0.0.9")}, Answered, nil},
			{"refused", Check{Target: refusing(t, "tcp4", "127.0.0.2:0")}, Refused, syscall.ECONNREFUSED},
			{"source of another machine", Check{Target: open4, Source: netip.MustParseAddr("192.0.2.1")}, Inconclusive, nil},
			{"source of another family", Check{Target: open4, Source: netip.MustParseAddr("::1")}, Inconclusive, ErrTarget},
			{"port 0", Check{Target: netip.AddrPortFrom(open4.Addr(), 0)}, Inconclusive, ErrTarget},
			{"no target", Check{}, Inconclusive, ErrTarget},
			{"unknown zone", Check{Target: netip.MustParseAddrPort("[fe80::1%nosuchinterface]:80")}, Inconclusive, ErrTarget},
		}
		if hasIPv6(t) {
			open6, _ := listen(t, "tcp6", "[::1]:0")
			tests = append(tests, tests[0], tests[0], tests[0])
			n := len(tests)
			tests[n-3].name, tests[n-3].check.Target = "open, IPv6", open6
			tests[n-2].name, tests[n-2].check = "open, IPv6, from a source", Check{Target: open6, Source: open6.Addr()}
			tests[n-1] = tests[3]
			tests[n-1].name, tests[n-1].check.Target = "refused, IPv6", refusing(t, "tcp6", "[::1]:0")
		}
		for i, tt := range tests {
			tt.check.Timeout = 10 * time.Second
			tt.check.Tag = i
			r := inPlace(t, func() Report {
				if err := p.Submit(tt.check); err != nil {
					t.Fatal(err)
				}
				return c.take(t, 1)[i]
			})
			if r.Result != tt.result {
				t.Errorf("%s: %v (%v), want %v", tt.name, r.Result, r.Err, tt.result)
			}
			if tt.err != nil && !errors.Is(r.Err, tt.err) {
				t.Errorf("%s: error %v, want %v", tt.name, r.Err, tt.err)
			}
			if (r.Result == Answered) != (r.Err == nil) {
				t.Errorf("%s: %v with error %v", tt.name, r.Result, r.Err)
			}
			if timed := r.Result == Answered || r.Result == Refused; timed != (r.RTT > 0) {
				t.Errorf("%s: %v with round trip %v", tt.name, r.Result, r.RTT)
			}
		}
	})
}

func TestTimeout(t *testing.T) {
	hole := blackHole(t)
	forEachMethod(t, func(t *testing.T, m Method) {
		p, c := newTestProber(t, Config{Method: m})
		const timeout = 150 * time.Millisecond
		var begin time.Time
		r := inPlace(t, func() Report {
			begin = time.Now()
			p.Submit(Check{Target: hole, Timeout: timeout})
			return c.take(t, 1)[nil]
		})
		if r.Result != Timeout || r.Err != ErrTimeout || r.RTT != 0 {
			t.Errorf("%v, error %v, round trip %v; want a timeout", r.Result, r.Err, r.RTT)
		}
		if took := time.Since(begin); took < timeout {
			t.Errorf("reported after %v, before its timeout of %v", took, timeout)
		}
	})
}

// Black holes that fill their share of the pool must not keep a living address from being checked.
func TestSuspectsLeaveRoom(t *testing.T) {
	hole := blackHole(t)
	open, _ := listen(t, "tcp4", "127.0.0.1:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		p, c := newTestProber(t, Config{Method: m, Pool: 4})
		for i := range 100 {
			p.Submit(Check{Target: hole, Timeout: time.Minute, Suspect: true, Tag: i})
		}
		p.Submit(Check{Target: open, Timeout: time.Minute, Tag: "open"})
		if r := c.take(t, 1)["open"]; r.Result != Answered {
			t.Errorf("the living address: %v (%v)", r.Result, r.Err)
		}
		p.Close()
		for tag, r := range c.take(t, 100) {
			if r.Result != Inconclusive || r.Err != ErrClosed {
				t.Errorf("check %v cut short: %v, error %v", tag, r.Result, r.Err)
			}
		}
	})
}

// A check that finds no place within its timeout says so, and does not blame the target.
func TestPoolTooSmall(t *testing.T) {
	hole := blackHole(t)
	forEachMethod(t, func(t *testing.T, m Method) {
		p, c := newTestProber(t, Config{Method: m, Pool: 1})
		p.Submit(Check{Target: hole, Timeout: time.Second, Tag: 1},
			Check{Target: hole, Timeout: 20 * time.Millisecond, Tag: 2})
		reports := c.take(t, 2)
		if r := reports[1]; r.Result != Timeout {
			t.Errorf("the first: %v (%v)", r.Result, r.Err)
		}
		if r := reports[2]; r.Result != Inconclusive || r.Err != ErrBusy {
			t.Errorf("the second: %v (%v)", r.Result, r.Err)
		}
	})
}

func TestEveryCheckIsReportedOnce(t *testing.T) {
	hole := blackHole(t)
	open, _ := listen(t, "tcp4", "127.0.0.1:0")
	closed := refusing(t, "tcp4", "127.0.0.2:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		p, c := newTestProber(t, Config{Method: m, Pool: 100})
		const each = 2000
		var submitters sync.WaitGroup
		for kind, target := range []netip.AddrPort{open, closed, hole} {
			submitters.Go(func() {
				for i := range each {
					timeout := time.Minute
					if target == hole {
						timeout = time.Duration(1+i%20) * time.Millisecond
					}
					p.Submit(Check{Target: target, Timeout: timeout, Suspect: target == hole, Tag: [2]int{kind, i}})
				}
			})
		}
		submitters.Wait()
		want := []Result{Answered, Refused, Timeout}
		for tag, r := range c.take(t, 3*each) {
			kind := tag.([2]int)[0]
			if r.Result != want[kind] && !(want[kind] == Timeout && (r.Err == ErrBusy || r.Err == ErrPaused)) {
				t.Fatalf("%v: %v (%v), want %v", tag, r.Result, r.Err, want[kind])
			}
		}
	})
}

func TestClose(t *testing.T) {
	forEachMethod(t, func(t *testing.T, m Method) {
		p, _ := newTestProber(t, Config{Method: m})
		var closers sync.WaitGroup
		for range 4 {
			closers.Go(p.Close)
		}
		closers.Wait()
		select {
		case <-p.Done():
		default:
			t.Error("closed, but not done")
		}
		if err := p.Err(); err != nil {
			t.Error("error after Close:", err)
		}
		if err := p.Submit(Check{}); err != ErrClosed {
			t.Errorf("Submit after Close: %v, want ErrClosed", err)
		}
	})
}

// A panic in deliver is a failure of the prober, not of the process; nor is one when deliver is told of those in line.
func TestPanicEndsProber(t *testing.T) {
	open, _ := listen(t, "tcp4", "127.0.0.1:0")
	forEachMethod(t, func(t *testing.T, m Method) {
		p, err := NewProber(Config{Method: m, Pool: 1}, func([]Report) { panic("out of cheese") })
		if err != nil {
			t.Fatal(err)
		}
		check := Check{Target: open, Timeout: time.Minute}
		p.Submit(check, check, check)
		<-p.Done()
		if err := p.Err(); err == nil || !strings.HasPrefix(err.Error(), "checker: panic: out of cheese") {
			t.Errorf("failure %v", err)
		}
		p.Close()
	})
}

func TestUnknownMethod(t *testing.T) {
	if _, err := NewProber(Config{Method: 99}, nil); err == nil {
		t.Error("method 99 works")
	}
	for _, m := range []Method{MethodSocket, MethodRaw, MethodDial} {
		if parsed, err := ParseMethod(m.String()); parsed != m || err != nil {
			t.Errorf("ParseMethod(%q) = %v, %v", m, parsed, err)
		}
	}
	if _, err := ParseMethod("pigeon"); err == nil {
		t.Error("ParseMethod takes a pigeon")
	}
}
