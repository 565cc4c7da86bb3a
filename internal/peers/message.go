package peers

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/octets"
)

// A message is
//
//	version  1 octet
//	kind     1 octet
//	name     of the sender: 1 octet for its length, then so many
//	body     what the kind says, to the end of the message
//
// in all versions that there will be, so that who sent a message that is not understood can be told. Numbers are varints as
// in encoding/binary unless something else is said; what has a fixed length is in network byte order.

const (
	protocol = 1

	// packetSize is how long a message in one packet is at most. What the network adds to it has to fit into an Ethernet
	// frame besides.
	packetSize = 1200
	// reliableSize is how long any message is at most.
	reliableSize = 1 << 20
	// burstPackets is how many packets are sent for the same thing. What does not fit goes as one reliable message.
	burstPackets = 8

	maxName      = 128
	maxNoteKey   = 400
	maxNoteValue = 700
)

// kind says what a message is about.
type kind byte

const (
	kindBeat    kind = iota + 1 // each second: how far the sender is
	kindChanges                 // entries of the sender's ledger
	kindAsk                     // for entries of the receiver's ledger
	kindWants                   // targets that the receiver shall check
	kindGoodbye                 // the sender leaves; no body
)

// envelope is what all messages begin with.
type envelope struct {
	version byte
	kind    kind
	from    []byte // the name
}

// appendEnvelope begins a message.
func appendEnvelope(b []byte, k kind, name string) []byte {
	b = append(b, protocol, byte(k), byte(len(name)))
	return append(b, name...)
}

// openEnvelope returns the envelope and what follows it.
func openEnvelope(message []byte) (e envelope, body reader, ok bool) {
	r := reader{octets.Reader{Left: message}}
	e.version, e.kind = r.Octet(), kind(r.Octet())
	e.from = r.Octets(int(r.Octet()))
	return e, r, !r.Failed && len(e.from) > 0 && len(e.from) <= maxName
}

// reader takes a message apart.
type reader struct{ octets.Reader }

// sum returns a number that is told as its distance from another one.
func (r *reader) sum(from uint64) uint64 {
	x := r.Number()
	if x > math.MaxUint64-from {
		r.Fail()
		return 0
	}
	return from + x
}

// text returns octets behind their number, up to most.
func (r *reader) text(most int) []byte {
	n := r.Number()
	if n > uint64(most) {
		r.Fail()
		return nil
	}
	return r.Octets(int(n))
}

// isDone tells whether all was understood, to the last octet.
func (r *reader) isDone() bool { return !r.Failed && len(r.Left) == 0 }

func appendText[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// beat is what each replica tells all others each second.
type beat struct {
	newest   uint64        // the number of its newest entry
	finished uint64        // checks, since it began
	pending  uint64        // checks that have begun and not ended
	longest  time.Duration // that a check of it may take, in whole milliseconds
	observed uint64        // targets that it checks
	frozen   bool
}

const beatFrozen = 1

func appendBeat(b []byte, x *beat) []byte {
	flags := byte(0)
	if x.frozen {
		flags |= beatFrozen
	}
	b = append(b, flags)
	for _, n := range [...]uint64{x.newest, x.finished, x.pending, uint64(x.longest.Milliseconds()), x.observed} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func readBeat(r reader) (x beat, ok bool) {
	x.frozen = r.Octet()&beatFrozen != 0
	x.newest, x.finished, x.pending = r.Number(), r.Number(), r.Number()
	x.longest = milliseconds(r.Number())
	x.observed = r.Number()
	return x, r.isDone()
}

// longestTime bounds what others say of times.
const longestTime = 365 * 24 * time.Hour

func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(longestTime/time.Millisecond))) * time.Millisecond
}

// key is a subject in the form in which maps are the fastest.
type key struct {
	high, low uint64 // the address, an IPv4 one as an IPv4-mapped IPv6 one
	settings  uint64
	port      uint16
}

const mapped4 = 0xffff << 32

func keyOf(s health.Subject) key {
	octets := s.Addr.Addr().As16()
	return key{binary.BigEndian.Uint64(octets[:8]), binary.BigEndian.Uint64(octets[8:]), s.Settings, s.Addr.Port()}
}

