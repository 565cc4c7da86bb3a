package shaker

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func policiesFor(zones ...string) zonePolicies {
	z := make(zonePolicies)
	for _, zone := range zones {
		z[zone] = zonePolicy{zone, defaultPolicy()}
	}
	return z
}

func TestPolicyFind(t *testing.T) {
	last := strings.Repeat(`\000`, 61) + "."
	longest := strings.Repeat(strings.Repeat(`\000`, 63)+".", 3) + last
	tests := []struct {
		zones []string
		name  string
		want  string // the zone, empty where none contains the name
	}{
		{[]string{"example.org."}, "example.org.", "example.org."},
		{[]string{"example.org."}, "www.example.org.", "example.org."},
		{[]string{"example.org."}, "WwW.eXaMpLe.OrG.", "example.org."},
		{[]string{"example.org."}, "org.", ""},
		{[]string{"example.org."}, ".", ""},
		{[]string{"example.org."}, "badexample.org.", ""},
		{[]string{"example.org."}, "example.org.com.", ""},
		{[]string{"example.org.", "org.", "."}, "a.example.org.", "example.org."},
		{[]string{"example.org.", "org.", "."}, "example.net.", "."},
		{[]string{"example.org.", "org.", "."}, "examples.org.", "org."},
		{[]string{"example.org.", "a.example.org."}, "b.a.example.org.", "a.example.org."},
		{[]string{"example.org.", "a.b.example.org."}, "x.b.example.org.", "example.org."},
		{[]string{"."}, ".", "."},
		{[]string{"."}, "org.", "."},
		{nil, "example.org.", ""},
		// A dot behind a backslash belongs to the label, unless the backslash is escaped itself.
		{[]string{"b.example."}, `a\.b.example.`, ""},
		{[]string{"b.example."}, `a\\.b.example.`, "b.example."},
		{[]string{"b.example."}, `a\\\.b.example.`, ""},
		{[]string{`a\.b.example.`}, `x.A\.B.example.`, `a\.b.example.`},
		{[]string{`\000.example.`}, `x.\000.example.`, `\000.example.`},
		{[]string{`*.example.`}, `*.example.`, `*.example.`},
		{[]string{`*.example.`}, `a.example.`, ``},
		// Only ASCII letters have a case (RFC 4343); K is the Kelvin sign.
		{[]string{"k.example."}, "\u212A.example.", ""},
		{[]string{"."}, longest, "."},
		{[]string{last}, longest, last},
		{[]string{longest}, longest, longest},
	}
	for _, tt := range tests {
		z := policiesFor(tt.zones...)
		got := z.find(tt.name)
		if got.name != tt.want || (got.policy == nil) != (tt.want == "") || tt.want != "" && got.policy != z[tt.want].policy {
			t.Errorf("%q in %q: zone %q, want %q", tt.name, tt.zones, got.name, tt.want)
		}
	}
}

// find against CoreDNS's own idea of the longest matching zone, for random names and zones.
func TestPolicyFindIsLongestMatch(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	labels := []string{"a", "b", `\.`, `c\.a`, `\\`, "aa", `\255`}
	random := func(most int) string {
		var b strings.Builder
		for range r.IntN(most + 1) {
			b.WriteString(labels[r.IntN(len(labels))] + ".")
		}
		if b.Len() == 0 {
			return "."
		}
		return b.String()
	}
	matched := 0
	for range 20_000 {
		z := policiesFor(random(3), random(3), random(2))
		query := random(5)
		want := ""
		for zone := range z {
			if dns.IsSubDomain(zone, query) && (want == "" || dns.CountLabel(zone) > dns.CountLabel(want)) {
				want = zone
			}
		}
		upper := []byte(query)
		for i, c := range upper {
			if r.IntN(2) == 0 && 'a' <= c && c <= 'z' {
				upper[i] = c - 'a' + 'A'
			}
		}
		got := z.find(string(upper))
		if got.name != want {
			t.Fatalf("seed %d: %q in %v: zone %q, want %q", seed, upper, z, got.name, want)
		}
		if want != "" {
			matched++
		}
	}
	t.Logf("%d of 20000 names had a zone", matched)
}

func TestPolicyFindDoesNotAllocate(t *testing.T) {
	z := policiesFor("example.org.", "example.net.", "a.b.c.example.com.")
	for _, qname := range []string{"WWW.Example.ORG.", "not.in.any.zone.", "."} {
		if n := testing.AllocsPerRun(100, func() { z.find(qname) }); n != 0 {
			t.Errorf("%s: %v allocations", qname, n)
		}
	}
}

// What says the same of the targets has the same words, and what says something else has others.
func TestPolicyProbes(t *testing.T) {
	words := func(properties string) string {
		blocks, _ := setupRead(t, "Corefile", "example.org {\n"+name+" {\n"+properties+"\n}\n}\n")
		return blocks[0]["example.org."].probes()
	}
	const as = "port 80 443\ndeny 10.0.0.0/8 fd00::/8"
	for _, same := range []string{as, "deny fd00::/8\n# a comment\ndeny 10.0.0.0/8\nport 80 443\ninterval 2s\n", as + "\nwatch a.example.org\nhold 1s\nidle 1h"} {
		if words(same) != words(as) {
			t.Errorf("%q leads to other targets than %q:\n%s\n%s", same, as, words(same), words(as))
		}
	}
	for _, other := range []string{"interval 1s", "source 192.0.2.1", "source 2001:db8::1", "fall 2", "fallback nodata", "allow 10.1.0.0/16",
		"probe 192.0.2.0/24 at 10.0.0.0/24", "probe 192.0.2.0/24 at 10.0.0.0/24 80", "probe 192.0.2.0/24 at 10.0.1.0/24"} {
		if words(as+"\n"+other) == words(as) {
			t.Errorf("%s leads to the same targets", other)
		}
	}
	for _, other := range []string{"port 80", "port any 80 443"} {
		if words(strings.Replace(as, "port 80 443", other, 1)) == words(as) {
			t.Errorf("%s leads to the same targets", other)
		}
	}
}

// The only zone is found for the same names as one of several.
func TestZoneOf(t *testing.T) {
	names := []string{".", "org.", "example.org.", "a.example.org.", "a.b.EXAMPLE.org.", "A.example.org.", "example.ORG.", "badexample.org.",
		`a\.example.org.`, `a\\.example.org.`, `\.example.org.`, "example.net.", "example.org.example.net.", "xample.org.", ""}
	for _, zone := range []string{"example.org.", ".", "org.", "a.example.org."} {
		alone := &Shaker{policies: policiesFor(zone)}
		alone.findLoneZone()
		if alone.lone.name != zone {
			t.Fatalf("the only zone is %q, want %q", alone.lone.name, zone)
		}
		for _, qname := range names {
			if got, want := alone.zoneOf(qname), alone.policies.find(qname); got != want {
				t.Errorf("%q is in %q, want %q", qname, got.name, want.name)
			}
		}
	}
	several := &Shaker{policies: policiesFor("example.org.", "a.example.org.")}
	several.findLoneZone()
	if got := several.zoneOf("b.a.example.org."); got.name != "a.example.org." {
		t.Errorf("found %q among several", got.name)
	}
}
