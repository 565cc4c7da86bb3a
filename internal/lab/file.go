package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// File writes a file into a directory of its own, which goes with the test, and returns its path.
func File(t testing.TB, name, contents string) (path string) {
	t.Helper()
	return FileIn(t, t.TempDir(), name, contents)
}

// FileIn writes a file into the directory, in the place of one that may be there, and returns its path.
func FileIn(t testing.TB, dir, name, contents string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// AppendFile adds to a file.
func AppendFile(t testing.TB, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
