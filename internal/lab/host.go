package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// uplink is the name of every host's interface towards its parent.
const uplink = "up0"

// Host is a machine with a network namespace of its own. Its methods fail the test when they cannot do
// what they say.
type Host struct {
	// Name is also the name of the interface that leads to the host, in its parent's namespace.
	Name string
	// Addr4 and Addr6 are the host's addresses on the link to its parent.
	Addr4, Addr6 netip.Addr

	t            testing.TB
	prober       *Host
	hosts        int        // on the prober's machine: how many others there are
	parent       *Host      // nil for the prober's machine
	ns           *namespace // nil for the prober's machine: the process is in it
	link4, link6 netip.Prefix
	own4, own6   netip.Prefix
	beyond       []netip.Prefix // what the parent reaches through this host
	delay        *delayLine
	diverted     map[string]bool // see divert
}

func newLab(t testing.TB) *Lab {
	l := &Host{
		Name:  "prober",
		Addr4: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Addr6: netip.IPv6Loopback(),
		t:     t,
	}
	l.prober = l
	return l
}

// Host adds a host that is linked to h. Unless h is the prober's machine it becomes a router. The name
// has to do as the name of an interface: up to 15 letters and digits.
func (h *Host) Host(name string) *Host {
	h.t.Helper()
	ns, err := newNamespace()
	if err != nil {
		h.t.Fatalf("lab: host %s: %v", name, err)
	}
	h.t.Cleanup(ns.close)
	if err := ns.setUp(); err != nil {
		h.t.Fatalf("lab: host %s: %v", name, err)
	}

	h.prober.hosts++
	if h.prober.hosts > 255 {
		h.t.Fatalf("lab: host %s: there are 255 hosts already", name)
	}
	n := byte(h.prober.hosts)
	c := &Host{
		Name:   name,
		Addr4:  netip.AddrFrom4([4]byte{198, 18, n, 2}),
		Addr6:  netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: n, 15: 2}),
		own4:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n, 0, 0}), 16),
		own6:   netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: n, 7: 1}), 64),
		t:      h.t,
		prober: h.prober,
		parent: h,
		ns:     ns,

		diverted: make(map[string]bool),
	}
	c.link4 = netip.PrefixFrom(c.Addr4, 24).Masked()
	c.link6 = netip.PrefixFrom(c.Addr6, 64).Masked()
	c.beyond = []netip.Prefix{c.own4, c.own6}

	if h.ns != nil {
		h.Sysctl("net.ipv4.ip_forward", "1")
		h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	gateway4, gateway6 := c.Addr4.Prev(), c.Addr6.Prev()
	h.IP(
		fmt.Sprintf("link add dev %s address %v type veth peer name %s address %v netns %d",
			name, c.mac(1), uplink, c.mac(2), ns.tid),
		fmt.Sprintf("addr add %v/24 dev %s noprefixroute", gateway4, name),
		fmt.Sprintf("addr add %v/64 dev %s nodad noprefixroute", gateway6, name),
		fmt.Sprintf("link set dev %s up", name),
	)
	if _, again := h.t.(*testing.B); again {
		// A benchmark makes its hosts more than once. By itself the link would go some time after the namespace.
		h.t.Cleanup(func() { h.IP("link del dev " + name) })
	}
	c.IP(
		fmt.Sprintf("addr add %v/24 dev %s", c.Addr4, uplink),
		fmt.Sprintf("addr add %v/64 dev %s nodad", c.Addr6, uplink),
		fmt.Sprintf("link set dev %s up", uplink),
		fmt.Sprintf("route add 0.0.0.0/0 via %v", gateway4),
		fmt.Sprintf("route add ::/0 via %v", gateway6),
		// Makes every address of the prefix the host's own (ip-route(8), type local).
		fmt.Sprintf("route add local %v dev lo", c.own4),
		fmt.Sprintf("route add local %v dev lo", c.own6),
	)
	// Both ends begin with fresh knowledge of each other: a first neighbour solicitation would be lost
	// while the new link joins its multicast groups, and the next one comes after a second.
	const neighbour = "neigh replace %v lladdr %v dev %s nud reachable"
	h.IP(fmt.Sprintf(neighbour, c.Addr4, c.mac(2), name), fmt.Sprintf(neighbour, c.Addr6, c.mac(2), name))
	c.IP(fmt.Sprintf(neighbour, gateway4, c.mac(1), uplink), fmt.Sprintf(neighbour, gateway6, c.mac(1), uplink))
	c.Route()
	for hop := h; hop.parent != nil; hop = hop.parent {
		for _, p := range []netip.Prefix{c.link4, c.link6, c.own4, c.own6} {
			hop.parent.IP(hop.routeVia("add", p))
			hop.beyond = append(hop.beyond, p)
		}
	}
	c.awaitReady()
	return c
}

