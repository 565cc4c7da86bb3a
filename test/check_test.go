package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-shaker/shaker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// checkPrint returns what Check prints of a Corefile.
func checkPrint(t *testing.T, path, text string) string {
	t.Helper()
	var printed bytes.Buffer
	if err := shaker.Check(&printed, caddy.CaddyfileInput{Contents: []byte(text), Filepath: path, ServerTypeName: "dns"}); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return printed.String()
}

// checkOutline returns the lines of what Check prints, without those that stand for a default.
func checkOutline(t *testing.T, printed string) string {
	t.Helper()
	isDefault := make(map[string]bool)
	for line := range strings.Lines(checkPrint(t, "", ".:1053 {\n    shaker\n}\n")) {
		isDefault[line] = strings.HasPrefix(line, "        ") // it is inside of the stanza
	}
	var kept strings.Builder
	for line := range strings.Lines(printed) {
		if !isDefault[line] {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

var checkComment = regexp.MustCompile(`(?m)^\s*#.*\n| # .*$`)

// Server blocks stand in the order of the Corefile, whatever makes them and whoever listens for them.
func TestCheckBlocks(t *testing.T) { lab.Apart(t, testCheckBlocks) }

func testCheckBlocks(t *testing.T) {
	dir := t.TempDir()
	lab.FileIn(t, dir, "stanza.conf", "shaker b.example.org {\n\timport properties.conf\n}\n")
	lab.FileIn(t, dir, "properties.conf", "port 80\nstatus 127.0.0.1:8053\n")
	lab.FileIn(t, dir, "of rules", "192.0.2.7 down\n192.0.2.8 up\n")
	t.Setenv("SHAKER_TEST_PORT", "8443")
	path := filepath.Join(dir, "Corefile")
	for _, tt := range []struct{ name, corefile, want string }{
		{"several", `
(thresholds) {
	rise 4
}
example.org:1053 example.net:1054 {
	bind 127.0.0.1 ::1
	import stanza.conf
	shaker {
		port {$SHAKER_TEST_PORT}
		import thresholds
		limit rate 7
	}
}
tls://example.com 10.2.0.0/15 {
	acl
}
. {
	shaker example.com {
		overrides "` + filepath.Join(dir, "of rules") + `"
	}
	shaker
}
`, `
dns://example.org.:1053 dns://example.net.:1054 {
    bind 127.0.0.1 ::1
    # DIR/stanza.conf:1
    shaker b.example.org. {
        port 80
        limit rate 7 # of the process, DIR/Corefile:11
        status 127.0.0.1:8053 # of the process, DIR/properties.conf:2
    }

    # DIR/Corefile:8, for example.net. example.org.
    shaker {
        port 8443
        rise 4
    }
}

tls://example.com.:853 dns://2.10.in-addr.arpa.:53 dns://3.10.in-addr.arpa.:53 {
    # no shaker: answers pass as they are
}

dns://.:53 {
    # DIR/Corefile:21, for .
    shaker {
    }

    # DIR/Corefile:18
    shaker example.com. {
        overrides "DIR/of rules" # 2 rules
    }
}
`},
		{"views", `
example.org {
	view a { # of clients near
		expr "incidr(client_ip(), '10.1.0.0/16')" || "name() == 'a b'"
	}
	shaker {
		prefer 192.0.2.0/26
	}
}
example.org {
	view b {
		expr incidr(client_ip(), '10.2.0.0/16')
	}
	shaker
}
example.org {
	shaker {
		method dial
	}
}
`, `
dns://example.org.:53 {
    view a {
        expr "incidr(client_ip(), '10.1.0.0/16')" || "name() == 'a b'"
    }
    # DIR/Corefile:6, for example.org.
    shaker {
        prefer 192.0.2.0/26
        method dial # of the process, DIR/Corefile:18
    }
}

dns://example.org.:53 {
    view b {
        expr incidr(client_ip(), '10.2.0.0/16')
    }
    # DIR/Corefile:14, for example.org.
    shaker {
    }
}

dns://example.org.:53 {
    # DIR/Corefile:17, for example.org.
    shaker {
    }
}
`},
		{"rewrite", "example.org {\n\trewrite name suffix .example.org .example.net answer auto\n\tshaker example.net\n}\n", `
dns://example.org.:53 {
    rewrite name suffix .example.org .example.net answer auto
    # DIR/Corefile:3
    shaker example.net. {
    }
}
`},
		{"none", ".:1053 {\n}\n", "\ndns://.:1053 {\n    # no shaker: answers pass as they are\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			printed := checkPrint(t, path, tt.corefile)
			got := strings.ReplaceAll(checkOutline(t, printed), dir, "DIR")
			if got != tt.want[1:] {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want[1:])
			}
			if again := checkPrint(t, path, printed); checkComment.ReplaceAllString(again, "") != checkComment.ReplaceAllString(printed, "") {
				t.Errorf("read again it is\n%s\nwant\n%s", again, printed)
			}
		})
	}
}

// What the start finds only when all server blocks are there, Check finds as well, and says it in the same words.
func TestCheckMistakesOfTheWhole(t *testing.T) { lab.Apart(t, testCheckMistakesOfTheWhole) }

func testCheckMistakesOfTheWhole(t *testing.T) {
	for _, tt := range []struct{ name, corefile, want string }{
		{"zone outside", "example.org:0 {\nbind 127.0.0.1\nshaker example.net\n}\n", `zone "example.net." is outside of the server block`},
		{"circle", "example.org:0 {\nbind 127.0.0.1\nshaker a.example.org {\nfallback x.b.example.org\n}\nshaker b.example.org {\nfallback x.a.example.org\n}\n}\n",
			"whose fallback leads back here"},
		{"peers", "example.org:0 {\nbind 127.0.0.1\nshaker {\npeers 127.0.0.1:7946\n}\n}\n", "there is no key"},
		{"block twice", ".:0 {\nbind 127.0.0.1\n}\n.:0 {\nbind 127.0.0.1\nshaker\n}\n", "it is already defined"},
		{"key", "example..org {\nshaker\n}\n", "example..org"},
		{"directive", "example.org {\nshakes\n}\n", "Unknown directive 'shakes'"},
		{"import", "example.org {\nimport nowhere\n}\n", "nowhere"},
		{"certificate", "tls://example.org:0 {\nbind 127.0.0.1\ntls nowhere nowhere\nshaker\n}\n", "nowhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.CaptureLog(t)
			inst, want := caddy.Start(corefile(tt.corefile))
			if want == nil {
				_ = inst.Stop()
				t.Fatal("it starts")
			}
			if !strings.Contains(want.Error(), tt.want) {
				t.Errorf("the start says %q, want %q in it", want, tt.want)
			}
			var printed bytes.Buffer
			if err := shaker.Check(&printed, corefile(tt.corefile)); fmt.Sprint(err) != want.Error() || printed.Len() > 0 {
				t.Errorf("got  %v\nwant %v\nprinted %q", err, want, &printed)
			}
		})
	}
}

