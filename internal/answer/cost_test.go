package answer

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// costWire makes up a message of at most 64 KB, octet by octet, as somebody would who wants it to cost much: nearly all names
// are pointers to others.
type costWire struct {
	qname    []byte
	sections [3][]byte
	count    [3]uint16 // of records
}

// Sections of a costWire.
const (
	costAnswer = iota
	costNs
	costExtra
)

const (
	costHeader  = 12
	costPointer = 0xC000
	// costEnough leaves room for one more record of any kind here.
	costEnough = dns.MaxMsgSize - 512
)

// costNames are those of the questions.
var costNames = []struct {
	name  string
	qname []byte
}{
	{"short names", []byte{1, 'x', 0}},
	{"long names", costName('X')},
	{"names with escapes", costName(0xC8)}, // whose text is four times as long
	{"names of many labels", append(bytes.Repeat([]byte{1, 'X'}, 124), 0)},
}

// costName returns a name of 250 octets.
func costName(octet byte) (name []byte) {
	for _, size := range []int{62, 62, 62, 60} {
		name = append(name, byte(size))
		name = append(name, bytes.Repeat([]byte{octet}, size)...)
	}
	return append(name, 0)
}

func costU16(b []byte, all ...uint16) []byte {
	for _, n := range all {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return b
}

func (w *costWire) isFull() bool {
	return costHeader+len(w.qname)+4+len(w.sections[0])+len(w.sections[1])+len(w.sections[2]) > costEnough
}

// add appends a record, whose owner is a label, unless it is "", before the question's name.
func (w *costWire) add(section int, label string, rrtype uint16, data ...byte) {
	w.count[section]++
	b := costTo(w.sections[section], label)
	b = costU16(b, rrtype, dns.ClassINET, 0, 300, uint16(len(data)))
	w.sections[section] = append(b, data...)
}

// costTo appends a name: a label, unless it is "", before that of the question.
func costTo(b []byte, label string) []byte {
	if label != "" {
		b = append(append(b, byte(len(label))), label...)
	}
	return costU16(b, costPointer|costHeader)
}

// message returns what a server makes of it.
func (w *costWire) message(t testing.TB) *dns.Msg {
	t.Helper()
	b := costU16(nil, 0, 0x8180, 1, w.count[costAnswer], w.count[costNs], w.count[costExtra])
	b = append(b, w.qname...)
	b = costU16(b, dns.TypeA, dns.ClassINET)
	b = slices.Concat(b, w.sections[0], w.sections[1], w.sections[2])
	if len(b) > dns.MaxMsgSize {
		t.Fatalf("%d octets", len(b))
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

// costLabel returns one of many labels of two octets.
func costLabel(i int) string { return string([]byte{128 | byte(i>>7), 128 | byte(i)}) }

func costAddress(i int) []byte { return []byte{10, 0, byte(i >> 8), byte(i)} }

// costs are messages that cost much, each in its own way.
var costs = []struct {
	name     string
	fallback string
	panics   int
	fill     func(w *costWire)
}{
	{"RRsets, nodata", "nodata", 0, costSets},
	{"RRsets of two, all", "all", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			w.add(costAnswer, costLabel(i/2), dns.TypeA, costAddress(i)...)
		}
	}},
	{"RRsets, other addresses", "192.0.2.1", 0, costSets},
	{"RRsets to measure, all", "all", 0, func(w *costWire) {
		for i := range maxMeasured - 1 {
			w.add(costAnswer, costLabel(i/2), dns.TypeA, costAddress(i)...)
		}
	}},
	{"one RRset", "all", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			w.add(costAnswer, "", dns.TypeA, costAddress(i)...)
		}
	}},
	{"the name in two cases", "all", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			w.add(costAnswer, []string{"a", "A"}[i%2], dns.TypeA, costAddress(i)...)
		}
	}},
	{"SRV and glue", "nodata", 0, func(w *costWire) {
		for i := range 1500 {
			w.add(costAnswer, "", dns.TypeSRV, costTo([]byte{0, byte(i), 0, 0, 0, 80}, costLabel(i))...)
		}
		for i := range 1500 {
			w.add(costExtra, costLabel(i), dns.TypeA, costAddress(i)...)
		}
	}},
	{"SRV without glue", "nodata", 0, func(w *costWire) {
		for i := range 2048 {
			w.add(costAnswer, "", dns.TypeSRV, costTo([]byte{0, 0, 0, 0, 0, 80}, costLabel(i))...)
		}
	}},
	{"SRV without glue, too many", "nodata", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			w.add(costAnswer, "", dns.TypeSRV, costTo([]byte{0, 0, 0, 0, 0, 80}, costLabel(i))...)
		}
	}},
	{"SRV RRsets", "nodata", 0, func(w *costWire) {
		for i := range 2048 {
			w.add(costAnswer, costLabel(i), dns.TypeSRV, costTo([]byte{0, 0, 0, 0, 0, 80}, costLabel(i))...)
		}
	}},
	{"SRV of many priorities", "all", 100, func(w *costWire) {
		for i := range 2048 {
			w.add(costAnswer, "", dns.TypeSRV, costTo([]byte{byte(i >> 8), byte(i), 0, 0, 0, 80}, "")...)
		}
		w.add(costExtra, "", dns.TypeA, costAddress(1)...)
	}},
	{"HTTPS with a target with much glue", "all", 0, func(w *costWire) {
		for i := range 64 {
			w.add(costAnswer, "", dns.TypeHTTPS, 0, byte(i), 0)
			w.add(costExtra, "", dns.TypeA, costAddress(i)...)
		}
	}},
	{"HTTPS without anything", "all", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			w.add(costAnswer, costLabel(i), dns.TypeHTTPS, 0, 1, 0)
		}
	}},
	{"HTTPS and A of one name", "nodata", 0, func(w *costWire) {
		for i := range 1500 {
			w.add(costAnswer, "", dns.TypeA, costAddress(i)...)
			w.add(costAnswer, "", dns.TypeHTTPS, append([]byte{0, 1, 0, 0, 4, 0, 4}, costAddress(i)...)...)
		}
	}},
	{"hints", "all", 0, func(w *costWire) {
		hint := []byte{0, 1, 0, 0, 0, 0, 2, 0, 4, 0, 4, 4096 * 4 / 256, 0}
		for i := range 4096 {
			hint = append(hint, costAddress(i)...)
		}
		w.add(costAnswer, "", dns.TypeHTTPS, hint...)
	}},
	{"hints at two ports", "all", 0, func(w *costWire) {
		hint := []byte{0, 1, 0, 0, 1, 0, 7, 3, 'd', 'o', 't', 2, 'h', '2', 0, 4, 2050 * 4 / 256, 2050 * 4 % 256}
		for i := range 2050 {
			hint = append(hint, costAddress(i)...)
		}
		w.add(costAnswer, "", dns.TypeSVCB, hint...)
	}},
	{"name servers and glue", "all", 0, func(w *costWire) {
		w.add(costAnswer, "", dns.TypeHTTPS, 0, 1, 0)
		for i := range 2100 {
			w.add(costNs, "", dns.TypeNS, costTo(nil, "")...)
			w.add(costExtra, "", dns.TypeA, costAddress(i)...)
		}
	}},
	{"name servers of elsewhere", "nodata", 0, func(w *costWire) {
		w.add(costAnswer, "zz", dns.TypeA, costAddress(0)...)
		for i := 0; !w.isFull(); i++ {
			w.add(costNs, costLabel(i), dns.TypeNS, costTo(nil, costLabel(i))...)
		}
	}},
	{"glue and name servers of elsewhere", "all", 0, func(w *costWire) {
		w.add(costAnswer, "", dns.TypeHTTPS, 0, 1, 0)
		w.add(costExtra, "", dns.TypeA, costAddress(0)...)
		for i := 0; !w.isFull(); i++ {
			w.add(costNs, "", dns.TypeNS, costTo(nil, costLabel(i))...)
		}
	}},
	{"twins", "nodata", 0, func(w *costWire) {
		for i := range 1690 {
			w.add(costAnswer, costLabel(i), dns.TypeA, costAddress(i)...)
			w.add(costExtra, costLabel(i), dns.TypeA, costAddress(i)...)
		}
		w.add(costAnswer, "", dns.TypeTXT, 0)
	}},
	{"signatures", "all", 0, func(w *costWire) {
		for i := 0; !w.isFull(); i++ {
			if i%4 == 0 {
				w.add(costAnswer, costLabel(i), dns.TypeA, costAddress(i)...)
			}
			w.add(costAnswer, costLabel(i), dns.TypeRRSIG, append([]byte{0, byte(dns.TypeA)}, make([]byte, 17)...)...)
		}
	}},
}

