package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"go.uber.org/goleak"

	"github.com/coredns-shaker/shaker"
	"github.com/coredns-shaker/shaker/cmd/internal/server"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// checkRun is how coredns -check went.
type checkRun struct {
	output, errors string // what it printed, and to where
	status         int
}

// checkCorefile runs coredns -check in a directory.
func checkCorefile(t *testing.T, dir, input string, args ...string) checkRun {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var output, mistakes bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"-check"}, args...)...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(input), &output, &mistakes
	cmd.Env = append(os.Environ(), "SHAKER_TEST_COREDNS=1")
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return checkRun{output.String(), mistakes.String(), cmd.ProcessState.ExitCode()}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	lab.FileIn(t, dir, "good", "example.org {\n    shaker\n    cache\n    whoami\n}\n")
	lab.FileIn(t, dir, "doubtful", "example.org {\n    shaker {\n        allow 10.0.0.0/8\n    }\n}\n")
	lab.FileIn(t, dir, "bad", "example.org {\n    shaker {\n        port 0\n    }\n}\n")
	inPlace := t.TempDir()
	lab.FileIn(t, inPlace, "Corefile", "example.net:1053 {\n    shaker\n}\n")
	for _, tt := range []struct {
		name, dir, input string
		args             []string
		output           string // what it begins with; empty where there is none
		errors           string // what is in it
		status           int
	}{
		{"good", dir, "", []string{"-conf", "good"}, "dns://example.org.:53 {\n    # good:2, for example.org.\n    shaker {\n        port 443\n", "", 0},
		{"quiet", dir, "", []string{"-conf", "good", "-quiet"}, "", "", 0},
		{"port", dir, "", []string{"-conf", "good", "-dns.port", "1054"}, "dns://example.org.:1054 {\n", "", 0},
		{"doubtful", dir, "", []string{"-conf", "doubtful"}, "dns://example.org.:53 {\n", "[WARNING] plugin/shaker: doubtful:2: allow 10.0.0.0/8 changes nothing", 0},
		{"bad", dir, "", []string{"-conf", "bad"}, "",
			"plugin/shaker: bad:3 - Error during parsing: port: \"0\" is not a port, want a number from 1 to 65535\n", 1},
		{"bad and quiet", dir, "", []string{"-conf", "bad", "-quiet"}, "", "want a number from 1 to 65535\n", 1},
		{"bad in JSON", dir, "", []string{"-conf", "bad", "-log-format", "json"}, "", `want a number from 1 to 65535"`, 1},
		{"no such file", dir, "", []string{"-conf", "nowhere"}, "", "open nowhere: ", 1},
		{"no such format", dir, "", []string{"-conf", "good", "-log-format", "xml"}, "", "xml", 1},
		{"too much", dir, "", []string{"-conf", "good", "better"}, "", "extra command line arguments: [better]\n", 1},
		{"version", dir, "", []string{"-conf", "good", "-version"}, "CoreDNS-", "", 0},
		{"plugins", dir, "", []string{"-conf", "good", "-plugins"}, "acl\n", "", 0},
		{"standard input", dir, "example.com {\n    shaker\n}\n", []string{"-conf", "stdin"}, "dns://example.com.:53 {\n", "", 0},
		{"in place", inPlace, "", nil, "dns://example.net.:1053 {\n    # Corefile:2, for example.net.\n", "", 0},
		{"none", dir, "", nil, "dns://.:53 {\n    # no shaker: answers pass as they are\n}\n", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := checkCorefile(t, tt.dir, tt.input, tt.args...)
			if got.status != tt.status {
				t.Errorf("it ends with %d, want %d", got.status, tt.status)
			}
			if !strings.HasPrefix(got.output, tt.output) || tt.output == "" && got.output != "" {
				t.Errorf("it prints\n%s\nwant it to begin with\n%s", got.output, tt.output)
			}
			if !strings.Contains(got.errors, tt.errors) || tt.errors == "" && got.errors != "" {
				t.Errorf("its errors are\n%s\nwant\n%s", got.errors, tt.errors)
			}
		})
	}
}

// The start ends with the same words.
func TestCheckSaysWhatTheStartSays(t *testing.T) {
	path := lab.File(t, "bad", "example.org {\n    shaker {\n        port 0\n    }\n}\n")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"text", "json"} {
		cmd := exec.CommandContext(t.Context(), binary, "-conf", path, "-log-format", format)
		cmd.Env = append(os.Environ(), "SHAKER_TEST_COREDNS=1")
		var mistakes bytes.Buffer
		cmd.Stderr = &mistakes
		if err := cmd.Run(); err == nil {
			t.Fatal("it starts")
		}
		timeless := func(s string) string { return regexp.MustCompile(`"time":"[^"]*"`).ReplaceAllString(s, "") }
		if got := checkCorefile(t, "", "", "-conf", path, "-log-format", format); timeless(got.errors) != timeless(mistakes.String()) {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got.errors, &mistakes)
		}
	}
}

