package answer

import (
	"net/netip"

	"github.com/miekg/dns"
)

// Standby returns what a name with these addresses, whose records have a type and a TTL in seconds, is answered with, and
// for how many seconds that may be kept. There is nothing where neither the name nor what it falls back to lives. The
// request of the query is not used, since this is no answer to anybody by itself.
func Standby(name string, rrtype uint16, addrs []netip.Addr, ttl uint32, q *Query, source Source) (living []netip.Addr, _ uint32) {
	if len(addrs) == 0 {
		return nil, 0
	}
	m := new(dns.Msg)
	m.Question = []dns.Question{{Name: name, Qtype: rrtype, Qclass: dns.ClassINET}}
	s := rrset{judgement: judgement{instead: addrs, ttl: ttl}}
	m.Answer = s.appendRecords(nil, &dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}, &copies{size: len(addrs)})
	a := anatomyFor(m)
	defer a.release()
	answered, _, _ := a.filter(m, &Query{Zone: q.Zone, Request: new(dns.Msg), Client: q.Client, Draw: q.Draw}, source)
	if f := &a.sets[0]; a.askable() && (f.fate == spared || f.fate == failed) {
		return nil, 0
	}
	for _, rr := range answered.Answer {
		if _, addr, ok := address(rr); ok {
			living, ttl = append(living, addr), min(ttl, rr.Header().Ttl)
		}
	}
	return living, ttl
}
