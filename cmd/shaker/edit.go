package main

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/coredns-shaker/shaker/internal/override"
)

// editor changes files of overrides. It does so safely, whoever else writes them.
type editor struct {
	// add adds a rule.
	add func(path string, r rule, now time.Time) (edited, error)
	// takeBack leaves to its checks what a rule would be about.
	takeBack func(path string, what, reason string, now time.Time) (edited, error)
}

// edited is what was done to a file.
type edited struct {
	lines []string // that were added; none where that is not needed
	notes []string // what else there is to know, a sentence each
}

var files = editor{
	add: func(path string, r rule, _ time.Time) (edited, error) {
		line := r.What + " " + r.Says
		if !r.Until.IsZero() {
			line += " until " + r.Until.UTC().Format(time.RFC3339)
		}
		return appendLine(path, line, r.Reason)
	},
	takeBack: func(path string, what, reason string, _ time.Time) (edited, error) {
		return appendLine(path, what+" auto", reason)
	},
}

// appendLine adds a line, with which the file has to be right.
func appendLine(path, line, reason string) (edited, error) {
	if reason != "" {
		line += "  # " + clean(reason)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return edited{}, err
	}
	add := []byte(line + "\n")
	if len(content) > 0 && !bytes.HasSuffix(content, []byte("\n")) {
		add = append([]byte("\n"), add...)
	}
	if _, err := override.Parse(append(content, add...)); err != nil {
		return edited{}, fmt.Errorf("%s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return edited{}, err
	}
	defer file.Close()
	if _, err := file.Write(add); err != nil {
		return edited{}, err
	}
	return edited{lines: []string{line}}, file.Sync()
}
