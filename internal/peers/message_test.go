package peers

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

func subject(addr string, settings uint64) key {
	return keyOf(health.Subject{Addr: netip.MustParseAddrPort(addr), Settings: settings})
}

// wordEntry returns an entry about a subject.
func wordEntry(number uint64, k key, o opinion, age time.Duration) entry {
	e := entry{number: number, sort: sortWord4, key: k, opinion: o, age: age}
	if !k.is4() {
		e.sort = sortWord6
	}
	return e
}

var someEntries = []entry{
	{number: 7, sort: sortOffer, offer: 0x0102030405060708},
	wordEntry(8, subject("192.0.2.1:443", 0x0102030405060708), opinion{word: health.SaysDown, inForce: health.Up, result: checker.Timeout}, 0),
	wordEntry(9, subject("192.0.2.2:443", 0x0102030405060708), opinion{word: health.SaysUp, inForce: health.Up, result: checker.Answered, rtt: 1234}, time.Second),
	wordEntry(300, subject("[2001:db8::1]:80", 5), opinion{word: health.NoWord}, 0),
	{number: 301, sort: sortNoOffer, offer: 9},
	{number: 302, sort: sortNote, note: note{[]byte("k"), []byte("value")}},
	{number: 303, sort: sortNote, note: note{[]byte{}, []byte{}}},
}

func changesMessage(c changes, entries ...entry) []byte {
	b := appendChanges(appendEnvelope(nil, kindChanges, "a-1"), &c)
	begin := len(b)
	for i := range entries {
		b = c.append(b, &entries[i])
	}
	closeChanges(b, begin, &c)
	return b
}

