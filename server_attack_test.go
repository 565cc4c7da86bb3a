package shaker

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// attackAnswers is how many answers the attacker gives; the environment variable SHAKER_ATTACK asks for
// more.
func attackAnswers(t *testing.T) int {
	value := os.Getenv("SHAKER_ATTACK")
	if value == "" {
		return 100_000
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("SHAKER_ATTACK=%s: %v", value, err)
	}
	return n
}

// Somebody who controls a zone answers with new addresses each time. The table stays within its bound, and
// so does the heap; what does not fit passes; and no denied address is ever probed.
func TestLabServerAttack(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		const limit = 5000
		handler, stop := startHandler(t, `shaker example.org {
			port 80 8080
			allow 127.0.0.0/9
			deny 127.128.0.0/9
			limit targets 5000
			limit rate 20000
			fallback nodata
			hold 0s
			interval 24h
		}`) // one probe each, or the heap would hold the more packets of the capture the longer this takes
		defer stop()
		random := rand.New(rand.NewPCG(1, 2))
		var given [2]netip.Addr
		handler.Next = serverBackend(func(q dns.Question) []dns.RR {
			answer := make([]dns.RR, len(given))
			for i := range given {
				n := random.Uint32()
				given[i] = netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)})
				answer[i] = &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: given[i].AsSlice()}
			}
			return answer
		})
		wire := l.Capture()
		q := new(dns.Msg)
		q.SetQuestion("www.example.org.", dns.TypeA)
		refused := unfiltered.Load()
		var at100 uint64
		n := attackAnswers(t)
		for i := range n {
			if i == n/10 {
				at100 = heapInUse()
			}
			w := &keepMsg{}
			if _, err := handler.ServeDNS(context.Background(), w, q); err != nil {
				t.Fatal(err)
			}
			for _, addr := range given {
				if got := serverAddresses(w.msg); !slices.Contains(got, addr) && !knownDown(addr) {
					t.Fatalf("answer %d has %v: %v is missing, and nobody knows it to be down", i, got, addr)
				}
			}
		}
		growth := int64(heapInUse()) - int64(at100)
		counts := live.Load().Counts()
		t.Logf("%d answers: %d targets, %d addresses unfiltered, heap grew by %d KB in the last nine tenths",
			n, counts.Total, unfiltered.Load()-refused, growth>>10)
		if counts.Total > limit {
			t.Errorf("%d targets, limit %d", counts.Total, limit)
		}
		if growth > 8<<20 {
			t.Errorf("the heap grew by %d bytes while the table was full", growth)
		}
		if unfiltered.Load() == refused {
			t.Error("nothing was counted as unfiltered")
		}
		l.Until("every target to have a verdict", func() bool { return live.Load().Counts().Unknown == 0 })
		wire.Stop()
		denied := netip.MustParsePrefix("127.128.0.0/9")
		probed := 0
		for _, p := range wire.Packets() {
			if p.Flags == lab.SYN {
				probed++
				if denied.Contains(p.Dst.Addr()) {
					t.Fatalf("%s was probed", p.Dst)
				}
			}
		}
		t.Logf("%d SYN", probed)
		if probed == 0 {
			t.Error("nothing was captured")
		}
	})
}

// knownDown tells whether a port of the address is down.
func knownDown(addr netip.Addr) bool {
	for target := range live.Load().All() {
		if target.Addr().Addr() == addr && target.State() == health.Down {
			return true
		}
	}
	return false
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// keepMsg is a client's end that keeps the message.
type keepMsg struct {
	test.ResponseWriter
	msg *dns.Msg
}

func (w *keepMsg) WriteMsg(m *dns.Msg) error {
	w.msg = m
	return nil
}

// startHandler makes a handler from a stanza, without a server around it.
func startHandler(t testing.TB, stanza string) (s *Shaker, stop func()) {
	t.Helper()
	inst := new(instance)
	policies, err := parse(caddy.NewTestController("dns", stanza), &inst.settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.lease(inst); err != nil {
		t.Fatal(err)
	}
	return &Shaker{policies: policies, instance: inst}, func() { shared.giveBack(inst) }
}
