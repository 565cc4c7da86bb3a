package members

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// recorder keeps the packets that a replica sends.
type recorder struct {
	mu      sync.Mutex
	packets [][]byte
}

func (r *recorder) see(packet []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets = append(r.packets, bytes.Clone(packet))
	return true
}

func (r *recorder) all() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]byte(nil), r.packets...)
}

// pair begins two replicas that know each other, each with an address of its own. What they send in packets is recorded.
func pair(t *testing.T, c Config) (a, b *replica, sent *recorder) {
	sent = new(recorder)
	often := func(r *replica) { r.joiner.every = time.Second }
	key := keysFile(t, keyA)
	a = begin(t, Config{Name: "replica-a", KeyFile: key, Allow: c.Allow, Address: netip.MustParseAddrPort("127.0.0.2:0"), Wire: sent.see}, often)
	b = begin(t, Config{Name: "replica-b", KeyFile: key, Allow: c.Allow, Address: netip.MustParseAddrPort("127.0.0.3:0"),
		Join: []string{a.Self().String()}, Wire: sent.see}, often)
	together(t, 20*time.Second, a, b)
	return a, b, sent
}

// stranger is a socket from which anything may be sent.
func stranger(t *testing.T, from string) *net.UDPConn {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	return udp
}

// relay passes a connection on, and records what goes over it.
func relay(t *testing.T, to netip.AddrPort) (at netip.AddrPort, seen func() []byte) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all bytes.Buffer
	var running sync.WaitGroup
	pass := func(dst, src net.Conn) {
		defer dst.Close()
		b := make([]byte, 4096)
		for {
			n, err := src.Read(b)
			mu.Lock()
			all.Write(b[:n])
			mu.Unlock()
			if _, writeErr := dst.Write(b[:n]); err != nil || writeErr != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.String())
			if err != nil {
				in.Close()
				continue
			}
			running.Go(func() { pass(out, in) })
			running.Go(func() { pass(in, out) })
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort(), func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(all.Bytes())
	}
}

// Nothing that goes over the network can be read: no names, no addresses, no messages.
func TestNothingInClear(t *testing.T) {
	a, b, sent := pair(t, Config{})
	at, seen := relay(t, a.Self())
	begin(t, Config{Name: "replica-c", KeyFile: a.config.KeyFile, Join: []string{at.String()}, Wire: sent.see}, nil)
	until(t, 20*time.Second, func() bool { return a.names() == "replica-b replica-c" && b.names() == "replica-a replica-c" })
	secret := bytes.Repeat([]byte("192.0.2.1:443 is down "), 40)
	a.Send("replica-b", secret, false)
	until(t, 20*time.Second, func() bool { return b.got("192.0.2.1") == 1 })
	// Less than that proves little.
	until(t, 20*time.Second, func() bool { return len(sent.all()) >= 5 && len(seen()) >= 300 })
	all := append(bytes.Join(sent.all(), nil), seen()...)
	for _, clear := range []string{"replica", "meta", "192.0.2", "is down", string(a.Self().Addr().AsSlice()), string(b.Self().Addr().AsSlice()), keyA} {
		if bytes.Contains(all, []byte(clear)) {
			t.Errorf("%q can be read", clear)
		}
	}
}

// Packets that are made up, broken, for others or older than the receiver change nothing.
func TestWrongPackets(t *testing.T) {
	a, b, sent := pair(t, Config{})
	a.Send("replica-b", []byte("hello"), false)
	until(t, 20*time.Second, func() bool { return b.got("hello") == 1 })
	recorded := sent.all()
	evil := stranger(t, "127.0.0.9:0")
	to := func(r *replica, packet []byte) {
		if _, err := evil.WriteToUDPAddrPort(packet, r.Self()); err != nil {
			t.Fatal(err)
		}
	}
	good := func(k *keyring, name string, what kind, content string) []byte {
		return sealPacket(nil, k, receiverOf(name), newNumbering(), what, []byte(content))
	}
	flipped := good(ring(t, keyA), "replica-b", forUser, "evil")
	flipped[len(flipped)-3] ^= 1
	readdressed := good(ring(t, keyA), "replica-a", forUser, "evil")
	copy(readdressed[len(mark):], good(ring(t, keyA), "replica-b", forUser, "")[len(mark):][:4])
	newer := good(ring(t, keyA), "replica-b", forUser, "evil")
	newer[len(mark)-1]++
	vanilla := append([]byte{244, 1, 'x', 1}, make([]byte, 100)...)
	for _, tt := range []struct {
		packet []byte
		why    string
	}{
		{good(ring(t, keyB), "replica-b", forUser, "evil"), "key"},
		{flipped, "key"},
		{readdressed, "key"},
		{newer, "format"},
		{good(ring(t, keyA), "replica-b", 7, "evil"), "format"},
		{good(ring(t, keyA), "replica-a", forUser, "evil"), "misled"},
		{good(ring(t, keyA), "replica-b", forUser, "evil")[:packetOverhead-1], "format"},
		{good(ring(t, keyA), "replica-b", forUser, "evil")[:packetOverhead+1], "key"},
		{good(ring(t, keyA), "replica-b", forUser, strings.Repeat("evil", 400)), "format"},
		{nil, "format"},
		{[]byte("GET / HTTP/1.1\r\n\r\n"), "format"},
		{vanilla, "format"},
	} {
		before := b.Counts().Rejected[tt.why]
		to(b, tt.packet)
		if !until(t, 20*time.Second, func() bool { return b.Counts().Rejected[tt.why] == before+1 }) {
			t.Errorf("%.40x: %v, want %s", tt.packet, b.Counts().Rejected, tt.why)
		}
	}
	if n := b.got("evil"); n > 0 {
		t.Errorf("%d wrong packets were taken", n)
	}
	// All that was recorded, again, to the same replica.
	before := b.Counts().Rejected
	for _, p := range recorded {
		to(b, p)
	}
	until(t, 20*time.Second, func() bool {
		now := b.Counts().Rejected
		return now["replay"]-before["replay"]+now["misled"]-before["misled"] == uint64(len(recorded)) && now["replay"] > 0
	})
	if b.got("hello") != 1 {
		t.Error("a message that was recorded came a second time")
	}
	// And after a restart: nothing of it.
	b.Close(func() {})
	c := begin(t, Config{Name: "replica-c", Address: b.Self(), KeyFile: a.config.KeyFile}, nil)
	for _, p := range recorded {
		to(c, p)
	}
	until(t, 20*time.Second, func() bool { return c.Counts().Rejected["misled"] >= uint64(len(recorded)) })
	if c.got("") > 0 || c.names() != "" {
		t.Errorf("of what was recorded before a restart, %d messages and the members %q were taken", c.got(""), c.names())
	}
}

