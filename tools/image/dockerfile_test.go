package main

import (
	"encoding/json"
	"fmt"
	"go/build"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	repository     = "../.."
	dockerfilePath = "deploy/container/Dockerfile"
	module         = "github.com/coredns-shaker/shaker"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Each mistake is made in a copy of our Dockerfile, and has to be found.
func TestDockerfile(t *testing.T) {
	ours, goVersion := readFile(t, dockerfilePath), regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readFile(t, "go.mod"))[1]
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"image without a version", "golang:${GO_VERSION}", "golang", "golang has no version"},
		{"image of any version", "ARG GO_VERSION=1.26", "ARG GO_VERSION=latest", "golang:latest has no version"},
		{"another Go", "ARG GO_VERSION=1.26", "ARG GO_VERSION=1.25", "golang:1.25 is not the Go of go.mod"},
		{"base that is not pinned", "FROM scratch", "FROM debian", "debian has no version"},
		{"another base", "FROM scratch", "FROM debian:13", `target socket is made of debian:13, want scratch`},
		{"stage without a name", "FROM base AS socket", "FROM base", "a stage has no name"},
		{"instruction", "EXPOSE", "VOLUME", "VOLUME is not known here"},
		{"download", "COPY go.mod go.sum ./", "ADD https://example.org/go.mod ./", "ADD is not known here"},
		{"no user", "USER 65532:65532\n", "", `target raw has User "", want "65532:65532"`},
		{"root", "USER 65532:65532", "USER 0:0", `target socket has User "0:0"`},
		{"user with a name", "USER 65532:65532", "USER nonroot", `target all has User "nonroot"`},
		{"root again", "/coredns /coredns\n\nFROM base AS socket", "/coredns /coredns\nUSER root\n\nFROM base AS socket", `target raw has User "root"`},
		{"directory", "WORKDIR /etc/coredns", "WORKDIR /", `target socket has WorkingDir "/", want "/etc/coredns"`},
		{"directory of the user", "WORKDIR /etc/coredns\nUSER 65532:65532\n", "USER 65532:65532\nWORKDIR /etc/coredns\n", "WORKDIR /etc/coredns is after USER, whose it would be"},
		{"entrypoint", `["/coredns"]`, `["/bin/coredns"]`, `target socket has Entrypoint ["/bin/coredns"]`},
		{"entrypoint for a shell", `["/coredns"]`, `/coredns`, `ENTRYPOINT is no list`},
		{"arguments", `"-conf", `, "", `target socket has Cmd ["/etc/coredns/Corefile"]`},
		{"port", "53/tcp ", "", `target socket has ExposedPorts {"53/udp":{}}`},
		{"label", "Apache-2.0", "MIT", `"org.opencontainers.image.licenses":"MIT"`},
		{"label of the version", `version="${VERSION}"`, `version="1"`, `"org.opencontainers.image.version":"1"`},
		{"title", `title="coredns-shaker-all"`, `title="coredns-all"`, `target all has Labels`},
		{"more files", "FROM base AS socket\n", "FROM base AS socket\nCOPY --from=sources /etc/passwd /etc/\n", `target socket has the file /etc/passwd, which the image of a release lacks`},
		{"fewer files", "COPY --from=sources /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/\n", "",
			`target socket lacks the file /etc/ssl/certs/ca-certificates.crt`},
		{"file of the context", "--from=sources /etc/ssl", "/etc/ssl", "/etc/ssl/certs/ca-certificates.crt, which is of no stage"},
		{"no capability", "setcap cap_net_raw=+ep /coredns", "true", `target raw has a program without cap_net_raw`},
		{"capability for all", "FROM base AS socket\nCOPY --from=build ", "FROM base AS socket\nCOPY --from=build-raw ", `target socket has a program with cap_net_raw`},
		{"name of the version", "shaker.release=", "shaker.version=", "target socket has a program that is built by"},
		{"linked to libc", "CGO_ENABLED=0 ", "", "target raw has a program that is built by"},
		{"paths of the builder", "-trimpath ", "", "target socket has a program that is built by"},
		{"variable of another stage", "AS build-all\nARG TARGETOS\n", "AS build-all\n", "RUN has ${TARGETOS}, for which its stage has no ARG"},
		{"variable for labels", "ARG REVISION\n", "", "LABEL has ${REVISION}, for which its stage has no ARG"},
		{"another program", "./cmd/coredns", "./cmd/synping", "target socket has a program that is built by"},
		{"the wrong one", "build-all /coredns", "build /coredns", "target all has a program that is built by"},
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

// dockerfileProblems returns what is wrong, one problem a line. The targets of the Dockerfile have to be what this command
// makes.
func dockerfileProblems(text, goVersion string) string {
	d := dockerfile{goVersion: goVersion, stages: make(map[string]*stage), args: map[string]string{
		"VERSION": "v1.2.3", "REVISION": testCommit, "BUILDPLATFORM": "linux/amd64",
	}}
	d.read(text)
	for target, r := range map[string]*release{
		"socket": {product: products[0]},
		"raw":    {product: products[0], raw: true},
		"all":    {product: products[1]},
	} {
		if s := d.stages[target]; s == nil {
			d.problem("there is no target %s", target)
		} else {
			r.version, r.revision, r.created = "v1.2.3", testCommit, time.Unix(0, 0)
			d.compare(target, s, r)
		}
	}
	if d.last != "socket" {
		d.problem("the last stage is %s, want socket, which docker makes unless it is told another", d.last)
	}
	return d.problems
}

