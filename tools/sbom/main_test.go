package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// built builds a program of two modules of one repository, as cmd/coredns-all and the root are.
func built(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":              "module example.org/top\n\ngo 1.26.0\n",
		"top.go":              "package top\n\nfunc F() {}\n",
		"cmd/nested/go.mod":   "module example.org/top/cmd/nested\n\ngo 1.26.0\n\nreplace example.org/top => ../..\n\nrequire example.org/top v0.0.0\n",
		"cmd/nested/main.go":  "package main\n\nimport \"example.org/top\"\n\nfunc main() { top.F() }\n",
		"cmd/nested/other.go": "package main\n",
	} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(top, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", program)
	build.Dir = filepath.Join(top, "cmd/nested")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return program
}

func TestWrite(t *testing.T) {
	program := built(t)
	files := [2][]byte{}
	for i := range files {
		file := filepath.Join(t.TempDir(), "list")
		if err := write("v1.2.3", program, file, "1767323045"); err != nil {
			t.Fatal(err)
		}
		var err error
		if files[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Errorf("of one program, it makes\n%s\nand\n%s", files[0], files[1])
	}
	if dir := filepath.Dir(program); bytes.Contains(files[0], []byte(dir)) {
		t.Errorf("it tells of %s", dir)
	}
	var bom cyclonedx.BOM
	if err := json.Unmarshal(files[0], &bom); err != nil {
		t.Fatal(err)
	}
	if got, want := bom.Metadata.Timestamp, "2026-01-02T03:04:05Z"; got != want {
		t.Errorf("its time is %s, want %s", got, want)
	}
	got := []string{bom.Metadata.Component.Name + " " + bom.Metadata.Component.Version}
	for _, c := range *bom.Components {
		if c.Name == "std" {
			c.Version = "" // that of the Go that is here
		}
		got = append(got, c.Name+" "+c.Version)
		if !strings.HasPrefix(c.PackageURL, "pkg:golang/"+c.Name+"@") || !strings.HasPrefix(c.BOMRef, "pkg:golang/"+c.Name+"@") {
			t.Errorf("%s has the addresses %s and %s", c.Name, c.PackageURL, c.BOMRef)
		}
	}
	if want := []string{"example.org/top/cmd/nested v1.2.3", "example.org/top v1.2.3", "std "}; !slices.Equal(got, want) {
		t.Errorf("it lists %q, want %q", got, want)
	}
}

func TestWriteErrors(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, program, epoch, want string }{
		{"no program", text, "1767323045", "unrecognized file format"},
		{"no such file", "nowhere", "1767323045", "no such file"},
		{"no time", text, "", `SOURCE_DATE_EPOCH is "", want seconds since 1970`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "list")
			err := write("v1.2.3", tt.program, file, tt.epoch)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("half a list is left")
			}
		})
	}
}