// checkEverything has each plugin that starts something: it listens, connects, looks up, watches files or has goroutines.
// FREE stands for an address that nobody listens on, and THERE for one where somebody does.
const checkEverything = `
.:FREE {
    bind 127.0.0.1
    hosts hosts {
        127.0.0.1 www.example.org
        fallthrough
    }
    shaker {
        allow 127.0.0.0/8
        watch www.example.org
        status 127.0.0.1:FREE
        overrides overrides
        metrics targets
    }
    auto {
        directory .
    }
    cache
    shed
    dnstap tcp://THERE full
    errors {
        consolidate 5m ".*" warning
    }
    file db.example.org example.org
    forward . THERE {
        health_check 10ms
    }
    grpc example.com THERE
    health 127.0.0.1:FREE {
        lameduck 1h
    }
    loadbalance
    log
    loop
    metadata
    pprof 127.0.0.1:FREE
    prometheus 127.0.0.1:FREE
    ready 127.0.0.1:FREE
    reload 2s
    secondary example.net {
        transfer from THERE
    }
    transfer example.org {
        to THERE
    }
    on startup touch started
}
tls://example.org:FREE https://example.org:FREE quic://example.org:FREE grpc://example.org:FREE {
    bind 127.0.0.1
    tls {
        acme example.org
        ca http://THERE/
        storage acme
    }
    dnssec
    whoami
}
`

// Whatever is in a Corefile: a check listens on nothing, sends nothing and leaves nothing behind.
func TestCheckHasNoEffect(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	lab.FileIn(t, dir, "hosts", "127.0.0.2 www.example.org\n")
	lab.FileIn(t, dir, "overrides", "")
	lab.FileIn(t, dir, "db.example.org", "@ 60 IN SOA ns hostmaster 1 60 60 60 60\n@ 60 IN NS ns\nns 60 IN A 127.0.0.1\n")
	there := checkListen(t)
	corefile := strings.ReplaceAll(checkEverything, "THERE", there.address)
	var free []string
	for strings.Contains(corefile, "FREE") {
		free = append(free, lab.Local(t))
		_, port, _ := net.SplitHostPort(free[len(free)-1])
		corefile = strings.Replace(corefile, "FREE", port, 1)
	}
	directives, err := server.Directives()
	if err != nil {
		t.Fatal(err)
	}
	before := dnsserver.Directives
	dnsserver.Directives = directives
	defer func() { dnsserver.Directives = before }()
	lines := lab.CaptureLog(t)
	log.SetOutput(lines)
	running := goleak.IgnoreCurrent()

	var printed bytes.Buffer
	input := caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: filepath.Join(dir, "Corefile"), ServerTypeName: "dns"}
	if err := shaker.Check(&printed, input); err != nil {
		t.Fatal(err)
	}
	lab.UntilNil(t, func() error { return goleak.Find(running) })
	there.expectNobody(t)
	for _, address := range free {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("something listens: %v", err)
			continue
		}
		listener.Close()
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 3 {
		t.Errorf("files are %v, %v", files, err)
	}
	if lines.String() != "" {
		t.Errorf("it logs %s", lines)
	}
	if !strings.Contains(printed.String(), "\n    shaker {\n") {
		t.Errorf("it prints\n%s", &printed)
	}
}

// checkListener is somebody who listens, on TCP and UDP.
type checkListener struct {
	address string
	tcp     net.Listener
	udp     net.PacketConn
}

func checkListen(t *testing.T) *checkListener {
	t.Helper()
	for range 100 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			tcp.Close()
			continue // somebody else has that port
		}
		t.Cleanup(func() { tcp.Close(); udp.Close() })
		return &checkListener{tcp.Addr().String(), tcp, udp}
	}
	t.Fatal("no port is free for TCP and UDP")
	return nil
}

// expectNobody makes sure that nobody has come before this call: the first to be heard are those that it sends itself.
func (l *checkListener) expectNobody(t *testing.T) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		conn, err := net.Dial(network, l.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "me")
		var first net.Addr
		if network == "tcp" {
			var accepted net.Conn
			if accepted, err = l.tcp.Accept(); err == nil {
				first = accepted.RemoteAddr()
				accepted.Close()
			}
		} else {
			_, first, err = l.udp.ReadFrom(make([]byte, 512))
		}
		if err != nil || first.String() != conn.LocalAddr().String() {
			t.Errorf("%s: the first was %v, %v, want %v", network, first, err, conn.LocalAddr())
		}
	}
}