// dockerfile is what a Dockerfile makes, as far as ours goes.
type dockerfile struct {
	goVersion string
	args      map[string]string
	stages    map[string]*stage
	last      string
	problems  string
}

type stage struct {
	image  string          // that it begins with, of others
	args   map[string]bool // that it declares: podman, other than docker, does not hand them down
	config v1.Config
	files  map[string]string // by its path, the stage that a file is from
	runs   []string
}

func (d *dockerfile) problem(format string, args ...any) {
	d.problems += fmt.Sprintf(format+"\n", args...)
}

var (
	comment = regexp.MustCompile(`(?m)^#.*\n`)
	// word is one with quotes around all of it or a part.
	word = regexp.MustCompile(`(?:"[^"]*"|[^\s"])+`)
)

func (d *dockerfile) read(text string) {
	for line := range strings.Lines(strings.ReplaceAll(comment.ReplaceAllString(text, ""), "\\\n", "")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		if instruction == "" {
			continue
		}
		s := d.stages[d.last]
		if s == nil && instruction != "ARG" && instruction != "FROM" {
			d.problem("%s is before the first stage", instruction)
			continue
		}
		expanded := os.Expand(rest, func(name string) string {
			if instruction != "FROM" && !s.args[name] {
				d.problem("%s has ${%s}, for which its stage has no ARG", instruction, name)
			}
			return d.args[name]
		})
		if instruction == "RUN" {
			s.runs = append(s.runs, rest) // whose variables are the shell's
			continue
		}
		rest = expanded
		d.follow(s, instruction, rest, word.FindAllString(rest, -1))
	}
}

// follow does what one instruction says.
func (d *dockerfile) follow(s *stage, instruction, rest string, words []string) {
	switch instruction {
	case "ARG":
		name, value, ok := strings.Cut(rest, "=")
		if ok {
			d.args[name] = value
		}
		if s != nil {
			s.args[name] = true
		}
	case "FROM":
		d.from(words)
	case "COPY":
		d.copyFiles(s, words)
	case "USER":
		s.config.User = rest
	case "WORKDIR":
		if s.config.User != "" {
			d.problem("WORKDIR %s is after USER, whose it would be", rest)
		}
		s.config.WorkingDir = rest
		s.files[rest+"/"] = ""
	case "EXPOSE":
		s.config.ExposedPorts = make(map[string]struct{})
		for _, port := range words {
			s.config.ExposedPorts[port] = struct{}{}
		}
	case "ENTRYPOINT":
		d.list(instruction, rest, &s.config.Entrypoint)
	case "CMD":
		d.list(instruction, rest, &s.config.Cmd)
	case "LABEL":
		s.config.Labels = maps.Clone(s.config.Labels)
		if s.config.Labels == nil {
			s.config.Labels = make(map[string]string)
		}
		for _, w := range words {
			name, value, _ := strings.Cut(w, "=")
			s.config.Labels[name] = strings.Trim(value, `"`)
		}
	default:
		d.problem("%s is not known here", instruction)
	}
}

func (d *dockerfile) list(instruction, rest string, list *[]string) {
	if err := json.Unmarshal([]byte(rest), list); err != nil {
		d.problem("%s is no list: %v", instruction, err)
	}
}

func (d *dockerfile) from(words []string) {
	if len(words) > 0 && strings.HasPrefix(words[0], "--platform=") {
		words = words[1:]
	}
	if len(words) != 3 || words[1] != "AS" {
		d.problem("a stage has no name: FROM %s", strings.Join(words, " "))
		d.last = ""
		return
	}
	s := &stage{image: words[0], args: make(map[string]bool), files: make(map[string]string)}
	if parent := d.stages[words[0]]; parent != nil {
		*s = stage{parent.image, s.args, parent.config, maps.Clone(parent.files), slices.Clone(parent.runs)}
	} else if name, version, _ := strings.Cut(words[0], ":"); name != "scratch" {
		if version == "" || version == "latest" {
			d.problem("%s has no version", words[0])
		} else if name == "golang" && version != d.goVersion {
			d.problem("%s is not the Go of go.mod", words[0])
		}
	}
	d.last = words[2]
	d.stages[d.last] = s
}

func (d *dockerfile) copyFiles(s *stage, words []string) {
	from := ""
	if rest, ok := strings.CutPrefix(words[0], "--from="); ok {
		from, words = rest, words[1:]
		if d.stages[from] == nil {
			d.problem("there is no stage %s to copy from", from)
		}
	}
	to := words[len(words)-1]
	for _, name := range words[:len(words)-1] {
		file := to
		if strings.HasSuffix(to, "/") {
			file = path.Join(to, path.Base(name))
		}
		s.files[file] = from
	}
}

