package shaker

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy/caddyfile"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// describeStanza writes the policies of a server block, with what is in force for the process, as a Corefile.
func describeStanza(policies zonePolicies, process *processSettings) string {
	lines := newShaker(policies, nil).describe(process)
	return "example.org {\n" + strings.Join(lines, "\n") + "\n}\n"
}

// What is printed of each property where a stanza has it. Where none has, it is in the page about checks.
func TestDescribeProperties(t *testing.T) {
	overrides, key := lab.File(t, "of rules", "192.0.2.7 down\n"), lab.File(t, "key", peersKey)
	lab.CaptureLog(t) // of doubts
	for _, tt := range []struct{ stanza, want string }{
		{"port any 80 443", "port any 80 443"},
		{"interval 400ms", "interval 400ms 400ms"},
		{"interval 90m 20ms", "interval 1h30m 20ms"},
		{"timeout 60s", "timeout 1m"},
		{"damping off", "damping off"},
		{"damping 1h", "damping 1h 10h"},
		{"hold 0", "hold 0s"},
		{"prefer 2001:db8::/32 10.1.2.3/8\nprefer 192.0.2.1", "prefer 10.0.0.0/8 2001:db8::/32\nprefer 192.0.2.1"},
		{"fallback B.example.org nodata", "fallback b.example.org. nodata"},
		{"fallback a.example.org 192.0.2.1 ::1", "fallback a.example.org. 192.0.2.1 ::1"},
		{"fallback a.example.org", "fallback a.example.org. all"},
		{"panic 50%", "panic 50"},
		{"ttl 60", "ttl 1m"},
		{"ttl 0", "ttl 0s"},
		{"sort rtt", "sort rtt"},
		{"sort client", "sort client 24 56"},
		{"pick 3", "pick 3"},
		{"weight 9 2001:db8::1 10.0.0.0/8\nweight 2 192.0.2.1", "weight 2 192.0.2.1\nweight 9 10.0.0.0/8 2001:db8::1"},
		{"idle 720h", "idle 720h"},
		{"allow 127.0.0.1\nallow ::1 10.0.0.0/8", "allow 10.0.0.0/8 127.0.0.1 ::1"},
		{"deny 0.0.0.0/0", "deny 0.0.0.0/0 0.0.0.0/8 100.100.100.200 127.0.0.0/8 168.63.129.16 169.254.0.0/16 192.0.0.0/24"},
		{"allow 240.0.0.0/4", "deny 0.0.0.0/8 100.100.100.200 127.0.0.0/8 168.63.129.16 169.254.0.0/16 192.0.0.0/24 224.0.0.0/4"},
		{"probe 192.0.2.0/24 at 10.0.0.0/24 80\nprobe 192.0.2.7 at 10.0.0.1", "probe 192.0.2.0/24 at 10.0.0.0/24 80\nprobe 192.0.2.7 at 10.0.0.1"},
		{`overrides "` + overrides + `"`, `overrides "` + overrides + `" # 1 rule`},
		{`overrides "` + overrides + `" local`, `overrides "` + overrides + `" local # 1 rule`},
		{"watch B.example.org\nwatch a.example.org", "watch b.example.org. a.example.org."},
		{"source ::2 192.0.2.1", "source 192.0.2.1 ::2"},
		{"method dial", "method dial # of the process, Corefile:3"},
		{"freeze off", "freeze off # of the process, Corefile:3"},
		{"freeze 95", "freeze 95 5m # of the process, Corefile:3"},
		{"limit rate 7", "limit targets 65536 # of the process, by default\nlimit rate 7 # of the process, Corefile:3"},
		{"metrics targets", "metrics targets # of the process, Corefile:3"},
		{"status [::1]:8053", "status [::1]:8053 # of the process, Corefile:3"},
		{"pick 3", "# peers: none, by default"},
		{"peers [::1]:7946\npeers key " + key, "peers [::1]:7946 # of the process, Corefile:3\npeers key " + key + " # of the process, Corefile:4\n" +
			"# peers site: none, by default\npeers observers 3 # of the process, by default\n# peers allow: anybody with the key, by default"},
		{"peers 127.0.0.1:1 a.example.org:2 [::1]:3\npeers key " + key + "\npeers site a quorum\npeers observers 5\npeers allow 10.1.2.3/8 ::1",
			"peers 127.0.0.1:1 a.example.org:2 [::1]:3 # of the process, Corefile:3\npeers key " + key + " # of the process, Corefile:4\n" +
				"peers site a quorum # of the process, Corefile:5\npeers observers 5 # of the process, Corefile:6\n" +
				"peers allow 10.0.0.0/8 ::1 # of the process, Corefile:7"},
	} {
		blocks, process := setupRead(t, "Corefile", "example.org {\nshaker {\n"+tt.stanza+"\n}\n}\n")
		got := describeStanza(blocks[0], &process)
		want := indent + strings.ReplaceAll(tt.want, "\n", "\n"+indent) + "\n"
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("%s is printed as\n%swithout\n%s", tt.stanza, got, want)
		}
	}
}

