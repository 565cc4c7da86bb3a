package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// Every way in which a server can fail to answer is told, with what would be right.
func TestServerErrors(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	reply := func(status int, contentType, body string, header ...string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	over := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(over) })
	const isJSON = "application/json"
	for _, tt := range []struct{ name, server, want string }{
		{"nobody there", closed, "cannot reach http://" + closed + ": connect: connection refused; want the address in the property status of the Corefile, by -server or SHAKER_SERVER"},
		{"silence", silent.URL, "has not answered within 100ms; -timeout gives it longer"},
		{"a mistake in the query", reply(400, isJSON, `{"version":1,"error":"prefix: \"x\" is wrong"}`), `shaker: prefix: "x" is wrong` + "\n"},
		{"not there", reply(404, isJSON, `{"version":1,"error":"no such name"}`), "shaker: no such name\n"},
		{"an old server", reply(404, "text/plain", `There is no "/targets.json"`), "has no targets.json, want the status server of a shaker that is not older than this client: There is no"},
		{"too often", reply(429, isJSON, `{"version":1,"error":"too often"}`, "Retry-After", "2"), `says "too often", want a pause of 2 seconds`},
		{"about to end", reply(503, "text/plain", "CoreDNS is about to end.\n"), "answers with status 503: CoreDNS is about to end.\n"},
		{"the wrong host", reply(421, "text/plain", "The host is \x1b[31m not"), `answers with status 421: The host is \x1b[31m not`},
		{"lines", reply(500, "text/plain", "oops\nshaker: done"), `answers with status 500: oops\nshaker: done` + "\n"},
		{"elsewhere", reply(302, "text/html", "", "Location", "http://192.0.2.1/"), `leads on to "http://192.0.2.1/", want the address of the status server itself`},
		{"another server", reply(200, "text/html", "<p>"), `is not the status server of shaker: it sends "text/html", want application/json; -server and SHAKER_SERVER say where that is`},
		{"a later version", reply(200, isJSON, `{"version":2}`), "speaks version 2 of its JSON, want 1: take the client that belongs to it"},
		{"half an answer", reply(200, isJSON, `{"version":1,`), "the answer to targets.json is not what it should be: unexpected end of JSON input"},
		{"another answer", reply(200, isJSON, `{"version":1,"time":7}`), "the answer to targets.json is not what it should be"},
		{"no answer", reply(200, isJSON, `[]`), "the answer to targets.json is not what it should be"},
		{"a flood", reply(200, isJSON, strings.Repeat(" ", maxAnswer+1)), "the answer has more than 16777216 octets, want fewer targets at a time"},
		{"a long error", reply(500, "text/plain", strings.Repeat("x", 4000)), strings.Repeat("x", maxProblem) + "...\n"},
	} {
		timeout := "10s"
		if tt.name == "silence" {
			timeout = "100ms"
		}
		status, stdout, stderr := output("targets", "-server", tt.server, "-timeout", timeout)
		if status != exitFailed || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: status %d\n%s%s, want %s", tt.name, status, stdout, stderr, tt.want)
		}
	}
	status, _, stderr := output("target", "192.0.2.7:443", "-server", answers{"/targets.json?port=443&prefix=192.0.2.7&size=1000": empty}.serve(t))
	if status != exitFailed || !strings.Contains(stderr, "there is no target 192.0.2.7:443 at http://127.0.0.1:") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

// The environment says where the server is, below which path, and no proxy stands before a loopback address.
func TestEnvironment(t *testing.T) {
	server := httptest.NewServer(http.StripPrefix("/below", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "secret" || r.URL.Path != "/targets.json" {
			t.Errorf("%s as %s %s", r.URL, user, password)
		}
		w.WriteHeader(http.StatusTeapot)
	})))
	t.Cleanup(server.Close)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	p, _, stderr := newProgram()
	p.env = func(name string) string {
		if name != "SHAKER_SERVER" {
			return os.Getenv(name)
		}
		return strings.Replace(server.URL, "://", "://me:secret@", 1) + "/below/"
	}
	if status := p.run(t.Context(), []string{"targets"}); status != exitFailed || !strings.Contains(stderr.String(), "status 418") || strings.Contains(stderr.String(), "secret") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
