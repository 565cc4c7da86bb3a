package release

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

const module = "github.com/coredns-shaker/shaker"

var folder = flag.String("release", "", "`folder` that .ci/release made")

// artifact returns the path of the only file of the release whose name matches a pattern of path/filepath. Without a
// release the test skips.
func artifact(t *testing.T, pattern string) string {
	t.Helper()
	if *folder == "" {
		t.Skip("tries a release: .ci/release v0.0.1-try /tmp/release, then go test ./test/release -release /tmp/release")
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

// number returns the version of the release without its v.
func number(t *testing.T) string {
	t.Helper()
	name := filepath.Base(artifact(t, "coredns-shaker_*_linux_amd64.tar.gz"))
	return strings.TrimSuffix(strings.TrimPrefix(name, "coredns-shaker_"), "_linux_amd64.tar.gz")
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	octets, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// folderFiles is what is in the folder of release N.
const folderFiles = `
RELEASE.md
SHA256SUMS
coredns-shaker-N-1.aarch64.rpm
coredns-shaker-N-1.x86_64.rpm
coredns-shaker-all-N-1.aarch64.rpm
coredns-shaker-all-N-1.x86_64.rpm
coredns-shaker-all_N.cdx.json
coredns-shaker-all_N_amd64.deb
coredns-shaker-all_N_arm64.deb
coredns-shaker-all_N_image.tar
coredns-shaker-all_N_linux_amd64.tar.gz
coredns-shaker-all_N_linux_arm64.tar.gz
coredns-shaker-raw_N_image.tar
coredns-shaker_N.cdx.json
coredns-shaker_N_amd64.deb
coredns-shaker_N_arm64.deb
coredns-shaker_N_darwin_amd64.tar.gz
coredns-shaker_N_darwin_arm64.tar.gz
coredns-shaker_N_image.tar
coredns-shaker_N_linux_amd64.tar.gz
coredns-shaker_N_linux_arm64.tar.gz
coredns-shaker_N_windows_amd64.zip
`

func TestFolder(t *testing.T) {
	want := strings.Fields(strings.ReplaceAll(folderFiles, "N", number(t)))
	entries, err := os.ReadDir(*folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
		if info, err := entry.Info(); err != nil || info.Mode() != 0o644 && runtime.GOOS != "windows" {
			t.Errorf("%s is %v, %v, want a file that all may read", entry.Name(), info.Mode(), err)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Whoever has the sums can tell that all else is whole.
func TestSums(t *testing.T) {
	sums := contents(t, artifact(t, "SHA256SUMS"))
	want := make(map[string]bool)
	entries, err := os.ReadDir(*folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "SHA256SUMS" {
			sum := sha256.Sum256(contents(t, filepath.Join(*folder, entry.Name())))
			want[fmt.Sprintf("%x  %s", sum, entry.Name())] = true
		}
	}
	got := strings.Split(strings.TrimSuffix(string(sums), "\n"), "\n")
	for _, line := range got {
		if !want[line] {
			t.Errorf("it has %s", line)
		}
		delete(want, line)
	}
	for line := range want {
		t.Errorf("it lacks %s", line)
	}
	if !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(a[66:], b[66:]) }) {
		t.Errorf("not in the order of names:\n%s", sums)
	}
}

// packedFile is one in an archive.
type packedFile struct {
	name   string
	mode   fs.FileMode
	when   time.Time
	octets []byte
}

// unpacked returns what is in an archive, in its order.
func unpacked(t *testing.T, path string) (files []packedFile) {
	t.Helper()
	if strings.HasSuffix(path, ".zip") {
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			octets, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, packedFile{f.Name, f.Mode(), f.Modified, octets})
		}
		return files
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compressed, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(compressed); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		octets, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s belongs to %d:%d %q:%q", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		files = append(files, packedFile{h.Name, h.FileInfo().Mode(), h.ModTime, octets})
	}
}

// archives are those of a release, by what comes before and after the version in their names.
var archives = []struct{ name, goos, goarch string }{
	{"coredns-shaker", "linux", "amd64"},
	{"coredns-shaker", "linux", "arm64"},
	{"coredns-shaker", "darwin", "amd64"},
	{"coredns-shaker", "darwin", "arm64"},
	{"coredns-shaker", "windows", "amd64"},
	{"coredns-shaker-all", "linux", "amd64"},
	{"coredns-shaker-all", "linux", "arm64"},
}

// eachArchive hands on every archive with its files.
func eachArchive(t *testing.T, do func(t *testing.T, name, goos, goarch string, files []packedFile)) {
	n := number(t)
	for _, a := range archives {
		t.Run(a.name+"/"+a.goos+"/"+a.goarch, func(t *testing.T) {
			suffix := ".tar.gz"
			if a.goos == "windows" {
				suffix = ".zip"
			}
			top := fmt.Sprintf("%s_%s_%s_%s", a.name, n, a.goos, a.goarch)
			do(t, a.name, a.goos, a.goarch, unpacked(t, artifact(t, top+suffix)))
		})
	}
}

const archiveFiles = `
drwxr-xr-x TOP/
-rw-r--r-- TOP/CHANGELOG.md
-rw-r--r-- TOP/Corefile.example
-rw-r--r-- TOP/LICENSE
-rw-r--r-- TOP/README.md
-rwxr-xr-x TOP/corednsEXE
drwxr-xr-x TOP/man/
-rw-r--r-- TOP/man/coredns-shaker.7
-rw-r--r-- TOP/man/shaker.1
-rw-r--r-- TOP/overrides.example
-rwxr-xr-x TOP/shakerEXE
-rwxr-xr-x TOP/synpingEXE
SYSTEMD`

// unitFiles is what else is in those for Linux.
const unitFiles = `drwxr-xr-x TOP/systemd/
-rw-r--r-- TOP/systemd/coredns.service
drwxr-xr-x TOP/systemd/coredns.service.d/
-rw-r--r-- TOP/systemd/coredns.service.d/peers.conf
-rw-r--r-- TOP/systemd/coredns.service.d/raw.conf
`

func TestArchiveFiles(t *testing.T) {
	n, when := number(t), released(t)
	eachArchive(t, func(t *testing.T, name, goos, goarch string, files []packedFile) {
		units := ""
		if goos == "linux" {
			units = unitFiles
		}
		want := strings.ReplaceAll(archiveFiles, "SYSTEMD", units)
		want = strings.NewReplacer("TOP", fmt.Sprintf("%s_%s_%s_%s", name, n, goos, goarch), "EXE", exe(goos)).Replace(want)
		got := "\n"
		for _, f := range files {
			got += fmt.Sprintf("%v %s\n", f.mode, f.name)
			if !f.when.Equal(when) {
				t.Errorf("%s is of %v, want %v", f.name, f.when, when)
			}
		}
		if got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

// exe is what the names of programs end in.
func exe(goos string) string {
	if goos == "windows" {
		return ".exe"
	}
	return ""
}

// programsOf returns the programs among the files of an archive, by the name of their command.
func programsOf(goos string, files []packedFile) map[string][]byte {
	programs := make(map[string][]byte)
	for _, f := range files {
		if name, ok := strings.CutSuffix(path.Base(f.name), exe(goos)); ok && f.mode == 0o755 {
			programs[name] = f.octets
		}
	}
	return programs
}

// Programs are for the platform that their archive names, need nothing of the machine they run on, and are built as
// docs/releasing.md says.
func TestPrograms(t *testing.T) {
	eachArchive(t, func(t *testing.T, name, goos, goarch string, files []packedFile) {
		programs := programsOf(goos, files)
		if got, want := slices.Sorted(maps.Keys(programs)), []string{"coredns", "shaker", "synping"}; !slices.Equal(got, want) {
			t.Errorf("programs are %q, want %q", got, want)
		}
		for command, octets := range programs {
			if got, want := platformOf(t, octets), goos+"/"+goarch; got != want {
				t.Errorf("%s is for %s, want %s", command, got, want)
			}
			info, err := buildinfo.Read(bytes.NewReader(octets))
			if err != nil {
				t.Fatal(err)
			}
			if want := packageOf(name, command); info.Path != want {
				t.Errorf("%s is of %s, want %s", command, info.Path, want)
			}
			settings := make(map[string]string)
			for _, s := range info.Settings {
				settings[s.Key] = s.Value
			}
			want := map[string]string{"-buildmode": settings["-buildmode"], "-compiler": "gc", "-trimpath": "true", "CGO_ENABLED": "0", "GOOS": goos, "GOARCH": goarch}
			if goarch == "amd64" {
				want["GOAMD64"] = "v1"
			} else {
				want["GOARM64"] = "v8.0"
			}
			if godebug := settings["DefaultGODEBUG"]; godebug != "" {
				want["DefaultGODEBUG"] = godebug // what go.mod says
			}
			if !maps.Equal(settings, want) {
				t.Errorf("%s is built with %v, want %v", command, settings, want)
			}
		}
	})
}

// packageOf returns the import path of a command's main package.
func packageOf(name, command string) string {
	if name == "coredns-shaker-all" && command == "coredns" {
		command = "coredns-all"
	}
	return module + "/cmd/" + command
}

// platformOf returns the platform of a program by its headers, and complains where it has symbols, or libraries that do
// not come with every system.
func platformOf(t *testing.T, octets []byte) string {
	t.Helper()
	r := bytes.NewReader(octets)
	if f, err := elf.NewFile(r); err == nil {
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("it has %v, so it is not static", p.Type)
			}
		}
		for _, s := range f.Sections {
			if s.Type == elf.SHT_SYMTAB || strings.HasPrefix(s.Name, ".debug") || strings.HasPrefix(s.Name, ".zdebug") {
				t.Errorf("it has %s, so it is not stripped", s.Name)
			}
		}
		return "linux/" + map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	}
	if f, err := macho.NewFile(r); err == nil {
		if segment := f.Segment("__DWARF"); segment != nil {
			t.Error("it has __DWARF, so it is not stripped")
		}
		libraries, err := f.ImportedLibraries()
		for _, library := range libraries {
			if !strings.HasPrefix(library, "/usr/lib/") && !strings.HasPrefix(library, "/System/Library/") {
				t.Errorf("it needs %s (%v)", library, err)
			}
		}
		return "darwin/" + map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[f.Cpu]
	}
	f, err := pe.NewFile(r)
	if err != nil {
		t.Fatal("neither ELF, Mach-O nor PE")
	}
	for _, s := range f.Sections {
		if strings.HasPrefix(s.Name, ".debug") || strings.HasPrefix(s.Name, ".zdebug") {
			t.Errorf("it has %s, so it is not stripped", s.Name)
		}
	}
	if len(f.Symbols) > 0 {
		t.Errorf("it has %d symbols, so it is not stripped", len(f.Symbols))
	}
	return "windows/" + map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}[f.Machine]
}

// The archives of this machine's platform run where they are unpacked.
func TestProgramsRun(t *testing.T) {
	n, ran := number(t), false
	eachArchive(t, func(t *testing.T, name, goos, goarch string, files []packedFile) {
		if goos != runtime.GOOS || goarch != runtime.GOARCH {
			t.Skip("for another platform")
		}
		ran = true
		dir := t.TempDir()
		for _, f := range files {
			if path := filepath.Join(dir, path.Base(f.name)); f.mode.IsRegular() {
				if err := os.WriteFile(path, f.octets, f.mode); err != nil {
					t.Fatal(err)
				}
			}
		}
		output := func(command string, args ...string) string {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, command+exe(goos)), args...)
			cmd.Dir = dir
			octets, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s %s: %v\n%s", command, args, err, octets)
			}
			return string(octets)
		}
		for _, tt := range []struct{ got, want string }{
			{output("coredns", "-version"), ", shaker v" + n + "\n"},
			{output("coredns", "-conf", "Corefile.example", "-check"), "    shaker {\n"},
			{output("shaker", "version"), "shaker v" + n + "\n"},
			{output("synping", "-h"), "usage: synping "},
		} {
			if !strings.Contains(tt.got, tt.want) {
				t.Errorf("it prints\n%s\nwant %q in it", tt.got, tt.want)
			}
		}
		if has, want := strings.Contains(output("coredns", "-plugins"), "\nkubernetes\n"), name == "coredns-shaker-all"; has != want {
			t.Errorf("it has kubernetes: %v, want %v", has, want)
		}
	})
	if !ran && !t.Failed() {
		t.Skipf("there is no archive for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
}

// leaves hands on a file and all that is in it, unpacked as far as it goes.
func leaves(name string, octets []byte, do func(name string, octets []byte)) {
	do(name, octets)
	switch {
	case bytes.HasPrefix(octets, []byte("PK\x03\x04")):
		if z, err := zip.NewReader(bytes.NewReader(octets), int64(len(octets))); err == nil {
			for _, f := range z.File {
				if r, err := f.Open(); err == nil {
					inside, _ := io.ReadAll(r)
					leaves(name+"/"+f.Name, inside, do)
				}
			}
		}
	case len(octets) > 262 && string(octets[257:262]) == "ustar":
		for r := tar.NewReader(bytes.NewReader(octets)); ; {
			h, err := r.Next()
			if err != nil {
				return
			}
			inside, _ := io.ReadAll(r)
			leaves(name+"/"+h.Name, inside, do)
		}
	case bytes.HasPrefix(octets, []byte("\x1f\x8b")):
		if r, err := gzip.NewReader(bytes.NewReader(octets)); err == nil {
			inside, _ := io.ReadAll(r)
			leaves(name+"/", inside, do)
		}
	case bytes.HasPrefix(octets, []byte("!<arch>\n")) || bytes.HasPrefix(octets, []byte("\xed\xab\xee\xdb")):
		// What a Debian package has, and the files of an RPM package, which come last.
		for rest, part := octets[8:], 0; ; part++ {
			at := bytes.Index(rest, []byte("\x1f\x8b\x08"))
			if at < 0 {
				return
			}
			rest = rest[at:]
			r := bytes.NewReader(rest)
			compressed, err := gzip.NewReader(r)
			if err == nil {
				compressed.Multistream(false)
				inside, _ := io.ReadAll(compressed)
				leaves(fmt.Sprintf("%s/%d", name, part), inside, do)
			}
			rest = rest[3:]
		}
	}
}

// Nothing in a release tells where, on what and by whom it was made.
func TestNothingTold(t *testing.T) {
	number(t)
	told := buildersNames(t)
	entries, err := os.ReadDir(*folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		programs := 0
		leaves(entry.Name(), contents(t, filepath.Join(*folder, entry.Name())), func(name string, octets []byte) {
			for what, text := range told {
				if at := bytes.Index(octets, []byte(text)); at >= 0 {
					t.Errorf("%s tells %s: %q", name, what, octets[max(0, at-20):min(len(octets), at+len(text)+20)])
				}
			}
			// Every program of Go has it, and nothing that is compressed.
			programs += bytes.Count(octets, []byte("\xff Go buildinf:"))
		})
		if text := regexp.MustCompile(`\.md$|\.json$|SUMS$`).MatchString(entry.Name()); !text && programs == 0 {
			t.Errorf("%s: found no program in it, so that nobody knows what it tells", entry.Name())
		}
	}
}

// buildersNames returns what is peculiar to this machine. Its name is not among it, since it may be a word: .ci/run makes a
// release under two, and compares.
func buildersNames(t *testing.T) map[string]string {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{"the sources' directory": top + "/", "the directory of temporary files": filepath.Join(os.TempDir(), "go-build")}
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} {
		if output, err := exec.CommandContext(t.Context(), "go", "env", name).Output(); err == nil {
			told[name] = strings.TrimSpace(string(output)) + "/"
		}
	}
	// A short one, such as /src/, is in many addresses of pages.
	maps.DeleteFunc(told, func(_, name string) bool { return len(name) < 8 })
	return told
}

