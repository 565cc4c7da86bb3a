package shaker

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/answer"
	"github.com/coredns-shaker/shaker/internal/lab"
	"github.com/coredns-shaker/shaker/internal/override"
)

// setupRead takes a Corefile the way caddy does, up to and with parse: imports, snippets and variables are
// replaced, the keys of server blocks expanded. It returns the policies of each server block.
func setupRead(t *testing.T, path, corefile string) (blocks []zonePolicies, process processSettings) {
	t.Helper()
	sblocks, err := caddyfile.Parse(path, strings.NewReader(corefile), []string{name, "whoami"})
	if err != nil {
		t.Fatal(err)
	}
	c := caddy.NewTestController("dns", "")
	sblocks, err = c.Context().InspectServerBlocks(path, sblocks)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range sblocks {
		block := *c
		block.Dispenser = caddyfile.NewDispenserTokens(path, b.Tokens[name])
		block.ServerBlockIndex, block.ServerBlockKeys = i, b.Keys
		policies, err := parse(&block, &process)
		if err != nil {
			t.Fatalf("server block %d: %v", i, err)
		}
		blocks = append(blocks, policies)
	}
	return blocks, process
}

// setupValidate takes a Corefile through caddy's own loader and returns its error, which has to be that of Check as well.
func setupValidate(path, corefile string) error {
	input := caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: path, ServerTypeName: "dns"}
	err := caddy.ValidateAndExecuteDirectives(input, nil, true)
	if err == nil {
		return nil
	}
	var printed bytes.Buffer
	if checked := Check(&printed, input); fmt.Sprint(checked) != err.Error() || printed.Len() > 0 {
		return fmt.Errorf("Check returns %w, want %w, and prints %q", checked, err, &printed)
	}
	return err
}

func setupPrefixes(words string) (prefixes []netip.Prefix) {
	for _, word := range strings.Fields(words) {
		prefixes = append(prefixes, netip.MustParsePrefix(word))
	}
	return prefixes
}

