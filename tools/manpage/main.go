// Command manpage makes the manual page of the README, which has the sections of one.
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

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manpage README.md PAGE.7")
		os.Exit(2)
	}
	if err := generate(os.Args[1], os.Args[2], time.Now().UTC()); err != nil {
		fmt.Fprintln(os.Stderr, "manpage:", err)
		os.Exit(1)
	}
}

func generate(readme, page string, today time.Time) error {
	markdown, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	body, err := render(markdown)
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	old, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	title, section, _ := strings.Cut(filepath.Base(page), ".")
	head := fmt.Sprintf("'\\\" t\n.\\\" Made of README.md by tools/manpage.\n.TH %s %s ", title, section)
	if bytes.HasPrefix(old, []byte(head)) && bytes.HasSuffix(old, body) {
		return nil
	}
	source := today.Format(time.DateOnly) + ` CoreDNS "CoreDNS Plugins"` + "\n"
	return os.WriteFile(page, append([]byte(head+source), body...), 0o644)
}
