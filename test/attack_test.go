package test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// attackAnswers is how many answers the attacker gives, with twenty addresses each; the environment variable
// SHAKER_ATTACK asks for more.
func attackAnswers(t *testing.T) int {
	value := os.Getenv("SHAKER_ATTACK")
	if value == "" {
		return 10_000
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("SHAKER_ATTACK=%s: %v", value, err)
	}
	return n
}

// Somebody who controls a zone answers with new addresses each time. The table stays within its bound, and
// so does the heap; what does not fit passes; and no denied address is ever probed.
func TestLabAttack(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		const limit = 5000
		var (
			random = rand.New(rand.NewPCG(1, 2))
			mu     sync.Mutex
			given  []netip.Addr // in the last answer
			page   = local(t)
		)
		attacker := backend(func(q dns.Question) []dns.RR {
			mu.Lock()
			defer mu.Unlock()
			given = make([]netip.Addr, 20)
			answer := make([]dns.RR, len(given))
			for i := range given {
				n := random.Uint32()
				given[i] = netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)})
				answer[i] = &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: given[i].AsSlice()}
			}
			return answer
		})
		s := start(t, fmt.Sprintf(`example.org:0 {
			bind 127.0.0.1
			shaker {
				port 80 8080
				allow 127.0.0.0/9
				deny 127.128.0.0/9
				limit targets %d
				limit rate 20000
				fallback nodata
				hold 0s
				# One probe each, or the heap would hold the more packets of the capture the longer this takes.
				interval 24h
				status %s
			}
			%s
		}`, limit, page, attacker.directive(t)))
		wire := l.Capture()
		conn := s.dial("udp")
		defer conn.Close()
		q := new(dns.Msg)
		q.SetQuestion("www.example.org.", dns.TypeA)
		client := dns.Client{Timeout: patience}
		begun, missing, n := 0, 0, attackAnswers(t)
		for i := range n {
			if i == n/10 {
				begun = lab.HeapInUse()
			}
			m, _, err := client.ExchangeWithConn(q, conn)
			if err != nil {
				t.Fatal(err)
			}
			got := addresses(m)
			mu.Lock()
			wanted := given
			mu.Unlock()
			for _, addr := range wanted {
				if slices.Contains(got, addr) {
					continue
				}
				missing++
				if statusOf(t, page, "state=down&prefix="+addr.String()).Targets == nil {
					t.Fatalf("answer %d has %v: %v is missing, and nobody knows it to be down", i, got, addr)
				}
			}
		}
		growth := lab.HeapInUse() - begun
		counts, passed := countsAt(t, page), counted(t, "coredns_shaker_unfiltered_addresses_total", nil)
		t.Logf("%d answers: %d targets, %v addresses unfiltered, %d taken out, heap grew by %d KB in the last nine tenths",
			n, counts.Total, passed, missing, growth>>10)
		if counts.Total > limit {
			t.Errorf("%d targets, limit %d", counts.Total, limit)
		}
		if growth > 8<<20 {
			t.Errorf("the heap grew by %d bytes while the table was full", growth)
		}
		if passed == 0 {
			t.Error("nothing was counted as unfiltered")
		}
		lab.Until(t, "every target to have a verdict", func() bool { return countsAt(t, page).Unknown == 0 })
		wire.Stop()
		denied := netip.MustParsePrefix("127.128.0.0/9")
		probed := 0
		for _, p := range wire.Packets() {
			// Those of the test itself are to the status page.
			if p.Flags == lab.SYN && p.Dst.String() != page {
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
