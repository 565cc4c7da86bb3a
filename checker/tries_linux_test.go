package checker

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// triesTimeout and tries are those of the checks below: a SYN each 200 ms.
const (
	triesTimeout = 800 * time.Millisecond
	tries        = 4
	spacing      = triesTimeout / tries
)

// reply is what a peer sends in answer to one of the SYNs that it has got.
type reply struct {
	to   int // which SYN, from 1 on
	kind replyKind
}

type replyKind int

const (
	synACK replyKind = iota
	rst
	icmp
)

func (r reply) packet(h *lab.Host, syns []lab.Packet) []byte {
	switch syn := syns[r.to-1]; r.kind {
	case synACK:
		return syn.Reply(lab.SYN | lab.ACK).Bytes()
	case rst:
		return syn.Reply(lab.RST | lab.ACK).Bytes()
	default:
		return noHost(h, syn)
	}
}

// anyRTT is for cases in which either of two SYN-ACKs may be taken in first.
const anyRTT = -1

// script is what a peer sends when a SYN comes, by the SYN's number from 1 on.
type script map[int][]reply

// peer answers by a script.
type peer struct {
	host   *lab.Host
	forger *lab.Forger
	script script
	after  func(n int) // called when SYN n has come, before the answer

	mu   sync.Mutex
	syns map[netip.AddrPort][]lab.Packet // by destination; each once, however often it is repeated
}

func newPeer(h *lab.Host, port uint16, s script) *peer {
	p := &peer{host: h, script: s, after: func(int) {}, syns: make(map[netip.AddrPort][]lab.Packet)}
	p.mu.Lock() // until the forger is known
	defer p.mu.Unlock()
	p.forger = h.Forge(port, p.answer)
	return p
}

// heard returns how many different SYNs have come to an address.
func (p *peer) heard(at netip.AddrPort) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.syns[at])
}

// send sends replies to the SYNs that have come to an address.
func (p *peer) send(at netip.AddrPort, replies ...reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range replies {
		p.forger.Send(r.packet(p.host, p.syns[at]))
	}
}

func (p *peer) answer(syn lab.Packet) (packets [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.syns[syn.Dst]
	if slices.ContainsFunc(seen, func(s lab.Packet) bool { return s.Src == syn.Src && s.Seq == syn.Seq }) {
		return nil
	}
	seen = append(seen, syn)
	p.syns[syn.Dst] = seen
	p.after(len(seen))
	for _, r := range p.script[len(seen)] {
		packets = append(packets, r.packet(p.host, seen))
	}
	return packets
}

// triesCase is a check of several tries.
type triesCase struct {
	name   string
	script script
	want   outcome
	tries  int           // in the report, and on the wire
	least  time.Duration // how long the check takes at least
	rtt    time.Duration // what the round trip is at least, and not much more
	rsts   int           // how many of the tries end with a RST
	after  []reply       // what comes when the check is over
}

var triesCases = []triesCase{
	{name: "all get through", script: script{1: {{1, synACK}}}, want: answered, tries: 1, rsts: 1},
	{name: "the first is lost", script: script{2: {{2, synACK}}}, want: answered, tries: 2, least: spacing, rsts: 1},
	{name: "the first two are lost", script: script{3: {{3, synACK}}}, want: answered, tries: 3, least: 2 * spacing, rsts: 1},
	{name: "the first three are lost", script: script{4: {{4, synACK}}}, want: answered, tries: 4, least: 3 * spacing, rsts: 1},
	{name: "all are lost", want: timedOut, tries: 4, least: triesTimeout},
	{name: "late answer to the first", script: script{2: {{1, synACK}}}, want: answered, tries: 2, least: spacing, rtt: spacing, rsts: 1},
	{name: "late answer to the second", script: script{4: {{2, synACK}}}, want: answered, tries: 4, least: 3 * spacing, rtt: 2 * spacing, rsts: 1},
	{name: "late RST to the first", script: script{3: {{1, rst}}}, want: refused, tries: 3, least: 2 * spacing, rtt: 2 * spacing},
	{name: "RST to the second", script: script{2: {{2, rst}}}, want: refused, tries: 2, least: spacing},
	{name: "SYN-ACKs to two, a RST for each", script: script{2: {{2, synACK}, {1, synACK}}}, want: answered, tries: 2, least: spacing, rtt: anyRTT, rsts: 2},
	{name: "SYN-ACK to the first when all is over", script: script{2: {{2, synACK}}}, want: answered, tries: 2, least: spacing,
		rsts: 2, after: []reply{{1, synACK}}},
	{name: "SYN-ACK to all when all is over", want: timedOut, tries: 4, least: triesTimeout,
		rsts: 4, after: []reply{{1, synACK}, {2, synACK}, {3, synACK}, {4, synACK}}},
	{name: "SYN-ACK, then a RST to another", script: script{2: {{2, synACK}, {1, rst}}}, want: answered, tries: 2, least: spacing, rsts: 1},

	{name: "ICMP, then a SYN-ACK", script: script{1: {{1, icmp}}, 2: {{2, synACK}}}, want: answered, tries: 2, least: spacing, rsts: 1},
	{name: "ICMP, then a RST", script: script{1: {{1, icmp}}, 3: {{3, rst}}}, want: refused, tries: 3, least: 2 * spacing},
	{name: "ICMP, then silence", script: script{1: {{1, icmp}}}, want: unreachable(syscall.EHOSTUNREACH), tries: 4, least: triesTimeout},
	{name: "ICMP to all", script: script{1: {{1, icmp}}, 2: {{2, icmp}}, 3: {{3, icmp}}, 4: {{4, icmp}}},
		want: unreachable(syscall.EHOSTUNREACH), tries: 4, least: 3 * spacing},
	{name: "late ICMP, and a late SYN-ACK to another", script: script{3: {{2, icmp}}, 4: {{1, synACK}}},
		want: answered, tries: 4, least: 3 * spacing, rtt: 3 * spacing, rsts: 1},
}

// What is sent when, and what comes of it, where packets are lost, late, or contradict each other. There is never a bare
// ACK, but from MethodDial, which sends one for each SYN-ACK.
func TestLabTries(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				wire := l.Capture()
				p := newSyncProber(t, Config{Method: m})
				var all sync.WaitGroup
				defer all.Wait()
				for i, tt := range triesCases {
					port := uint16(100 + i)
					peer := newPeer(web, port, tt.script)
					for _, addrs := range [][]netip.Addr{web.Addrs4(attempts), web.Addrs6(attempts)} {
						all.Go(func() {
							attempt(t, tt.name, addrs, func(addr netip.Addr) error {
								return tt.carryOut(m, wire, p, peer, netip.AddrPortFrom(addr, port))
							})
						})
					}
				}
			})
		})
	}
}

