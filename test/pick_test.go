package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// ordered returns the addresses in an answer, in its order.
func ordered(m *dns.Msg) (addrs []netip.Addr) {
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			addrs = append(addrs, netip.MustParseAddr(rr.A.String()))
		case *dns.AAAA:
			addrs = append(addrs, netip.MustParseAddr(rr.AAAA.String()))
		}
	}
	return addrs
}

// askMany asks the same over and over on one socket, and has each see the addresses in the order of the answer.
func (s *server) askMany(count int, qname string, qtype uint16, each func([]netip.Addr)) {
	s.t.Helper()
	conn := s.dial("udp")
	defer conn.Close()
	client := dns.Client{Timeout: patience}
	for range count {
		m, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(qname, qtype), conn)
		if err != nil || m.Rcode != dns.RcodeSuccess {
			s.t.Fatalf("%s: %v\n%v", qname, err, m)
		}
		each(ordered(m))
	}
}

// picks returns how likely each choice of count things is, if they are drawn one after the other, each among those that are
// left by its weight. A choice is a mask of their places.
func picks(weights []float64, count int) map[uint]float64 {
	likely := make(map[uint]float64)
	var draw func(have uint, left int, p float64)
	draw = func(have uint, left int, p float64) {
		if left == 0 {
			likely[have] += p
			return
		}
		var whole float64
		for i, w := range weights {
			if have>>i&1 == 0 {
				whole += w
			}
		}
		for i, w := range weights {
			if have>>i&1 == 0 {
				draw(have|1<<i, left-1, p*w/whole)
			}
		}
	}
	draw(0, count, 1)
	return likely
}

// chance compares how often each choice came with how likely it is by these weights.
func chance(t *testing.T, came map[uint]int, weights []float64, count int) float64 {
	t.Helper()
	var counts []int
	var shares []float64
	seen := 0
	for choice, p := range picks(weights, count) {
		counts, shares = append(counts, came[choice]), append(shares, p)
		seen += came[choice]
	}
	for choice, n := range came {
		if seen -= n; picks(weights, count)[choice] == 0 {
			t.Errorf("%d times the choice %b, which cannot be", n, choice)
		}
	}
	return lab.ChiSquared(counts, shares)
}

