package test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var (
	faithfulQueries = flag.Int("faithful.queries", 3000, "number of queries of TestFaithful, per plugin that answers")
	faithfulSeed    = flag.Uint64("faithful.seed", 0, "seed of the queries of TestFaithful; 0 is the time")
)

// While every address is up, the answers of a CoreDNS with shaker are those of one without, octet by octet.
func TestFaithful(t *testing.T) {
	t.Parallel()
	f := newFarm(t, "127.0.9.1", "127.0.9.2", "127.0.9.3", "127.0.9.4", "::1")
	zone := faithfulZone(f)
	upstream := start(t, fmt.Sprintf("example.org:0 {\nbind 127.0.0.1\nfile %s\n}\n", zone))
	seed := *faithfulSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for name, directives := range map[string]string{
		"file":              "file " + zone,
		"forward":           "forward . " + upstream.addr,
		"cache and forward": "cache 300 {\n disable denial\n}\nforward . " + upstream.addr,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with := start(t, fmt.Sprintf(`example.org:0 {
				bind 127.0.0.1
				shaker {
					port %d
					ttl 168h
					fallback nodata
					panic 100
					hold 4s
					allow 127.0.0.0/8 ::1
				}
				%s
			}`, f.port, directives))
			without := start(t, "example.org:0 {\nbind 127.0.0.1\n"+directives+"\n}\n")
			t.Logf("%d queries, seed %d", *faithfulQueries, seed)
			r := rand.New(rand.NewPCG(seed, 0))
			kinds := make(map[string]int)
			for range *faithfulQueries {
				q := faithfulQuery(r)
				packed, err := q.Pack()
				if err != nil {
					t.Fatalf("%v\n%v", err, q)
				}
				network := []string{"udp", "udp", "udp", "tcp"}[r.IntN(4)]
				got, want := faithfulAsk(t, with, network, packed), faithfulAsk(t, without, network, packed)
				// TTLs in the cache count down, and the two caches were not filled at the same moment.
				if strings.HasPrefix(name, "cache") {
					got, want = faithfulWithoutTTL(t, got), faithfulWithoutTTL(t, want)
				}
				if !bytes.Equal(got, want) {
					var a, b dns.Msg
					a.Unpack(got)
					b.Unpack(want)
					t.Fatalf("over %s, to\n%v\nwith shaker %x\n%v\nwithout %x\n%v", network, q, got, &a, want, &b)
				}
				kinds[faithfulKind(want)]++
			}
			t.Logf("by what the answers have: %v", kinds)
			for _, kind := range []string{"A", "AAAA", "SRV", "HTTPS", "nothing"} {
				if kinds[kind] < *faithfulQueries/600 {
					t.Errorf("only %d answers with %s: they prove little", kinds[kind], kind)
				}
			}
		})
	}
}

// faithfulZone writes a zone with records of many types, all addresses of which are the farm's.
func faithfulZone(f *farm) string {
	var b strings.Builder
	b.WriteString(`$ORIGIN example.org.
@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300
@ 300 IN NS ns
@ 300 IN MX 10 one
@ 300 IN MX 20 two
@ 300 IN A 127.0.9.1
@ 300 IN A 127.0.9.2
@ 300 IN TXT "some text" "more of it"
@ 300 IN CAA 0 issue "ca.example.net"
ns 300 IN A 127.0.9.3
one 300 IN A 127.0.9.1
two 60 IN A 127.0.9.2
two 60 IN AAAA ::1
wWw 300 IN A 127.0.9.4
www 300 IN A 127.0.9.3
www 300 IN A 127.0.9.2
www 300 IN A 127.0.9.1
www 30 IN AAAA ::1
alias 300 IN CNAME www
chain 20 IN CNAME alias
*.wild 300 IN A 127.0.9.1
*.wild 300 IN A 127.0.9.4
tree 300 IN DNAME example.org.
sub 300 IN NS ns.sub
ns.sub 300 IN A 127.0.9.3
host 300 IN HINFO "cpu" "os"
host 300 IN TYPE65280 \# 4 01020304
`)
	fmt.Fprintf(&b, "_svc._tcp 300 IN SRV 0 5 %[1]d one\n_svc._tcp 300 IN SRV 0 5 %[1]d two\n_svc._udp 300 IN SRV 0 5 1 one\n", f.port)
	fmt.Fprintf(&b, "shop 300 IN HTTPS 1 . alpn=h2,h3 port=%[1]d ipv4hint=127.0.9.1,127.0.9.2 ipv6hint=::1\nshop 300 IN A 127.0.9.2\n", f.port)
	fmt.Fprintf(&b, "_dns 300 IN SVCB 1 one alpn=dot port=%[1]d ipv4hint=127.0.9.1\nalso 300 IN HTTPS 0 shop\n", f.port)
	for i := range 60 {
		fmt.Fprintf(&b, "many 300 IN A %s\nmany 300 IN TXT \"%d\"\n", f.addrs[i%4], i)
	}
	return lab.File(f.t, "db.faithful", b.String())
}