// bom is what we read of a list of modules in CycloneDX's form.
type bom struct {
	Format       string `json:"bomFormat"`
	Spec         string `json:"specVersion"`
	SerialNumber string
	Metadata     struct {
		Timestamp  time.Time
		Component  bomComponent
		Properties []struct{ Name, Value string }
	}
	Components []bomComponent
}

type bomComponent struct {
	Type, Name, Version, Purl string
	Hashes                    []struct{ Alg, Content string }
}

func readBOM(t *testing.T, name string) (list bom) {
	t.Helper()
	if err := json.Unmarshal(contents(t, artifact(t, name+"_*.cdx.json")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// released returns the time that all in the release has.
func released(t *testing.T) time.Time {
	t.Helper()
	return readBOM(t, "coredns-shaker").Metadata.Timestamp
}

// line is a module with its version and its hash, as go.sum has it.
func line(m *debug.Module, n string) string {
	if m.Replace != nil {
		return m.Path + " v" + n + " " // of the same repository
	}
	return m.Path + " " + m.Version + " " + m.Sum
}

func (c bomComponent) line(t *testing.T) string {
	t.Helper()
	sum := ""
	for _, h := range c.Hashes {
		octets, err := hex.DecodeString(h.Content)
		if err != nil || h.Alg != "SHA-256" {
			t.Errorf("%s has the hash %s %s, want SHA-256", c.Name, h.Alg, h.Content)
		}
		sum = "h1:" + base64.StdEncoding.EncodeToString(octets)
	}
	if !strings.HasPrefix(c.Purl, "pkg:golang/"+c.Name+"@"+c.Version+"?") {
		t.Errorf("%s %s has the address %s", c.Name, c.Version, c.Purl)
	}
	return c.Name + " " + c.Version + " " + sum
}

// The list of a release's modules has those that go version -m tells of its programs, no more, and none twice.
func TestBOM(t *testing.T) {
	n := number(t)
	listed := make(map[string][]string) // the lines of each
	for _, name := range []string{"coredns-shaker", "coredns-shaker-all"} {
		list := readBOM(t, name)
		if list.Format != "CycloneDX" || list.Spec != "1.6" || list.SerialNumber != "" {
			t.Errorf("%s: it is in %s %s, with the number %q, want CycloneDX 1.6 without one", name, list.Format, list.Spec, list.SerialNumber)
		}
		if main := list.Metadata.Component; main.Type != "application" || main.Version != "v"+n {
			t.Errorf("%s: it is of %s %s %s, want application, v%s", name, main.Type, main.Name, main.Version, n)
		}
		for _, c := range list.Components {
			listed[name] = append(listed[name], c.line(t))
		}
	}
	eachArchive(t, func(t *testing.T, name, goos, goarch string, files []packedFile) {
		for command, octets := range programsOf(goos, files) {
			info, err := buildinfo.Read(bytes.NewReader(octets))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"std " + info.GoVersion + " "}
			for _, dep := range info.Deps {
				want = append(want, line(dep, n))
			}
			for _, module := range want {
				if !slices.Contains(listed[name], module) {
					t.Errorf("it lacks %s, which %s has", module, command)
				}
			}
			if goos != "linux" || command != "coredns" {
				continue
			}
			slices.Sort(want)
			if got := slices.Sorted(slices.Values(listed[name])); !slices.Equal(got, want) {
				t.Errorf("it lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if goarch == "amd64" {
				sum, found := fmt.Sprintf("%x", sha256.Sum256(octets)), false
				for _, p := range readBOM(t, name).Metadata.Properties {
					found = found || p.Value == sum
				}
				if !found {
					t.Errorf("it does not tell the hash of coredns, %s", sum)
				}
			}
		}
	})
}

// The notes are what the changelog tells of the version.
func TestNotes(t *testing.T) {
	n := number(t)
	notes := string(contents(t, artifact(t, "RELEASE.md")))
	var changelog string
	for _, f := range unpacked(t, artifact(t, "coredns-shaker_*_linux_amd64.tar.gz")) {
		if path.Base(f.name) == "CHANGELOG.md" {
			changelog = string(f.octets)
		}
	}
	headline := regexp.MustCompile(`(?m)^## ` + regexp.QuoteMeta(n) + `( - \d{4}-\d\d-\d\d)?$`).FindString(changelog)
	if headline == "" {
		headline = "## Unreleased"
	}
	_, want, _ := strings.Cut(changelog, headline+"\n")
	want, _, _ = strings.Cut(want, "\n## ")
	if want = strings.TrimSpace(want) + "\n"; notes != want {
		t.Errorf("they are\n%s\nwant\n%s", notes, want)
	}
}