// A connection that was recorded is of no use, not even with the same replica.
func TestReplayedConnection(t *testing.T) {
	a, _, _ := pair(t, Config{})
	ours, theirs := net.Pipe()
	var said bytes.Buffer
	var pipes sync.WaitGroup
	pipes.Go(func() {
		conn, _, why := accepted(theirs, ring(t, keyA), "replica-a")
		if why != taken {
			t.Errorf("refused: %v", why)
			return
		}
		io.Copy(io.Discard, conn)
	})
	conn, err := dialed(recording{ours, &said}, ring(t, keyA), forUser, "replica-a", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte{0, 0, 0, 4, 'e', 'v', 'i', 'l'})
	ours.Close()
	pipes.Wait()
	again, err := net.Dial("tcp", a.Self().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Write(said.Bytes()); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(again)
	if len(answer) != len(mark)+challengeSize+1 || answer[len(answer)-1] != strangeKey {
		t.Errorf("the answer to a replay is %q", answer)
	}
	if a.got("evil") > 0 {
		t.Error("it was taken")
	}
}

// Those who may not join do not, and people at both ends are told why.
func TestStrangers(t *testing.T) {
	a, b, _ := pair(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/31"), netip.MustParsePrefix("127.0.0.4/32")}})
	for _, tt := range []struct {
		at, key string
		err     string // at the stranger
		told    string // by whom it wants to join
	}{
		{"127.0.0.9:0", keyA, "closes connections from here, want this replica among those that it allows",
			"Warning: Peers: 1 packet or connection was refused (source 1). The last was from 127.0.0.9"},
		{"127.0.0.4:0", keyB, "has other keys, want the first line of the key file here in its key file, too",
			"Warning: Peers: 1 packet or connection was refused (key 1). The last was from 127.0.0.4"},
	} {
		a.transport.complain.due.Store(0) // the pause is over
		a.drain()
		s := begin(t, Config{Name: "stranger", Address: netip.MustParseAddrPort(tt.at), KeyFile: keysFile(t, tt.key), Join: []string{a.Self().String()}}, nil)
		until(t, 20*time.Second, func() bool { j := s.Joins(); return j[0].Err != nil && strings.Contains(j[0].Err.Error(), tt.err) })
		if s.Settled() {
			t.Error("it is settled")
		}
		until(t, 20*time.Second, func() bool { return strings.Contains(a.drain(), tt.told) })
		s.stop()
	}
	if a.names() != "replica-b" || b.names() != "replica-a" {
		t.Errorf("the members are %q and %q", a.names(), b.names())
	}
}

// The key is not enough: who is not among those that may speak gets through with no packet and no connection of any kind.
func TestAllowCoversAll(t *testing.T) {
	a, _, _ := pair(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/31")}})
	evil := stranger(t, "127.0.0.9:0")
	k, numbering := ring(t, keyA), newNumbering()
	for n, what := range []kind{forMemberlist, forUser} {
		if _, err := evil.WriteToUDPAddrPort(sealPacket(nil, k, receiverOf("replica-a"), numbering, what, []byte("evil")), a.Self()); err != nil {
			t.Fatal(err)
		}
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).Dial("tcp", a.Self().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialed(conn, k, what, "replica-a", time.Second); err == nil {
			t.Errorf("a connection for %d is taken", what)
		}
		conn.Close()
		until(t, 20*time.Second, func() bool { return a.Counts().Rejected["source"] == uint64(2*(n+1)) })
	}
	if a.got("") > 0 || a.names() != "replica-b" {
		t.Errorf("%d messages were taken, and the members are %q", a.got(""), a.names())
	}
}

// Prometheus at the wrong port is told from a replica, and costs nothing but its connection.
func TestScrape(t *testing.T) {
	a, _, _ := pair(t, Config{})
	if r, err := http.Get("http://" + a.Self().String() + "/metrics"); err == nil {
		r.Body.Close()
		t.Error("it is answered by HTTP")
	}
	until(t, 20*time.Second, func() bool { return a.Counts().Rejected["format"] == 1 })
}

// memberlist itself, with the key that ours derive from the same line, is no member either.
func TestPlainMemberlist(t *testing.T) {
	a, _, _ := pair(t, Config{})
	c := memberlist.DefaultLocalConfig()
	c.BindAddr, c.BindPort, c.Name, c.LogOutput = "127.0.0.9", 0, "plain", io.Discard
	c.SecretKey = []byte("0123456789abcdef")
	m, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Shutdown()
	if n, err := m.Join([]string{a.Self().String()}); n != 0 || err == nil {
		t.Errorf("joined %d, %v", n, err)
	}
	until(t, 20*time.Second, func() bool { return a.Counts().Rejected["format"] > 0 })
	if a.names() != "replica-b" {
		t.Errorf("the members are %q", a.names())
	}
}

// Who connects and says nothing keeps nobody out, neither members nor somebody new.
func TestIdleConnections(t *testing.T) {
	a, b, _ := pair(t, Config{})
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for i := range 500 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%10))}}
		c, err := d.Dial("tcp", a.Self().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	a.transport.doors.mu.Lock()
	inside := len(a.transport.doors.guests)
	a.transport.doors.mu.Unlock()
	if inside > maxConnections/2 {
		t.Errorf("%d of them are let in, want %d at most", inside, maxConnections/2)
	}
	began := time.Now()
	b.Send("replica-a", []byte("hello"), true)
	until(t, 20*time.Second, func() bool { return a.got("hello") == 1 })
	c := begin(t, Config{Name: "replica-c", KeyFile: a.config.KeyFile, Join: []string{a.Self().String()}}, nil)
	until(t, 5*time.Second, func() bool { return strings.Contains(c.names(), "replica-a") })
	t.Logf("a message and somebody new took %v beside 500 idle connections", time.Since(began))
	until(t, 2*patience, func() bool {
		a.transport.doors.mu.Lock()
		defer a.transport.doors.mu.Unlock()
		return len(a.transport.doors.guests) == 0
	})
	if lines := len(a.all()); lines == 0 || lines > 8 {
		t.Errorf("%d lines: %q", lines, a.all())
	}
}