// describeRandom writes one property with random values, anew for each call.
var describeRandom = map[string]func(r *rand.Rand) string{
	"port": func(r *rand.Rand) string {
		return describeAny(r, "", "any ") + describeSome(r, "80", "443", "8443", "1", "65535")
	},
	"interval": func(r *rand.Rand) string {
		d := describeSpan(r, 20*time.Millisecond, 24*time.Hour)
		return fmt.Sprint(d, describeAny(r, "", " 20ms", " "+d.String()))
	},
	"timeout": func(r *rand.Rand) string { return describeSpan(r, time.Millisecond, time.Minute).String() },
	"tries":   func(r *rand.Rand) string { return fmt.Sprint(1 + r.IntN(16)) },
	"rise":    func(r *rand.Rand) string { return fmt.Sprint(1 + r.IntN(1000)) },
	"fall":    func(r *rand.Rand) string { return fmt.Sprint(1 + r.IntN(1000)) },
	"damping": func(r *rand.Rand) string {
		return describeAny(r, "off", "24h", describeSpan(r, time.Second, time.Hour).String()+describeAny(r, "", " 1h", " 24h"))
	},
	"hold": func(r *rand.Rand) string { return describeSpan(r, 0, 4*time.Second).String() },
	"prefer": func(r *rand.Rand) string {
		cidrs := strings.Fields(describeCIDRs(r))
		for i := 1; i < len(cidrs); i++ {
			cidrs[i] = describeAny(r, "", "\nprefer ") + cidrs[i]
		}
		return strings.Join(cidrs, " ")
	},
	"fallback": func(r *rand.Rand) string {
		return describeAny(r, "a.example.net ", "B.example.org. c.example.net ", "") +
			describeAny(r, "all", "nodata", "servfail", "192.0.2.1", "::1 ::ffff:10.0.0.1")
	},
	"panic": func(r *rand.Rand) string { return fmt.Sprintf("%d%%", r.IntN(101)) },
	"ttl":   func(r *rand.Rand) string { return fmt.Sprint(r.IntN(7 * 24 * 3600)) },
	"sort":  func(r *rand.Rand) string { return describeAny(r, "rtt", "client", "client 16 48", "client 32 128") },
	"pick":  func(r *rand.Rand) string { return fmt.Sprint(1 + r.IntN(1000)) },
	"weight": func(r *rand.Rand) string {
		var lines []string
		for _, cidr := range strings.Fields(describeCIDRs(r)) {
			lines = append(lines, fmt.Sprint(1+r.IntN(3), " ", cidr))
		}
		return strings.Join(lines, "\nweight ")
	},
	"idle":  func(r *rand.Rand) string { return describeSpan(r, time.Second, 720*time.Hour).String() },
	"allow": func(r *rand.Rand) string { return describeSome(r, describePrefixes[:len(describePrefixes)/2]...) },
	"deny":  func(r *rand.Rand) string { return describeSome(r, describePrefixes[len(describePrefixes)/2:]...) },
	"probe": func(r *rand.Rand) string {
		return "192.0.2.0/24 at 10.0.0.0/24" + describeAny(r, "", " 80") +
			describeAny(r, "", "\nprobe 192.0.2.7 at 10.0.0.1 1") + describeAny(r, "", "\nprobe 2001:db8::/32 at fd00::/32")
	},
	"overrides": nil, // needs a file
	"watch": func(r *rand.Rand) string {
		return describeSome(r, "example.org", "WWW.example.org", "_ldap._tcp.example.org.")
	},
	"source": func(r *rand.Rand) string { return describeSome(r, "192.0.2.1", "2001:db8::1") },
	"method": func(r *rand.Rand) string { return describeAny(r, "socket", "raw", "dial") },
	"freeze": func(r *rand.Rand) string { return describeAny(r, "off", "51", "100% 10s", "90 24h") },
	"limit": func(r *rand.Rand) string {
		return describeAny(r, "targets 5", "rate 10000000", "rate 7\nlimit targets 1")
	},
	"metrics": func(*rand.Rand) string { return "targets" },
	"status":  func(r *rand.Rand) string { return describeAny(r, "127.0.0.1:0", "[::1]:8053", "localhost:80") },
	"peers":   nil, // needs a file
}

var describePrefixes = []string{"127.0.0.0/8", "127.0.0.1", "10.0.0.0/8", "::1", "::/0", "0.0.0.0/0", "fe80::/10", "192.0.2.7/31", "2001:db8::/33",
	"10.1.2.0/24", "192.0.2.1", "198.51.100.0/25", "2001:db8::1", "fd00::/8", "224.0.0.0/4", "::ffff:10.9.0.0/112", "203.0.113.9/32", "1.0.0.0/9"}

