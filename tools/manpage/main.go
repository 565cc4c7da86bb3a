// Command manpage makes the manual page of the README, which has the sections of one, and of the pages in docs that
// whoever operates shaker looks things up in.
//
//	manpage README.md man/coredns-shaker.7
//
// The date in the page is the day on which its text changed last: a page whose text is the same is left as it is.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// chapters are pages beside the README that become sections of the manual page, in this order. How to build shaker, or
// how to move to it, is not among them: who has the manual page installed has done that.
var chapters = []string{"docs/selection.md", "docs/overrides.md", "docs/checks.md", "docs/status.md", "docs/observing.md", "docs/neighbours.md"}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manpage README.md PAGE.7")
		os.Exit(2)
	}
	if err := generate(os.Args[1], chapters, os.Args[2], time.Now().UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "manpage:", err)
		os.Exit(1)
	}
}

// generate writes the page. The paths of the chapters start where the README is.
func generate(readme string, chapters []string, page string, today time.Time) error {
	var sources []source
	for _, path := range append([]string{filepath.Base(readme)}, chapters...) {
		markdown, err := os.ReadFile(filepath.Join(filepath.Dir(readme), path))
		if err != nil {
			return err
		}
		sources = append(sources, source{path, markdown})
	}
	body, err := render(sources[0], sources[1:])
	if err != nil {
		return err
	}
	old, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	title, section, _ := strings.Cut(filepath.Base(page), ".")
	head := fmt.Sprintf("'\\\" t\n.\\\" Made of README.md and docs by tools/manpage.\n.TH %s %s ", title, section)
	if bytes.HasPrefix(old, []byte(head)) && bytes.HasSuffix(old, body) {
		return nil
	}
	source := today.Format(time.DateOnly) + ` CoreDNS "CoreDNS Plugins"` + "\n"
	return os.WriteFile(page, append([]byte(head+source), body...), 0o644)
}
