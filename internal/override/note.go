package override

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/coredns-shaker/shaker/internal/octets"
)

// A note tells the other replicas what is known of an address, port or prefix. Its key is
//
//	1 octet    'o'
//	16 octets  of the SHA-256 of the path of the file, as Corefiles have it
//	4 or 16    the address, of the prefix the first
//	1          the length of the prefix
//	2          the port, most significant first; 0 for all
//
// and its value
//
//	1 octet    the version, 1
//	the claims, each
//	8 octets   the number of the line
//	1          flags, as below, and the decision
//	uvarint    when it was said, in microseconds since 1970
//	uvarint    when it was taken back, if it was
//	8 octets   for which file that was
//
// and, unless it is gone, what the line says
//
//	varint, uvarint  seconds since 1970 and nanoseconds of its end, if it has one
//	varint     how many microseconds before the moment its replica's clock said that it was
//	8 octets   the file
//	1, then    the length and text of the name of the replica
//	uvarint, then    the length and text of the reason
const (
	noteKind    = 'o'
	noteVersion = 1
	noteHead    = 1

	maxNote       = 700 // octets of a value
	maxFrom       = 100 // octets of the name of a replica
	maxSharedText = 400 // octets of a reason

	sayingMask = 3 // the decision
	flagSeen   = 1 << 2
	flagGone   = 1 << 3
	flagLine   = 1 << 4
	flagUntil  = 1 << 5
	allFlags   = sayingMask | flagSeen | flagGone | flagLine | flagUntil
)

// errNewer is that a note is of another version.
var errNewer = errors.New("the version is not known")

// pathSum stands for the path of a file.
type pathSum [16]byte

func encodeKey(path pathSum, about subject) string {
	key := append([]byte{noteKind}, path[:]...)
	key = append(key, about.prefix.Addr().AsSlice()...)
	key = append(key, byte(about.prefix.Bits()))
	return string(binary.BigEndian.AppendUint16(key, about.port))
}

func decodeKey(key string) (path pathSum, about subject, err error) {
	const head, tail = 1 + len(path), 3
	if len(key) != head+4+tail && len(key) != head+16+tail || key[0] != noteKind {
		return path, about, errors.New("the key is of another form")
	}
	copy(path[:], key[1:])
	addr, _ := netip.AddrFromSlice([]byte(key[head : len(key)-tail]))
	about.prefix = netip.PrefixFrom(addr, int(key[len(key)-tail]))
	about.port = binary.BigEndian.Uint16([]byte(key[len(key)-2:]))
	// What no file can say is none.
	if as, err := parseSubject(about.String()); err != nil || as != about {
		return path, about, fmt.Errorf("a rule for %v port %d is not possible", about.prefix, about.port)
	}
	return path, about, nil
}

func (all claims) encode() []byte {
	value := []byte{noteVersion}
	for i := range all {
		value = all[i].encode(value)
	}
	return value
}

// encode adds a claim to a value.
func (c *claim) encode(to []byte) []byte {
	to = binary.BigEndian.AppendUint64(to, c.id)
	flags := byte(0)
	set := func(flag byte, is bool) {
		if is {
			flags |= flag
		}
	}
	set(flagSeen, c.seen)
	set(flagGone, c.gone != 0)
	if set(flagLine, c.sharedLine != nil); c.sharedLine != nil {
		flags |= byte(c.Says)
		set(flagUntil, !c.Until.IsZero())
	}
	to = binary.AppendUvarint(append(to, flags), uint64(c.said))
	if c.gone != 0 {
		to = binary.BigEndian.AppendUint64(binary.AppendUvarint(to, uint64(c.gone)), c.by)
	}
	if c.sharedLine == nil {
		return to
	}
	if !c.Until.IsZero() {
		to = binary.AppendUvarint(binary.AppendVarint(to, c.Until.Unix()), uint64(c.Until.Nanosecond()))
	}
	to = binary.AppendVarint(to, int64(c.said-momentOf(c.Since)))
	to = binary.BigEndian.AppendUint64(to, c.origin)
	to = append(append(to, byte(len(c.From))), c.From...)
	return append(binary.AppendUvarint(to, uint64(len(c.Reason))), c.Reason...)
}

// decodeNote reads a value. It is for no more than it can hold, and what it says is fit to be shown.
func decodeNote(value []byte) (claims, error) {
	switch {
	case len(value) == 0:
		return nil, nil
	case value[0] != noteVersion:
		return nil, errNewer
	case len(value) > maxNote:
		return nil, errors.New("it is too long")
	}
	var all claims
	for r := (&noteReader{octets.Reader{Left: value[noteHead:]}}); len(r.Left) > 0; {
		c := r.claim()
		switch {
		case r.Failed:
			return nil, errors.New("it is cut off, or has numbers that are not possible")
		case len(all) == maxClaims, all.find(c.id) != nil:
			return nil, errors.New("it has too many lines")
		}
		all = append(all, c)
	}
	return all, nil
}

// noteReader reads from a value.
type noteReader struct{ octets.Reader }

// number reads one from 0 to a most.
func (r *noteReader) number(most uint64) uint64 {
	v := r.Number()
	if v > most {
		r.Fail()
		return 0
	}
	return v
}

// signed reads a number whose amount is no more than a most.
func (r *noteReader) signed(most int64) int64 {
	v := r.Signed()
	if v > most || v < -most {
		r.Fail()
		return 0
	}
	return v
}

// text reads one of so many octets, which no one has to be afraid of.
func (r *noteReader) text(length, most uint64) string {
	if length > most {
		r.Fail()
		return ""
	}
	text := string(r.Octets(int(length)))
	r.Expect(text == cutOff(harmless(text), int(most)))
	return text
}

// maxMoment is the year 9999, as far as files can tell of.
var maxMoment = momentOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))

func (r *noteReader) claim() (c claim) {
	c.id = r.Uint64()
	flags := r.Octet()
	says := Decision(flags & sayingMask)
	r.Expect(flags&^allFlags == 0 && says <= Down)
	c.seen = flags&flagSeen != 0
	c.said = moment(r.number(uint64(maxMoment)))
	if flags&flagGone != 0 {
		c.gone = moment(r.number(uint64(maxMoment)))
		c.by = r.Uint64()
		r.Expect(c.gone != 0)
	}
	if flags&flagLine == 0 {
		r.Expect(c.isGone() && flags&(flagUntil|sayingMask) == 0)
		return c
	}
	c.sharedLine = &sharedLine{Rule: Rule{Says: says}}
	if flags&flagUntil != 0 {
		c.Until = time.Unix(r.signed(math.MaxInt64/2), int64(r.number(1e9-1))).UTC()
		r.Expect(c.Until.Year() >= 0 && c.Until.Year() <= 9999 && !c.Until.IsZero())
	}
	since := c.said - moment(r.signed(int64(maxMoment)))
	r.Expect(since >= 0 && since <= maxMoment)
	c.Since = since.time()
	c.origin = r.Uint64()
	c.From = r.text(uint64(r.Octet()), maxFrom)
	c.Reason = r.text(r.number(maxSharedText), maxSharedText)
	r.Expect(!c.isGone())
	return c
}

// cutOff returns as much of a text as has so many octets, without half a character.
func cutOff(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
