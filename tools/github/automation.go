package main

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// workflow is what is looked at of one; actionlint knows the rest.
type workflow struct {
	Permissions map[string]string `json:"permissions"`
	Jobs        map[string]struct {
		Timeout int `json:"timeout-minutes"`
		Steps   []struct {
			Uses  string         `json:"uses"`
			Run   string         `json:"run"`
			Shell string         `json:"shell"`
			With  map[string]any `json:"with"`
		} `json:"steps"`
	} `json:"jobs"`
}

var (
	pinned = regexp.MustCompile(`(?m)^ *- uses: ([^@\s]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$`)
	used   = regexp.MustCompile(`(?m)^.*\buses:.*$`)
)

func (c *checker) checkWorkflow(text string) {
	for _, line := range used.FindAllString(text, -1) {
		if !pinned.MatchString(line) {
			c.problem("%q: want - uses: ACTION@COMMIT # vX.Y.Z, with all 40 digits", strings.TrimSpace(line))
		}
	}
	var w workflow
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		c.problem("%v", err)
		return
	}
	if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
		c.problem("its permissions are %v, want contents: read, and more only for the job that needs it", w.Permissions)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(c.read("go.mod"))[1] + ".x"
	for name, job := range w.Jobs {
		if job.Timeout == 0 {
			c.problem("the job %s has no timeout-minutes", name)
		}
		for _, step := range job.Steps {
			if got := step.With["go-version"]; strings.HasPrefix(step.Uses, "actions/setup-go@") && got != want {
				c.problem("the job %s takes Go %v, want that of go.mod, %s", name, got, want)
			}
			if strings.Contains(step.Run, "|") && strings.Contains(step.Run, "tee") && step.Shell != "bash" {
				c.problem("the job %s pipes into tee, want shell: bash, which fails for every part of a pipe", name)
			}
		}
	}
}

// checkDependabot sees to it that it is told of every module, every package.json and the actions, and of nothing else.
func (c *checker) checkDependabot(text string) {
	var config struct {
		Version int `json:"version"`
		Updates []struct {
			Ecosystem   string                         `json:"package-ecosystem"`
			Directory   string                         `json:"directory"`
			Directories []string                       `json:"directories"`
			Schedule    map[string]string              `json:"schedule"`
			Limit       *int                           `json:"open-pull-requests-limit"`
			Groups      map[string]map[string][]string `json:"groups"`
		} `json:"updates"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil {
		c.problem("%v", err)
		return
	}
	told := make(map[string]bool)
	for _, u := range config.Updates {
		for _, directory := range append(u.Directories, u.Directory) {
			if directory != "" {
				told[u.Ecosystem+" "+directory] = true
			}
		}
	}
	there := append(c.directoriesOf("gomod", "go.mod"), c.directoriesOf("npm", "package.json")...)
	for _, what := range append(there, "github-actions /") {
		if !told[what] {
			c.problem("it does not look at %s", what)
		}
		delete(told, what)
	}
	for what := range told {
		c.problem("it looks at %s, where nothing is", what)
	}
}

// directoriesOf returns the directories with a file of that name, as dependabot.yml names them.
func (c *checker) directoriesOf(ecosystem, file string) (all []string) {
	err := fs.WalkDir(c.root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "node_modules", "testdata"}, entry.Name()):
			return fs.SkipDir
		case entry.Name() == file:
			all = append(all, ecosystem+" "+path.Join("/", path.Dir(name)))
		}
		return nil
	})
	if err != nil {
		c.problem("%v", err)
	}
	return all
}
