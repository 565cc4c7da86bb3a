// Command github checks what is in .github besides the workflows' syntax, which actionlint knows: the issue forms have the
// form that GitHub takes, and what they lead to and name exists; dependabot looks at every module; workflows use each action by
// the hash of a commit, take the Go of go.mod, and lose no failure in a pipe.
//
//	github ..
//
// The argument is the root of the repository.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: github DIRECTORY")
		os.Exit(2)
	}
	if err := check(os.DirFS(os.Args[1])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("forms, workflows and dependabot.yml fit the repository")
}

// checker looks at a repository and notes what is wrong.
type checker struct {
	root     fs.FS
	path     string // of the file that it is at
	problems []error
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(c.path+": "+format, args...))
}

// check returns all that is wrong.
func check(root fs.FS) error {
	c := &checker{root: root}
	c.each(".github/ISSUE_TEMPLATE/*.yml", func(text string) {
		if filepath.Base(c.path) == "config.yml" {
			c.checkConfig(text)
		} else {
			c.checkForm(text)
		}
		c.checkLinks(text)
		c.checkCommands(text)
	})
	c.each(".github/*.md", c.checkCommands)
	c.each(".github/workflows/*.yml", c.checkWorkflow)
	c.each(".github/dependabot.yml", c.checkDependabot)
	return errors.Join(c.problems...)
}

// each calls f with the text of each file whose name matches; that there is none is a problem.
func (c *checker) each(pattern string, f func(text string)) {
	paths, err := fs.Glob(c.root, pattern)
	slices.Sort(paths)
	c.path = pattern
	if err != nil || len(paths) == 0 {
		c.problem("there is no such file (%v)", err)
	}
	for _, c.path = range paths {
		f(c.read(c.path))
	}
}

// read returns the text of a file, and notes if it is not there.
func (c *checker) read(path string) string {
	text, err := fs.ReadFile(c.root, path)
	if err != nil {
		c.problem("%v", err)
	}
	return string(text)
}