// A check is gone without a trace: whatever it was about, what comes after it starts as ever.
func TestCheckLeavesNothing(t *testing.T) { lab.Apart(t, testCheckLeavesNothing) }

func testCheckLeavesNothing(t *testing.T) {
	lab.CaptureLog(t)
	clog.D.Set()
	defer clog.D.Clear()
	directory := t.TempDir()
	caddy.PidFile = filepath.Join(directory, "pid")
	defer func() { caddy.PidFile = "" }()
	const text = "example.org:0 {\nbind 127.0.0.1\nshaker {\nstatus 127.0.0.1:0\nwatch www.example.org\nmethod dial\n}\n}\n"
	checkPrint(t, "Corefile", text)
	if n := len(caddy.Instances()); n > 0 {
		t.Errorf("%d instances are left", n)
	}
	if files, err := os.ReadDir(directory); err != nil || len(files) > 0 {
		t.Errorf("%v was written, %v", files, err)
	}
	if !clog.D.Value() {
		t.Error("the debug log is off, which was on")
	}
	server := start(t, text)
	if err := server.reload("example.org:0 {\nbind 127.0.0.1\nshaker\n}\n"); err != nil {
		t.Error("a reload after a check:", err)
	}
}

// The page about checks shows what is printed of its Corefile.
func TestCheckPage(t *testing.T) { lab.Apart(t, testCheckPage) }

func testCheckPage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it shows the default method on Linux")
	}
	text, want := fenceWith(t, "corefile", "view internal"), fenceWith(t, "txt", "view internal")
	t.Chdir(t.TempDir())
	makeZones(t, text)
	if got := checkPrint(t, "Corefile", text); got != want {
		t.Errorf("docs/check.md shows\n%s\nwant\n%s", want, got)
	}
}

// Every Corefile that we show makes the same policies when what is printed of it is read.
func TestCheckShownCorefiles(t *testing.T) { lab.Apart(t, testCheckShownCorefiles) }

func testCheckShownCorefiles(t *testing.T) {
	corefiles := shownCorefiles(t)
	lab.CaptureLog(t)
	rules := readFile(t, "overrides.example")
	t.Chdir(t.TempDir())
	lab.FileIn(t, ".", "overrides.example", rules)
	makePeersKey(t)
	for place, text := range corefiles {
		t.Run(place, func(t *testing.T) {
			makeZones(t, text)
			if strings.Contains(text, " geoip ") {
				text = strings.ReplaceAll(text, "GeoLite2-City.mmdb", geoDatabase(t))
			}
			text = onLoopback(amongPeers(text, "127.0.0.1", 7946, "127.0.0.1"), "127.0.0.1:1053", 1053)
			if strings.Contains(text, " key file ") {
				text = strings.ReplaceAll(text, "Kexample.org.+013+45330", newZoneKey(t).base)
			}
			printed := checkPrint(t, "Corefile", text)
			if again := checkPrint(t, "Corefile", printed); checkComment.ReplaceAllString(again, "") != checkComment.ReplaceAllString(printed, "") {
				t.Errorf("read again it is\n%s\nwant\n%s", again, printed)
			}
		})
	}
}
