package lab

import "testing"

// HangingDir returns a directory in which whoever opens a file waits for ever, as on a server of files that is gone. All of
// them fail when release is called, and at the end of the test. It needs root.
func HangingDir(t testing.TB) (dir string, release func()) {
	t.Helper()
	dir = t.TempDir()
	release, err := mountHanging(dir)
	if err != nil {
		Skip(t, err)
	}
	t.Cleanup(release)
	return dir, release
}
