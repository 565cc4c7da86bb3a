//go:build unix

package release

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const changelog = `# Changelog

## Unreleased

Something new.

## 1.3.0

No date.

## 1.2.3 - 2026-01-02

### Added

* A thing.

## 1.2.2 - 2026-01-01

## 1.2.0-rc.1 - 2025-12-31

A candidate.
`

// sources makes a directory with the script and a changelog in it, and a program named go that ends where the script begins
// to build. It has told all that was wrong by then.
func sources(t *testing.T) (top string) {
	t.Helper()
	top = t.TempDir()
	script, err := os.ReadFile("../../.ci/release")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(top, ".ci/release"), string(script), 0o755)
	write(t, filepath.Join(top, "CHANGELOG.md"), changelog, 0o644)
	write(t, filepath.Join(top, "bin/go"), "#!/bin/sh\ncase $1 in\nenv) ;;\nversion) echo go version ;;\n*) echo it builds >&2; exit 3 ;;\nesac\n", 0o755)
	return top
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// git runs it without anybody's settings.
func git(t *testing.T, top string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", top, "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", args, err, output)
	}
}

// committed is sources in a commit.
func committed(t *testing.T) (top string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git: ", err)
	}
	top = sources(t)
	git(t, top, "init", "-q")
	git(t, top, "add", ".")
	git(t, top, "commit", "-q", "-m", "first")
	return top
}

// run runs the script in a directory, and returns what it says.
func run(t *testing.T, top, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(top, ".ci/release")}, args...)...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + filepath.Join(top, "bin") + ":" + os.Getenv("PATH"), "HOME=" + top}, env...)
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("it ends with %v, want a failure\n%s", err, output)
	}
	return string(output)
}

const (
	builds   = "it builds\n"
	revision = "REVISION=0123456789abcdef0123456789abcdef01234567"
	epoch    = "SOURCE_DATE_EPOCH=1767323045"
)

