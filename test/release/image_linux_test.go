package release

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// images are those of a release.
var images = []struct {
	name, file string
	reference  string // without the version
	suffix     string // of the tag
	raw        bool
}{
	{"coredns-shaker", "coredns-shaker_*_image.tar", "coredns-shaker", "", false},
	{"raw", "coredns-shaker-raw_*_image.tar", "coredns-shaker", "-raw", true},
	{"coredns-shaker-all", "coredns-shaker-all_*_image.tar", "coredns-shaker-all", "", false},
}

// What an image has besides the program, and nothing else: "name mode user:group".
const imageFiles = `
coredns -rwxr-xr-x 0:0
etc/ drwxr-xr-x 0:0
etc/coredns/ drwxr-xr-x 0:0
etc/ssl/ drwxr-xr-x 0:0
etc/ssl/certs/ drwxr-xr-x 0:0
etc/ssl/certs/ca-certificates.crt -rw-r--r-- 0:0
`

// Every file of an image has the digest and the size that are told, and is what an engine expects.
func TestImageLayout(t *testing.T) {
	for _, tt := range images {
		t.Run(tt.name, func(t *testing.T) {
			path := artifact(t, tt.file)
			version := imageVersion(path)
			layout := readLayout(t, path)
			index, platforms := layout.images()
			if want := map[string]string{
				"io.containerd.image.name":          "docker.io/library/" + tt.reference + ":" + version + tt.suffix,
				"org.opencontainers.image.ref.name": version + tt.suffix,
			}; !reflect.DeepEqual(index.Annotations, want) {
				t.Errorf("it is called %v, want %v", index.Annotations, want)
			}
			for name := range layout.files {
				if strings.HasPrefix(name, "blobs/") != layout.used[name] && !slices.Contains([]string{"oci-layout", "index.json", "manifest.json"}, name) {
					t.Errorf("nothing points at %s", name)
				}
			}
			for architecture, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
				if platforms[architecture] == nil {
					t.Errorf("there is none for %s", architecture)
					continue
				}
				expectImage(t, platforms[architecture], machine, tt.reference, version, layout.modified, tt.raw)
			}
			if len(platforms) != 2 {
				t.Errorf("there are %d images, want 2", len(platforms))
			}
			expectDockerManifest(t, layout, tt.reference+":"+version+tt.suffix)
		})
	}
}

// expectImage tells what is wrong with the image of a platform.
func expectImage(t *testing.T, i *image, machine elf.Machine, title, version string, modified time.Time, raw bool) {
	t.Helper()
	var lines []string
	for _, f := range i.files {
		lines = append(lines, fmt.Sprintf("%s %v %d:%d\n", f.Name, f.FileInfo().Mode(), f.Uid, f.Gid))
		if !f.ModTime.Equal(modified) || (f.PAXRecords["SCHILY.xattr.security.capability"] != "") != (raw && f.Name == "coredns") {
			t.Errorf("%s: %s is from %v, with %q", i.Architecture, f.Name, f.ModTime, f.PAXRecords)
		}
	}
	slices.Sort(lines)
	if got := "\n" + strings.Join(lines, ""); got != imageFiles {
		t.Errorf("%s has the files\n%s\nwant\n%s", i.Architecture, got, imageFiles)
	}
	program, err := elf.NewFile(bytes.NewReader(i.program(t)))
	if err != nil || program.Machine != machine {
		t.Fatalf("%s has another program: %v", i.Architecture, err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s has a program that is not static", i.Architecture)
		}
	}
	if !i.Created.Equal(modified) {
		t.Errorf("%s was created at %v, want %v", i.Architecture, i.Created, modified)
	}
	labels := i.Config.Labels
	for name, want := range map[string]string{
		"title": `^` + title + `$`, "description": `^CoreDNS with .*shaker`, "licenses": `^Apache-2\.0$`, "version": "^" + regexp.QuoteMeta(version) + "$",
		"revision": `^[0-9a-f]{40}$`, "created": "^" + regexp.QuoteMeta(modified.UTC().Format(time.RFC3339)) + "$",
		"source": `^https://\S+$`, "documentation": `^https://\S+$`,
	} {
		if name = "org.opencontainers.image." + name; !regexp.MustCompile(want).MatchString(labels[name]) {
			t.Errorf("%s has the label %s=%q, want %s", i.Architecture, name, labels[name], want)
		}
	}
	i.Config.Labels = nil
	if want := (imageConfig{
		User: "65532:65532", WorkingDir: "/etc/coredns", Entrypoint: []string{"/coredns"}, Cmd: []string{"-conf", "/etc/coredns/Corefile"},
		ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
	}); !reflect.DeepEqual(i.Config, want) {
		t.Errorf("%s has %+v, want %+v", i.Architecture, i.Config, want)
	}
}