// syncProber is a prober for many goroutines, each of which waits for its own check. The tag of that is its own channel.
type syncProber struct{ *Prober }

func newSyncProber(t *testing.T, o Config) syncProber {
	t.Helper()
	p, err := NewProber(o, func(reports []Report) {
		for _, r := range reports {
			r.Tag.(chan Report) <- r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return syncProber{p}
}

// check carries out a check.
func (p syncProber) check(c Check) Report {
	report := make(chan Report, 1)
	c.Tag = report
	p.Submit(c)
	return <-report
}

const attempts = 4

// attempt carries out something at one address after the other until it works: on a busy machine, this process may be
// away while a check waits, which then does other things.
func attempt(t *testing.T, name string, addrs []netip.Addr, do func(addr netip.Addr) error) {
	t.Helper()
	var err error
	for _, addr := range addrs {
		if err = do(addr); err == nil {
			return
		}
		t.Logf("%s, %v: %v", name, addr, err)
	}
	t.Errorf("%s: %v", name, err)
}

func (tt *triesCase) carryOut(m Method, wire *lab.Capture, p syncProber, peer *peer, target netip.AddrPort) error {
	begun := time.Now()
	r := p.check(Check{Target: target, Timeout: triesTimeout, Tries: tries})
	took := time.Since(begun)
	peer.send(target, tt.after...)
	switch {
	case r.Result != tt.want.result || !errors.Is(r.Err, tt.want.err):
		return fmt.Errorf("%v (%v), want %v (%v)", r.Result, r.Err, tt.want.result, tt.want.err)
	case r.Tries != tt.tries:
		return fmt.Errorf("%d tries, want %d", r.Tries, tt.tries)
	case took < tt.least || took > tt.least+spacing/2:
		return fmt.Errorf("over after %v, want %v", took, tt.least)
	case tt.rtt == anyRTT:
	case r.RTT < tt.rtt || r.RTT > tt.rtt+spacing/2 || (r.RTT > 0) != (r.Result == Answered || r.Result == Refused):
		return fmt.Errorf("a round trip of %v, want %v", r.RTT, tt.rtt)
	}
	// What follows the report may take a moment.
	want := lab.Tally{SYN: tt.tries, RST: tt.rsts}
	if m == MethodDial {
		want.ACK = tt.rsts - len(tt.after)
	}
	time.Sleep(triesTimeout / 2)
	if got := wire.Counts(target).To; got != want {
		return fmt.Errorf("captured %+v, want %+v", got, want)
	}
	return expectSYNs(wire, target, tt.tries)
}

// expectSYNs compares what was captured: that many SYNs, each from another port, a spacing apart.
func expectSYNs(wire *lab.Capture, target netip.AddrPort, tries int) error {
	ports := make(map[netip.AddrPort]bool)
	var first time.Time
	for _, packet := range wire.Packets() {
		if packet.Dst != target || packet.Flags != lab.SYN {
			continue
		}
		if first.IsZero() {
			first = packet.Time
		}
		due := time.Duration(len(ports)) * spacing
		if at := packet.Time.Sub(first); at < due-10*time.Millisecond || at > due+spacing/2 {
			return fmt.Errorf("SYN %d after %v, want %v", len(ports)+1, at, due)
		}
		ports[packet.Src] = true
	}
	if len(ports) != tries {
		return fmt.Errorf("SYNs from %d ports, want %d", len(ports), tries)
	}
	return nil
}