func TestScriptArguments(t *testing.T) {
	top, dir := sources(t), t.TempDir()
	write(t, filepath.Join(dir, "file"), "", 0o644)
	write(t, filepath.Join(dir, "full/file"), "", 0o644)
	write(t, filepath.Join(dir, "empty/.keep"), "", 0o644)
	if err := os.Remove(filepath.Join(dir, "empty/.keep")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		want string // the end of what it says
	}{
		{"none", nil, nil, ".ci/release: got 0 arguments, want a version and a folder: .ci/release v1.2.3 /tmp/release\n"},
		{"one", []string{"v1.2.3"}, nil, "got 1 arguments, want a version and a folder: .ci/release v1.2.3 /tmp/release\n"},
		{"without v", []string{"1.2.3", "new"}, nil, "version: \"1.2.3\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"two numbers", []string{"v1.2", "new"}, nil, "\"v1.2\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"a zero before", []string{"v1.02.3", "new"}, nil, "\"v1.02.3\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"a zero before in a candidate", []string{"v1.2.3-rc.01", "new"}, nil, "\"v1.2.3-rc.01\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"a hyphen too many", []string{"v1.2.3-rc-1", "new"}, nil, "\"v1.2.3-rc-1\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"metadata", []string{"v1.2.3+debian", "new"}, nil, "\"v1.2.3+debian\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"a path", []string{"v1.2.3/../x", "new"}, nil, "\"v1.2.3/../x\" is none, want one like v1.2.3 or v1.2.3-rc.1\n"},
		{"no name", []string{"v1.2.3", ""}, nil, "folder: the name is empty, want one like /tmp/release\n"},
		{"nowhere", []string{"v1.2.3", "none/new"}, nil, "folder: there is no directory " + dir + "/none to make new in\n"},
		{"a file", []string{"v1.2.3", "file"}, nil, "folder: " + dir + "/file is a file, want a name that is free\n"},
		{"not empty", []string{"v1.2.3", dir + "/full"}, nil, "folder: " + dir + "/full is not empty, want a name that is free, or an empty folder\n"},
		{"no git", []string{"v1.2.3", "new"}, nil, "REVISION: \"\" is no commit, want 40 hexadecimal digits where there is no git\n"},
		{"a short commit", []string{"v1.2.3", "new"}, []string{"REVISION=0123456"}, "REVISION: \"0123456\" is no commit, want 40 hexadecimal digits where there is no git\n"},
		{"no time", []string{"v1.2.3", "new"}, []string{revision}, "SOURCE_DATE_EPOCH is not set, want the time of the commit where there is no git\n"},
		{"a date", []string{"v1.2.3", "new"}, []string{revision, "SOURCE_DATE_EPOCH=2026-01-02"}, "SOURCE_DATE_EPOCH is \"2026-01-02\", want seconds since 1970\n"},
		{"not in the changelog", []string{"v1.2.4", "new"}, []string{revision, epoch}, "CHANGELOG.md: nothing is told of v1.2.4, want text under \"## 1.2.4 - YYYY-MM-DD\"\n"},
		{"dots are no wildcards", []string{"v1.2.30", "new"}, []string{revision, epoch}, "CHANGELOG.md: nothing is told of v1.2.30, want text under \"## 1.2.30 - YYYY-MM-DD\"\n"},
		{"an empty section", []string{"v1.2.2", "new"}, []string{revision, epoch}, "CHANGELOG.md: nothing is told of v1.2.2, want text under \"## 1.2.2 - YYYY-MM-DD\"\n"},
		{"no date", []string{"v1.3.0", "new"}, []string{revision, epoch}, "CHANGELOG.md: \"## 1.3.0\" has no date, want \"## 1.3.0 - YYYY-MM-DD\"\n"},
		{"good", []string{"v1.2.3", "new"}, []string{revision, epoch}, builds},
		{"good, into an empty folder", []string{"v1.2.3", "empty"}, []string{revision, epoch}, builds},
		{"good, a candidate", []string{"v1.2.0-rc.1", "new"}, []string{revision, epoch}, builds},
		{"good, unreleased", []string{"v0.0.0-ci", "new"}, []string{revision, epoch}, builds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := run(t, top, dir, tt.env, tt.args...); !strings.HasSuffix(got, tt.want) {
				t.Errorf("it says\n%s\nwant\n%s", got, tt.want)
			}
			expectNothingNew(t, dir)
		})
	}
}

// expectNothingNew looks for what a release that failed has left.
func expectNothingNew(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 3 || len(hidden) != 0 {
		t.Errorf("left are %q and %q, %v", left, hidden, err)
	}
}

func TestScriptUnreleased(t *testing.T) {
	top := sources(t)
	write(t, filepath.Join(top, "CHANGELOG.md"), "# Changelog\n\n## 1.2.3 - 2026-01-02\n\n* A thing.\n", 0o644)
	want := "CHANGELOG.md: nothing is told of v1.2.4-rc.1, want text under \"## 1.2.4-rc.1 - YYYY-MM-DD\" or \"## Unreleased\"\n"
	if got := run(t, top, t.TempDir(), []string{revision, epoch}, "v1.2.4-rc.1", "new"); !strings.HasSuffix(got, want) {
		t.Errorf("it says\n%s\nwant\n%s", got, want)
	}
}

func TestScriptMissingCommands(t *testing.T) {
	top := sources(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	// All that comes with every system, and no more.
	few := t.TempDir()
	for _, name := range []string{"bash", "basename", "dirname", "id", "ls"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(few, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), bash, filepath.Join(top, ".ci/release"), "v1.2.3", filepath.Join(few, "new"))
	cmd.Env = []string{"PATH=" + few}
	output, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "sha256sum") || !strings.HasPrefix(string(output), ".ci/release: missing:") {
		t.Errorf("it says\n%s (%v)\nwant what is missing", output, err)
	}
}

