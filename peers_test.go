package shaker

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// peersKey is what a key file may hold.
const peersKey = "dYgN0Zd4LqTtJv2mWnXb\n"

// What stanzas say of other replicas, wherever they do.
func TestPeersSettings(t *testing.T) {
	key := lab.File(t, "key", peersKey)
	at := func(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }
	tests := []struct {
		corefile string
		want     peerSettings
	}{
		{". {\nshaker\n}\n", peerSettings{}},
		{". {\nshaker {\npeers 127.0.0.1:7946\n}\n}\n", peerSettings{
			listen: setting[listen]{listen{at("127.0.0.1:7946"), ""}, "Corefile:3"}}},
		{". {\nshaker {\npeers [::ffff:127.0.0.1]:1 127.0.0.1:1 [2001:db8::1]:65535 shaker.example.org:80 shaker:7\n}\n}\n", peerSettings{
			listen: setting[listen]{listen{at("127.0.0.1:1"), "127.0.0.1:1 [2001:db8::1]:65535 shaker.example.org:80 shaker:7"}, "Corefile:3"}}},
		{". {\nshaker {\npeers [2001:db8::1]:7946\npeers key KEY\npeers site a-b_c.9 quorum\npeers observers 15\npeers allow 10.1.2.3/8 2001:db8::1\n}\n}\n", peerSettings{
			listen:    setting[listen]{listen{at("[2001:db8::1]:7946"), ""}, "Corefile:3"},
			key:       setting[string]{key, "Corefile:4"},
			site:      setting[site]{site{"a-b_c.9", true}, "Corefile:5"},
			observers: setting[int]{15, "Corefile:6"},
			allow:     setting[string]{"10.0.0.0/8 2001:db8::1", "Corefile:7"}}},
		// Several stanzas may say the same, and each may say a part of it.
		{"a {\nshaker {\npeers observers 1\npeers site Zürich\n}\n}\nb {\nshaker {\npeers observers 1\npeers site Zürich\npeers key KEY\npeers allow 10.0.0.0/8\n}\n}\nc {\nshaker {\npeers key KEY\npeers allow 10.9.9.9/8\n}\n}\n", peerSettings{
			key:       setting[string]{key, "Corefile:11"},
			site:      setting[site]{site{"Zürich", false}, "Corefile:4"},
			observers: setting[int]{1, "Corefile:3"},
			allow:     setting[string]{"10.0.0.0/8", "Corefile:12"}}},
	}
	for _, tt := range tests {
		if _, got := setupRead(t, "Corefile", strings.ReplaceAll(tt.corefile, "KEY", key)); got.peers != tt.want {
			t.Errorf("%sgot  %+v\nwant %+v", tt.corefile, got.peers, tt.want)
		}
	}
}

