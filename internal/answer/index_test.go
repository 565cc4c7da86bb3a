package answer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestLower(t *testing.T) {
	for octet := range 256 {
		for at := range 8 {
			in := [8]byte{'A', 'Z', '@', '[', 0xFF, 0, 'z', 0x80}
			in[at] = byte(octet)
			want := in
			for i, c := range want {
				if 'A' <= c && c <= 'Z' {
					want[i] = c - 'A' + 'a'
				}
			}
			var got [8]byte
			binary.LittleEndian.PutUint64(got[:], lower(binary.LittleEndian.Uint64(in[:])))
			if got != want {
				t.Errorf("%q became %q, want %q", in, got, want)
			}
		}
	}
}

// Names that differ in case have one hash, and are the same; others are not.
func TestSameName(t *testing.T) {
	var names []string
	for size := range 20 {
		for _, octets := range []string{"aaaaaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAAAAAA", "aAaAaAaAaAaAaAaAaAaA", "@@@@@@@@@@@@@@@@@@@@", "````````````````````"} {
			names = append(names, octets[:size]+".", octets[:size]+"K.", octets[:size]+"\u212A.")
		}
	}
	for _, a := range names {
		for _, b := range names {
			var one, two rrsetIndex
			want := toLower(a) == toLower(b)
			if got := sameName(a, b); got != want {
				t.Errorf("%q and %q: %v", a, b, got)
			}
			if got := one.hashOf(a) == two.hashOf(b); got != want {
				t.Errorf("the hashes of %q and %q: %v", a, b, got)
			}
		}
	}
}

// toLower is strings.ToLower for ASCII alone.
func toLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// Every RRset is found again, by its owner in any case and its type, however many there are, and no other is.
func TestIndex(t *testing.T) {
	var x rrsetIndex
	for round := range 2 { // the second in the space of the first
		for n := range 40 * manyKeys {
			owner, rrtype := fmt.Sprintf("N%d.example.org.", n/2), addressTypes[n%2]
			if at, found := x.find(owner, rrtype); found {
				t.Fatalf("round %d: %s is %d already", round, owner, at)
			}
			if at := x.add(owner, rrtype); at != n {
				t.Fatalf("round %d: %s is %d, want %d", round, owner, at, n)
			}
			for _, have := range []int{0, n / 2, n} {
				owner := fmt.Sprintf("n%d.EXAMPLE.org.", have/2)
				if at, found := x.find(owner, addressTypes[have%2]); !found || at != have {
					t.Fatalf("round %d, %d RRsets: %s is %d, %v", round, n+1, owner, at, found)
				}
				if _, found := x.find(owner, dns.TypeSRV); found {
					t.Fatalf("%s has SRV records", owner)
				}
			}
		}
		x.reset()
	}
}

// A zone is found to be around a name as the DNS library has it.
func TestIsWithin(t *testing.T) {
	names := []string{".", "org.", "ORG.", "example.org.", "Example.ORG.", "a.example.org.", "aexample.org.", `a\.example.org.`,
		`a\\.example.org.`, `a\\\.example.org.`, `\.example.org.`, `\\.org.`, `\.org.`, "example.net.", "b.a.example.org."}
	for _, owner := range names {
		for _, zone := range names {
			if got, want := isWithin(owner, zone), dns.IsSubDomain(zone, owner); got != want {
				t.Errorf("%s within %s: %v, want %v", owner, zone, got, want)
			}
		}
	}
}