func (k *key) is4() bool { return k.high == 0 && k.low>>32 == mapped4>>32 }

func (k *key) addr() netip.Addr {
	var octets [16]byte
	binary.BigEndian.PutUint64(octets[:8], k.high)
	binary.BigEndian.PutUint64(octets[8:], k.low)
	return netip.AddrFrom16(octets).Unmap()
}

func (k *key) subject() health.Subject {
	return health.Subject{Addr: netip.AddrPortFrom(k.addr(), k.port), Settings: k.settings}
}

// host is the address of a subject.
type host struct{ high, low uint64 }

func (k *key) host() host { return host{k.high, k.low} }

// opinion is a health.Opinion in the form in which it is kept and sent.
type opinion struct {
	word    health.Word
	inForce health.State
	result  checker.Result
	rtt     uint32 // in µs, 0 where there is none
}

func (o opinion) isNothing() bool { return o.word == health.NoWord && o.inForce == health.Unknown }

func shortTrip(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), math.MaxUint32))
}

// trip returns the round trip.
func (o opinion) trip() time.Duration { return time.Duration(o.rtt) * time.Microsecond }

// sort is what an entry of a ledger is about.
type sort byte

const (
	sortWord4    sort = iota // an opinion about a subject with an IPv4 address
	sortWord6                // with an IPv6 address
	sortOffer                // settings with which the replica checks targets for others
	sortNoOffer              // those are none any more
	sortNote                 // a key and a value
	unknownSorts             // from here on the body is octets behind their number
)

// An entry of a ledger is, in a message,
//
//	its distance from the number before, or from where the message begins
//	tag      1 octet: the sort, flags, and the word of an opinion
//	body
//
// The body of a word is: the address, 4 or 16 octets; the port, 2 octets, unless it is that of the word before; the settings, 8
// octets, unless they are those of the word before; 1 octet for the rest of the opinion; the milliseconds since it was said and
// the microseconds of the round trip, unless they are 0.
const (
	tagSort     = 7
	tagPort     = 1 << 3 // as before
	tagSettings = 1 << 4 // as before
	tagWord     = 5      // bits to the left

	opinionResult = 2 // bits to the left
	opinionAged   = 1 << 5
	opinionTimed  = 1 << 6
)

// entry is one entry of a ledger as a message has it.
type entry struct {
	number  uint64
	sort    sort
	key     key
	opinion opinion
	age     time.Duration // in whole milliseconds
	offer   uint64
	note    note
}

type note struct{ key, value []byte }

// changes is a message with entries. It has all that there are with numbers from first to last.
type changes struct {
	first, last uint64
	// whole is, if not 0, the newest number when the message was made, and tells that entries which were removed are not all
	// among these: what the receiver has with such a number, and is not here, is not there any more.
	whole uint64

	number uint64 // of the last entry read or written
	port   uint16
	fprint uint64
}

const changesWhole = 1

