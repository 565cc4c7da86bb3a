package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// directory makes one to pack, with modes as a umask leaves them, and files that are made in an order.
func directory(t *testing.T, umask os.FileMode, order ...string) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), "top_1.2.3")
	for _, name := range order {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o666)
		if name == "program" {
			mode = 0o777
		}
		if err := os.WriteFile(path, []byte("this is "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode&^umask); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"man", "."} {
		if err := os.Chmod(filepath.Join(top, name), 0o777&^umask); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

func packed(t *testing.T, directory, suffix string, when time.Time) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "packed"+suffix)
	if err := packFile(directory, file, when); err != nil {
		t.Fatal(err)
	}
	octets, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

var (
	when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want = []string{
		"drwxr-xr-x top_1.2.3/ 2026-01-02T03:04:05Z ",
		"-rw-r--r-- top_1.2.3/README.md 2026-01-02T03:04:05Z this is README.md",
		"drwxr-xr-x top_1.2.3/man/ 2026-01-02T03:04:05Z ",
		"-rw-r--r-- top_1.2.3/man/page.1 2026-01-02T03:04:05Z this is man/page.1",
		"-rwxr-xr-x top_1.2.3/program 2026-01-02T03:04:05Z this is program",
	}
)

// listed returns what is in an archive.
func listed(t *testing.T, suffix string, octets []byte) (lines []string) {
	t.Helper()
	line := func(mode os.FileMode, name string, when time.Time, contents io.Reader) {
		text, err := io.ReadAll(contents)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%v %s %s %s", mode, name, when.UTC().Format(time.RFC3339), text))
	}
	if suffix == ".zip" {
		z, err := zip.NewReader(bytes.NewReader(octets), int64(len(octets)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range z.File {
			contents, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			line(f.Mode(), f.Name, f.Modified, contents)
		}
		return lines
	}
	compressed, err := gzip.NewReader(bytes.NewReader(octets))
	if err != nil {
		t.Fatal(err)
	}
	if compressed.Name != "" || !compressed.ModTime.IsZero() {
		t.Errorf("gzip tells the name %q and the time %v", compressed.Name, compressed.ModTime)
	}
	for b := tar.NewReader(compressed); ; {
		h, err := b.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s belongs to %d:%d %q:%q", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		line(h.FileInfo().Mode(), h.Name, h.ModTime, b)
	}
}

// Equal contents make equal archives, whatever the umask, the zone of the time and the order in which files came.
func TestPacked(t *testing.T) {
	for _, suffix := range []string{".tar.gz", ".zip"} {
		t.Run(suffix, func(t *testing.T) {
			first := packed(t, directory(t, 0o022, "program", "man/page.1", "README.md"), suffix, when)
			if got := listed(t, suffix, first); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			second := packed(t, directory(t, 0o077, "README.md", "man/page.1", "program"), suffix, when.In(time.FixedZone("", 7200)))
			if !bytes.Equal(first, second) {
				t.Errorf("%x and %x differ", first, second)
			}
		})
	}
}

func TestPackErrors(t *testing.T) {
	linked := directory(t, 0, "man/page.1")
	if err := os.Symlink("page.1", filepath.Join(linked, "man/other.1")); err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct{ name, directory, file, want string }{
		{"no such directory", "nowhere", "x.zip", "nowhere: no such file or directory"},
		{"another kind", ".", "x.tar.xz", `x.tar.xz", want a name that ends in .tar.gz or .zip`},
		{"a link", linked, "x.tar.gz", "man/other.1 is neither a file nor a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), tt.file)
			err := packFile(tt.directory, file, when)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("half an archive is left")
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"1767323045", "2026-01-02T03:04:05Z"},
		{"", ""},
		{"yesterday", ""},
		{"1767323045.5", ""},
		{"0", ""}, // before 1980
		{"9999999999", ""},
	} {
		got, err := epoch(tt.text)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH is "`+tt.text+`", want seconds`) {
				t.Errorf("%q: %v, %v, want an error", tt.text, got, err)
			}
		} else if err != nil || got.Format(time.RFC3339) != tt.want {
			t.Errorf("%q: %v, %v, want %s", tt.text, got, err, tt.want)
		}
	}
}
