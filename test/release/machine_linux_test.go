package release

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coredns-shaker/shaker/internal/lab"
)

var debianRoot = flag.String("debian", "", "`directory` that debootstrap --variant=minbase made; it is copied and left as it is")

// machine is what a package is installed on: a copy of a Debian, with network, processes and mounts of its own. It has no
// systemd.
type machine struct {
	t    *testing.T
	root string
	init int // its first process, as the test sees it
}

// newMachine starts a machine, until the end of the test.
func newMachine(t *testing.T) *machine {
	t.Helper()
	needRoot(t)
	if *debianRoot == "" {
		skip(t, "-debian is missing: debootstrap --variant=minbase bookworm /tmp/debian, then go test ./test/release -debian /tmp/debian …")
	}
	m := &machine{t: t, root: t.TempDir()}
	// What apt has downloaded is left out. It is a third.
	copied := exec.Command("sh", "-ec", `(cd "$1" && tar -c --one-file-system --exclude ./var/cache/apt .) | tar -x -p -C "$2"`,
		"sh", *debianRoot, m.root)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("no copy of %s: %v\n%s", *debianRoot, err, out)
	}
	m.write("/etc/dpkg/dpkg.cfg.d/fast", "force-unsafe-io\n", 0o644) // nobody needs it after a crash
	// The first process of a PID namespace takes all others with it. The root is mounted once more because the directory of
	// temporary files may be closed to devices.
	first := exec.Command("sh", "-ec", `mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,dev,suid,exec "$1" &&
		mount -t proc proc "$1/proc" && ip link set lo up && echo up && exec sleep infinity`, "sh", m.root)
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	p := lab.Start(t, first)
	m.init = first.Process.Pid
	lab.Until(t, "the machine is up", func() bool { return strings.Contains(p.Log.String(), "up\n") })
	return m
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "installs packages in a root of its own, which takes root")
	}
}

// need skips the test if this machine lacks a command, whose Debian package it names.
func need(t *testing.T, command, debian string) {
	t.Helper()
	if _, err := exec.LookPath(command); err != nil {
		skip(t, fmt.Sprintf("%s is missing: apt-get install %s", command, debian))
	}
}

// skip skips, and fails where nothing is to be skipped, if there is a release to try.
func skip(t *testing.T, reason string) {
	t.Helper()
	if *folder != "" && os.Getenv("SHAKER_LAB") == "required" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// outside makes a command that sees the machine's network and processes, but the programs of this one.
func (m *machine) outside(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.init), "--mount", "--pid", "--net", "--"}, args...)...)
}

// inside makes a command of the machine's own. Its standard input is empty: whoever asks somebody gets no answer.
func (m *machine) inside(args ...string) *exec.Cmd {
	return m.outside(append([]string{"chroot", m.root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}, args...)...)
}

// run runs a command of the machine's own, which has to succeed, and returns what it says.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// try runs a command of the machine's own, which may fail.
func (m *machine) try(args ...string) (string, error) {
	m.t.Helper()
	out, err := m.inside(args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(out), err
}

// take puts a file of this machine into the other, and returns where it is there.
func (m *machine) take(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	there := filepath.Join("/root", filepath.Base(path))
	m.write(there, string(text), 0o644)
	return there
}

func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) has(path string) bool {
	_, err := os.Lstat(filepath.Join(m.root, path))
	return err == nil
}

// append adds to a file.
func (m *machine) append(path, text string) {
	m.t.Helper()
	m.write(path, m.read(path)+text, 0o644)
}

