package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The dashboard of this repository is right, and each mistake in it is found.
func TestCheck(t *testing.T) {
	const ours = "../../monitoring/grafana.json"
	if err := check(ours); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{`"schemaVersion": 39`, `"schemaversion": 39`, "unexpected field 'schemaversion'"},
		{`"legendFormat"`, `"legend"`, "unexpected field 'legend'"},
		{`"unit": "reqps"`, `"units": "reqps"`, "unexpected field 'units'"},
		{`"drawStyle"`, `"style"`, "unexpected field 'style'"},
		{`"refId": "A"`, `"refId": 1`, "cannot unmarshal number"},
		{`"w": 3`, `"w": 48`, "must be <= 24"},
	} {
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, bytes.Replace(text, []byte(tt.old), []byte(tt.new), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := check(bad); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s instead of %s: %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
}
