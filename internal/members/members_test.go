package members

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// replica is one of a group in a test.
type replica struct {
	*Members
	told

	mu       sync.Mutex
	members  map[string]string // their meta
	messages [][]byte
	octets   int
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// keysFile writes a key file.
func keysFile(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// begin opens a replica, and starts it after prepare, which may be nil. It ends with the test.
func begin(t testing.TB, c Config, prepare func(*replica)) *replica {
	t.Helper()
	r := &replica{members: make(map[string]string)}
	if !c.Address.IsValid() {
		c.Address = loopback
	}
	if c.KeyFile == "" {
		c.KeyFile = keysFile(t, keyA)
	}
	var err error
	if r.Members, err = Open(c); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(r)
	}
	l := r.told.listener()
	l.Joined = func(name string, _ netip.AddrPort, meta []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.members[name] = string(meta)
	}
	l.Left = func(name string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.members, name)
	}
	l.Take = func(message []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.messages = append(r.messages, bytes.Clone(message))
		r.octets += len(message)
	}
	l.Meta = func() []byte { return []byte("meta of " + c.Name) }
	if err := r.Start(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// stop ends a replica, and all of it.
func (r *replica) stop() {
	r.Members.mu.Lock()
	closed := r.closed
	r.Members.mu.Unlock()
	if !closed {
		r.Close(func() {})
	}
	r.wait()
}

func (r *replica) names() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name := range r.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// got tells how many messages have come that begin so.
func (r *replica) got(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, m := range r.messages {
		if bytes.HasPrefix(m, []byte(prefix)) {
			n++
		}
	}
	return n
}

func until(t testing.TB, within time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Helper()
			t.Errorf("it takes longer than %v", within)
			return false
		}
	}
	return true
}

// together waits until all know each other.
func together(t testing.TB, within time.Duration, all ...*replica) {
	t.Helper()
	for _, r := range all {
		var others []string
		for _, o := range all {
			if o != r {
				others = append(others, o.name)
			}
		}
		slices.Sort(others)
		if !until(t, within, func() bool { return r.names() == strings.Join(others, " ") }) {
			t.Fatalf("%s knows %q, want %q; it has told %q", r.name, r.names(), others, r.all())
		}
	}
}

// three begins three replicas that know each other.
func three(t testing.TB) []*replica {
	var all []*replica
	key := keysFile(t, keyA)
	for i := range 3 {
		c := Config{Name: fmt.Sprintf("r%d", i), KeyFile: key}
		if i > 0 {
			c.Join = []string{all[0].Self().String()}
		}
		all = append(all, begin(t, c, nil))
	}
	together(t, 20*time.Second, all...)
	return all
}

func TestMembersFindEachOtherAndTalk(t *testing.T) {
	all := three(t)
	if meta := all[2].members["r1"]; meta != "meta of r1" {
		t.Errorf("the meta is %q", meta)
	}
	long := append([]byte("long"), bytes.Repeat([]byte("."), 1<<20-4)...)
	all[0].Send("r1", []byte("hello"), false)
	all[1].Send("r2", long, true)
	all[2].SendTo("r0", all[0].Self(), []byte("answer"))
	all[0].Send("nobody", []byte("hello"), false)
	all[0].Send("nobody", []byte("hello"), true)
	until(t, 20*time.Second, func() bool {
		return all[1].got("hello") == 1 && all[2].got("long") == 1 && all[0].got("answer") == 1
	})
	if !bytes.Equal(all[2].messages[0], long) {
		t.Error("the long message has changed on its way")
	}
	for _, r := range all {
		if !r.Settled() {
			t.Errorf("%s is not settled", r.name)
		}
		if lines := r.drain(); lines != "" {
			t.Errorf("%s has told %s", r.name, lines)
		}
	}
}

// Who leaves says so, and the others hear it at once. The address is free when Close returns.
func TestLeave(t *testing.T) {
	all := three(t)
	said := false
	all[1].Close(func() {
		said = true
		all[1].Send("r0", []byte("goodbye"), false)
	})
	if !said {
		t.Error("nobody said goodbye")
	}
	until(t, 20*time.Second, func() bool { return all[0].got("goodbye") == 1 })
	all[1].drain()
	all[1].warnf("memberlist goes on for a while")
	if lines := all[1].drain(); lines != "" {
		t.Errorf("it tells %q after Close", lines)
	}
	again := begin(t, Config{Name: "r1 again", Address: all[1].Self(), KeyFile: all[0].config.KeyFile, Join: []string{all[0].Self().String()}}, nil)
	together(t, 20*time.Second, all[0], again, all[2])
}