// appendChanges begins a message with entries from first on. The last number comes with closeChanges.
func appendChanges(b []byte, c *changes) []byte {
	flags := byte(0)
	if c.whole != 0 {
		flags |= changesWhole
	}
	b = append(b, flags)
	if c.whole != 0 {
		b = binary.AppendUvarint(b, c.whole)
	}
	b = binary.AppendUvarint(b, c.first)
	// The last number is known when all is written. It has a fixed length so that it can be filled in then.
	c.number = c.first
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// closeChanges fills in the last number. begin is where the entries begin.
func closeChanges(b []byte, begin int, c *changes) {
	binary.BigEndian.PutUint64(b[begin-8:], c.last)
}

func (c *changes) append(b []byte, e *entry) []byte {
	b = binary.AppendUvarint(b, e.number-c.number)
	c.number = e.number
	switch e.sort {
	case sortOffer, sortNoOffer:
		return binary.BigEndian.AppendUint64(append(b, byte(e.sort)), e.offer)
	case sortNote:
		return appendText(appendText(append(b, byte(e.sort)), e.note.key), e.note.value)
	}
	return c.appendWord(b, e)
}

func (c *changes) appendWord(b []byte, e *entry) []byte {
	k := &e.key
	tag := byte(sortWord6)
	if k.is4() {
		tag = byte(sortWord4)
	}
	tag |= byte(e.opinion.word) << tagWord
	if k.port == c.port {
		tag |= tagPort
	}
	if k.settings == c.fprint {
		tag |= tagSettings
	}
	b = append(b, tag)
	if k.is4() {
		b = binary.BigEndian.AppendUint32(b, uint32(k.low))
	} else {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, k.high), k.low)
	}
	if tag&tagPort == 0 {
		b = binary.BigEndian.AppendUint16(b, k.port)
	}
	if tag&tagSettings == 0 {
		b = binary.BigEndian.AppendUint64(b, k.settings)
	}
	c.port, c.fprint = k.port, k.settings
	rest, age := byte(e.opinion.inForce)|byte(e.opinion.result)<<opinionResult, uint64(max(e.age, 0).Milliseconds())
	if age > 0 {
		rest |= opinionAged
	}
	if e.opinion.rtt > 0 {
		rest |= opinionTimed
	}
	b = append(b, rest)
	if age > 0 {
		b = binary.AppendUvarint(b, age)
	}
	if e.opinion.rtt > 0 {
		b = binary.AppendUvarint(b, uint64(e.opinion.rtt))
	}
	return b
}

// readChanges reads what comes before the entries.
func readChanges(r *reader) (c changes, ok bool) {
	if r.Octet()&changesWhole != 0 {
		c.whole = r.Number()
	}
	c.first = r.Number()
	c.last = r.Uint64()
	c.number = c.first
	return c, !r.Failed && c.first > 0 && c.last >= c.first && (c.whole == 0 || c.last <= c.whole)
}

// next reads an entry. It is false behind the last, and if there is something wrong: then r has failed. What is of a sort
// that is not known here is passed over.
func (c *changes) next(r *reader, e *entry, begun *bool) bool {
	for len(r.Left) > 0 {
		number := r.sum(c.number)
		if number > c.last || *begun && number == c.number {
			r.Fail()
		}
		c.number, *begun = number, true
		tag := r.Octet()
		*e = entry{number: number, sort: sort(tag & tagSort)}
		switch {
		case e.sort >= unknownSorts:
			r.text(len(r.Left))
			continue
		case e.sort == sortOffer, e.sort == sortNoOffer:
			e.offer = r.Uint64()
		case e.sort == sortNote:
			e.note.key, e.note.value = r.text(maxNoteKey), r.text(maxNoteValue)
		default:
			c.readWord(r, e, tag)
		}
		return !r.Failed
	}
	return false
}

func (c *changes) readWord(r *reader, e *entry, tag byte) {
	k := &e.key
	if e.sort == sortWord4 {
		if b := r.Octets(4); b != nil {
			k.low = mapped4 | uint64(binary.BigEndian.Uint32(b))
		}
	} else {
		k.high, k.low = r.Uint64(), r.Uint64()
	}
	if k.port = c.port; tag&tagPort == 0 {
		k.port = r.Uint16()
	}
	if k.settings = c.fprint; tag&tagSettings == 0 {
		k.settings = r.Uint64()
	}
	c.port, c.fprint = k.port, k.settings
	rest := r.Octet()
	e.opinion = opinion{word: health.Word(tag >> tagWord), inForce: health.State(rest & 3), result: checker.Result(rest >> opinionResult & 7)}
	if rest&opinionAged != 0 {
		e.age = milliseconds(r.Number())
	}
	if rest&opinionTimed != 0 {
		e.opinion.rtt = uint32(min(r.Number(), math.MaxUint32))
	}
	if rest>>7 != 0 || e.opinion.word > health.SaysDown || e.opinion.inForce > health.Down || e.opinion.result > checker.Unreachable {
		r.Fail()
	}
}

// ask is for entries with numbers of certain spans. In a message each span is told by its distance from the one before, and by
// how long it is.
type ask struct {
	spans []span
	// base is the number up to which the asker has heard of all removals.
	base uint64
	at   netip.AddrPort // of the asker
}

