package shaker

import (
	"fmt"
	"go/build"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dockerfilePath = "deploy/container/Dockerfile"

// Each mistake is made in a copy of our Dockerfile, and has to be found.
func TestDockerfile(t *testing.T) {
	ours, goVersion := readFile(t, dockerfilePath), regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readFile(t, "go.mod"))[1]
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"image without a version", "golang:${GO_VERSION}", "golang", "golang has no version"},
		{"image of any version", "ARG GO_VERSION=1.26", "ARG GO_VERSION=latest", "golang:latest has no version"},
		{"another Go", "ARG GO_VERSION=1.26", "ARG GO_VERSION=1.25", "golang:1.25 is not the Go of go.mod"},
		{"base that is not pinned", "FROM scratch", "FROM debian", "debian has no version"},
		{"no user", "USER 65532:65532\n", "", `stage raw runs as ""`},
		{"root", "USER 65532:65532", "USER 0:0", `stage socket runs as "0:0"`},
		{"user with a name", "USER 65532:65532", "USER nonroot", `stage socket runs as "nonroot"`},
		{"root again", "/coredns /coredns\n\nFROM", "/coredns /coredns\nUSER root\n\nFROM", `stage raw runs as "root"`},
		{"download", "COPY go.mod go.sum ./", "ADD https://example.org/go.mod ./", "ADD"},
		{"name of the version", "shaker.release=", "shaker.version=", "shaker.version is not shaker.release"},
		{"linked to libc", "CGO_ENABLED=0 ", "", "CGO_ENABLED=0"},
		{"another program", "./cmd/coredns", "./cmd/synping", "./cmd/coredns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := ours
			if tt.old != "" {
				if text = strings.Replace(ours, tt.old, tt.new, 1); text == ours {
					t.Fatalf("the Dockerfile has no %q", tt.old)
				}
			}
			if got := dockerfileProblems(text, goVersion); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// dockerfileProblems returns what is wrong, one problem a line.
func dockerfileProblems(dockerfile, goVersion string) (problems string) {
	problem := func(format string, args ...any) { problems += fmt.Sprintf(format+"\n", args...) }
	var (
		stage string
		args  = make(map[string]string)
		user  = map[string]string{"scratch": ""} // by stage
		used  = map[string]bool{"scratch": true} // stages that others are made of
	)
	dockerfile = regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(dockerfile, "")
	for line := range strings.Lines(strings.ReplaceAll(dockerfile, "\\\n", "")) {
		words := strings.Fields(os.Expand(line, func(name string) string { return args[name] }))
		if len(words) < 2 {
			continue
		}
		for _, word := range words {
			if from, ok := strings.CutPrefix(word, "--from="); ok {
				used[from] = true
			}
		}
		last := words[len(words)-1]
		switch words[0] {
		case "ARG":
			name, value, _ := strings.Cut(last, "=")
			args[name] = value
		case "FROM":
			if len(words) < 4 {
				problem("a stage has no name: %s", line)
				continue
			}
			image := words[len(words)-3]
			stage = last
			if _, ours := user[image]; !ours {
				name, version, _ := strings.Cut(image, ":")
				if version == "" || version == "latest" {
					problem("%s has no version", image)
				} else if name == "golang" && version != goVersion {
					problem("%s is not the Go of go.mod", image)
				}
			}
			user[stage], used[image] = user[image], true
		case "USER":
			user[stage] = last
		case "ADD":
			problem("%s: COPY says where files come from", words[0])
		case "RUN":
			if version := regexp.MustCompile(`-X \S+/(\S+)=`).FindStringSubmatch(line); version != nil && version[1] != "shaker.release" {
				problem("%s is not shaker.release", version[1])
			}
			if strings.Contains(line, "go build") && (!slices.Contains(words, "CGO_ENABLED=0") || last != "./cmd/coredns") {
				problem("it is CGO_ENABLED=0 go build ./cmd/coredns that is documented")
			}
		}
	}
	for _, stage := range slices.Sorted(maps.Keys(user)) {
		if !used[stage] && !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user[stage]) {
			problem("stage %s runs as %q", stage, user[stage])
		}
	}
	return problems
}

// What the image is built of is in the context that docker gets, which leaves out what is not named.
func TestDockerignore(t *testing.T) {
	lines := strings.Fields(readFile(t, dockerfilePath+".dockerignore"))
	if len(lines) == 0 || lines[0] != "*" {
		t.Fatalf("does not begin by leaving out everything: %q", lines)
	}
	within := func(path string) bool {
		return slices.ContainsFunc(lines[1:], func(line string) bool {
			pattern, ok := strings.CutPrefix(line, "!")
			match, err := filepath.Match(pattern, path)
			return ok && err == nil && (match || strings.HasPrefix(path, pattern+"/"))
		})
	}
	seen := make(map[string]bool)
	var visit func(dir string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		p, err := build.ImportDir(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(p.GoFiles, p.EmbedPatterns) {
			if path := filepath.ToSlash(filepath.Join(dir, name)); !within(path) {
				t.Errorf("%s is left out", path)
			}
		}
		for _, path := range p.Imports {
			if sub, ok := strings.CutPrefix(path+"/", module+"/"); ok {
				visit(filepath.Clean("./" + sub))
			}
		}
	}
	visit("cmd/coredns")
	if !seen["."] || !within("go.mod") || !within("go.sum") {
		t.Errorf("looked at %v only", slices.Sorted(maps.Keys(seen)))
	}
}
