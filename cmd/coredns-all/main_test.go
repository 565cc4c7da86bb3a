package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"github.com/coredns-shaker/shaker"
	"github.com/coredns-shaker/shaker/cmd/internal/server"
)

// asCommand is in the environment of a process that is to be the command.
const asCommand = "SHAKER_TEST_COREDNS"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	directives, err := server.Directives()
	if err != nil {
		panic(err)
	}
	dnsserver.Directives = directives
	caddy.Quiet, dnsserver.Quiet = true, true
	os.Exit(m.Run())
}

// command returns the command, to be run.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// output runs the command and returns what it printed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	text, err := command(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("coredns %q: %v\n%s", args, err, text)
	}
	return string(text)
}

func TestVersion(t *testing.T) {
	text := output(t, "-version")
	for _, want := range []string{"CoreDNS-" + coremain.CoreVersion + "\n", ", shaker " + shaker.Version() + "\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("-version prints\n%s\nwithout %q", text, want)
		}
	}
}

// Every plugin that CoreDNS has a place for is linked, and shaker is in its place.
func TestAllPlugins(t *testing.T) {
	listed := strings.Fields(output(t, "-plugins"))
	for _, name := range dnsserver.Directives {
		if _, err := caddy.DirectiveAction("dns", name); err != nil {
			t.Error(err)
		}
		if !slices.Contains(listed, name) {
			t.Errorf("-plugins does not list %s", name)
		}
	}
	if place := slices.Index(dnsserver.Directives, "shaker"); place < 0 || dnsserver.Directives[place+1] != "cache" {
		t.Errorf("shaker is not right before cache in %q", dnsserver.Directives)
	}
	for _, name := range []string{"kubernetes", "k8s_external", "etcd", "route53", "azure", "clouddns", "nomad", "trace"} {
		if !slices.Contains(dnsserver.Directives, name) {
			t.Errorf("there is no %s", name)
		}
	}
}
