package checker

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// blockingProber is a prober whose loop stands still while block is under way.
type blockingProber struct {
	syncProber
	refusing netip.AddrPort
	held     chan struct{} // one for each time that the loop stands still
	resume   chan struct{}
}

type blockTag struct{}

func newBlockingProber(t *testing.T, m Method, refusing netip.AddrPort) *blockingProber {
	t.Helper()
	b := &blockingProber{refusing: refusing, held: make(chan struct{}), resume: make(chan struct{})}
	p, err := NewProber(Config{Method: m}, func(reports []Report) {
		for _, r := range reports {
			if r.Tag == (blockTag{}) {
				b.held <- struct{}{}
				<-b.resume
				continue
			}
			r.Tag.(chan Report) <- r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	b.Prober = p
	return b
}

// block has the loop stand still while during runs.
func (b *blockingProber) block(during func()) {
	b.Submit(Check{Target: b.refusing, Timeout: time.Minute, Tag: blockTag{}})
	<-b.held
	during()
	b.resume <- struct{}{}
}

// A RST to one try and a SYN-ACK to another that are taken in at one look are an answer, whichever came first. A RST
// alone is a refusal.
func TestLabRSTAndSYNACK(t *testing.T) {
	for _, m := range []Method{MethodSocket, MethodRaw} {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web, near := l.Host("web"), l.Host("near")
				peer := newPeer(web, 80, nil)
				wire := l.Capture()
				b := newBlockingProber(t, m, netip.AddrPortFrom(near.Addr4, 81))
				for i, tt := range []struct {
					replies []reply
					want    Result
				}{
					{[]reply{{1, rst}, {2, synACK}}, Answered},
					{[]reply{{2, synACK}, {1, rst}}, Answered},
					{[]reply{{2, rst}, {1, synACK}}, Answered},
					{[]reply{{2, rst}, {1, rst}, {3, synACK}}, Answered},
					{[]reply{{1, rst}, {2, icmp}}, Refused},
					{[]reply{{1, rst}, {2, rst}, {3, rst}}, Refused},
					{[]reply{{3, icmp}, {2, synACK}, {1, synACK}}, Answered},
				} {
					for _, addr := range []netip.Addr{web.Addrs4(i + 1)[i], web.Addrs6(i + 1)[i]} {
						target, report := netip.AddrPortFrom(addr, 80), make(chan Report, 1)
						b.Submit(Check{Target: target, Timeout: time.Minute, Tries: 3, Spacing: 20 * time.Millisecond, Tag: report})
						l.Until("three SYNs", func() bool { return peer.heard(target) == 3 })
						before := wire.Counts(target)
						b.block(func() {
							peer.send(target, tt.replies...)
							l.Until("the replies", func() bool {
								now := wire.Counts(target)
								return now.From.RST+now.From.SYNACK+now.ICMP == before.From.RST+before.From.SYNACK+before.ICMP+len(tt.replies)
							})
						})
						if r := <-report; r.Result != tt.want || r.Tries != 3 {
							t.Errorf("%v, %v: %v (%v), %d tries; want %v", addr, tt.replies, r.Result, r.Err, r.Tries, tt.want)
						}
					}
				}
			})
		})
	}
}

// Without room for another try it takes the place of the oldest: all leave, and only a late answer to one that was given
// up is lost.
func TestLabTriesWithoutRoom(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				for i, tt := range []struct {
					name   string
					script script
					want   outcome
				}{
					{"silence", nil, timedOut},
					{"answer to the last", script{4: {{4, synACK}}}, answered},
					{"answer to one that was given up", script{4: {{2, synACK}}}, timedOut},
					{"RST to one that was given up", script{4: {{1, rst}}}, timedOut},
				} {
					port := uint16(80 + i)
					newPeer(web, port, tt.script)
					wire := l.Capture()
					carryOut := func(p syncProber, addr netip.Addr) error {
						r := p.check(Check{Target: netip.AddrPortFrom(addr, port), Timeout: triesTimeout, Tries: tries})
						if r.Result != tt.want.result || !errors.Is(r.Err, tt.want.err) || r.Tries != tries {
							t.Logf("%s: %v (%v), %d tries; want %v", tt.name, r.Result, r.Err, r.Tries, tt.want.result)
							return errors.New("another result")
						}
						return expectSYNs(wire, netip.AddrPortFrom(addr, port), tries)
					}
					full := newSyncProber(t, Config{Method: m, Pool: 1})
					attempt(t, tt.name+", the pool is full", web.Addrs4(attempts), func(addr netip.Addr) error { return carryOut(full, addr) })
					if m == MethodRaw {
						continue // which needs none
					}
					attempt(t, tt.name+", no descriptor", web.Addrs6(attempts), func(addr netip.Addr) error {
						roomy := newSyncProber(t, Config{Method: m, Pool: 100})
						defer roomy.Close()
						defer leaveDescriptors(t, 1)()
						return carryOut(roomy, addr)
					})
				}
			})
		})
	}
}

