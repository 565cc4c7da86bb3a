package lab

import (
	"os"
	"strings"
	"testing"
)

// ExpectWords checks that a page of the documentation says all of this, wherever its lines break. So numbers in it cannot
// drift away from the code.
func ExpectWords(t testing.TB, path string, all ...string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q", path, want)
		}
	}
}