// expectDockerManifest tells whether manifest.json has the same images as the index, that for amd64 under the plain name.
func expectDockerManifest(t *testing.T, layout *imageLayout, reference string) {
	t.Helper()
	var all []struct {
		Config           string
		RepoTags, Layers []string
	}
	layout.read("manifest.json", &all)
	got := make(map[string]string)
	for _, m := range all {
		var config image
		layout.read(m.Config, &config)
		got[strings.Join(m.RepoTags, " ")] = config.Architecture
		for _, name := range append(m.Layers, m.Config) {
			if !layout.used[name] {
				t.Errorf("manifest.json has %s, and the index does not", name)
			}
		}
		if len(m.Layers) != len(config.RootFS.DiffIDs) {
			t.Errorf("manifest.json has %d layers for %s, want %d", len(m.Layers), config.Architecture, len(config.RootFS.DiffIDs))
		}
	}
	if want := map[string]string{reference: "amd64", reference + "-arm64": "arm64"}; !reflect.DeepEqual(got, want) {
		t.Errorf("manifest.json has %v, want %v", got, want)
	}
}

// The programs in the images are those in the archives.
func TestImageHasTheProgramOfTheArchive(t *testing.T) {
	for _, tt := range images {
		_, platforms := readLayout(t, artifact(t, tt.file)).images()
		for architecture, i := range platforms {
			path := artifact(t, tt.reference+"_*_linux_"+architecture+".tar.gz")
			compressed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range readImageTar(t, bytes.NewReader(gunzipLayer(t, compressed))) {
				if filepath.Base(f.Name) == "coredns" {
					found = true
					if !bytes.Equal(f.content, i.program(t)) {
						t.Errorf("%s: the program for %s differs from that in %s", tt.name, architecture, path)
					}
				}
			}
			if !found {
				t.Errorf("%s has no coredns", path)
			}
		}
	}
}

// platformImage returns the image of this machine's platform.
func platformImage(t *testing.T, pattern string) *image {
	t.Helper()
	_, platforms := readLayout(t, artifact(t, pattern)).images()
	i := platforms[runtime.GOARCH]
	if i == nil {
		t.Skipf("there are no images for %s", runtime.GOARCH)
	}
	return i
}

// farm is a Corefile with two hosts of the lab, of which the first has a service on port 80.
func farm(t *testing.T, l *lab.Lab, properties ...string) (corefile string, alive, dead *lab.Host) {
	t.Helper()
	alive, dead = l.Host("alive"), l.Host("dead")
	alive.Listen(80)
	return fmt.Sprintf(`example.org {
    shaker {
        port 80
        deny 0.0.0.0/0 ::/0
        allow 198.18.0.0/16
        status 127.0.0.1:8053
        %s
    }
    hosts {
        %v www.example.org
        %v www.example.org
    }
    errors
    log
}
`, strings.Join(properties, "\n        "), alive.Addr4, dead.Addr4), alive, dead
}

// untilFiltered waits until the server on port 53 answers with the address of one host only.
func untilFiltered(p *lab.Process, alive *lab.Host) {
	p.UntilNil(func() error {
		in, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA), "127.0.0.1:53")
		if err != nil {
			return err
		}
		if len(in.Answer) != 1 || in.Answer[0].(*dns.A).A.String() != alive.Addr4.String() {
			return fmt.Errorf("the answer is %v, want %v", in.Answer, alive.Addr4)
		}
		return nil
	})
}