// Mistakes in one line about other replicas.
func TestPeersMistakes(t *testing.T) {
	const (
		address = "want the IP address and port at which the other replicas reach this one, such as 192.0.2.1:7946 or [2001:db8::1]:7946"
		words   = address + "; other words are key, site, observers and allow"
		join    = "want the IP address or name of another replica and its port, such as 192.0.2.2:7946 or shaker.example.org:7946"
		machine = "is no address at which all find another machine, " + join
		site    = "is not possible, want a name of letters, digits and -_. with 63 octets at most"
	)
	long := strings.Repeat("a", 64)
	for _, tt := range []struct{ properties, want string }{
		{"peers", "peers has no value, want peers ADDRESS:PORT [JOIN...] | key FILE | site NAME [quorum] | observers COUNT | allow CIDR..."},
		{"peers 192.0.2.1", `peers: "192.0.2.1" is not possible, ` + words},
		{"peers localhost:7946", `peers: "localhost:7946" is not possible, ` + words},
		{"peers :7946", `peers: ":7946" is not possible, ` + words},
		{"peers ::1:7946", `peers: "::1:7946" is not possible, ` + words},
		{"peers 192.0.2.1:65536", `peers: "192.0.2.1:65536" is not possible, ` + words},
		{"peers keys FILE", `peers: "keys" is not possible, ` + words},
		{"peers 192.0.2.1:0", `peers: "192.0.2.1:0" has no port that others could know, ` + address},
		{"peers 0.0.0.0:7946", `peers: "0.0.0.0:7946" stands for all addresses, so that others do not know this one, ` + address},
		{"peers [::]:7946", `peers: "[::]:7946" stands for all addresses, so that others do not know this one, ` + address},
		{"peers [::ffff:0.0.0.0]:7946", `peers: "[::ffff:0.0.0.0]:7946" stands for all addresses, so that others do not know this one, ` + address},
		{"peers [fe80::1%eth0]:7946", `peers: "[fe80::1%eth0]:7946" has a zone, which means nothing to other machines, ` + address},
		{"peers 224.0.0.1:7946", `peers: "224.0.0.1:7946" is no address of a machine, ` + address},
		{"peers 255.255.255.255:7946", `peers: "255.255.255.255:7946" is no address of a machine, ` + address},
		{"peers [ff02::1]:7946", `peers: "[ff02::1]:7946" is no address of a machine, ` + address},
		{"peers 192.0.2.1:7946 192.0.2.2", `peers: "192.0.2.2" is not possible, ` + join},
		{"peers 192.0.2.1:7946 shaker.example.org", `peers: "shaker.example.org" is not possible, ` + join},
		{"peers 192.0.2.1:7946 shaker.example.org:0", `peers: "shaker.example.org:0" is not possible, ` + join},
		{"peers 192.0.2.1:7946 shaker.example.org:dns", `peers: "shaker.example.org:dns" is not possible, ` + join},
		{"peers 192.0.2.1:7946 shaker..org:1", `peers: "shaker..org:1" is not possible, ` + join},
		{"peers 192.0.2.1:7946 *.example.org:1", `peers: "*.example.org:1" is not possible, ` + join},
		{"peers 192.0.2.1:7946 .:1", `peers: ".:1" is not possible, ` + join},
		{"peers 192.0.2.1:7946 :1", `peers: ":1" is not possible, ` + join},
		{"peers 192.0.2.1:7946 10.0.0:1", `peers: "10.0.0:1" is not possible, ` + join},
		{"peers 192.0.2.1:7946 key FILE", `peers: "key" is not possible, ` + join},
		{"peers 192.0.2.1:7946 0.0.0.0:1", `peers: "0.0.0.0:1" ` + machine},
		{"peers 192.0.2.1:7946 [fe80::2%eth0]:1", `peers: "[fe80::2%eth0]:1" ` + machine},
		{"peers 192.0.2.1:7946 192.0.2.2:0", `peers: "192.0.2.2:0" is not possible, ` + join},
		{"peers 192.0.2.1:7946 192.0.2.2:1 192.0.2.2:1", `peers: "192.0.2.2:1" is given twice`},
		{"peers key", `peers: "key" has nothing behind it, want key FILE`},
		{"peers key a b", `peers: key: "b" is one value too many, want a single one`},
		{"peers site", `peers: "site" has nothing behind it, want site NAME [quorum]`},
		{"peers site quorum", `peers: site: "quorum" stands first, want NAME, or NAME quorum`},
		{"peers site quorum a", `peers: site: "quorum" stands first, want NAME, or NAME quorum`},
		{"peers site a b", `peers: site: "a b" is not possible, want NAME, or NAME quorum`},
		{"peers site a quorum b", `peers: site: "a quorum b" is not possible, want NAME, or NAME quorum`},
		{"peers site a/b", `peers: site: "a/b" ` + site},
		{`peers site "a b"`, `peers: site: "a b" ` + site},
		{`peers site ""`, `peers: site: "" ` + site},
		{"peers site " + long, `peers: site: "` + long + `" ` + site},
		{"peers observers", `peers: "observers" has nothing behind it, want observers COUNT`},
		{"peers observers 0", `peers: observers: "0" is not possible, want a number from 1 to 15`},
		{"peers observers 16", `peers: observers: "16" is not possible, want a number from 1 to 15`},
		{"peers observers three", `peers: observers: "three" is not possible, want a number from 1 to 15`},
		{"peers observers 3 3", `peers: observers: "3" is one value too many, want a single one`},
		{"peers allow", `peers: "allow" has nothing behind it, want allow CIDR...`},
		{"peers allow 10.0.0.0/33", `peers: allow: ` + peersNoCIDR(t, "10.0.0.0/33")},
		{"peers allow example.org", `peers: allow: ` + peersNoCIDR(t, "example.org")},
		{"peers allow 10.0.0.1/8 10.0.0.2/8", `peers: allow: "10.0.0.2/8" is given twice`},
	} {
		err := setupValidate("Corefile", ". {\nshaker example.org {\n"+tt.properties+"\n}\n}\n")
		if got, want := fmt.Sprint(err), "plugin/shaker: Corefile:3 - Error during parsing: "+tt.want; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.properties, got, want)
		}
	}
}

// peersNoCIDR returns what other properties say to what is no CIDR.
func peersNoCIDR(t *testing.T, arg string) string {
	_, problem, ok := strings.Cut(fmt.Sprint(setupValidate("Corefile", ". {\nshaker {\ndeny "+arg+"\n}\n}\n")), "deny: ")
	if !ok {
		t.Fatalf("deny takes %s", arg)
	}
	return problem
}