func costSets(w *costWire) {
	for i := 0; !w.isFull(); i++ {
		w.add(costAnswer, costLabel(i), dns.TypeA, costAddress(i)...)
	}
}

// costSource finds most addresses down, at hardly any cost, and counts.
type costSource struct {
	asked, resolved int
	found           []netip.Addr // by name
}

func (s *costSource) Ask(addr netip.Addr, _ uint16) Verdict {
	s.asked++
	n := addr.As4()[3]
	if n%32 == 31 {
		return Verdict{State: Up, RTT: time.Duration(n*37) * time.Millisecond}
	}
	return Verdict{State: Down}
}

func (s *costSource) Resolve(string, uint16) ([]netip.Addr, bool) {
	s.resolved++
	return s.found, true
}

func (s *costSource) Settle() bool { return false }

func (s *costSource) Standby(string, uint16) (addrs []netip.Addr, ttl uint32) {
	s.resolved++
	return nil, 0
}

// costPolicies are what the messages are filtered by, on top of what a cost says itself.
var costPolicies = []string{
	"",
	"sort rtt",
	"prefer 10.0.0.0/9; prefer 10.128.0.0/10; sort client; pick 3; weight 7 10.0.0.0/10; fallback b. c.",
	"prefer 10.0.0.0/9; pick 3; panic 50",
}

