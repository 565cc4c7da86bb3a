package release

import (
	"flag"
	"path/filepath"
	"testing"
)

var folder = flag.String("release", "", "`folder` that .ci/release made")

// artifact returns the path of the only file of the release whose name matches a pattern of path/filepath. Without a
// release the test skips.
func artifact(t *testing.T, pattern string) string {
	t.Helper()
	if *folder == "" {
		t.Skip("tries a release: .ci/release v0.0.1 /tmp/release, then go test ./test/release -release /tmp/release")
	}
	found, err := filepath.Glob(filepath.Join(*folder, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		t.Fatalf("the release has %q for %s, want one file", found, pattern)
	}
	return found[0]
}