// What stanzas say of other replicas has to be the same.
func TestPeersDifferences(t *testing.T) {
	keys := [2]string{lab.File(t, "one", peersKey), lab.File(t, "two", peersKey)}
	for _, tt := range [][2]string{
		{"192.0.2.1:7946", "192.0.2.2:7946"},
		{"192.0.2.1:7946", "192.0.2.1:7946 192.0.2.2:7946"},
		{"192.0.2.1:7946 192.0.2.3:1 192.0.2.2:7946", "192.0.2.1:7946 192.0.2.2:7946"},
		{"key " + keys[0], "key " + keys[1]},
		{"site a", "site b"},
		{"site a", "site a quorum"},
		{"observers 3", "observers 1"},
		{"allow 10.0.0.0/8", "allow 10.0.0.0/8 192.0.2.0/24"},
	} {
		about, value := "", tt
		if word, rest, ok := strings.Cut(tt[0], " "); ok && !strings.Contains(word, ":") {
			about, value = word+": ", [2]string{rest, strings.TrimPrefix(tt[1], word+" ")}
		}
		want := fmt.Sprintf("plugin/shaker: Corefile:8 - Error during parsing: peers: %s%s differs from %s at Corefile:3, but the whole process can have only one",
			about, value[1], value[0])
		corefile := fmt.Sprintf("a {\nshaker {\npeers %s\n}\n}\nb {\nshaker {\npeers %s\n}\n}\n", tt[0], tt[1])
		if got := fmt.Sprint(setupValidate("Corefile", corefile)); got != want {
			t.Errorf("%sgot  %s\nwant %s", corefile, got, want)
		}
	}
}

// Mistakes that show only when all stanzas are read.
func TestPeersMistakesOfTheWhole(t *testing.T) {
	key := "key " + lab.File(t, "key", peersKey)
	const noAddress = "does nothing without an address to listen on, want peers ADDRESS:PORT as well"
	const listen = "192.0.2.1:7946"
	for _, tt := range []struct{ lines, want string }{
		{"", ""},
		{listen + "\n" + key, ""},
		{listen + " 192.0.2.2:7946\n" + key + "\nsite a quorum\nobservers 5\nallow 192.0.2.0/24", ""},
		{listen, "Corefile:3: peers: there is no key, without which anybody could decide what is down; want peers key FILE as well"},
		{key, "Corefile:3: peers: key " + noAddress},
		{"site a", "Corefile:3: peers: site " + noAddress},
		{"observers 3", "Corefile:3: peers: observers " + noAddress},
		{"allow 192.0.2.0/24", "Corefile:3: peers: allow " + noAddress},
		// Whom we speak to has to be allowed. A name may lead to anything, and this replica is not its own peer.
		{listen + " shaker.example.org:7946 192.0.2.1:7946\n" + key + "\nallow 198.51.100.0/24", ""},
		{listen + " [::ffff:198.51.100.7]:7946\n" + key + "\nallow 198.51.100.0/24", ""},
		{listen + " 198.51.100.7:7946 192.0.2.2:7946\n" + key + "\nallow 198.51.100.0/24",
			"Corefile:5: peers: allow has no CIDR with 192.0.2.2 in it, which is to be joined (Corefile:3) but may not speak to us then; add it"},
		{listen + " 192.0.2.1:7947\n" + key + "\nallow 198.51.100.0/24",
			"Corefile:5: peers: allow has no CIDR with 192.0.2.1 in it, which is to be joined (Corefile:3) but may not speak to us then; add it"},
	} {
		corefile := ". {\nshaker {\n"
		for line := range strings.Lines(tt.lines) {
			corefile += "peers " + strings.TrimSpace(line) + "\n"
		}
		corefile += "}\n}\n"
		_, process := setupRead(t, "Corefile", corefile)
		err := (&instance{settings: process}).check()
		if got := fmt.Sprint(err); err != nil && got != tt.want || err == nil && tt.want != "" {
			t.Errorf("%sgot  %s\nwant %s", corefile, got, tt.want)
		}
	}
}

// A relative path of the key file starts at the root.
func TestPeersKeyFile(t *testing.T) {
	key := lab.File(t, "key", peersKey)
	c := caddy.NewTestController("dns", "shaker {\npeers key key\n}\n")
	dnsserver.GetConfig(c).Root = strings.TrimSuffix(key, "/key")
	var process processSettings
	if _, err := parse(c, &process); err != nil || process.peers.key.value != key {
		t.Errorf("%v, key file %q, want %q", err, process.peers.key.value, key)
	}
}