// The image runs as engines run it when they are told to allow nothing: as its user, without capabilities, with files that
// cannot be written. It answers, leaves dead addresses out, shows its pages, and ends when it is told to.
func TestImageRuns(t *testing.T) {
	for _, tt := range images {
		if tt.raw {
			continue // see TestImageRaw
		}
		t.Run(tt.name, func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				// As engines do for a container with a network of its own.
				l.Sysctl("net.ipv4.ip_unprivileged_port_start", "0")
				corefile, alive, dead := farm(t, l)
				c := newContainer(t, platformImage(t, tt.file))
				c.mountCorefile(t, corefile)
				before := treeOf(t, c.Root)

				p := c.start(t)
				untilFiltered(p, alive)
				expectConfined(t, p)
				expectPages(t, dead)
				expectEnd(t, p)

				if after := treeOf(t, c.Root); !slices.Equal(before, after) {
					t.Errorf("the files are\n%s\nand were\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
				}
				expectCalmLog(t, p, dead)
			})
		})
	}
}

// expectCalmLog tells whether all that the process complains of is that the host is down.
func expectCalmLog(t *testing.T, p *lab.Process, dead *lab.Host) {
	t.Helper()
	for line := range strings.Lines(p.Log.String()) {
		if strings.Contains(line, "[ERROR]") || strings.Contains(line, "[WARNING]") && !strings.Contains(line, fmt.Sprintf("%v:80 is down", dead.Addr4)) {
			t.Errorf("it logs %s", line)
		}
	}
}

// expectConfined tells what the process may do that it should not.
func expectConfined(t *testing.T, p *lab.Process) {
	t.Helper()
	status := readProcess(t, p, "status")
	for _, want := range []string{
		"\nUid:\t65532\t65532\t65532\t65532\n", "\nGid:\t65532\t65532\t65532\t65532\n", "\nGroups:\t \n", "\nNoNewPrivs:\t1\n",
		"\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n",
		"\nCapAmb:\t0000000000000000\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("it has no %q in\n%s", want, status)
		}
	}
	if !regexp.MustCompile(`\nNSpid:\t.*\t1\n`).MatchString(status) {
		t.Errorf("it is not process 1:\n%s", status)
	}
	mounts := strings.Split(strings.TrimSpace(readProcess(t, p, "mounts")), "\n")
	for _, mount := range mounts {
		if fields := strings.Fields(mount); fields[1] != "/proc" && !slices.Contains(strings.Split(fields[3], ","), "ro") {
			t.Errorf("it may write to %s", mount)
		}
	}
	if len(mounts) != 4 { // /, /proc, /proc/sys, /etc/coredns
		t.Errorf("it sees %q", mounts)
	}
	if environment := readProcess(t, p, "environ"); environment != "" {
		t.Errorf("its environment is %q, and that of the image is empty", environment)
	}
}

func readProcess(t *testing.T, p *lab.Process, name string) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// expectPages tells whether the status page and its JSON tell that the host is down.
func expectPages(t *testing.T, dead *lab.Host) {
	t.Helper()
	if page := string(get(t, "http://127.0.0.1:8053/")); !strings.Contains(page, "<html") || !strings.Contains(page, dead.Addr4.String()) {
		t.Errorf("the page has no %v:\n%s", dead.Addr4, page)
	}
	var all struct {
		Targets []struct{ Address, State string }
	}
	if err := json.Unmarshal(get(t, "http://127.0.0.1:8053/targets.json?state=down"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Targets) != 1 || all.Targets[0].Address != dead.Addr4.String() || all.Targets[0].State != "down" {
		t.Errorf("the targets that are down are %+v, want %v", all.Targets, dead.Addr4)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s (%v)", url, answer.Status, err)
	}
	return body
}

// expectEnd tells whether the process ends by itself, well before an engine would kill it.
func expectEnd(t *testing.T, p *lab.Process) {
	t.Helper()
	const patience = 10 * time.Second // that of docker stop
	told := time.Now()
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Errorf("at SIGTERM it ends with %v", err)
	}
	if took := time.Since(told); took > patience {
		t.Errorf("it takes %v to end, want less than %v", took, patience)
	}
}

