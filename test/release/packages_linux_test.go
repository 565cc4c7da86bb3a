package release

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// The packages of the release for this machine.
const (
	debOfRelease    = "coredns-shaker_*_amd64.deb"
	allDebOfRelease = "coredns-shaker-all_*_amd64.deb"
	rpmOfRelease    = "coredns-shaker-[0-9]*.x86_64.rpm"
	allRPMOfRelease = "coredns-shaker-all-[0-9]*.x86_64.rpm"
)

const (
	corefile  = "/etc/coredns-shaker/Corefile"
	overrides = "/etc/coredns-shaker/overrides"
)

// What is in a package, to whom it belongs and with which mode. All has one time.
func TestDebFiles(t *testing.T) {
	for _, tt := range []struct{ name, pattern string }{
		{"coredns-shaker", debOfRelease},
		{"coredns-shaker", "coredns-shaker_*_arm64.deb"},
		{"coredns-shaker-all", allDebOfRelease},
		{"coredns-shaker-all", "coredns-shaker-all_*_arm64.deb"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			path := artifact(t, tt.pattern)
			need(t, "dpkg-deb", "dpkg")
			wantGolden(t, "testdata/deb.txt", tt.name, listTar(t, output(t, "dpkg-deb", "--fsys-tarfile", path))+"control:\n"+
				listTar(t, output(t, "dpkg-deb", "--ctrl-tarfile", path)))
		})
	}
}

func TestRPMFiles(t *testing.T) {
	for _, tt := range []struct{ name, pattern string }{
		{"coredns-shaker", rpmOfRelease},
		{"coredns-shaker", "coredns-shaker-[0-9]*.aarch64.rpm"},
		{"coredns-shaker-all", allRPMOfRelease},
		{"coredns-shaker-all", "coredns-shaker-all-[0-9]*.aarch64.rpm"},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			path := artifact(t, tt.pattern)
			need(t, "rpm", "rpm")
			wantGolden(t, "testdata/rpm.txt", tt.name, output(t, "rpm", "-qp", "--qf",
				`[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} %{FILEFLAGS:fflags}\n]`, path))
			if got := output(t, "rpm", "-qp", "--qf", "%{BUILDHOST}", path); got != "localhost" {
				t.Errorf("built on %q", got)
			}
			times := strings.Fields(output(t, "rpm", "-qp", "--qf", `%{BUILDTIME}\n[%{FILEMTIMES}\n]`, path))
			if slices.Sort(times); len(slices.Compact(times)) != 1 {
				t.Errorf("it has several times: %q", slices.Compact(times))
			}
		})
	}
}

// listTar lists an archive as ls does, without sizes and times.
func listTar(t *testing.T, archive string) string {
	t.Helper()
	var list strings.Builder
	times := make(map[string]bool)
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		times[h.ModTime.UTC().String()] = true
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d/%d", h.Name, h.Uid, h.Gid)
		}
		fmt.Fprintf(&list, "%v %s/%s %s\n", h.FileInfo().Mode(), h.Uname, h.Gname, strings.TrimPrefix(h.Name, "."))
	}
	if len(times) != 1 {
		t.Errorf("it has several times: %v", times)
	}
	return list.String()
}

// wantGolden compares a list with that in a file, which has NAME for the name of the package.
func wantGolden(t *testing.T, path, name, got string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(string(text), "NAME", name); sorted(got) != sorted(want) {
		t.Errorf("it has\n%s\nand %s wants\n%s", got, path, want)
	}
}

// sorted sorts lines, and leaves out blanks at their ends.
func sorted(lines string) string {
	all := strings.Split(regexp.MustCompile(`(?m) +$`).ReplaceAllString(strings.TrimSpace(lines), ""), "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// output runs a command of this machine, which has to succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var mistakes bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &mistakes
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, &mistakes)
	}
	return string(out)
}

