// Command manpage makes the manual pages of the READMEs that have the sections of one. That of the plugin also has the
// pages in docs that whoever operates shaker looks things up in.
//
//	manpage ROOT man/coredns-shaker.7
//	manpage ROOT man/shaker.1
//
// ROOT is the directory of the repository. The page may be anywhere; its name tells what it is made of.
//
// The date in the page is the day on which its text changed last: a page whose text is the same is left as it is.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// manual is what a manual page is made of. Paths start at the root of the repository.
type manual struct {
	readme string
	// without are sections above the name of the README that the manual page does not have.
	without []string
	// chapters are pages beside the README that become sections of the manual page, in this order.
	chapters []string
	// from is what the page belongs to, and the manual that it is in, as man-pages(7) has them for .TH.
	from, in string
}

// manuals are those that there are, by the names of their files.
var manuals = map[string]manual{
	// How to choose, install or build shaker, or how to move to it, is not in it: who has the manual page installed has
	// done that.
	"coredns-shaker.7": {"README.md", []string{"Compared with others", "Install"}, []string{"docs/selection.md", "docs/overrides.md", "docs/checks.md", "docs/status.md", "docs/observing.md", "docs/neighbours.md"},
		"CoreDNS", "CoreDNS Plugins"},
	"shaker.1": {"cmd/shaker/README.md", nil, nil, "shaker", "User Commands"},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manpage ROOT PAGE")
		os.Exit(2)
	}
	m, known := manuals[filepath.Base(os.Args[2])]
	if !known {
		fmt.Fprintf(os.Stderr, "manpage: %s is not a page that can be made, want one of %s\n", os.Args[2],
			strings.Join(slices.Sorted(maps.Keys(manuals)), ", "))
		os.Exit(2)
	}
	if err := m.generate(os.Args[1], os.Args[2], time.Now().UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "manpage:", err)
		os.Exit(1)
	}
}

// generate writes the page.
func (m manual) generate(root, page string, today time.Time) error {
	var sources []source
	for _, path := range append([]string{m.readme}, m.chapters...) {
		markdown, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		sources = append(sources, source{path, markdown})
	}
	body, err := render(sources[0], m.without, sources[1:])
	if err != nil {
		return err
	}
	old, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	title, section, _ := strings.Cut(filepath.Base(page), ".")
	made := m.readme
	if len(m.chapters) > 0 {
		made += " and docs"
	}
	head := fmt.Sprintf("'\\\" t\n.\\\" Made of %s by tools/manpage.\n.TH %s %s ", made, title, section)
	if bytes.HasPrefix(old, []byte(head)) && bytes.HasSuffix(old, body) {
		return nil
	}
	rest := fmt.Sprintf("%s %s %q\n", today.Format(time.DateOnly), m.from, m.in)
	return os.WriteFile(page, append([]byte(head+rest), body...), 0o644)
}
