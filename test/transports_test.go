package test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/tls"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// Whatever a query comes in by, its answer is filtered.
func TestTransports(t *testing.T) {
	t.Parallel()
	f := newNeighbourFarm(t)
	zone := "file " + lab.File(t, "db.example.org", neighbourZone) + " example.org\n"
	want := append(slices.Clone(livingWWW), "example.org. 300 NS ns.example.org.")
	certificate, clientTLS := newCertificate(t)
	overDNS := func(network string) func(*testing.T, *server, *dns.Msg) (*dns.Msg, error) {
		return func(_ *testing.T, s *server, q *dns.Msg) (*dns.Msg, error) {
			addr := s.tcp
			if network == "udp" {
				addr = s.addr
			}
			client := dns.Client{Net: network, TLSConfig: clientTLS, Timeout: patience}
			m, _, err := client.Exchange(q, addr)
			return m, err
		}
	}
	overHTTP := func(method string) func(*testing.T, *server, *dns.Msg) (*dns.Msg, error) {
		return func(t *testing.T, s *server, q *dns.Msg) (*dns.Msg, error) {
			transport := &http.Transport{TLSClientConfig: clientTLS.Clone(), ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			return exchangeHTTP(t, transport, method, s.tcp, q)
		}
	}
	tests := []struct {
		name     string
		scheme   string
		exchange func(*testing.T, *server, *dns.Msg) (*dns.Msg, error)
	}{
		{"UDP", "", overDNS("udp")},
		{"TCP", "", overDNS("tcp")},
		{"TLS", "tls://", overDNS("tcp-tls")},
		{"HTTPS, GET", "https://", overHTTP(http.MethodGet)},
		{"HTTPS, POST", "https://", overHTTP(http.MethodPost)},
		{"HTTP3", "https3://", func(t *testing.T, s *server, q *dns.Msg) (*dns.Msg, error) {
			transport := &http3.Transport{TLSClientConfig: clientTLS.Clone()}
			defer transport.Close()
			return exchangeHTTP(t, transport, http.MethodGet, s.addr, q)
		}},
		{"QUIC", "quic://", func(t *testing.T, s *server, q *dns.Msg) (*dns.Msg, error) {
			config := clientTLS.Clone()
			config.NextProtos = []string{"doq"}
			return exchangeQUIC(t.Context(), config, s.addr, q)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			directives := zone
			if tt.scheme != "" {
				directives += "tls " + certificate
			}
			corefile := f.neighbourCorefile("", directives)
			s := launch(t, tt.scheme+corefile)
			q := new(dns.Msg)
			q.SetQuestion("www.example.org.", dns.TypeA)
			if tt.scheme == "quic://" || strings.HasPrefix(tt.scheme, "https") {
				q.Id = 0 // RFC 8484, section 4.1, and RFC 9250, section 4.2.1
			}
			lab.UntilNil(t, func() error {
				m, err := tt.exchange(t, s, q)
				if err != nil {
					t.Fatal(err)
				}
				if got := clientView(m); !slices.Equal(got, want) || m.Id != q.Id {
					return fmt.Errorf("the client sees\n%v", m)
				}
				return nil
			})
		})
	}
}

func exchangeHTTP(t *testing.T, transport http.RoundTripper, method, addr string, q *dns.Msg) (*dns.Msg, error) {
	packed, err := q.Pack()
	if err != nil {
		return nil, err
	}
	url, body := "https://"+addr+"/dns-query", io.Reader(nil)
	if method == http.MethodGet {
		url += "?dns=" + base64.RawURLEncoding.EncodeToString(packed)
	} else {
		body = bytes.NewReader(packed)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		return nil, err
	}
	const kind = "application/dns-message"
	r.Header.Set("Accept", kind)
	r.Header.Set("Content-Type", kind)
	client := http.Client{Transport: transport, Timeout: patience}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// RFC 8484, section 5.1: no longer than the smallest TTL in the answer section.
	if got := response.Header.Get("Cache-Control"); got != "max-age=20" {
		t.Errorf("Cache-Control: %s", got)
	}
	if got := response.Header.Get("Content-Type"); got != kind || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s, %s", response.Status, got)
	}
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(answer)
}

func exchangeQUIC(ctx context.Context, config *tls.Config, addr string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, addr, config, nil)
	if err != nil {
		return nil, err
	}
	defer conn.CloseWithError(0, "")
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	packed, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if _, err = stream.Write(binary.BigEndian.AppendUint16(nil, uint16(len(packed)))); err != nil {
		return nil, err
	}
	if _, err = stream.Write(packed); err != nil {
		return nil, err
	}
	stream.Close() // our side of it: there will be no other query
	answer, err := io.ReadAll(stream)
	if err != nil {
		return nil, err
	}
	if len(answer) < 2 || int(binary.BigEndian.Uint16(answer)) != len(answer)-2 {
		return nil, fmt.Errorf("answer of %d octets does not begin with its length", len(answer))
	}
	m := new(dns.Msg)
	return m, m.Unpack(answer[2:])
}

