package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"github.com/miekg/dns"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// cluster is a CoreDNS that is the DNS of a cluster, in which there is nothing but an API server. The pods of the examples,
// 10.244.0.0/16, are at 127.244.0.0/16.
type cluster struct {
	t     *testing.T
	api   *apiServer
	port  int // of all pods
	inst  *caddy.Instance
	input caddy.Input
	addr  string // of CoreDNS, by UDP
	ready string // address of the plugin
	page  string // address of shaker's status page
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{t: t, api: newAPIServer(t), port: lab.Port(t), ready: lab.Local(t), page: lab.Local(t)}
}

// shop is a namespace with two services: db is headless, and web has an address of its own.
func (c *cluster) shop(pods ...int) {
	port := []core.ServicePort{{Name: "sql", Protocol: core.ProtocolTCP, Port: int32(c.port)}}
	c.api.put(
		&core.Namespace{ObjectMeta: meta.ObjectMeta{Name: "shop"}},
		&core.Service{ObjectMeta: meta.ObjectMeta{Name: "db", Namespace: "shop"},
			Spec: core.ServiceSpec{ClusterIP: core.ClusterIPNone, ClusterIPs: []string{core.ClusterIPNone}, Ports: port}},
		&core.Service{ObjectMeta: meta.ObjectMeta{Name: "web", Namespace: "shop"},
			Spec: core.ServiceSpec{ClusterIP: "127.96.0.10", ClusterIPs: []string{"127.96.0.10"}, Ports: port}})
	c.endpoints(pods...)
}

// endpoints makes pods those of the service db.
func (c *cluster) endpoints(pods ...int) {
	name, protocol, port, ready := "sql", core.ProtocolTCP, int32(c.port), true
	slice := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Name: "db-1", Namespace: "shop", Labels: map[string]string{discovery.LabelServiceName: "db"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	for _, n := range pods {
		slice.Endpoints = append(slice.Endpoints, discovery.Endpoint{
			Addresses: []string{pod(n).String()}, Conditions: discovery.EndpointConditions{Ready: &ready}})
	}
	c.api.put(slice)
}

func pod(n int) netip.Addr { return netip.AddrFrom4([4]byte{127, 244, 1, byte(n)}) }

func pods(numbers ...int) (addrs []netip.Addr) {
	for _, n := range numbers {
		addrs = append(addrs, pod(n))
	}
	return addrs
}

// listen brings a pod to life.
func (c *cluster) listen(n int) net.Listener {
	c.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(pod(n), uint16(c.port)).String())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	return l
}

// serve starts CoreDNS with a Corefile of a page or a manifest, on loopback and with this API server.
func (c *cluster) serve(corefile string) {
	c.t.Helper()
	address := lab.Local(c.t)
	_, port, _ := net.SplitHostPort(address)
	for pattern, by := range map[string]string{
		`(?m)^( *)kubernetes [^{\n]*\{`:              "$0\n$1    endpoint " + c.api.url,
		`(?m)^( *forward \S+) [^{\n]*`:               "$1 " + newUpstream(c.t) + " ",
		`(?m)^( *(?:health|prometheus))\b.*?( \{)?$`: "$1 127.0.0.1:0$2",
		`(?m)^( *lameduck) .*`:                       "$1 1ms",
		`(?m)^( *ready)\b.*`:                         "$1 " + c.ready,
		`(?m)^( *status) .*`:                         "$1 " + c.page,
		`(?m)^( *port) \d+$`:                         fmt.Sprintf("$1 %d", c.port),
		`\b10\.(244|96)\.`:                           "127.$1.",
		`(?m)^(\S+):53 \{$`:                          "$1:" + port + " {\n    bind 127.0.0.1",
	} {
		corefile = regexp.MustCompile(pattern).ReplaceAllString(corefile, by)
	}
	input := caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
	// What the plugin reload reads every half minute.
	caddy.SetDefaultCaddyfileLoader("test", caddy.LoaderFunc(func(string) (caddy.Input, error) { return input, nil }))
	inst, err := caddy.Start(input)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, corefile)
	}
	c.inst, c.input, c.addr = inst, input, address
	c.t.Cleanup(func() {
		for _, err := range c.inst.ShutdownCallbacks() {
			c.t.Error(err)
		}
		c.inst.Stop()
	})
}

// reload reads the same Corefile again.
func (c *cluster) reload() {
	c.t.Helper()
	inst, err := c.inst.Restart(c.input)
	if err != nil {
		c.t.Fatal(err)
	}
	c.inst = inst
}

// newUpstream returns the address of a server that knows no name, until the end of the test.
func newUpstream(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
	})}
	go upstream.ActivateAndServe()
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

// ask sends one query, which has EDNS, and returns the answer.
func (c *cluster) ask(qname string, qtype uint16) *dns.Msg {
	c.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(qname, qtype)
	q.SetEdns0(1232, false)
	client := dns.Client{Timeout: time.Minute}
	m, _, err := client.Exchange(q, c.addr)
	if err != nil {
		c.t.Fatalf("%s: %v", qname, err)
	}
	return m
}

// until asks until the answer has these addresses.
func (c *cluster) until(qname string, want []netip.Addr) {
	c.t.Helper()
	lab.UntilNil(c.t, func() error {
		if got := addresses(c.ask(qname, dns.TypeA).Answer); !slices.Equal(got, want) {
			return fmt.Errorf("%s: %v, want %v", qname, got, want)
		}
		return nil
	})
}

// addresses returns those of A records, sorted.
func addresses(records []dns.RR) (addrs []netip.Addr) {
	for _, rr := range records {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// isReady asks as the kubelet does.
func (c *cluster) isReady() bool {
	c.t.Helper()
	answer, err := http.Get("http://" + c.ready + "/ready")
	if err != nil {
		c.t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// targets returns the addresses that are checked, as the status page has them.
func (c *cluster) targets() (addrs []netip.Addr) {
	c.t.Helper()
	answer, err := http.Get("http://" + c.page + "/targets.json")
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	var all struct {
		Targets []struct{ Address netip.Addr }
	}
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		c.t.Fatal(err)
	}
	for _, target := range all.Targets {
		addrs = append(addrs, target.Address)
	}
	return addrs
}

// page is where the Corefiles are that the tests start.
const page = "docs/cluster.md"

// pageCorefiles returns the Corefiles of the page.
func pageCorefiles(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile("(?ms)^```corefile\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, match[1])
	}
	return all
}

// corefileWith returns the one Corefile of the page that has a text in it.
func corefileWith(t *testing.T, text string) string {
	t.Helper()
	all := slices.DeleteFunc(pageCorefiles(t), func(corefile string) bool { return !strings.Contains(corefile, text) })
	if len(all) != 1 {
		t.Fatalf("%d Corefiles in %s have %q, want 1", len(all), page, text)
	}
	return all[0]
}
