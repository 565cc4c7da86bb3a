package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// checkEverything has the plugins that only this build has, but for those that need an account of a cloud. THERE stands for
// an address where somebody listens.
const checkEverything = `
cluster.local:1053 {
    bind 127.0.0.1
    shaker
    kubernetes {
        endpoint http://THERE
    }
    k8s_external example.org
    trace zipkin http://THERE/api/v2/spans
}
example.org:1053 {
    bind 127.0.0.1
    shaker
    etcd {
        endpoint http://THERE
    }
}
example.com:1053 {
    bind 127.0.0.1
    shaker
    route53 example.com.:Z1 {
        aws_access_key a b
    }
}
example.net:1053 {
    bind 127.0.0.1
    shaker
    nomad {
        address http://THERE
    }
}
`

// hostedZone answers as Route 53 does, with as little as possible.
func hostedZone(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/xml")
	if strings.HasSuffix(r.URL.Path, "/rrset") {
		fmt.Fprint(w, `<ListResourceRecordSetsResponse><ResourceRecordSets/><IsTruncated>false</IsTruncated></ListResourceRecordSetsResponse>`)
		return
	}
	fmt.Fprint(w, `<ListHostedZonesByNameResponse><HostedZones/><IsTruncated>false</IsTruncated></ListHostedZonesByNameResponse>`)
}

// expectNobody makes sure that nobody has come before this call: the first to be heard is the test itself.
func expectNobody(t *testing.T, listener net.Listener) {
	t.Helper()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != conn.LocalAddr().String() {
		t.Errorf("somebody came before, from %v", first.RemoteAddr())
	}
}

// Whatever of these is in a Corefile: a check asks none of the servers that it names, and leaves nothing behind. But route53
// fetches its zones.
func TestCheckLeavesNothing(t *testing.T) { lab.Apart(t, testCheckLeavesNothing) }

func testCheckLeavesNothing(t *testing.T) {
	lab.CaptureLog(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Setenv("AWS_REGION", "us-east-1")
	cloud := httptest.NewServer(http.HandlerFunc(hostedZone))
	defer cloud.Close()
	t.Setenv("AWS_ENDPOINT_URL", cloud.URL) // aws_endpoint in the Corefile is read wrongly
	corefile := strings.ReplaceAll(checkEverything, "THERE", listener.Addr().String())
	running := goleak.IgnoreCurrent()
	var printed bytes.Buffer
	input := caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
	if err := shaker.Check(&printed, input); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(printed.String(), "\n    shaker {\n"); got != 4 {
		t.Errorf("it prints %d stanzas\n%s", got, &printed)
	}
	expectNobody(t, listener)
	cloud.CloseClientConnections()
	lab.UntilNil(t, func() error { return goleak.Find(running) })
}
