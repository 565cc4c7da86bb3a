package shaker

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each note on a decision is short, has the sections that readers look for, and names tests that hold it, where they are.
// The list has the title of each.
func TestDecisions(t *testing.T) {
	const (
		notes    = "docs/decisions"
		list     = notes + "/README.md"
		maxLines = 60
	)
	sections := []string{"Context", "Decision", "Why", "What was tried instead", "What would change our mind", "Held by"}
	title, heading := regexp.MustCompile(`\A# (.+\?)\n`), regexp.MustCompile(`(?m)^## (.*)$`)
	held := regexp.MustCompile("(?m)^\\* `((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)` in `([^`]+)`: ")
	count := 0
	for _, file := range filesOf(t, ".md") {
		if path.Dir(file) != notes || file == list {
			continue
		}
		count++
		text := readFile(t, file)
		if n := strings.Count(text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines, want %d at most", file, n, maxLines)
		}
		if match := title.FindStringSubmatch(text); match == nil {
			t.Errorf("%s does not begin with a title that is a question", file)
		} else if item := "* [" + match[1] + "](" + path.Base(file) + ")"; !strings.Contains(readFile(t, list), item) {
			t.Errorf("%s does not have the line %q", list, item)
		}
		var got []string
		for _, match := range heading.FindAllStringSubmatch(text, -1) {
			got = append(got, match[1])
		}
		if !slices.Equal(got, sections) {
			t.Errorf("%s has the sections %q, want %q", file, got, sections)
		}
		_, tests, _ := strings.Cut(text, "## Held by\n")
		all := held.FindAllStringSubmatch(tests, -1)
		if len(all) == 0 || len(all) != strings.Count(tests, "\n* ") {
			t.Errorf("%s: what it is held by is not a list of items such as \"* `TestX` in `checker`: what it shows\"", file)
		}
		for _, match := range all {
			if !hasTest(t, match[2], match[1]) {
				t.Errorf("%s: there is no %s in %s", file, match[1], match[2])
			}
		}
	}
	if count == 0 {
		t.Errorf("there are no notes in %s", notes)
	}
}

// hasTest tells whether a test, a fuzz test or a benchmark is in a directory.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "func "+name+"(")
	})
}
