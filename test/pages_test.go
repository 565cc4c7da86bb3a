package test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	// What the Corefiles of the pages use.
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// root is where the pages and files are that the tests look at.
const root = ".."

// readFile returns the text of a file, by its path from the root.
func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fence is a fenced block of a page.
type fence struct {
	place    string // PAGE:LINE
	language string
	text     string
}

// fences returns the blocks in a language, of all pages for users.
func fences(t *testing.T, language string) (all []fence) {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		page, err := filepath.Rel(root, page)
		if err != nil {
			t.Fatal(err)
		}
		text := readFile(t, page)
		for _, match := range block.FindAllStringSubmatchIndex(text, -1) {
			if text[match[2]:match[3]] == language {
				place := fmt.Sprintf("%s:%d", page, 1+strings.Count(text[:match[4]], "\n"))
				all = append(all, fence{place, language, text[match[4]:match[5]]})
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("no page has a block in %q", language)
	}
	return all
}

// fenceWith returns the only block in a language that has a text in it.
func fenceWith(t *testing.T, language, text string) string {
	t.Helper()
	var found []fence
	for _, f := range fences(t, language) {
		if strings.Contains(f.text, text) {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		t.Fatalf("no block in %q has %q", language, text)
	case 1:
	default:
		t.Fatalf("%q is at %s, and at %s", text, found[0].place, found[1].place)
	}
	return found[0].text
}

// shownCorefiles returns every Corefile that we show or install, by where it is. Those for the DNS of a cluster are left to
// the tests of cmd/coredns-all, which has the plugin.
func shownCorefiles(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, f := range fences(t, "corefile") {
		if !strings.Contains(f.text, " kubernetes ") {
			all[f.place] = f.text
		}
	}
	for _, path := range []string{"Corefile.example", "deploy/container/Corefile", "deploy/container/peers/Corefile", "deploy/laptop/Corefile", "deploy/package/Corefile"} {
		all[path] = readFile(t, path)
	}
	all[manifest] = manifestCorefile(t)
	return all
}

const manifest = "deploy/kubernetes/coredns.yaml"

// manifestCorefile returns the Corefile of the pods in Kubernetes.
func manifestCorefile(t *testing.T) string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^  Corefile: \|((?:\n    .*)+)`).FindStringSubmatch(readFile(t, manifest))
	if match == nil {
		t.Fatalf("no Corefile in %s", manifest)
	}
	return strings.ReplaceAll(match[1], "\n    ", "\n")
}

// Every Corefile starts, on loopback, and talks to nobody before it is asked, unless it watches names.
func TestShownCorefiles(t *testing.T) {
	corefiles := shownCorefiles(t)
	lab.CaptureLog(t)
	upstream, watched := newSilentUpstream(t), newSilentUpstream(t)
	rules := readFile(t, "overrides.example")
	t.Chdir(t.TempDir()) // other files are named relative to it
	if err := os.WriteFile("overrides.example", []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	makePeersKey(t)
	defer func(port string) { dnsserver.Port = port }(dnsserver.Port)
	dnsserver.Port = "0"
	for place, corefile := range corefiles {
		t.Run(place, func(t *testing.T) {
			makeZones(t, corefile)
			if strings.Contains(corefile, " geoip ") {
				corefile = strings.ReplaceAll(corefile, "GeoLite2-City.mmdb", geoDatabase(t))
			}
			forward := upstream
			if strings.Contains(corefile, " watch ") {
				forward = watched
			}
			corefile = amongPeers(corefile, "127.0.0.1", port(t), "127.0.0.1")
			corefile = onLoopback(corefile, forward.addr, port(t))
			if strings.Contains(corefile, " key file ") {
				corefile = strings.ReplaceAll(corefile, "Kexample.org.+013+45330", newZoneKey(t).base)
			}
			start(t, corefile)
			lab.Until(t, "shaker in\n"+corefile, func() bool { return labels(t)["monitor"] > 0 })
		})
	}
	upstream.expectSilence(t)
}

// onLoopback puts a Corefile on loopback, with ports that are free.
func onLoopback(corefile, upstream string, port int) string {
	// First, because the other ports may have it within them.
	corefile = strings.ReplaceAll(corefile, "1053", fmt.Sprint(port))
	for pattern, by := range map[string]string{
		`(?m)^( *forward \S+) [^{\n]*`:                         "$1 " + upstream + " ",
		`(?m)^( *(?:health|prometheus|ready|status))\b[^{\n]*`: "$1 127.0.0.1:0 ",
		`(?m)^( *lameduck) .*`:                                 "$1 1ms",
		`(?m)^( *overrides) .*`:                                "$1 overrides.example",
		`(?m)^ *bind .*\n`:                                     "",
	} {
		corefile = regexp.MustCompile(pattern).ReplaceAllString(corefile, by)
	}
	return regexp.MustCompile(`(?m)^[^\s#(}].*\{$`).ReplaceAllString(corefile, "$0\n    bind 127.0.0.1")
}

// amongPeers has a Corefile, where it has peers, be that of a replica with an address of loopback. It listens on a port there,
// joins others at the same port, and takes the keys of a file in the directory of the process.
func amongPeers(corefile, address string, port int, join ...string) string {
	group := fmt.Sprintf("$1 %s:%d", address, port)
	for _, other := range join {
		group += fmt.Sprintf(" %s:%d", other, port)
	}
	for pattern, by := range map[string]string{
		`(?m)^( *peers) \S+:\d+.*`:                              group,
		`(?m)^( *peers key) .*`:                                 "$1 peers.key",
		`(?m)^( *peers allow) .*`:                               "$1 127.0.0.0/8",
		`127\.0\.0\.\{\$REPLICA\}|\{\$(PEERS_ADDRESS|POD_IP)\}`: address,
	} {
		corefile = regexp.MustCompile(pattern).ReplaceAllString(corefile, by)
	}
	return corefile
}

// makePeersKey makes the file of keys that amongPeers has in Corefiles.
func makePeersKey(t *testing.T) {
	t.Helper()
	lab.FileIn(t, ".", "peers.key", "a key for tests, which is long enough\n")
	t.Setenv("PEERS_SITE", "ams")
}

// makeZones makes the zone files that a Corefile names.
func makeZones(t *testing.T, corefile string) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^ *file (db\.(\S+))$`).FindAllStringSubmatch(corefile, -1) {
		zone := fmt.Sprintf("$ORIGIN %s.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\n", match[2])
		if err := os.WriteFile(match[1], []byte(zone), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// silentUpstream stands where the Corefiles of the pages forward to.
type silentUpstream struct {
	addr string
	tcp  *net.TCPListener
	udp  *net.UDPConn
}

func newSilentUpstream(t *testing.T) *silentUpstream {
	t.Helper()
	u := &silentUpstream{addr: local(t)}
	addr := netip.MustParseAddrPort(u.addr)
	var err error
	if u.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.tcp.Close() })
	if u.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.udp.Close() })
	return u
}

// expectSilence checks that nobody has said anything. What was sent over loopback is there by now, so that the
// deadline only has to be in the future.
func (u *silentUpstream) expectSilence(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(50 * time.Millisecond)
	u.udp.SetReadDeadline(deadline)
	if n, from, err := u.udp.ReadFrom(make([]byte, 512)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("upstream got %d octets from %v (%v)", n, from, err)
	}
	u.tcp.SetDeadline(deadline)
	if c, err := u.tcp.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("upstream got a connection (%v)", err)
		if err == nil {
			c.Close()
		}
	}
}

// What the quick start shows is what happens.
func TestQuickStart(t *testing.T) {
	for _, command := range []string{
		"go run ./cmd/coredns -conf Corefile.example\n",
		"python3 -m http.server --bind 127.0.0.2 1053\n",
		"echo '127.0.0.2 down' >>overrides.example\necho '127.0.0.2 auto' >>overrides.example\n",
	} {
		if !slices.ContainsFunc(fences(t, "sh"), func(f fence) bool { return f.text == command }) {
			t.Errorf("the quick start has no %q", command)
		}
	}
	example := readFile(t, "Corefile.example")
	console := fenceWith(t, "console", "dig -p 1053")
	dig, output, _ := strings.Cut(strings.TrimPrefix(console, "$ "), "\n")
	if !strings.Contains(example, dig+"\n") {
		t.Errorf("Corefile.example does not say %q", dig)
	}
	match := regexp.MustCompile(`^dig -p 1053 @127\.0\.0\.1 (\S+) A$`).FindStringSubmatch(dig)
	if match == nil {
		t.Fatalf("unexpected command %q", dig)
	}
	shown := digRecords(t, output)

	lab.CaptureLog(t)
	rules := readFile(t, "overrides.example")
	t.Chdir(t.TempDir())
	override := func(more string) {
		rules += more
		if err := os.WriteFile("overrides.example", []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	override("")
	port := port(t)
	s := start(t, onLoopback(example, "", port))
	if want := fmt.Sprintf("127.0.0.1:%d", port); s.addr != want {
		t.Fatalf("listens on %s, want %s", s.addr, want)
	}
	name := dns.Fqdn(match[1])
	alive, second := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	s.until(name, dns.TypeA, []netip.Addr{alive})
	m := s.ask(name, dns.TypeA, withEDNS)
	if len(m.Answer) != len(shown) || len(m.Answer) != 1 || !reflect.DeepEqual(m.Answer[0].String(), shown[0].String()) {
		t.Errorf("the quick start shows %v, the answer is\n%v", shown, m)
	}
	if status := "status: " + dns.RcodeToString[m.Rcode]; !strings.Contains(output, status) {
		t.Errorf("the quick start shows another status than %q", status)
	}

	l, err := net.Listen("tcp", fmt.Sprintf("%v:%d", second, port))
	if err != nil {
		t.Fatal(err)
	}
	s.until(name, dns.TypeA, []netip.Addr{alive, second})
	override("127.0.0.2 down\n")
	s.until(name, dns.TypeA, []netip.Addr{alive})
	override("127.0.0.2 auto\n")
	s.until(name, dns.TypeA, []netip.Addr{alive, second})
	l.Close()
	s.until(name, dns.TypeA, []netip.Addr{alive})
}

// digRecords reads the records in the output of dig; everything else in it is a comment.
func digRecords(t *testing.T, output string) (records []dns.RR) {
	t.Helper()
	parser := dns.NewZoneParser(strings.NewReader(output), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		records = append(records, rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}
