package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

const (
	headless  = "db.shop.svc.cluster.local."
	clusterIP = "web.shop.svc.cluster.local."
)

// A pod that does not answer leaves the answers of a headless service, and comes back. What is not allowed stays as it is,
// and is not checked.
func TestKubernetes(t *testing.T) { lab.Apart(t, testKubernetes) }

func testKubernetes(t *testing.T) {
	lab.CaptureLog(t)
	c := newCluster(t)
	c.shop(1, 2, 3)
	first, second := c.listen(1), c.listen(2)
	c.serve(corefileWith(t, "shaker shop.svc.cluster.local {"))
	c.until(headless, pods(1, 2))
	services := c.ask("_sql._tcp."+headless, dns.TypeSRV)
	if len(services.Answer) != 2 || !slices.Equal(addresses(services.Extra), pods(1, 2)) {
		t.Errorf("the services of two pods that live are\n%v", services)
	}

	virtual := netip.MustParseAddr("127.96.0.10")
	for qname, want := range map[string]netip.Addr{
		clusterIP:                                virtual,
		"127-244-1-9.shop.pod.cluster.local.":    pod(9), // pods insecure makes it of the name
		"127-244-1-3.db.shop.svc.cluster.local.": pod(3), // the only one of its name: fallback all
	} {
		if got := addresses(c.ask(qname, dns.TypeA).Answer); !slices.Equal(got, []netip.Addr{want}) {
			t.Errorf("%s has %v, want %v", qname, got, want)
		}
	}
	if got := c.targets(); !slices.Equal(got, pods(1, 2, 3)) {
		t.Errorf("%v are checked, want the pods of the headless service", got)
	}

	c.listen(3)
	c.until(headless, pods(1, 2, 3))
	c.listen(4)
	c.endpoints(2, 3, 4, 5)
	c.until(headless, pods(2, 3, 4))
	first.Close()
	second.Close()
	c.until(headless, pods(3, 4))

	c.reload()
	if got := addresses(c.ask(headless, dns.TypeA).Answer); !slices.Equal(got, pods(3, 4)) {
		t.Errorf("after a reload the first answer has %v, want %v", got, pods(3, 4))
	}
}

// While no pod listens all are answered. The first that does is the only one.
func TestKubernetesFirstMember(t *testing.T) { lab.Apart(t, testKubernetesFirstMember) }

func testKubernetesFirstMember(t *testing.T) {
	lines := lab.CaptureLog(t)
	c := newCluster(t)
	c.shop(1, 2, 3)
	c.serve(corefileWith(t, "shaker shop.svc.cluster.local {"))
	c.until(headless, pods(1, 2, 3))
	for n := range 3 {
		lines.Expect(t, regexp.MustCompile(fmt.Sprintf(`%v:%d is down`, pod(n+1), c.port)))
	}
	if got := addresses(c.ask(headless, dns.TypeA).Answer); !slices.Equal(got, pods(1, 2, 3)) {
		t.Errorf("with no pod that lives the answer has %v, want all", got)
	}
	c.listen(1)
	c.until(headless, pods(1))
}

// Until the API server is there CoreDNS is not ready. Then it knows which pods are dead before anybody asks.
func TestKubernetesComesLate(t *testing.T) { lab.Apart(t, testKubernetesComesLate) }

func testKubernetesComesLate(t *testing.T) {
	lab.CaptureLog(t)
	c := newCluster(t)
	c.shop(1, 2, 3)
	c.listen(1)
	c.listen(2)
	c.api.goAway(true)
	corefile := corefileWith(t, "watch db.shop.svc.cluster.local")
	c.serve(strings.Replace(corefile, "ip6.arpa {", "ip6.arpa {\n        startup_timeout 100ms", 1))
	if m := c.ask(headless, dns.TypeA); m.Rcode != dns.RcodeServerFailure || c.isReady() {
		t.Errorf("without the API server it is ready: %v, and answers\n%v", c.isReady(), m)
	}
	c.api.goAway(false)
	lab.Until(t, "ready", c.isReady)
	if got := addresses(c.ask(headless, dns.TypeA).Answer); !slices.Equal(got, pods(1, 2)) {
		t.Errorf("the first answer has %v, want %v", got, pods(1, 2))
	}
}

