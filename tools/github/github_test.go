package main

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// Each mistake is made in a copy of one of our files, and has to be found.
func TestMistakesAreFound(t *testing.T) {
	ours := repository(t)
	const (
		bug     = ".github/ISSUE_TEMPLATE/bug.yml"
		config  = ".github/ISSUE_TEMPLATE/config.yml"
		ci      = ".github/workflows/ci.yml"
		updates = ".github/dependabot.yml"
	)
	for _, tt := range []struct{ name, path, old, new, want string }{
		{"none", bug, "", "", ""},
		{"unknown key", bug, "labels: [bug]", "label: [bug]", `unknown field "label"`},
		{"key twice", bug, "labels: [bug]", "labels: [bug]\nlabels: [bug]", `key "labels" already set`},
		{"wrong type", bug, "required: true", "required: certainly", "cannot unmarshal string"},
		{"no name", bug, "name: Something does not work", `name: ""`, "GitHub does not show it"},
		{"nothing to show", bug, "attributes:\n      value: |", "attributes:\n      description: |", "part 1 has no value to show"},
		{"type", bug, "type: textarea\n    id: log", "type: text\n    id: log", `part 5 has the type "text", want markdown, textarea or input`},
		{"id", bug, "id: log", "id: the log", `part 5 has the id "the log"`},
		{"id twice", bug, "id: log", "id: query", `part 5 has the id "query"`},
		{"label twice", bug, "label: Versions", "label: Corefile", `part 6 has the label "Corefile"`},
		{"text without lines", bug, "type: textarea\n    id: log", "type: input\n    id: log", "part 5 has render"},
		{"page", bug, "docs/troubleshooting.md", "docs/trouble.md", "docs/trouble.md: file does not exist"},
		{"heading", bug, "docs/troubleshooting.md", "docs/troubleshooting.md#trouble", "there is no such heading"},
		{"other form", bug, "template=verdict.yml", "template=veredict.yml", "veredict.yml: file does not exist"},
		{"elsewhere", bug, "blob/HEAD/docs", "docs", "want blob/HEAD/PATH"},
		{"relative link", bug, "(https://github.com/coredns-shaker/shaker/blob/HEAD/docs/troubleshooting.md)", "(docs/troubleshooting.md)",
			"the link to docs/troubleshooting.md is not whole"},
		{"program", bug, "`coredns -version`", "`.ci/runs`", ".ci/runs: file does not exist"},
		{"command", bug, "`coredns -version`", "`shaker why`", "`shaker why`: cmd/shaker/README.md has no such command"},
		{"nothing to name", bug, "`coredns -version`", "` `", "` `: there is nothing in it"},
		{"property", bug, "`peers`", "`pears`", "`pears`: README.md has no such property"},
		{"link without a name", config, "name: Troubleshooting", `name: ""`, "lacks a name"},
		{"action by a tag", ci, "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "actions/checkout@v6", "with all 40 digits"},
		{"action without its version", ci, " # v6.0.2", "", "with all 40 digits"},
		{"permissions", ci, "contents: read", "contents: write", "want contents: read"},
		{"first patch of Go", ci, "go-version: 1.26.x", "go-version-file: go.mod", "the job ci takes Go <nil>, want that of go.mod, 1.26.x"},
		{"another Go", ci, "go-version: 1.26.x", "go-version: 1.25.x", "the job ci takes Go 1.25.x, want that of go.mod, 1.26.x"},
		{"no end", ci, "    timeout-minutes: 100\n", "", "the job ci has no timeout-minutes"},
		{"failure lost in a pipe", ci, "        shell: bash\n", "", "want shell: bash"},
		{"module left out", updates, "directory: /tools", "directory: /test/axe", "it does not look at gomod /tools"},
		{"nothing there", updates, "directory: /tools", "directory: /tool", "it looks at gomod /tool, where nothing is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := make(fstest.MapFS)
			for path, file := range ours {
				root[path] = file
			}
			if tt.old != "" {
				text := strings.Replace(string(ours[tt.path].Data), tt.old, tt.new, 1)
				if text == string(ours[tt.path].Data) {
					t.Fatalf("%s has no %q", tt.path, tt.old)
				}
				root[tt.path] = &fstest.MapFile{Data: []byte(text)}
			}
			err := check(root)
			if err == nil && tt.want != "" || err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("found\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// repository returns this repository, with the text of the files that are looked at.
func repository(t *testing.T) fstest.MapFS {
	t.Helper()
	disk, copied := os.DirFS("../.."), make(fstest.MapFS)
	err := fs.WalkDir(disk, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		file := &fstest.MapFile{}
		if !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".sum") {
			if file.Data, err = fs.ReadFile(disk, path); err != nil {
				return err
			}
		}
		copied[path] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return copied
}