// awaitReady waits until the host answers over the new link, which the kernel starts in the background.
// A SYN that is lost before that is sent again only after a second, hence the short patience with each.
func (h *Host) awaitReady() {
	h.t.Helper()
	for _, addr := range []netip.Addr{h.Addr4, h.Addr6} {
		h.Until(fmt.Sprintf("a first answer of %s (%v)", h.Name, addr), func() bool {
			var err error
			h.parent.Do(func() {
				d := net.Dialer{Timeout: 50 * time.Millisecond}
				var c net.Conn
				if c, err = d.Dial("tcp", netip.AddrPortFrom(addr, 1).String()); err == nil {
					c.Close()
				}
			})
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
}

// mac returns the MAC address of an end of the host's link: 1 is its parent's, 2 its own.
func (h *Host) mac(end byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0, 0, 0, h.Addr4.As4()[2], end}
}

// Addrs4 returns n further IPv4 addresses of the host, n ≤ 65 534. A service answers on all of them.
func (h *Host) Addrs4(n int) []netip.Addr { return addrs(h.own4, n) }

// Addrs6 returns n further IPv6 addresses of the host. A service answers on all of them.
func (h *Host) Addrs6(n int) []netip.Addr { return addrs(h.own6, n) }

func addrs(p netip.Prefix, n int) []netip.Addr {
	all := make([]netip.Addr, n)
	addr := p.Addr()
	for i := range all {
		addr = addr.Next()
		all[i] = addr
	}
	return all
}

// Do calls f on a thread that is in the host's namespace. A socket that f makes itself, or a process
// that it starts, belongs to the host; goroutines that f starts run in the prober's namespace. f must
// not end the test.
func (h *Host) Do(f func()) {
	h.t.Helper()
	if h.ns == nil {
		f()
	} else if !h.ns.do(f) {
		h.t.Fatalf("lab: %s: its namespace is gone", h.Name)
	}
}

// Until is [Until] for the test of the lab.
func (h *Host) Until(what string, done func() bool) {
	h.t.Helper()
	Until(h.t, what, done)
}

// Sysctl sets a kernel parameter of the host's namespace, as in Sysctl("net.ipv4.tcp_syncookies", "0").
func (h *Host) Sysctl(name, value string) {
	h.t.Helper()
	if !strings.HasPrefix(name, "net.") {
		h.t.Fatalf("lab: sysctl %s is not of a network namespace: its name has to begin with net.", name)
	}
	h.Do(func() {
		// A read or write below /proc/sys/net is about the namespace of the thread that opens it.
		err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
		if err != nil {
			h.t.Errorf("lab: %s: sysctl %s=%s: %v", h.Name, name, value, err)
		}
	})
}

// Stat returns a counter of the host's kernel under the name that nstat(8) gives it. TcpPassiveOpens
// counts the connections whose handshake was completed.
func (h *Host) Stat(name string) int {
	h.t.Helper()
	var value string
	var err error
	h.Do(func() { value, err = stat(name) })
	if err != nil {
		h.t.Fatalf("lab: %s: %v", h.Name, err)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		h.t.Fatalf("lab: %s: counter %s: %v", h.Name, name, err)
	}
	return n
}

// stat finds a counter of the calling thread's namespace.
func stat(name string) (string, error) {
	// Lines of pairs: "Ip6InReceives 7".
	text, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return f[1], nil
		}
	}
	// Pairs of lines: "Tcp: RtoAlgorithm RtoMin …" and "Tcp: 1 200 …".
	for _, file := range []string{"snmp", "netstat"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return "", err
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < min(len(names), len(values)); j++ {
				if strings.TrimSuffix(names[0], ":")+names[j] == name {
					return values[j], nil
				}
			}
		}
	}
	return "", fmt.Errorf("there is no counter %s", name)
}