// leaveDescriptors lowers the limit so that this process can open so many more. It returns how to undo that.
func leaveDescriptors(t *testing.T, spare int) (undo func()) {
	t.Helper()
	set := func(limit unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	now := before
	now.Cur = uint64(lowestDescriptor() + spare)
	set(now)
	return func() { set(before) }
}

// MethodRaw without a free port for another try of the target likewise.
func TestLabTriesWithoutPort(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		web := l.Host("web")
		peer := newPeer(web, 80, nil)
		for _, addr := range both(web) {
			p := newSyncProber(t, Config{Method: MethodRaw})
			target := netip.AddrPortFrom(addr, 80)
			var all sync.WaitGroup
			for range reservedPorts + 1 { // the last waits for a port
				all.Go(func() {
					r := p.check(Check{Target: target, Timeout: time.Second, Tries: 4})
					if r.Result != Timeout && r.Err != ErrPaused && r.Err != ErrBusy || r.Result == Timeout && r.Tries < 4 {
						t.Errorf("%v: %v (%v), %d tries", addr, r.Result, r.Err, r.Tries)
					}
				})
			}
			all.Wait()
			if n := peer.heard(target); n < 4*reservedPorts {
				t.Errorf("%v: %d SYNs, want %d at least", addr, n, 4*reservedPorts)
			}
			p.Close()
			if raw := p.backend.(*rawProber); raw.byPath.len()+len(raw.lines)+raw.flights.len()+raw.queue.inFlight+raw.queue.suspects != 0 {
				t.Errorf("%d ports, %d lines, %d flights, %d places and %d suspects are left",
					raw.byPath.len(), len(raw.lines), raw.flights.len(), raw.queue.inFlight, raw.queue.suspects)
			}
		}
	})
}

// Every try but a check's first waits for as long as Pace says, which is asked once for each.
func TestLabPace(t *testing.T) {
	for _, m := range methods() {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				newPeer(web, 80, nil)
				wire := l.Capture()
				var asked atomic.Int64
				const wait = spacing / 2
				p := newSyncProber(t, Config{Method: m, Pace: func() time.Duration {
					if asked.Add(1)%3 == 2 {
						return wait
					}
					return 0
				}})
				attempt(t, "one of three waits", web.Addrs4(attempts), func(addr netip.Addr) error {
					target := netip.AddrPortFrom(addr, 80)
					asked.Store(0)
					begun := time.Now()
					r := p.check(Check{Target: target, Timeout: triesTimeout, Tries: tries})
					took := time.Since(begun)
					if r.Result != Timeout || r.Tries != tries || took < triesTimeout+wait || took > triesTimeout+2*wait || asked.Load() != tries-1 {
						return errors.New("other than wanted")
					}
					var syns []time.Duration
					for _, packet := range wire.Packets() {
						if packet.Dst == target {
							syns = append(syns, packet.Time.Sub(begun))
						}
					}
					if len(syns) != tries || syns[1]-syns[0] > spacing+wait/2 || syns[2]-syns[1] < spacing+wait-wait/4 {
						return errors.New("SYNs at other times")
					}
					return nil
				})
				asked.Store(0)
				p.check(Check{Target: netip.AddrPortFrom(web.Addr4, 80), Timeout: spacing})
				if n := asked.Load(); n != 0 {
					t.Errorf("asked %d times for a check of one try", n)
				}
			})
		})
	}
}

// A further try that this machine does not let out leaves the check inconclusive, unless another is answered.
func TestLabFurtherTryStopped(t *testing.T) {
	for m, tt := range map[Method]struct {
		rule string
		err  error
	}{
		MethodSocket: {"reject with icmpx type admin-prohibited", ErrFiltered},
		MethodRaw:    {"drop", unix.EPERM},
	} {
		t.Run(m.String(), func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				web := l.Host("web")
				further := make(chan struct{}, tries) // tries that are about to leave
				p := newSyncProber(t, Config{Method: m, Pace: func() time.Duration { further <- struct{}{}; return 0 }})
				for i, late := range []bool{false, true} {
					port := uint16(80 + i)
					target := netip.AddrPortFrom(web.Addr4, port)
					peer := newPeer(web, port, nil)
					report := make(chan Report, 1)
					p.Submit(Check{Target: target, Timeout: triesTimeout, Tries: 2, Tag: report})
					l.Until("the first SYN", func() bool { return peer.heard(target) == 1 })
					l.FilterOut("ip daddr " + web.Addr4.String() + " tcp dport " + target.String()[len(web.Addr4.String())+1:] +
						" tcp flags syn / syn,rst,ack " + tt.rule)
					want := outcome{Inconclusive, tt.err}
					if late {
						want = answered
						<-further // and it is stopped before the loop looks at answers again
						peer.send(target, reply{1, synACK})
					}
					r := <-report
					for len(further) > 0 {
						<-further
					}
					if r.Result != want.result || !errors.Is(r.Err, want.err) {
						t.Errorf("late answer %v: %v (%v), %d tries; want %v (%v)", late, r.Result, r.Err, r.Tries, want.result, want.err)
					}
				}
			})
		})
	}
}