// faithfulQuery makes up a query, as clients and others send them.
func faithfulQuery(r *rand.Rand) *dns.Msg {
	names := []string{"", "ns.", "one.", "two.", "www.", "www.", "www.", "alias.", "chain.", "x.wild.", "y.x.wild.", "www.tree.", "sub.", "a.sub.",
		"host.", "_svc._tcp.", "_svc._tcp.", "_svc._udp.", "shop.", "shop.", "_dns.", "also.", "many.", "nowhere.", "a.b.c.nowhere."}
	types := []uint16{dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSRV, dns.TypeHTTPS, dns.TypeHTTPS,
		dns.TypeSVCB, dns.TypeANY, dns.TypeMX, dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeDNAME, dns.TypeDS, dns.TypeDNSKEY,
		dns.TypeHINFO, dns.TypeCAA, 65280}
	qname, qtype := []byte(names[r.IntN(len(names))]+"example.org."), types[r.IntN(len(types))]
	if qname[0] == '_' && r.IntN(2) == 0 {
		qtype = dns.TypeSRV // chance alone would ask for few of them
	}
	if r.IntN(3) == 0 {
		for i := range qname {
			if 'a' <= qname[i] && qname[i] <= 'z' && r.IntN(2) == 0 {
				qname[i] -= 'a' - 'A'
			}
		}
	}
	q := new(dns.Msg)
	q.SetQuestion(string(qname), qtype)
	q.Id = uint16(r.Uint32())
	q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData = r.IntN(2) == 0, r.IntN(4) == 0, r.IntN(4) == 0
	if r.IntN(30) == 0 {
		q.Question[0].Qclass = []uint16{dns.ClassCHAOS, dns.ClassANY, dns.ClassNONE, 4711}[r.IntN(4)]
	}
	if r.IntN(30) == 0 {
		q.Opcode = []int{dns.OpcodeStatus, dns.OpcodeUpdate, 7}[r.IntN(3)] // file drops NOTIFY of strangers
	}
	if r.IntN(2) == 0 {
		return q
	}
	q.SetEdns0([]uint16{0, 512, 1232, 4096, 65535}[r.IntN(5)], r.IntN(2) == 0)
	opt := q.IsEdns0()
	if r.IntN(3) == 0 {
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	if r.IntN(3) == 0 {
		opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
	}
	if r.IntN(4) == 0 {
		opt.Option = append(opt.Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("anything")})
	}
	if r.IntN(20) == 0 {
		opt.SetVersion(1)
	}
	return q
}

// faithfulAsk returns the answer as it came.
func faithfulAsk(t *testing.T, s *server, network string, query []byte) []byte {
	t.Helper()
	conn := s.dial(network)
	defer conn.Close()
	conn.UDPSize = dns.MaxMsgSize
	if _, err := conn.Write(query); err != nil {
		t.Fatal(err)
	}
	answer, err := conn.ReadMsgHeader(nil)
	if err != nil {
		q := new(dns.Msg)
		q.Unpack(query)
		t.Fatalf("over %s: %v, to\n%v", network, err, q)
	}
	return answer
}

// faithfulWithoutTTL packs an answer anew with all TTLs 0.
func faithfulWithoutTTL(t *testing.T, packed []byte) []byte {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				rr.Header().Ttl = 0
			}
		}
	}
	m.Compress = true
	again, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// faithfulKind returns the type of the last record in an answer.
func faithfulKind(packed []byte) string {
	m := new(dns.Msg)
	if m.Unpack(packed) != nil || len(m.Answer) == 0 {
		return "nothing"
	}
	return dns.TypeToString[m.Answer[len(m.Answer)-1].Header().Rrtype]
}