func setupAddrs(s ...string) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range s {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

// Each property and its bounds: what it changes in a policy that has only defaults otherwise.
func TestSetupProperties(t *testing.T) {
	rule := func(p *policy, prefix string, allow bool) {
		p.permits.add(netip.MustParsePrefix(prefix), allow)
	}
	detour := func(p *policy, answered, at string, port uint16) {
		p.detours.add(netip.MustParsePrefix(answered), detour{netip.MustParsePrefix(at), port})
	}
	tests := []struct {
		properties string
		want       func(*policy)
	}{
		{"", func(*policy) {}},
		{"port 1", func(p *policy) { p.ports = []uint16{1} }},
		{"port 65535 443 80", func(p *policy) { p.ports = []uint16{65535, 443, 80} }},
		{"port any 443", func(p *policy) { p.ports, p.anyPort = []uint16{443}, true }},
		{"port any 80 443", func(p *policy) { p.ports, p.anyPort = []uint16{80, 443}, true }},
		{"interval 20ms", func(p *policy) {
			p.settings.Interval, p.settings.Fast = 20*time.Millisecond, 20*time.Millisecond
		}},
		{"interval 24h", func(p *policy) { p.settings.Interval = 24 * time.Hour }},
		{"interval 400ms", func(p *policy) {
			p.settings.Interval, p.settings.Fast = 400*time.Millisecond, 400*time.Millisecond
		}},
		{"interval 10s 20ms", func(p *policy) {
			p.settings.Interval, p.settings.Fast = 10*time.Second, 20*time.Millisecond
		}},
		{"interval 10s 10s", func(p *policy) {
			p.settings.Interval, p.settings.Fast = 10*time.Second, 10*time.Second
		}},
		{"timeout 1ms", func(p *policy) { p.settings.Timeout = time.Millisecond }},
		{"timeout 1m", func(p *policy) { p.settings.Timeout = time.Minute }},
		{"tries 1", func(p *policy) { p.settings.Tries = 1 }},
		{"tries 16", func(p *policy) { p.settings.Tries = 16 }},
		{"rise 1", func(p *policy) { p.settings.Rise = 1 }},
		{"rise 1000", func(p *policy) { p.settings.Rise = 1000 }},
		{"fall 1", func(p *policy) { p.settings.Fall = 1 }},
		{"fall 1000", func(p *policy) { p.settings.Fall = 1000 }},
		{"damping off", func(p *policy) { p.settings.Damping, p.settings.DampingMax = 0, 0 }},
		{"damping 1s", func(p *policy) { p.settings.Damping, p.settings.DampingMax = time.Second, 10*time.Second }},
		{"damping 1m 1m", func(p *policy) { p.settings.Damping, p.settings.DampingMax = time.Minute, time.Minute }},
		{"damping 24h", func(p *policy) { p.settings.Damping, p.settings.DampingMax = 24*time.Hour, 24*time.Hour }},
		{"hold 0", func(p *policy) { p.hold = 0 }},
		{"hold 4s", func(p *policy) { p.hold = 4 * time.Second }},
		{"fallback all", func(*policy) {}},
		{"fallback nodata", func(p *policy) { p.Fallback.Kind = answer.FallbackNoData }},
		{"fallback servfail", func(p *policy) { p.Fallback.Kind = answer.FallbackServFail }},
		{"fallback 192.0.2.1", func(p *policy) {
			p.Fallback = answer.Fallback{Kind: answer.FallbackAddresses, Addresses: setupAddrs("192.0.2.1")}
		}},
		{"fallback 2001:db8::1 192.0.2.1 ::ffff:192.0.2.2", func(p *policy) {
			p.Fallback = answer.Fallback{Kind: answer.FallbackAddresses, Addresses: setupAddrs("2001:db8::1", "192.0.2.1", "192.0.2.2")}
		}},
		{"fallback b.example.org", func(p *policy) { p.Fallback.Names = []string{"b.example.org."} }},
		{"fallback localhost.", func(p *policy) { p.Fallback.Names = []string{"localhost."} }},
		{"fallback B.example.ORG. a.example.net all", func(p *policy) { p.Fallback.Names = []string{"b.example.org.", "a.example.net."} }},
		{"fallback b.example.org servfail", func(p *policy) {
			p.Fallback = answer.Fallback{Names: []string{"b.example.org."}, Kind: answer.FallbackServFail}
		}},
		{"fallback b.example.org 192.0.2.1 ::1", func(p *policy) {
			p.Fallback = answer.Fallback{Names: []string{"b.example.org."}, Kind: answer.FallbackAddresses, Addresses: setupAddrs("192.0.2.1", "::1")}
		}},
		{"prefer 10.0.0.0/8 2001:db8::1\nprefer ::ffff:10.1.0.0/112\nprefer 192.0.2.1", func(p *policy) {
			for _, tier := range []string{"10.0.0.0/8 2001:db8::1/128", "10.1.0.0/16", "192.0.2.1/32"} {
				p.Tiers.Add(setupPrefixes(tier))
			}
		}},
		{"panic 0", func(p *policy) { p.Panic = 0 }},
		{"panic 100", func(p *policy) { p.Panic = 100 }},
		{"panic 50%", func(p *policy) { p.Panic = 50 }},
		{"ttl 0", func(p *policy) { p.TTL = 0 }},
		{"ttl 60", func(p *policy) { p.TTL = 60 }},
		{"ttl 1m", func(p *policy) { p.TTL = 60 }},
		{"ttl 168h", func(p *policy) { p.TTL = 7 * 24 * 3600 }},
		{"ttl 604800", func(p *policy) { p.TTL = 7 * 24 * 3600 }},
		{"sort rtt", func(p *policy) { p.Sort = answer.SortRTT }},
		{"sort client", func(p *policy) { p.Sort = answer.SortClient }},
		{"sort client 16 48", func(p *policy) { p.Sort, p.ClientBits4, p.ClientBits6 = answer.SortClient, 16, 48 }},
		{"sort client 32 128", func(p *policy) { p.Sort, p.ClientBits4, p.ClientBits6 = answer.SortClient, 32, 128 }},
		{"pick 1", func(p *policy) { p.Pick = 1 }},
		{"pick 1000", func(p *policy) { p.Pick = 1000 }},
		{"weight 1 10.0.0.1\nweight 1000 10.0.0.0/8 2001:db8::/32", func(p *policy) {
			p.Weights.Set(netip.MustParsePrefix("10.0.0.1/32"), 1)
			p.Weights.Set(netip.MustParsePrefix("10.0.0.0/8"), 1000)
			p.Weights.Set(netip.MustParsePrefix("2001:db8::/32"), 1000)
		}},
		{"idle 1s", func(p *policy) { p.idle = time.Second }},
		{"idle 720h", func(p *policy) { p.idle = 30 * 24 * time.Hour }},
		{"allow 10.1.2.3/8", func(p *policy) { rule(p, "10.0.0.0/8", true) }},
		{"allow 127.0.0.1", func(p *policy) { rule(p, "127.0.0.1/32", true) }},
		{"allow ::1 0.0.0.0/0", func(p *policy) { rule(p, "::1/128", true); rule(p, "0.0.0.0/0", true) }},
		{"allow 10.0.0.0/8\nallow 10.0.0.0/8 fd00::/8", func(p *policy) {
			rule(p, "10.0.0.0/8", true)
			rule(p, "fd00::/8", true)
		}},
		{"deny ::/0", func(p *policy) { rule(p, "::/0", false) }},
		{"deny ::ffff:10.0.0.0/104 ::ffff:192.0.2.7", func(p *policy) {
			rule(p, "10.0.0.0/8", false)
			rule(p, "192.0.2.7/32", false)
		}},
		{"deny 10.0.0.0/8\nallow 10.1.0.0/16\ndeny 10.1.1.1", func(p *policy) {
			rule(p, "10.0.0.0/8", false)
			rule(p, "10.1.0.0/16", true)
			rule(p, "10.1.1.1/32", false)
		}},
		{"probe 192.0.2.99/24 at 10.1.2.3/24", func(p *policy) { detour(p, "192.0.2.0/24", "10.1.2.0/24", 0) }},
		{"probe 192.0.2.7 at 10.0.0.1/32 1\nprobe 192.0.2.0/24 at 192.0.2.0/24 65535", func(p *policy) {
			detour(p, "192.0.2.7/32", "10.0.0.1/32", 1)
			detour(p, "192.0.2.0/24", "192.0.2.0/24", 65535)
		}},
		{"probe 2001:db8::/32 at fd00::/32\nprobe ::/0 at ::/0 80", func(p *policy) {
			detour(p, "2001:db8::/32", "fd00::/32", 0)
			detour(p, "::/0", "::/0", 80)
		}},
		{"probe ::ffff:192.0.2.0/120 at 10.0.0.0/24", func(p *policy) { detour(p, "192.0.2.0/24", "10.0.0.0/24", 0) }},
		{"watch Www.Example.ORG example.org.", func(p *policy) { p.watched = []string{"www.example.org.", "example.org."} }},
		{"watch a.example.org\nwatch b.example.org", func(p *policy) {
			p.watched = []string{"a.example.org.", "b.example.org."}
		}},
		{"source 192.0.2.1", func(p *policy) { p.source4 = netip.MustParseAddr("192.0.2.1") }},
		{"source ::ffff:192.0.2.1", func(p *policy) { p.source4 = netip.MustParseAddr("192.0.2.1") }},
		{"source 2001:db8::1 192.0.2.1", func(p *policy) {
			p.source4, p.source6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		}},
		{"rise 3 # a comment\n\tfall 4\n", func(p *policy) { p.settings.Rise, p.settings.Fall = 3, 4 }},
		{`rise "3"`, func(p *policy) { p.settings.Rise = 3 }},
	}
	for _, tt := range tests {
		t.Run(tt.properties, func(t *testing.T) {
			blocks, _ := setupRead(t, "Corefile", "example.org {\n"+name+" {\n"+tt.properties+"\n}\n}\n")
			got := blocks[0]["example.org."].policy
			if got == nil {
				t.Fatal("no policy")
			}
			want := defaultPolicy()
			want.zones, want.place = []string{"example.org."}, "Corefile:2"
			tt.want(want)
			want.complete()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
	t.Run("every property is in the table", func(t *testing.T) {
		for _, known := range properties {
			elsewhere := []string{"method", "freeze", "limit", "metrics", "overrides", "status", "peers"}
			if !slices.Contains(elsewhere, known.name) && !slices.ContainsFunc(tests, func(tt struct {
				properties string
				want       func(*policy)
			}) bool {
				return strings.HasPrefix(tt.properties, known.name+" ")
			}) {
				t.Errorf("%s is not tested", known.name)
			}
		}
	})
}

// The source of each family goes only into the probes of its family.
func TestSetupSourceByFamily(t *testing.T) {
	blocks, _ := setupRead(t, "Corefile", ". {\nshaker {\nsource 192.0.2.1 2001:db8::1\ntimeout 3s\n}\n}\n")
	p := blocks[0]["."].policy
	for addr, source := range map[string]string{"198.51.100.1": "192.0.2.1", "2001:db8::2": "2001:db8::1"} {
		s := p.key(netip.MustParseAddr(addr)).Value()
		if s.Source.String() != source || s.Timeout != 3*time.Second {
			t.Errorf("%s is probed with %+v, want source %s", addr, s, source)
		}
	}
}

func TestSetupProcess(t *testing.T) {
	tests := []struct {
		corefile string
		want     processSettings
	}{
		{". {\nshaker\n}\n", processSettings{}},
		{". {\nshaker {\nmethod socket\n}\n}\n", processSettings{
			method: setting[checker.Method]{checker.MethodSocket, "Corefile:3"}}},
		{". {\nshaker {\nmethod dial\nlimit targets 1\nlimit rate 10000000\n}\n}\n", processSettings{
			method:  setting[checker.Method]{checker.MethodDial, "Corefile:3"},
			targets: setting[int]{1, "Corefile:4"},
			rate:    setting[int]{10_000_000, "Corefile:5"}}},
		{"a {\nshaker {\nlimit rate 7\n}\n}\nb {\nshaker {\nlimit rate 7\nlimit targets 5\n}\n}\n", processSettings{
			rate:    setting[int]{7, "Corefile:3"},
			targets: setting[int]{5, "Corefile:9"}}},
		{"a {\nshaker {\nstatus [::1]:8053\n}\n}\nb {\nshaker {\nstatus [::1]:8053\n}\n}\n", processSettings{
			status: setting[string]{"[::1]:8053", "Corefile:3"}}},
	}
	for property, want := range map[string]freeze{
		"freeze off": {}, "freeze 51": {51, 5 * time.Minute}, "freeze 100% 10s": {100, 10 * time.Second}, "freeze 90 24h": {90, 24 * time.Hour},
	} {
		if _, got := setupRead(t, "Corefile", ". {\nshaker {\n"+property+"\n}\n}\n"); got.freeze != (setting[freeze]{want, "Corefile:3"}) {
			t.Errorf("%s: %+v, want %+v", property, got.freeze, want)
		}
	}
	for _, tt := range tests {
		if _, got := setupRead(t, "Corefile", tt.corefile); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%sgot %+v, want %+v", tt.corefile, got, tt.want)
		}
	}
	unset, set := setting[int]{}, setting[int]{3, "Corefile:1"}
	if unset.or(7) != 7 || set.or(7) != 3 {
		t.Error("or does not tell a setting from its absence")
	}
}

// Stanzas that name the same file share it, and a relative path starts at the root.
func TestSetupOverrides(t *testing.T) {
	a := lab.File(t, "a", "192.0.2.7 down\n")
	b := lab.File(t, "b", "")
	blocks, process := setupRead(t, "Corefile", fmt.Sprintf(
		"a {\nshaker {\noverrides %s\n}\n}\nb {\nshaker {\noverrides %s\n}\n}\nc {\nshaker {\noverrides %s\n}\n}\nd {\nshaker\n}\n", a, b, a))
	forced := func(block int, zone string) *override.File { return blocks[block][zone].overrides }
	if forced(0, "a.") != forced(2, "c.") || forced(0, "a.") == forced(1, "b.") || forced(3, "d.") != nil || len(process.overrides) != 2 {
		t.Errorf("a %p, b %p, c %p, d %p, %d files", forced(0, "a."), forced(1, "b."), forced(2, "c."), forced(3, "d."), len(process.overrides))
	}
	if got := forced(0, "a.").Rules().Of(netip.MustParseAddr("192.0.2.7"), 443); got != override.Down {
		t.Errorf("the rule is not in force: %v", got)
	}
	for _, text := range []string{"a {\nshaker {\noverrides %[1]s local\n}\n}\nb {\nshaker {\noverrides %[1]s\n}\n}\n", "a {\nshaker {\noverrides %[1]s\n}\n}\nb {\nshaker {\noverrides %[1]s local\n}\n}\n"} {
		err := setupValidate("Corefile", fmt.Sprintf(text, a))
		if err == nil || !strings.Contains(err.Error(), " at Corefile:3, but the whole process can have only one") {
			t.Errorf("local in one of two stanzas: %v", err)
		}
	}
	c := caddy.NewTestController("dns", "shaker {\noverrides a\n}\n")
	dnsserver.GetConfig(c).Root = filepath.Dir(a)
	if _, err := parse(c, new(processSettings)); err != nil {
		t.Error("relative to the root:", err)
	}
	wrong := lab.File(t, "wrong", "192.0.2.7 drain\n")
	for path, want := range map[string]string{
		"/nowhere/overrides": "overrides: open /nowhere/overrides: no such file or directory, want a file of rules, which may be empty",
		wrong:                "overrides: " + wrong + `: line 1: "drain" is not possible, want up, down or auto`,
	} {
		err := setupValidate("Corefile", ". {\nshaker {\noverrides "+path+"\n}\n}\n")
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// The zones of each server block, whoever gives them.
func TestSetupZones(t *testing.T) {
	tests := []struct {
		corefile string
		want     [][]string // of each server block
	}{
		{". {\nshaker\n}\n", [][]string{{"."}}},
		{"example.org {\nwhoami\n}\n", [][]string{nil}},
		{"Example.ORG:1053 example.net, dns://example.com {\nshaker\n}\n",
			[][]string{{"example.com.", "example.net.", "example.org."}}},
		{"example.org:1053 example.org:1054 {\nshaker\n}\n", [][]string{{"example.org."}}},
		{". {\nshaker Example.ORG example.net. EXAMPLE.org {\n}\n}\n", [][]string{{"example.net.", "example.org."}}},
		{". {\nshaker example.org\nshaker a.example.org {\nrise 5\n}\nshaker .\n}\n",
			[][]string{{".", "a.example.org.", "example.org."}}},
		{"a {\nshaker\n}\nb {\nshaker\n}\n", [][]string{{"a."}, {"b."}}},
		{"10.0.0.0/24 2001:db8::/32 {\nshaker\n}\n", [][]string{{"0.0.10.in-addr.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa."}}},
		{". {\nshaker 192.0.2.0/24\nshaker 2001:db8:1::/48\n}\n",
			[][]string{{"1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "2.0.192.in-addr.arpa."}}},
		// Not at the boundary of a label: several zones.
		{". {\nshaker 10.2.0.0/15 2001:db8::/31\n}\n", [][]string{{
			"2.10.in-addr.arpa.", "3.10.in-addr.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.", "9.b.d.0.1.0.0.2.ip6.arpa."}}},
		{"10.2.0.0/15 {\nshaker\n}\n", [][]string{{"2.10.in-addr.arpa.", "3.10.in-addr.arpa."}}},
		// RFC 2317: a slash is a part of the name.
		{". {\nshaker 0/25.2.0.192.in-addr.arpa\n}\n", [][]string{{"0/25.2.0.192.in-addr.arpa."}}},
		{". {\nshaker a\\.b.example.org\n}\n", [][]string{{`a\.b.example.org.`}}},
	}
	for _, tt := range tests {
		blocks, _ := setupRead(t, "Corefile", tt.corefile)
		var got [][]string
		for _, b := range blocks {
			var zones []string
			for zone, p := range b {
				if zone != p.name || !slices.Contains(p.zones, zone) {
					t.Errorf("%spolicy of %q is for %q, %q", tt.corefile, zone, p.name, p.zones)
				}
				zones = append(zones, zone)
			}
			slices.Sort(zones)
			got = append(got, zones)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%sgot %q, want %q", tt.corefile, got, tt.want)
		}
	}
}

// One stanza is one policy for all of its zones; several stanzas do not disturb each other.
func TestSetupSeveralStanzas(t *testing.T) {
	blocks, _ := setupRead(t, "Corefile", `
a.example {
	shaker b.example c.example {
		rise 5
	}
	shaker
	shaker d.example {
		port 80
		fallback 192.0.2.1
	}
}
e.example {
	shaker {
		fall 9
	}
}
`)
	first, second := blocks[0], blocks[1]
	if first["b.example."].policy != first["c.example."].policy {
		t.Error("two policies for one stanza")
	}
	got := map[string]string{}
	for _, b := range blocks {
		for zone, p := range b {
			got[zone] = fmt.Sprint(p.place, p.ports, p.settings.Rise, p.settings.Fall, p.Fallback.Kind)
		}
	}
	want := map[string]string{
		"a.example.": "Corefile:6[443] 2 3 all",
		"b.example.": "Corefile:3[443] 5 3 all",
		"c.example.": "Corefile:3[443] 5 3 all",
		"d.example.": "Corefile:7[80] 2 3 addresses",
		"e.example.": "Corefile:13[443] 2 9 all",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if second["a.example."].policy != nil {
		t.Error("a zone of another server block")
	}
}

// Imports, snippets and variables, in every place where people use them.
func TestSetupImports(t *testing.T) {
	dir := t.TempDir()
	write := func(file, contents string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("stanza.conf", "shaker b.example {\n\timport properties.conf\n}\n")
	write("properties.conf", "port 80\nfallback nodata\n")
	t.Setenv("SHAKER_TEST_PORT", "8443")
	t.Setenv("SHAKER_TEST_ZONE", "C.example")
	t.Setenv("SHAKER_TEST_TTL", "5")
	path := filepath.Join(dir, "Corefile")
	const corefile = `(thresholds) {
	rise 4
	fall 5
}
(whole) {
	shaker d.example {
		port {$SHAKER_TEST_PORT}
		import thresholds
	}
}
a.example {
	shaker {
		import thresholds
		ttl {%SHAKER_TEST_TTL%}s
	}
	import stanza.conf
	shaker {$SHAKER_TEST_ZONE}
	import whole
}
`
	blocks, _ := setupRead(t, path, corefile)
	got := map[string]string{}
	for zone, p := range blocks[0] {
		got[zone] = fmt.Sprint(strings.TrimPrefix(p.place, dir), p.ports, p.settings.Rise, p.settings.Fall, p.TTL, p.Fallback.Kind)
	}
	want := map[string]string{
		"a.example.": "/Corefile:12[443] 4 5 5 all",
		"b.example.": "/stanza.conf:1[80] 2 3 30 nodata",
		"c.example.": "/Corefile:17[443] 2 3 30 all",
		"d.example.": "/Corefile:6[8443] 4 5 30 all",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if err := setupValidate(path, corefile); err != nil {
		t.Errorf("caddy: %v", err)
	}

	// A mistake in an imported file is told with the name of that file.
	write("properties.conf", "port 80\nrise no\n")
	got1 := fmt.Sprint(setupValidate(path, corefile))
	want1 := fmt.Sprintf(`plugin/shaker: %s:2 - Error during parsing: rise: "no" is not possible, want a number from 1 to 1000`,
		filepath.Join(dir, "properties.conf"))
	if got1 != want1 {
		t.Errorf("got  %s\nwant %s", got1, want1)
	}
}

const setupNames = "port, interval, timeout, tries, rise, fall, damping, hold, prefer, fallback, panic, ttl, sort, pick, weight, idle, allow, deny, probe, overrides, watch, source, method, freeze, limit, metrics, status, peers"

const setupNoAddress = "is not possible, want the host to listen on and a port, such as 127.0.0.1:8053"

const setupStraddles = "holds IPv4-mapped addresses, which are IPv4, and more, want a CIDR such as 10.0.0.0/8 or " +
	"::ffff:10.0.0.0/104 for IPv4, and ::/0 or a CIDR beside ::ffff:0.0.0.0/96 for IPv6"

// Every mistake is an error that names file, line, property, value and what would be right. The properties
// stand from line 3 on.
func TestSetupMistakes(t *testing.T) {
	tests := []struct {
		properties string
		line       int
		want       string
	}{
		{"port", 3, "port has no value, want port [any] PORT..."},
		{"port 0", 3, `port: "0" is not a port, want a number from 1 to 65535`},
		{"port 65536", 3, `port: "65536" is not a port, want a number from 1 to 65535`},
		{"port -1", 3, `port: "-1" is not a port, want a number from 1 to 65535`},
		{"port http", 3, `port: "http" is not a port, want a number from 1 to 65535`},
		{"port 80 443 80", 3, `port: "80" is given twice`},
		{"port any", 3, "port: any stands alone, want at least one port behind it"},
		{"port 80 any", 3, `port: "any" is not a port, want a number from 1 to 65535`},
		{"rise 3\n\nport 80\nport 443", 6, "port is given twice, on line 5 already"},
		{"interval", 3, "interval has no value, want interval DURATION [FAST]"},
		{"interval 2", 3, `interval: "2" is not a duration, want one such as 500ms or 2s`},
		{"interval fast", 3, `interval: "fast" is not a duration, want one such as 500ms or 2s`},
		{"interval 19ms", 3, `interval: "19ms" is not possible, want a duration from 20ms to 24h0m0s`},
		{"interval -1s", 3, `interval: "-1s" is not possible, want a duration from 20ms to 24h0m0s`},
		{"interval 25h", 3, `interval: "25h" is not possible, want a duration from 20ms to 24h0m0s`},
		{"interval 1s 2s", 3, `interval: "2s" is not possible, want a duration from 20ms to 1s`},
		{"interval 1s 1ms", 3, `interval: "1ms" is not possible, want a duration from 20ms to 1s`},
		{"interval 1s x", 3, `interval: "x" is not a duration, want one such as 500ms or 2s`},
		{"interval 1s 1s 1s", 3, `interval: "1s" is one value too many, want DURATION [FAST]`},
		{"timeout", 3, "timeout has no value, want timeout DURATION"},
		{"timeout 0", 3, `timeout: "0" is not possible, want a duration from 1ms to 1m0s`},
		{"timeout 61s", 3, `timeout: "61s" is not possible, want a duration from 1ms to 1m0s`},
		{"timeout 1s 2s", 3, `timeout: "2s" is one value too many, want a single one`},
		{"tries", 3, "tries has no value, want tries COUNT"},
		{"tries 0", 3, `tries: "0" is not possible, want a number from 1 to 16`},
		{"tries 17", 3, `tries: "17" is not possible, want a number from 1 to 16`},
		{"tries 1 2", 3, `tries: "2" is one value too many, want a single one`},
		{"rise", 3, "rise has no value, want rise COUNT"},
		{"rise 0", 3, `rise: "0" is not possible, want a number from 1 to 1000`},
		{"rise 1001", 3, `rise: "1001" is not possible, want a number from 1 to 1000`},
		{"rise 1.5", 3, `rise: "1.5" is not possible, want a number from 1 to 1000`},
		{"rise 1 2", 3, `rise: "2" is one value too many, want a single one`},
		{"fall", 3, "fall has no value, want fall COUNT"},
		{"fall 0", 3, `fall: "0" is not possible, want a number from 1 to 1000`},
		{"fall 1001", 3, `fall: "1001" is not possible, want a number from 1 to 1000`},
		{"hold", 3, "hold has no value, want hold DURATION"},
		{"hold -1ms", 3, `hold: "-1ms" is not possible, want a duration from 0s to 4s`},
		{"hold 5s", 3, `hold: "5s" is not possible, want a duration from 0s to 4s`},
		{"hold 1s 1s", 3, `hold: "1s" is one value too many, want a single one`},
		{"fallback", 3, "fallback has no value, want fallback [NAME...] [all | nodata | servfail | ADDRESS...]"},
		{"fallback nxdomain", 3, `fallback: "nxdomain" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback 10.0.0.1 all", 3, `fallback: "all" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback all 10.0.0.1", 3, `fallback: "10.0.0.1" is one value too many, want a single one`},
		{"fallback nodata servfail", 3, `fallback: "servfail" is one value too many, want a single one`},
		{"fallback addresses", 3, `fallback: "addresses" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback fe80::1%eth0", 3, `fallback: "fe80::1%eth0" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback 10.0.0.1 ::ffff:10.0.0.1", 3, `fallback: "::ffff:10.0.0.1" is given twice`},
		{"fallback 10.0.0.1 b.example.org", 3, `fallback: "b.example.org" stands behind an address, want names first`},
		{"fallback all b.example.org", 3, `fallback: "b.example.org" is one value too many, want a single one`},
		{"fallback b.example.org B.Example.org.", 3, `fallback: "B.Example.org." is given twice`},
		{"fallback standby", 3, `fallback: "standby" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback .", 3, `fallback: "." is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback *.example.org", 3, `fallback: "*.example.org" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback b.example.org:53", 3, `fallback: "b.example.org:53" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback 192.0.2.300", 3, `fallback: "192.0.2.300" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"fallback b.example.org 192.0.2", 3, `fallback: "192.0.2" is neither a domain name with a dot nor an IP address, want names, and then all, nodata, servfail or nothing but addresses`},
		{"prefer", 3, "prefer has no value, want prefer CIDR..."},
		{"prefer 10.0.0.0/33", 3, `prefer: "10.0.0.0/33" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"prefer 10.0.0.0/8 10.1.2.3/8", 3, `prefer: "10.0.0.0/8" is given twice`},
		{"prefer 10.0.0.1\nprefer 10.0.0.1/32", 4, `prefer: "10.0.0.1" is given twice`},
		{"pick", 3, "pick has no value, want pick COUNT"},
		{"pick 0", 3, `pick: "0" is not possible, want a number from 1 to 1000`},
		{"pick one", 3, `pick: "one" is not possible, want a number from 1 to 1000`},
		{"pick 1 2", 3, `pick: "2" is one value too many, want a single one`},
		{"weight", 3, "weight has no value, want weight COUNT CIDR..."},
		{"weight 10", 3, `weight: "10" has no CIDR behind it, want COUNT and at least one`},
		{"weight 0 10.0.0.1", 3, `weight: "0" is not possible, want a number from 1 to 1000; what shall get nothing is for prefer or overrides`},
		{"weight 10.0.0.1 10", 3, `weight: "10.0.0.1" is not possible, want a number from 1 to 1000; what shall get nothing is for prefer or overrides`},
		{"weight 1 10.0.0.256", 3, `weight: "10.0.0.256" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"weight 1 10.0.0.1\nweight 2 10.0.0.1", 4, `weight: "10.0.0.1" is given twice`},
		{"damping", 3, "damping has no value, want damping off | DURATION [MAX]"},
		{"damping off 5m", 3, `damping: "5m" is one value too many, want a single one`},
		{"damping on", 3, `damping: "on" is not a duration, want one such as 500ms or 2s, or off`},
		{"damping 0", 3, `damping: "0" is not possible, want a duration from 1s to 24h0m0s, or off`},
		{"damping 25h", 3, `damping: "25h" is not possible, want a duration from 1s to 24h0m0s, or off`},
		{"damping 1m 30s", 3, `damping: "30s" is not possible, want a duration from 1m0s to 24h0m0s`},
		{"damping 1m 2m 3m", 3, `damping: "3m" is one value too many, want DURATION [MAX]`},
		{"freeze", 3, "freeze has no value, want freeze off | PERCENT [MAX]"},
		{"freeze off 5m", 3, `freeze: "5m" is one value too many, want a single one`},
		{"freeze on", 3, `freeze: "on" is not possible, want a number from 51 to 100, or off`},
		{"freeze 50", 3, `freeze: "50" is not possible, want a number from 51 to 100, or off`},
		{"freeze 101", 3, `freeze: "101" is not possible, want a number from 51 to 100, or off`},
		{"freeze 90 1s", 3, `freeze: "1s" is not possible, want a duration from 10s to 24h0m0s`},
		{"freeze 90 5m 6m", 3, `freeze: "6m" is one value too many, want PERCENT [MAX]`},
		{"freeze 90\nfreeze 80", 4, "freeze is given twice, on line 3 already"},
		{"panic", 3, "panic has no value, want panic PERCENT"},
		{"panic -1", 3, `panic: "-1" is not possible, want a number from 0 to 100`},
		{"panic 101", 3, `panic: "101" is not possible, want a number from 0 to 100`},
		{"panic half", 3, `panic: "half" is not possible, want a number from 0 to 100`},
		{"panic 50 %", 3, `panic: "%" is one value too many, want a single one`},
		{"ttl", 3, "ttl has no value, want ttl DURATION"},
		{"ttl 1500ms", 3, `ttl: "1500ms" is not a whole number of seconds`},
		{"ttl 169h", 3, `ttl: "169h" is not possible, want a duration from 0s to 168h0m0s`},
		{"ttl -1s", 3, `ttl: "-1s" is not possible, want a duration from 0s to 168h0m0s`},
		{"ttl long", 3, `ttl: "long" is not a duration, want one such as 500ms or 2s`},
		{"ttl 1 2", 3, `ttl: "2" is one value too many, want a single one`},
		{"idle", 3, "idle has no value, want idle DURATION"},
		{"idle 999ms", 3, `idle: "999ms" is not possible, want a duration from 1s to 720h0m0s`},
		{"idle 721h", 3, `idle: "721h" is not possible, want a duration from 1s to 720h0m0s`},
		{"allow", 3, "allow has no value, want allow CIDR..."},
		{"allow 10.0.0.0/33", 3, `allow: "10.0.0.0/33" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"allow 10.0.0.0/8 lan", 3, `allow: "lan" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"allow fe80::1%eth0", 3, `allow: "fe80::1%eth0" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"allow 10.0.0.1/8\ndeny 10.0.0.2/8", 4, `deny: "10.0.0.2/8" is both allowed and denied`},
		{"deny 10.0.0.1\nallow 10.0.0.1/32", 4, `allow: "10.0.0.1/32" is both allowed and denied`},
		{"deny", 3, "deny has no value, want deny CIDR..."},
		{"deny ::ffff:10.0.0.0/8", 3, `deny: "::ffff:10.0.0.0/8" ` + setupStraddles},
		{"allow ::/64", 3, `allow: "::/64" ` + setupStraddles},
		{"allow 10.0.0.0/8\ndeny ::ffff:10.0.0.0/104", 4, `deny: "::ffff:10.0.0.0/104" is both allowed and denied`},
		{"deny all", 3, `deny: "all" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"probe", 3, "probe has no value, want probe CIDR at CIDR [PORT]"},
		{"probe 192.0.2.0/24", 3, `probe: "192.0.2.0/24" is not possible, want CIDR at CIDR [PORT]`},
		{"probe 192.0.2.0/24 at", 3, `probe: "192.0.2.0/24 at" is not possible, want CIDR at CIDR [PORT]`},
		{"probe 192.0.2.0/24 10.0.0.0/24", 3, `probe: "192.0.2.0/24 10.0.0.0/24" is not possible, want CIDR at CIDR [PORT]`},
		{"probe 192.0.2.0/24 on 10.0.0.0/24", 3, `probe: "192.0.2.0/24 on 10.0.0.0/24" is not possible, want CIDR at CIDR [PORT]`},
		{"probe 192.0.2.0/24 at 10.0.0.0/24 80 443", 3, `probe: "192.0.2.0/24 at 10.0.0.0/24 80 443" is not possible, want CIDR at CIDR [PORT]`},
		{"probe public at 10.0.0.0/24", 3, `probe: "public" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"probe 192.0.2.0/24 at 10.0.0.0/33", 3, `probe: "10.0.0.0/33" is neither a CIDR such as 10.0.0.0/8 nor an address`},
		{"probe 192.0.2.0/24 at 10.0.0.0/8", 3, `probe: "10.0.0.0/8" does not have the length of 192.0.2.0/24, want a CIDR that ends in /24`},
		{"probe 192.0.2.0/24 at 10.0.0.7", 3, `probe: "10.0.0.7" does not have the length of 192.0.2.0/24, want a CIDR that ends in /24`},
		{"probe 192.0.2.0/24 at fd00::/24", 3, `probe: "192.0.2.0/24" is IPv4 and "fd00::/24" is IPv6, want both of one family`},
		{"probe 2001:db8::/104 at ::ffff:10.0.0.0/104", 3, `probe: "2001:db8::/104" is IPv6 and "::ffff:10.0.0.0/104" is IPv4, want both of one family`},
		{"probe ::ffff:0.0.0.0/64 at fd00::/64", 3, `probe: "::ffff:0.0.0.0/64" ` + setupStraddles},
		{"probe 2001:db8::/64 at ::/64", 3, `probe: "::/64" ` + setupStraddles},
		{"probe 192.0.2.0/24 at 10.0.0.0/24 0", 3, `probe: "0" is not a port, want a number from 1 to 65535`},
		{"probe 192.0.2.0/24 at 10.0.0.0/24 http", 3, `probe: "http" is not a port, want a number from 1 to 65535`},
		{"probe 192.0.2.0/24 at 10.0.0.0/24\nprobe ::ffff:192.0.2.9/120 at 10.0.0.0/24", 4, `probe: "::ffff:192.0.2.9/120" is given twice`},
		{"watch", 3, "watch has no value, want watch NAME..."},
		{"watch www.example.net", 3, `watch: "www.example.net" is in none of the stanza's zones, example.org.`},
		{"watch www.example.org notexample.org", 3, `watch: "notexample.org" is in none of the stanza's zones, example.org.`},
		{"watch www.example.org WWW.example.org.", 3, `watch: "WWW.example.org." is given twice`},
		{"watch www.example.org\nwatch www.example.org", 4, `watch: "www.example.org" is given twice`},
		{"watch *.example.org", 3, `watch: "*.example.org" is not possible, want a domain name without wildcard or port`},
		{"watch www.example.org:443", 3, `watch: "www.example.org:443" is not possible, want a domain name without wildcard or port`},
		{`watch "www.example.org api.example.org"`, 3, `watch: "www.example.org api.example.org" has a space, want one name; what a variable holds is a single one`},
		{"watch bücher.example.org", 3, `watch: "bücher.example.org" is not ASCII, want the form that queries have, which begins with xn--`},
		{"watch 192.0.2.1", 3, `watch: "192.0.2.1" is not possible, want a domain name without wildcard or port`},
		{"watch a..example.org", 3, `watch: "a..example.org" is not possible, want a domain name without wildcard or port`},
		{`watch ""`, 3, `watch: "" is not possible, want a domain name without wildcard or port`},
		{"watch a.b.example.org\n}\nshaker b.example.org {", 6,
			`watch: "a.b.example.org." in the stanza at Corefile:2 is in zone "b.example.org." of that at Corefile:5, want it there`},
		{"source", 3, "source has no value, want source ADDRESS..."},
		{"source eth0", 3, `source: "eth0" is not an IP address`},
		{"source fe80::1%eth0", 3, `source: "fe80::1%eth0" is not an IP address`},
		{"source 0.0.0.0", 3, `source: "0.0.0.0" is no address of a machine, want one of this machine`},
		{"source ::", 3, `source: "::" is no address of a machine, want one of this machine`},
		{"source 224.0.0.1", 3, `source: "224.0.0.1" is no address of a machine, want one of this machine`},
		{"source 255.255.255.255", 3, `source: "255.255.255.255" is no address of a machine, want one of this machine`},
		{"source ff02::1", 3, `source: "ff02::1" is no address of a machine, want one of this machine`},
		{"source 10.0.0.1 10.0.0.2", 3, `source: "10.0.0.2" is a second IPv4 address, want one per family`},
		{"source ::2 10.0.0.1 ::1", 3, `source: "::1" is a second IPv6 address, want one per family`},
		{"method", 3, "method has no value, want method socket | raw | dial"},
		{"method pigeon", 3, `method: "pigeon" is not a method, want socket, raw or dial`},
		{"method socket dial", 3, `method: "dial" is one value too many, want a single one`},
		{"limit", 3, "limit has no value, want limit targets COUNT | rate COUNT"},
		{"limit 5", 3, `limit: "5" is incomplete or too long, want targets COUNT or rate COUNT`},
		{"limit targets", 3, `limit: "targets" is incomplete or too long, want targets COUNT or rate COUNT`},
		{"limit targets 5 rate 6", 3, `limit: "targets 5 rate 6" is incomplete or too long, want targets COUNT or rate COUNT`},
		{"limit memory 5", 3, `limit: "memory" cannot be limited, want targets COUNT or rate COUNT`},
		{"limit targets 0", 3, `limit: targets: "0" is not possible, want a number from 1 to 10000000`},
		{"limit rate 10000001", 3, `limit: rate: "10000001" is not possible, want a number from 1 to 10000000`},
		{"metrics", 3, "metrics has no value, want metrics targets"},
		{"metrics all", 3, `metrics: "all" is not possible, want targets`},
		{"metrics targets all", 3, `metrics: "all" is one value too many, want a single one`},
		{"metrics targets\nmetrics targets", 4, "metrics is given twice, on line 3 already"},
		{"limit rate 5\nlimit rate 6", 4, "limit: rate: 6 differs from 5 at Corefile:3, but the whole process can have only one"},
		{"sort", 3, "sort has no value, want sort rtt | client [BITS4 BITS6]"},
		{"sort random", 3, `sort: "random" is not an order, want rtt or client`},
		{"sort client 24", 3, `sort: "client 24" is incomplete or too long, want client, or client BITS4 BITS6`},
		{"sort client 0 56", 3, `sort: "0" is not possible, want a number from 1 to 32`},
		{"sort client 24 129", 3, `sort: "129" is not possible, want a number from 1 to 128`},
		{"sort client 24 56 1", 3, `sort: "client 24 56 1" is incomplete or too long, want client, or client BITS4 BITS6`},
		{"sort rtt rtt", 3, `sort: "rtt" is one value too many, want a single one`},
		{"overrides a b", 3, `overrides: "a b" is not possible, want FILE, or FILE local`},
		{"overrides a local local", 3, `overrides: "a local local" is not possible, want FILE, or FILE local`},
		{"status", 3, "status has no value, want status ADDRESS"},
		{"status 127.0.0.1:8053 ::1", 3, `status: "::1" is one value too many, want a single one`},
		{"status :8053", 3, `status: ":8053" ` + setupNoAddress},
		{"status 127.0.0.1", 3, `status: "127.0.0.1" ` + setupNoAddress},
		{"status 8053", 3, `status: "8053" ` + setupNoAddress},
		{"status ::1:8053", 3, `status: "::1:8053" ` + setupNoAddress},
		{"status http://127.0.0.1:8053", 3, `status: "http://127.0.0.1:8053" ` + setupNoAddress},
		{"status 127.0.0.1:http", 3, `status: "127.0.0.1:http" ` + setupNoAddress},
		{"status 127.0.0.1:65536", 3, `status: "127.0.0.1:65536" ` + setupNoAddress},
		{"status 127.0.0.1:", 3, `status: "127.0.0.1:" ` + setupNoAddress},
		{"Status 127.0.0.1:8053", 3, `unknown property "Status", want one of ` + setupNames},
		{"Port 80", 3, `unknown property "Port", want one of ` + setupNames},
		// Braces where none belong.
		{"port 80 {\nrise 5\n}", 3, `port is followed by "{", but properties have no block`},
		{"port 80 {\n}", 3, `port is followed by "{", but properties have no block`},
		{"port 80\n{\n}", 4, `unexpected "{", want a property on a line of its own, and { at the end of the line with shaker`},
	}
	for _, tt := range tests {
		t.Run(tt.properties, func(t *testing.T) {
			err := setupValidate("Corefile", ". {\nshaker example.org {\n"+tt.properties+"\n}\n}\n")
			want := fmt.Sprintf("plugin/shaker: Corefile:%d - Error during parsing: %s", tt.line, tt.want)
			if got := fmt.Sprint(err); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// Mistakes that are not in a property.
func TestSetupMistakesAroundStanzas(t *testing.T) {
	const (
		zone    = `is neither a domain name nor a CIDR of a reverse zone`
		oneName = `has a space, want one name; what a variable holds is a single one`
		port    = `has a port or a transport, want the name alone; ports to check are a property`
	)
	t.Setenv("SHAKER_TEST_TWO", "example.org example.net")
	tests := []struct {
		corefile string
		want     string
	}{
		{". {\nshaker a..b\n}\n", `Corefile:2 - Error during parsing: zone "a..b" ` + zone},
		{". {\nshaker example.org: {\n}\n}\n", `Corefile:2 - Error during parsing: zone "example.org:" ` + zone},
		{". {\nshaker \"\" {\n}\n}\n", `Corefile:2 - Error during parsing: zone "" ` + zone},
		{". {\nshaker {$SHAKER_TEST_UNSET} {\n}\n}\n", `Corefile:2 - Error during parsing: zone "" ` + zone},
		{". {\nshaker ::/0\n}\n", `Corefile:2 - Error during parsing: zone "::/0" ` + zone},
		{". {\nshaker 10.0.0.0/33\n}\n", `Corefile:2 - Error during parsing: zone "10.0.0.0/33" ` + zone},
		{". {\nshaker 10.0.0/8\n}\n", `Corefile:2 - Error during parsing: zone "10.0.0/8" ` + zone},
		{". {\nshaker 10/8\n}\n", `Corefile:2 - Error during parsing: zone "10/8" ` + zone},
		{". {\nshaker 10.0.0.0/255.0.0.0\n}\n", `Corefile:2 - Error during parsing: zone "10.0.0.0/255.0.0.0" ` + zone},
		{". {\nshaker 192.0.2.\n}\n", `Corefile:2 - Error during parsing: zone "192.0.2." ` + zone},
		{". {\nshaker ::ffff:10.0.0.0/104\n}\n", `Corefile:2 - Error during parsing: zone "::ffff:10.0.0.0/104" ` + zone},
		{". {\nshaker 0:0:0:0:0:ffff:a00:0/104\n}\n", `Corefile:2 - Error during parsing: zone "0:0:0:0:0:ffff:a00:0/104" ` + zone},
		// What no query could ever have.
		{". {\nshaker \"example.org example.net\"\n}\n", `Corefile:2 - Error during parsing: zone "example.org example.net." ` + oneName},
		{". {\nshaker {$SHAKER_TEST_TWO}\n}\n", `Corefile:2 - Error during parsing: zone "example.org example.net." ` + oneName},
		{"{$SHAKER_TEST_TWO} {\nshaker\n}\n", `Corefile:2 - Error during parsing: zone "example.org example.net." ` + oneName},
		{". {\nshaker example.org, example.net\n}\n", `Corefile:2 - Error during parsing: zone "example.org," has a comma, want spaces between zones`},
		{". {\nshaker example.org,example.net\n}\n", `Corefile:2 - Error during parsing: zone "example.org,example.net" has a comma, want spaces between zones`},
		{". {\nshaker example.org:443\n}\n", `Corefile:2 - Error during parsing: zone "example.org:443" ` + port},
		{". {\nshaker example.org:https\n}\n", `Corefile:2 - Error during parsing: zone "example.org:https" ` + port},
		{". {\nshaker tls://example.org\n}\n", `Corefile:2 - Error during parsing: zone "tls://example.org" ` + port},
		{". {\nshaker *.example.org\n}\n", `Corefile:2 - Error during parsing: zone "*.example.org" has a wildcard, want "example.org.", which holds all names below it`},
		{". {\nshaker *\n}\n", `Corefile:2 - Error during parsing: zone "*" has a wildcard, want ".", which holds all names below it`},
		{". {\nshaker müller.example\n}\n",
			`Corefile:2 - Error during parsing: zone "müller.example." is not ASCII, want the form that queries have, which begins with xn--`},
		{". {\nshaker a\\098c.example\n}\n", `Corefile:2 - Error during parsing: zone "a\\098c.example." is not spelled as in queries, want "abc.example."`},
		{". {\nshaker a(b).example\n}\n", `Corefile:2 - Error during parsing: zone "a(b).example." is not spelled as in queries, want "a\\(b\\).example."`},
		{". {\nshaker 10.0.0.1\n}\n", `Corefile:2 - Error during parsing: zone "10.0.0.1" ` + zone},
		{". {\nshaker 2001:db8::1\n}\n", `Corefile:2 - Error during parsing: zone "2001:db8::1" ` + zone},
		{". {\nshaker 2001:db8::/129\n}\n", `Corefile:2 - Error during parsing: zone "2001:db8::/129" ` + zone},
		{". {\nshaker\nshaker\n}\n",
			`Corefile:3 - Error during parsing: zone "." is in the stanza at Corefile:2 already; every zone needs exactly one`},
		{". {\nshaker example.org\n\nshaker EXAMPLE.ORG {\nrise 5\n}\n}\n",
			`Corefile:4 - Error during parsing: zone "example.org." is in the stanza at Corefile:2 already; every zone needs exactly one`},
		{". {\nshaker 10.2.0.0/15\nshaker 10.3.0.0/16\n}\n",
			`Corefile:3 - Error during parsing: zone "3.10.in-addr.arpa." is in the stanza at Corefile:2 already; every zone needs exactly one`},
		{". {\nshaker\n{\nport 80\n}\n}\n",
			`Corefile:3 - Error during parsing: unexpected "{", want a property on a line of its own, and { at the end of the line with shaker`},
		{". {\nshaker {\nport 80\n} rise 5\n}\n",
			`Corefile:4 - Error during parsing: unexpected "rise", want a property on a line of its own, and { at the end of the line with shaker`},
		// Properties of the process, in two stanzas and in two server blocks.
		{". {\nshaker a {\nmethod dial\n}\nshaker b {\nmethod socket\n}\n}\n",
			"Corefile:6 - Error during parsing: method: socket differs from dial at Corefile:3, but the whole process can have only one"},
		{"a {\nshaker {\nmethod socket\n}\n}\nb {\nshaker {\nmethod dial\n}\n}\n",
			"Corefile:8 - Error during parsing: method: dial differs from socket at Corefile:3, but the whole process can have only one"},
		{"a {\nshaker {\nlimit targets 5\n}\n}\nb {\nshaker {\nlimit targets 6\n}\n}\n",
			"Corefile:8 - Error during parsing: limit: targets: 6 differs from 5 at Corefile:3, but the whole process can have only one"},
		{"a {\nshaker {\nfreeze 95\n}\n}\nb {\nshaker {\nfreeze off\n}\n}\n",
			"Corefile:8 - Error during parsing: freeze: off differs from 95 5m0s at Corefile:3, but the whole process can have only one"},
		{"a {\nshaker {\nlimit rate 5\n}\n}\nb {\nshaker {\nlimit rate 6\n}\n}\n",
			"Corefile:8 - Error during parsing: limit: rate: 6 differs from 5 at Corefile:3, but the whole process can have only one"},
		{"a {\nshaker {\nstatus [::1]:8053\n}\n}\nb {\nshaker {\nstatus localhost:8053\n}\n}\n",
			"Corefile:8 - Error during parsing: status: localhost:8053 differs from [::1]:8053 at Corefile:3, but the whole process can have only one"},
	}
	for _, tt := range tests {
		if got, want := fmt.Sprint(setupValidate("Corefile", tt.corefile)), "plugin/shaker: "+tt.want; got != want {
			t.Errorf("%sgot  %s\nwant %s", tt.corefile, got, want)
		}
	}
}

// What is allowed, but hardly does what somebody meant by it, is told once for each stanza.
func TestSetupDoubts(t *testing.T) {
	allow := func(what string) string {
		return "Corefile:2: allow " + what + " changes nothing, since no deny holds it, and what no prefix holds is checked as well; " +
			"to check nothing else, add deny 0.0.0.0/0 ::/0"
	}
	reverse := func(zone string) string {
		return `Corefile:2: zone "` + zone + `" is a reverse zone, where answers have no addresses to check; to choose addresses, use allow and deny`
	}
	probe := func(answered, at string) string {
		return "Corefile:2: probe leads from " + answered + " to " + at + ", where nothing may be probed, so that it is not checked at all; " +
			"to check it there, add allow " + at
	}
	const everything = "deny 0.0.0.0/0 ::/0\n"
	for _, tt := range []struct{ block, stanza, want string }{
		{".", "shaker", ""},
		{".", "shaker {\nallow 10.0.0.0/8\n}", allow("10.0.0.0/8")},
		{".", "shaker {\nallow 192.0.2.7\n}", allow("192.0.2.7")},
		{".", "shaker {\nallow 10.0.0.0/8 192.168.0.0/16\nallow 2001:db8::/32\n}", allow("10.0.0.0/8 and 2 more")},
		{".", "shaker {\nallow 10.0.0.0/8\ndeny 10.1.0.0/16\n}", allow("10.0.0.0/8")},
		{".", "shaker {\nallow 10.0.0.0/8\ndeny 11.0.0.0/8\n}", allow("10.0.0.0/8")},
		{".", "shaker {\nallow 10.0.0.0/8\ndeny ::/0\n}", allow("10.0.0.0/8")},
		{".", "shaker {\nallow 2001:db8::/32 10.0.0.0/8\ndeny 0.0.0.0/0\n}", allow("2001:db8::/32")},
		{".", "shaker {\nallow ::ffff:10.0.0.0/104\n}", allow("10.0.0.0/8")},
		{".", "shaker {\nallow 126.0.0.0/7\n}", allow("126.0.0.0/7")}, // it does not lift what is denied by default
		{".", "shaker {\nallow 127.0.0.0/8 10.0.0.0/8\n}", allow("10.0.0.0/8")},
		{".", "shaker {\n" + everything + "allow 10.0.0.0/8 10.1.0.0/16 2001:db8::/32\n}", ""},
		{".", "shaker {\ndeny 10.0.0.0/8\nallow 10.1.0.0/16\n}", ""},
		{".", "shaker {\nallow 127.0.0.0/8\n}", ""},
		{".", "shaker {\nallow 127.0.0.0/8 127.0.0.1\n}", ""},
		{".", "shaker {\nallow 169.254.169.254 ::1 fe80::/10\n}", ""},
		{".", "shaker {\nallow 0.0.0.0/0 ::/0\n}", ""},
		{".", "shaker {\ndeny 0.0.0.0/0 ::/0\n}", ""},
		{".", "shaker 10.0.0.0/8", reverse("10.in-addr.arpa.")},
		{".", "shaker example.org 2001:db8::/32", reverse("8.b.d.0.1.0.0.2.ip6.arpa.")},
		{".", "shaker 2.0.192.in-addr.arpa", reverse("2.0.192.in-addr.arpa.")},
		{"example.org 10.0.0.0/8", "shaker", ""},
		{"example.org 10.0.0.0/8", "shaker example.org", ""},
		{".", "shaker {\nprobe 192.0.2.0/24 at 127.0.0.0/24\n}", probe("192.0.2.0/24", "127.0.0.0/24")},
		{".", "shaker {\nprobe 192.0.2.7 at 10.0.0.7 80\ndeny 10.0.0.0/8\n}", probe("192.0.2.7", "10.0.0.7")},
		{".", "shaker {\nprobe 192.0.2.0/24 at 10.0.0.0/24\ndeny 10.0.0.0/8\nallow 10.0.0.9\n}", ""},
		{".", "shaker {\nprobe 192.0.2.0/24 at 10.0.0.0/24\ndeny 10.0.0.9\n}", ""},
		{".", "shaker {\nprobe 192.0.2.0/24 at 127.0.0.0/24\nallow 127.0.0.0/8\n}", ""},
		// They do what they say.
		{".", "shaker {\npanic 0\nfallback all\nhold 0\nttl 0\nport any 443\nsort rtt\n}", ""},
		{"example.org", "shaker . {\nwatch www.example.org\n}", ""},
	} {
		log := lab.CaptureLog(t)
		setupRead(t, "Corefile", tt.block+" {\n"+tt.stanza+"\n}\n")
		want := ""
		if tt.want != "" {
			want = "[WARNING] plugin/shaker: " + tt.want + "\n"
		}
		if got := log.String(); got != want {
			t.Errorf("%s\ngot  %swant %s", tt.stanza, got, want)
		}
	}
}

// Reading a Corefile starts nothing and changes nothing: it may never come into force.
func TestSetupHasNoEffect(t *testing.T) {
	c := caddy.NewTestController("dns", "shaker {\nlimit targets 5\nmethod dial\nstatus 127.0.0.1:0\n}\n")
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if len(shared.leases) > 0 || shared.engine != nil || len(shared.status) > 0 {
		t.Errorf("setup left %d leases", len(shared.leases))
	}
}