// newCertificate makes a certificate for 127.0.0.1. It returns the arguments of the tls directive, and the
// settings of a client that trusts it.
func newCertificate(t *testing.T) (arguments string, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(encode("CERTIFICATE", certificate)))
	return lab.File(t, "cert.pem", encode("CERTIFICATE", certificate)) + " " +
		lab.File(t, "key.pem", encode("PRIVATE KEY", private)), &tls.Config{RootCAs: roots}
}

// The server cuts answers to size after shaker has filtered them: what fits without the dead addresses is whole, and what
// does not fit has no dead ones either.
func TestTruncation(t *testing.T) {
	t.Parallel()
	const living, dead = 80, 40
	var addrs []string
	for i := range living {
		addrs = append(addrs, fmt.Sprintf("127.0.8.%d", i+1))
	}
	f := newFarm(t, addrs...)
	// Records are listed alternately as long as there are both.
	name := func(label string, living, dead int) string {
		var b strings.Builder
		for i := range max(living, dead) {
			if i < dead {
				fmt.Fprintf(&b, "%s 300 IN A 127.0.9.%d\n", label, i+1)
			}
			if i < living {
				fmt.Fprintf(&b, "%s 300 IN A %s\n", label, f.addrs[i])
			}
		}
		return b.String()
	}
	zone := "$ORIGIN example.org.\n@ 300 IN SOA ns hostmaster 1 7200 1800 86400 300\n" +
		name("few", 20, dead) + name("more", 60, 10) + name("many", living, dead)
	file := "file " + lab.File(t, "db.example.org", zone) + " example.org\n"
	upstream := start(t, fmt.Sprintf("example.org:%d {\nbind 127.0.0.1\n%s}\n", port(t), file))
	forward := "forward . " + upstream.addr + "\n"
	tests := []struct {
		directives string
		qname      string
		edns       uint16
		truncated  bool
		living     int
	}{
		{file, "few.example.org.", 0, false, 20},
		{file, "few.example.org.", 512, false, 20},
		{file, "more.example.org.", 0, true, 60},
		{file, "more.example.org.", 512, true, 60},
		{file, "more.example.org.", 1232, false, 60},
		{file, "many.example.org.", 1232, true, living},
		{file, "many.example.org.", 4096, false, living},
		{"bufsize 512\n" + file, "more.example.org.", 1232, true, 60},
		{"bufsize 512\n" + file, "few.example.org.", 1232, false, 20},
		// The upstream cuts the answer before shaker sees it. It passes untouched, and the client asks again by TCP.
		{forward, "few.example.org.", 512, true, 20},
		{forward, "more.example.org.", 1232, false, 60},
		{"cache\n" + forward, "more.example.org.", 512, true, 60},
	}
	for _, tt := range tests {
		kind := strings.Fields(tt.directives)[0]
		t.Run(fmt.Sprintf("%s %s at %d", kind, tt.qname, tt.edns), func(t *testing.T) {
			s := start(t, f.neighbourCorefile("", tt.directives))
			withSize := func(m *dns.Msg) {
				if tt.edns > 0 {
					m.SetEdns0(tt.edns, false)
				}
			}
			m := s.ask(tt.qname, dns.TypeA, withSize)
			got := addresses(m)
			// That the answer is not longer than it may be is up to the client: it could not read the rest.
			if m.Truncated != tt.truncated {
				t.Errorf("truncated: %v, want %v", m.Truncated, tt.truncated)
			}
			if !tt.truncated && !slices.Equal(got, f.addrs[:tt.living]) {
				t.Errorf("addresses %v", got)
			}
			cutAbove := !strings.Contains(tt.directives, forward)
			for _, addr := range got {
				if cutAbove && !slices.Contains(f.addrs, addr) {
					t.Errorf("%v is dead", addr)
				}
			}
			if !tt.truncated {
				return
			}
			q := new(dns.Msg)
			q.SetQuestion(tt.qname, dns.TypeA)
			withSize(q)
			client := dns.Client{Net: "tcp", Timeout: patience}
			m, _, err := client.Exchange(q, s.tcp)
			if err != nil {
				t.Fatal(err)
			}
			if got := addresses(m); m.Truncated || !slices.Equal(got, f.addrs[:tt.living]) {
				t.Errorf("over TCP: truncated %v, addresses %v", m.Truncated, got)
			}
		})
	}
}