// compare tells what an image of the stage has other than that of a release.
func (d *dockerfile) compare(target string, s *stage, r *release) {
	if s.image != "scratch" {
		d.problem("target %s is made of %s, want scratch", target, s.image)
	}
	want := r.config()
	delete(want.Labels, "org.opencontainers.image.created") // the engine notes the time by itself
	for i := range reflect.TypeFor[v1.Config]().NumField() {
		name, got, want := reflect.TypeFor[v1.Config]().Field(i).Name, reflect.ValueOf(s.config).Field(i), reflect.ValueOf(want).Field(i)
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			d.problem("target %s has %s %s, want %s", target, name, shown(got.Interface()), shown(want.Interface()))
		}
	}
	d.compareFiles(target, s, r)
	d.compareProgram(target, s, r)
}

// shown returns a part of a configuration as JSON.
func shown(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (d *dockerfile) compareFiles(target string, s *stage, r *release) {
	want := make(map[string]bool)
	for _, e := range append(surroundings(), r.program("amd64")) {
		want["/"+e.name] = true
	}
	got := make(map[string]bool)
	for file := range s.files {
		if from := s.files[file]; from == "" && !strings.HasSuffix(file, "/") {
			d.problem("target %s has the file %s, which is of no stage", target, file)
		}
		got[file] = true
		for dir := path.Dir(strings.TrimSuffix(file, "/")); dir != "/"; dir = path.Dir(dir) {
			got[dir+"/"] = true
		}
	}
	for file := range got {
		if !want[file] {
			d.problem("target %s has the file %s, which the image of a release lacks", target, file)
		}
	}
	for file := range want {
		if !got[file] {
			d.problem("target %s lacks the file %s of the image of a release", target, file)
		}
	}
}

// compareProgram tells whether the program of a target is built as those of a release are.
func (d *dockerfile) compareProgram(target string, s *stage, r *release) {
	from := d.stages[s.files["/coredns"]]
	if from == nil {
		return // and was told
	}
	in, what := "", "./"+strings.TrimPrefix(r.main, module+"/")
	if r.product == products[1] {
		in, what = "-C "+strings.TrimPrefix(what, "./")+" ", "." // a module of its own
	}
	const flags = `build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/coredns-shaker/shaker.release=${VERSION}" -o /coredns `
	want := "CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go " + in + flags + what
	var got string
	capable := false
	for _, run := range from.runs {
		run = strings.Join(strings.Fields(regexp.MustCompile(`--mount=\S+`).ReplaceAllString(run, "")), " ")
		if strings.Contains(run, " build ") {
			got = run
		}
		capable = capable || strings.HasSuffix(run, "&& setcap cap_net_raw=+ep /coredns")
	}
	if got != want {
		d.problem("target %s has a program that is built by\n\t%s\nwant\n\t%s", target, got, want)
	}
	if capable != r.raw {
		d.problem("target %s has a program %s cap_net_raw", target, map[bool]string{false: "without", true: "with"}[capable])
	}
}

// What the images are built of is in the context that docker gets, which leaves out what is not named.
func TestDockerignore(t *testing.T) {
	t.Chdir(repository)
	text, err := os.ReadFile(dockerfilePath + ".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	if len(lines) == 0 || lines[0] != "*" {
		t.Fatalf("does not begin by leaving out everything: %q", lines)
	}
	mains, err := filepath.Glob("cmd/coredns*")
	if err != nil {
		t.Fatal(err)
	}
	c := dockerContext{t: t, lines: lines[1:], seen: make(map[string]bool)}
	for _, name := range []string{"go.mod", "go.sum"} {
		c.need(name)
	}
	for _, main := range mains {
		c.visit(main)
		for _, name := range []string{"go.mod", "go.sum"} {
			if _, err := os.Stat(filepath.Join(main, name)); err == nil {
				c.need(filepath.Join(main, name))
			}
		}
	}
	if !c.seen["."] || !c.seen["cmd/coredns"] {
		t.Errorf("looked at %v only", slices.Sorted(maps.Keys(c.seen)))
	}
}

// dockerContext is what docker gets.
type dockerContext struct {
	t     *testing.T
	lines []string
	seen  map[string]bool // directories of packages
}

func (c *dockerContext) need(name string) {
	name = filepath.ToSlash(name)
	if !slices.ContainsFunc(c.lines, func(line string) bool {
		pattern, ok := strings.CutPrefix(line, "!")
		match, err := filepath.Match(pattern, name)
		return ok && err == nil && (match || strings.HasPrefix(name, pattern+"/"))
	}) {
		c.t.Errorf("%s is left out", name)
	}
}

// visit looks at a package and at those of this repository that it imports.
func (c *dockerContext) visit(dir string) {
	if c.seen[dir] {
		return
	}
	c.seen[dir] = true
	p, err := build.ImportDir(dir, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range slices.Concat(p.GoFiles, p.EmbedPatterns) {
		c.need(filepath.Join(dir, name))
	}
	for _, name := range p.Imports {
		if sub, ok := strings.CutPrefix(name+"/", module+"/"); ok {
			c.visit(filepath.Clean("./" + sub))
		}
	}
}