func appendAsk(b []byte, a *ask) []byte {
	b = appendAddr(binary.AppendUvarint(b, a.base), a.at)
	before := uint64(0)
	for _, x := range a.spans {
		b = binary.AppendUvarint(binary.AppendUvarint(b, x.first-before), x.last-x.first)
		before = x.last
	}
	return b
}

func readAsk(r reader) (a ask, ok bool) {
	a.base, a.at = r.Number(), readAddr(&r)
	before := uint64(0)
	for len(r.Left) > 0 && !r.Failed {
		first := r.sum(before)
		last := r.sum(first)
		if first == before || len(a.spans) == maxGaps {
			r.Fail()
		}
		a.spans = append(a.spans, span{first, last})
		before = last
	}
	return a, r.isDone() && len(a.spans) > 0
}

// appendAddr appends how many octets an address has, these, and the port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	octets := a.Addr().AsSlice()
	b = append(append(b, byte(len(octets))), octets...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

func readAddr(r *reader) netip.AddrPort {
	n := r.Octet()
	addr, ok := netip.AddrFromSlice(r.Octets(int(n)))
	if !ok {
		r.Fail()
	}
	return netip.AddrPortFrom(addr.Unmap(), r.Uint16())
}

// The body of wants is, any number of times: settings, 8 octets; how many targets; these as addresses.

// wantsWriter puts wants into messages.
type wantsWriter struct {
	message []byte
	count   int // where the number of targets of the group stands that is being written
	group   uint64
	targets byte
}

// wantsGroup is how many targets a group has at most, so that their number is one octet.
const wantsGroup = 127

func (w *wantsWriter) begin(name string) {
	w.message, w.targets = appendEnvelope(w.message[:0], kindWants, name), 0
}

// add reports false if there is no room.
func (w *wantsWriter) add(k *key) bool {
	if len(w.message) > packetSize-(8+1+1+16+2) {
		return false
	}
	if w.targets == 0 || w.targets == wantsGroup || w.group != k.settings {
		w.message = binary.BigEndian.AppendUint64(w.message, k.settings)
		w.count, w.group, w.targets = len(w.message), k.settings, 0
		w.message = append(w.message, 0)
	}
	w.message = appendAddr(w.message, netip.AddrPortFrom(k.addr(), k.port))
	w.targets++
	w.message[w.count] = w.targets
	return true
}

// wantsReader reads them.
type wantsReader struct {
	group uint64
	left  uint64
}

// next is false behind the last, and if there is something wrong: then r has failed.
func (w *wantsReader) next(r *reader) (k key, ok bool) {
	for w.left == 0 {
		if len(r.Left) == 0 {
			return key{}, false
		}
		w.group, w.left = r.Uint64(), r.Number()
		if r.Failed {
			return key{}, false
		}
	}
	w.left--
	addr := readAddr(r)
	if r.Failed {
		return key{}, false
	}
	return keyOf(health.Subject{Addr: addr, Settings: w.group}), true
}

// meta is what a replica tells of itself before anything else, in at most 512 octets.
type meta struct {
	protocol  byte
	quorum    bool
	observers byte
	site      string
	host      string
	shaker    string
}

const (
	metaQuorum = 1
	maxSite    = 63
	maxHost    = 253
	maxShaker  = 64
)

func appendMeta(b []byte, m *meta) []byte {
	flags := byte(0)
	if m.quorum {
		flags |= metaQuorum
	}
	b = append(b, m.protocol, flags, m.observers)
	b = appendText(b, cut(m.site, maxSite))
	b = appendText(b, cut(m.host, maxHost))
	return appendText(b, cut(m.shaker, maxShaker))
}

// readMeta reads that of any version: later ones may only add to it.
func readMeta(message []byte) (m meta, ok bool) {
	r := reader{octets.Reader{Left: message}}
	m.protocol = r.Octet()
	m.quorum = r.Octet()&metaQuorum != 0
	m.observers = r.Octet()
	m.site, m.host, m.shaker = string(r.text(maxSite)), string(r.text(maxHost)), string(r.text(maxShaker))
	return m, !r.Failed
}

func cut(s string, most int) string { return s[:min(len(s), most)] }