func describeAny(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// describeSome returns at least one of them, in random order.
func describeSome(r *rand.Rand, of ...string) string {
	of = slices.Clone(of)
	r.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	return strings.Join(of[:1+r.IntN(len(of))], " ")
}

func describeCIDRs(r *rand.Rand) string { return describeSome(r, describePrefixes...) }

// describeSpan returns a duration between the two, often a round one.
func describeSpan(r *rand.Rand, least, most time.Duration) time.Duration {
	d := least + time.Duration(r.Int64N(int64(most-least)+1))
	return max(d.Truncate([]time.Duration{1, time.Millisecond, time.Second, time.Minute, time.Hour}[r.IntN(5)]), least)
}

// describeComparable is what has to be the same of two policies. Where they stand in a Corefile is not.
func describeComparable(z zonePolicies, process processSettings) string {
	text := ""
	for _, p := range z.stanzas() {
		text += fmt.Sprintf("%q %s\n%q %v %v %v %v %v %d of %v %v, watch %q, overrides %v, %v, client %d %d\n", p.zones, p.probes(),
			p.Fallback, p.TTL, p.Panic, p.Sort, p.Pick, p.hold, p.Tiers.Len(), p.source4, p.idle,
			p.watched, p.overrides != nil, p.source6, p.ClientBits4, p.ClientBits6)
	}
	return text + readmeProcess(process) + fmt.Sprint(process.freeze.or(defaultFreeze), process.peers.listen.value, process.peers.key.value, process.peers.site.value,
		process.peers.observers.or(defaultObservers), process.peers.allow.value)
}

// Whatever stanzas say: what is printed of them, read again, makes the same policies, and is printed in the same way.
func TestDescribeIsReadAgain(t *testing.T) {
	path := lab.File(t, "of rules", "192.0.2.7 down\n")
	describeRandom := describeRandom
	describeRandom["overrides"] = func(*rand.Rand) string { return quote(path) }
	key := lab.File(t, "of keys", peersKey)
	describeRandom["peers"] = func(r *rand.Rand) string {
		return describeAny(r, "127.0.0.1:7946", "[2001:db8::1]:1 a.example.org:2 [::ffff:10.0.0.1]:3") + "\npeers key " + quote(key) +
			describeAny(r, "", "\npeers site a", "\npeers site a quorum") + describeAny(r, "", "\npeers observers 15") +
			describeAny(r, "", "\npeers allow 10.0.0.1 2001:db8::1/32")
	}
	for _, known := range properties {
		if describeRandom[known.name] == nil {
			t.Fatalf("%s is not tried", known.name)
		}
	}
	lab.CaptureLog(t) // of doubts
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		var corefile strings.Builder
		corefile.WriteString("example.org {\n")
		for _, zones := range []string{"", " a.example.org B.example.org", " 10.2.0.0/15"}[:1+r.IntN(3)] {
			fmt.Fprintf(&corefile, "shaker%s {\n", zones)
			for _, known := range properties {
				isForAll := zones == "" || known.name != "watch" && slices.Index(describeProcess, known.name) < 0
				if isForAll && r.IntN(3) > 0 {
					fmt.Fprintf(&corefile, "%s %s\n", known.name, describeRandom[known.name](r))
				}
			}
			corefile.WriteString("}\n")
		}
		corefile.WriteString("}\n")
		blocks, process := setupRead(t, "Corefile", corefile.String())
		first := describeStanza(blocks[0], &process)
		again, processAgain := setupRead(t, "Corefile", first)
		if got, want := describeComparable(again[0], processAgain), describeComparable(blocks[0], process); got != want {
			t.Fatalf("seed %d: %s\nis printed as\n%s\nwhich makes\n%s\nwant\n%s", seed, &corefile, first, got, want)
		}
		for zone, p := range blocks[0] {
			q := again[0][zone]
			for _, same := range []struct{ got, want any }{{&q.Policy, &p.Policy}, {q.settings, p.settings}, {&q.permits, &p.permits}, {&q.detours, &p.detours}} {
				if !reflect.DeepEqual(same.got, same.want) {
					t.Fatalf("seed %d: %s\nis printed as\n%s\n%+v, want %+v", seed, &corefile, first, same.got, same.want)
				}
			}
		}
		second := describeStanza(again[0], &processAgain)
		if got, want := describeBare(second), describeBare(first); got != want {
			t.Fatalf("seed %d: printed again it is\n%s\nwant\n%s", seed, got, want)
		}
	}
}

var describeProcess = []string{"method", "freeze", "limit", "metrics", "status", "peers"}

// describeBare returns a Corefile without comments.
func describeBare(corefile string) string {
	var lines []string
	for line := range strings.Lines(corefile) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Words that have to be quoted, and lines of comments that are none.
func TestDescribeQuotes(t *testing.T) {
	for _, word := range []string{"a", "a b", "", "#a", "a#b", `"a`, `a"b`, `a "b"`, `C:\a b\c`, `C:\a`, "a\tb", "a\nb", "ü", "\u00a0"} {
		d := caddyfile.NewDispenser("Corefile", strings.NewReader("x "+quote(word)+" z\n"))
		var got []string
		for d.Next() {
			got = append(got, d.Val())
		}
		if !slices.Equal(got, []string{"x", word, "z"}) {
			t.Errorf("%q is read as %q", word, got)
		}
	}
	if got, want := comment("a\nb\r {"), "# a b  {"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