// What the page tells not to do, and why. Each has a process of its own: the plugin kubernetes sets the logger of the
// Kubernetes client anew with each start, while goroutines of the one before may still read it, which is a race.
func TestKubernetesMistakes(t *testing.T) {
	virtual := netip.MustParseAddr("127.96.0.10")
	for _, tt := range []struct {
		name, stanza, qname string
		answer, targets     []netip.Addr
	}{
		{"names of pods are checked", "shaker cluster.local {\n        allow 127.0.0.0/8\n    }",
			"127-0-0-9.shop.pod.cluster.local.", []netip.Addr{netip.MustParseAddr("127.0.0.9")}, []netip.Addr{netip.MustParseAddr("127.0.0.9")}},
		{"and not in the zone of services", "shaker svc.cluster.local {\n        allow 127.0.0.0/8\n    }",
			"127-0-0-9.shop.pod.cluster.local.", []netip.Addr{netip.MustParseAddr("127.0.0.9")}, nil},
		{"address of a service, on a port that it has not", "shaker svc.cluster.local {\n        allow 127.0.0.0/8\n    }",
			clusterIP, []netip.Addr{virtual}, []netip.Addr{virtual}},
		{"address of a service, with nodata", "shaker svc.cluster.local {\n        allow 127.0.0.0/8\n        fallback nodata\n    }",
			clusterIP, nil, []netip.Addr{virtual}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Apart(t, func(t *testing.T) {
				lab.CaptureLog(t)
				c := newCluster(t)
				c.shop()
				stanza := strings.Replace(tt.stanza, " {\n", " {\n        port 1\n        status 127.0.0.1:8053\n", 1)
				corefile := corefileWith(t, "shaker shop.svc.cluster.local {")
				c.serve(regexp.MustCompile(`(?s)shaker shop.svc.cluster.local \{.*?\}`).ReplaceAllString(corefile, stanza))
				c.until(tt.qname, tt.answer)
				if got := c.targets(); !slices.Equal(got, tt.targets) {
					t.Errorf("%v are checked, want %v", got, tt.targets)
				}
			})
		})
	}
}

// Every Corefile for a cluster that we show starts.
func TestClusterCorefiles(t *testing.T) {
	corefiles := pageCorefiles(t)
	manifest, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes", "cluster", "configmap.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^  Corefile: \|((?:\n    .*)+)`).FindSubmatch(manifest)
	if len(corefiles) == 0 || match == nil {
		t.Fatalf("%d Corefiles in %s, %q in the manifest", len(corefiles), page, match)
	}
	corefiles = append(corefiles, strings.ReplaceAll(string(match[1]), "\n    ", "\n"))
	for i, corefile := range corefiles {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			lab.Apart(t, func(t *testing.T) {
				lab.CaptureLog(t)
				c := newCluster(t)
				c.shop(1, 2)
				c.listen(1)
				c.serve(corefile)
				c.until(headless, pods(1))
			})
		})
	}
}

// A check asks no API server. Outside of a cluster it cannot do without being told of one.
func TestKubernetesCheck(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	corefile := corefileWith(t, "shaker shop.svc.cluster.local {")
	for _, tt := range []struct{ name, endpoint, want string }{
		{"told of one", "\n        endpoint http://" + listener.Addr().String(), "    shaker shop.svc.cluster.local. {\n"},
		{"outside", "", "unable to load in-cluster configuration"},
	} {
		path := lab.File(t, "Corefile", strings.Replace(corefile, "ip6.arpa {", "ip6.arpa {"+tt.endpoint, 1))
		cmd := command(t, "-conf", path, "-check")
		cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, "KUBERNETES_") })
		text, err := cmd.CombinedOutput()
		if (err == nil) != (tt.endpoint != "") || !strings.Contains(string(text), tt.want) {
			t.Errorf("%s: %v\n%s\nwant %q", tt.name, err, text, tt.want)
		}
	}
	expectNobody(t, listener)
}
