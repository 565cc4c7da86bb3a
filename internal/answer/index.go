package answer

import (
	"strings"

	"github.com/miekg/dns"
)

// rrsetIndex numbers RRsets in the order in which they are added.
type rrsetIndex struct {
	keys   []rrsetKey
	number map[rrsetKey]int // by the owner in lower case; empty while there are few keys
}

type rrsetKey struct {
	owner  string
	rrtype uint16
}

// manyKeys is the number of RRsets from which on they are looked up in a map. Answers with more than a
// few have been made by somebody who wants us to compare names.
const manyKeys = 16

// find looks from the end: RRsets come in one piece, nearly always.
func (x *rrsetIndex) find(owner string, rrtype uint16) (n int, found bool) {
	if len(x.keys) >= manyKeys {
		n, found = x.number[rrsetKey{strings.ToLower(owner), rrtype}]
		return n, found
	}
	for n := len(x.keys) - 1; n >= 0; n-- {
		if k := &x.keys[n]; k.rrtype == rrtype && sameName(k.owner, owner) {
			return n, true
		}
	}
	return 0, false
}

func sameName(a, b string) bool { return a == b || strings.EqualFold(a, b) }

// add numbers an RRset that find does not know.
func (x *rrsetIndex) add(owner string, rrtype uint16) (n int) {
	n = len(x.keys)
	x.keys = append(x.keys, rrsetKey{owner, rrtype})
	switch {
	case n+1 < manyKeys:
		return n
	case x.number == nil:
		x.number = make(map[rrsetKey]int)
	}
	unmapped := n
	if n+1 == manyKeys {
		unmapped = 0
	}
	for ; unmapped <= n; unmapped++ {
		k := &x.keys[unmapped]
		x.number[rrsetKey{strings.ToLower(k.owner), k.rrtype}] = unmapped
	}
	return n
}

// reset forgets everything but the space.
func (x *rrsetIndex) reset() {
	clear(x.keys)
	x.keys = x.keys[:0]
	clear(x.number)
}

// eachSigned calls signed with the number of every RRset that has a signature in the section.
func (x *rrsetIndex) eachSigned(section []dns.RR, signed func(n int)) {
	for _, rr := range section {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if n, found := x.find(sig.Hdr.Name, sig.TypeCovered); found {
				signed(n)
			}
		}
	}
}