// The octets of each message are written down, so that the format does not change by accident: replicas of different versions talk
// with each other.
func TestMessagesAreAsEver(t *testing.T) {
	w := wantsWriter{}
	w.begin("a-1")
	for _, k := range []key{subject("192.0.2.1:443", 5), subject("[2001:db8::1]:80", 5), subject("192.0.2.1:443", 6)} {
		w.add(&k)
	}
	tests := []struct {
		name    string
		message []byte
		want    string
	}{
		{"beat", appendBeat(appendEnvelope(nil, kindBeat, "a-1"), &beat{300, 5, 2, time.Second, 7, true}), "0101 03612d31 01 ac02 05 02 e807 07"},
		{"changes", changesMessage(changes{first: 7, last: 310}, someEntries...), "0102 03612d31 00 07 0000000000000136" +
			"00 02 0102030405060708" +
			"01 80 c0000201 01bb 0102030405060708 0d" +
			"01 78 c0000202 65 e807 d209" +
			"a302 01 20010db8000000000000000000000001 0050 0000000000000005 00" +
			"01 03 0000000000000009" +
			"01 04 01 6b 05 76616c7565" +
			"01 04 00 00"},
		{"all that there is", changesMessage(changes{first: 1, last: 2, whole: 200}), "0102 03612d31 01 c801 01 0000000000000002"},
		{"ask", appendAsk(appendEnvelope(nil, kindAsk, "a-1"), &ask{[]span{{3, 300}, {302, 302}}, 2, netip.MustParseAddrPort("192.0.2.7:7946")}), "0103 03612d31 02 04 c0000207 1f0a 03 a902 02 00"},
		{"wants", w.message, "0104 03612d31 0000000000000005 02 04c000020101bb 1020010db80000000000000000000000010050 0000000000000006 01 04c000020101bb"},
		{"goodbye", appendEnvelope(nil, kindGoodbye, "a-1"), "0105 03612d31"},
		{"meta", appendMeta(nil, &meta{protocol: 1, quorum: true, observers: 3, site: "s", host: "h", shaker: "v1"}), "01 01 03 01 73 01 68 02 7631"},
	}
	for _, tt := range tests {
		if got, want := hex.EncodeToString(tt.message), strings.ReplaceAll(tt.want, " ", ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

// readAll returns the entries of a message.
func readAll(t *testing.T, message []byte) (c changes, all []entry, ok bool) {
	t.Helper()
	e, body, ok := openEnvelope(message)
	if !ok || e.kind != kindChanges {
		t.Fatalf("%x is no message with changes", message)
	}
	c, ok = readChanges(&body)
	if !ok {
		return c, nil, false
	}
	var x entry
	begun := false
	for r := c; r.next(&body, &x, &begun); {
		all = append(all, x)
	}
	return c, all, body.isDone()
}

func TestChangesComeBackAsTheyWere(t *testing.T) {
	c, all, ok := readAll(t, changesMessage(changes{first: 7, last: 310}, someEntries...))
	if !ok || c.first != 7 || c.last != 310 || c.whole != 0 {
		t.Fatalf("got %+v, %v", c, ok)
	}
	if got, want := fmt.Sprintf("%+v", all), fmt.Sprintf("%+v", someEntries); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// What a later version has to say beside what is known is passed over.
func TestUnknownSortsArePassedOver(t *testing.T) {
	message := changesMessage(changes{first: 1, last: 9}, entry{number: 1, sort: sortOffer, offer: 1})
	message = append(message, 1, 6|0xf8, 3, 'a', 'b', 'c')
	c := changes{number: 2}
	message = c.append(message, &entry{number: 3, sort: sortOffer, offer: 2})
	_, all, ok := readAll(t, message)
	if !ok || len(all) != 2 || all[1].number != 3 || all[1].offer != 2 {
		t.Errorf("got %+v, %v", all, ok)
	}
}

// Wrong messages are told from right ones, and do not harm.
func TestWrongMessages(t *testing.T) {
	good := changesMessage(changes{first: 7, last: 310}, someEntries...)
	tests := []struct {
		name    string
		message string
	}{
		{"nothing", ""},
		{"a version alone", "01"},
		{"no name", "0101 00 0000000000"},
		{"a name cut short", "0101 03 6161"},
		{"a name too long", "0101 81" + strings.Repeat("61", 129) + "000000000000"},
		{"a beat cut short", "0101 0161 00 01 01 01 01"},
		{"a beat with something behind it", "0101 0161 00 01 01 01 01 01 00"},
		{"a number of more than 64 bits", "0101 0161 00 ffffffffffffffffff02 01 01 01 01"},
		{"changes from 0", "0102 0161 00 00 0000000000000001"},
		{"changes that end before they begin", "0102 0161 00 05 0000000000000004"},
		{"changes beyond the newest", "0102 0161 01 03 01 0000000000000004"},
		{"an entry behind the last", "0102 0161 00 05 0000000000000006 02 02 0000000000000001"},
		{"the same number twice", "0102 0161 00 05 0000000000000006 00 02 0000000000000001 00 02 0000000000000001"},
		{"a number that overflows", "0102 0161 00 05 ffffffffffffffff ffffffffffffffffff01 02 0000000000000001"},
		{"an offer cut short", "0102 0161 00 05 0000000000000006 00 02 00000000000001"},
		{"a note that is longer than the message", "0102 0161 00 05 0000000000000006 00 04 01 61 05 61"},
		{"a key too long", "0102 0161 00 05 0000000000000006 00 04 9103" + strings.Repeat("61", 401) + "00"},
		{"a word that there is not", "0102 0161 00 05 0000000000000006 00 a0 c0000201 01bb 0000000000000005 00"},
		{"a verdict that there is not", "0102 0161 00 05 0000000000000006 00 60 c0000201 01bb 0000000000000005 03"},
		{"a result that there is not", "0102 0161 00 05 0000000000000006 00 60 c0000201 01bb 0000000000000005 14"},
		{"a bit without meaning", "0102 0161 00 05 0000000000000006 00 60 c0000201 01bb 0000000000000005 80"},
		{"an ask from 0", "0103 0161 00 04 7f000001 0001 00 01"},
		{"an ask without an address", "0103 0161 00 00 0001 01 01"},
		{"an ask for nothing", "0103 0161 00 04 7f000001 0001"},
		{"an ask for too much", "0103 0161 00 04 7f000001 0001" + strings.Repeat("01 00", 17)},
		{"wants cut short", "0104 0161 0000000000000005 02 04 c0000201 01bb"},
		{"wants with an address of 5 octets", "0104 0161 0000000000000005 01 05 c000020101 01bb"},
		{"a goodbye with something behind it", "0105 0161 00"},
	}
	for i := range len(good) - 1 {
		tests = append(tests, struct{ name, message string }{fmt.Sprintf("cut at %d", i), hex.EncodeToString(good[:i])})
	}
	for _, tt := range tests {
		message, err := hex.DecodeString(strings.ReplaceAll(tt.message, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		c := newCore(Config{}, "self", nil, Listener{}, nil)
		c.receive(message)
		if n := c.counts.malformed.Load(); n != 1 && !endsWithEntry(t, message) {
			t.Errorf("%s: %x was taken for a message", tt.name, message)
		}
	}
}

// endsWithEntry tells whether a message is a right one although it was cut: it was, behind an entry.
func endsWithEntry(t *testing.T, message []byte) bool {
	e, _, ok := openEnvelope(message)
	if !ok || e.kind != kindChanges {
		return false
	}
	_, all, ok := readAll(t, message)
	return ok && len(all) < len(someEntries)
}

func TestMetaFits(t *testing.T) {
	long := strings.Repeat("x", 1000)
	b := appendMeta(nil, &meta{protocol: 1, site: long, host: long, shaker: long})
	if len(b) > 512 {
		t.Errorf("%d octets", len(b))
	}
	m, ok := readMeta(append(b, "what a later version adds"...))
	if !ok || len(m.site) != maxSite || len(m.host) != maxHost || len(m.shaker) != maxShaker {
		t.Errorf("got %+v, %v", m, ok)
	}
}

// A message of an unknown version or kind is counted, and its sender is known by it.
func TestUnknownVersionsAndKinds(t *testing.T) {
	var warnings []string
	c := newCore(Config{}, "self", nil, Listener{Warningf: func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }}, nil)
	c.joined("b", netip.MustParseAddrPort("192.0.2.1:1"), appendMeta(nil, &meta{protocol: 1}))
	c.receive(append([]byte{2, 77, 1, 'b'}, "whatever"...))
	c.receive([]byte{1, 77, 1, 'b', 1, 2, 3})
	if n, wrong := c.counts.unknown.Load(), c.counts.malformed.Load(); n != 2 || wrong != 0 {
		t.Errorf("%d unknown, %d malformed", n, wrong)
	}
	if m := c.byName["b"]; !m.isNewer() {
		t.Error("nobody is newer")
	}
	for range 3 {
		c.tellMember(c.byName["b"], c.now())
	}
	c.flushNews()
	if n := strings.Count(strings.Join(warnings, "\n"), "speaks version"); n != 1 {
		t.Errorf("warnings %q, want one about the version", warnings)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(changesMessage(changes{first: 7, last: 310}, someEntries...))
	f.Add(changesMessage(changes{first: 1, last: 310, whole: 400}, someEntries[1:]...))
	f.Add(appendBeat(appendEnvelope(nil, kindBeat, "b"), &beat{300, 5, 2, time.Second, 7, true}))
	f.Add(appendAsk(appendEnvelope(nil, kindAsk, "b"), &ask{[]span{{1, math.MaxUint64}}, 2, netip.MustParseAddrPort("192.0.2.7:7946")}))
	w := wantsWriter{}
	w.begin("b")
	k := subject("[2001:db8::1]:80", 5)
	w.add(&k)
	f.Add(w.message)
	f.Add(appendEnvelope(nil, kindGoodbye, "b"))
	f.Fuzz(func(t *testing.T, message []byte) {
		c := newCore(Config{}, "self", nil, Listener{}, new(wire))
		c.joined("b", netip.MustParseAddrPort("192.0.2.1:1"), appendMeta(nil, &meta{protocol: 1}))
		c.receive(bytes.Clone(message))
		c.receive(bytes.Clone(message))
		c.checkInvariants(t)
	})
}

func FuzzMeta(f *testing.F) {
	f.Add(appendMeta(nil, &meta{protocol: 1, quorum: true, observers: 3, site: "s", host: "h", shaker: "v1"}))
	f.Fuzz(func(t *testing.T, octets []byte) {
		m, ok := readMeta(octets)
		if !ok {
			return
		}
		if again, ok := readMeta(appendMeta(nil, &m)); !ok || again != m || m.protocol != octets[0] {
			t.Errorf("%x is read as %+v, and that as %+v", octets, m, again)
		}
	})
}

// wire is a network that keeps what is sent.
type wire struct {
	sent []sentMessage
}

type sentMessage struct {
	to       string
	message  []byte
	reliable bool
}

func (w *wire) send(to string, message []byte, reliable bool) {
	w.sent = append(w.sent, sentMessage{to, bytes.Clone(message), reliable})
}

func (w *wire) sendTo(to string, _ netip.AddrPort, message []byte) { w.send(to, message, false) }

// checkInvariants tells what must always hold of what a core keeps.
func (c *core) checkInvariants(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	words := make(map[*member]int)
	downs := make(map[*member]int)
	disputed := 0
	for i, r := range c.records.all {
		if int(r.place) != i || c.records.of[r.key] != r {
			t.Errorf("record %d is not in its place", i)
		}
		if len(r.voices) == 0 && r.topic == nil {
			t.Errorf("a record of %v says nothing", r.key.subject())
		}
		if r.isDisputed() != (r.dispute != 0) {
			t.Errorf("%v: disputed is %v", r.key.subject(), r.dispute)
		}
		if r.dispute != 0 {
			disputed++
		}
		for _, v := range r.voices {
			if !v.isNothing() {
				words[v.member]++
			}
			if v.word == health.SaysDown {
				downs[v.member]++
			}
		}
	}
	if disputed != len(c.records.disputed) {
		t.Errorf("%d records are disputed, and %d are listed", disputed, len(c.records.disputed))
	}
	for _, m := range c.members {
		sum := 0
		for _, n := range m.downs {
			sum += n
		}
		if m.words != words[m] || sum != downs[m] {
			t.Errorf("%s says something of %d subjects, not %d; down of %d, not %d", m.name, words[m], m.words, downs[m], sum)
		}
		for i := range m.have {
			if m.have[i].first > m.have[i].last || i > 0 && m.have[i].first <= m.have[i-1].last+1 {
				t.Errorf("%s: numbers %v", m.name, m.have)
			}
		}
	}
	if len(c.records.of) != len(c.records.all) {
		t.Errorf("%d records, and %d are listed", len(c.records.of), len(c.records.all))
	}
}
