package test

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// server is a CoreDNS that runs until the end of the test.
type server struct {
	t    testing.TB
	inst *caddy.Instance
	addr string // for UDP
	tcp  string
	port int // in place of 0
	once sync.Once
}

// start returns when all of the server's sockets are served.
func start(t testing.TB, text string) *server {
	t.Helper()
	s := launch(t, text)
	s.expectServed()
	return s
}

// launch is for servers that do not speak plain DNS. The test has to see it serve: what does not serve yet is neither
// stopped nor replaced as it should be.
func launch(t testing.TB, text string) *server {
	t.Helper()
	s := &server{t: t}
	if runtime.GOOS == "linux" {
		s.port = port(t)
	}
	var err error
	if s.inst, err = caddy.Start(s.corefile(text)); err != nil {
		t.Fatal(err)
	}
	listener := s.inst.Servers()[0]
	if a := listener.LocalAddr(); a != nil {
		s.addr = a.String()
	}
	if a := listener.Addr(); a != nil {
		s.tcp = a.String()
	}
	t.Cleanup(s.stop)
	return s
}

// reload replaces the Corefile. After an error the old one is in force.
func (s *server) reload(text string) error {
	s.t.Helper()
	inst, err := s.inst.Restart(s.corefile(text))
	if err == nil {
		s.inst = inst
		s.expectServed()
	}
	return err
}

// stop is the end as on SIGTERM.
func (s *server) stop() {
	s.callBack()
	s.inst.Stop()
}

// callBack runs the shutdown callbacks, which come before the servers stop.
func (s *server) callBack() {
	s.once.Do(func() {
		for _, err := range s.inst.ShutdownCallbacks() {
			s.t.Error(err)
		}
	})
}

var portZero = regexp.MustCompile(`(?m)^[ \t]*(\w+://)?[\w.*-]+:0[ ,].*\{$`)

// corefile has a port of the server's own where its blocks have 0. CoreDNS shares its ports (SO_REUSEPORT), so the kernel
// may well give the same one to two servers that leave the choice to it, and then each gets some of the other's queries.
func (s *server) corefile(text string) caddy.Input {
	return corefile(portZero.ReplaceAllStringFunc(text, func(keys string) string {
		return regexp.MustCompile(`:0\b`).ReplaceAllString(keys, ":"+strconv.Itoa(s.port))
	}))
}

func corefile(text string) caddy.Input {
	return caddy.CaddyfileInput{Contents: []byte(text), Filepath: "Corefile", ServerTypeName: "dns"}
}

// expectServed waits for each socket, with a query that has no question and that no plugin gets to see.
func (s *server) expectServed() {
	s.t.Helper()
	queries := 1
	if n := len(s.inst.Servers()); n > 1 {
		queries = 20 // where several share a port, each of them gets some, except once in a million times
	}
	for _, listener := range s.inst.Servers() {
		for range queries {
			s.expectFormatError("tcp", listener.Addr())
			s.expectFormatError("udp", listener.LocalAddr())
		}
	}
}

func (s *server) expectFormatError(network string, addr net.Addr) {
	s.t.Helper()
	if ap := netip.MustParseAddrPort(addr.String()); !ap.Addr().IsLoopback() {
		s.t.Fatalf("listens on %v", ap)
	}
	q := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id()}}
	client := dns.Client{Net: network, Timeout: patience}
	m, _, err := client.Exchange(q, addr.String())
	if err != nil {
		s.t.Fatal(err)
	}
	if m.Rcode != dns.RcodeFormatError {
		s.t.Errorf("a query without a question was answered by\n%v", m)
	}
}

// patience is how long a client waits for what comes at once on an idle machine.
const patience = time.Minute

// ask sends one query over UDP and returns the answer.
func (s *server) ask(qname string, qtype uint16, options ...func(*dns.Msg)) *dns.Msg {
	s.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	for _, o := range options {
		o(q)
	}
	client := dns.Client{Timeout: patience}
	m, _, err := client.Exchange(q, s.addr)
	if err != nil {
		s.t.Fatalf("%s %s: %v", qname, dns.TypeToString[qtype], err)
	}
	return m
}

// askTCP is for answers that are too long for a packet.
func (s *server) askTCP(qname string, qtype uint16) *dns.Msg {
	s.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	client := dns.Client{Net: "tcp", Timeout: patience}
	m, _, err := client.Exchange(q, s.tcp)
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
	conn, err := dns.DialTimeout(network, addr, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func withEDNS(m *dns.Msg) { m.SetEdns0(1232, false) }

func withLongAnswer(m *dns.Msg) { m.SetEdns0(4096, false) }

// addresses returns the addresses in an answer, sorted.
func addresses(m *dns.Msg) []netip.Addr {
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
	lab.UntilNil(s.t, func() error {
		if got := addresses(s.ask(qname, qtype)); !slices.Equal(got, want) {
			return fmt.Errorf("%s: %v, want %v", qname, got, want)
		}
		return nil
	})
	return time.Since(begin)
}

// extendedError returns the text of the Extended DNS Error in m.
func extendedError(m *dns.Msg) string {
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

// expectNegative checks that m is a NODATA answer that is cached for no longer than ttl.
func expectNegative(t *testing.T, m *dns.Msg, ttl uint32) {
	t.Helper()
	if len(m.Ns) != 1 {
		t.Fatalf("authority section of %d records, want one SOA:\n%v", len(m.Ns), m)
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok || soa.Hdr.Ttl > ttl || soa.Minttl > ttl || soa.Hdr.Name != "example.org." {
		t.Errorf("authority section %v", m.Ns[0])
	}
}