// Mistakes in the key file are those of the line that names it. What is not safe is a doubt, once for each file.
func TestPeersKeyFileMistakes(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{"short\n": "is a key of 5 characters", "": "has no key"} {
		err := setupValidate("Corefile", ". {\nshaker {\npeers key "+lab.FileIn(t, dir, "key", text)+"\n}\n}\n")
		if got := fmt.Sprint(err); !strings.HasPrefix(got, "plugin/shaker: Corefile:3 - Error during parsing: peers: key: ") || !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %q in it", text, got, want)
		}
	}
	err := setupValidate("Corefile", ". {\nshaker {\npeers key "+filepath.Join(dir, "none")+"\n}\n}\n")
	if !errors.Is(err, fs.ErrNotExist) && !strings.Contains(fmt.Sprint(err), "no such file") {
		t.Errorf("a key file that is missing: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	key, log := lab.FileIn(t, dir, "key", peersKey), lab.CaptureLog(t)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	setupRead(t, "Corefile", "a {\nshaker {\npeers key "+key+"\n}\n}\nb {\nshaker {\npeers key "+key+"\n}\n}\n")
	if lines := log.Take(); len(lines) != 1 || !strings.Contains(lines[0], "[WARNING] plugin/shaker: Corefile:3: peers: key: "+key+" has the mode 0644") {
		t.Errorf("logged %q", lines)
	}
}

// What others may ask to be checked here is what any stanza could lead to.
func TestPeersGrants(t *testing.T) {
	blocks, process := setupRead(t, "Corefile", `a {
		shaker {
			idle 1m
			deny 10.0.0.0/8 2001:db8::/32
			source 192.0.2.1
		}
		shaker b {
			idle 2m
			allow 10.1.0.0/16
			deny 10.0.0.0/8
			source 192.0.2.2 2001:db8::2
		}
	}
	c {
		shaker {
			rise 7
			idle 3m
			allow 127.0.0.0/8
			probe 198.51.100.0/24 at 127.0.0.0/24
		}
	}
	`)
	inst := &instance{settings: process}
	for _, policies := range blocks {
		inst.handlers = append(inst.handlers, newShaker(policies, inst))
	}
	g := grantsOf(inst)
	usual, seven := defaultPolicy().settings, defaultPolicy().settings
	seven.Rise = 7
	var offered []uint64
	for _, k := range g.offers {
		offered = append(offered, health.Fingerprint(k))
	}
	if want := []uint64{peersFingerprint(usual), peersFingerprint(seven)}; !slices.Equal(offered, want) {
		t.Errorf("offers %x, want %x", offered, want)
	}
	for _, tt := range []struct {
		settings health.Settings
		at       string
		source   string // empty where it may not be checked, or nobody has set it
		keep     time.Duration
	}{
		{usual, "192.0.2.7:80", "192.0.2.1", 2 * time.Minute},
		{usual, "10.1.0.1:80", "192.0.2.2", 2 * time.Minute},
		{usual, "10.2.0.1:80", "", 0},
		{usual, "[2001:db8::7]:80", "2001:db8::2", 2 * time.Minute},
		{usual, "[2001:db9::7]:80", "invalid IP", 2 * time.Minute},
		{usual, "127.0.0.1:80", "", 0},
		{usual, "[::ffff:192.0.2.7]:80", "", 0},
		{usual, "[2001:db8::7%eth0]:80", "", 0},
		{usual, "192.0.2.7:0", "", 0},
		{seven, "127.0.0.1:80", "invalid IP", 3 * time.Minute},
		{seven, "192.0.2.7:65535", "invalid IP", 3 * time.Minute},
		{seven, "10.2.0.1:80", "invalid IP", 3 * time.Minute},
		{health.Settings{}, "192.0.2.7:80", "", 0},
	} {
		k, keep, ok := g.mayCheck(health.Subject{Addr: netip.MustParseAddrPort(tt.at), Settings: peersFingerprint(tt.settings)})
		if ok != (tt.keep > 0) || keep != tt.keep {
			t.Errorf("%s: %v for %v, want %v", tt.at, ok, keep, tt.keep)
			continue
		}
		if !ok {
			continue
		}
		want := tt.settings
		if got := k.Value().Source; got.String() != tt.source {
			t.Errorf("%s from %v, want %s", tt.at, got, tt.source)
		} else if want.Source = got; k.Value() != want {
			t.Errorf("%s with %+v, want %+v", tt.at, k.Value(), want)
		}
	}
	if _, _, ok := g.mayCheck(health.Subject{Settings: offered[0]}); ok {
		t.Error("no address may be checked")
	}
	c := process.peers.config(g)
	if !reflect.DeepEqual(c.Offers, g.offers) || c.Observers != 3 || c.Shaker != Version() {
		t.Errorf("%+v", c)
	}
}

func peersFingerprint(s health.Settings) uint64 { return health.Fingerprint(unique.Make(s)) }
