package test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// A reload does not make CoreDNS unready for the names that were resolved before, even if they cannot be just now. Names
// that are new, and those whose targets are checked in another way, have to be looked up first.
func TestReadyAcrossReloads(t *testing.T) { lab.Apart(t, testReadyAcrossReloads) }

func testReadyAcrossReloads(t *testing.T) {
	f, ready := newFarm(t, "127.0.19.1", "127.0.19.2"), local(t)
	var hangs atomic.Bool
	goOn := make(chan struct{})
	below := backend(func(q dns.Question) (answer []dns.RR) {
		if hangs.Load() {
			<-goOn
		}
		for _, addr := range f.addrs {
			if q.Qtype == dns.TypeA {
				header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}
				answer = append(answer, &dns.A{Hdr: header, A: net.IP(addr.AsSlice())})
			}
		}
		return answer
	}).directive(t)
	text := func(properties string) string {
		return fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nready %s\nshaker {\nport %d\nallow 127.0.0.0/8\n%s\n}\n%s\n}",
			ready, f.port, properties, below)
	}
	s := start(t, text("watch a.example.org b.example.org"))
	untilReady(t, ready)
	hangs.Store(true)
	for _, step := range []struct {
		properties string
		want       bool
	}{
		{"watch a.example.org b.example.org", true},
		{"watch b.example.org", true},
		{"watch c.example.org b.example.org", false},
		{"watch b.example.org", true},
		{"interval 1s\nwatch b.example.org", false},
	} {
		if err := s.reload(text(step.properties)); err != nil {
			t.Fatal(err)
		}
		if got, _ := isReady(t, ready); got != step.want {
			t.Errorf("ready %v after a reload to %q, want %v", got, step.properties, step.want)
		}
	}
	close(goOn)
	lab.Until(t, "ready in the end", func() bool { got, _ := isReady(t, ready); return got })
}
