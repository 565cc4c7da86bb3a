// Command vulns judges what govulncheck found, as it writes it with -format json, against a list of what was looked at and
// accepted.
//
//	vulns -accepted .ci/vulnerabilities root.json tools.json
//
// It fails for a vulnerable function that is called and was not accepted, and for one that was accepted and is not called
// any more, so that the list does not rot. What is in a module but not called is no failure.
//
// What a newer Go mends in the standard library is told and no failure either: it depends on who builds, not on this
// repository. With -go it is one. So it cannot be accepted; what no Go mends yet can be.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/version"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	accepted := flag.String("accepted", "", "`file` with a line for each vulnerability that was accepted: ID, date and reason")
	newest := flag.Bool("go", false, "fail for what a newer Go mends, too")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: vulns [-go] -accepted FILE RESULTS...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *accepted == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *accepted, flag.Args(), *newest); err != nil {
		fmt.Fprintln(os.Stderr, "vulns:", err)
		os.Exit(1)
	}
}

// run judges the results of several modules together.
func run(out io.Writer, accepted string, results []string, newest bool) error {
	list, err := os.ReadFile(accepted)
	if err != nil {
		return err
	}
	reasons, err := parseAccepted(string(list))
	if err != nil {
		return fmt.Errorf("%s: %w", accepted, err)
	}
	var all report
	for _, path := range results {
		content, err := os.Open(path)
		if err != nil {
			return err
		}
		err = all.read(content)
		content.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return all.judge(out, reasons, newest)
}

// report is what was found in one module or in several.
type report struct {
	goVersion string                // go1.26.8
	known     map[string]summary    // by ID
	called    map[string][]*finding // by ID, each with the calls that lead there
}

type summary struct {
	ID      string `json:"id"`
	Summary string `json:"summary"`
}

// message is one of those that govulncheck writes, with the parts that are used here.
type message struct {
	Config *struct {
		GoVersion string `json:"go_version"`
		Level     string `json:"scan_level"`
	} `json:"config"`
	OSV     *summary `json:"osv"`
	Finding *finding `json:"finding"`
}

type finding struct {
	ID    string `json:"osv"`
	Fixed string `json:"fixed_version"` // v1.26.9; "" if it is mended nowhere
	// Trace begins at what is vulnerable and ends in the module that was looked at. Without a function in the first
	// frame, it says that a module or a package is there, and not that it is called.
	Trace []frame `json:"trace"`
}

type frame struct {
	Module   string `json:"module"`
	Version  string `json:"version"`
	Package  string `json:"package"`
	Receiver string `json:"receiver"`
	Function string `json:"function"`
	Position struct {
		File string `json:"filename"`
		Line int    `json:"line"`
	} `json:"position"`
}

// String is net/http.Server.Serve.
func (f frame) String() string {
	if f.Receiver != "" {
		return f.Package + "." + strings.TrimPrefix(f.Receiver, "*") + "." + f.Function
	}
	return f.Package + "." + f.Function
}

// read adds what govulncheck wrote about one module. That it says nothing of its level is an error: a run that ended early
// has found nothing.
func (r *report) read(from io.Reader) error {
	if r.known == nil {
		r.known, r.called = make(map[string]summary), make(map[string][]*finding)
	}
	level := ""
	for decoder := json.NewDecoder(from); ; {
		var m message
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		switch {
		case m.Config != nil:
			r.goVersion, level = m.Config.GoVersion, m.Config.Level
		case m.OSV != nil:
			r.known[m.OSV.ID] = *m.OSV
		case m.Finding != nil && len(m.Finding.Trace) > 0 && m.Finding.Trace[0].Function != "":
			r.called[m.Finding.ID] = append(r.called[m.Finding.ID], m.Finding)
		}
	}
	if level != "symbol" {
		return fmt.Errorf(`results of the level %q, want those of the level "symbol"`, level)
	}
	return nil
}

const standardLibrary = "stdlib"

// judge tells what was found, and returns an error that names what has to be done.
func (r *report) judge(out io.Writer, reasons map[string]string, newest bool) error {
	var wrong []error
	mended, mendedBy := 0, ""
	for _, id := range sortedIDs(r.called) {
		first := r.called[id][0]
		if first.Trace[0].Module == standardLibrary && first.Fixed != "" && !newest {
			mended++
			if by := "go" + strings.TrimPrefix(first.Fixed, "v"); version.Compare(by, mendedBy) > 0 {
				mendedBy = by
			}
			continue
		}
		if reason, ok := reasons[id]; ok {
			delete(reasons, id)
			fmt.Fprintf(out, "%s: accepted, %s\n", id, reason)
			continue
		}
		wrong = append(wrong, errors.New(r.describe(id)))
	}
	for _, id := range sortedIDs(reasons) {
		wrong = append(wrong, fmt.Errorf("%s is accepted, and not called any more: take it out of the list", id))
	}
	if mended > 0 {
		fmt.Fprintf(out, "%d called in the standard library of %s: build releases with %s or newer\n",
			mended, r.goVersion, mendedBy)
	}
	return errors.Join(wrong...)
}

// describe tells of a vulnerability, what has it, what mends it, and by which calls it is reached, one for each module.
func (r *report) describe(id string) string {
	first := r.called[id][0]
	text := fmt.Sprintf("%s: %s\n\tin %s %s", id, r.known[id].Summary, first.Trace[0].Package, first.Trace[0].Version)
	if first.Fixed == "" {
		text += ", mended in no version yet"
	} else {
		text += ", mended in " + first.Fixed
	}
	shown := make(map[string]bool)
	for _, f := range r.called[id] {
		from, to := f.Trace[len(f.Trace)-1], f.Trace[0]
		if shown[from.Module] {
			continue
		}
		shown[from.Module] = true
		text += fmt.Sprintf("\n\tcalled: %v by %v", to, from)
		if from.Position.File != "" {
			text += fmt.Sprintf(" at %s:%d", from.Position.File, from.Position.Line)
		}
	}
	return text
}

func sortedIDs[V any](of map[string]V) []string {
	var ids []string
	for id := range of {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