// lintian has no complaint that is not in our overrides.
func TestDebLintian(t *testing.T) {
	for _, pattern := range []string{debOfRelease, allDebOfRelease} {
		path := artifact(t, pattern)
		need(t, "lintian", "lintian")
		out, err := exec.Command("lintian", "--allow-root", "--no-cfg", "--fail-on", "error,warning", path).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
}

// A version before a release is older than the release, to dpkg and to rpm.
func TestPackageVersionsSort(t *testing.T) {
	artifact(t, debOfRelease)
	need(t, "rpm", "rpm")
	for _, tt := range [][2]string{{"1.2.3~rc.1", "1.2.3"}, {"1.2.3~rc.1", "1.2.3~rc.2"}, {"1.2.2", "1.2.3~alpha"}, {"1.2.9", "1.2.10"}} {
		if err := exec.Command("dpkg", "--compare-versions", tt[0], "lt", tt[1]).Run(); err != nil {
			t.Errorf("dpkg: %s is not before %s", tt[0], tt[1])
		}
		if got := strings.TrimSpace(output(t, "rpm", "--eval", fmt.Sprintf(`%%{lua:print(rpm.vercmp("%s", "%s"))}`, tt[0], tt[1]))); got != "-1" {
			t.Errorf("rpm: %s is not before %s: %s", tt[0], tt[1], got)
		}
	}
}

// successor makes a later version of a package of the release, with the same programs. The packaged Corefile is edited by
// sed, if there is a script for that.
func successor(t *testing.T, pattern, format, script string) string {
	t.Helper()
	source := artifact(t, pattern)
	root, unpacked, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "later."+format)
	output(t, "cp", "-r", "../../deploy", "../../man", "../../cmd", "../../CHANGELOG.md", "../../LICENSE", root)
	if script != "" {
		output(t, "sed", "-i", script, filepath.Join(root, "deploy/package/Corefile"))
	}
	output(t, "dpkg-deb", "-x", artifact(t, debOfRelease), unpacked) // the programs are the same in both kinds
	bin := filepath.Join(unpacked, "usr/bin")
	if err := os.Rename(filepath.Join(bin, "coredns-shaker"), filepath.Join(bin, "coredns")); err != nil {
		t.Fatal(err)
	}
	name := "coredns-shaker"
	if strings.HasPrefix(filepath.Base(source), name+"-all") {
		name += "-all"
	}
	cmd := exec.Command("go", "-C", "../../tools", "run", "./package", "-root", root, "-name", name, "-version", "v99.0.0",
		"-binaries", bin, "-format", format, "-out", out)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1800000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// files lists what is on a machine: names, modes, owners, and what is in them.
func (m *machine) files() string {
	m.t.Helper()
	return m.run("sh", "-ec", `find / -xdev \( -path /proc -o -path /root \) -prune -o -printf '%M %u/%g %p %l\n' | sort
		find /etc /usr /var -xdev -type f -print0 | sort -z | xargs -0 md5sum`)
}

// newLines returns the lines of a text that another does not have.
func newLines(text, than string) (lines []string) {
	old := make(map[string]bool)
	for line := range strings.Lines(than) {
		old[line] = true
	}
	for line := range strings.Lines(text) {
		if !old[line] {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// wantVersion wants the programs to be those of the release. The file has their version in its name.
func (m *machine) wantVersion(path string) {
	m.t.Helper()
	match := regexp.MustCompile(`[-_](\d+\.\d+\.\d+.*?)(?:_amd64\.deb|-1\.x86_64\.rpm)$`).FindStringSubmatch(path)
	if match == nil {
		m.t.Fatalf("%s has no version in its name", path)
	}
	version := "v" + match[1]
	for _, program := range [][]string{{"coredns-shaker", "-version"}, {"shaker", "version"}} {
		if got := m.run(program...); !strings.Contains(got, version+"\n") {
			m.t.Errorf("%q says %q, want %s", program, got, version)
		}
	}
}

func (m *machine) wantStatus(name, want string) {
	m.t.Helper()
	if got := m.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name); strings.TrimSpace(got) != want {
		m.t.Errorf("%s is %q, want %q", name, got, want)
	}
}

// From the installation to the purge: what stays and what goes.
func TestDebLife(t *testing.T) {
	first, other := artifact(t, debOfRelease), artifact(t, allDebOfRelease)
	m := newMachine(t)
	later, changed := successor(t, debOfRelease, "deb", ""), successor(t, debOfRelease, "deb", "1i # A later Corefile.")
	before := m.files()

	m.run("dpkg", "-i", m.take(first))
	m.wantVersion(first)
	account := m.run("getent", "passwd", "coredns-shaker")
	if !regexp.MustCompile(`^coredns-shaker:x:\d{3}:\d{3}:CoreDNS with shaker:/nonexistent:/usr/sbin/nologin\n$`).MatchString(account) {
		t.Errorf("its user is %q", account)
	}
	if link := m.run("readlink", "/etc/systemd/system/multi-user.target.wants/coredns-shaker.service"); !strings.HasSuffix(link, "/coredns-shaker.service\n") {
		t.Errorf("it is not enabled: %q", link)
	}
	unchanged := m.read(corefile)

	t.Log("a later version, whose Corefile is another one, brings it")
	m.run("dpkg", "-i", m.take(changed))
	if got := m.read(corefile); got != "# A later Corefile.\n"+unchanged {
		t.Errorf("the Corefile is\n%s", got)
	}
	t.Log("back to the older one")
	m.run("dpkg", "-i", m.take(first))
	if got := m.read(corefile); got != unchanged {
		t.Errorf("the Corefile is\n%s", got)
	}

	t.Log("what somebody has changed stays, and nobody is asked, as long as the Corefile of the package is the same")
	m.append(corefile, "# mine\n")
	m.append(overrides, "192.0.2.7 down # mine\n")
	mine := m.read(corefile)
	m.run("dpkg", "-i", m.take(later))
	if got := m.read(corefile); got != mine {
		t.Errorf("the Corefile is\n%s", got)
	}
	m.run("dpkg", "-i", m.take(first))

	t.Log("where both have changed it, dpkg asks; without somebody to answer it fails, and leaves the Corefile")
	if out, err := m.try("dpkg", "-i", m.take(changed)); err == nil || !strings.Contains(out, "end of file on stdin at conffile prompt") {
		t.Errorf("%v:\n%s", err, out)
	}
	m.run("dpkg", "--force-confdef", "--force-confold", "--configure", "coredns-shaker")
	if got := m.read(corefile); got != mine || m.read(corefile+".dpkg-dist") != "# A later Corefile.\n"+unchanged {
		t.Errorf("the Corefile is\n%s", got)
	}
	m.run("dpkg", "-i", "--force-confold", m.take(first))

	t.Log("all of CoreDNS in its place, and back")
	m.run("dpkg", "-i", m.take(other))
	m.wantStatus("coredns-shaker-all", "ii")
	if got := m.read(corefile); got != mine {
		t.Errorf("the Corefile is\n%s", got)
	}
	m.run("dpkg", "--purge", "coredns-shaker") // its conffiles belong to the other now
	m.wantInstalled(mine)
	m.run("dpkg", "-i", m.take(first))
	m.wantStatus("coredns-shaker", "ii")
	m.run("dpkg", "--purge", "coredns-shaker-all")
	m.wantInstalled(mine)

	t.Log("removed, it keeps its configuration, and takes it up again")
	m.run("dpkg", "--remove", "coredns-shaker")
	m.wantStatus("coredns-shaker", "rc")
	if m.has("/usr/bin/coredns-shaker") || m.read(corefile) != mine {
		t.Error("it is not removed, or the Corefile is not kept")
	}
	m.run("dpkg", "-i", m.take(first))
	m.wantInstalled(mine)

	t.Log("purged, it leaves its user, and what somebody has put there")
	m.write("/var/lib/coredns-shaker/db.example.org", "written by CoreDNS", 0o600)
	m.write("/etc/coredns-shaker/db.example.org", "mine", 0o600)
	m.write("/etc/systemd/system/coredns-shaker.service.d/mine.conf", "[Service]\n", 0o644)
	m.run("dpkg", "--purge", "coredns-shaker")
	left := slices.DeleteFunc(newLines(m.files(), before), func(line string) bool {
		return regexp.MustCompile(` /(etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc/\.pwd\.lock|var/lib/dpkg/(status|available|lock|lock-frontend|triggers/\w+)(-old)?|var/log/dpkg\.log) ?$`).
			MatchString(line)
	})
	want := []string{
		"drwxr-xr-x root/root /etc/coredns-shaker", "-rw------- root/root /etc/coredns-shaker/db.example.org",
		"drwxr-xr-x root/root /etc/systemd/system/coredns-shaker.service.d", "-rw-r--r-- root/root /etc/systemd/system/coredns-shaker.service.d/mine.conf",
	}
	for _, line := range left {
		if !slices.Contains(want, line) && !regexp.MustCompile(`^[0-9a-f]{32}  /etc/(coredns-shaker/db.example.org|systemd/system/coredns-shaker.service.d/mine.conf)$`).MatchString(line) {
			t.Errorf("left behind: %s", line)
		}
	}
	if len(left) != len(want)+2 {
		t.Errorf("%d lines are left: %q", len(left), left)
	}
	if got := m.run("getent", "passwd", "coredns-shaker"); got != account {
		t.Errorf("the user is %q", got)
	}
}

// wantInstalled wants one of the two packages to be complete, with a Corefile.
func (m *machine) wantInstalled(want string) {
	m.t.Helper()
	for _, path := range []string{"/usr/bin/coredns-shaker", "/usr/bin/shaker", overrides, "/etc/systemd/system/multi-user.target.wants/coredns-shaker.service"} {
		if !m.has(path) {
			m.t.Errorf("%s is gone", path)
		}
	}
	if got := m.read(corefile); got != want {
		m.t.Errorf("the Corefile is\n%s", got)
	}
}

// The unit is one that systemd understands, and what it names is there.
func TestUnit(t *testing.T) {
	first := artifact(t, debOfRelease)
	m := newMachine(t)
	need(t, "systemd-analyze", "systemd")
	m.run("dpkg", "-i", m.take(first))
	unit := filepath.Join(m.root, "usr/lib/systemd/system/coredns-shaker.service")
	// The targets that it names are those of systemd, which is not installed there.
	output(t, "cp", "-r", "--no-clobber", "/usr/lib/systemd/system", filepath.Join(m.root, "usr/lib/systemd"))
	out, err := m.outside("systemd-analyze", "verify", "--man=no", "--root="+m.root, "coredns-shaker.service").CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil || text != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, text)
	}
	output(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit)
}

// It serves as the unit says: as its user, with the one capability, and with nothing that it could write.
func TestService(t *testing.T) {
	first := artifact(t, debOfRelease)
	m := newMachine(t)
	need(t, "dig", "bind9-dnsutils")
	m.run("dpkg", "-i", m.take(first))
	s := m.startService()
	lab.Until(t, "dead addresses leave the answer", func() bool { return m.dig("www.example.org") == "127.0.0.1" })
	status := m.run("cat", "/proc/"+s.pid+"/status")
	id := m.run("id", "-u", "coredns-shaker")
	for _, want := range []string{
		"Uid:\t" + strings.TrimSpace(id) + "\t", "NoNewPrivs:\t1", "CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "CapAmb:\t0000000000000400",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	if got := m.run("readlink", "/proc/"+s.pid+"/cwd"); !strings.HasSuffix(got, "/etc/coredns-shaker\n") {
		t.Errorf("it is in %q", got)
	}
	m.run("shaker", "drain", "127.0.0.1", "-for", "1h", "kernel update")
	if targets := m.run("shaker", "targets"); !strings.Contains(targets, "127.0.0.1:1053") || !strings.Contains(m.read(overrides), "kernel update") {
		t.Errorf("shaker targets says\n%s", targets)
	}
	reload := m.unitOf("/usr/lib/systemd/system/coredns-shaker.service")["ExecReload"]
	m.run("sh", "-ec", strings.ReplaceAll(reload, "${MAINPID}", s.pid)) // quoted as for a shell
	lab.Until(t, "it has reloaded", func() bool { return strings.Contains(s.Log.String(), "Reloading complete") })
	s.stop()
}

// What systemd is told when. Each row is a machine that begins without the package.
func TestDebScripts(t *testing.T) {
	first := artifact(t, debOfRelease)
	m := newMachine(t)
	install := []string{"dpkg", "-i", m.take(first)}
	remove, purge := []string{"dpkg", "--remove", "coredns-shaker"}, []string{"dpkg", "--purge", "coredns-shaker"}
	switched := []string{"dpkg", "-i", m.take(artifact(t, allDebOfRelease))}
	const policy, broken, disabled = "/usr/sbin/policy-rc.d", "/run/broken", "/run/disabled"
	for _, tt := range []struct {
		name string
		with []string // files that are there
		acts [][]string
		want []string // what each of the acts told
	}{
		{"from installation to purge", nil, [][]string{install, install, remove, purge},
			[]string{"preset, daemon-reload, start", "daemon-reload", "stop, daemon-reload", "daemon-reload"}},
		{"again after a removal", nil, [][]string{install, remove, install, purge},
			[]string{"preset, daemon-reload, start", "stop, daemon-reload", "daemon-reload, start", "stop, daemon-reload"}},
		{"the other and back", nil, [][]string{install, switched, install, {"dpkg", "--purge", "coredns-shaker-all"}, purge},
			[]string{"preset, daemon-reload, start", "stop, daemon-reload, start", "stop, daemon-reload, start", "", "stop, daemon-reload"}},
		{"policy-rc.d forbids", []string{policy}, [][]string{install, install, remove, purge},
			[]string{"preset, daemon-reload", "daemon-reload", "daemon-reload", "daemon-reload"}},
		{"it neither starts nor stops", []string{broken}, [][]string{install, purge}, []string{"preset, daemon-reload, start", "stop, daemon-reload"}},
		{"somebody has disabled it", []string{disabled}, [][]string{install, purge}, []string{"preset, daemon-reload", "stop, daemon-reload"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := *m
			m.t = t
			m.fakeSystemd()
			for _, path := range tt.with {
				m.write(path, "#!/bin/sh\nexit 101\n", 0o755)
				defer os.Remove(filepath.Join(m.root, path))
			}
			for i, act := range tt.acts {
				out := m.run(act...)
				if got := m.said(); got != tt.want[i] {
					t.Errorf("%q: systemd was told %q, want %q\n%s", act, got, tt.want[i], out)
				}
			}
		})
	}
	t.Run("without systemd", func(t *testing.T) {
		m := *m
		m.t = t
		m.fakeSystemd()
		if err := os.RemoveAll(filepath.Join(m.root, "run/systemd")); err != nil {
			t.Fatal(err)
		}
		for _, act := range [][]string{install, install, remove, purge} {
			m.run(act...)
			if got := strings.TrimPrefix(m.said(), "preset"); got != "" { // a link in /etc
				t.Errorf("%q: systemd was told %q", act, got)
			}
		}
	})
}

// A service that runs is restarted by an upgrade, if the new version takes its Corefile. It is asked as the service is.
func TestDebRestart(t *testing.T) {
	first := artifact(t, debOfRelease)
	m := newMachine(t)
	archive := m.take(first)
	m.fakeSystemd()
	m.run("dpkg", "-i", archive)
	original := m.read(corefile)
	m.said()
	// Neither the Corefile nor what it imports has to be where the unit and this script look for it.
	const mine = "/etc/coredns-shaker/my Corefile"
	m.write(mine, original, 0o644)
	m.write("/home/errors", "errors\n", 0o644)
	s := m.startService("-conf", mine)
	for _, tt := range []struct {
		name, corefile string
		want           string // what systemd was told
		say            string // what the script says
	}{
		{"as it comes", original, "daemon-reload, restart", ""},
		{"broken", strings.Replace(original, "\n        port 1053", "\n        port 0", 1), "daemon-reload", `port: "0" is not a port, want a number from 1 to 65535`},
		{"with the environment of the service", strings.Replace(original, "errors", "{$FROM_THE_UNIT}", 1), "daemon-reload", "Unknown directive 'yes'"},
		{"as its user", strings.Replace(original, "errors", "import /etc/shadow", 1), "daemon-reload", "permission denied"},
		{"without what its unit hides", strings.Replace(original, "errors", "import /home/errors", 1), "daemon-reload", "File to import not found: /home/errors"},
		{"mended", original, "daemon-reload, restart", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := *m
			m.t = t
			m.write(mine, tt.corefile, 0o644)
			out := m.run("dpkg", "--force-confold", "-i", archive)
			if got := m.said(); got != tt.want {
				t.Errorf("systemd was told %q, want %q\n%s", got, tt.want, out)
			}
			if !strings.Contains(out, tt.say) || strings.Contains(out, "does not take the Corefile") != (tt.say != "") {
				t.Errorf("it says\n%s", out)
			}
			m.wantStatus("coredns-shaker", "ii")
		})
	}
	m.run("/var/lib/dpkg/info/coredns-shaker.postinst", "abort-upgrade", "99.0.0")
	if got := m.said(); got != "daemon-reload" {
		t.Errorf("after an upgrade that failed before the program was replaced systemd was told %q", got)
	}
	if got := m.dig("www.example.org"); got != "127.0.0.1" {
		t.Errorf("the old program answers %q", got)
	}
	s.stop()
}

