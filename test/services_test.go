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

// servicesZone has services on the machines of a farm, with what Consul calls them and with what RFC 2782 does.
func servicesZone(f *farm, dead int) string {
	var b strings.Builder
	b.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n")
	for i, addr := range f.addrs {
		fmt.Fprintf(&b, "m%d 300 IN A %s\n", i, addr)
		fmt.Fprintf(&b, "_web._tcp 300 IN SRV 1 1 %d m%d\nweb.service 300 IN SRV 1 1 %d m%d\n_web._udp 300 IN SRV 1 1 %d m%d\n", f.port, i, f.port, i, f.port, i)
	}
	fmt.Fprintf(&b, "shop 300 IN HTTPS 1 m%d port=%d ipv4hint=%s\n", dead, f.port, f.addrs[dead])
	fmt.Fprintf(&b, "_%d._https.shop 300 IN HTTPS 1 m%d ipv4hint=%s,%s\n", f.port, dead, f.addrs[0], f.addrs[dead])
	return lab.File(f.t, "db.example.org", b.String())
}

// SRV records whose machine is dead go, whatever takes the addresses away that came with them.
func TestServices(t *testing.T) {
	f := newFarm(t, "127.0.9.1", "127.0.9.2", "127.0.9.3")
	const dead = 1
	f.kill(f.addrs[dead])
	zone := servicesZone(f, dead)
	for _, below := range []string{"", "minimal\n", "header {\nresponse set ra\n}\n", "cache\n", "cache\nminimal\n"} {
		s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nallow 127.0.0.0/8\nhold 4s\nttl 20\nport %d\n}\n%sfile %s\n}\n", f.port, below, zone))
		for qname, want := range map[string]string{
			"_web._tcp.example.org.":   "m0 m2",
			"web.service.example.org.": "m0 m2",
			"_web._udp.example.org.":   "m0 m1 m2", // is not to be found by TCP
		} {
			m := s.ask(qname, dns.TypeSRV)
			var machines []string
			ttl := uint32(20)
			if strings.Contains(qname, "_udp") {
				ttl = 300
			}
			for _, rr := range m.Answer {
				machines = append(machines, strings.TrimSuffix(rr.(*dns.SRV).Target, ".example.org."))
			}
			slices.Sort(machines)
			if got := strings.Join(machines, " "); got != want {
				t.Errorf("%q %s: %s, want %s in\n%v", below, qname, got, want, m)
			}
			for _, rr := range slices.Concat(m.Answer, m.Extra) {
				if rr.Header().Ttl != ttl {
					t.Errorf("%q %s: TTL of %v, want %d", below, qname, rr, ttl)
				}
			}
		}
	}
}

// What an HTTPS record leads to leaves the hints and the additional section; the port may be in the name.
func TestServicesHTTPS(t *testing.T) {
	f := newFarm(t, "127.0.9.5", "127.0.9.6")
	const dead = 1
	f.kill(f.addrs[dead])
	s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nallow 127.0.0.0/8\nhold 4s\n}\nfile %s\n}\n", servicesZone(f, dead)))
	for qname, want := range map[string]string{
		"shop.example.org.": fmt.Sprintf("shop.example.org.\t30\tIN\tHTTPS\t1 m1.example.org. port=\"%d\"", f.port),
		fmt.Sprintf("_%d._https.shop.example.org.", f.port): fmt.Sprintf("_%d._https.shop.example.org.\t30\tIN\tHTTPS\t1 m1.example.org. ipv4hint=\"%s\"",
			f.port, f.addrs[0]),
	} {
		m := s.ask(qname, dns.TypeHTTPS)
		if len(m.Answer) != 1 || m.Answer[0].String() != want || len(m.Extra) != 0 {
			t.Errorf("%s: want %s and nothing beside it in\n%v", qname, want, m)
		}
	}
}

// Old stub resolvers use what they get of a truncated answer.
func TestTruncatedByUpstream(t *testing.T) {
	f := newFarm(t, "127.0.9.10", "127.0.9.11", "127.0.9.12", "127.0.9.13")
	f.kill(f.addrs[0])
	f.kill(f.addrs[2])
	backend := dns.Server{Addr: "127.0.0.1:0", Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Truncated = true
		for _, addr := range f.addrs {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30}, A: addr.AsSlice()})
		}
		w.WriteMsg(m)
	})}
	addr := serve(t, &backend)
	s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nallow 127.0.0.0/8\nhold 4s\nport %d\n}\nforward . %s\n}\n", f.port, addr))
	m := s.ask("www.example.org.", dns.TypeA)
	if want := []netip.Addr{f.addrs[1], f.addrs[3]}; !m.Truncated || !slices.Equal(addresses(m), want) {
		t.Errorf("want %v and TC in\n%v", want, m)
	}
}

// serve starts a DNS server of the test's own and returns its address.
func serve(t *testing.T, server *dns.Server) string {
	t.Helper()
	ready, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(ready) }
	go func() { ended <- server.ListenAndServe() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Shutdown()
		<-ended
	})
	return server.PacketConn.LocalAddr().String()
}

// Queries that come in a row on one connection are answered in a row. They do not wait for `hold` each.
func TestLabHoldOnOneConnection(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		const names = 20
		silent := l.Host("silent")
		silent.Drop(443)
		addrs := silent.Addrs4(2 * names)
		var zone strings.Builder
		zone.WriteString("$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\ntext 300 IN TXT \"x\"\n")
		for i := range names {
			fmt.Fprintf(&zone, "n%d 300 IN A %s\nn%d 300 IN A %s\n", i, addrs[2*i], i, addrs[2*i+1])
		}
		s := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nshaker {\nhold 1s\n}\nfile %s\n}\n", lab.File(t, "db.example.org", zone.String())))
		conn := s.dial("tcp")
		defer conn.Close()
		ask := func(qname string, qtype uint16) {
			t.Helper()
			q := new(dns.Msg)
			q.SetQuestion(qname, qtype)
			if err := conn.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
		}
		for i := range names {
			ask(fmt.Sprintf("n%d.example.org.", i), dns.TypeA)
		}
		ask("text.example.org.", dns.TypeTXT)
		for range names + 1 {
			if _, err := conn.ReadMsg(); err != nil {
				t.Fatal(err)
			}
		}
		// More than one only where all of it takes longer than the ten seconds until the connection may wait again.
		if held := counted(t, "coredns_shaker_held_answers_total", nil); held < 1 || held > names/4 {
			t.Errorf("%v of %d answers were held, want 1", held, names)
		}
	})
}
