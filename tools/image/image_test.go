package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const (
	testCommit = "0123456789abcdef0123456789abcdef01234567"
	testEpoch  = "1700000000"
)

// standIn builds a program that does nothing and has the import path, below the module, of one that there are images of.
func standIn(t *testing.T, system, architecture, path string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":          "module github.com/coredns-shaker/shaker\n",
		path + "/main.go": "package main\n\nfunc main() {}\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", "program", "./"+path)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS="+system, "GOARCH="+architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "program")
}

// built has the stand-ins for the programs of coredns-shaker, by architecture.
var built = make(map[string][]byte)

// standIns writes the programs for amd64 and arm64 into a directory of their own.
func standIns(t *testing.T) (amd64, arm64 string) {
	t.Helper()
	dir := t.TempDir()
	for _, architecture := range []string{"amd64", "arm64"} {
		if built[architecture] == nil {
			content, err := os.ReadFile(standIn(t, "linux", architecture, "cmd/coredns"))
			if err != nil {
				t.Fatal(err)
			}
			built[architecture] = content
		}
		if err := os.WriteFile(filepath.Join(dir, architecture), built[architecture], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "amd64"), filepath.Join(dir, "arm64")
}

// withInterpreter makes a copy of a program that asks for a dynamic linker.
func withInterpreter(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Elf64_Ehdr has e_phoff at 32, and e_phentsize at 54; Elf64_Phdr begins with its type.
	at := int(binary.LittleEndian.Uint64(content[32:])) + int(binary.LittleEndian.Uint16(content[54:]))
	binary.LittleEndian.PutUint32(content[at:], uint32(elf.PT_INTERP))
	changed := filepath.Join(t.TempDir(), "dynamic")
	if err := os.WriteFile(changed, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return changed
}

// Each mistake on the command line is told with what would be right, and nothing is written.
func TestMistakes(t *testing.T) {
	amd64, arm64 := standIns(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	good := []string{"-name", "coredns-shaker", "-version", "v1.2.3", "-revision", testCommit, "-out", "OUT", "amd64=" + amd64, "arm64=" + arm64}
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"one program", "arm64=" + arm64, "", ""},
		{"pre-release", "v1.2.3", "v1.2.3-rc.1", ""},
		{"name", "coredns-shaker", "coredns", `-name: there is no image "coredns", want coredns-shaker or coredns-shaker-all`},
		{"version", "v1.2.3", "1.2.3", `-version: "1.2.3" is no version, want one such as v1.2.3 or v1.2.3-rc.1`},
		{"half a version", "v1.2.3", "v1.2", `-version: "v1.2" is no version`},
		{"version that no tag can have", "v1.2.3", "v1.2.3+dirty", `-version: "v1.2.3+dirty" is no version`},
		{"revision", testCommit, "0123456", `-revision: "0123456" is no commit, want all 40 digits`},
		{"no file", "OUT", "", "-out: want the file to write"},
		{"flag", "-revision", "-commit", "flag provided but not defined: -commit\nusage: image -name NAME"},
		{"no path", "amd64=" + amd64, "amd64", `"amd64" names no program, want amd64=PATH or arm64=PATH`},
		{"architecture", "arm64=" + arm64, "riscv64=" + arm64, "names no program, want amd64=PATH or arm64=PATH"},
		{"twice", "arm64=" + arm64, "amd64=" + amd64, "is the second program for amd64, want one"},
		{"missing", amd64, amd64 + "-", "no such file"},
		{"no program", amd64, text, "it is no program for Linux, want one that was built with GOOS=linux GOARCH=amd64"},
		{"the other architecture", amd64, arm64, "it is for EM_AARCH64, want EM_X86_64: build it with GOARCH=amd64"},
		{"dynamic", amd64, withInterpreter(t, amd64), "it needs a dynamic linker, which the image does not have: build it with CGO_ENABLED=0"},
		{"another program", amd64, standIn(t, "linux", "amd64", "cmd/shaker"),
			"it is github.com/coredns-shaker/shaker/cmd/shaker, want github.com/coredns-shaker/shaker/cmd/coredns"},
		{"another system", amd64, standIn(t, "freebsd", "amd64", "cmd/coredns"), "it is for freebsd, want linux: build it with GOOS=linux"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "image.tar")
			var args []string
			for _, arg := range good {
				if tt.old != "" && (arg == tt.old || strings.HasSuffix(arg, "="+tt.old)) {
					arg = strings.TrimSuffix(arg, tt.old) + tt.new
				}
				if arg == "" && tt.old != "OUT" {
					continue
				}
				args = append(args, strings.Replace(arg, "OUT", out, 1))
			}
			expectError(t, run(args, testEpoch, io.Discard), tt.want)
			if _, err := os.Stat(out); (err == nil) != (tt.want == "") {
				t.Errorf("the file: %v", err)
			}
		})
	}
	for name, tt := range map[string]struct {
		args        []string
		epoch, want string
	}{
		"no time":     {good, "", `SOURCE_DATE_EPOCH: "" is no time, want seconds since 1970`},
		"date":        {good, "2026-01-02", `SOURCE_DATE_EPOCH: "2026-01-02" is no time`},
		"before 1970": {good, "-1", `SOURCE_DATE_EPOCH: "-1" is no time`},
		"no programs": {good[:8], testEpoch, "there is no program, want amd64=PATH, arm64=PATH or both"},
		"raw":         {slices.Concat([]string{"-raw"}, []string{"-name", "coredns-shaker-all"}, good[2:]), testEpoch, "-raw: there is no such image of coredns-shaker-all"},
	} {
		t.Run(name, func(t *testing.T) { expectError(t, run(tt.args, tt.epoch, io.Discard), tt.want) })
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// makeImage makes the image, and returns the file and what was printed.
func makeImage(t *testing.T, extra ...string) (path, printed string) {
	t.Helper()
	amd64, arm64 := standIns(t)
	path = filepath.Join(t.TempDir(), "image.tar")
	var stdout strings.Builder
	args := append([]string{"-name", "coredns-shaker", "-version", "v1.2.3", "-revision", testCommit, "-out", path}, extra...)
	if err := run(append(args, "arm64="+arm64, "amd64="+amd64), testEpoch, &stdout); err != nil {
		t.Fatal(err)
	}
	return path, stdout.String()
}

// open unpacks an archive, and returns the image in it, which is sound by all that go-containerregistry knows.
func open(t *testing.T, path string) v1.ImageIndex {
	t.Helper()
	dir := t.TempDir()
	for _, f := range readTar(t, path) {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if f.Typeflag == tar.TypeReg {
			if err := os.WriteFile(name, f.content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(outer); err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%d images (%v), want one", len(manifest.Manifests), err)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

type archived struct {
	*tar.Header
	content []byte
}

func readTar(t *testing.T, path string) (files []archived) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return untar(t, file)
}

func untar(t *testing.T, r io.Reader) (files []archived) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, archived{h, content})
	}
}

// Two builds make the same file, whatever the order of the programs, and the time is the only one there is.
func TestTwoBuildsAreEqual(t *testing.T) {
	for _, extra := range [][]string{nil, {"-raw"}} {
		first, printed := makeImage(t, extra...)
		second, again := makeImage(t, extra...)
		if a, b := sumOf(t, first), sumOf(t, second); a != b || printed != again {
			t.Errorf("%q: %s and %s, printed %s and %s", extra, a, b, printed, again)
		}
		digest, err := open(t, first).Digest()
		if err != nil {
			t.Fatal(err)
		}
		tag := "v1.2.3"
		if extra != nil {
			tag += "-raw"
		}
		if want := "coredns-shaker:" + tag + "@" + digest.String() + "\n"; printed != want {
			t.Errorf("printed %q, want %q", printed, want)
		}
		var names []string
		for _, f := range readTar(t, first) {
			names = append(names, f.Name)
			if f.ModTime.Unix() != 1700000000 || f.Uid != 0 || f.Gid != 0 || f.Uname != "" || f.Gname != "" {
				t.Errorf("%s is of %v, user %d %q, group %d %q", f.Name, f.ModTime, f.Uid, f.Uname, f.Gid, f.Gname)
			}
		}
		if !slices.IsSorted(names) {
			t.Errorf("not sorted: %q", names)
		}
	}
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// docker load reads manifest.json, unless it keeps images by containerd. go-containerregistry reads it alike.
func TestManifestForDocker(t *testing.T) {
	path, _ := makeImage(t)
	opener := func() (io.ReadCloser, error) { return os.Open(path) }
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"coredns-shaker:v1.2.3": "amd64", "coredns-shaker:v1.2.3-arm64": "arm64"}
	for _, m := range manifest {
		tag, err := name.NewTag(m.RepoTags[0])
		if err != nil {
			t.Fatal(err)
		}
		image, err := tarball.Image(opener, &tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(image); err != nil {
			t.Error(err)
		}
		file, err := image.ConfigFile()
		if err != nil || file.Architecture != want[m.RepoTags[0]] {
			t.Errorf("%q is for %s (%v), want %s", m.RepoTags, file.Architecture, err, want[m.RepoTags[0]])
		}
		delete(want, m.RepoTags[0])
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// The capability is what setcap writes, octet by octet. test/release has it tried by the kernel.
func TestCapability(t *testing.T) {
	// getfattr -e hex -n security.capability, after setcap cap_net_raw+ep.
	if got, want := hex.EncodeToString(netRaw()), "0100000200200000000000000000000000000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, extra := range [][]string{nil, {"-raw"}} {
		path, _ := makeImage(t, extra...)
		index := open(t, path)
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range manifest.Manifests {
			files := filesOf(t, index, d)
			want := ""
			if extra != nil {
				want = string(netRaw())
			}
			if got := files["coredns"].PAXRecords["SCHILY.xattr.security.capability"]; got != want {
				t.Errorf("%q: %v has %q, want %q", extra, d.Platform, got, want)
			}
		}
	}
}

// filesOf returns the files of an image by their names.
func filesOf(t *testing.T, index v1.ImageIndex, d v1.Descriptor) map[string]archived {
	t.Helper()
	image, err := index.Image(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]archived)
	for _, layer := range layers {
		compressed, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(compressed)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range untar(t, z) {
			if _, again := all[f.Name]; again {
				t.Errorf("%s is in two layers", f.Name)
			}
			all[f.Name] = f
		}
	}
	return all
}

// The certificates are enough to trust the web with, and every one of them is an authority's.
func TestRoots(t *testing.T) {
	rest, count := roots(), 0
	for block, more := pem.Decode(rest); block != nil; block, more = pem.Decode(more) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !c.IsCA {
			t.Errorf("no certificate of an authority: %v", err)
		}
		count++
		rest = more
	}
	if len(bytes.TrimSpace(rest)) > 0 || count < 50 {
		t.Errorf("%d certificates, and %q after them", count, rest)
	}
}