func TestOpenAgainAndAgain(t *testing.T) {
	key := keysFile(t, keyA)
	other := begin(t, Config{Name: "other", KeyFile: key}, nil)
	at := loopback
	before := descriptors()
	var all []*Members
	for i := range 50 {
		m, err := Open(Config{Address: at, Name: fmt.Sprint("m", i), KeyFile: key, Join: []string{other.Self().String()}})
		if err != nil {
			t.Fatal(err)
		}
		at = m.Self()
		if err := m.Start(new(told).listener()); err != nil {
			t.Fatal(err)
		}
		m.Close(func() {})
		all = append(all, m)
	}
	for _, m := range all {
		m.wait()
	}
	// What others have begun with them ends a little later.
	until(t, 20*time.Second, func() bool { return descriptors() <= before })
}

// descriptors returns how many are open, where the system tells.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

func TestIPv6(t *testing.T) {
	at := netip.MustParseAddrPort("[::1]:0")
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	l.Close()
	c := Config{Name: "a", Address: at, KeyFile: keysFile(t, keyA), Allow: []netip.Prefix{netip.MustParsePrefix("::/0")}}
	a := begin(t, c, nil)
	c.Name, c.Join = "b", []string{a.Self().String()}
	b := begin(t, c, nil)
	together(t, 20*time.Second, a, b)
	a.Send("b", []byte("packet"), false)
	b.Send("a", []byte("reliable"), true)
	until(t, 20*time.Second, func() bool { return b.got("packet") == 1 && a.got("reliable") == 1 })
}

func TestOpenErrors(t *testing.T) {
	key := keysFile(t, keyA)
	here := begin(t, Config{Name: "here", KeyFile: key}, nil)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	halfTaken := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{Address: here.Self(), KeyFile: key}, fmt.Sprintf("listen on %v by TCP: ", here.Self())},
		{Config{Address: halfTaken, KeyFile: key}, fmt.Sprintf("listen on %v by UDP: ", halfTaken)},
		{Config{Address: loopback, KeyFile: keysFile(t, "short")}, "key: line 1 is a key of 5 characters"},
		{Config{Address: loopback, KeyFile: filepath.Join(t.TempDir(), "nothing")}, "nothing: no such file or directory, want a file with a key, such as a line that"},
	} {
		if m, err := Open(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, %v, want %s", tt.c, m, err, tt.want)
		}
	}
}

// One that hangs delays nobody else.
func TestHangingMember(t *testing.T) {
	all := three(t)
	hanging, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	all[0].transport.members.put("hanging", hanging.Addr().(*net.TCPAddr).AddrPort())
	big := bytes.Repeat([]byte("."), 1<<20)
	all[0].Send("hanging", big, true)
	c := &all[0].transport.couriers
	until(t, 20*time.Second, func() bool { // that one is on its way
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.queues["hanging"].messages) == 0
	})
	c.mu.Lock()
	if c.octets != len(big) {
		t.Errorf("%d octets are on their way, want %d", c.octets, len(big))
	}
	c.mu.Unlock()
	began := time.Now()
	for range 100 {
		all[0].Send("hanging", big, true)
		all[0].Send("r1", []byte("hello"), true)
		all[0].Send("r1", []byte("packet"), false)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("sending takes %v", took)
	}
	until(t, 20*time.Second, func() bool { return all[1].got("hello") == 100 && all[1].got("packet") == 100 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.octets > maxQueue {
		t.Errorf("%d octets wait or are on their way, want %d at most", c.octets, maxQueue)
	}
}

// The order that the documentation gives for a new key loses nobody: it comes as the second everywhere, then as the first
// everywhere, and then the old one goes.
func TestRotation(t *testing.T) {
	var all []*replica
	for i := range 3 {
		c := Config{Name: fmt.Sprintf("r%d", i), KeyFile: keysFile(t, keyA)}
		if i > 0 {
			c.Join = []string{all[0].Self().String()}
		}
		all = append(all, begin(t, c, nil))
	}
	together(t, 20*time.Second, all...)
	for _, lines := range []string{keyA + "\n" + keyB, keyB + "\n" + keyA, keyB} {
		for _, r := range all { // one after the other: the others still have the keys before
			if err := os.WriteFile(r.config.KeyFile, []byte(lines), 0o600); err != nil {
				t.Fatal(err)
			}
			until(t, 20*time.Second, func() bool {
				return slices.ContainsFunc(r.all(), func(line string) bool { return strings.Contains(line, "keys in force") })
			})
			r.drain()
			for _, from := range all {
				for _, to := range all {
					from.Send(to.name, []byte("packet"), false)
					from.Send(to.name, []byte("reliable"), true)
				}
			}
		}
	}
	rounds := 9
	for _, r := range all {
		until(t, 20*time.Second, func() bool { return r.got("packet") == 2*rounds && r.got("reliable") == 2*rounds })
		if rejected := r.Counts().Rejected; rejected["key"] > 0 || r.drain() != "" {
			t.Errorf("%s has refused %v", r.name, rejected)
		}
	}
	together(t, 0, all...)
}