// Of eight addresses each query gets a sample of its own, by their weights.
func TestPick(t *testing.T) {
	t.Parallel()
	const queries = 20_000
	equal := []float64{1, 1, 1, 1, 1, 1, 1, 1}
	tests := []struct {
		name    string
		weight  []string // 127.3.1. stands before each
		pick    int
		weights []float64
		below   string
	}{
		{"one", nil, 1, equal, ""},
		{"one, weighted", []string{"5 0/24", "1 1 2", "20 7 8", "10 6/32", "100 64/26"}, 1, []float64{1, 1, 5, 5, 5, 10, 20, 20}, ""},
		{"a canary", []string{"100 0/24", "1 8"}, 1, []float64{100, 100, 100, 100, 100, 100, 100, 1}, ""},
		{"out of a cache", []string{"3 1", "2 2"}, 1, []float64{3, 2, 1, 1, 1, 1, 1, 1}, "cache 300\n"},
		{"three", nil, 3, equal, ""},
		{"three, weighted", []string{"2 3 4", "3 5 6", "4 7 8"}, 3, []float64{1, 1, 2, 2, 3, 3, 4, 4}, ""},
		{"all but one", []string{"2 3 4", "3 5 6", "4 7 8"}, 7, []float64{1, 1, 2, 2, 3, 3, 4, 4}, "cache 300\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var addrs []string
			for n := range equal {
				addrs = append(addrs, fmt.Sprintf("127.3.1.%d", n+1))
			}
			f := newFarm(t, addrs...)
			var weight strings.Builder
			for _, line := range tt.weight {
				fields := strings.Fields(line)
				weight.WriteString("weight " + fields[0])
				for _, cidr := range fields[1:] {
					weight.WriteString(" 127.3.1." + cidr)
				}
				weight.WriteString("\n")
			}
			s := start(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %d
					hold 4s
					allow 127.0.0.0/8
					pick %d
					%s
				}
				%sfile %s
			}`, f.port, tt.pick, weight.String(), tt.below, f.zoneFile()))
			came, first := make(map[uint]int), make(map[uint]int)
			s.askMany(queries, "www.example.org.", dns.TypeA, func(got []netip.Addr) {
				var choice uint
				for i, addr := range got {
					at := uint(1) << slices.Index(f.addrs, addr)
					if choice |= at; i == 0 {
						first[at]++
					}
				}
				if len(got) != tt.pick {
					t.Fatalf("%d addresses in %v, want %d", len(got), got, tt.pick)
				}
				came[choice]++ // of fewer addresses where one came twice, which cannot be
			})
			for what, p := range map[string]float64{
				"choices": chance(t, came, tt.weights, tt.pick),
				"first":   chance(t, first, tt.weights, 1),
			} {
				if p < lab.Significance {
					t.Errorf("%s: likelihood %.2g: %v, %v", what, p, came, first)
				} else {
					t.Logf("%s: likelihood %.2g", what, p)
				}
			}
			// It would show if the weights were not used.
			if !slices.Equal(tt.weights, equal) {
				if p := chance(t, came, equal, tt.pick); p >= lab.Significance {
					t.Errorf("equal weights would pass with a likelihood of %.2g: %v", p, came)
				}
			}
		})
	}
}

// The dead are not picked, and where no more are left than may be picked, all of them stay, in their order.
func TestPickLiving(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.3.2.4", "127.3.2.3", "127.3.2.2", "127.3.2.1")
	f.kill(f.addrs[1])
	s := start(t, fmt.Sprintf(`example.org:0 {
		bind 127.0.0.1
		shaker {
			port %d
			interval 100ms 20ms
			damping off
			hold 4s
			allow 127.0.0.0/8
			pick 2
			weight 1000 127.3.2.3
		}
		file %s
	}`, f.port, f.zoneFile()))
	// untilPicked asks until these are picked and no others. Each is in half of the answers, or more.
	untilPicked := func(want ...netip.Addr) {
		t.Helper()
		lab.UntilNil(t, func() error {
			seen := make(map[netip.Addr]bool)
			s.askMany(100, "www.example.org.", dns.TypeA, func(got []netip.Addr) {
				for _, addr := range got {
					seen[addr] = true
				}
				if len(got) > 2 {
					t.Fatalf("picked %v", got)
				}
			})
			for _, addr := range f.addrs {
				if seen[addr] != slices.Contains(want, addr) {
					return fmt.Errorf("picked %v, want %v", seen, want)
				}
			}
			return nil
		})
	}
	untilPicked(f.addrs[0], f.addrs[2], f.addrs[3])
	f.kill(f.addrs[3])
	untilPicked(f.addrs[0], f.addrs[2])
	s.askMany(100, "www.example.org.", dns.TypeA, func(got []netip.Addr) {
		if want := []netip.Addr{f.addrs[0], f.addrs[2]}; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
	f.start(f.addrs[1])
	f.start(f.addrs[3])
	lab.Until(t, "the heavy one to be picked", func() bool {
		all := true
		s.askMany(5, "www.example.org.", dns.TypeA, func(got []netip.Addr) { all = all && slices.Contains(got, f.addrs[1]) })
		return all
	})
}

// Of tiers it is the one that is served of which is picked, and of a standby its addresses.
func TestPickAmong(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.3.3.1", "127.3.3.2", "127.3.3.3", "127.3.4.1", "127.3.4.2", "127.3.4.3", "127.3.5.1", "127.3.5.2", "127.3.5.3")
	www, standby := f.addrs[:6], f.addrs[6:]
	zone := "www 300"
	for _, addr := range www {
		zone += " " + addr.String()
	}
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+
		f.standbyStanza("", "prefer 127.3.3.0/24\npick 1\nfallback standby.example.org")+
		"file "+standbyZone(t, "example.org.", zone, "standby 300 127.3.5.1 127.3.5.2 127.3.5.3")+"\n}\n")
	for _, want := range [][]netip.Addr{www[:3], www[3:], standby} {
		lab.UntilNil(t, func() error {
			seen := make(map[netip.Addr]int)
			s.askMany(200, "www.example.org.", dns.TypeA, func(got []netip.Addr) {
				for _, addr := range got {
					seen[addr]++
				}
			})
			total := 0
			for _, n := range seen {
				total += n
			}
			for _, addr := range want {
				if seen[addr] == 0 || len(seen) != len(want) || total != 200 {
					return fmt.Errorf("picked %v, want one of %v", seen, want)
				}
			}
			return nil
		})
		for _, addr := range want {
			f.kill(addr)
		}
	}
	// Everything is dead: it is all of www, and one of them is picked.
	lab.UntilNil(t, func() error {
		seen := make(map[netip.Addr]bool)
		s.askMany(200, "www.example.org.", dns.TypeA, func(got []netip.Addr) { seen[got[0]] = len(got) == 1 })
		for _, addr := range www {
			if !seen[addr] || len(seen) != len(www) {
				return fmt.Errorf("picked %v, want one of %v", seen, www)
			}
		}
		return nil
	})
}

// Hints and the addresses beside services are picked, too, and records of services are not.
func TestPickHints(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.3.6.1", "127.3.6.2", "127.3.6.3")
	zone := standbyZone(t, "example.org.", "m 300 127.3.6.1 127.3.6.2 127.3.6.3")
	lab.AppendFile(t, zone, fmt.Sprintf("_web._tcp 300 IN SRV 0 0 %[1]d m\n_web._tcp 300 IN SRV 1 0 %[1]d m\n"+
		"api 300 IN HTTPS 1 . port=%[1]d ipv4hint=127.3.6.1,127.3.6.2,127.3.6.3\n", f.port))
	s := start(t, "example.org:0 {\nbind 127.0.0.1\n"+f.standbyStanza("", "pick 1")+"file "+zone+"\n}\n")
	hints, beside := make(map[string]int), make(map[string]int)
	for range 200 {
		m := s.ask("api.example.org.", dns.TypeHTTPS)
		for _, value := range m.Answer[0].(*dns.HTTPS).Value {
			if value.Key() == dns.SVCB_IPV4HINT {
				hints[value.String()]++
			}
		}
		m = s.ask("_web._tcp.example.org.", dns.TypeSRV)
		if len(m.Answer) != 2 || len(m.Extra) != 1 {
			t.Fatalf("want two services and an address beside them in\n%v", m)
		}
		beside[m.Extra[0].(*dns.A).A.String()]++
	}
	for what, seen := range map[string]map[string]int{"hints": hints, "beside services": beside} {
		total := 0
		for _, addr := range f.addrs {
			total += seen[addr.String()]
			if seen[addr.String()] == 0 {
				t.Errorf("%s: %v was never picked: %v", what, addr, seen)
			}
		}
		if total != 200 {
			t.Errorf("%s: picked %v, want one of %v each time", what, seen, f.addrs)
		}
	}
}