// 20 000 wrong packets a second cost little, make few log lines, and keep nothing from getting through.
func TestFloodOfPackets(t *testing.T) {
	a, b, _ := pair(t, Config{})
	const perSecond, seconds = 20000, 3
	evil := stranger(t, "127.0.0.9:0")
	packet := sealPacket(nil, ring(t, keyB), receiverOf("replica-a"), newNumbering(), forUser, make([]byte, 1200))
	before, hello := cpu(), 0
	for began, sent := time.Now(), 0; sent < perSecond*seconds; {
		for due := int(time.Since(began).Seconds() * perSecond); sent < min(due, perSecond*seconds); sent++ {
			evil.WriteToUDPAddrPort(packet, a.Self())
		}
		if sent/2000 > hello {
			hello++
			b.Send("replica-a", []byte(fmt.Sprint("hello ", hello, ".")), false)
		}
		time.Sleep(time.Millisecond)
	}
	used := cpu() - before
	until(t, 20*time.Second, func() bool { return a.got("hello") >= hello*95/100 })
	t.Logf("%d of %d messages beside %v; %.0f%% of a core for both ends", a.got("hello"), hello, a.Counts().Rejected, used.Seconds()/seconds*100)
	if a.names() != "replica-b" || b.names() != "replica-a" {
		t.Errorf("the members are %q and %q", a.names(), b.names())
	}
	if lines := len(a.all()); lines > seconds+1 {
		t.Errorf("%d lines: %q", lines, a.all())
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A split of the network heals, and is told as what it is: members that leave, and come back.
func TestSplitHeals(t *testing.T) {
	t.Parallel()
	a, b, _ := pair(t, Config{})
	apart := func(apart bool) {
		for _, r := range []*replica{a, b} {
			r.Members.mu.Lock()
			c := r.config
			r.Members.mu.Unlock()
			c.Allow = nil
			if apart {
				c.Allow = []netip.Prefix{netip.PrefixFrom(r.Self().Addr(), 32)}
			}
			c.Join = nil // there is no place that would help
			if err := r.Configure(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	apart(true)
	until(t, 20*time.Second, func() bool { return a.names() == "" && b.names() == "" })
	apart(false)
	together(t, 20*time.Second, a, b)
}
