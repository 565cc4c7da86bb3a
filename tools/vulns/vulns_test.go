package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	header = `{"config": {"go_version": "go1.26.8", "scan_level": "symbol"}}`
	inUse  = `{"osv": {"id": "GO-2026-7", "summary": "Reader reads"}}
		{"finding": {"osv": "GO-2026-7", "fixed_version": "v1.3.0", "trace": [
			{"module": "example.org/a", "version": "v1.2.0", "package": "example.org/a/b", "function": "Read", "receiver": "*Reader"},
			{"module": "ours", "package": "ours/c", "function": "main", "position": {"filename": "c/main.go", "line": 7}}]}}`
	nowhereMended = `{"finding": {"osv": "GO-2026-8", "trace": [
			{"module": "example.org/a", "version": "v1.2.0", "package": "example.org/a", "function": "F"},
			{"module": "ours", "package": "ours", "function": "G"}]}}`
	justThere = `{"finding": {"osv": "GO-2026-9", "trace": [{"module": "example.org/a", "version": "v1.2.0"}]}}
		{"finding": {"osv": "GO-2026-9", "trace": [{"module": "example.org/a", "version": "v1.2.0", "package": "example.org/a"}]}}`
	olderGo = `{"finding": {"osv": "GO-2026-10", "fixed_version": "v1.26.9", "trace": [
			{"module": "stdlib", "version": "v1.26.8", "package": "net/http", "function": "Serve", "receiver": "*Server"},
			{"module": "ours", "package": "ours", "function": "G"}]}}`
	muchOlderGo = `{"finding": {"osv": "GO-2026-11", "fixed_version": "v1.26.10", "trace": [
			{"module": "stdlib", "version": "v1.26.8", "package": "os", "function": "Open"},
			{"module": "ours", "package": "ours", "function": "G"}]}}`
	everyGo = `{"finding": {"osv": "GO-2026-12", "trace": [
			{"module": "stdlib", "version": "v1.26.8", "package": "os", "function": "Open"},
			{"module": "ours", "package": "ours", "function": "G"}]}}`
)

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name, results, accepted string
		newest                  bool
		out, err                string // all of it
	}{
		{name: "nothing", results: header},
		{name: "called", results: header + inUse, err: "GO-2026-7: Reader reads\n" +
			"\tin example.org/a/b v1.2.0, mended in v1.3.0\n\tcalled: example.org/a/b.Reader.Read by ours/c.main at c/main.go:7"},
		{name: "called in two ways", results: header + inUse + inUse, err: "GO-2026-7: Reader reads\n" +
			"\tin example.org/a/b v1.2.0, mended in v1.3.0\n\tcalled: example.org/a/b.Reader.Read by ours/c.main at c/main.go:7"},
		{name: "called by two modules", results: header + inUse + strings.ReplaceAll(inUse, "ours", "theirs"), err: "GO-2026-7: Reader reads\n" +
			"\tin example.org/a/b v1.2.0, mended in v1.3.0\n\tcalled: example.org/a/b.Reader.Read by ours/c.main at c/main.go:7\n" +
			"\tcalled: example.org/a/b.Reader.Read by theirs/c.main at c/main.go:7"},
		{name: "not mended", results: header + nowhereMended, err: "GO-2026-8: \n\tin example.org/a v1.2.0, mended in no version yet\n\tcalled: example.org/a.F by ours.G"},
		{name: "there, but not called", results: header + justThere},
		{name: "accepted", results: header + inUse, accepted: "# why\n\nGO-2026-7 2026-11-27 We read nothing.\n",
			out: "GO-2026-7: accepted, 2026-11-27 We read nothing.\n"},
		{name: "accepted, and not there", results: header + justThere, accepted: "GO-2026-9 2026-11-27 We read nothing.",
			err: "GO-2026-9 is accepted, and not called any more: take it out of the list"},
		{name: "older Go", results: header + olderGo + muchOlderGo, out: "2 called in the standard library of go1.26.8: build releases with go1.26.10 or newer\n"},
		{name: "older Go, where it has to be the newest", results: header + olderGo, newest: true,
			err: "GO-2026-10: \n\tin net/http v1.26.8, mended in v1.26.9\n\tcalled: net/http.Server.Serve by ours.G"},
		{name: "older Go, accepted", results: header + olderGo, accepted: "GO-2026-10 2026-11-27 Later.",
			out: "1 called in the standard library of go1.26.8: build releases with go1.26.9 or newer\n",
			err: "GO-2026-10 is accepted, and not called any more: take it out of the list"},
		{name: "every Go", results: header + everyGo, err: "GO-2026-12: \n\tin os v1.26.8, mended in no version yet\n\tcalled: os.Open by ours.G"},
		{name: "every Go, accepted", results: header + everyGo, accepted: "GO-2026-12 2026-11-27 We open nothing.",
			out: "GO-2026-12: accepted, 2026-11-27 We open nothing.\n"},
		{name: "ended early", results: "", err: `FILE: results of the level "", want those of the level "symbol"`},
		{name: "looked at modules only", results: `{"config": {"scan_level": "module"}}`, err: `FILE: results of the level "module", want those of the level "symbol"`},
		{name: "cut off", results: header + `{"finding": {`, err: "FILE: unexpected EOF"},
		{name: "no ID", results: header, accepted: "CVE-2026-7 2026-11-27 Why.", err: `LIST: line 1: "CVE-2026-7" is no ID, want one such as GO-2026-1234`},
		{name: "no date", results: header, accepted: "GO-2026-7 We read nothing.", err: `LIST: line 1: GO-2026-7: "We" is no date, want one such as 2026-11-27`},
		{name: "no reason", results: header, accepted: "\nGO-2026-7 2026-11-27", err: "LIST: line 2: GO-2026-7 has no reason, want why it cannot hurt, or why it has to wait"},
		{name: "twice", results: header, accepted: "GO-2026-7 2026-11-27 A.\nGO-2026-7 2026-11-27 B.", err: "LIST: line 2: GO-2026-7 is there twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, file := inFile(t, tt.accepted), inFile(t, tt.results)
			var out bytes.Buffer
			got := ""
			if err := run(&out, list, []string{file}, tt.newest); err != nil {
				got = strings.NewReplacer(list, "LIST", file, "FILE").Replace(err.Error())
			}
			if got != tt.err || out.String() != tt.out {
				t.Errorf("failed with\n%s\nwant\n%s\nand told\n%s\nwant\n%s", got, tt.err, out.String(), tt.out)
			}
		})
	}
}

func inFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// What govulncheck writes is understood: a command here calls something that is vulnerable by testdata.
func TestGovulncheck(t *testing.T) {
	known, err := filepath.Abs("testdata/known")
	if err != nil {
		t.Fatal(err)
	}
	results, err := exec.Command("go", "tool", "govulncheck", "-db", "file://"+filepath.ToSlash(known), "-format", "json", "../compose").Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatal(err)
	}
	err = run(os.Stdout, inFile(t, ""), []string{inFile(t, string(results))}, false)
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{"GO-2026-0001: Made up for a test", "mended in v99.0.0", "called: k8s.io/apimachinery/pkg/util/yaml.UnmarshalStrict by "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("found\n%v\nwithout %q", err, want)
		}
	}
}