// fakeSystemd makes the scripts of packages believe that systemd runs. What they tell it is in said.
func (m *machine) fakeSystemd() {
	m.t.Helper()
	m.write("/usr/bin/systemctl", `#!/bin/sh
# What changes nothing here is left out.
for word; do
	shift
	case "$word" in --quiet | --system | --no-reload | --root=* | --preset-mode=*) ;; *) set -- "$@" "$word" ;; esac
done
echo "$*" >>/run/systemctl.said
case "$1" in
is-enabled) test ! -e /run/disabled && echo enabled ;;
is-active) test -e /run/main.pid ;;
show) echo "MainPID=$(cat /run/main.pid 2>/dev/null || echo 0)" ;;
start | stop) test ! -e /run/broken ;;
esac
`, 0o755)
	if err := os.MkdirAll(filepath.Join(m.root, "run/systemd/system"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// said returns what systemd was told since the last time, one command after the other, each once in a row. What only asks is
// left out.
func (m *machine) said() string {
	m.t.Helper()
	if !m.has("/run/systemctl.said") {
		return ""
	}
	var acts []string
	for line := range strings.Lines(m.read("/run/systemctl.said")) {
		if verb, _, _ := strings.Cut(line, " "); verb != "is-enabled" && verb != "is-active" && verb != "show" {
			acts = append(acts, strings.ReplaceAll(strings.TrimSpace(line), " coredns-shaker.service", ""))
		}
	}
	if err := os.Remove(filepath.Join(m.root, "run/systemctl.said")); err != nil {
		m.t.Fatal(err)
	}
	return strings.Join(slices.Compact(acts), ", ")
}

// unitOf reads the unit that is installed: values by key, the last of each.
func (m *machine) unitOf(path string) map[string]string {
	m.t.Helper()
	keys := make(map[string]string)
	for line := range strings.Lines(m.read(path)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			keys[key] = value
		}
	}
	return keys
}

// service is a process of the installed program, run as the unit says.
type service struct {
	*lab.Process
	m   *machine
	pid string // in the machine
}

// startService runs the installed program as its unit says, and with more arguments, as far as that goes without systemd:
// with its user, groups, capabilities, directories, umask and limit of files, and with a root that can only be read and has no
// /home. It notes the process for fakeSystemd.
func (m *machine) startService(arguments ...string) *service {
	m.t.Helper()
	u := m.unitOf("/usr/lib/systemd/system/coredns-shaker.service")
	for _, want := range []string{"User", "Group", "AmbientCapabilities", "CapabilityBoundingSet", "WorkingDirectory", "UMask", "LimitNOFILE", "ExecStart", "StateDirectory"} {
		if u[want] == "" {
			m.t.Fatalf("the unit has no %s=", want)
		}
	}
	if u["ProtectSystem"] != "strict" || u["ProtectHome"] != "yes" || u["NoNewPrivileges"] != "yes" {
		m.t.Fatalf("ProtectSystem=%s, ProtectHome=%s, NoNewPrivileges=%s", u["ProtectSystem"], u["ProtectHome"], u["NoNewPrivileges"])
	}
	m.run("install", "-d", "-m", "755", "-o", u["User"], "-g", u["Group"], "/var/lib/"+u["StateDirectory"])
	s := &service{m: m, Process: lab.Start(m.t, m.outside(append([]string{"unshare", "--mount", "sh", "-ec", `
root=$1; state=$2; shift 2
mount --bind "$root" "$root"
mount --bind "$root/$state" "$root/$state"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/home"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"`, "sh", m.root, "var/lib/" + u["StateDirectory"],
		"env", "-i", "PATH=/usr/bin", "FROM_THE_UNIT=yes", "prlimit", "--nofile=" + m.filesUpTo(u["LimitNOFILE"]),
		"setpriv", "--reuid", u["User"], "--regid", u["Group"], "--init-groups", "--no-new-privs",
		"--inh-caps", "-all" + capabilities(u["AmbientCapabilities"]), "--ambient-caps", "-all" + capabilities(u["AmbientCapabilities"]),
		"--bounding-set", "-all" + capabilities(u["CapabilityBoundingSet"]),
		"sh", "-ec", `umask "$1"; cd "$2"; echo "process $$"; command=$3; shift 3; exec $command "$@"`, "sh", u["UMask"], u["WorkingDirectory"], u["ExecStart"]}, arguments...)...))}
	m.t.Cleanup(s.stop)
	s.UntilNil(func() error {
		if !strings.Contains(s.Log.String(), "example.org.:1053 on 127.0.0.1") {
			return errors.New("the service listens")
		}
		return nil
	})
	if _, after, ok := strings.Cut(s.Log.String(), "process "); ok {
		s.pid, _, _ = strings.Cut(after, "\n")
	}
	m.write("/run/main.pid", s.pid+"\n", 0o644)
	return s
}

// filesUpTo returns a limit of open files, or what this machine allows of it.
func (m *machine) filesUpTo(limit string) string {
	m.t.Helper()
	want, err := strconv.ParseUint(limit, 10, 32)
	var have syscall.Rlimit
	if err := errors.Join(err, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have)); err != nil {
		m.t.Fatal(err)
	}
	return strconv.FormatUint(min(want, have.Max), 10)
}

// capabilities writes those of a unit as setpriv wants them.
func capabilities(unit string) (list string) {
	for name := range strings.FieldsSeq(unit) {
		list += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	return list
}

// stop ends the service as systemd does.
func (s *service) stop() {
	if s.pid == "" {
		return
	}
	s.m.run("sh", "-c", "kill -TERM "+s.pid+"; rm -f /run/main.pid")
	s.pid = ""
	if err := s.Wait(); err != nil {
		s.m.t.Errorf("the service: %v", err)
	}
}

// dig asks the service for addresses.
func (m *machine) dig(name string) string {
	m.t.Helper()
	out, err := m.outside("dig", "-p", "1053", "@127.0.0.1", "+short", name, "A").CombinedOutput()
	if err != nil {
		m.t.Fatalf("dig: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
