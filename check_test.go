package shaker

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// What Check does with whole Corefiles is in package test; that it returns the errors of a set-up, in setupValidate.

func checkInput(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
}

// Doubts are told, those of the set-up and those about all server blocks.
func TestCheckDoubts(t *testing.T) {
	log := lab.CaptureLog(t)
	if err := Check(new(bytes.Buffer), checkInput("example.org {\nshaker {\nallow 10.0.0.0/8\nfallback www.example.net\n}\n}\n")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[WARNING] plugin/shaker: Corefile:2: allow 10.0.0.0/8 changes nothing",
		`[WARNING] plugin/shaker: Corefile:2: fallback: "www.example.net." is in no server block`} {
		if got := log.String(); strings.Count(got, want) != 1 {
			t.Errorf("the log has\n%swant %q once", got, want)
		}
	}
}

// Who writes the policies learns why that did not work.
func TestCheckCannotWrite(t *testing.T) {
	full := errors.New("no space left")
	if err := Check(checkFull{full}, checkInput(".:1053 {\nshaker\n}\n")); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type checkFull struct{ err error }

func (f checkFull) Write([]byte) (int, error) { return 0, f.err }

// The list of directives is that of the main which checks.
func TestCheckFollowsDirectives(t *testing.T) {
	before := dnsserver.Directives
	defer func() { dnsserver.Directives = before }()
	dnsserver.Directives = []string{"file", name}
	if err := Check(new(bytes.Buffer), checkInput(".:1053 {\nshaker\n}\n")); err != nil {
		t.Error(err)
	}
	dnsserver.Directives = nil
	if err := Check(new(bytes.Buffer), checkInput(".:1053 {\n}\n")); err == nil {
		t.Error("without directives there is no error")
	}
}