// expectRefusal tells whether the container ends with a status, and with these words.
func expectRefusal(t *testing.T, p *lab.Process, status int, words ...string) {
	t.Helper()
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != status {
		t.Errorf("it ends with %v, want %d", err, status)
	}
	for _, word := range words {
		if !strings.Contains(p.Log.String(), word) {
			t.Errorf("no word of %q in\n%s", word, p.Log.String())
		}
	}
}

// Where an engine keeps the low ports to root, port 53 is refused, in words that tell why. A Corefile that nobody mounted is
// missed by its name.
func TestImageRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, corefile, lowest string
		words                  []string
	}{
		{"port 53 is for root", "example.org {\n    whoami\n}\n", "1024", []string{"listen tcp :53: bind: permission denied"}},
		{"no Corefile", "", "0", []string{"/etc/coredns/Corefile: no such file or directory"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				l.Sysctl("net.ipv4.ip_unprivileged_port_start", tt.lowest)
				c := newContainer(t, platformImage(t, "coredns-shaker_*_image.tar"))
				if tt.corefile != "" {
					c.mountCorefile(t, tt.corefile)
				}
				expectRefusal(t, c.start(t), 1, tt.words...)
			})
		})
	}
}

// method raw takes the image that is for it, in a container with NET_RAW that may get new privileges. Everywhere else the
// container ends and says so.
func TestImageRaw(t *testing.T) {
	const capNetRaw = 13
	missing := []string{"method raw", "the capability CAP_NET_RAW is missing", "NET_RAW among"}
	for _, tt := range []struct {
		name, file      string
		capabilities    []int
		noNewPrivileges bool
		status          int
		words           []string // with which it ends, if it does
	}{
		{"as documented", "coredns-shaker-raw_*_image.tar", []int{capNetRaw}, false, 0, nil},
		{"no NET_RAW", "coredns-shaker-raw_*_image.tar", nil, false, 125, []string{"exec /coredns: operation not permitted"}},
		{"no new privileges", "coredns-shaker-raw_*_image.tar", []int{capNetRaw}, true, 1, missing},
		{"the other image", "coredns-shaker_*_image.tar", []int{capNetRaw}, false, 1, missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Run(t, func(t *testing.T, l *lab.Lab) {
				l.Sysctl("net.ipv4.ip_unprivileged_port_start", "0")
				corefile, alive, dead := farm(t, l, "method raw")
				c := newContainer(t, platformImage(t, tt.file))
				c.Capabilities, c.NoNewPrivileges = tt.capabilities, tt.noNewPrivileges
				c.mountCorefile(t, corefile)
				p := c.start(t)
				if tt.words != nil {
					expectRefusal(t, p, tt.status, tt.words...)
					return
				}
				untilFiltered(p, alive)
				if status := readProcess(t, p, "status"); !strings.Contains(status, "\nCapPrm:\t0000000000002000\n") || !strings.Contains(status, "\nUid:\t65532\t") {
					t.Errorf("it has other privileges:\n%s", status)
				}
				expectPages(t, dead)
				expectEnd(t, p)
			})
		})
	}
}

// The programs run, that for the other architecture by an emulator.
func TestImageVersions(t *testing.T) {
	for _, tt := range images {
		for _, architecture := range []string{"amd64", "arm64"} {
			t.Run(tt.name+" "+architecture, func(t *testing.T) {
				path := artifact(t, tt.file)
				_, platforms := readLayout(t, path).images()
				program := filepath.Join(t.TempDir(), "coredns")
				if err := os.WriteFile(program, platforms[architecture].program(t), 0o700); err != nil {
					t.Fatal(err)
				}
				command := append(emulator(t, architecture), program, "-version")
				out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "shaker "+imageVersion(path)+"\n") || !strings.Contains(string(out), "linux/"+architecture) {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// emulator returns what runs programs for an architecture, nothing for this machine's own.
func emulator(t *testing.T, architecture string) []string {
	t.Helper()
	if architecture == runtime.GOARCH {
		return nil
	}
	name := map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[architecture]
	for _, command := range []string{name, name + "-static"} {
		if path, err := exec.LookPath(command); err == nil {
			return []string{path}
		}
	}
	lab.Skip(t, fmt.Errorf("there is no %s, which runs programs for %s; install it: apt-get install qemu-user", name, architecture))
	return nil
}