// IP runs ip(8) in the host's namespace, each line as one command of a batch: IP("addr add 10.9.9.9/32 dev lo").
func (h *Host) IP(lines ...string) {
	h.t.Helper()
	h.run(lines, "ip", "-batch", "-")
}

// IP6 is IP for commands that are about IPv4 unless told otherwise: IP6("rule add fwmark 7 lookup 7").
func (h *Host) IP6(lines ...string) {
	h.t.Helper()
	h.run(lines, "ip", "-6", "-batch", "-")
}

// NFT runs nft(8) in the host's namespace, all lines as one transaction.
func (h *Host) NFT(lines ...string) {
	h.t.Helper()
	h.run(lines, "nft", "-f", "-")
}

func (h *Host) run(lines []string, tool string, flags ...string) {
	h.t.Helper()
	input := strings.Join(lines, "\n") + "\n"
	cmd := exec.Command(tool, flags...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	h.Do(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.t.Fatalf("lab: %s: %s: %v\n%s%s", h.Name, tool, err, input, out.Bytes())
	}
}

// Listener is a TCP service on every address of its host, IPv4 and IPv6.
type Listener struct {
	ln       net.Listener
	accepted atomic.Int64
	running  sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]bool // open connections; nil once the service is dead
}

// Listen starts a service that accepts connections and keeps each until its client closes it. The queue
// of connections to accept is as long as the system allows. Without a service a port refuses.
func (h *Host) Listen(port uint16) *Listener {
	h.t.Helper()
	s := h.listen(port)
	s.running.Go(s.accept)
	return s
}

// ListenStuck starts a service that hangs: it never accepts. The kernel completes handshakes until
// backlog+1 connections wait, and then drops every SYN.
func (h *Host) ListenStuck(port uint16, backlog int) *Listener {
	h.t.Helper()
	s := h.listen(port)
	// A second listen(2) sets the length of the queue anew.
	if err := relisten(s.ln, backlog); err != nil {
		h.t.Fatalf("lab: %s: backlog of port %d: %v", h.Name, port, err)
	}
	return s
}

func (h *Host) listen(port uint16) *Listener {
	h.t.Helper()
	s := &Listener{conns: make(map[net.Conn]bool)}
	var err error
	h.Do(func() { s.ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		h.t.Fatalf("lab: %s: %v", h.Name, err)
	}
	h.t.Cleanup(s.Close)
	return s
}

// Accepted returns how many connections the service has accepted. A connection is counted shortly after
// its handshake; the kernel's own count is Stat("TcpPassiveOpens").
func (s *Listener) Accepted() int { return int(s.accepted.Load()) }

// Close ends the service and its connections: from now on the port refuses. A second call does nothing.
func (s *Listener) Close() {
	s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
}

func (s *Listener) accept() {
	for {
		c, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Such as ECONNABORTED, or no descriptor left: the next may do.
			time.Sleep(time.Millisecond)
			continue
		}
		s.accepted.Add(1)
		s.mu.Lock()
		if s.conns == nil {
			c.Close()
		} else {
			s.conns[c] = true
			s.running.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
	}
}

// serve keeps the connection until the client closes it.
func (s *Listener) serve(c net.Conn) {
	var discard [512]byte
	for {
		if _, err := c.Read(discard[:]); err != nil {
			break
		}
	}
	c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}