// What is released is a commit, and nothing else.
func TestScriptCommit(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, top string)
		want string
	}{
		{"as committed", func(*testing.T, string) {}, builds},
		{"a change", func(t *testing.T, top string) {
			write(t, filepath.Join(top, "CHANGELOG.md"), changelog+"more\n", 0o644)
		}, "only what is committed is released; commit these or put them away:\n M CHANGELOG.md\n"},
		{"a new file", func(t *testing.T, top string) {
			write(t, filepath.Join(top, "new.go"), "package shaker\n", 0o644)
		}, "only what is committed is released; commit these or put them away:\n?? new.go\n"},
		{"the tag", func(t *testing.T, top string) {
			git(t, top, "tag", "-a", "-m", "v1.2.3", "v1.2.3")
		}, builds},
		{"the tag of another commit", func(t *testing.T, top string) {
			git(t, top, "tag", "v1.2.3")
			git(t, top, "commit", "-q", "--allow-empty", "-m", "second")
		}, "version: v1.2.3 is the tag of another commit, want that commit checked out, or a version that is free\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top, dir := committed(t), t.TempDir()
			tt.do(t, top)
			if got := run(t, top, dir, nil, "v1.2.3", "new"); !strings.HasSuffix(got, tt.want) {
				t.Errorf("it says\n%s\nwant\n%s", got, tt.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

const (
	// fakeGo builds programs that are none, and tools that are fakeTool.
	fakeGo = `#!/bin/sh
case $1 in
env) exit ;;
version) echo go version; exit ;;
esac
while [ "$1" != -o ]; do shift; done
case $2 in
*/) for name in archive package image sbom; do cp "$TOOL" "$2$name"; done ;;
*) mkdir -p "$(dirname "$2")" && echo program >"$2" ;;
esac
`
	// fakeTool writes the file that it is told to: that behind -out, or the last. The others are still at it when one fails.
	fakeTool = `#!/bin/sh
[ "$FAILING" != "$(basename "$0")" ] || exit 1
[ "$FAILING" = none ] || sleep 0.1
case "$*" in *-print-name) echo "$2_$6.$8"; exit ;; esac
for last; do [ "$before" != -out ] || out=$last; before=$last; done
echo made >"${out:-$last}"
`
)

// The folder is there in full, or not at all.
func TestScriptHalf(t *testing.T) {
	for _, failing := range []string{"none", "archive", "package", "image", "sbom"} {
		t.Run(failing, func(t *testing.T) {
			top, dir := sources(t), t.TempDir()
			for _, name := range []string{"LICENSE", "README.md", "Corefile.example", "overrides.example", "man/page.1", "deploy/systemd/a.service"} {
				write(t, filepath.Join(top, name), name, 0o600)
			}
			write(t, filepath.Join(top, "bin/go"), fakeGo, 0o755)
			write(t, filepath.Join(top, "tool"), fakeTool, 0o755)
			cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(top, ".ci/release"), "v1.2.3", "new")
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + filepath.Join(top, "bin") + ":" + os.Getenv("PATH"), "TOOL=" + filepath.Join(top, "tool"), "FAILING=" + failing, revision, epoch}
			output, err := cmd.CombinedOutput()
			left, _ := os.ReadDir(dir)
			if failing != "none" {
				if err == nil || !strings.HasSuffix(string(output), ".ci/release: not made, see above\n") || len(left) != 0 {
					t.Errorf("it ends with %v, leaves %v and says\n%s", err, left, output)
				}
				return
			}
			made, _ := os.ReadDir(filepath.Join(dir, "new"))
			if want := strings.Fields(folderFiles); err != nil || len(left) != 1 || len(made) != len(want) {
				t.Errorf("it ends with %v, leaves %v with %v, and says\n%s\nwant %d files", err, left, made, output, len(want))
			}
		})
	}
}
