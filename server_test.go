package shaker

import (
	"bytes"
	"fmt"
	golog "log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"

	"github.com/miekg/dns"
)

// The tests in server_*_test.go run a whole CoreDNS and ask it as a client would.

var serverSetUp = sync.OnceFunc(func() {
	caddy.Quiet = true
	dnsserver.Quiet = true
	directives := slices.Clone(dnsserver.Directives)
	if !slices.Contains(directives, name) {
		directives = slices.Insert(directives, slices.Index(directives, "cache"), name)
	}
	directives = slices.Insert(directives, slices.Index(directives, name), cacheAboveDirective)
	// The test's own backend, see serverBackend.
	directives = append(directives, backendDirective)
	if err := dnsserver.SetDirectives(directives); err != nil {
		panic(err)
	}
})

// server is a CoreDNS that runs until the end of the test.
type server struct {
	t    testing.TB
	inst *caddy.Instance
	addr string // for UDP
	tcp  string // port 0 in a Corefile makes a different port of each
	once sync.Once
}

func serverStart(t testing.TB, corefile string) *server {
	t.Helper()
	serverSetUp()
	inst, err := caddy.Start(serverInput(corefile))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, inst: inst}
	listener := inst.Servers()[0]
	if a := listener.LocalAddr(); a != nil {
		s.addr = a.String()
	}
	if a := listener.Addr(); a != nil {
		s.tcp = a.String()
	}
	t.Cleanup(func() {
		s.callBack()
		s.inst.Stop()
	})
	return s
}

// callBack runs the shutdown callbacks, which come before the servers stop, as on SIGTERM.
func (s *server) callBack() {
	s.once.Do(func() {
		for _, err := range s.inst.ShutdownCallbacks() {
			s.t.Error(err)
		}
	})
}

func serverInput(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
}

// ask sends one query over UDP and returns the answer.
func (s *server) ask(qname string, qtype uint16, options ...func(*dns.Msg)) *dns.Msg {
	s.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	for _, o := range options {
		o(q)
	}
	client := dns.Client{Timeout: 10 * time.Second}
	m, _, err := client.Exchange(q, s.addr)
	if err != nil {
		s.t.Fatalf("%s %s: %v", qname, dns.TypeToString[qtype], err)
	}
	return m
}

// dial returns a connection that the test closes, for queries and answers as they are on the wire.
func (s *server) dial(network string) *dns.Conn {
	s.t.Helper()
	addr := s.addr
	if network == "tcp" {
		addr = s.tcp
	}
	conn, err := dns.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func withEDNS(m *dns.Msg) { m.SetEdns0(1232, false) }

// serverAddresses returns the addresses in an answer, sorted.
func serverAddresses(m *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			addrs = append(addrs, netip.MustParseAddr(rr.A.String()))
		case *dns.AAAA:
			addrs = append(addrs, netip.MustParseAddr(rr.AAAA.String()))
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// until asks until the answer has exactly these addresses, and returns how long that took.
func (s *server) until(qname string, qtype uint16, want []netip.Addr) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for {
		got := serverAddresses(s.ask(qname, qtype))
		if slices.Equal(got, want) {
			return time.Since(begin)
		}
		if time.Since(begin) > 20*time.Second {
			s.t.Fatalf("%s: still %v, want %v", qname, got, want)
		}
		time.Sleep(time.Millisecond) // the pace of a client, not a wait for a state
	}
}

// serverLog captures what is logged until the end of the test.
func serverLog(t testing.TB) *lockedBuffer {
	b := new(lockedBuffer)
	golog.SetOutput(b)
	t.Cleanup(func() { golog.SetOutput(os.Stderr) })
	return b
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// expect waits until a line is there.
func (b *lockedBuffer) expect(t testing.TB, line *regexp.Regexp) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !line.MatchString(b.String()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in\n%s", line, b)
		}
	}
}

// farm is a set of TCP services on one port of several addresses, each of which can die and come back.
type farm struct {
	t         testing.TB
	addrs     []netip.Addr
	port      uint16
	listeners map[netip.Addr]net.Listener
}

func newFarm(t testing.TB, addrs ...string) *farm {
	t.Helper()
	f := &farm{t: t, listeners: make(map[netip.Addr]net.Listener)}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		f.addrs = append(f.addrs, addr)
		f.start(addr)
	}
	t.Cleanup(func() {
		for addr := range f.listeners {
			f.kill(addr)
		}
	})
	return f
}

func (f *farm) start(addr netip.Addr) {
	f.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, f.port).String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.port = uint16(l.Addr().(*net.TCPAddr).Port)
	f.listeners[addr] = l
}

func (f *farm) kill(addr netip.Addr) {
	f.listeners[addr].Close()
	delete(f.listeners, addr)
}

func (f *farm) without(addr netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(f.addrs), func(a netip.Addr) bool { return a == addr })
}

// zoneFile writes a zone example.org with the farm's addresses at www.
func (f *farm) zoneFile() string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	b.WriteString("alias 300 IN CNAME www\n")
	for _, addr := range f.addrs {
		rrtype := "A"
		if addr.Is6() {
			rrtype = "AAAA"
		}
		fmt.Fprintf(&b, "www 300 IN %s %s\n", rrtype, addr)
	}
	return serverFile(f.t, "db.example.org", b.String())
}

func serverFile(t testing.TB, name, contents string) string {
	t.Helper()
	return serverFileIn(t, t.TempDir(), name, contents)
}

