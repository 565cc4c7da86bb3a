package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// program makes the header of a program, with one part of a type.
func program(t *testing.T, path string, machine elf.Machine, part elf.ProgType) {
	t.Helper()
	var b bytes.Buffer
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	for _, part := range []any{header, elf.Prog64{Type: uint32(part)}} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

func programs(t *testing.T, machine elf.Machine, part elf.ProgType) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"coredns", "shaker"} {
		program(t, filepath.Join(dir, name), machine, part)
	}
	return dir
}

func TestOrder(t *testing.T) {
	static := programs(t, elf.EM_X86_64, elf.PT_LOAD)
	good := order{"coredns-shaker", "v1.2.3", "amd64", static, "deb", "../..", "1767225600"}
	for _, tt := range []struct {
		name string
		edit func(o *order)
		want string // empty where it is packed
	}{
		{"good", func(*order) {}, ""},
		{"rpm", func(o *order) { o.format = "rpm" }, ""},
		{"all", func(o *order) { o.name = "coredns-shaker-all" }, ""},
		{"candidate", func(o *order) { o.version = "1.2.3-rc.1" }, ""},
		{"name", func(o *order) { o.name = "coredns" }, `-name: "coredns" is no package of ours, want coredns-shaker or coredns-shaker-all`},
		{"architecture", func(o *order) { o.arch = "x86_64" }, `-arch: "x86_64" is not packed, want amd64 or arm64`},
		{"format", func(o *order) { o.format = "apk" }, `-format: "apk" is not packed, want deb or rpm`},
		{"no version", func(o *order) { o.version = "" }, `-version: "" fits no package`},
		{"hyphen", func(o *order) { o.version = "v1.2.3-rc-1" }, `-version: "v1.2.3-rc-1" fits no package, want v1.2.3 or v1.2.3-rc.1`},
		{"build", func(o *order) { o.version = "v1.2.3+dirty" }, `-version: "v1.2.3+dirty" fits no package`},
		{"no time", func(o *order) { o.epoch = "" }, `SOURCE_DATE_EPOCH: "" is no time, want the seconds since 1970`},
		{"a date", func(o *order) { o.epoch = "2026-01-01" }, `SOURCE_DATE_EPOCH: "2026-01-01" is no time`},
		{"no programs", func(o *order) { o.binaries = t.TempDir() }, "no such file or directory, want a program for Linux"},
		{"another machine", func(o *order) { o.arch = "arm64" }, "is for EM_X86_64, want EM_AARCH64 for arm64"},
		{"linked to libc", func(o *order) { o.binaries = programs(t, elf.EM_X86_64, elf.PT_INTERP) }, "needs libraries, want one that was built with CGO_ENABLED=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, out := good, filepath.Join(t.TempDir(), "package")
			tt.edit(&o)
			err := run(o, out, false, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			left, globErr := filepath.Glob(filepath.Join(filepath.Dir(out), "*"))
			if made := len(left) == 1; globErr != nil || made != (tt.want == "") {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	if err := run(good, "", false, nil); err == nil || err.Error() != "-out is missing, want the file to make" {
		t.Errorf("without -out: %v", err)
	}
	if err := run(good, "x", false, []string{"more"}); err == nil || !strings.Contains(err.Error(), `["more"] is too much`) {
		t.Errorf("with more: %v", err)
	}
}

// The names say what the packages are by the conventions of both kinds. A candidate sorts before its release.
func TestConventionalName(t *testing.T) {
	for _, tt := range []struct{ name, version, arch, format, want string }{
		{"coredns-shaker", "v1.2.3", "amd64", "deb", "coredns-shaker_1.2.3_amd64.deb"},
		{"coredns-shaker-all", "v1.2.3-rc.1", "arm64", "deb", "coredns-shaker-all_1.2.3~rc.1_arm64.deb"},
		{"coredns-shaker", "v1.2.3", "amd64", "rpm", "coredns-shaker-1.2.3-1.x86_64.rpm"},
		{"coredns-shaker-all", "v1.2.3-rc.1", "arm64", "rpm", "coredns-shaker-all-1.2.3~rc.1-1.aarch64.rpm"},
	} {
		o := order{tt.name, tt.version, tt.arch, "", tt.format, "../..", "1767225600"}
		if err := o.check(); err != nil {
			t.Fatal(err)
		}
		if got, err := o.conventionalName(); err != nil || got != tt.want {
			t.Errorf("got %q, %v, want %q", got, err, tt.want)
		}
	}
}

// A copy of the repository elsewhere, with other modes, another mask, another time zone and another directory for what is
// made on the way, makes the same package.
func TestReproducible(t *testing.T) {
	binaries := programs(t, elf.EM_X86_64, elf.PT_LOAD)
	for _, format := range []string{"deb", "rpm"} {
		var first []byte
		for i, mask := range []int{0o022, 0o077} {
			elsewhere := t.TempDir()
			for _, name := range []string{"deploy", "man", "cmd/shaker"} {
				if err := os.CopyFS(filepath.Join(elsewhere, name), os.DirFS(filepath.Join("../..", name))); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"LICENSE", "CHANGELOG.md"} {
				text, err := os.ReadFile(filepath.Join("../..", name))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(elsewhere, name), text, os.FileMode(0o600+i*0o177)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("TZ", []string{"UTC", "Asia/Kathmandu"}[i])
			t.Setenv("TMPDIR", t.TempDir())
			old := syscall.Umask(mask)
			out := filepath.Join(t.TempDir(), "package")
			err := run(order{"coredns-shaker", "v1.2.3", "amd64", binaries, format, elsewhere, "1767225600"}, out, false, nil)
			syscall.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = text
			} else if !bytes.Equal(text, first) {
				t.Errorf("%s: two packages of the same differ", format)
			}
		}
	}
}

// Each text of deploy/systemd that is replaced is there, once, and nothing of the other place is left.
func TestUnit(t *testing.T) {
	o := order{"coredns-shaker", "v1.2.3", "amd64", "", "deb", "../..", "1767225600"}
	made := t.TempDir()
	if err := o.makeFiles(made); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"coredns-shaker.service", "peers.conf", "raw.conf"} {
		text, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{"/usr/local", "/etc/coredns/", "DynamicUser", "coredns-peers", "StateDirectory=coredns\n", ".service.d"} {
			if strings.Contains(string(text), other) {
				t.Errorf("%s has %s", name, other)
			}
		}
	}
	if _, err := unit("[Service]\n"); err == nil || !strings.Contains(err.Error(), "0 times, want once: tools/package replaces it") {
		t.Errorf("another unit: %v", err)
	}
}