// costRun filters the message of a cost as often as it is told.
func costRun(t testing.TB, i int, qname []byte, policy string) (run func(*costSource) Result) {
	t.Helper()
	w := &costWire{qname: qname}
	costs[i].fill(w)
	m := w.message(t)
	zone := filterPolicy(t, costs[i].fallback, costs[i].panics)
	selecting := selectPolicy(t, policy)
	selecting.Fallback.Kind, selecting.Fallback.Addresses = zone.Fallback.Kind, zone.Fallback.Addresses
	selecting.Panic = max(selecting.Panic, zone.Panic)
	zone = selecting
	request := new(dns.Msg).SetQuestion(".", dns.TypeA)
	request.SetEdns0(1232, false)
	q := &Query{Request: request, Client: room(dns.MaxMsgSize), Zone: zone}
	return func(source *costSource) Result {
		_, result := Filter(m, q, source)
		return result
	}
}

// BenchmarkCost filters the messages of 64 KB that cost most. None should take a millisecond.
func BenchmarkCost(b *testing.B) {
	for i := range costs {
		for _, name := range costNames {
			for _, policy := range costPolicies {
				b.Run(costs[i].name+", "+name.name+", "+policy, func(b *testing.B) {
					run := costRun(b, i, name.qname, policy)
					b.ReportAllocs()
					source := new(costSource)
					for b.Loop() {
						run(source)
					}
				})
			}
		}
	}
}

// Whoever makes up an answer cannot have us ask for more than so much.
func TestCostQuestions(t *testing.T) {
	many := make([]netip.Addr, 2*maxPairs)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte(costAddress(i)))
	}
	for i := range costs {
		for _, name := range costNames {
			for _, policy := range costPolicies {
				run := costRun(t, i, name.qname, policy)
				for _, found := range [][]netip.Addr{nil, many[:1], many} {
					source := &costSource{found: found}
					run(source)
					// Those of the last record are not divided.
					if n := source.asked + source.resolved; n > selectPolicy(t, policy).most()+2 {
						t.Errorf("%s, %s, %s, %d addresses by name: %d questions", costs[i].name, name.name, policy, len(found), n)
					}
				}
			}
		}
	}
}

// Names whose text takes up more than it could without escapes are not worth the time: the answer passes, and where only the
// names beside it are so long, addresses stay that may be needed.
func TestCostLongNames(t *testing.T) {
	for _, tt := range []struct {
		cost, names string
		asks        bool
		removed     int
	}{
		{"RRsets, nodata", "long names", true, 3303},
		{"RRsets, nodata", "names with escapes", false, 0},
		{"glue and name servers of elsewhere", "long names", true, 1},
		{"glue and name servers of elsewhere", "names with escapes", true, 0},
	} {
		for i := range costs {
			for _, name := range costNames {
				if costs[i].name != tt.cost || name.name != tt.names {
					continue
				}
				source := new(costSource)
				result := costRun(t, i, name.qname, "")(source)
				if (source.asked > 0) != tt.asks || result.Removed != tt.removed {
					t.Errorf("%s, %s: %d verdicts, %d removed; want %d", tt.cost, tt.names, source.asked, result.Removed, tt.removed)
				}
			}
		}
	}
}

// Whether an explanation fits is not measured where that takes long.
func TestCostExplanation(t *testing.T) {
	for _, n := range []int{maxMeasured - 1, maxMeasured} {
		w := &costWire{qname: []byte{1, 'x', 0}}
		for i := range n {
			w.add(costAnswer, "", dns.TypeA, 10, byte(i>>8), byte(i), 0)
		}
		w.add(costAnswer, "", dns.TypeTXT, 0)
		request := new(dns.Msg).SetQuestion("x.", dns.TypeA)
		request.SetEdns0(1232, false)
		got, _ := filter(w.message(t), request, filterPolicy(t, "all", 0), new(costSource))
		if errors, _ := editEDE(got); (len(errors) == 1) != (n < maxMeasured) || len(got.Answer) != n+1 {
			t.Errorf("%d records: %q, %d are left", n+1, errors, len(got.Answer))
		}
	}
}
