package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// containerEnv has what becomeContainer needs, in the process that turns into a container.
const containerEnv = "SHAKER_RELEASE_CONTAINER"

func init() {
	text := os.Getenv(containerEnv)
	if text == "" {
		return
	}
	var c container
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.become()
	}
	fmt.Fprintf(os.Stderr, "container: %v\n", err)
	os.Exit(125)
}

// container is a program in namespaces of its own, as engines make them: its file system is that of an image and cannot be
// written, it is process 1, and it has the user, the directory and the environment that the image asks for, and no
// capabilities but these.
type container struct {
	Root            string            // the directory with the files of the image
	Volumes         map[string]string // what is mounted read-only, by the path in the container
	Config          imageConfig
	Capabilities    []int // those in the bounding set, which are what a container "has" before its user is considered
	NoNewPrivileges bool
}

// newContainer unpacks an image, with places for the file systems that engines mount.
func newContainer(t *testing.T, i *image) *container {
	t.Helper()
	c := &container{Root: filepath.Join(t.TempDir(), "root"), Config: i.Config, NoNewPrivileges: true}
	unpackImage(t, i, c.Root)
	if err := os.Mkdir(filepath.Join(c.Root, "proc"), 0o555); err != nil {
		t.Fatal(err)
	}
	return c
}

// mountCorefile puts a Corefile where the image looks for it, in a directory as docs/deployment.md advises.
func (c *container) mountCorefile(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	lab.FileIn(t, dir, "Corefile", text)
	// t.TempDir is for its owner only, and the user of the image is another.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "Corefile"), 0o644)); err != nil {
		t.Fatal(err)
	}
	c.Volumes = map[string]string{"/etc/coredns": dir}
}

// start starts the program with further arguments in place of those of the image, if there are any.
func (c *container) start(t *testing.T, args ...string) *lab.Process {
	t.Helper()
	if len(args) > 0 {
		c.Config.Cmd = args
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = []string{containerEnv + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	return lab.Start(t, cmd)
}

// become turns this process into the program of the container. It only returns if it cannot.
func (c *container) become() error {
	// Capabilities and the like are a thread's, and this is the one that becomes the program.
	runtime.LockOSThread()
	if err := c.enterRoot(); err != nil {
		return err
	}
	if err := c.dropPrivileges(); err != nil {
		return err
	}
	argv := slices.Concat(c.Config.Entrypoint, c.Config.Cmd)
	// In the words of an engine.
	return fmt.Errorf("exec %s: %w", argv[0], unix.Exec(argv[0], argv, c.Config.Env))
}

// enterRoot makes the files of the image all that there are.
func (c *container) enterRoot() error {
	inside := func(path string) string { return filepath.Join(c.Root, path) }
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		// Nothing that follows is seen outside.
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{c.Root, c.Root, "", unix.MS_BIND},
		{"proc", inside("proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{inside("proc/sys"), inside("proc/sys"), "", unix.MS_BIND},
		{"", inside("proc/sys"), "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	}
	for target, source := range c.Volumes {
		mounts = append(mounts, mounts[1], mounts[4])
		mounts[len(mounts)-2].source, mounts[len(mounts)-2].target = source, inside(target)
		mounts[len(mounts)-1].target = inside(target)
	}
	mounts = append(mounts, mounts[4])
	mounts[len(mounts)-1].target = c.Root
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	if err := unix.Chdir(c.Root); err != nil {
		return err
	}
	// The old root lies on top of the new one then (pivot_root(2)), and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount: %w", err)
	}
	return unix.Chdir(c.Config.WorkingDir)
}

// dropPrivileges makes this thread one of the user of the image.
func (c *container) dropPrivileges() error {
	user, group, _ := strings.Cut(c.Config.User, ":")
	uid, err := strconv.Atoi(user)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		return err
	}
	for number := 0; ; number++ {
		if slices.Contains(c.Capabilities, number) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the kernel has no more of them
		} else if err != nil {
			return fmt.Errorf("prctl PR_CAPBSET_DROP: %w", err)
		}
	}
	// Who was root and is not loses all other capabilities with that (capabilities(7)).
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)); err != nil {
		return err
	}
	if c.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
		}
	}
	// The change of the user has cleared it.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// unpackImage writes the files of an image into a new directory, as root: with owner, mode, time and attributes.
func unpackImage(t *testing.T, i *image, root string) {
	t.Helper()
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range i.files {
		path := filepath.Join(root, f.Name)
		var err error
		if f.FileInfo().IsDir() {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, f.content, 0o600)
		}
		// A new owner takes capabilities away, and so comes first.
		err = errors.Join(err, os.Lchown(path, f.Uid, f.Gid), os.Chmod(path, f.FileInfo().Mode()))
		for key, value := range f.PAXRecords {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				err = errors.Join(err, unix.Lsetxattr(path, name, []byte(value), 0))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Afterwards, since a file changes the time of its directory.
	for _, f := range slices.Backward(i.files) {
		if err := os.Chtimes(filepath.Join(root, f.Name), time.Time{}, f.ModTime); err != nil {
			t.Fatal(err)
		}
	}
}

// treeOf returns what is in a directory, a line for each file that tells everything but its content.
func treeOf(t *testing.T, root string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		s := info.Sys().(*syscall.Stat_t)
		lines = append(lines, fmt.Sprintf("%s %v %d:%d %d octets, of %v, changed at %d.%09d", path, info.Mode(), s.Uid, s.Gid, s.Size, info.ModTime(), s.Ctim.Sec, s.Ctim.Nsec))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
