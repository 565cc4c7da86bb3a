package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/coredns/coredns/coremain"

	"github.com/coredns-shaker/shaker"
)

// TestMain lets this binary be the command, so that a test can run it.
func TestMain(m *testing.M) {
	if os.Getenv("SHAKER_TEST_COREDNS") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// coredns runs the command and returns what it printed.
func coredns(t *testing.T, args ...string) string {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "SHAKER_TEST_COREDNS=1")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("coredns %q: %v\n%s", args, err, output)
	}
	return string(output)
}

func TestVersion(t *testing.T) {
	output := coredns(t, "-version")
	for _, want := range []string{"CoreDNS-" + coremain.CoreVersion + "\n", ", shaker " + shaker.Version() + "\n"} {
		if !strings.Contains(output, want) {
			t.Errorf("-version prints\n%s\nwithout %q", output, want)
		}
	}
}

func TestPluginIsListed(t *testing.T) {
	if output := coredns(t, "-plugins"); !strings.Contains(output, "\nshaker\n") {
		t.Errorf("-plugins does not list shaker:\n%s", output)
	}
}
