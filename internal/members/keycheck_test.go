package members

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestCheckKeyFile(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		text  string // empty where there is no file
		mode  os.FileMode
		doubt string
		err   string
	}{
		{"dYgN0Zd4LqTtJv2mWnXb\n", 0o400, "", ""},
		{"dYgN0Zd4LqTtJv2mWnXb\n", 0o640, "", ""},
		{"dYgN0Zd4LqTtJv2mWnXb\n", 0o644, "FILE has the mode 0644, with which every user of this machine can read it; 0400 or 0440 would do", ""},
		{"short\n", 0o644, "", "is a key of 5 characters"},
		{"# nothing\n", 0o600, "", "has no key"},
		{"", 0, "", "no such file or directory"},
	} {
		path := filepath.Join(dir, "key")
		os.Remove(path)
		if tt.text != "" {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
		}
		doubt, err := CheckKeyFile(path)
		if want := strings.ReplaceAll(tt.doubt, "FILE", path); doubt != want && runtime.GOOS != "windows" {
			t.Errorf("%q, %#o: doubt %q, want %q", tt.text, tt.mode, doubt, want)
		}
		if (err != nil) != (tt.err != "") || tt.err != "" && !strings.Contains(fmt.Sprint(err), tt.err) {
			t.Errorf("%q: %v, want %q in it", tt.text, err, tt.err)
		}
	}
}