func serverFileIn(t testing.TB, dir, name, contents string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hostsBlock is the same for the hosts plugin.
func (f *farm) hostsBlock() string {
	var b strings.Builder
	b.WriteString("hosts {\n")
	for _, addr := range f.addrs {
		fmt.Fprintf(&b, "%s www.example.org\n", addr)
	}
	b.WriteString("}\n")
	return b.String()
}

// The answers follow the backends, whichever plugin below makes them, and with or without a cache between.
func TestServerFollowsBackends(t *testing.T) {
	f := newFarm(t, "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4")
	zone := f.zoneFile()
	upstream := serverStart(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", zone))
	backends := map[string]string{
		"file":    "file " + zone,
		"hosts":   f.hostsBlock(),
		"forward": "forward . " + upstream.addr,
	}
	for backend, directive := range backends {
		for _, cache := range []string{"", "cache 300"} {
			t.Run(strings.TrimSpace(backend+" "+cache), func(t *testing.T) {
				s := serverStart(t, fmt.Sprintf(`example.org:0 {
					bind 127.0.0.1
					shaker {
						port %d
						allow 127.0.0.0/8
						interval 200ms 50ms
						timeout 200ms
					}
					%s
					%s
				}`, f.port, cache, directive))
				s.until("www.example.org.", dns.TypeA, f.addrs)
				victim := f.addrs[2]
				f.kill(victim)
				left := s.until("www.example.org.", dns.TypeA, f.without(victim))
				f.start(victim)
				back := s.until("www.example.org.", dns.TypeA, f.addrs)
				t.Logf("left after %v, back after %v", left.Round(time.Millisecond), back.Round(time.Millisecond))
				for _, rr := range s.ask("www.example.org.", dns.TypeA).Answer {
					if ttl := rr.Header().Ttl; ttl > 30 {
						t.Errorf("TTL %d of a watched address", ttl)
					}
				}
			})
		}
	}
}

// The first answer ever already lacks an address that refuses.
func TestServerFirstAnswer(t *testing.T) {
	f := newFarm(t, "127.0.2.1", "127.0.2.2")
	f.kill(f.addrs[1])
	s := serverStart(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			allow 127.0.0.0/8
			hold 3s
		}
		%s
	}`, f.port, f.hostsBlock()))
	begin := time.Now()
	m := s.ask("www.example.org.", dns.TypeA)
	t.Logf("first answer after %v", time.Since(begin).Round(time.Microsecond))
	if got := serverAddresses(m); !slices.Equal(got, f.addrs[:1]) {
		t.Errorf("first answer %v, want %v", got, f.addrs[:1])
	}
}

// When every address is down the answer is what `fallback` says, and the client learns why.
func TestServerFallback(t *testing.T) {
	f := newFarm(t, "127.0.3.1", "127.0.3.2", "127.0.3.3", "127.0.3.4")
	for _, addr := range f.addrs {
		f.kill(addr)
	}
	tests := []struct {
		fallback string
		rcode    int
		want     []netip.Addr
	}{
		{"all", dns.RcodeSuccess, f.addrs},
		{"nodata", dns.RcodeSuccess, nil},
		{"servfail", dns.RcodeServerFailure, nil},
		{"192.0.2.80 192.0.2.81 2001:db8::80", dns.RcodeSuccess,
			[]netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("192.0.2.81")}},
	}
	for _, tt := range tests {
		t.Run(tt.fallback, func(t *testing.T) {
			s := serverStart(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %d
					allow 127.0.0.0/8
					hold 3s
					ttl 20s
					fallback %s
				}
				file %s
			}`, f.port, tt.fallback, f.zoneFile()))
			for _, qname := range []string{"www.example.org.", "alias.example.org."} {
				m := s.ask(qname, dns.TypeA, withEDNS)
				if got := serverAddresses(m); m.Rcode != tt.rcode || !slices.Equal(got, tt.want) {
					t.Errorf("%s, want %v in\n%v", qname, tt.want, m)
				}
				if got := serverEDE(m); got != "shaker: 4 of 4 addresses of www.example.org. are down" {
					t.Errorf("EDE %q", got)
				}
				if tt.fallback == "nodata" {
					serverExpectNegative(t, m, 20)
				}
				if got := serverEDE(s.ask(qname, dns.TypeA)); got != "" {
					t.Errorf("EDE %q for a client without EDNS", got)
				}
			}
		})
	}
}

// serverEDE returns the text of the Extended DNS Error in m.
func serverEDE(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if ede, ok := o.(*dns.EDNS0_EDE); ok {
			return ede.ExtraText
		}
	}
	return ""
}

// serverExpectNegative checks that m is a NODATA answer that is cached for no longer than ttl.
func serverExpectNegative(t *testing.T, m *dns.Msg, ttl uint32) {
	t.Helper()
	if len(m.Ns) != 1 {
		t.Fatalf("authority section of %d records, want one SOA:\n%v", len(m.Ns), m)
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok || soa.Hdr.Ttl > ttl || soa.Minttl > ttl || soa.Hdr.Name != "example.org." {
		t.Errorf("authority section %v", m.Ns[0])
	}
}

// serverBackend is a plugin that answers what the test wants. A Corefile uses it by its directive.
type serverBackend func(q dns.Question) []dns.RR

const backendDirective = "testbackend"

var backendAnswers serverBackend

func init() {
	plugin.Register(backendDirective, func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler { return backendAnswers })
		return nil
	})
}