// rpm runs rpm of this machine on another, with a database of its own.
func (m *machine) rpm(args ...string) (string, error) {
	out, err := m.outside(append([]string{"rpm", "--root", m.root, "--nodeps"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(out), err
}

// The life of the RPM. What systemd is told is in the same steps.
func TestRPMLife(t *testing.T) {
	first, other := artifact(t, rpmOfRelease), artifact(t, allRPMOfRelease)
	m := newMachine(t)
	need(t, "rpm", "rpm")
	changed := successor(t, rpmOfRelease, "rpm", "1i # A later Corefile.")
	m.fakeSystemd()
	before := m.files()
	step := func(want string, args ...string) string {
		t.Helper()
		out, err := m.rpm(args...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		if got := m.said(); got != want {
			t.Errorf("%q: systemd was told %q, want %q\n%s", args, got, want, out)
		}
		return out
	}

	step("preset, daemon-reload", "-i", first)
	m.wantVersion(first)
	m.run("getent", "passwd", "coredns-shaker")
	unchanged := m.read(corefile)
	step("", "-V", "coredns-shaker")
	if out, err := m.outside("rpm", "--root", m.root, "-i", "--test", other).CombinedOutput(); err == nil || !strings.Contains(string(out), "coredns-shaker conflicts with coredns-shaker-all") &&
		!strings.Contains(string(out), "conflicts with (installed) coredns-shaker") {
		t.Errorf("both of them: %v\n%s", err, out)
	}

	step("daemon-reload", "-U", changed)
	if got := m.read(corefile); got != "# A later Corefile.\n"+unchanged {
		t.Errorf("the Corefile is\n%s", got)
	}
	step("daemon-reload", "-U", "--oldpackage", first)

	m.append(corefile, "# mine\n")
	s := m.startService()
	step("daemon-reload, restart", "-U", changed)
	if m.read(corefile) != unchanged+"# mine\n" || m.read(corefile+".rpmnew") != "# A later Corefile.\n"+unchanged {
		t.Errorf("the Corefile is\n%s", m.read(corefile))
	}
	m.append(corefile, "nonsense {\n")
	if out := step("daemon-reload", "-U", "--oldpackage", first); !strings.Contains(out, "does not take the Corefile") {
		t.Errorf("it says\n%s", out)
	}
	s.stop()

	step("disable --now, daemon-reload", "-e", "coredns-shaker")
	if m.has("/usr/bin/coredns-shaker") || !strings.HasSuffix(m.read(corefile+".rpmsave"), "# mine\nnonsense {\n") {
		t.Error("it is not gone, or the Corefile is not kept")
	}
	for _, line := range newLines(m.files(), before) {
		if !regexp.MustCompile(` /(etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc/\.pwd\.lock|etc/coredns-shaker(/Corefile.rpm(save|new))?|var/lib/coredns-shaker|(var|usr)/lib(/sysimage)?/(rpm|\.rpm).*|run/.*|run|usr/lib/sysimage|` +
			`usr/lib/sysusers.d|usr/share/(licenses|zsh|zsh/site-functions)) ?$`).MatchString(line) { // the last are the system's, where there is rpm
			t.Errorf("left behind: %s", line)
		}
	}
}
